"""Two processes that `jax.distributed` joins simulate one study together: real processes, gloo between them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner_jax.engines import machines
from learner_jax.errors import ConfigError

ROUNDS = 12
PROGRAM = f"""
import os, sys, time
import numpy as np, optax
import learner_jax as lr
from learner_jax.engines import machines
from learner_jax.models import mlp

where, folder, late = sys.argv[1], sys.argv[2], float(sys.argv[3])
if where != "alone":
    machines.join(where)
draw, sites = np.random.default_rng(0), {{}}
for k, rows in enumerate((40, 25, 60, 8, 33, 17, 50)):
    x = draw.normal(loc=0.2 * k, size=(rows, 4))
    sites[f"site-{{k}}"] = (x, (x[:, 0] + draw.normal(size=rows) > 0.3 * k).astype(float))
if "other rows" in sys.argv:
    sites["site-3"][0][5, 2] += 0.001

def told(event):
    if event.kind == "round_open":
        print("round", event.round, flush=True)
        time.sleep(late)

run = lr.simulate(
    lr.Task(mlp(hidden=(5,)), optax.sigmoid_binary_cross_entropy, (lr.auroc,)), sites=sites,
    workdir=None if folder == "-" else folder, on_event=told, target="valid/auroc", rounds={ROUNDS}, batch_size=8,
    cohort=5, algorithm=lr.scaffold(local_lr=0.05), precision="float64", patience=9,
    references=("local_only", "pooled") if "references" in sys.argv else (),
)
if machines.first():
    curve = run.metrics
    leaves = {{name: leaf.ravel().tolist() for name, leaf in lr_leaves(run).items()}}
    import json
    print("found", json.dumps({{"leaves": leaves, "loss": list(curve["train/loss"]),
                              "cohorts": run.result["evaluation"]["cohorts"]}}), flush=True)
"""
LEAVES = """
from learner_jax import trees
def lr_leaves(run):
    return {name: np.asarray(leaf) for name, leaf in trees.named_leaves(run.model.weights).items()}
"""


class Started:
    """A process of the program."""

    def __init__(self, script: Path, where: str, folder: str, late: float = 0.0, devices: int = 1, *more: str):
        environment = dict(os.environ) | {
            "NPROC": "1", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu",
        }  # fmt: skip
        command = [sys.executable, str(script), where, folder, str(late), *more]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        text=True)  # fmt: skip

    def ended(self) -> tuple[int, str]:
        """(exit code, all that it printed)."""
        try:
            said, _ = self.process.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, said


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("program") / "program.py"
    path.write_text(textwrap.dedent(LEAVES) + PROGRAM)
    return path


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def together(script: Path, folder: str, late: float = 0.0, devices: int = 1, *more: str) -> list[Started]:
    port = _port()
    return [Started(script, f"127.0.0.1:{port},2,{index}", folder, late, devices, *more) for index in (0, 1)]


def found(said: str) -> dict[str, Any]:
    return json.loads(said.rpartition("found ")[2])


@pytest.fixture(scope="module")
def alone(script) -> dict[str, Any]:
    code, said = Started(script, "alone", "-").ended()
    assert code == 0, said
    return found(said)


def near(a: Any, b: Any) -> bool:
    """Of JSON: the same but for the last digits of a number."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(near(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(near, a, b))
    return abs(a - b) <= 1e-9 if isinstance(a, float) and isinstance(b, float) else a == b


def same(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, leaf in wanted["leaves"].items():
        np.testing.assert_allclose(got["leaves"][name], leaf, rtol=0, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(got["loss"], wanted["loss"], rtol=0, atol=1e-9)
    assert near(got["cohorts"], wanted["cohorts"])


@pytest.mark.soak
def test_a_process_that_reads_other_rows_is_refused(script):
    port = _port()
    first = Started(script, f"127.0.0.1:{port},2,0", "-")
    second = Started(script, f"127.0.0.1:{port},2,1", "-", 0.0, 1, "other rows")
    (code, said), (other, refused) = first.ended(), second.ended()
    assert code != 0 and other != 0, f"{said}\n{refused}"
    assert "processes: expected the rows that the first process reads, got others here" in refused
    assert "found {" not in said


def test_two_processes_find_what_one_finds(script, alone, tmp_path):
    folder = tmp_path / "run"
    first, second = together(script, str(folder))
    (code, said), (other, quiet) = first.ended(), second.ended()
    assert (code, other) == (0, 0), f"{said}\n{quiet}"
    same(found(said), alone)
    assert f"round {ROUNDS}" in said and "round" not in quiet.replace("Gloo", "")
    assert (folder / "result.json").exists() and (folder / "checkpoints" / str(ROUNDS)).is_dir()
    # ---- the same once more: finished, said by the first, believed by the other
    again = [one.ended() for one in together(script, str(folder))]
    assert [code for code, _ in again] == [0, 0], again
    same(found(again[0][1]), alone)


@pytest.mark.soak
@pytest.mark.parametrize("devices", [2, 5])
def test_two_processes_of_more_devices_train_the_references_too(script, tmp_path, devices):
    """Five devices in each are more than there are sites: three of each have some of the seven."""
    code, said = Started(script, "alone", "-", 0.0, 1, "references").ended()
    assert code == 0, said
    first, second = together(script, str(tmp_path / "run"), 0.0, devices, "references")
    (code, told), (other, quiet) = first.ended(), second.ended()
    assert (code, other) == (0, 0), f"{told}\n{quiet}"
    same(found(told), found(said))


@pytest.mark.soak
def test_killed_in_the_middle_they_go_on_to_the_same_end(script, alone, tmp_path):
    folder = tmp_path / "run"
    first, second = together(script, str(folder), late=1.0)
    assert first.process.stdout is not None
    while "round 8" not in first.process.stdout.readline():
        assert first.process.poll() is None
    first.process.send_signal(signal.SIGKILL)
    first.process.communicate()
    assert second.ended()[0] != 0, "it went on without the first"
    assert [path for path in (folder / "checkpoints").iterdir() if path.name.isdigit()]
    first, second = together(script, str(folder))
    (code, said), (other, quiet) = first.ended(), second.ended()
    assert (code, other) == (0, 0), f"{said}\n{quiet}"
    assert "round 1\n" not in said
    same(found(said), alone)


@pytest.mark.parametrize("where", ["", "host", "host:1", "host:1,2", "host:1,2,2", "host:1,0,0", "a b:1,2,0", "autos"])
def test_where_they_meet_is_one_line(where):
    with pytest.raises(ConfigError, match=r"^processes: expected 'auto' or HOST:PORT,COUNT,INDEX, such as .* got"):
        machines.join(where)
