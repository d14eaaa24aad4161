"""Where a study's rows come from: what its config names, or what a call hands over."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from learner_jax.data import cohort_file, columns, partition
from learner_jax.data.samples import NOTES
from learner_jax.data.sites import SiteData, deal
from learner_jax.data.tables import files_of, read_sites, read_table
from learner_jax.engines.given import as_array
from learner_jax.errors import DataError
from learner_jax.specs import Study


def frames_of(study: Study) -> dict[str, Any]:
    """name -> raw table, from the study's `data`."""
    data = study.data
    if not data.source:
        raise DataError("data.source: expected a sample's name, a file or a folder, got nothing")
    if data.partition is None:
        return read_sites(data.source, site_column=data.site_column, split_column=data.split_column, sites=data.sites)
    files = files_of(data.source)
    if len(files) != 1:
        raise DataError(f"data.partition: expected one table to part, got {len(files)} files in {data.source}")
    parted = partition.make(data.partition.name, data.partition.fields)(read_table(files[0]), study.seed)
    return {name: table for name, table in parted.items() if data.sites is None or name in data.sites}


def chosen_of(study: Study) -> list[dict[str, Any]]:
    """How the rows of a study's tables were chosen, as `cohort_file.of_table`: of each that is used and says it."""
    data = study.data
    files = files_of(data.source) if data.source else []
    if data.sites is not None and data.partition is None and len(files) > 1:
        files = [path for path in files if path.stem in data.sites]
    return [found for path in files if (found := cohort_file.of_table(path)) is not None]


def notes_of(study: Study) -> tuple[str, ...]:
    """What must be said wherever a result is shown."""
    return (NOTES[study.data.source],) if study.data.source in NOTES else ()


def site_of(name: str, value: Any, seed: int, scratch: str | None = None) -> SiteData:
    """One site's rows from (x, y) or SiteData; arrays on the disk stay there.

    Args:
      name: of the site.
      value: what was handed over.
      seed: of the study.
      scratch: folder for what is packed on the disk, see `columns.mapped`.

    Raises:
      DataError: lengths differ, there are no rows, or a number is not finite.
    """
    if isinstance(value, SiteData):
        return value._replace(rows=jax.tree.map(lambda leaf: _mapped(name, leaf, scratch), value.rows))
    if hasattr(value, "columns"):
        raise DataError(f"site '{name}': expected (x, y), got a table, which a task without a checklist cannot read")
    try:
        x, y = value
    except (TypeError, ValueError):
        raise DataError(f"site '{name}': expected (x, y), got {type(value).__name__}") from None
    x, y = (_mapped(name, as_array(values, f"site '{name}'", part), scratch) for part, values in (("x", x), ("y", y)))
    if not x.ndim or not y.ndim:
        raise DataError(f"site '{name}': expected a row of x and an outcome in y each, got a single number")
    if len(x) != len(y) or not len(x):
        raise DataError(
            f"site '{name}': expected as many rows in x as in y, and at least one, got {len(x)} and {len(y)}"
        )
    for part, values in (("x", x), ("y", y)):
        start = 0
        for block in columns.blocks_of(values) if values.dtype.kind == "f" else ():
            finite = np.isfinite(block).reshape(len(block), -1).all(1)
            if not finite.all():
                where = start + int(np.argmin(finite))
                raise DataError(f"site '{name}': expected finite numbers in {part}, got NaN or infinity in row {where}")
            start += len(block)
    x = columns.cast(x, np.float32) if x.dtype.kind == "f" else x
    y = columns.cast(y, np.float32) if y.dtype.kind in "fb" else y
    y = np.asarray(y) if y.ndim == 1 else y
    group = np.arange(len(x), dtype=np.int64)
    return SiteData({"x": x, "y": y}, deal(group, None, seed, 0.1, 0.2), group, {})


def _mapped(name: str, values: Any, scratch: str | None) -> Any:
    if not columns.is_on_disk(values):
        return values
    try:
        return columns.mapped(values, scratch)
    except DataError as error:
        raise DataError(f"site '{name}': {error}") from None
