"""Data doors: MEDS event streams, OMOP CDM, FHIR R4 and plain tables, read to the same records.

with open_records("/data/export") as records:      # which door is guessed, and said
    records.sql("SELECT count(*) FROM encounters WHERE kind = 'stay'")
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from learner_jax.data.doors import database, fhir, meds, omop, table
from learner_jax.data.doors.records import Records
from learner_jax.errors import DataError

DOORS = {"meds": meds, "omop": omop, "table": table, "fhir": fhir}


def door_of(source: Path) -> str:
    """Which door fits what is there.

    Raises:
      DataError: none does.
    """
    if not source.exists():
        raise DataError(f"{source}: expected a file or a folder of health records, got nothing there")
    for name, door in DOORS.items():
        if (source.is_dir() or name in ("fhir", "table")) and door.is_here(source):
            return name
    inside = ", ".join(sorted(path.name for path in source.iterdir())[:6]) if source.is_dir() else source.name
    raise DataError(
        f"{source}: expected MEDS (metadata/ and data/*.parquet), OMOP (person, visit_occurrence, ... as .csv or "
        f".parquet), FHIR (.ndjson or bundles) or tables named stays and events, got {inside or 'an empty folder'}"
    )


def open_records(source: str | os.PathLike[str], door: str | None = None, schema: str | None = None) -> Records:
    """Reads a hospital's records.

    Args:
      source: a file or folder, or the address of a data base of OMOP's tables ("postgresql://host/cdm").
      door: "meds", "omop", "table" or "fhir"; None: guessed.
      schema: of a data base's tables.

    Returns:
      Open records; close them.

    Raises:
      DataError: no door fits, or the files are not as it expects.
    """
    if door is not None and door not in DOORS:
        raise DataError(f"expected a door of {', '.join(DOORS)}, got '{door}'")
    if isinstance(source, str) and database.is_address(source):
        if door not in (None, "omop"):
            raise DataError(f"expected OMOP's tables in a data base, got door '{door}'")
        records = Records(database.shown(source), "omop")
        fill = functools.partial(omop.read, source, records, schema)
    else:
        path = Path(source)
        name = door_of(path) if door is None else door
        records = Records(path, name)
        fill = functools.partial(DOORS[name].read, path, records)
    try:
        fill()
    except BaseException:
        records.close()
        raise
    return records
