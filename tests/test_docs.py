"""The pages are true: links lead somewhere, commands and names that they speak of exist, their code runs."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest

from learner_jax.cli import config, flags, help
from learner_jax.specs import Federation, Spec, Study


def pages(root: Path) -> list[Path]:
    return [*sorted(root.glob("*.md")), *sorted((root / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """Every `learner` command of a page, split into words, comments cut."""
    found = []
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and Path(words[0]).name == "learner":
                found.append(words[1:])
    return found


def test_links_lead_to_files(root):
    dead = []
    for page in pages(root):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not re.match(r"https?:|mailto:", target) and not (page.parent / target).exists():
                dead.append(f"{page.relative_to(root)}: {target}")
    assert dead == []


def test_readme_is_short_and_opens_with_a_picture(root):
    lines = (root / "README.md").read_text().splitlines()
    assert len(lines) <= 130
    assert lines[2].startswith("![") and "docs/images/learner.svg" in lines[2]


def test_make_targets_that_pages_name_exist(root):
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(page.read_text() for page in pages(root))
    named = set(re.findall(r"(?:`|^\s*)make ([a-z-]+)", text, re.MULTILINE))
    assert {"demo", "test", "soak", "lint", "bench", "bundle", "help"} <= targets
    assert named and named <= targets


def test_every_page_is_in_the_menu(root):
    menu = (root / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = re.findall(r"^  - .+: (\S+\.md)$", menu, re.MULTILINE)
    assert sorted(listed) == sorted(page.name for page in (root / "docs").glob("*.md"))


def test_the_pages_are_built_so_that_a_warning_ends_it(root):
    """mkdocs counts no warning that --quiet hides, and --strict goes by the count."""
    (line,) = [line for line in (root / "Makefile").read_text().splitlines() if "mkdocs build" in line]
    assert "--strict" in line and "--quiet" not in line and " -q" not in line


def test_a_promise_names_the_test_file_that_holds_it(root):
    """In SECURITY.md and the threat model; a folder would be there whatever is in it."""
    text = "".join((root / page).read_text() for page in ("SECURITY.md", "docs/threat-model.md"))
    named = re.findall(r"`(tests/[^`]*)`", text)
    assert named and [one for one in named if not (root / one).is_file()] == []
    assert "canary" in (root / "tests/federation/test_canary.py").read_text().lower()


def test_the_danger_of_the_tap_is_told(root):
    for page in ("SECURITY.md", "docs/threat-model.md"):
        (told,) = [part for part in (root / page).read_text().split("\n\n") if "LEARNER_TAP=FOLDER" in part]
        assert "in the clear" in told and "loud line" in told


def test_no_date_of_a_release_that_has_not_been(root):
    version = re.findall(r"^version: (\S+)$", (root / "CITATION.cff").read_text(), re.MULTILINE)[0]
    (heading,) = [line for line in (root / "CHANGELOG.md").read_text().splitlines() if line.startswith(f"## {version}")]
    assert ("date-released" in (root / "CITATION.cff").read_text()) == ("(unreleased)" not in heading)


def test_the_quorum_that_is_told_is_the_one_that_holds(root):
    from learner_jax.engines.coordinator import quorum

    study = Study(name="s", task=Spec("tasks", "readmission"))
    assert [quorum(study, asked) for asked in (1, 4, 5)] == [1, 3, 3]  # more than half
    assert "None: more than half" in " ".join((Federation.__doc__ or "").split())
    assert "more than half of those asked" in (root / "docs" / "how-a-round-travels.md").read_text()


@pytest.fixture
def fedmomentum(root, tmp_path, monkeypatch) -> str:
    """The method of docs/your-own-method.md, installed from the page as pip would install it; its source."""
    page = root / "docs" / "your-own-method.md"
    (source,), (project,) = blocks(page, "python"), blocks(page, "toml")
    (tmp_path / "fedmomentum.py").write_text(source)
    points = tomllib.loads(project)["project"]["entry-points"]
    lines = [f"[{group}]\n{name} = {value}" for group, found in points.items() for name, value in found.items()]
    info = tmp_path / "fedmomentum-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fedmomentum\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    return source


def test_commands_of_pages_are_understood(root, fedmomentum):
    """Each is parsed as the terminal would, and its config is checked, fields of the method included."""
    found = [(page.name, words) for page in pages(root) for words in commands(page)]
    assert len(found) > 5
    for page, words in found:
        assert words[0] in help.COMMANDS, f"{page}: learner {words[0]}"
        command = help.COMMANDS[words[0]]
        parsed = flags.parse(words[1:], command.flags, command.config)
        if parsed.config:
            config.load(parsed.config, parsed.overrides)


def test_the_method_of_the_page_runs_and_is_what_it_says(fedmomentum):
    """Two sites, three steps a round over all of a site's rows, against the page's two equations in NumPy."""
    import jax
    import jax.numpy as jnp
    import optax

    from learner_jax.build import build
    from learner_jax.data.sites import SiteData
    from learner_jax.engines.simulator import simulate
    from learner_jax.types import Model, Task

    assert len(fedmomentum.splitlines()) < 60
    draw = np.random.default_rng(0)
    sites, tables = {}, {}
    for name, n in (("a", 12), ("b", 30)):
        x, y = draw.normal(size=(n, 3)), draw.integers(0, 2, n).astype(float)
        tables[name] = (x, y)
        sites[name] = SiteData({"x": x, "y": y}, np.zeros(n, np.int8), np.arange(n), {})
    model = Model(
        lambda key, rows: ({"w": jnp.zeros(3)}, {}),
        lambda params, stats, rows, key, train: (rows["x"] @ params["w"], stats),
    )
    study = Study(
        name="momentum", task=Spec("tasks", "readmission"), rounds=4, batch_size=30, epochs=3, target="valid/loss",
        algorithm=Spec("algorithms", "fedmomentum", {"local_lr": 0.5, "beta": 0.8}), precision="float64",
        references=(),
    )  # fmt: skip
    with jax.enable_x64(True):
        trained, _ = simulate(build(study, Task(model, optax.sigmoid_binary_cross_entropy)), sites)
        found = np.asarray(trained.server.learned["params"]["w"])

    w = np.zeros(3)
    for _ in range(4):
        moved, rows = np.zeros(3), 0
        for x, y in tables.values():
            w_k, m = w.copy(), np.zeros(3)
            for _ in range(3):
                m = 0.8 * m + x.T @ (1 / (1 + np.exp(-x @ w_k)) - y) / len(y)
                w_k = w_k - 0.5 * m
            moved, rows = moved + 3 * len(y) * (w_k - w), rows + 3 * len(y)
        w = w + moved / rows
    np.testing.assert_allclose(found, w, rtol=1e-12)


def names_in(folder: Path) -> set[str]:
    """Every name that the source under a folder defines: rooms, modules, functions, classes, arguments, variables."""
    found = {path.name for path in folder.iterdir() if path.is_dir()}
    for path in folder.rglob("*.py"):
        found.add(path.stem)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.arg):
                found.add(node.arg)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
    return found


# Of jax, and of no module of ours.
ELSEWHERE = {"shard_map", "vmap"}


def test_how_a_round_travels_speaks_of_what_is_there(root):
    """Files exist; of each `name` or `module.name` every part is defined somewhere in the package."""
    defined = names_in(root / "learner_jax") | ELSEWHERE | {"learner_jax"}
    wrong = []
    for token in re.findall(r"`([^`\n]+)`", (root / "docs" / "how-a-round-travels.md").read_text()):
        if re.fullmatch(r"[\w/]+/|[\w/]+\.py", token):
            if not (root / "learner_jax" / token).exists() and not (root / token).exists():
                wrong.append(token)
        elif re.fullmatch(r"[A-Za-z_][\w.]*", token) and not token.endswith((".json", ".jsonl")):
            wrong += [token] if set(token.split(".")) - defined else []
    assert wrong == []
