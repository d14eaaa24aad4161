"""What the wire benchmark moves: bytes that both ends know, and the check of what came. The standard library only."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import NamedTuple

CHUNK = 1024 * 1024
"""Bytes of a frame: those of `learner_jax.protocol.messages.CHUNK`, which must not be imported where gRPC lives."""
SAMPLE = 64


def make_blob(site: int, size: int) -> bytes:
    """The bytes that a site sends, random and its own."""
    rng = random.Random(f"wire {site}")
    return b"".join(rng.randbytes(min(CHUNK, size - at)) for at in range(0, size, CHUNK))


class Expected(NamedTuple):
    """What of a blob is remembered to check it by: its sha256, its size, and the first and last bytes of each chunk."""

    sha256: str
    size: int
    samples: tuple[tuple[bytes, bytes], ...]


def expect(site: int, size: int) -> Expected:
    """What must come from a site."""
    blob = make_blob(site, size)
    parts = [blob[at : at + CHUNK] for at in range(0, size, CHUNK)]
    return Expected(hashlib.sha256(blob).hexdigest(), size, tuple((part[:SAMPLE], part[-SAMPLE:]) for part in parts))


class Disagreement(Exception):
    """The bytes that came are not those that were sent."""


class Check:
    """Takes the chunks of one blob, in order.

    Args:
      expected: what must come.
      hashed: whether all bytes are held against a sha256; otherwise lengths, and both ends of each chunk.
    """

    def __init__(self, expected: Expected, hashed: bool):
        self._expected, self._hash = expected, hashlib.sha256() if hashed else None
        self._count = self._bytes = 0

    def take(self, part: bytes | memoryview) -> bool:
        """Takes the next chunk; True with the last one.

        Raises:
          Disagreement: it is not what was sent.
        """
        if self._hash is not None:
            self._hash.update(part)
        ends = bytes(part[:SAMPLE]), bytes(part[-SAMPLE:])
        if self._count >= len(self._expected.samples) or ends != self._expected.samples[self._count]:
            raise Disagreement(f"expected chunk {self._count} as it was sent, got another")
        self._count += 1
        self._bytes += len(part)
        if self._count < len(self._expected.samples):
            return False
        if self._bytes != self._expected.size:
            raise Disagreement(f"expected {self._expected.size} bytes, got {self._bytes}")
        if self._hash is not None and self._hash.hexdigest() != self._expected.sha256:
            raise Disagreement(f"expected sha256 {self._expected.sha256[:12]}, got {self._hash.hexdigest()[:12]}")
        return True


def checks(expected: Sequence[Expected], streams: int, hashed: bool) -> dict[int, Check]:
    """One check for each stream."""
    return {site: Check(expected[site], hashed) for site in range(streams)}
