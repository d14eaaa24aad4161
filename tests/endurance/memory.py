"""Memory of processes over an hour: samples of what is resident, and the slope of it with a confidence interval."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.stats

PAGE = os.sysconf("SC_PAGE_SIZE")
EVERY_S, BLOCK_S = 2.0, 30.0


class Sample(NamedTuple):
    """Seconds of a clock, and megabytes resident then."""

    at: float
    mb: float


class Slope(NamedTuple):
    """Megabytes an hour, the ends of its 95 % interval, and of how many blocks and lives it was made."""

    mb_h: float
    low: float
    high: float
    blocks: int
    lives: int


class Sampler(threading.Thread):
    """Reads every few seconds what each process has resident.

    Args:
      running: () -> name -> pid. A process that was started again has another pid: a life of its own.
    """

    def __init__(self, running: Callable[[], Mapping[str, int]]):
        super().__init__(daemon=True, name="memory")
        self._running, self._over = running, threading.Event()
        self.lives: dict[str, dict[int, list[Sample]]] = {}

    def run(self) -> None:
        while not self._over.wait(EVERY_S):
            for name, pid in self._running().items():
                try:
                    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                except (OSError, IndexError):
                    continue
                sample = Sample(time.monotonic(), pages * PAGE / 1e6)
                self.lives.setdefault(name, {}).setdefault(pid, []).append(sample)

    def stop(self) -> None:
        """Ends it."""
        self._over.set()
        self.join()


def slope(lives: Mapping[int, list[Sample]], settle_s: float) -> Slope | None:
    """One slope for all lives of a process, each with a level of its own; None if there is too little to say.

    Samples within half a minute say nearly the same. So the interval is a delete-one-block jackknife's.

    Args:
      lives: samples by pid.
      settle_s: of each life left out: it imports, compiles and fills its caches.
    """
    at, mb, block = np.array(_settled(lives, settle_s)).reshape(-1, 3).T
    names = np.unique(block)
    if len(names) < 6:
        return None
    whole = float(at @ mb / (at @ at))
    parts = []
    for name in names:
        keep = block != name
        parts.append(float(at[keep] @ mb[keep] / (at[keep] @ at[keep])))
    count = len(names)
    error = np.sqrt((count - 1) / count * np.sum((np.array(parts) - np.mean(parts)) ** 2))
    half = float(scipy.stats.t.ppf(0.975, count - 1) * error)
    return Slope(whole, whole - half, whole + half, count, len(lives))


def _settled(lives: Mapping[int, list[Sample]], settle_s: float) -> list[tuple[float, float, float]]:
    """(hours and megabytes from the life's own mean, number of the block) of each sample that counts."""
    found, first = [], 0.0
    for samples in lives.values():
        kept = [sample for sample in samples if sample.at - samples[0].at >= settle_s]
        if len(kept) * EVERY_S < 2 * BLOCK_S:
            continue
        hours = np.array([sample.at for sample in kept]) / 3600
        mb = np.array([sample.mb for sample in kept])
        blocks = first + np.floor((hours - hours[0]) * 3600 / BLOCK_S)
        first = float(blocks[-1]) + 1
        found += zip(hours - hours.mean(), mb - mb.mean(), blocks, strict=True)
    return found
