"""Files that are whole or absent: written beside, fsynced, renamed, and the folder fsynced."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from learner_jax import failpoints
from learner_jax.errors import CorruptError, StorageError

TEMPORARY = ".tmp-"


def fsync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class SharedSync:
    """Makes the names in a folder durable for several threads at a time: who comes while a sync is under way waits for
    the next, which is one for all of them.

    Args:
      folder: there.
    """

    def __init__(self, folder: Path):
        self._folder, self._turn = folder, threading.Lock()
        self._begun = self._over = 0

    def __call__(self) -> None:
        """Returns when a sync that began after this call is over."""
        wanted = self._begun + 1
        with self._turn:
            if self._over >= wanted:
                return
            self._begun += 1
            fsync_folder(self._folder)
            self._over = self._begun


def write_bytes(path: Path, *parts: bytes | memoryview, mode: int = 0o644, point: str = "") -> None:
    """Writes a file so that after a crash it holds all the new bytes, or what it held before.

    Args:
      path: where; its folder exists.
      *parts: written one after the other.
      mode: permissions of the file, set before any byte is in it.
      point: what its failpoints begin with; "" for none.

    Raises:
      StorageError: the disk is full or refuses.
    """
    beside = path.parent / f"{TEMPORARY}{path.name}-{os.getpid()}"
    try:
        failpoints.here(f"{point}.before_write")
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(handle, "wb", buffering=0) as file:
            for part in parts:
                write_all(file, part)
            failpoints.here(f"{point}.before_fsync")
            os.fsync(file.fileno())
        failpoints.here(f"{point}.before_rename")
        beside.replace(path)
        failpoints.here(f"{point}.after_rename")
        fsync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # on a disk that may only be read this is refused, too
            beside.unlink(missing_ok=True)
        raise StorageError(f"expected to write {sum(map(len, parts))} bytes to {path}, got: {error.strerror}") from None


def write_all(file: Any, part: bytes | memoryview) -> None:
    """Writes all of it to an unbuffered file."""
    rest = memoryview(part).cast("B") if len(part) else memoryview(b"")
    while len(rest):
        rest = rest[file.write(rest) :]


def write_json(path: Path, value: Any, mode: int = 0o644, point: str = "") -> None:
    """Writes JSON with sorted keys, whole or not at all.

    Raises:
      StorageError: the disk is full or refuses.
    """
    write_bytes(path, (json.dumps(value, sort_keys=True, indent=1) + "\n").encode(), mode=mode, point=point)


def read_json(path: Path) -> Any:
    """Reads what `write_json` wrote.

    Raises:
      StorageError: not there.
      CorruptError: there, but not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise StorageError(f"expected a JSON file at {path}, got: {error.strerror}") from None
    except ValueError as error:
        raise CorruptError(f"expected JSON in {path}, got something else ({error})") from None


def sweep_temporary(folder: Path) -> None:
    """Removes what a crash left half written. Only for the folder's one writer, when it starts."""
    for path in folder.glob(f"{TEMPORARY}*"):
        path.unlink(missing_ok=True)
