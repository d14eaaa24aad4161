"""What lies on a disk of an earlier transfer, so that its pieces need not be sent again: a cache, never a promise.

Nothing here is fsynced. Whoever takes bytes from it checks the digest of the whole, and asks for all of it where they
are not what they were.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from learner_jax.protocol.transfers import Held
from learner_jax.storage.atomic import TEMPORARY, write_all

_MAGIC = b"LEARNERB"
_HEAD = len(_MAGIC) + 4


class OnDisk:
    """Bytes of a file, read as they are sliced; fewer come where the file is gone or the disk refuses.

    Args:
      path: of the file.
      start, size: which of its bytes.
    """

    def __init__(self, path: Path, start: int, size: int):
        self._path, self._start, self._size = path, start, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        start, stop, _ = part.indices(self._size)
        try:
            with self._path.open("rb", buffering=0) as file:
                file.seek(self._start + start)
                return file.read(max(0, stop - start)) or b""
        except OSError:
            return b""


def hold(path: Path, pieces: bytes, data: bytes | memoryview) -> OnDisk | None:
    """Puts a blob and its table into a file, in place of the one of before; None if the disk refuses."""
    beside = path.parent / f"{TEMPORARY}{path.name}-{os.getpid()}"
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb", buffering=0) as file:
            for part in (_MAGIC, len(pieces).to_bytes(4, "little"), pieces, data):
                write_all(file, part)
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        return None
    return OnDisk(path, _HEAD + len(pieces), len(data))


def held(path: Path) -> Held | None:
    """What `hold` put there, if it is there."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            pieces = file.read(int.from_bytes(head[len(_MAGIC) :], "little"))
        size = path.stat().st_size - _HEAD - len(pieces)
    except (OSError, OverflowError):
        return None
    return Held(pieces, OnDisk(path, _HEAD + len(pieces), size)) if head[: len(_MAGIC)] == _MAGIC and size > 0 else None
