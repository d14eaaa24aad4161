"""Failpoints: what is listed is in the code and on the page; a point that is not armed does nothing."""

from __future__ import annotations

import ast
import errno
import os
import re
import signal
import subprocess
import sys

import pytest

from learner_jax import failpoints
from learner_jax.errors import ConfigError

NAME = "coordinator.spool.before_fsync"


@pytest.fixture(autouse=True)
def _disarmed():
    yield
    failpoints.arm(None)


def patterns(root) -> list[str]:
    """Of each `here(...)` in the package, a regular expression of the names that it can mark."""
    found = []
    for path in (root / "learner_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "failpoints.here":
                (text,) = node.args
                parts = text.values if isinstance(text, ast.JoinedStr) else [text]
                found.append("".join(re.escape(str(p.value)) if isinstance(p, ast.Constant) else ".+" for p in parts))
    return found


def test_every_name_is_in_the_code_and_every_place_has_a_name(root):
    found = patterns(root)
    assert len(failpoints.NAMES) == len(set(failpoints.NAMES)) > 25
    assert [name for name in failpoints.NAMES if not any(re.fullmatch(one, name) for one in found)] == []
    assert [one for one in found if not any(re.fullmatch(one, name) for name in failpoints.NAMES)] == []


def test_the_page_has_them_all_in_their_order(root):
    rows = re.findall(
        r"^\| `([a-z_.]+)` \|(.+)\|(.+)\|(.+)\|$", (root / "docs" / "survival.md").read_text(), re.MULTILINE
    )
    assert [row[0] for row in rows] == list(failpoints.NAMES)
    assert all(len(cell.strip()) > 3 for row in rows for cell in row)


def test_the_disk_refuses_once_at_the_occurrence_asked_for():
    failpoints.here(NAME)
    failpoints.arm(f"{NAME}:2:enospc")
    failpoints.here(NAME)
    failpoints.here("coordinator.spool.before_write")
    with pytest.raises(OSError) as caught:
        failpoints.here(NAME)
    assert caught.value.errno == errno.ENOSPC and caught.value.strerror == os.strerror(errno.ENOSPC)
    failpoints.here(NAME)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("coordinator.spool.before_fsnc:1", "no point 'coordinator.spool.before_fsnc'"),
        (f"{NAME}:0", "expected NAME:OCCURRENCE"),
        (NAME, "expected NAME:OCCURRENCE"),
        (f"{NAME}:1:explode", r"kill\|stop\|enospc\|eio"),
        ("coordinator.round.before_reduce:1:eio", "expected a point of the disk"),
        ("h00/site.round.mid_training:x", "expected NAME:OCCURRENCE"),
    ],
)
def test_what_cannot_be_armed_is_one_line(text, match):
    with pytest.raises(ConfigError, match=match):
        failpoints.arm(text)


def test_a_point_of_a_site_is_handed_to_that_site_and_once():
    def given(text: str, site: str = "h01", again: bool = False) -> str | None:
        return failpoints.handed_on({failpoints.VARIABLE: text, "A": "b"}, site, again).get(failpoints.VARIABLE)

    assert given("h01/site.round.mid_training:2") == given("site.round.mid_training:2") == "site.round.mid_training:2"
    assert given("h00/site.round.mid_training:2") is None
    assert given("h01/site.round.mid_training:2", again=True) is None
    assert failpoints.handed_on({"A": "b"}, "h01", False) == {"A": "b"}
    failpoints.arm("h01/site.round.mid_training:1")  # not here
    failpoints.here("site.round.mid_training")


def test_a_process_is_killed_at_its_point_or_answers_in_one_line():
    def run(text: str) -> tuple[int, str]:
        code = "import sys\nfrom learner_jax.cli.main import main\nsys.exit(main(['data', 'list']))"
        environment = {**os.environ, failpoints.VARIABLE: text}
        ran = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        return ran.returncode, ran.stderr

    assert run(f"{NAME}:1")[0] == 0
    code, said = run("coordinator.spool.before_fsnc:1")
    assert (code, len(said.splitlines())) == (2, 1)
    code = f"from learner_jax import failpoints\nfailpoints.arm('{NAME}:2')\n" + f"failpoints.here('{NAME}')\n" * 2
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
