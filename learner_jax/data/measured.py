"""Laboratory results and vital signs of an index stay as features: the last, the lowest and the highest.

A result counts if its time lies in the stay. Values are put into one unit (`learner_jax.data.units`); what has a unit
that cannot become it, or what no living patient can have, does not count, and is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from learner_jax.data import units
from learner_jax.data.code_lists import lines, plain_code, shipped
from learner_jax.data.doors.records import Records

SUMMARIES = ("last", "lowest", "highest")


class Measurement(NamedTuple):
    """One quantity.

    Attributes:
      name: of the features.
      unit: UCUM.
      low, high: what can be.
      molar: g/mol, or None.
      codes: LOINC.
    """

    name: str
    unit: str
    low: float
    high: float
    molar: float | None
    codes: tuple[str, ...]


def measurements(path: Path | None = None) -> tuple[Measurement, ...]:
    """The quantities of a file, in its order.

    Args:
      path: columns name, unit, low, high, molar and codes; None takes the shipped one.

    Raises:
      ConfigError: the file is not that.
    """
    path = path or shipped("codes", ".csv")["measurements"]
    return tuple(lines(path, "quantities that are measured", Measurement._fields, _measurement))


def _measurement(row: Mapping[str, str]) -> Measurement:
    molar = float(row["molar"]) if row["molar"] else None
    codes = tuple(plain_code(code) for code in row["codes"].split(";"))
    return Measurement(row["name"], row["unit"], float(row["low"]), float(row["high"]), molar, codes)


def names(asked: tuple[Measurement, ...]) -> tuple[str, ...]:
    """Of the features."""
    return tuple(f"{one.name}_{summary}" for one in asked for summary in SUMMARIES)


def find(records: Records, asked: tuple[Measurement, ...]) -> tuple[dict[int, dict[str, float]], tuple[str, ...]]:
    """Features of the index stays that `cohorts.find` has just found, and what must be known of them.

    Args:
      records: open ones.
      asked: the quantities.

    Returns:
      (stay -> feature -> value, only those that are known; sentences).
    """
    records.sql("CREATE OR REPLACE TABLE wanted (code VARCHAR, name VARCHAR)")
    records.fill("wanted", [(f"LOINC//{code}", one.name) for one in asked for code in one.codes])
    records.sql(
        "CREATE OR REPLACE TABLE results AS SELECT s.encounter AS stay, w.name, e.unit, e.value, e.time "
        "FROM stays s JOIN events e ON e.patient = s.patient AND (e.time BETWEEN s.admit AND s.discharge "
        "OR (e.time = date_trunc('day', s.admit) AND e.time <= s.discharge)) "  # by the day alone
        "JOIN wanted w ON w.code = e.code WHERE e.value IS NOT NULL AND isfinite(e.value)"
    )
    lines, notes = [], []
    by_name = {one.name: one for one in asked}
    counted = "SELECT name, unit, count(*) FROM results GROUP BY name, unit ORDER BY name, unit"
    for name, unit, count in records.sql(counted):
        one = by_name[name]
        line = units.line(unit, one.unit, one.molar)
        if line is None:
            notes.append(f"{count:,} results of {name} are in '{unit}', which cannot become {one.unit}: left out")
        else:
            lines.append((name, unit, line.times, line.plus, one.low, one.high))
    records.sql(
        "CREATE OR REPLACE TABLE lines (name VARCHAR, unit VARCHAR, times DOUBLE, plus DOUBLE, low DOUBLE, high DOUBLE)"
    )
    records.fill("lines", lines)
    records.sql(
        "CREATE OR REPLACE TABLE converted AS SELECT r.stay, r.name, r.time, "
        "round(l.times * r.value + l.plus, 9) AS value, l.low, l.high FROM results r "
        "JOIN lines l ON l.name = r.name AND l.unit IS NOT DISTINCT FROM r.unit"
    )
    odd = "SELECT name, count(*) FROM converted WHERE NOT value BETWEEN low AND high GROUP BY name ORDER BY name"
    for name, count in records.sql(odd):
        one = by_name[name]
        notes.append(f"{count:,} results of {name} are outside {one.low:g} to {one.high:g} {one.unit}: left out")
    found: dict[int, dict[str, float]] = {}
    summed = (
        "SELECT stay, name, last(value ORDER BY time, value), min(value), max(value) FROM converted "
        "WHERE value BETWEEN low AND high GROUP BY stay, name"
    )
    for stay, name, *values in records.sql(summed):
        mine = found.setdefault(stay, {})
        mine.update({f"{name}_{summary}": float(value) for summary, value in zip(SUMMARIES, values, strict=True)})
    if not lines:
        notes.append("these records hold no result with a LOINC code in the stays: no laboratory, no vital signs")
    return found, tuple(notes)
