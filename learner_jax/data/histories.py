"""A patient's coded events before the end of an index stay, with how long before: what a sequence model reads.

What is known, and when, is as for the features (`learner_jax.data.features`): nothing later than the discharge enters.
A code counts once in thirty days before the discharge, its last time, so that a ward's hourly results do not push out
the rest, and a source that holds each of them reaches as far back as one that holds a few.
"""

from __future__ import annotations

from learner_jax.data import told_events
from learner_jax.data.doors.records import Records
from learner_jax.data.features import KNOWN_AT, LOOKBACK_DAYS

LATEST = 256
"""Of a stay so many events are written; a study's column may read fewer (`keep`)."""
PERIOD_DAYS = 30
_BLANK = r"[\s\p{Z}\x{1c}-\x{1f}\x{85}]+"
"""What Python takes for blanks; a backslash s of DuckDB's is ASCII alone."""


def find(records: Records, lookback_days: int = LOOKBACK_DAYS, latest: int = LATEST) -> tuple[str | None, ...]:
    """Histories of the index stays that `cohorts.find` has just found, in the cohort's order.

    Args:
      records: open ones.
      lookback_days: before the admission.
      latest: how many events of each.

    Returns:
      Cells as `learner_jax.data.told_events` reads them, the earliest event first; None where nothing is known.

    Raises:
      DataError: no cohort was looked for yet.
    """
    told = (
        "string_agg(round(date_diff('second', moment, discharge) / 86400, 3)::VARCHAR || ':' || "
        f"regexp_replace(regexp_replace(code, '^{_BLANK}|{_BLANK}$', '', 'g'), '{_BLANK}', '_', 'g'), ' ' "
        "ORDER BY moment, code)"
    )
    found = records.sql(
        "WITH seen AS (SELECT s.encounter AS stay, e.code, "
        f"max({KNOWN_AT}) AS moment FROM stays s JOIN events e ON e.patient = s.patient "
        "LEFT JOIN encounters c ON c.encounter = e.encounter "
        f"WHERE NOT regexp_full_match(e.code, '({_BLANK})?') AND {KNOWN_AT} <= s.discharge "
        f"AND {KNOWN_AT} >= s.admit - to_days({lookback_days}) "
        f"GROUP BY s.encounter, e.code, date_diff('day', {KNOWN_AT}, s.discharge) // {PERIOD_DAYS}), "
        "ranked AS (SELECT *, row_number() OVER (PARTITION BY stay ORDER BY moment DESC, code) AS place FROM seen), "
        f"told AS (SELECT stay, {told} AS cell FROM ranked JOIN stays s ON s.encounter = stay WHERE place <= {latest} "
        "GROUP BY stay) SELECT t.cell FROM stays s LEFT JOIN told t ON t.stay = s.encounter "
        "ORDER BY s.patient, s.admit, s.encounter"
    )
    return tuple(cell for (cell,) in found)


def notes(cells: tuple[str | None, ...], latest: int = LATEST) -> tuple[str, ...]:
    """How far histories reach, in a sentence.

    Args:
      cells: as `find` gave them.
      latest: how many events a history may have.
    """
    events = [told_events.read(cell) for cell in cells if cell]
    if not events:
        return ("no stay has a history: nothing is coded in time",)
    reach = sorted(max(days for days, _ in one) for one in events)[len(events) // 2]
    full = sum(len(one) >= latest for one in events)
    cut = f"; {full:,} hold the {latest} latest alone" if full else ""
    return (f"half of the histories reach back {reach:.0f} days or more{cut}",)
