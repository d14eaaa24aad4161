"""Where a study's rows come from: what its config names, or what a call hands over."""

from __future__ import annotations

from typing import Any

import numpy as np

from learner_jax.data import cohort_file, partition
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


def site_of(name: str, value: Any, seed: int) -> SiteData:
    """One site's rows from (x, y) or SiteData.

    Raises:
      DataError: lengths differ, there are no rows, or a number is not finite.
    """
    if isinstance(value, SiteData):
        return value
    if hasattr(value, "columns"):
        raise DataError(f"site '{name}': expected (x, y), got a table, which a task without a checklist cannot read")
    try:
        x, y = value
    except (TypeError, ValueError):
        raise DataError(f"site '{name}': expected (x, y), got {type(value).__name__}") from None
    x, y = as_array(x, f"site '{name}'", "x"), as_array(y, f"site '{name}'", "y")
    if not x.ndim or not y.ndim:
        raise DataError(f"site '{name}': expected a row of x and an outcome in y each, got a single number")
    if len(x) != len(y) or not len(x):
        raise DataError(
            f"site '{name}': expected as many rows in x as in y, and at least one, got {len(x)} and {len(y)}"
        )
    for part, values in (("x", x), ("y", y)):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            where = int(np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(1))[0])
            raise DataError(f"site '{name}': expected finite numbers in {part}, got NaN or infinity in row {where}")
    x = x.astype(np.float32) if x.dtype.kind == "f" else x
    y = y.astype(np.float32) if y.dtype.kind in "fb" else y
    group = np.arange(len(x), dtype=np.int64)
    return SiteData({"x": x, "y": y}, deal(group, None, seed, 0.1, 0.2), group, {})
