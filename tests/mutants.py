"""Mutation testing of protocol/: small faults of every kind, one at a time, and whether a test notices.

`make mutants` (`python -m tests.mutants --seconds=600 [--seed=1] [--at-once=2] [FILE...]`) makes all mutants of the
files (a comparison turned, a number moved, `and` for `or`, a condition or a statement gone, ...), puts them in an order
drawn by the seed, and plays as many as there is time for: each in a process of its own that has the libraries loaded
already, so that a mutant costs a second or two. It prints a line for each survivor, and how many were noticed.
`tests/protocol/mutants.md` lists survivors and why.

Why no library: mutmut copies and rewrites the tree by its own rules and starts pytest for each; here 90 % of a mutant's
time would be that start.
"""

from __future__ import annotations

import argparse
import ast
import copy
import functools
import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
FOLDER = "learner_jax/protocol"
FILES = ("coordinator.py", "site.py", "transfers.py", "messages.py", "broker.py", "complaints.py")
TESTS = {
    name: f"tests/protocol/test_{name}"
    for name in ("coordinator.py", "site.py", "transfers.py", "messages.py", "broker.py")
}
"""The tests of a file, which are run first; the others after the schedules, for what is left."""
SCHEDULES = 200
"""Played where the tests notice nothing."""
LIMIT_S = 120
"""A mutant that takes more of a processor is stuck, which is noticed."""

TURNED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Mod: ast.FloorDiv, ast.FloorDiv: ast.Mod,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


class Mutant(NamedTuple):
    """One fault. number: which of its file's, in the order of `places`."""

    file: str
    number: int
    line: int
    what: str


def places(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int]]:
    """(node, what to change, which part of it) for each mutant of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            yield from ((node, "comparison", at) for at, op in enumerate(node.ops) if type(op) in TURNED)
        elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in TURNED:
            yield node, "operator", 0
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield node, "not", 0
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
            yield node, "number", 0
        elif isinstance(node, ast.If | ast.IfExp | ast.While):
            yield node, "always", 0
            yield node, "never", 0
        elif isinstance(node, ast.FunctionDef):
            for at, one in enumerate(node.body):
                if not isinstance(one, ast.Return | ast.FunctionDef | ast.Assert | ast.Pass) and not _words(one):
                    yield node, "statement", at
        elif isinstance(node, ast.Return) and node.value is not None:
            yield node, "return", 0


def _words(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def change(node: ast.AST, what: str, at: int) -> str:
    """Plants the fault in its node; says in words what was there."""
    was = ast.unparse(node).splitlines()[0]
    if isinstance(node, ast.Compare):
        node.ops[at] = TURNED[type(node.ops[at])]()
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        node.op = TURNED[type(node.op)]()
    elif isinstance(node, ast.UnaryOp):
        node.operand = ast.UnaryOp(ast.Not(), node.operand)
    elif isinstance(node, ast.Constant):
        value: Any = node.value
        node.value = not value if type(value) is bool else value + 1
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        node.test = ast.BoolOp(ast.Or() if what == "always" else ast.And(), [ast.Constant(what == "always"), node.test])
    elif isinstance(node, ast.FunctionDef):
        was = ast.unparse(node.body[at]).splitlines()[0]
        node.body[at] = ast.Pass()
    elif isinstance(node, ast.Return):
        node.value = ast.Constant(None)
    return f"{what}: {was}"


def mutants(file: str) -> list[Mutant]:
    """All of a file's; types and module constants in annotations are left alone."""
    tree = _stripped(file)
    found = []
    for number, (node, what, at) in enumerate(places(tree)):
        line = getattr(node.body[at] if what == "statement" else node, "lineno", 0)  # type: ignore[attr-defined]
        found.append(Mutant(file, number, line, change(copy.deepcopy(node), what, at)))
    return found


@functools.cache
def _source(file: str) -> str:
    """Read once: whoever edits the file meanwhile does not move the places."""
    return (ROOT / FOLDER / file).read_text()


def _stripped(file: str) -> ast.Module:
    tree = ast.parse(_source(file))
    for node in ast.walk(tree):  # annotations are text at run time
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            for arg in [*node.args.args, *node.args.kwonlyargs]:
                arg.annotation = None
    return tree


def code_of(mutant: Mutant) -> ast.Module:
    """The module with the fault in it; without any where the number is below 0."""
    tree = _stripped(mutant.file)
    if mutant.number < 0:
        return tree
    node, what, at = list(places(tree))[mutant.number]
    change(node, what, at)
    return ast.fix_missing_locations(tree)


def noticed(chosen: Iterable[Mutant], at_once: int = 1) -> Iterator[tuple[Mutant, bool, str]]:
    """Plays each in a child of this process, so many at a time.

    Yields:
      (mutant, whether it was noticed, by what), as they end.
    """
    waiting, there = iter(chosen), dict[int, tuple[Mutant, int]]()
    while True:
        while len(there) < at_once and (mutant := next(waiting, None)) is not None:
            pid, line = _begun(mutant)
            there[pid] = mutant, line
        if not there:
            return
        pid, status = os.wait()
        mutant, line = there.pop(pid)
        with os.fdopen(line) as said:
            how = said.read()
        yield mutant, status != 0 or how != "", "stuck" if status else how


def _begun(mutant: Mutant) -> tuple[int, int]:
    """A child that plays one, and the pipe on which it says by what it was noticed; nothing if by nothing."""
    come, go = os.pipe()
    child = os.fork()
    if child:
        os.close(go)
        return child, come
    os.close(come)
    with Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 1)
        os.dup2(null.fileno(), 2)
    signal.alarm(10 * LIMIT_S)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    try:
        how = _play(mutant)
    except BaseException as error:
        how = type(error).__name__
    os.write(go, how.encode()[:200])
    os._exit(0)


def _play(mutant: Mutant) -> str:
    """Loads the mutant in place of its module, then the tests; "" if nothing fails."""
    import importlib.abc
    import importlib.util

    name = f"learner_jax.protocol.{mutant.file.removesuffix('.py')}"
    code = compile(code_of(mutant), mutant.file, "exec")

    class Planted(importlib.abc.Loader, importlib.abc.MetaPathFinder):
        def find_spec(self, fullname, path=None, target=None):  # type: ignore[no-untyped-def]
            return importlib.util.spec_from_loader(name, self) if fullname == name else None

        def exec_module(self, module) -> None:  # type: ignore[no-untyped-def]
            exec(code, module.__dict__)

    sys.meta_path.insert(0, Planted())
    import pytest

    first = TESTS.get(mutant.file, TESTS["coordinator.py"])
    rest = [one for one in (*TESTS.values(), "tests/protocol/test_minor.py") if one != first]
    arguments = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--noconftest", "-o", "filterwarnings="]
    if pytest.main([*arguments, first]) != 0:
        return "its tests"
    from tests.protocol import schedules

    try:
        schedules.play(0, SCHEDULES)
    except AssertionError:
        return "schedules"
    return "other tests" if pytest.main([*arguments, *rest]) != 0 else ""


def main() -> int:
    """Plays as many as there is time for; the exit code is 0, whoever survives."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("files", nargs="*", default=FILES)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    import hypothesis
    import msgpack
    import numpy  # noqa: F401  loaded once, here, and not by each child
    import pytest  # noqa: F401

    assert hypothesis and msgpack
    hypothesis.settings.register_profile("mutants", deadline=None, derandomize=True, max_examples=50, database=None)
    hypothesis.settings.load_profile("mutants")
    chosen = [mutant for file in given.files for mutant in mutants(file)]
    whole = len(chosen)
    random.Random(given.seed).shuffle(chosen)
    _, seen, how = next(noticed([Mutant(given.files[0], -1, 0, "")]))
    if seen:  # red without a fault would show nothing
        print(f"before anything was planted: {how}", file=sys.stderr)
        return 1
    begun, played, survived = time.monotonic(), 0, []
    by: dict[str, int] = {}
    in_time = itertools.takewhile(lambda _: time.monotonic() - begun < given.seconds, chosen)
    for mutant, seen, how in noticed(in_time, given.at_once):
        played += 1
        by[how] = by.get(how, 0) + 1
        if not seen:
            survived.append(mutant)
            print(f"survives  {mutant.file}:{mutant.line}  {mutant.what}", flush=True)
    took = round(time.monotonic() - begun, 1)
    print(json.dumps({"mutants": whole, "played": played, "survived": len(survived), "seconds": took, "by": by}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
