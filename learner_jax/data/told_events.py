"""Coded events with time in one cell of a table: "0.5:ICD10CM//I50 30:LOINC//2160-0", days before the prediction each.

What a sequence model reads (`learner_jax.models.transformer`). An event after the prediction has no way to be written:
days are not negative.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

PLACES = 4096
"""Length of the list over which codes are counted that no study declared."""
LATEST = 128
"""How many events of a row are kept, the latest, unless the column says (`keep`)."""

_EVENT = re.compile(r"(\d{1,6}(?:\.\d{1,6})?):(\S+)")


def written(events: Iterable[tuple[float, str]]) -> str:
    """A cell of (days before, code); blanks in codes become "_".

    >>> written([(30, "LOINC//2160-0"), (0.5, "LAB//Sodium, serum")])
    '30:LOINC//2160-0 0.5:LAB//Sodium,_serum'
    """
    return " ".join(f"{round(days, 3):.10g}:{'_'.join(code.split())}" for days, code in events)


def read(text: str) -> list[tuple[float, str]]:
    """(days before, code) of a cell, as written.

    Raises:
      ValueError: it is no such cell.
    """
    found = []
    for word in text.split():
        event = _EVENT.fullmatch(word)
        if event is None:
            raise ValueError("expected days:code, days:code, ...")
        found.append((float(event[1]), event[2]))
    return found


def sequences(series: Any, place: Callable[[str], int], latest: int) -> tuple[np.ndarray, np.ndarray]:
    """A column of such cells as arrays.

    Args:
      series: pandas categories of cells.
      place: code -> its place, from 0; -1 for one that is left out.
      latest: L.

    Returns:
      (int32[n, L] place + 1, the latest event first, 0 where there is none; float32[n, L] days, 0 there too).
    """
    words = list(series.cat.categories)
    codes, days = np.zeros((len(words) + 1, latest), np.int32), np.zeros((len(words) + 1, latest), np.float32)
    for row, word in enumerate(words):
        events = sorted((when, at) for when, code in read(word) if (at := place(code)) >= 0)[:latest]
        for column, (when, at) in enumerate(events):
            codes[row, column], days[row, column] = at + 1, when
    at = series.cat.codes.to_numpy()
    return codes[at], days[at]
