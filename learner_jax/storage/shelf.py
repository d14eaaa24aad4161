"""The states of many sites on the disk, of which a round takes some: memory holds those alone.

One file has a record for each site: its leaves' bytes, and a last byte that says whether they were ever written. A
site that was never asked takes no room, and is as it was enrolled. A round's new states are put in their places; what
was there before lies, durable, in `before-NUMBER` by then. So a run that was killed goes back to a step that it
restores, by putting back what each later round replaced, the newest first. What lies before the oldest step is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from learner_jax.errors import CorruptError, StorageError
from learner_jax.storage.atomic import sweep_temporary, write_bytes
from learner_jax.types import PyTree

_BEFORE = "before-"
_HEAD = 32 + 8
"""Bytes of a file of replaced records before their places: the sha256 of all that follows, and how many they are."""


class Shelf:
    """The states of all sites of a run.

    Args:
      start: of a site that has just enrolled, arrays.
      sites: how many there are.
      folder: of the run's states, made if it is not there; None: a nameless file, gone with the process.
      scratch: folder of the nameless file; None: the system's.

    Raises:
      StorageError: the folder has the states of another run, or cannot be written.
    """

    def __init__(self, start: PyTree, sites: int, folder: Path | None = None, scratch: str | None = None):
        leaves, self._structure = jax.tree.flatten(start)
        self._start = [np.array(leaf, order="C") for leaf in leaves]
        self._ends = np.cumsum([leaf.nbytes for leaf in self._start])
        self.record, self.sites, self._folder = int(self._ends[-1]) + 1, sites, folder
        self._pending: Callable[[], None] | None = None
        size = self.record * sites
        try:
            if folder is None:
                self._file: Any = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
            else:
                folder.mkdir(parents=True, exist_ok=True)
                sweep_temporary(folder)
                path = folder / "states"
                self._file = path.open("r+b" if path.exists() else "w+b")
            weakref.finalize(self, self._file.close)
            there = os.fstat(self._file.fileno()).st_size
            if there not in (0, size):
                raise StorageError(
                    f"expected the states of {sites:,} sites in {folder}, {size:,} bytes, got {there:,}: they are of "
                    "another study; name a new folder"
                )
            os.ftruncate(self._file.fileno(), size)
        except OSError as error:
            where = folder or scratch or tempfile.gettempdir()
            raise StorageError(f"expected room for sites' states in {where}, got: {error.strerror}") from None

    # ---- a round ----------------------------------------------------------------------------------------------------

    def take(self, places: Sequence[int] | np.ndarray) -> PyTree:
        """The states of sites, [k, ...]; at a place of -1 that of a site that has just enrolled."""
        self.settle()
        out = [np.empty((len(places), *leaf.shape), leaf.dtype) for leaf in self._start]
        rows = [_bytes_of(leaf) for leaf in out]
        first = b"".join(leaf.tobytes() for leaf in self._start)
        for k, place in enumerate(np.asarray(places).tolist()):
            record = self._read(place) if place >= 0 else b"\0"
            data = np.frombuffer(record if record[-1] else first, np.uint8)
            for row, end, leaf in zip(rows, self._ends.tolist(), self._start, strict=True):
                row[k] = data[end - leaf.nbytes : end]
        return jax.tree.unflatten(self._structure, out)

    def one(self, place: int) -> PyTree:
        """The state of a site."""
        return jax.tree.map(lambda leaf: leaf[0], self.take([place]))

    def put(self, places: np.ndarray, states: Callable[[], PyTree], number: int) -> None:
        """The new states of a round's sites; what they were before can be had again.

        Args:
          places: int[k], each once.
          states: () -> [k, ...]; called when they are wanted, so that the round may still be running.
          number: of the round, the one after the last.
        """
        self.settle()
        self._pending = lambda: self._put(places, states(), number)

    def settle(self) -> None:
        """Puts what is pending in its place.

        Raises:
          StorageError: there is no room; what was there before is as it was, and the next call tries again.
        """
        if self._pending is not None:
            self._pending()
            self._pending = None

    def _put(self, places: np.ndarray, states: PyTree, number: int) -> None:
        rows = [_bytes_of(np.ascontiguousarray(leaf)) for leaf in jax.tree.leaves(states)]
        order = np.argsort(places, kind="stable").tolist()
        try:
            if self._folder is not None:
                self._remember(np.sort(places), number)
            for k in order:
                self._write(int(places[k]), b"".join(row[k].tobytes() for row in rows) + b"\1")
        except OSError as error:
            raise StorageError(
                f"expected to write the states of {len(places)} sites, {self.record / 2**20:.1f} MiB each, got: "
                f"{error.strerror}"
            ) from None

    def _remember(self, places: np.ndarray, number: int) -> None:
        """What lies at these places, durable before it is replaced; not again where a call is tried again."""
        assert self._folder is not None
        path = self._folder / f"{_BEFORE}{number}"
        if path.exists():
            return
        parts = [np.int64(len(places)).tobytes(), places.astype("<i8").tobytes(), *map(self._read, places.tolist())]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        write_bytes(path, digest.digest(), *parts)

    # ---- steps ------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Makes all that was put durable: before a step that was made with it is.

        Raises:
          StorageError: the disk refuses.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StorageError(f"expected to write the sites' states, got: {error.strerror}") from None

    def back_to(self, number: int) -> None:
        """Puts all states back to those after a round.

        Args:
          number: of the round; 0: as they were enrolled.

        Raises:
          StorageError: what later rounds replaced is not all there, or is damaged; nothing was changed by the round
            that it is told of.
        """
        rounds = self._rounds()
        first, last = (rounds[0], rounds[-1]) if rounds else (1, 0)
        if rounds != list(range(first, last + 1)) or not first - 1 <= number <= last:
            said = f"rounds {first} to {last}" if rounds else "none"
            raise StorageError(
                f"expected the sites' states of round {number} in {self._folder}, got those of {said}; restore the "
                "whole folder, or name a new one"
            )
        for later in reversed(rounds):
            if later <= number:
                break
            self._undo(later)

    def _undo(self, number: int) -> None:
        assert self._folder is not None
        path = self._folder / f"{_BEFORE}{number}"
        try:
            data = path.read_bytes()
            count = int(np.frombuffer(data[32:_HEAD], "<i8")[0]) if len(data) >= _HEAD else -1
            start = _HEAD + 8 * count
            if hashlib.sha256(data[32:]).digest() != data[:32] or len(data) != start + count * self.record:
                raise CorruptError(f"expected {path} as it was written, got other bytes: name a new folder")
            for k, place in enumerate(np.frombuffer(data[_HEAD:start], "<i8").tolist()):
                self._write(place, data[start + k * self.record : start + (k + 1) * self.record])
            os.fsync(self._file.fileno())
            path.unlink()
        except OSError as error:
            raise StorageError(f"expected to put back what round {number} replaced, got: {error.strerror}") from None

    def forget(self, number: int) -> None:
        """Removes what the rounds before this one replaced: nobody goes back behind it."""
        for earlier in self._rounds():
            if earlier < number and self._folder is not None:
                with contextlib.suppress(OSError):  # it only takes room, and goes after the next step
                    (self._folder / f"{_BEFORE}{earlier}").unlink()

    def _rounds(self) -> list[int]:
        if self._folder is None:
            return []
        return sorted(int(path.name.removeprefix(_BEFORE)) for path in self._folder.glob(f"{_BEFORE}*"))

    # ---- bytes ------------------------------------------------------------------------------------------------------

    def _read(self, place: int) -> bytes:
        if not 0 <= place < self.sites:
            raise IndexError(f"expected a place below {self.sites}, got {place}")
        data = os.pread(self._file.fileno(), self.record, place * self.record)
        while len(data) < self.record:
            more = os.pread(self._file.fileno(), self.record - len(data), place * self.record + len(data))
            if not more:
                raise StorageError("expected the file of the sites' states as it was, got a shorter one")
            data += more
        return data

    def _write(self, place: int, record: bytes) -> None:
        at, rest = place * self.record, memoryview(record)
        while len(rest):
            wrote = os.pwrite(self._file.fileno(), rest, at)
            at, rest = at + wrote, rest[wrote:]


def _bytes_of(rows: np.ndarray) -> np.ndarray:
    """Contiguous [k, ...] as uint8[k, bytes of one], the same memory."""
    return rows.reshape(len(rows), -1).view(np.uint8) if rows.size else np.zeros((len(rows), 0), np.uint8)
