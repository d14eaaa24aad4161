"""What every door yields: the same five tables, whatever the hospital's files look like.

    patients    patient, id, number, birth, sex, death
    encounters  encounter, patient, id, number, kind, admit, discharge, admitted_from, discharged_to
    events      patient, time, code, value, unit, encounter, kind, concept, rank
    led         encounter, stay: the stay that an emergency visit led to, where the source says so
    labels      code, label: what the source calls a medicine's code, in its own words; a code may have several

`patient` and `encounter` are int64; `id` is the key in the source and `number` what the hospital itself calls it (both
are text: a 64-bit id does not survive a float). Times are the hospital's own clock, without a zone: a time that comes
with an offset keeps its wall clock. `code` is "VOCABULARY//CODE", its code in capitals without points or blanks
("ICD9CM//4280"); `concept` is OMOP's standard concept, where there is one; `rank` is 1 where the source says that a
diagnosis was the primary one. Kinds of encounters: "stay" (admitted to a
hospital), "emergency", "other"; of events: "diagnosis", "procedure", "medicine", "measurement", "other".

The tables lie in a DuckDB data base in a temporary folder: what is larger than memory goes to the disk.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learner_jax.errors import DataError

if TYPE_CHECKING:
    import duckdb

MEMORY = "2GB"
"""What a door holds in memory; the rest goes to the disk."""

_TABLES = r"""
CREATE TABLE patients (patient BIGINT, id VARCHAR, number VARCHAR, birth TIMESTAMP, sex VARCHAR, death TIMESTAMP);
CREATE TABLE encounters (
  encounter BIGINT, patient BIGINT, id VARCHAR, number VARCHAR, kind VARCHAR, admit TIMESTAMP, discharge TIMESTAMP,
  admitted_from VARCHAR, discharged_to VARCHAR);
CREATE TABLE events (
  patient BIGINT, time TIMESTAMP, code VARCHAR, value DOUBLE, unit VARCHAR, encounter BIGINT, kind VARCHAR,
  concept BIGINT, rank INTEGER);
CREATE TABLE led (encounter BIGINT, stay BIGINT);
CREATE TABLE labels (code VARCHAR, label VARCHAR);
CREATE MACRO plain(code) AS upper(regexp_replace(code, '[\s.]', '', 'g'));
CREATE MACRO coded(vocabulary, code) AS vocabulary || '//' || plain(code);
CREATE MACRO wall(said) AS try_cast(regexp_replace(said, '(Z|[+-]\d\d:?\d\d)$', '') AS TIMESTAMP);
"""


class Records:
    """Open records of one hospital: a context whose end takes the temporary files away.

    Args:
      source: the file or folder, or a data base's address.
      door: "meds", "omop" or "fhir".

    Attributes:
      notes: what a reader of a cohort should know of how the records were read, in sentences.

    Raises:
      DataError: DuckDB is not installed.
    """

    def __init__(self, source: Path | str, door: str):
        self.source, self.door = source, door
        self.notes: list[str] = []
        found = engine()
        self._folder = Path(tempfile.mkdtemp(prefix="learner-records-"))
        self._base: duckdb.DuckDBPyConnection = found.connect(str(self._folder / "records.duckdb"))
        self._refused: type[Exception] = found.Error
        for setting in (
            f"memory_limit = '{MEMORY}'",
            f"temp_directory = '{self._folder}'",
            f"threads = {_cores()}",
            "preserve_insertion_order = false",
            "enable_progress_bar = false",
            "TimeZone = 'UTC'",
        ):
            self._base.execute(f"SET {setting}")
        self._base.execute(_TABLES)

    def sql(self, text: str, *values: Any) -> list[tuple]:
        """Rows of a query.

        Raises:
          DataError: the source is not as its door expects.
        """
        try:
            return self._base.execute(text, list(values)).fetchall()
        except self._refused as error:
            first = str(error).strip().splitlines()[0][:200]
            raise DataError(f"{self.source}: expected {self.door.upper()} that can be read, got: {first}") from None

    def one(self, text: str, *values: Any) -> Any:
        """The single value of a query."""
        return self.sql(text, *values)[0][0]

    def fill(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Puts rows into a table, all at once: one by one takes a hundred times as long."""
        import pyarrow as pa

        if rows:
            names, columns = list(self.columns(table)), zip(*rows, strict=True)
            self._base.register("given", pa.table(dict(zip(names, map(list, columns), strict=True))))
            self._base.execute(f"INSERT INTO {table} SELECT * FROM given")
            self._base.unregister("given")

    def columns(self, relation: str) -> dict[str, str]:
        """Names and types of a table, a view or a table function."""
        return {name: kind for name, kind, *_ in self.sql(f"DESCRIBE SELECT * FROM {relation}")}

    def close(self) -> None:
        """Lets the files go. May be called twice."""
        self._base.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def quoted(paths: Sequence[Path]) -> str:
    """Paths as a list in SQL."""
    return "[" + ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths) + "]"


def _cores() -> int:
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, there))


def engine() -> Any:
    """DuckDB.

    Raises:
      DataError: it is not installed.
    """
    try:
        import duckdb
    except ImportError:
        raise DataError(
            "expected DuckDB, which reads health records and queries: pip install 'learner-jax[ehr]'"
        ) from None
    return duckdb
