"""What a study's inputs looked like over all sites together: what was fitted from the sites' sums, and no more.

A figure of fewer than `FEWEST` rows is not told: a report goes to more people than a fitted mean does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from learner_jax.data.schema import Column

FEWEST = 10
MOST_CODES = 5


class Described(NamedTuple):
    """One column or input.

    Attributes:
      name, kind, unit, about: as in the checklist's column; kind is "input" for one that was made of columns.
      missing: share of the rows without a value; None where that is not counted.
      mean: of the rows with a value; of a flag, the share that has it. None where it is not summed, or of a few rows.
      deviation: standard deviation; None likewise.
      few: why there is no mean where one was summed, in words.
      codes: the most frequent ones and their share of all rows, the most frequent first.
    """

    name: str
    kind: str
    unit: str = ""
    about: str = ""
    missing: float | None = None
    mean: float | None = None
    deviation: float | None = None
    few: str = ""
    codes: tuple[tuple[str, float], ...] = ()


def described(rows: int, tables: Iterable[tuple[str, Sequence[Described]]], note: str = "") -> dict[str, Any]:
    """What goes into a result: {"rows": training rows, "tables": [{"title", "inputs": [...]}], "note"}."""
    return {
        "rows": rows,
        "tables": [{"title": title, "inputs": [one._asdict() for one in inputs]} for title, inputs in tables],
        "note": note,
    }


def of_column(
    about: Column,
    rows: int,
    missing: float,
    mean: float | None = None,
    deviation: float | None = None,
    codes: Iterable[tuple[str, int]] = (),
) -> Described:
    """A column of the checklist.

    Args:
      about: what is asked for.
      rows: training rows of all sites.
      missing: share of them without a value.
      mean, deviation: of the others; None where they were not summed.
      codes: code and rows that have it; those of a few rows are left out.
    """
    known = round(rows * (1.0 - missing))
    few = "" if mean is None else _few(known, mean, share=about.kind == "flag")
    often = sorted((one for one in codes if one[1] >= FEWEST), key=lambda one: (-one[1], one[0]))[:MOST_CODES]
    return Described(
        about.name,
        about.kind,
        about.unit,
        about.about,
        missing if rows else None,
        None if few else mean,
        None if few or about.kind == "flag" else deviation,
        few,
        tuple((code, count / rows) for code, count in often),
    )


def of_input(name: str, rows: int, mean: float, deviation: float | None = None) -> Described:
    """An input that was made of columns, in every row a number of at least 0, in most a flag."""
    few = _few(rows, mean, share=True) if 0 <= mean <= 1 else ""
    return Described(name, "input", mean=None if few else mean, deviation=None if few else deviation, few=few)


def _few(known: int, mean: float, share: bool) -> str:
    if known < FEWEST:
        return "known of a few" if known else "known of none"
    if share and 0 < round(known * mean) < FEWEST:
        return "a few"
    return "all but a few" if share and 0 < round(known * (1.0 - mean)) < FEWEST else ""
