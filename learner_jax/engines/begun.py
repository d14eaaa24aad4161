"""What stands in a run's folder from its first second: the config, and what it was begun with.

`config.json` is the study in canonical form, which is a config again. `versions.json` names the versions, the machine
and the data files, by their digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learner_jax.data.tables import files_of
from learner_jax.engines.outcome import machine, versions
from learner_jax.errors import CorruptError, StorageError
from learner_jax.specs import Study
from learner_jax.storage.atomic import read_json, write_bytes, write_json

CHUNK = 1 << 20


def write_begun(folder: Path, study: Study, data: Mapping[str, str]) -> str:
    """Writes both files, unless a run has begun in the folder already: whose it is, is its journal's to say.

    Args:
      folder: the run's.
      study: the config.
      data: sha256 by name of file, of what this process reads; {} where it reads none.

    Returns:
      In words what is another version or machine than the run was begun with; "" if nothing is.

    Raises:
      StorageError: they cannot be written.
    """
    about = {"versions": versions(), "machine": machine(), "data": dict(data)}
    if (folder / "journal.sqlite").exists():
        return _unlike(folder / "versions.json", about)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"expected to make the folder {folder}, got: {error.strerror}") from None
    write_bytes(folder / "config.json", study.to_json().encode())
    write_json(folder / "versions.json", about)
    return ""


def checksums(study: Study) -> dict[str, str]:
    """sha256 by name of each data file that the study's config names.

    Raises:
      DataError: there is none.
    """
    return {path.name: _sha256(path) for path in files_of(study.data.source)} if study.data.source else {}


def _sha256(path: Path) -> str:
    """Of a file; of a folder (.zarr), over the names, sizes and bytes of its files in order of name."""
    found = hashlib.sha256()
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    for one in files:
        if one != path:
            found.update(f"{one.relative_to(path).as_posix()}\0{one.stat().st_size}\0".encode())
        with one.open("rb") as file:
            while chunk := file.read(CHUNK):
                found.update(chunk)
    return found.hexdigest()


def _unlike(path: Path, now: Mapping[str, Any]) -> str:
    """ "this run was begun with jaxlib 0.10.2, now 0.12.0: ..." where a version or the machine is another."""
    try:
        before = read_json(path)
        pairs = [(key, before[part].get(key), now[part].get(key))
                 for part in ("versions", "machine") for key in now[part]]  # fmt: skip
    except (StorageError, CorruptError, KeyError, AttributeError, TypeError):
        return ""
    found = [f"{key} {then}, now {here}" for key, then, here in pairs if then != here]
    if not found:
        return ""
    return f"this run was begun with {'; '.join(found)}: rounds that are run again may end in other bits"
