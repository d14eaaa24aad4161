"""Processes of `learner` that start at once: a process that has imported everything, and forks.

What is forked is a process like any other, with a pid, an exit status and its own jax; only the seconds of imports are
spared, which a matrix of hundreds of kills would spend on nothing else. No jax backend is started before the fork.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tests.federation.hospitals import ROOT


class Child:
    """A forked process; as `hospitals.Process`."""

    def __init__(self, nursery: Nursery, pid: int, log: Path):
        self._nursery, self.pid, self.log = nursery, pid, log
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status (-9: killed by SIGKILL), or None while it runs."""
        return self.wait(block=False)

    def wait(self, seconds: float = 280, block: bool = True) -> int | None:
        """Waits for its end; the test's own alarm limits how long."""
        if self.returncode is None:
            self.returncode = self._nursery.ask(wait=self.pid, block=block)
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, 9)

    @property
    def said(self) -> str:
        """All that it said, of both kinds."""
        files = [self.log.with_suffix(ending) for ending in (".out", ".err")]
        return "".join(file.read_text() for file in files if file.exists())

    def last_line(self) -> dict[str, Any]:
        """Waits for its end; the JSON object that ends its stdout."""
        assert self.wait() == 0, f"ended with {self.returncode}: {self.said[-2000:]}"
        return json.loads(self.log.with_suffix(".out").read_text().splitlines()[-1])


class Nursery:
    """The process that forks; all children are killed at its end."""

    def __init__(self) -> None:
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}  # a fork has one thread
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.federation.nursery"],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._children: list[Child] = []

    def ask(self, **words: Any) -> Any:
        """One question, one answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(words), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def start(self, arguments: Sequence[str], log: Path, env: Mapping[str, str] = {}) -> Child:
        """Starts `learner ...`; its words go to files."""
        log.parent.mkdir(parents=True, exist_ok=True)
        pid = self.ask(start=list(arguments), log=str(log), env=dict(env))
        self._children.append(Child(self, pid, log))
        return self._children[-1]

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.kill()
            child.wait()
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


# ---- in the nursery --------------------------------------------------------------------------------------------------


_DEAR = (
    "flax", "optax", "orbax.checkpoint.experimental.v1", "pandas",
    "learner_jax.api", "learner_jax.build", "learner_jax.tasks",
    "learner_jax.engines.serving", "learner_jax.engines.worker", "learner_jax.reports.html",
)  # fmt: skip


def _child(asked: dict[str, Any]) -> NoReturn:
    log, code = Path(asked["log"]), 70
    for stream, ending in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(log.with_suffix(ending), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(asked["env"])
    try:
        from learner_jax.cli.main import main

        code = main(asked["start"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        asked = json.loads(line)
        if "start" in asked:
            answer: int | None = os.fork() or _child(asked)
        else:
            pid, status = os.waitpid(asked["wait"], 0 if asked["block"] else os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    for name in _DEAR:
        importlib.import_module(name)
    _serve()
