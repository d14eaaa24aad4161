"""The coordinator's spool: accepted updates as files named by their sha256, until their round is in a durable step.

An update is written as it comes, beside, and has its name only when all of it is durable. So a coordinator holds none
in memory, and the disk takes many at a time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from learner_jax import failpoints
from learner_jax.errors import CorruptError, StorageError
from learner_jax.leaves import site_id
from learner_jax.protocol.transfers import Held
from learner_jax.storage.atomic import TEMPORARY, SharedSync, sweep_temporary, write_all
from learner_jax.storage.held import OnDisk

_HALF = ".half-"
_SMALL = 2**20
"""Bytes up to which an update is held until all of it is there, and read in one go."""


class _Held:
    """A small update that is coming: it goes to the disk when it is kept."""

    def __init__(self, path: Path, size: int):
        self.path, self.size, self.data = path, size, bytearray()

    @property
    def written(self) -> int:
        return len(self.data)

    def write(self, data: bytes | memoryview) -> None:
        self.data += data

    def read(self) -> io.BytesIO:
        return io.BytesIO(self.data)

    def settle(self) -> None:
        """Writes it, durably; it has no name yet."""
        with self.path.open("wb", buffering=0) as file:
            write_all(file, memoryview(self.data))
            failpoints.here("coordinator.spool.before_fsync")
            os.fsync(file.fileno())

    def drop(self) -> None:
        _unlink(self.path)


def _unlink(path: Path) -> None:
    """Removes what is given up; a disk that cannot even do this keeps it, until the next process sweeps."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


class _Part:
    """An update that is coming, on its way to the disk."""

    def __init__(self, path: Path, size: int):
        self.path, self.size, self.written = path, size, 0
        self.file = path.open("wb", buffering=0)
        if size and hasattr(os, "posix_fallocate"):
            try:  # a full disk is said now, not when most of a large update has come over a slow line
                os.posix_fallocate(self.file.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    self.drop()
                    raise

    def write(self, data: bytes | memoryview) -> None:
        write_all(self.file, data)
        self.written += len(data)

    def read(self) -> io.FileIO:
        return self.path.open("rb", buffering=0)

    def settle(self) -> None:
        """Makes it durable; it has no name yet."""
        with self.file:
            failpoints.here("coordinator.spool.before_fsync")
            os.fsync(self.file.fileno())

    def drop(self) -> None:
        with contextlib.suppress(OSError):  # what it held back finds no room
            self.file.close()
        _unlink(self.path)


class Checked(io.RawIOBase):
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: io.FileIO):
        self._file, self._hash = file, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fills a buffer as far as the file goes; the bytes that it got."""
        count = self._file.readinto(buffer)
        self._hash.update(memoryview(buffer).cast("B")[:count])
        return count

    def digest(self) -> str:
        """sha256 of the whole file; reads what is left of it."""
        while self.read(1 << 20):
            pass
        return self._hash.hexdigest()


@contextlib.contextmanager
def _read(path: Path) -> Iterator[None]:
    """What a disk says in reading, in our words: a file that is gone is lost, and else another time may do better."""
    try:
        yield
    except FileNotFoundError as error:
        raise CorruptError(f"expected an update in {path}, got: {error.strerror}") from None
    except OSError as error:
        raise StorageError(f"expected an update in {path}, got: {error.strerror}") from None


class Spool:
    """A folder of files named by what they hold.

    Args:
      folder: made if it is not there.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._count = 0
        self._halves = self._left_over()
        sweep_temporary(self.folder)
        self._sync = SharedSync(self.folder)
        self._parts: dict[tuple[str, str], _Held | _Part] = {}  # on their way, by site and digest

    def path(self, digest: str) -> Path:
        """Where a digest's bytes lie, or would lie."""
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise StorageError(f"expected a sha256 of 64 hexadecimal digits, got {digest!r}")
        return self.folder / digest

    def append(self, site: str, digest: str, size: int, offset: int, data: bytes | memoryview) -> None:
        """Puts the next bytes of an update behind those before, in a file that a crash leaves without a name.

        Args:
          site: whose it is; a site has one on its way at a time.
          digest: sha256 of the whole update.
          size: of the whole update, in bytes; its room is taken at once where the file system can.
          offset: where these bytes begin; 0 begins the update anew, and drops an older one of this site.
          data: they.

        Raises:
          StorageError: the disk is full or refuses; what came of this update is dropped.
        """
        part = self._parts.get((site, digest))
        try:
            if not offset:
                for key in [key for key in list(self._parts) if key[0] == site]:
                    self._forget(key)
                failpoints.here("coordinator.spool.before_write")
                part = self._parts[site, digest] = self._begin(self._part(site, digest), size)
            if part is None or part.written != offset:
                raise OSError(errno.EIO, f"expected its bytes from {part.written if part else 0} on, got {offset}")
            part.write(data)
        except OSError as error:
            self._forget((site, digest))
            raise StorageError(f"expected to write {size} bytes to {self.folder}, got: {error.strerror}") from None

    def _begin(self, path: Path, size: int) -> _Held | _Part:
        if size <= _SMALL:
            return _Held(path, size)
        try:
            return _Part(path, size)
        except OSError as error:
            if error.errno != errno.ENOSPC or not self._halves:
                raise
            for number, _ in list(self._halves):  # better sent again than waited for
                self._forget_halves(number)
            return _Part(path, size)

    def keep(self, site: str, digest: str, pieces: bytes = b"") -> OnDisk:
        """Makes an update durable, under its digest, once all of it was appended (the caller has checked it).

        Args:
          site, digest: as they were appended.
          pieces: table of the update's pieces, kept beside it.

        Returns:
          The bytes, as long as they lie here.

        Raises:
          StorageError: the disk is full or refuses, or not all of it is there; what came of it is dropped.
        """
        part = self._parts.pop((site, digest), None)
        try:
            if part is None or part.written != part.size:
                raise OSError(errno.EIO, "not all of it is there")
            part.settle()
            failpoints.here("coordinator.spool.before_rename")
            part.path.replace(self.path(digest))
            failpoints.here("coordinator.spool.after_rename")
            self._sync()
        except OSError as error:
            if part is not None:
                part.drop()
            raise StorageError(f"expected to keep an update in {self.folder}, got: {error.strerror}") from None
        self._forget_halves(site_id(site))
        if pieces:
            with contextlib.suppress(OSError):  # without it all of the next update is sent, no more
                self._table(digest).write_bytes(pieces)
        return OnDisk(self.path(digest), 0, part.size)

    def _left_over(self) -> dict[tuple[int, str], Path]:
        """What an earlier process had of updates on their way; by site id and digest."""
        for path in self.folder.glob(f"{TEMPORARY}*"):
            if path.stat().st_size > _SMALL:
                name, _, _ = path.name.removeprefix(TEMPORARY).rpartition("-")
                path.replace(self.folder / f"{_HALF}{name}")
        found = {}
        for path in self.folder.glob(f"{_HALF}*"):
            digest, _, number = path.name.removeprefix(_HALF).partition("-")
            found[int(number, 16), digest] = path
        return found

    def parts(self, sites: Iterable[str]) -> dict[tuple[str, str], OnDisk]:
        """(site, digest) -> what had come of an update when an earlier process ended; of unknown bytes from some place
        on."""
        names = {site_id(site): site for site in sites}
        for number in {number for number, _ in self._halves} - set(names):
            self._forget_halves(number)
        return {(names[number], digest): OnDisk(path, 0, path.stat().st_size)
                for (number, digest), path in self._halves.items() if number in names}  # fmt: skip

    def held(self, digest: str) -> Held | None:
        """An update and its table, if both are here."""
        try:
            pieces, size = self._table(digest).read_bytes(), self.path(digest).stat().st_size
        except OSError:
            return None
        return Held(pieces, OnDisk(self.path(digest), 0, size))

    def _table(self, digest: str) -> Path:
        return self.path(digest).with_suffix(".pieces")

    @contextlib.contextmanager
    def arrived(self, site: str, digest: str) -> Iterator[io.FileIO | io.BytesIO]:
        """What was appended of an update, open for reading.

        Raises:
          StorageError: it is not there.
        """
        part = self._parts.get((site, digest))
        try:
            if part is None:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            file = part.read()
        except OSError as error:
            raise StorageError(f"expected an update in {self.folder}, got: {error.strerror}") from None
        with file:
            yield file

    def _part(self, site: str, digest: str) -> Path:
        self._count += 1  # an older one of the same name may still be on its way to the disk
        return self.folder / f"{TEMPORARY}{self.path(digest).name}-{site_id(site):08x}-{self._count}"

    def _forget_halves(self, number: int) -> None:
        for key in [key for key in list(self._halves) if key[0] == number]:
            with contextlib.suppress(OSError):
                self._halves.pop(key).unlink(missing_ok=True)

    def _forget(self, key: tuple[str, str]) -> None:
        part = self._parts.pop(key, None)
        if part is not None:
            part.drop()

    @contextlib.contextmanager
    def opened(self, digest: str) -> Iterator[Checked | io.BytesIO]:
        """An update, to be read from the start to its end, piece by piece, and held against its digest.

        Raises:
          StorageError: it cannot be read now.
          CorruptError: not there, or not what was written: said at the end.
        """
        path = self.path(digest)
        with _read(path), path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size > _SMALL:
                checked = Checked(file)
                yield checked
                got = checked.digest()
            else:
                data = file.read()
                got = hashlib.sha256(data).hexdigest()
                if got == path.name:
                    yield io.BytesIO(data)
        self._compare(path, got)

    def _compare(self, path: Path, got: str) -> None:
        if got != path.name:
            raise CorruptError(f"expected {path} to hold what its name says, got sha256 {got[:16]}...")

    def get(self, digest: str) -> bytes:
        """The bytes, checked against their digest.

        Raises:
          StorageError: it cannot be read now.
          CorruptError: not there, or not what was written.
        """
        with self.opened(digest) as file:
            return file.read()

    def close(self) -> None:
        """Lets go of what is on its way; of a large update the next process finds what has come."""
        for part in self._parts.values():
            if isinstance(part, _Part):
                part.file.close()
        self._parts.clear()

    def drop(self, digest: str) -> None:
        """Removes an update; quietly if it is not there."""
        self.path(digest).unlink(missing_ok=True)
        self._table(digest).unlink(missing_ok=True)

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
        try:
            old = [digest for digest in self.list() if digest not in keep]
            if not old:
                return 0
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
            self._sync()
        except OSError as error:
            raise StorageError(f"expected to keep the names in {self.folder}, got: {error.strerror}") from None
