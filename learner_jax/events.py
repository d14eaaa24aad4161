"""What engines say to whoever listens: the terminal, the metrics file, a console."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Event(NamedTuple):
    """One thing that happened.

    Attributes:
      kind: start, statistics, forecast, round_open, site_done, site_lost, site_back, round_closed, checkpoint, resumed,
        evaluation, reference, note, done.
      study: the study's name.
      round: from 1, or None.
      site: a site's name, or None.
      data: plain values, by name.
    """

    kind: str
    study: str
    round: int | None = None
    site: str | None = None
    data: Mapping[str, Any] = {}


Observer = Callable[[Event], None]


def silent(event: Event) -> None:
    """Listens to nothing."""


def fan_out(*observers: Observer) -> Observer:
    """One observer that tells each of several, in order."""

    def tell(event: Event) -> None:
        for observer in observers:
            observer(event)

    return tell
