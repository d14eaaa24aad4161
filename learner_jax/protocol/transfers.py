"""Moving a blob in chunks, asked for by the receiver: windowed, resumable, checked by digest.

The receiver keeps at most `window` chunks under way. When nothing has come for `patience_s`, what is missing is asked
for again: on a slow line chunks come late, but they come in order, and none is asked for twice while some still do.
Loss, duplication and reordering cost time, never correctness; what is not on the grid of chunks is the peer's error.
A receiver keeps no blob: it hands on the bytes in their order, as they come, and holds only what came before its turn,
less than a window. So memory is a window a transfer, however large the blob, or what a peer claims that it is.

A blob is announced with a table of its pieces (`leaves.pieces`). Pieces that are here of an earlier blob are not sent:
each Want says which they are, and the grid of chunks is then that of the other pieces, one after the other. Nobody has
to remember what the other side has; the digest of the whole is checked over pieces old and new.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from learner_jax.errors import RemoteProtocolError
from learner_jax.leaves import Bytes, Joined, read_pieces
from learner_jax.protocol.messages import CHUNK, Blob, Chunk, Want
from learner_jax.protocol.zipped import gains, unzipped, zipped

WINDOW = 8
"""Chunks under way at most, of one transfer."""
AT_ONCE = WINDOW * CHUNK
"""Bytes of old pieces that are handed on in one go, no more than a window: hashing more would keep the line waiting."""
Payload = bytes | memoryview
Frame = tuple[Chunk, Payload]


class Held(NamedTuple):
    """An earlier blob that is here. pieces: its table; data: its bytes, or fewer where they are lost."""

    pieces: bytes
    data: Bytes


class _Piece(NamedTuple):
    """A piece of a blob, at start, that lies in an earlier one, at there."""

    start: int
    length: int
    there: int


def _lying(table: bytes, size: int, held: Held | None) -> tuple[bytes, list[_Piece]]:
    """Which pieces of a blob are here: as a Want says it, and where they lie."""
    entries = read_pieces(table)
    if held is None or not entries or sum(length for length, _ in entries) != size:
        return b"", []
    places, at = {}, 0
    for entry in read_pieces(held.pieces):
        places.setdefault(entry, at)
        at += entry[0]
    found, have, start = [], 0, 0
    for number, entry in enumerate(entries):
        if entry in places and entry[0]:
            found.append(_Piece(start, entry[0], places[entry]))
            have |= 1 << number
        start += entry[0]
    return have.to_bytes(-(-have.bit_length() // 8), "little"), found


class Receiver:
    """One blob on its way here.

    Args:
      study: named in each Want.
      blob: what was announced; the caller has checked its size against what it expects.
      window: chunks under way at most.
      patience_s: seconds without any chunk until those under way are asked for again.
      peer: whom an error names.
      pieces: table of the blob's pieces, as announced; b"" if it was not.
      held: an earlier blob, whose pieces need not be sent again.
      at_once: bytes of its pieces that are handed on in one go; None: as many as are in a window.
    """

    def __init__(
        self,
        study: str,
        blob: Blob,
        window: int = WINDOW,
        patience_s: float = 10.0,
        peer: str = "unknown",
        pieces: bytes = b"",
        held: Held | None = None,
        at_once: int | None = None,
    ):
        self.blob, self._at_once = blob, at_once
        self._study, self._peer, self._window, self._patience = study, peer, window, patience_s
        self._have, old = _lying(pieces, blob.size, held)
        self._held, self._old = held, old[::-1]  # the next one last
        self._rest = blob.size - sum(piece.length for piece in old)  # bytes to be sent
        self._count = -(-self._rest // CHUNK)
        self._came = float("-inf")  # when a chunk last came
        self._next = 0  # chunks from here on were never asked for
        self._asked: dict[int, float] = {}  # under way, since when
        self._lost: set[int] = set()  # asked for once, to be asked for again
        self._hash = hashlib.sha256()
        self._hashed = 0  # chunks before this were handed on
        self._used = 0  # bytes of this one too
        self._ahead: dict[int, Payload] = {}  # and these are here, whose turn has not come
        self.handed = 0
        """Bytes that were handed on."""

    @property
    def received(self) -> int:
        """Bytes that are here."""
        return self.handed + sum(map(len, self._ahead.values())) - self._used

    def _length(self, index: int) -> int:
        return min(CHUNK, self._rest - index * CHUNK)

    def resume(self) -> None:
        """Forgets what was under way: the peer or the line was restarted."""
        self._lost |= self._asked.keys()
        self._asked.clear()

    def wants(self, now: float) -> list[Want]:
        """What to ask for now."""
        if now - self._came >= self._patience:
            for index, asked in list(self._asked.items()):
                if now - asked >= self._patience:
                    del self._asked[index]
                    self._lost.add(index)
        free = self._window - len(self._asked)
        if free <= 0 or (self._asked and free < self._window // 2):
            return []
        picked = sorted(self._lost)[:free] if self._lost else []
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
        digest, have = self.blob.digest, self._have
        return [Want(self._study, digest, index * CHUNK, credit, have, "zstd") for index, credit in asks]

    def take(self, chunk: Chunk, payload: Payload, now: float) -> list[Payload]:
        """Takes a chunk; one that is here already, was not asked for, or of another blob, changes nothing.

        Returns:
          The bytes whose turn has come, in order, as `more`.

        Raises:
          RemoteProtocolError: not on the grid of chunks, or of another length than its place.
        """
        if (chunk.digest, chunk.have) != (self.blob.digest, self._have):
            return []
        index, rest = divmod(chunk.offset, CHUNK)
        sound = not rest and chunk.offset < self._rest
        new = self._hashed <= index < self._next and index not in self._ahead
        if sound and chunk.zip and not new:
            return []
        if sound and chunk.zip:
            payload = unzipped(payload, self._length(index), self._peer)
        if not sound or len(payload) != self._length(index):
            expected = f"expected chunks of {CHUNK} bytes of {self._rest}"
            raise RemoteProtocolError(self._peer, f"{expected}, got {len(payload)} at {chunk.offset}")
        self._came = now
        if not new:
            return []
        self._lost.discard(index)
        self._asked.pop(index, None)
        self._ahead[index] = payload
        found = self.more()
        if index in self._ahead:
            self._ahead[index] = bytes(payload)  # the line's memory is its own
        return found

    def more(self) -> list[Payload]:
        """The bytes whose turn has come, in order: of chunks that are here, and of old pieces, so many at a time. To be
        asked for at the start, and now and then.

        Raises:
          RemoteProtocolError: an old piece is not there any more.
        """
        turn: list[Payload] = []
        room = AT_ONCE if self._at_once is None else self._at_once
        while room > 0:
            old = self._old[-1] if self._old else None
            if old is not None and old.start == self.handed:
                part = self._from_old(old)
                room -= len(part)
            elif self._hashed in self._ahead:
                part = self._from_chunk(old)
            else:
                break
            self._hash.update(part)
            self.handed += len(part)
            turn.append(part)
        return turn

    def _from_old(self, old: _Piece) -> Payload:
        assert self._held is not None
        length = min(CHUNK, old.length)
        part = self._held.data[old.there : old.there + length]
        if len(part) != length:
            raise RemoteProtocolError(self._peer, "what was here of an earlier one is lost")
        self._old[-1] = _Piece(old.start + length, old.length - length, old.there + length)
        if length == old.length:
            self._old.pop()
        return part

    def _from_chunk(self, old: _Piece | None) -> Payload:
        whole = self._ahead[self._hashed]
        length = len(whole) - self._used
        part = whole[self._used :]
        if old is not None and old.start - self.handed < length:
            part = part[: old.start - self.handed]
        self._used += len(part)
        if len(part) == length:
            del self._ahead[self._hashed]
            self._hashed, self._used = self._hashed + 1, 0
        return part

    @property
    def saved(self) -> int:
        """Bytes that need not be sent."""
        return self.blob.size - self._rest

    @property
    def complete(self) -> bool:
        """Whether every chunk was handed on."""
        return self.handed == self.blob.size

    def check(self) -> None:
        """Holds what came against what was announced, once complete.

        Raises:
          RemoteProtocolError: it is not that.
        """
        got = self._hash.hexdigest()
        if got != self.blob.digest:
            raise RemoteProtocolError(self._peer, f"expected bytes with sha256 {self.blob.digest[:12]}, got {got[:12]}")


class _Blob:
    """A blob that may be fetched, and what was found out about it."""

    def __init__(self, data: Bytes, pieces: bytes):
        self.data, self._pieces = data, read_pieces(pieces)
        self._gains: bool | None = None
        self._view: tuple[bytes, Bytes] = b"", data
        self._zipped: OrderedDict[tuple[bytes, int], Payload] = OrderedDict()  # several sites ask for the same

    def view(self, have: bytes) -> Bytes:
        """The pieces that somebody has not, one after the other."""
        if self._view[0] != have:
            self._view = have, Joined(self._wanted(have)) if have else self.data
        return self._view[1]

    def _wanted(self, have: bytes) -> Iterable[tuple[Bytes, int, int]]:
        bits, at = int.from_bytes(have, "little"), 0
        for number, (length, _) in enumerate(self._pieces):
            if not bits >> number & 1:
                yield self.data, at, at + length
            at += length

    def chunk(self, view: Bytes, want: Want, start: int, stop: int) -> tuple[str, Payload]:
        """How one chunk goes: ("", its bytes) or ("zstd", fewer)."""
        if want.zip != "zstd":
            return "", view[start:stop]
        if self._gains is None:
            self._gains = gains(self.data)
        if not self._gains:
            return "", view[start:stop]
        key = want.have, start
        if key not in self._zipped:
            self._zipped[key] = zipped(view[start:stop])
            while len(self._zipped) > 2 * WINDOW:
                self._zipped.popitem(last=False)
        found = self._zipped[key]
        return ("zstd", found) if len(found) < stop - start else ("", view[start:stop])


class Holder:
    """Blobs that may be fetched from here; the last few are kept.

    Args:
      keep: how many.
    """

    def __init__(self, keep: int = 2):
        self.keep = keep
        self._blobs: OrderedDict[str, _Blob] = OrderedDict()

    def hold(self, digest: str, data: Bytes, pieces: bytes = b"") -> None:
        """Offers these bytes under their digest. pieces: their table."""
        self._blobs[digest] = _Blob(memoryview(data) if isinstance(data, bytes) else data, pieces)
        self._blobs.move_to_end(digest)
        while len(self._blobs) > self.keep:
            self._blobs.popitem(last=False)

    def get(self, digest: str) -> Bytes | None:
        """The bytes, if they are still held."""
        found = self._blobs.get(digest)
        return None if found is None else found.data

    def places(self, want: Want) -> range:
        """Where the chunks begin that a Want asks for; none if the blob is not held, or the offset is off the grid."""
        blob = self._blobs.get(want.digest)
        if blob is None or want.offset % CHUNK:
            return range(0)
        return range(want.offset, min(len(blob.view(want.have)), want.offset + want.credit * CHUNK), CHUNK)

    def chunk(self, want: Want, at: int) -> Frame:
        """The chunk at one of these places."""
        blob = self._blobs[want.digest]
        view = blob.view(want.have)
        stop = min(at + CHUNK, len(view))
        how, payload = blob.chunk(view, want, at, stop)
        return Chunk(want.study, want.digest, at, stop == len(view), want.have, how), payload

    def chunks(self, want: Want) -> list[Frame]:
        """All chunks that a Want asks for."""
        return [self.chunk(want, at) for at in self.places(want)]
