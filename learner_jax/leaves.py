"""Named leaves: what a pytree looks like on the wire and on disk. NumPy only.

A tree crosses a process boundary as its leaves alone, in path order, raw little-endian bytes one after the other; the
receiver rebuilds the tree on its own schema, a tuple of `LeafSpec`. So nothing that arrives can name a type, a shape
or a place that the receiver did not already expect.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

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


def check_finite(leaves: Mapping[str, np.ndarray], peer: str = "unknown") -> None:
    """Refuses leaves that hold NaN or infinity.

    Raises:
      RemoteProtocolError: names the leaf and how many of its numbers are not finite.
    """
    for name, leaf in leaves.items():
        if leaf.dtype.kind in "fV":
            bad = int(leaf.size - np.isfinite(leaf.astype(np.float64, copy=False)).sum())
            if bad:
                raise RemoteProtocolError(peer, f"expected finite numbers in leaf '{name}', got {bad} that are not")


def weights_sha256(leaves: Mapping[str, np.ndarray]) -> str:
    """sha256 over name, dtype, shape and bytes of each leaf, in path order: equal for equal weights, to the bit."""
    digest = hashlib.sha256()
    for spec in schema_of(leaves):
        digest.update(f"{spec.name}:{spec.dtype}:{','.join(map(str, spec.shape))};".encode())
        digest.update(_raw(np.asarray(leaves[spec.name])).reshape(-1).view(np.uint8).data)
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
