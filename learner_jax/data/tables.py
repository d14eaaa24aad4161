"""CSV and Parquet files, or a query, to one raw table a site, with every mistake in words and no value in them.

A source is the name of a sample, one file, a folder of files, or a file of DuckDB's SQL (`learner_jax.data.query`).
Files of cells (.h5ad, .h5mu, .zarr: `learner_jax.data.cells_files`) become `Cells` a site; a folder holds tables or
cells, not both. Rows belong to the site named in the column `site` (of cells: of `obs`); a file without that column is
one site, named like the file. A site must be in one file only.

CSV is read as text and nothing is guessed: types come from the checklist (`schema.conform`), and "None" or "NO" stay
what they are. Row numbers count from 1, without the header.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learner_jax.data.query import read_query
from learner_jax.data.samples import SHIPPED, sample_path
from learner_jax.data.schema import ABSENT, near, rows_shown
from learner_jax.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from learner_jax.data.cells import Cells

SUFFIXES = (".csv", ".parquet")
QUERY = ".sql"
CELLS = (".h5ad", ".h5mu", ".zarr")


def read_sites(
    source: str | os.PathLike[str],
    *,
    site_column: str | None = "site",
    split_column: str | None = "split",
    sites: Sequence[str] | None = None,
) -> dict[str, Any]:
    """One raw table, or the cells, of each site, in ascending order of name.

    Args:
      source: name of a shipped sample, a CSV or Parquet file, a folder of them, or a query (.sql); a file of cells
        (.h5ad, .h5mu, .zarr), or a folder of them.
      site_column: the column that names a row's or a cell's site; None: each file is one site, named like the file.
      split_column: the column that says "train" or "test", handed on as "split"; None: not read.
      sites: only these; None for all.

    Returns:
      name -> table without the site's column; its index, named "row", is the row's number in its file; or `Cells`,
      which keep the site's column.

    Raises:
      DataError: no such file, an unreadable one, an empty site, a site in two files, a site asked for and not there.
    """
    found: dict[str, tuple[Any, Path]] = {}
    for path in files_of(source):
        table = read_table(path)
        parted = _parts_of_cells if path.suffix.lower() in CELLS else _parts
        for name, part in parted(with_split(table, split_column), site_column, path):
            if name in found:
                raise DataError(
                    f"expected each site in one file, got site '{name}' in {found[name][1].name} and {path.name}"
                )
            found[name] = (part, path)
    if sites is not None:
        for name in sites:
            if name not in found:
                hint = ", ".join(repr(other) for other in near(name, found)) or ", ".join(sorted(found)[:6])
                raise DataError(f"{source}: expected a site '{name}', got none (there: {hint})")
        found = {name: found[name] for name in sites}
    return {name: found[name][0] for name in sorted(found)}


def files_of(source: str | os.PathLike[str]) -> list[Path]:
    """The files behind a source, tables or cells, sorted by name."""
    if isinstance(source, str) and source in SHIPPED:
        return [sample_path(source)]
    path = Path(source)
    if path.is_dir() and path.suffix.lower() != ".zarr":
        there = [p for p in sorted(path.iterdir()) if not p.name.startswith(".")]
        files = [p for p in there if p.suffix.lower() in SUFFIXES]
        cells = [p for p in there if p.suffix.lower() in CELLS]
        if files and cells:
            raise DataError(f"{path}: expected tables or cells in the folder, got {files[0].name} and {cells[0].name}")
        if not files and not cells:
            raise DataError(
                f"{path}: expected .csv or .parquet files in the folder, got none (nor .h5ad, .h5mu, .zarr)"
            )
        return files or cells
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        similar = [str(path.parent / name) for name in near(path.name, beside)] or near(str(source), SHIPPED)
        hint = f" (near: {', '.join(similar)})" if similar else ""
        raise DataError(f"expected a file, a folder or a sample's name, got '{source}', which does not exist{hint}")
    if path.suffix.lower() not in (*SUFFIXES, QUERY, *CELLS):
        got = f"'{path.suffix or 'no suffix'}' (nor cells: {', '.join(CELLS)})"
        raise DataError(f"{path}: expected a .csv, .parquet or .sql file, got {got}")
    return [path]


def read_table(path: str | os.PathLike[str]) -> Any:
    """A raw table; CSV cells are text in categories, Parquet cells what they are. The index is the row number.

    Of a file of cells, `Cells`.

    Raises:
      DataError: the file cannot be read as what its name says.
    """
    import pandas as pd

    path = Path(path)
    if path.suffix.lower() in CELLS:
        from learner_jax.data.cells_files import read_cells

        return read_cells(path)
    kinds = {".csv": _csv, QUERY: read_query}
    table = kinds.get(path.suffix.lower(), _parquet)(path)
    table.index = pd.RangeIndex(1, len(table) + 1, name="row")
    return table


def _csv(path: Path) -> pd.DataFrame:
    """All cells as text: pyarrow's reader is strict about the number of cells in a row, and fast."""
    import pyarrow as pa
    from pyarrow import csv

    header = _header(path)
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise DataError(f"{path}: column '{doubled[0]}' is there twice")
    odd: list[tuple[int, int, int]] = []

    def ragged(row: csv.InvalidRow) -> str:
        if not odd:
            odd.append((row.number or 0, row.expected_columns, row.actual_columns))
        return "skip"

    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(use_threads=False),
            parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=ragged),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False, check_utf8=True
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        what = "text in UTF-8" if "utf8" in str(error).lower() else "a table in CSV"
        raise DataError(f"{path}: expected {what}, got something else") from None
    if odd:
        number, expected, got = odd[0]
        raise DataError(f"{path}: row {max(number - 1, 1)}: expected {expected} cells as in the header, got {got}")
    return pa.table([column.dictionary_encode() for column in table.columns], names=table.column_names).to_pandas()


def _header(path: Path) -> list[str]:
    import csv

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except OSError as error:
        raise DataError(f"{path}: expected a readable file, got: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error):
        raise DataError(f"{path}: expected text in UTF-8, got something else") from None
    if not header:
        raise DataError(f"{path}: expected a header and rows, got an empty file")
    return header


def _parquet(path: Path) -> pd.DataFrame:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path).read().to_pandas(ignore_metadata=True)
    except OSError as error:
        raise DataError(f"{path}: expected a readable Parquet file, got: {error.strerror or 'a damaged one'}") from None
    except (pa.ArrowException, ValueError):
        raise DataError(f"{path}: expected a Parquet file, got something else or a damaged one") from None


def with_split(table: Any, split_column: str | None) -> Any:
    """A table, or cells, with the column that says who is held back under the name "split"; without one for None."""
    import dataclasses

    if split_column == "split":
        return table
    if hasattr(table, "obs"):
        return dataclasses.replace(table, obs=with_split(table.obs, split_column))
    table = table.drop(columns="split", errors="ignore")
    if split_column is not None and split_column in table.columns:
        table = table.rename(columns={split_column: "split"})
    return table


def as_named(table: Any, split_column: str | None) -> Any:
    """The other way: the column "split" under the study's own name for it, as a site's own file has it."""
    import dataclasses

    if split_column in (None, "split"):
        return table
    if hasattr(table, "obs"):
        return dataclasses.replace(table, obs=as_named(table.obs, split_column))
    return table.rename(columns={"split": split_column})


def _parts(table: pd.DataFrame, site_column: str | None, path: Path) -> list[tuple[str, pd.DataFrame]]:
    """The file's sites, each with its rows in the file's order."""
    if site_column is None or site_column not in table.columns:
        name = path.stem
        if len(table) == 0:
            raise DataError(f"site '{name}': expected at least one row, got an empty table ({path})")
        return [(name, table)]
    names = table[site_column].astype(str).str.strip()
    unnamed = table[site_column].isna().to_numpy() | names.isin(ABSENT).to_numpy()
    if unnamed.any():
        where = f"{path}: column '{site_column}', {rows_shown(table.index, unnamed)}"
        raise DataError(f"{where}: expected the site's name, got no value")
    if len(table) == 0:
        raise DataError(f"{path}: expected at least one row, got an empty table")
    rest = table.drop(columns=site_column)
    return [(str(name), rest.loc[(names == name).to_numpy()]) for name in sorted(names.unique())]


def _parts_of_cells(cells: Cells, site_column: str | None, path: Path) -> list[tuple[str, Cells]]:
    """The file's sites, each with its cells in the file's order."""
    if site_column is None or site_column not in cells.obs.columns:
        return [(path.stem, cells)]
    column = cells.obs[site_column]
    names = column.astype(str).str.strip()
    unnamed = column.isna().to_numpy() | names.isin(ABSENT).to_numpy()
    if unnamed.any():
        first = cells.obs.index[unnamed][0]
        where = f"{path}: obs['{site_column}'], cell '{first}' ({int(unnamed.sum())} such)"
        raise DataError(f"{where}: expected the site's name, got no value")
    return [(str(name), cells.take((names == name).to_numpy())) for name in sorted(names.unique())]
