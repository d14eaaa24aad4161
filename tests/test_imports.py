"""The floors and the walls of the house: which part may import which, read from the source and from real processes.

    6 doors    build  api  cli  console
    5 runs     engines  reports  plots  hub
    4 joins    tasks  federate  network  storage
    3 methods  data  evaluation  aggregators  algorithms
    2 parts    protocol  models  statistics  privacy
    1 ground   errors  failpoints  spans  types  leaves  trees  specs  events

A room imports from the floors below it and, on its own floor, from the rooms to its left. An import counts wherever
it stands: at the top of a file, inside a function, or under TYPE_CHECKING. Only for a circle between two files of one
room does it not count under TYPE_CHECKING, where two records may name each other and nothing runs.
"""

from __future__ import annotations

import ast
import graphlib
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "learner_jax"
FLOORS = (
    # `leaves` (names, shapes and bytes, no jax) stands left of `trees` (jax), which builds on it.
    ("errors", "failpoints", "spans", "types", "leaves", "trees", "specs", "events"),
    ("protocol", "models", "statistics", "privacy"),
    ("data", "evaluation", "aggregators", "algorithms"),
    ("tasks", "federate", "network", "storage"),
    ("engines", "reports", "plots", "hub"),
    ("build", "api", "cli", "protein", "console"),
)
PLACE = {room: (floor, column) for floor, rooms in enumerate(FLOORS, 1) for column, room in enumerate(rooms)}
# Outside the table: `learner_jax/__init__.py` and `__main__.py` stand above all doors; `samples` holds files alone.
# The version is a constant in a file that every import runs first: anyone may read it.
ABOVE = ("__init__", "__main__")
VERSION = f"{PACKAGE}.__version__"
FILES_ONLY = ("samples", "configs")

# Which rooms may load a library that is heavy, or whose misuse costs most.
WALLS = {"zmq": {"network"}, "orbax": {"storage"}, "starlette": {"console"}}
HEAVY = ("jax", "jaxlib", "flax", "optax", "orbax", "pandas", "pyarrow", "tensorstore", "duckdb")


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file, of every module of the package under `root`."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def without_types(tree: ast.AST) -> Iterator[ast.AST]:
    """As ast.walk, but not into `if TYPE_CHECKING:`."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from without_types(other)
        else:
            yield from without_types(child)


def imported(path: Path, types_too: bool = True) -> list[tuple[str, int]]:
    """Dotted names that a file imports, with their lines; a.b for `from a import b`."""
    names = []
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    for node in ast.walk(tree) if types_too else without_types(tree):
        if isinstance(node, ast.Import):
            names += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; say the whole name"
            names += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                names.append((node.args[0].value, node.lineno))
    return names


def room(module: str) -> str:
    """The room that a module of the package stands in: "data" for learner_jax.data.tables."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def arrows(root: Path, types_too: bool = True) -> list[tuple[str, str, str]]:
    """(importing module, imported module of the package, file:line), each imported name cut to a real module."""
    known = modules(root)
    found = []
    for module, path in known.items():
        for name, line in imported(path, types_too):
            if name.split(".")[0] != PACKAGE or name == VERSION:
                continue
            while name not in known and "." in name:
                name = name.rpartition(".")[0]
            found.append((module, name, f"{path.relative_to(root)}:{line}"))
    return found


def wrong_floors(root: Path) -> list[str]:
    wrong = []
    for module, target, where in arrows(root):
        here, there = room(module), room(target)
        if here == there or here in ABOVE:
            continue
        if there in ABOVE:
            wrong.append(f"{where}: {here} imports the package's front, which stands above all doors")
            continue
        if here not in PLACE or there not in PLACE:
            continue  # told by strangers()
        (floor, column), (floor_there, column_there) = PLACE[here], PLACE[there]
        if floor_there > floor:
            wrong.append(f"{where}: {here} (floor {floor}) imports {there} (floor {floor_there}): upward")
        elif floor_there == floor and column_there > column:
            wrong.append(f"{where}: {here} imports {there}, to its right on floor {floor}")
    return wrong


def strangers(root: Path) -> list[str]:
    return sorted({room(m) for m in modules(root)} - set(PLACE) - set(ABOVE) - set(FILES_ONLY))


def circle(root: Path) -> list[str]:
    graph: dict[str, set[str]] = {}
    for module, target, _ in arrows(root, types_too=False):
        if module != target:
            graph.setdefault(module, set()).add(target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def through_walls(root: Path) -> list[str]:
    wrong = []
    for module, path in modules(root).items():
        for name, line in imported(path):
            allowed = WALLS.get(name.split(".")[0])
            if allowed is not None and room(module) not in allowed:
                wrong.append(f"{path.relative_to(root)}:{line}: only {'/'.join(allowed)} loads {name.split('.')[0]}")
    return wrong


def loaded(code: str) -> set[str]:
    """Top-level names in sys.modules of a fresh Python after `code`."""
    tail = "\nimport json, sys\nprint()\nprint(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    ran = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout.splitlines()[-1]))


def test_every_room_is_in_the_table(root):
    assert strangers(root) == [], "rooms unknown to the table: give each its floor, here and in the design"


def test_imports_run_downward_and_to_the_left(root):
    assert wrong_floors(root) == []


def test_no_circle_between_modules(root):
    assert circle(root) == []


def test_only_the_room_behind_the_wall_loads_a_library(root):
    assert through_walls(root) == []


def test_the_mains_at_the_top_import_doors_alone(root):
    """launch/ and sites/ are thin: the same mains as the `learner` script."""
    wrong = []
    for folder in ("launch", "sites"):
        for path in sorted((root / folder).glob("*.py")):
            for name, line in imported(path):
                parts = name.split(".")
                if parts[0] in WALLS or (parts[0] == PACKAGE and parts[1] not in (*FLOORS[-1], "errors")):
                    wrong.append(f"{path.relative_to(root)}:{line}: {name}")
    assert wrong == []


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import learner_jax; dir(learner_jax)", id="import learner_jax"),
        pytest.param(
            "import learner_jax.cli.main as door\ntry:\n    door.main(['--help'])\nexcept SystemExit: pass",
            id="learner --help",
        ),
    ],
)
def test_doors_open_without_heavy_libraries(code):
    assert loaded(code) & set(HEAVY) == set()


def test_the_chains_of_broker_and_agent_load_no_jax(root):
    """Every module of protocol/ and network/, and the engines that are neither compute nor coordinator."""
    light = [m for m in modules(root) if room(m) in ("protocol", "network")]
    light += [m for m in modules(root) if m in (f"{PACKAGE}.engines.broker", f"{PACKAGE}.engines.agent")]
    if not light:
        pytest.fail("expected learner_jax/protocol and learner_jax/network to hold modules")
    found = loaded("\n".join(f"import {module}" for module in light))
    assert found & {"jax", "jaxlib", "flax", "optax", "orbax"} == set()


# The rules themselves, seen to go red on a house built wrong on purpose.


def house(folder: Path, files: dict[str, str]) -> Path:
    """A small package under `folder`, with the empty `__init__.py` files that it needs."""
    for name, source in files.items():
        path = folder / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        for parent in path.relative_to(folder).parents:
            if parent.parts:
                (folder / parent / "__init__.py").touch()
    return folder


@pytest.mark.parametrize(
    "files, rule, word",
    [
        ({"data/tables.py": "from learner_jax.engines import run", "engines/run.py": ""}, wrong_floors, "upward"),
        ({"models/mlp.py": "import learner_jax.protocol.frames", "protocol/frames.py": ""}, None, ""),
        ({"protocol/frames.py": "import learner_jax.models.mlp", "models/mlp.py": ""}, wrong_floors, "right"),
        (
            {"types.py": "def late():\n    from learner_jax.data import tables", "data/tables.py": ""},
            wrong_floors,
            "upward",
        ),
        (
            {"types.py": "import importlib\nimportlib.import_module('learner_jax.data')", "data/x.py": ""},
            wrong_floors,
            "upward",
        ),
        ({"data/x.py": "import learner_jax as lr"}, wrong_floors, "front"),
        ({"data/x.py": "from learner_jax import simulate"}, wrong_floors, "front"),
        ({"data/x.py": "from learner_jax import __version__"}, None, ""),
        ({"data/a.py": "import learner_jax.data.b", "data/b.py": "from learner_jax.data import a"}, circle, "data.a"),
        (
            {
                "data/a.py": "from learner_jax.data import b",
                "data/b.py": "if TYPE_CHECKING:\n    from learner_jax.data import a",
            },
            None,
            "",
        ),
        (
            {"data/a.py": "if TYPE_CHECKING:\n    from learner_jax.engines import x", "engines/x.py": ""},
            wrong_floors,
            "upward",
        ),
        ({"cellar/x.py": ""}, strangers, "cellar"),
        ({"engines/broker.py": "from zmq import asyncio"}, through_walls, "zmq"),
        ({"engines/coordinator.py": "import orbax.checkpoint as ocp"}, through_walls, "orbax"),
        ({"cli/main.py": "def run():\n    import starlette"}, through_walls, "starlette"),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", None),
)
def test_a_planted_import_is_found(tmp_path, files, rule, word):
    planted = house(tmp_path, files)
    for other in (wrong_floors, strangers, circle, through_walls):
        found = " ".join(other(planted))
        if other is rule:
            assert word in found
        else:
            assert found == ""
