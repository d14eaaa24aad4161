"""Where data files are: the folder named by LEARNER_DATA first, then the samples that are shipped.

Data that are not shipped (for tests, benchmarks) can only be in LEARNER_DATA; `find` returns None where they are not,
and `not_there` says what to print then, so that nothing is skipped silently.
"""

from __future__ import annotations

import os
from pathlib import Path

from learner_jax.data.schema import near
from learner_jax.errors import DataError

VARIABLE = "LEARNER_DATA"

SHIPPED = {
    "diabetes130": "diabetes130.parquet",
    "pbmc10k": "pbmc10k_cite_2000.h5ad",
}

NOTES = {
    "diabetes130": "The sites are artificial: real patients of 130 hospitals, dealt to ten made-up sites.",
    "pbmc10k": "The laboratories are artificial: one donor's real cells, dealt to four made-up ones by kind.",
}
"""What must be said wherever a result on a sample is shown."""


def shipped_folder() -> Path:
    """The folder of the samples inside the installed package."""
    return Path(__file__).resolve().parent.parent / "samples"


def find(file: str) -> Path | None:
    """A file of that name in LEARNER_DATA, in its subfolder `samples`, or among the shipped; None if in none of them.

    Args:
      file: "diabetes130.parquet", or a path below the folder: "ehr/heart_disease.csv".
    """
    folders = [shipped_folder()]
    if named := os.environ.get(VARIABLE):
        folders = [Path(named), Path(named) / "samples", *folders]
    return next((folder / file for folder in folders if (folder / file).is_file()), None)


def not_there(file: str) -> str:
    """One line to print where something did not run because a file is not there."""
    named = os.environ.get(VARIABLE)
    where = f"not in {VARIABLE}={named}" if named else f"{VARIABLE} is not set"
    return f"not run: it needs {file}, {where}"


def sample_path(name: str) -> Path:
    """Path of a shipped sample.

    Raises:
      DataError: no sample of that name.
    """
    if name not in SHIPPED:
        similar = near(name, SHIPPED)
        hint = f"; near: {', '.join(similar)}" if similar else f"; there are: {', '.join(SHIPPED)}"
        raise DataError(f"expected the name of a sample, got '{name}'{hint}")
    path = find(SHIPPED[name])
    if path is None:
        raise DataError(f"expected the sample '{name}' among the files of the package, got none: installed in part?")
    return path
