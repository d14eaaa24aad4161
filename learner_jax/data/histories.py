"""A patient's coded events before the end of an index stay, with how long before: what a sequence model reads.

What is known, and when, is as for the features (`learner_jax.data.features`): nothing later than the discharge enters.
A code counts once a day, so that a ward's hourly results do not push out the rest.
"""

from __future__ import annotations

from learner_jax.data.doors.records import Records
from learner_jax.data.features import KNOWN_AT, LOOKBACK_DAYS

LATEST = 256
"""Of a stay so many events are written; a study's column may read fewer (`keep`)."""


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
        "regexp_replace(trim(code), '\\s+', '_', 'g'), ' ' ORDER BY moment, code)"
    )
    found = records.sql(
        "WITH seen AS (SELECT s.encounter AS stay, e.code, "
        f"max({KNOWN_AT}) AS moment FROM stays s JOIN events e ON e.patient = s.patient "
        "LEFT JOIN encounters c ON c.encounter = e.encounter "
        f"WHERE trim(e.code) <> '' AND {KNOWN_AT} <= s.discharge AND {KNOWN_AT} >= s.admit - to_days({lookback_days}) "
        f"GROUP BY s.encounter, e.code, ({KNOWN_AT})::DATE), "
        "ranked AS (SELECT *, row_number() OVER (PARTITION BY stay ORDER BY moment DESC, code) AS place FROM seen), "
        f"told AS (SELECT stay, {told} AS cell FROM ranked JOIN stays s ON s.encounter = stay WHERE place <= {latest} "
        "GROUP BY stay) SELECT t.cell FROM stays s LEFT JOIN told t ON t.stay = s.encounter "
        "ORDER BY s.patient, s.admit, s.encounter"
    )
    return tuple(cell for (cell,) in found)
