"""Named places where a process can be made to die, or its disk to be full, on purpose: survival is tested with them.

    LEARNER_FAILPOINT="[SITE/]NAME:OCCURRENCE[:ACTION]" learner COMMAND ...

arms one point in that process: the OCCURRENCE-th time that it comes by, ACTION happens. `kill` (what is meant if none
is named) is a `kill -9` of itself; `enospc` and `eio` are the disk's refusals, once; `stop` halts the process until
somebody continues it (SIGSTOP, SIGCONT). A name begins with whose point it is. `learner local` hands a point that
begins with `SITE/` on to that site's worker alone, and none to a worker that it starts again.

Where nothing is armed, a point costs one comparison. No point logs anything. docs/survival.md tells of each what is on
disk there, and what recovery makes of it.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Mapping
from typing import NamedTuple

from learner_jax.errors import ConfigError

VARIABLE = "LEARNER_FAILPOINT"

_ROWS = ("opened", "accepted", "closed", "aggregated", "measured", "committed")
_WHOLE = ("before_write", "before_fsync", "before_rename", "after_rename")
_STEP = ("before_save", "before_finalise", "before_rename", "after_rename")

STORAGE = (
    *(f"coordinator.journal.{when}_{row}" for row in _ROWS for when in ("before", "after")),
    *(f"coordinator.spool.{when}" for when in _WHOLE),
    *(f"coordinator.spool.{when}" for when in ("before_sweep", "mid_sweep", "after_sweep")),
    *(f"coordinator.steps.{when}" for when in (*_STEP, "mid_replace", "mid_prune")),
    *(f"coordinator.best.{when}" for when in _STEP),
    *(f"site.outbox.{when}" for when in _WHOLE),
    *(f"site.outbox.{when}" for when in ("before_commit", "after_commit", "before_discard", "after_discard")),
    *(f"site.epoch.{when}" for when in _WHOLE),
    *(f"site.fitted.{when}" for when in _WHOLE),
)
"""Points of which the disk may refuse."""

NAMES = (
    *STORAGE,
    "coordinator.journal.after_epoch",
    "coordinator.study.after_statistics",
    "coordinator.study.before_restore",
    "coordinator.study.after_restore",
    "coordinator.study.before_finish",
    "coordinator.study.after_finish",
    "coordinator.round.before_reduce",
    "coordinator.round.after_reduce",
    "coordinator.broadcast.after_chunk",
    "coordinator.upload.after_chunk",
    "coordinator.result.before_model",
    "coordinator.result.before_result",
    "coordinator.result.after_result",
    "site.round.before_training",
    "site.round.mid_training",
    "site.round.after_training",
    "site.upload.after_chunk",
)
"""Every point that there is."""

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
_REFUSALS = {"enospc": errno.ENOSPC, "eio": errno.EIO}
ACTIONS = (*_SIGNALS, *_REFUSALS)


class Point(NamedTuple):
    """What is armed: at the occurrence-th passing of name, action."""

    name: str
    occurrence: int
    action: str


_armed: Point | None = None
_passed = 0
_guard = threading.Lock()


def here(name: str) -> None:
    """Marks a place.

    Raises:
      OSError: a full disk or a broken one was asked for here.
    """
    if _armed is not None and _armed.name == name:
        _reached(_armed)


def _reached(point: Point) -> None:
    global _passed
    with _guard:
        _passed += 1
        if _passed != point.occurrence:
            return
    if point.action in _SIGNALS:
        os.kill(os.getpid(), _SIGNALS[point.action])
        return
    number = _REFUSALS[point.action]
    raise OSError(number, os.strerror(number))


def parse(text: str) -> Point:
    """Reads "NAME:OCCURRENCE[:ACTION]".

    Raises:
      ConfigError: there is no such point, or it cannot be that.
    """
    name, _, rest = text.partition(":")
    number, _, action = rest.partition(":")
    point = Point(name, int(number) if number.isdigit() else 0, action or "kill")
    if name not in NAMES:
        raise ConfigError(f"{VARIABLE}: no point {name!r} (docs/survival.md lists them)")
    if point.occurrence < 1 or point.action not in ACTIONS:
        raise ConfigError(f"{VARIABLE}: expected NAME:OCCURRENCE[:{'|'.join(ACTIONS)}], got {text!r}")
    if point.action in _REFUSALS and name not in STORAGE:
        raise ConfigError(f"{VARIABLE}: expected a point of the disk for {point.action}, got {name!r}")
    return point


def arm(text: str | None) -> None:
    """Arms what `VARIABLE` holds, in this process; None or "" disarms, and "SITE/..." is for a site's worker.

    Raises:
      ConfigError: as `parse`.
    """
    global _armed, _passed
    site, _, own = (text or "").rpartition("/")
    point = parse(own) if own else None
    with _guard:
        _armed, _passed = None if site else point, 0


def handed_on(environment: Mapping[str, str], site: str, again: bool) -> dict[str, str]:
    """The variables of a site's worker: what is armed there is armed once, and "SITE/..." in that one alone.

    Args:
      environment: of whoever starts it.
      site: its name.
      again: whether it is started again.
    """
    rest = {name: value for name, value in environment.items() if name != VARIABLE}
    whose, _, own = environment.get(VARIABLE, "").rpartition("/")
    return rest if again or not own or whose not in ("", site) else {**rest, VARIABLE: own}
