"""What the peers of `benchmarks.simulator_peers` share: the round's work in a file, and a process that answers for it.

Standard library and NumPy alone, so that any peer's Python can import it. A peer's file makes a table of arms from the
work and hands it to `main`; an arm is a function that does the round and gives the averaged leaves, or a `Job`.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import common

MARK = "LEARNER_PEER_ARM"
"""An environment variable, other for each arm, set where its process starts: by it all are found that it starts."""

ARRAYS = ("x", "y", "index", "first", "steps")


@dataclass(frozen=True)
class Work:
    """A round.

    Attributes:
      x: float32[M, i], the rows of all sites; of a network that is no perceptron float32[M, ...] or int32[M, ...].
      y: int32[M], classes; float32[M] of 0 and 1 where there is one output.
      index: int32[T, B], the rows of each batch, site after site; -1 is padding.
      first, steps: int32[S], where a site's batches begin in `index`, and how many they are.
      start: leaves, kernel float32[i, o] and bias float32[o] of each layer in turn; ReLU between layers.
      lr: learning rate.
      optimizer: "sgd" or "adam" (0.9, 0.999, 1e-8), which each site starts afresh.
      network: of `benchmarks.networks`; of others than a perceptron the leaves are those of `networks.by_hand`.
    """

    x: np.ndarray
    y: np.ndarray
    index: np.ndarray
    first: np.ndarray
    steps: np.ndarray
    start: tuple[np.ndarray, ...]
    lr: float
    optimizer: str
    network: str = "perceptron"


class Job(NamedTuple):
    """An arm that does whole jobs of several rounds alone.

    Attributes:
      run: (rounds) -> (leaves after the first round, seconds of each round: {"wall_s", "cpu_s"} of all its processes).
    """

    run: Callable[[int], tuple[list[np.ndarray], list[dict[str, float]]]]


Arm = Callable[[], list[np.ndarray]] | Job


def write(file: Path, work: Work) -> None:
    """The work as one .npz; nothing in it is pickled."""
    parts: dict[str, Any] = {name: np.asarray(getattr(work, name)) for name in (*ARRAYS, "lr", "optimizer", "network")}
    parts |= {f"leaf_{k}": leaf for k, leaf in enumerate(work.start)}
    np.savez(file, **parts)


def read(file: Path) -> Work:
    """What `write` wrote."""
    with np.load(file, allow_pickle=False) as parts:
        count = sum(name.startswith("leaf_") for name in parts.files)
        start = tuple(parts[f"leaf_{k}"] for k in range(count))
        arrays = {name: parts[name] for name in ARRAYS}
        optimizer, network = (str(parts[name]) for name in ("optimizer", "network"))
        return Work(**arrays, start=start, lr=float(parts["lr"]), optimizer=optimizer, network=network)


def batches(work: Work, site: int) -> list[np.ndarray]:
    """int64[b] for each batch of a site: its rows, without padding."""
    at = work.first[site]
    return [rows[rows >= 0].astype(np.int64) for rows in work.index[at : at + work.steps[site]]]


def row_counts(work: Work) -> np.ndarray:
    """int64[S]: rows that each site trains on, by which it counts in the average."""
    return np.asarray([sum(len(rows) for rows in batches(work, site)) for site in range(len(work.steps))])


def in_order(work: Work, site: int) -> np.ndarray:
    """int64[n]: a site's rows, batch after batch, for a peer that cuts its batches itself.

    Raises:
      ValueError: a batch before the last is not full, so that cutting gives other batches.
    """
    parts = batches(work, site)
    if any(len(rows) != work.index.shape[1] for rows in parts[:-1]):
        raise ValueError(f"expected full batches before the last of site {site}, got {[len(rows) for rows in parts]}")
    return np.concatenate(parts)


def shortened(work: Work) -> Work:
    """The same with the first two batches and the last of each site."""
    kept = [sorted({0, min(1, count - 1), count - 1}) for count in work.steps.tolist()]
    places = [at + k for at, batches in zip(work.first.tolist(), kept, strict=True) for k in batches]
    steps = np.asarray([len(batches) for batches in kept], work.steps.dtype)
    first = np.concatenate([[0], np.cumsum(steps)[:-1]]).astype(work.first.dtype)
    return replace(work, index=work.index[places], first=first, steps=steps)


# ---- a peer that starts processes of its own -------------------------------------------------------------------------


def spread(folder: Path, work: Work) -> None:
    """The work as .npy files that many processes can map, so that none reads all rows."""
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", getattr(work, name))
    with (folder / "rest.json").open("w") as file:
        rest = {"lr": work.lr, "optimizer": work.optimizer, "network": work.network, "leaves": len(work.start)}
        json.dump(rest, file)
    for k, leaf in enumerate(work.start):
        np.save(folder / f"leaf_{k}.npy", leaf)


def mapped(folder: Path) -> Work:
    """What `spread` wrote; x and y are read from disk where they are used."""
    with (folder / "rest.json").open() as file:
        rest = json.load(file)

    def load(name: str, how: Any = None) -> np.ndarray:
        return np.load(folder / f"{name}.npy", mmap_mode=how, allow_pickle=False)

    start = tuple(load(f"leaf_{k}") for k in range(rest["leaves"]))
    arrays = {name: load(name, "c" if name in ("x", "y") else None) for name in ARRAYS}
    return Work(**arrays, start=start, lr=rest["lr"], optimizer=rest["optimizer"], network=rest["network"])


def _high_water(pid: str) -> int:
    """Bytes that a process has held at most (VmHWM): `ru_maxrss` would have in it what its parent held."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def peak() -> dict[str, Any]:
    """Bytes that this process has held at most, imports and reading the work included."""
    return {"peak": _high_water("self"), "peak_of": "the process"}


def family() -> list[str]:
    """Process ids of this process and of all that were started from it, by the mark in their environment."""
    found, mark = [], f"{MARK}={os.environ[MARK]}".encode()
    for one in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if one.name.isdigit() and mark in Path(f"/proc/{one.name}/environ").read_bytes().split(b"\0"):
                found.append(one.name)
    return found


def family_cpu_s() -> float:
    """CPU seconds of `family` so far, those of its ended children included; in steps of 10 ms."""
    ticks = 0
    for pid in family():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def family_peak() -> int:
    """Bytes: the sum of the peaks (VmHWM) of `family`; pages that processes share count once for each."""
    total = 0
    for pid in family():
        with contextlib.suppress(OSError):
            total += _high_water(pid)
    return total


class Laps:
    """Seconds between the rounds of a job, told at its server.

    Attributes:
      rounds: {"wall_s", "cpu_s"} of each round so far.
      peak: bytes, the largest sum of peaks at the end of a round.
    """

    def __init__(self) -> None:
        self.rounds: list[dict[str, float]] = []
        self.peak = 0
        self._since: tuple[float, float] | None = None

    def begin(self) -> None:
        """A round begins."""
        cpu = family_cpu_s()
        self._since = time.perf_counter(), cpu

    def end(self) -> None:
        """The round that began is over; the reading itself is in no round."""
        assert self._since is not None
        wall = time.perf_counter() - self._since[0]
        self.rounds.append({"wall_s": wall, "cpu_s": family_cpu_s() - self._since[1]})
        self.peak = max(self.peak, family_peak())


# ---- the process -----------------------------------------------------------------------------------------------------


def median_round(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Medians of a job's rounds after the first, which has the start-up in it."""
    return {key: statistics.median(one[key] for one in rounds[1:]) for key in ("wall_s", "cpu_s")}


def answer_for(arm: Arm, packages: Sequence[str], laps: Laps | None = None) -> Callable[[dict[str, Any]], Any]:
    """What a peer's process answers: of itself, its first call with the leaves, one timed call, its peak memory."""

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        if question["do"] == "describe":
            return {"versions": common.versions(*packages)}
        if question["do"] == "first":
            called, leaves = common.timed(lambda: arm.run(1)[0] if isinstance(arm, Job) else arm())
            np.savez(question["into"], *[np.asarray(leaf, np.float32) for leaf in leaves])
            return {"first_s": common.rounded(called["wall_s"])}
        if question["do"] == "time":
            return median_round(arm.run(question["rounds"])[1]) if isinstance(arm, Job) else common.timed(arm)[0]
        if laps is not None:
            return {"peak": laps.peak, "peak_of": "all its processes, shared pages once for each"}
        return peak()

    return answer


@contextlib.contextmanager
def _quiet(log: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Whatever else prints goes to a file; gives the function that answers on what was the standard output."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w") as out, log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)

        def say(answer: dict[str, Any]) -> None:
            out.write(json.dumps(answer) + "\n")
            out.flush()

        yield say


def main(arms: dict[str, Callable[[Path], Arm]], packages: Sequence[str], laps: Laps | None = None) -> None:
    """A peer's command line, `python -m benchmarks.MODULE ARM WORK.npz`: answers JSON lines for one arm.

    Args:
      arms: name -> what makes it from the work's file.
      packages: distributions whose versions are told.
      laps: of a peer whose rounds are timed inside a job.
    """
    name, file = sys.argv[1], Path(sys.argv[2])
    with _quiet(file.with_name(f"{name}.log")) as say:
        answer = None
        for line in sys.stdin:
            try:
                answer = answer or answer_for(arms[name](file), packages, laps)
                say(answer(json.loads(line)))
            except Exception as error:
                traceback.print_exc()
                sys.stderr.flush()
                say({"failed": f"{type(error).__name__}: {error}"})
