"""A query as a table: a file of DuckDB's SQL whose last statement selects one row for each row of the table.

The tables of the query's own folder (CSV, gzipped or not, or Parquet) go by their names, as text from CSV, so that
nothing is guessed of it and no leading zero is lost; `try_cast` makes numbers of them. The query belongs to the site
and runs there: none ever comes from a coordinator.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learner_jax.data.doors.files import told
from learner_jax.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_OF_THE_TEXT = ("BinderException", "CatalogException", "ParserException", "SyntaxException")
"""Errors that speak of the query alone; others may name a patient's value."""
_MADE = re.compile(r"\b(query|query_table|getvariable|prepare|execute)\b", re.IGNORECASE)
"""What makes a query of values: then its own errors may hold some."""


def read_query(path: Path) -> pd.DataFrame:
    """The rows of a query, in an order that is theirs alone (by all columns, from the first).

    Args:
      path: of the file; `patient.csv.gz` beside it is the table `patient`.

    Returns:
      The table: whole numbers, floats, truth values and text; dates and times as text.

    Raises:
      DataError: DuckDB is not installed, or the query cannot be run; no value of a row is in the message.
    """
    from learner_jax.data.doors.files import tables_in
    from learner_jax.data.doors.records import engine

    duckdb = engine()
    base = duckdb.connect()
    text = ""
    try:
        base.execute("SET TimeZone = 'UTC'")
        base.execute("SET enable_progress_bar = false")
        text = path.read_text(encoding="utf-8")
        named = set(re.findall(r"\w+", text.lower()))
        for name, files in tables_in(path.parent).items():
            if not set(re.findall(r"\w+", name)) <= named:
                continue  # a README.txt, or a table of another query
            quoted = name.replace('"', '""')
            base.execute(f'CREATE VIEW "{quoted}" AS SELECT * FROM {_rows(files)}')
            _same_header(base, quoted, files)
        *before, last = base.extract_statements(text) or [None]
        if last is None or last.type != duckdb.StatementType.SELECT:
            raise DataError(f"{path}: expected a query whose last statement is a SELECT, got none")
        for statement in before:
            base.execute(statement)
        base.execute(f"CREATE VIEW the_table AS {last.query}")
        shown = ", ".join(_plain(name, kind) for name, kind, *_ in base.execute("DESCRIBE the_table").fetchall())
        return base.sql(f"SELECT {shown} FROM the_table ORDER BY ALL").to_arrow_table().to_pandas()
    except duckdb.Error as error:
        kind = type(error).__name__
        first = str(error).strip().splitlines()[0][:200]
        plain = kind in _OF_THE_TEXT and not _MADE.search(text)
        what = first if plain else f"{kind.removesuffix('Exception')} error (a value that does not fit)"
        raise DataError(f"{path}: expected a query that DuckDB can run, got: {what}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a readable query, got: {error}") from None
    finally:
        base.close()


def _rows(files: Sequence[Path]) -> str:
    """SQL: a table's rows; of CSV as text, its first line the header whatever the lines after it look like."""
    if ".parquet" in files[0].name.lower():
        return told(files)
    return told(files)[:-1] + ", skip=0, strict_mode=true, null_padding=false)"


def _same_header(base: Any, name: str, files: Sequence[Path]) -> None:
    """Raises DataError where DuckDB took another line than the first for the header, as it does of ragged rows."""
    openers: dict[str, Any] = {".gz": gzip.open, ".csv": open, ".tsv": open, ".txt": open}
    wanted: set[str] = set()
    for file in files:
        opener = openers.get(file.suffix.lower())
        if opener is None or ".parquet" in file.name.lower():
            return
        with opener(file, "rt", encoding="utf-8-sig", newline="") as stream:
            line = stream.readline()
        if not line.strip():
            raise DataError(f"{file}: expected a header and rows, got an empty file")
        wanted |= {cell.strip().lower() for cell in next(csv.reader([line], delimiter=_separator(line)))}
    there = {str(row[0]).strip().lower() for row in base.execute(f'DESCRIBE "{name}"').fetchall()}
    if there != wanted:
        raise DataError(f"{files[0]}: expected as many cells in each row as in the header, got others")


def _separator(line: str) -> str:
    return max(",;\t|", key=line.count)


def _plain(name: str, kind: str) -> str:
    """SQL: a column in a type that a table may have."""
    quoted = '"' + name.replace('"', '""') + '"'
    if kind.startswith(("DECIMAL", "HUGEINT", "UHUGEINT")):
        return f"{quoted}::DOUBLE AS {quoted}"
    if kind.startswith(("DATE", "TIME", "INTERVAL", "UUID", "ENUM")):
        return f"{quoted}::VARCHAR AS {quoted}"
    return quoted
