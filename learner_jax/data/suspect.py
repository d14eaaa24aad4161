"""What in a table fits the checklist and is still likely to be wrong, in sentences that say what to do.

`suspicions` looks at one site's table by itself; `drift` holds its sums against those of the other sites, which are
what all sites' sums leave when its own are taken away. Neither says anything about a single row but where it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from learner_jax.data.schema import Column, rows_shown

if TYPE_CHECKING:
    import pandas as pd

HALF = 0.5
"""From such a share of rows without a value on a column is told."""
TELLS = 0.98
"""A column alone that ranks so many pairs rightly knows the outcome."""
ENOUGH = 10
"""Rows with the outcome, and without, before a column is suspected."""
APART = 1.5
"""Deviations of the other sites between means, from which on a column is told."""
FEWEST = 20
"""Rows with a value, here and elsewhere, before means are compared."""


class Factor(NamedTuple):
    """A quantity that is often given in another unit: so many times as much in `other` as in `unit`."""

    times: float
    unit: str
    other: str
    of: str


FACTORS = (
    Factor(88.42, "mg/dL", "umol/L", "creatinine"),
    Factor(17.10, "mg/dL", "umol/L", "bilirubin"),
    Factor(0.0555, "mg/dL", "mmol/L", "glucose"),
    Factor(0.0259, "mg/dL", "mmol/L", "cholesterol"),
    Factor(0.0113, "mg/dL", "mmol/L", "triglycerides"),
    Factor(0.357, "mg/dL", "mmol/L", "urea nitrogen"),
    Factor(0.2495, "mg/dL", "mmol/L", "calcium"),
    Factor(10.0, "g/dL", "g/L", "haemoglobin or albumin"),
    Factor(0.6206, "g/dL", "mmol/L", "haemoglobin"),
    Factor(0.1333, "mm[Hg]", "kPa", "pressure"),
    Factor(0.1333, "mmHg", "kPa", "pressure"),
    Factor(2.2046, "kg", "lb", "weight"),
    Factor(0.3937, "cm", "inches", "height"),
    Factor(0.01, "cm", "metres", "height"),
    Factor(12.0, "years", "months", "age"),
    Factor(24.0, "days", "hours", "time"),
)
"""Reference: molar masses of the AMA Manual of Style's conversion to SI units."""


def suspicions(rows: pd.DataFrame, columns: Sequence[Column], outcome: np.ndarray, where: str) -> list[str]:
    """Of one table.

    Args:
      rows: in canonical form, every declared column.
      columns: the inputs.
      outcome: bool[n].
      where: whose table, for messages.
    """
    return [f"{where}: {text}" for text in (*_copies(rows), *_absent(rows, columns), *_knowing(rows, columns, outcome))]


def _copies(rows: pd.DataFrame) -> list[str]:
    """Rows that are another's copy, told only where a table is wide enough that chance does not make them."""
    if rows.shape[1] < 6:
        return []
    copies = rows.duplicated().to_numpy()
    if not copies.any() or rows.nunique().gt(2).sum() < 4:
        return []
    return [
        f"{rows_shown(rows.index, copies)}: the same as an earlier row in every column. Were files joined twice? "
        "Leave the copies out"
    ]


def _absent(rows: pd.DataFrame, columns: Sequence[Column]) -> list[str]:
    found, many = [], []
    for column in columns:
        if column.name not in rows or not len(rows):
            continue
        share = float(rows[column.name].isna().mean())
        if share == 1:
            found.append(f"column '{column.name}': no row has a value. Is it under another name, or lost in a join?")
        elif share > HALF:
            many.append(f"'{column.name}' ({100 * share:.0f} of 100)")
    if many:
        found.append(
            f"no value in more than half of the rows: {', '.join(many)}. Lost in a join, or measured only where a "
            "doctor was worried? Tell those who run the study"
        )
    return found


def _knowing(rows: pd.DataFrame, columns: Sequence[Column], outcome: np.ndarray) -> list[str]:
    """Columns that alone tell the outcome, by what they hold or by whether they hold anything."""
    outcome = np.asarray(outcome, bool)
    if min(outcome.sum(), (~outcome).sum()) < ENOUGH:
        return []
    found = []
    for column in columns:
        if column.name not in rows:
            continue
        best = 0.5
        for score in _scores(rows[column.name], column):
            area = _area(outcome, score)
            best = max(best, area, 1 - area)
        if best >= TELLS:
            found.append(
                f"column '{column.name}' alone tells who has the outcome, in {100 * best:.0f} of 100 pairs: it may be "
                "written after the fact, or be the outcome itself. Leave it out, or say how it can be known before"
            )
    return found


def _area(outcome: np.ndarray, score: np.ndarray) -> float:
    """Share of pairs that a score ranks rightly, a tie counting one half."""
    places = np.unique(score, return_inverse=True)[1]
    events, rest = np.bincount(places, outcome), np.bincount(places, ~outcome)
    return float(events @ (np.cumsum(rest) - rest / 2) / (events.sum() * rest.sum()))


def _scores(series: Any, column: Column) -> list[np.ndarray]:
    absent = series.isna().to_numpy()
    scores = [absent.astype(np.float64)] if absent.any() else []
    if column.kind in ("number", "flag"):
        values = series.to_numpy(np.float64)
        if not absent.all():
            scores.append(np.where(absent, np.nanmedian(values), values))
    elif column.kind == "category":
        places = series.cat.codes.to_numpy()
        scores += [(places == place).astype(np.float64) for place in range(len(series.cat.categories))]
    return scores


# ---- against the other sites -----------------------------------------------------------------------------------------


class Sums(NamedTuple):
    """One column over some rows.

    Attributes:
      rows: all rows.
      known: rows with a value.
      mean, deviation: of the values.
    """

    rows: float
    known: float
    mean: float
    deviation: float


def others(all_: Sums, mine: Sums) -> Sums:
    """All sites' less one site's: the other sites'."""
    rows, known = all_.rows - mine.rows, all_.known - mine.known
    if known < 0.5:
        return Sums(max(rows, 0.0), 0.0, float("nan"), float("nan"))
    mean = (all_.known * all_.mean - mine.known * mine.mean) / known
    squares = all_.known * (all_.deviation**2 + all_.mean**2) - mine.known * (mine.deviation**2 + mine.mean**2)
    return Sums(rows, known, mean, float(np.sqrt(max(squares / known - mean**2, 0.0))))


def drift(columns: Mapping[str, Column], everyone: Mapping[str, Sums], mine: Mapping[str, Sums]) -> list[str]:
    """Where a site's columns are far from the other sites'.

    Args:
      columns: name -> column, of kind number or flag.
      everyone: of all sites' training rows, this site's among them.
      mine: of this site's training rows.
    """
    found = []
    for name, here in mine.items():
        elsewhere = others(everyone[name], here)
        unit = columns[name].unit
        if here.rows >= FEWEST and elsewhere.rows >= FEWEST:
            lost, theirs = 1 - here.known / here.rows, 1 - max(elsewhere.known, 0.0) / elsewhere.rows
            if lost - theirs > HALF:
                found.append(
                    f"column '{name}': no value in {100 * lost:.0f} of 100 rows here, in {100 * max(theirs, 0):.0f} of "
                    "100 at the other sites. Is it under another name here, or not measured?"
                )
        if min(here.known, elsewhere.known) < FEWEST:
            continue
        apart = abs(here.mean - elsewhere.mean)
        if columns[name].kind == "flag":
            if apart > HALF:
                found.append(
                    f"column '{name}': set in {100 * here.mean:.0f} of 100 rows here, in {100 * elsewhere.mean:.0f} of "
                    "100 at the other sites. Are 0 and 1 the other way round?"
                )
        elif apart > APART * max(elsewhere.deviation, 1e-9 * abs(elsewhere.mean)):
            found.append(
                f"column '{name}': on average {here.mean:.4g} here, {elsewhere.mean:.4g} {unit} at the other sites"
                f"{_as_if(here.mean, elsewhere.mean, unit)}. Put it into {unit or 'their unit'} before the study starts"
            )
    return found


def _as_if(here: float, elsewhere: float, unit: str) -> str:
    """Which other unit would make such a difference, if one is known."""
    if unit in ("Cel", "C", "°C") and abs((here - 32) / 1.8 - elsewhere) < 3:
        return ", as it would be in degrees Fahrenheit"
    times = here / elsewhere if elsewhere else float("inf")
    likely = [one for one in FACTORS if one.unit == unit and abs(np.log(max(times, 1e-12) / one.times)) < 0.3]
    if likely:
        best = min(likely, key=lambda one: abs(np.log(times / one.times)))
        return f": {times:.3g} times as much, as {best.of} in {best.other} would be"
    return f": {times:.3g} times as much" if np.isfinite(times) and (times > 3 or 0 < times < 1 / 3) else ""
