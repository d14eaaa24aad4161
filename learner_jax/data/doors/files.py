"""Tables as files: which there are in a folder, and their columns as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from learner_jax.data.doors.records import Records, quoted

_FILE = re.compile(r"(\.csv|\.tsv|\.txt|\.parquet)(\.gz|\.zst)?$", re.IGNORECASE)


def tables_in(source: Path) -> dict[str, list[Path]]:
    """Name of a table in small letters -> its files: one in the folder, or those of a folder named like it."""
    found: dict[str, list[Path]] = {}
    for path in sorted(source.iterdir()) if source.is_dir() else ():
        for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if part.is_file() and _FILE.search(part.name) and not part.name.startswith((".", "_")):
                name = path.name if path.is_dir() else _FILE.sub("", path.name)
                found.setdefault(re.sub(r"^(omop|cdm|2b)_", "", name.lower()), []).append(part)
    return found


def told(files: Sequence[Path]) -> str:
    """SQL: the rows of a table's files."""
    if ".parquet" in files[0].name.lower():
        return f"read_parquet({quoted(files)}, union_by_name=true)"
    return f"read_csv({quoted(files)}, all_varchar=true, header=true, union_by_name=true, nullstr='')"


def view(records: Records, name: str, rows: str) -> set[str]:
    """Rows as a view of text without blanks at the ends, under names in small letters; the names."""
    names = list(records.columns(rows))
    listed = ", ".join(f'nullif(trim("{one}"::VARCHAR), \'\') AS "{one.lower()}"' for one in names)
    records.sql(f"CREATE VIEW {name} AS SELECT {listed} FROM {rows}")
    return {one.lower() for one in names}


def first(there: set[str], *names: str, cast: str = "VARCHAR") -> str:
    """SQL: the first of these columns that says something; of those that are there."""
    known = [f'try_cast("{name}" AS {cast})' for name in names if name in there]
    return f"coalesce({', '.join(known)})" if known else f"NULL::{cast}"
