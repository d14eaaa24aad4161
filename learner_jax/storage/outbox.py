"""A site's outbox: one update that waits for its acknowledgement, the state that goes with it, and the state committed.

The update is re-sent byte for byte until it is acknowledged; only then does the new state (SCAFFOLD's control, error
feedback, a personal model) become the site's. Two files in one folder, each whole or absent:

    pending     the update, the state it would commit, and which round they are of
    committed   the state of the last acknowledged update, and which
    seen        the newest epoch of the coordinator that this site has met
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from learner_jax.errors import CorruptError, LocalProtocolError
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
        _write(self._pending, entry, data, state)

    def pending(self) -> tuple[Entry, bytes, bytes] | None:
        """(entry, data, state), or None.

        Raises:
          CorruptError: not what was written.
        """
        return _read(self._pending)

    def commit(self, digest: str) -> None:
        """Makes the pending update's state the site's own and empties the outbox. The same digest again does nothing.

        Raises:
          LocalProtocolError: another update is pending.
          StorageError: the disk is full or refuses.
        """
        pending = self.pending()
        if pending is None or pending[0].digest != digest:
            committed = self.committed()
            if committed is not None and committed[0].digest == digest:
                return
            got = "none" if pending is None else pending[0].digest[:12]
            raise LocalProtocolError(f"expected to commit update {digest[:12]} in {self.folder}, but pending is {got}")
        entry, _, state = pending
        _write(self._committed, entry, b"", state)
        self._remove()

    def discard(self) -> None:
        """Empties the outbox without committing: the update was refused for good."""
        self._remove()

    def committed(self) -> tuple[Entry, bytes] | None:
        """(entry, state) of the last acknowledged update, or None.

        Raises:
          CorruptError: not what was written.
        """
        found = _read(self._committed)
        return None if found is None else (found[0], found[2])

    def epoch_seen(self) -> int:
        """The newest epoch of the coordinator that this site has met; 0 at first."""
        return int(read_json(self._seen)["epoch"]) if self._seen.exists() else 0

    def see_epoch(self, epoch: int) -> None:
        """Remembers an epoch, durably; a smaller one changes nothing."""
        if epoch > self.epoch_seen():
            write_json(self._seen, {"epoch": epoch}, mode=0o600)

    def _remove(self) -> None:
        self._pending.unlink(missing_ok=True)
        fsync_folder(self.folder)


def _write(path: Path, entry: Entry, data: bytes | memoryview, state: bytes) -> None:
    check = hashlib.sha256(state).hexdigest()
    head = json.dumps({**entry._asdict(), "data": len(data), "state": len(state), "state_sha256": check}).encode()
    seal = hashlib.sha256(head).digest()
    write_bytes(path, _MAGIC, len(head).to_bytes(4, "little"), seal, head, data, state, mode=0o600)


def _read(path: Path) -> tuple[Entry, bytes, bytes] | None:
    if not path.exists():
        return None
    raw = path.read_bytes()
    try:
        length = int.from_bytes(raw[8:12], "little")
        head = raw[44 : 44 + length]
        fields = json.loads(head)
        cut = 44 + length + fields.pop("data")
        data, state = raw[44 + length : cut], raw[cut : cut + fields.pop("state")]
        sound = raw[:8] == _MAGIC and raw[12:44] == hashlib.sha256(head).digest()
        sound &= hashlib.sha256(state).hexdigest() == fields.pop("state_sha256") and cut + len(state) == len(raw)
        entry = Entry(**fields)
    except (ValueError, TypeError, KeyError):
        raise CorruptError(f"expected an outbox file in {path}, got other bytes") from None
    if not sound or (data and hashlib.sha256(data).hexdigest() != entry.digest):
        raise CorruptError(f"expected {path} as it was written, got other bytes")
    return entry, data, state
