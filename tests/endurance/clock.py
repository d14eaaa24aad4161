"""Runs a program whose wall clock jumps a day ahead at SIGUSR1: `python -m tests.endurance.clock MODULE ARGUMENT ...`

A site also takes its time over each round, as many seconds as THINK says in the environment: else the small model would
make an hour tens of thousands of rounds long, which no study has.

Shifted are `time.time`, `time.time_ns`, and `now` of the `datetime` that this package's modules have. Not shifted are
the monotonic clock, `perf_counter`, and what C code and the kernel read for themselves: times of files, of SQLite.
"""

from __future__ import annotations

import datetime
import os
import runpy
import signal
import sys
import threading
import time
from typing import Any

from learner_jax.network.drive import SiteDrive
from learner_jax.protocol.commands import Work

DAY_S = 86_400
THINK = "ENDURANCE_THINK_S"
_shift = 0
_time, _time_ns = time.time, time.time_ns


class Shifted(datetime.datetime):
    """Whose `now` is that of the shifted clock."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Shifted:
        return cls.fromtimestamp(time.time(), tz)


def _jump(*_: object) -> None:
    global _shift
    _shift += DAY_S
    for name, module in list(sys.modules.items()):
        if name.startswith("learner_jax") and getattr(module, "datetime", None) is datetime.datetime:
            vars(module)["datetime"] = Shifted
    print(f"clock: {time.ctime(time.time())}", file=sys.stderr, flush=True)


def _think(seconds: float) -> None:
    """A site hands out each round's work so much later."""
    perform = SiteDrive._perform

    def later(self: SiteDrive, command: Any) -> None:
        if isinstance(command, Work):
            threading.Timer(seconds, perform, (self, command)).start()
        else:
            perform(self, command)

    SiteDrive._perform = later


if __name__ == "__main__":
    setattr(time, "time", lambda: _time() + _shift)  # noqa: B010
    setattr(time, "time_ns", lambda: _time_ns() + _shift * 10**9)  # noqa: B010
    signal.signal(signal.SIGUSR1, _jump)
    _think(float(os.environ.get(THINK, "0")))
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
