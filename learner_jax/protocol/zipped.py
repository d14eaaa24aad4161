"""Chunks compressed with Zstandard (RFC 8878), where a sample of what is sent gains by it.

Weights and updates as they come are noise to a compressor; frozen leaves, sparse updates and padding are not. Nothing
that arrives may grow beyond the chunk that it is announced as, whatever its header says.
"""

from __future__ import annotations

import zstandard

from learner_jax.errors import RemoteProtocolError
from learner_jax.leaves import Bytes
from learner_jax.protocol.messages import CHUNK

GAIN = 0.75
"""A sample that shrinks to less than this share of itself gains."""
_LEVEL = 1
_SAMPLES, _SAMPLE = 8, 8192


def gains(data: Bytes) -> bool:
    """Whether compressing would make these bytes clearly fewer: judged by a few short pieces from all over."""
    length, most = len(data), _SAMPLES * _SAMPLE
    step = max(_SAMPLE, length // _SAMPLES)
    sample = b"".join(data[at : min(at + _SAMPLE, length)] for at in range(0, length, step))[:most]
    return len(sample) >= 512 and len(zstandard.compress(sample, _LEVEL)) < GAIN * len(sample)


def zipped(payload: bytes | memoryview) -> bytes:
    """One chunk, compressed."""
    return zstandard.compress(payload, _LEVEL)


def unzipped(payload: bytes | memoryview, length: int | None, peer: str) -> bytes:
    """One chunk as it was.

    Args:
      payload: compressed.
      length: in bytes, of the chunk as it was; nothing longer is made. None: whatever a chunk may have.
      peer: whom an error names.

    Raises:
      RemoteProtocolError: not one frame of just so many bytes.
    """
    try:
        said = zstandard.get_frame_parameters(payload).content_size
        length = min(said, CHUNK) if length is None else length
        if said != length:  # what it says is what is made room for
            raise RemoteProtocolError(peer, f"expected a compressed chunk of {length} bytes, got one of {said}")
        found = zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise RemoteProtocolError(peer, f"expected a chunk compressed with zstd, got other bytes: {error}") from None
    if len(found) != length:
        raise RemoteProtocolError(peer, f"expected a compressed chunk of {length} bytes, got one of {len(found)}")
    return found
