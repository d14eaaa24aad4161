"""Moving a blob in chunks, asked for by the receiver: windowed, resumable, checked by digest.

The receiver keeps at most `window` chunks under way. When nothing has come for `patience_s`, what is missing is asked
for again: on a slow line chunks come late, but they come in order, and none is asked for twice while some still do.
Loss, duplication and reordering cost time, never correctness; what is not on the grid of chunks is the peer's error.
A receiver keeps no blob: it hands on the bytes in their order, as they come, and holds only what came before its turn,
less than a window. So memory is a window a transfer, however large the blob, or what a peer claims that it is.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Protocol, runtime_checkable

from learner_jax.errors import RemoteProtocolError
from learner_jax.protocol.messages import CHUNK, Blob, Chunk, Want

WINDOW = 8
"""Chunks under way at most, of one transfer."""
Payload = bytes | memoryview
Frame = tuple[Chunk, Payload]


@runtime_checkable
class Bytes(Protocol):
    """Bytes to be sent, in one piece or not: what has a length and can be sliced into them."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Payload: ...


class Receiver:
    """One blob on its way here.

    Args:
      study: named in each Want.
      blob: what was announced; the caller has checked its size against what it expects.
      window: chunks under way at most.
      patience_s: seconds without any chunk until those under way are asked for again.
      peer: whom an error names.
    """

    def __init__(self, study: str, blob: Blob, window: int = WINDOW, patience_s: float = 10.0, peer: str = "unknown"):
        self.blob = blob
        self._study, self._peer, self._window, self._patience = study, peer, window, patience_s
        self._count = -(-blob.size // CHUNK)
        self._came = float("-inf")  # when a chunk last came
        self._next = 0  # chunks from here on were never asked for
        self._asked: dict[int, float] = {}  # under way, since when
        self._lost: set[int] = set()  # asked for once, to be asked for again
        self._hash = hashlib.sha256()
        self._hashed = 0  # chunks before this were handed on
        self._ahead: dict[int, bytes] = {}  # and these are here, after one that is not

    @property
    def received(self) -> int:
        """Bytes that are here."""
        return self.handed + sum(map(len, self._ahead.values()))

    @property
    def handed(self) -> int:
        """Bytes that were handed on."""
        return min(self._hashed * CHUNK, self.blob.size)

    def _length(self, index: int) -> int:
        return min(CHUNK, self.blob.size - index * CHUNK)

    def resume(self) -> None:
        """Forgets what was under way: the peer or the line was restarted."""
        self._lost |= self._asked.keys()
        self._asked.clear()

    def wants(self, now: float) -> list[Want]:
        """What to ask for now."""
        for index, asked in list(self._asked.items()):
            if now - max(asked, self._came) >= self._patience:
                del self._asked[index]
                self._lost.add(index)
        free = self._window - len(self._asked)
        if free <= 0 or (self._asked and free < self._window // 2):
            return []
        picked = sorted(self._lost)[:free]
        most = min(self._count, self._next + free - len(picked), self._hashed + self._window)
        fresh = range(self._next, most)
        picked += fresh
        self._lost.difference_update(picked)
        self._next += len(fresh)
        asks: list[list[int]] = []
        for index in picked:
            self._asked[index] = now
            if asks and sum(asks[-1]) == index:
                asks[-1][1] += 1
            else:
                asks.append([index, 1])
        return [Want(self._study, self.blob.digest, index * CHUNK, credit) for index, credit in asks]

    def take(self, chunk: Chunk, payload: Payload, now: float) -> list[Payload]:
        """Takes a chunk; one that is here already, was not asked for, or of another blob, changes nothing.

        Returns:
          The bytes whose turn has come, in order: none, the payload, or the payload and those that waited for it.

        Raises:
          RemoteProtocolError: not on the grid of chunks, or of another length than its place.
        """
        if chunk.digest != self.blob.digest:
            return []
        index, rest = divmod(chunk.offset, CHUNK)
        if rest or chunk.offset >= self.blob.size or len(payload) != self._length(index):
            expected = f"expected chunks of {CHUNK} bytes of {self.blob.size}"
            raise RemoteProtocolError(self._peer, f"{expected}, got {len(payload)} at {chunk.offset}")
        self._came = now
        if index >= self._next or index < self._hashed or index in self._ahead:
            return []
        self._lost.discard(index)
        self._asked.pop(index, None)
        if index > self._hashed:
            self._ahead[index] = bytes(payload)
            return []
        turn = [payload]
        self._hashed += 1
        while self._hashed in self._ahead:
            turn.append(self._ahead.pop(self._hashed))
            self._hashed += 1
        for part in turn:
            self._hash.update(part)
        return turn

    @property
    def complete(self) -> bool:
        """Whether every chunk was handed on."""
        return self._hashed == self._count

    def check(self) -> None:
        """Holds what came against what was announced, once complete.

        Raises:
          RemoteProtocolError: it is not that.
        """
        got = self._hash.hexdigest()
        if got != self.blob.digest:
            raise RemoteProtocolError(self._peer, f"expected bytes with sha256 {self.blob.digest[:12]}, got {got[:12]}")


class Holder:
    """Blobs that may be fetched from here; the last few are kept.

    Args:
      keep: how many.
    """

    def __init__(self, keep: int = 2):
        self._keep = keep
        self._blobs: OrderedDict[str, Bytes] = OrderedDict()

    def hold(self, digest: str, data: Bytes) -> None:
        """Offers these bytes under their digest."""
        self._blobs[digest] = memoryview(data) if isinstance(data, bytes) else data
        self._blobs.move_to_end(digest)
        while len(self._blobs) > self._keep:
            self._blobs.popitem(last=False)

    def get(self, digest: str) -> Bytes | None:
        """The bytes, if they are still held."""
        return self._blobs.get(digest)

    def chunks(self, want: Want) -> list[Frame]:
        """The chunks that a Want asks for; none if the blob is not held or the offset is not on the grid."""
        data = self._blobs.get(want.digest)
        if data is None or want.offset % CHUNK:
            return []
        stop = min(len(data), want.offset + want.credit * CHUNK)
        return [
            (Chunk(want.study, want.digest, at, at + CHUNK >= len(data)), data[at : min(at + CHUNK, stop)])
            for at in range(want.offset, stop, CHUNK)
        ]
