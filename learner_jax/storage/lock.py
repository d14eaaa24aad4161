"""One process a folder: a lock that goes with its process, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from learner_jax.errors import StudyError


@contextlib.contextmanager
def only_one(folder: Path, who: str, wait_s: float = 10.0) -> Iterator[None]:
    """Holds a folder's lock.

    Args:
      folder: made (0700) if it is not there.
      who: "worker", for the message.
      wait_s: to wait for one that is just leaving.

    Raises:
      StudyError: another holds it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, stop = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), time.monotonic() + wait_s
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > stop:
                    raise StudyError(f"expected one {who} a folder, but another is running in {folder}") from None
                time.sleep(0.1)
        yield
    finally:
        os.close(handle)
