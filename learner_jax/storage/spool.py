"""The coordinator's spool: accepted updates as files named by their sha256, until their round is in a durable step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from learner_jax import failpoints
from learner_jax.errors import CorruptError, StorageError
from learner_jax.storage.atomic import fsync_folder, sweep_temporary, write_bytes


class Spool:
    """A folder of files named by what they hold.

    Args:
      folder: made if it is not there.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep_temporary(self.folder)

    def path(self, digest: str) -> Path:
        """Where a digest's bytes lie, or would lie."""
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise StorageError(f"expected a sha256 of 64 hexadecimal digits, got {digest!r}")
        return self.folder / digest

    def put(self, digest: str, data: bytes | memoryview) -> None:
        """Writes and fsyncs; a digest that is there already is not written again.

        Args:
          digest: sha256 of data (the caller has checked it).
          data: the update's bytes.

        Raises:
          StorageError: the disk is full or refuses.
        """
        path = self.path(digest)
        if not (path.exists() and path.stat().st_size == len(data)):
            write_bytes(path, data, point="coordinator.spool")
        else:
            self._settle()  # it may be there because the last write failed after its rename

    def get(self, digest: str) -> bytes:
        """The bytes, checked against their digest.

        Raises:
          StorageError: not there.
          CorruptError: not what was written.
        """
        path = self.path(digest)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StorageError(f"expected an update in {path}, got: {error.strerror}") from None
        got = hashlib.sha256(data).hexdigest()
        if got != digest:
            raise CorruptError(f"expected {path} to hold what its name says, got sha256 {got[:16]}...")
        return data

    def drop(self, digest: str) -> None:
        """Removes an update; quietly if it is not there."""
        self.path(digest).unlink(missing_ok=True)

    def list(self) -> tuple[str, ...]:
        """Digests of all updates here, sorted."""
        return tuple(sorted(path.name for path in self.folder.iterdir() if len(path.name) == 64))

    def sweep(self, keep: Iterable[str]) -> int:
        """Removes all updates but those to keep; two sites may share a digest, so this, not `drop`, ends a round.

        Returns:
          how many were removed.

        Raises:
          StorageError: the disk refuses.
        """
        keep = set(keep)
        old = [digest for digest in self.list() if digest not in keep]
        if not old:
            return 0
        try:
            failpoints.here("coordinator.spool.before_sweep")
            for digest in old:
                self.drop(digest)
                failpoints.here("coordinator.spool.mid_sweep")
            failpoints.here("coordinator.spool.after_sweep")
        except OSError as error:
            raise StorageError(f"expected to remove updates from {self.folder}, got: {error.strerror}") from None
        self._settle()
        return len(old)

    def _settle(self) -> None:
        try:
            fsync_folder(self.folder)
        except OSError as error:
            raise StorageError(f"expected to keep the names in {self.folder}, got: {error.strerror}") from None
