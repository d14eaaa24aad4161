"""A site's outbox: one update that waits for its acknowledgement, the state that goes with it, and the state committed.

The update is re-sent byte for byte until it is acknowledged; only then does the new state (SCAFFOLD's control, error
feedback, a personal model) become the site's. Files in one folder, each whole or absent:

    pending     an update, the state it would commit, and which round they are of
    committed   the same of the last update that was acknowledged
    seen.json   the newest epoch of the coordinator that this site has met

To commit is to rename one to the other. The bytes of the last acknowledged update stay until the next one's take their
place: a coordinator whose disk has lost them may ask again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from learner_jax import failpoints
from learner_jax.errors import CorruptError, LocalProtocolError, StorageError
from learner_jax.protocol.entry import Entry
from learner_jax.storage.atomic import fsync_folder, read_json, sweep_temporary, write_bytes, write_json

_MAGIC = b"LEARNER1"


class Outbox:
    """A folder with at most one pending update and one committed state.

    Args:
      folder: made (0700) if it is not there.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        sweep_temporary(self.folder)
        self._pending, self._committed = self.folder / "pending", self.folder / "committed"
        self._seen = self.folder / "seen.json"
        pending, committed = self.pending(), self.committed()
        if pending is not None and committed is not None and pending[0] == committed[0]:
            self._remove()  # killed between the two writes of a commit

    def put(self, entry: Entry, data: bytes | memoryview, state: bytes = b"") -> None:
        """Writes an update and the state that it would commit; replaces one that is pending.

        Raises:
          StorageError: the disk is full or refuses.
        """
        check = hashlib.sha256(state).hexdigest()
        fields = {**entry._asdict(), "data": len(data), "state": len(state), "state_sha256": check}
        head = json.dumps(fields).encode()
        seal = hashlib.sha256(head).digest()
        parts = (_MAGIC, len(head).to_bytes(4, "little"), seal, head, data, state)
        write_bytes(self._pending, *parts, mode=0o600, point="site.outbox")

    def pending(self) -> tuple[Entry, bytes, bytes] | None:
        """(entry, data, state), or None.

        Raises:
          CorruptError: not what was written.
        """
        found = _read(self._pending)
        return None if found is None else (found.entry, found.data, found.state)

    def commit(self, digest: str) -> None:
        """Makes the pending update's state the site's own and empties the outbox. The same digest again does nothing.

        Raises:
          LocalProtocolError: another update is pending.
          StorageError: the disk is full or refuses.
        """
        pending = _read(self._pending)
        if pending is None or pending.entry.digest != digest:
            committed = self.committed()
            if committed is not None and committed[0].digest == digest:
                return
            got = "none" if pending is None else pending.entry.digest[:12]
            raise LocalProtocolError(f"expected to commit update {digest[:12]} in {self.folder}, but pending is {got}")
        try:
            failpoints.here("site.outbox.before_commit")
            self._pending.replace(self._committed)
            failpoints.here("site.outbox.after_commit")
            fsync_folder(self.folder)
        except OSError as error:
            raise StorageError(f"expected to commit an update in {self.folder}, got: {error.strerror}") from None

    def discard(self) -> None:
        """Empties the outbox without committing: the update was refused for good.

        Raises:
          StorageError: the disk refuses.
        """
        try:
            failpoints.here("site.outbox.before_discard")
            self._remove()
            failpoints.here("site.outbox.after_discard")
        except OSError as error:
            raise StorageError(f"expected to empty the outbox {self.folder}, got: {error.strerror}") from None

    def committed(self) -> tuple[Entry, bytes] | None:
        """(entry, state) of the last acknowledged update, or None.

        Raises:
          CorruptError: not what was written.
        """
        found = _read(self._committed, with_data=False)
        return None if found is None else (found.entry, found.state)

    def kept(self) -> tuple[Entry, bytes] | None:
        """(entry, data) of the last acknowledged update, or None; data is checked against its digest.

        Raises:
          CorruptError: not what was written.
        """
        found = _read(self._committed)
        return None if found is None or len(found.data) != found.entry.size else (found.entry, found.data)

    def epoch_seen(self) -> int:
        """The newest epoch of the coordinator that this site has met; 0 at first."""
        return int(read_json(self._seen)["epoch"]) if self._seen.exists() else 0

    def see_epoch(self, epoch: int) -> None:
        """Remembers an epoch, durably; a smaller one changes nothing."""
        if epoch > self.epoch_seen():
            write_json(self._seen, {"epoch": epoch}, mode=0o600, point="site.epoch")

    def _remove(self) -> None:
        self._pending.unlink(missing_ok=True)
        fsync_folder(self.folder)


class _File(NamedTuple):
    """What an outbox file holds; data is b"" where it was not asked for."""

    entry: Entry
    data: bytes
    state: bytes


def _read(path: Path, with_data: bool = True) -> _File | None:
    """A file as it was written; its data are read, and checked, only where they are wanted."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            start = file.read(44)
            head = file.read(int.from_bytes(start[8:12], "little"))
            fields = json.loads(head)
            size, wanted, check = fields.pop("data"), fields.pop("state"), fields.pop("state_sha256")
            entry = Entry(**fields)
            data = file.read(size) if with_data else b""
            file.seek(len(start) + len(head) + size)
            state = file.read(wanted)
            whole = file.tell() == path.stat().st_size
    except OSError as error:
        raise StorageError(f"expected to read {path}, got: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise CorruptError(f"expected an outbox file in {path}, got other bytes") from None
    sound = start[:8] == _MAGIC and start[12:] == hashlib.sha256(head).digest() and whole
    sound &= len(state) == wanted and hashlib.sha256(state).hexdigest() == check
    if not sound or (data and hashlib.sha256(data).hexdigest() != entry.digest):
        raise CorruptError(f"expected {path} as it was written, got other bytes")
    return _File(entry, data, state)
