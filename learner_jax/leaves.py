"""Named leaves: what a pytree looks like on the wire and on disk. NumPy only.

A tree crosses a process boundary as its leaves alone, in path order, raw little-endian bytes one after the other; the
receiver rebuilds the tree on its own schema, a tuple of `LeafSpec`. So nothing that arrives can name a type, a shape
or a place that the receiver did not already expect.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from learner_jax.errors import DataError, RemoteProtocolError

# Every dtype that may cross the wire: name -> (NumPy dtype of the raw bytes). bfloat16 travels as uint16.
_RAW = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        "float64",
        "float32",
        "float16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint64",
        "uint32",
        "uint16",
        "uint8",
    )
} | {"bool": np.dtype("bool"), "bfloat16": np.dtype("<u2")}


class LeafSpec(NamedTuple):
    """One expected leaf.

    Attributes:
      name: its path, "params/dense_0/kernel".
      dtype: "float32"; "bfloat16" is carried as uint16.
      shape: ints.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return _RAW[self.dtype].itemsize * int(np.prod(self.shape, dtype=np.int64))

    def __str__(self) -> str:
        return f"'{self.name}' {self.dtype}{list(self.shape)}"


Schema = tuple[LeafSpec, ...]
Leaves = Iterator[tuple[str, np.ndarray]]
"""(name, leaf), one after the other."""


def schema_of(leaves: Mapping[str, np.ndarray]) -> Schema:
    """The schema of named leaves, in path order.

    Raises:
      DataError: a dtype that may not cross the wire.
    """
    specs = []
    for name in sorted(leaves):
        leaf = leaves[name]
        dtype = str(leaf.dtype)
        if dtype not in _RAW:
            raise DataError(f"expected leaf '{name}' of a numeric dtype, got {dtype}")
        specs.append(LeafSpec(name, dtype, tuple(int(n) for n in leaf.shape)))
    return tuple(specs)


def schema_bytes(schema: Schema) -> int:
    """Bytes that `pack` makes of leaves with this schema."""
    return sum(spec.size for spec in schema)


def schema_digest(schema: Schema) -> str:
    """sha256 over names, dtypes and shapes."""
    text = json.dumps([[s.name, s.dtype, list(s.shape)] for s in schema], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _raw(leaf: np.ndarray) -> np.ndarray:
    dtype = str(leaf.dtype)
    raw = np.ascontiguousarray(leaf)
    if dtype == "bfloat16":
        raw = raw.view(np.uint16)
    return raw.astype(_RAW[dtype], copy=False)


def pack(leaves: Mapping[str, np.ndarray]) -> bytes:
    """All leaves' bytes, in path order, one after the other."""
    return b"".join(_raw(np.asarray(leaves[name])).tobytes() for name in sorted(leaves))


def unpack(data: bytes | memoryview, schema: Schema, peer: str = "unknown") -> dict[str, np.ndarray]:
    """Rebuilds named leaves from `pack`'s bytes.

    Args:
      data: as `pack` made it.
      schema: what this side expects.
      peer: whom an error names.

    Returns:
      name -> array (read-only views of data where alignment allows).

    Raises:
      RemoteProtocolError: the bytes do not fill the schema exactly.
    """
    expected = schema_bytes(schema)
    if len(data) != expected:
        raise RemoteProtocolError(peer, f"expected {expected} bytes for {len(schema)} leaves, got {len(data)}")
    leaves, offset = {}, 0
    for spec in schema:
        raw = np.frombuffer(data, _RAW[spec.dtype], count=int(np.prod(spec.shape, dtype=np.int64)), offset=offset)
        if spec.dtype == "bfloat16":
            raw = raw.view(_bfloat16())
        leaves[spec.name] = raw.reshape(spec.shape)
        offset += spec.size
    return leaves


@runtime_checkable
class Readable(Protocol):
    """A file opened for reading bytes, unbuffered."""

    def readinto(self, buffer: Any, /) -> int | None: ...

    def read(self, size: int = -1, /) -> bytes | None: ...


@runtime_checkable
class Bytes(Protocol):
    """Bytes in one piece or not, here or on a disk: what has a length and can be sliced into them."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes | memoryview: ...


class Joined:
    """Parts one after the other as if they were one: it has a length and slices, which are the parts' own memory.

    Args:
      parts: (data, start, stop): what of which bytes; data has slices.
    """

    def __init__(self, parts: Iterable[tuple[Any, int, int]]):
        self._parts = [part for part in parts if part[1] < part[2]]
        self._starts = [0, *itertools.accumulate(stop - start for _, start, stop in self._parts)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, part: slice, /) -> bytes | memoryview:
        start, stop, step = part.indices(len(self))
        if step != 1:
            raise ValueError(f"expected a slice of bytes that follow each other, got a step of {step}")
        found: list[bytes | memoryview] = []
        at = max(0, bisect.bisect_right(self._starts, start) - 1)
        while start < stop:
            data, low, high = self._parts[at]
            shift = low - self._starts[at]
            found.append(data[start + shift : min(stop + shift, high)])
            start, at = self._starts[at + 1], at + 1
        return found[0] if len(found) == 1 else b"".join(found)


class Packed(Joined):
    """What `pack` makes of leaves, without making it.

    Args:
      leaves: name -> array; held as long as this or a slice of it is.

    Attributes:
      sha256: of all the bytes.
      pieces: table of them, see `pieces`.
    """

    def __init__(self, leaves: Mapping[str, np.ndarray]):
        raws = [_raw(np.asarray(leaves[name])).reshape(-1).view(np.uint8).data.toreadonly() for name in sorted(leaves)]
        super().__init__((raw, 0, len(raw)) for raw in raws)
        digest = hashlib.sha256()
        for raw in raws:
            digest.update(raw)
        self.sha256, self.pieces = digest.hexdigest(), pieces(raws)


PIECES = 1024
"""Pieces in a table, at most."""
PIECE_ENTRY = 24
_SMALLEST, _LARGEST = 256, 4 * 2**20
"""Bytes of a piece: short leaves go with their neighbours, so that a table costs little; of long ones a part may be
new."""


def pieces(parts: Iterable[bytes | memoryview]) -> bytes:
    """The table by which who has some of these bytes already sees what is new: of leaves, runs of small ones, and parts
    of large ones.

    Args:
      parts: the bytes of each leaf, in order.

    Returns:
      24 bytes a piece: its length (uint64, little-endian), and the first 16 bytes of its sha256; b"" of no bytes.
    """
    parts = list(parts)
    whole = Joined((part, 0, len(part)) for part in parts)
    cuts = _cuts([*map(len, parts)])
    return b"".join(piece(whole[start:stop]) for start, stop in itertools.pairwise(cuts))


def count_pieces(schema: Schema) -> int:
    """How many pieces leaves with this schema are."""
    return max(0, len(_cuts([spec.size for spec in schema])) - 1)


def _cuts(sizes: Sequence[int]) -> list[int]:
    """Where each piece begins, in bytes, and where the last one ends: at most half of them because leaves end there."""
    ends, since = [], 0
    for end in itertools.accumulate(sizes):
        if end - since >= _SMALLEST:
            ends.append(end)
            since = end
    total = sum(sizes)
    every = max(1, -(-len(ends) // (PIECES // 2)))
    ends = [*ends[every - 1 :: every], total]
    if len(ends) > 1 and total - ends[-2] < _SMALLEST:
        del ends[-2]
    longest = max(_LARGEST, -(-total // (PIECES // 2 - 1)))
    cuts = [0]
    for end in ends:
        cuts += [*range(cuts[-1] + longest, end, longest), end] if end > cuts[-1] else []
    return cuts


def fitting(table: bytes, data: Bytes, most: int = 2**30) -> bytes:
    """The beginning of a table, of those pieces with which data begins; no more than `most` bytes are looked at, a
    megabyte at a time."""
    at, most = 0, min(most, len(data))
    for number, (length, digest) in enumerate(read_pieces(table)):
        if at + length > most:
            return table[: number * PIECE_ENTRY]
        found = hashlib.sha256()
        for start in range(at, at + length, _BLOCK):
            found.update(data[start : min(start + _BLOCK, at + length)])
        if found.digest()[:16] != digest:
            return table[: number * PIECE_ENTRY]
        at += length
    return table


def piece(*parts: bytes | memoryview) -> bytes:
    """The entry of one piece, which is these bytes one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return sum(map(len, parts)).to_bytes(8, "little") + digest.digest()[:16]


def leaf_pieces(data: bytes | memoryview, schema: Schema) -> bytes:
    """The table of `pack`'s bytes of leaves with this schema."""
    whole, starts = memoryview(data), [0, *itertools.accumulate(spec.size for spec in schema)]
    return pieces(whole[start:stop] for start, stop in itertools.pairwise(starts))


def read_pieces(table: bytes) -> list[tuple[int, bytes]]:
    """(length, digest) of each piece of a table."""
    entries = [table[at : at + PIECE_ENTRY] for at in range(0, len(table), PIECE_ENTRY)]
    return [(int.from_bytes(entry[:8], "little"), entry[8:]) for entry in entries]


def read_leaves(file: Readable, schema: Schema, peer: str = "unknown") -> Leaves:
    """As `unpack`, from a file: (name, array), leaf by leaf, each in memory that jax on a CPU takes as it is.

    Raises:
      RemoteProtocolError: the file does not fill the schema exactly; what came before is worth nothing.
    """
    for spec in schema:
        yield spec.name, _leaf(file, spec, schema, peer)  # no name for it here: it would be held while the next is read
    _at_end(file, schema, peer)


def _leaf(file: Readable, spec: LeafSpec, schema: Schema, peer: str) -> np.ndarray:
    room = np.empty(spec.size + _LINE, np.uint8)
    start = -room.ctypes.data % _LINE
    _fill(file, room[start : start + spec.size], schema, peer)
    return _as(room[start : start + spec.size], spec)


def check_file(file: Readable, schema: Schema, peer: str = "unknown") -> None:
    """Refuses a file that does not fill the schema, or holds NaN or infinity; a block of it is in memory at a time.

    Raises:
      RemoteProtocolError: it does not fill the schema exactly, or numbers are not finite: which leaf's, and how many.
    """
    block = np.empty(min(_BLOCK, max((spec.size for spec in schema), default=0)), np.uint8)
    for spec in schema:
        bad = 0
        for start in range(0, spec.size, _BLOCK):
            part = block[: min(_BLOCK, spec.size - start)]
            _fill(file, part, schema, peer)
            bad += _not_finite(_as(part, spec._replace(shape=(-1,))))
        if bad:
            raise RemoteProtocolError(peer, f"expected finite numbers in leaf '{spec.name}', got {bad} that are not")
    _at_end(file, schema, peer)


_BLOCK = 4 * 2**20
_LINE = 64
"""Bytes to which jax on a CPU wants its arrays aligned; others are copied."""


def _as(raw: np.ndarray, spec: LeafSpec) -> np.ndarray:
    leaf = raw.view(_RAW[spec.dtype])
    return (leaf.view(_bfloat16()) if spec.dtype == "bfloat16" else leaf).reshape(spec.shape)


def _fill(file: Readable, raw: np.ndarray, schema: Schema, peer: str) -> None:
    rest = raw.data
    while len(rest):
        count = file.readinto(rest)
        if not count:
            raise RemoteProtocolError(peer, f"expected {schema_bytes(schema)} bytes for {len(schema)} leaves, got less")
        rest = rest[count:]


def _at_end(file: Readable, schema: Schema, peer: str) -> None:
    if file.read(1):
        raise RemoteProtocolError(peer, f"expected {schema_bytes(schema)} bytes for {len(schema)} leaves, got more")


def _bfloat16() -> np.dtype:
    import ml_dtypes  # comes with jax; only asked for where bfloat16 is in use

    return np.dtype(ml_dtypes.bfloat16)


def check_schema(got: Sequence[LeafSpec], expected: Schema, peer: str = "unknown") -> None:
    """Refuses leaves that are not those expected, naming the first that differs.

    Raises:
      RemoteProtocolError: "expected leaf 'w' float32[784, 10], got float32[784, 12]".
    """
    here, there = {s.name: s for s in expected}, {s.name: s for s in got}
    for name, spec in here.items():
        if name not in there:
            raise RemoteProtocolError(peer, f"expected leaf {spec}, which is missing")
        if there[name] != spec:
            raise RemoteProtocolError(peer, f"expected leaf {spec}, got {there[name].dtype}{list(there[name].shape)}")
    for name in there:
        if name not in here:
            raise RemoteProtocolError(peer, f"unexpected leaf {there[name]}")


def _not_finite(leaf: np.ndarray) -> int:
    if leaf.dtype.kind not in "fV":
        return 0
    if leaf.dtype.kind == "V":  # bfloat16: NumPy has no test for it
        leaf = leaf.astype(np.float32)
    return int(leaf.size - np.count_nonzero(np.isfinite(leaf)))


@runtime_checkable
class InBlocks(Protocol):
    """An array that is read some rows at a time."""

    def blocks(self) -> Iterator[np.ndarray]: ...


def weights_sha256(leaves: Mapping[str, Any]) -> str:
    """sha256 over name, dtype, shape and bytes of each leaf, in path order: equal for equal weights, to the bit."""
    digest = hashlib.sha256()
    for spec in schema_of(leaves):
        digest.update(f"{spec.name}:{spec.dtype}:{','.join(map(str, spec.shape))};".encode())
        leaf = leaves[spec.name]
        for part in leaf.blocks() if isinstance(leaf, InBlocks) else [np.asarray(leaf)]:
            digest.update(_raw(part).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def site_id(name: str) -> int:
    """uint32 of a site's enrolled name, from sha256: what its keys are folded with, wherever it runs."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def site_ids(names: Iterable[str]) -> dict[str, int]:
    """name -> id for all sites of a study, in ascending order of id.

    Raises:
      DataError: a name twice, or two names with one id.
    """
    names = list(names)
    ids: dict[int, str] = {}
    for name in names:
        number = site_id(name)
        if number in ids:
            what = "is there twice" if ids[number] == name else f"has the same id as '{ids[number]}': rename one"
            raise DataError(f"expected sites with names of their own, but '{name}' {what}")
        ids[number] = name
    return {ids[number]: number for number in sorted(ids)}
