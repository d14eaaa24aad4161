"""What is fuzzed: three readers of bytes that a stranger may have made. Each takes any bytes and raises only for a bug.

A target is a function of bytes. What it may refuse, it refuses with our own error, which the target swallows; whatever
else comes out of it, or does not hold afterwards, is a finding.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

from learner_jax.errors import CryptoError, RemoteProtocolError
from learner_jax.network import keys as k
from learner_jax.protocol import messages as m
from learner_jax.protocol import transfers

D = "ab" * 32
BLOB = m.Blob(D, 5_000_000, "cd" * 32)
MESSAGES = (
    m.Enrol("s", "h00", "x" * 40, b"k" * 32),
    m.Hello("s", m.PROTOCOL, "h00", "learner-jax 0.1.0", 2, "0a1f"),
    m.Welcome("s", m.PROTOCOL, 3, b"{}", D, ("h00", "h01")),
    m.Open("s", 3, 1, "train", 1, 2, 10, BLOB, {"key": 7, "lr": 0.5, "mode": "x"}),
    m.Want("s", D, m.CHUNK, 8),
    m.Chunk("s", D, 0, True),
    m.Offer("s", 3, 1, "train", 1, "h00", D, BLOB),
    m.Rejected("s", 3, 1, "train", D, False, "late"),
    m.Ping("s", 3, 1, ""),
)
CHUNK, SIZE = 8, 61


def header(data: bytes) -> None:
    """A header is a message, which comes through encoding unchanged, or it is refused."""
    try:
        message = m.decode(data, "fuzz")
    except RemoteProtocolError:
        return
    again = m.encode(message)
    assert m.decode(again, "fuzz") == message
    assert m.encode(m.decode(m.encode(message, 0), "fuzz"), 0) == m.encode(message, 0)


def reassembly(data: bytes) -> None:
    """Bytes are what a peer does to a transfer, three a step: it ends with the bytes announced, or not at all.

    Chunks are of 8 bytes for once, so that a few steps reach everything.
    """
    before, transfers.CHUNK = transfers.CHUNK, CHUNK
    try:
        _reassemble(data)
    finally:
        transfers.CHUNK = before


def _reassemble(data: bytes) -> None:
    size = data[0] % (SIZE + 1) if data else 0
    whole = bytes(range(size))
    digest = hashlib.sha256(whole).hexdigest()
    here = transfers.Receiver("s", m.Blob(digest, size, D), window=1 + len(data) % 5, patience_s=3.0)
    there, now, asked, came = transfers.Holder(), 0.0, 0, b""
    there.hold(digest, whole)
    for at in range(1, len(data) - 2, 3):
        do, where, how = data[at : at + 3]
        now, frames = now + how % 4, []
        if do % 4 == 0:
            asked = max([asked, *(want.offset // CHUNK + want.credit for want in here.wants(now))])
        elif do % 4 == 1:  # an honest answer to some question
            frames = there.chunks(m.Want("s", digest, where % 9 * CHUNK, 1 + how % 3))
        elif do % 4 == 2:  # any chunk
            payload = whole[where : where + how % 10] if do & 4 else bytes(how % 10)
            frames = [(m.Chunk("s", digest if do & 8 else D, where, bool(do & 16)), memoryview(payload))]
        else:
            here.resume()
        for chunk, payload in frames:
            with contextlib.suppress(RemoteProtocolError):
                came += b"".join(map(bytes, here.take(chunk, payload, now)))
        assert 0 <= len(came) <= here.received <= min(size, asked * CHUNK)
        assert sum(map(len, here._ahead.values())) < here._window * CHUNK
    if here.complete:
        assert here.received == size
        with contextlib.suppress(RemoteProtocolError):  # of a peer that sent others
            here.check()
            assert came == whole


def roster(data: bytes) -> None:
    """A roster is this coordinator's own and unchanged, or it is refused; so is a join code."""
    path = _folder() / "roster.json"
    path.write_bytes(data)
    try:
        found = k.load_roster(path, _KEYS)
    except CryptoError:
        found = None
    assert found is None or found == _ROSTER
    try:
        code = k.parse_join_code(data.decode("utf-8", "replace"))
    except CryptoError:
        return
    assert k.parse_join_code(code.text()) == code


_KEYS = k.new_keys()
_CODE = k.JoinCode("tcp://127.0.0.1:7443", _KEYS.curve_public, "study", k.new_curve()[1])
_ROSTER = k.Roster("study").with_code(_CODE.public, "h00").with_site(
    _CODE.public, "h00", k.Site(k.new_curve()[0], _KEYS.sign_public)
)  # fmt: skip
_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def _folder() -> Path:
    if not _KEPT:
        _KEPT.append(tempfile.TemporaryDirectory(prefix="fuzz-"))
    return Path(_KEPT[0].name)


def seeds(name: str) -> list[bytes]:
    """Inputs to begin with: some that are read, and some that were once a finding."""
    if name == "header":
        deep = [b"\x81\xa4kind" + b"\x91" * depth + b"\xc0" for depth in (1000, 60_000)]
        return [*(m.encode(one) for one in MESSAGES), *deep]
    if name == "reassembly":
        honest = b"".join(bytes([0, 0, 1, 1, at, 1]) for at in range(9))
        return [bytes([SIZE]) + honest, bytes([8]) + bytes(range(60)), bytes([0])]
    k.save_roster(_folder() / "seed.json", _ROSTER, _KEYS)
    text = (_folder() / "seed.json").read_bytes()
    bare = json.dumps({"roster": {"study": "s", "version": 1, "sites": {}, "codes": {}}, "signature": "00"}).encode()
    return [text, bare, b"[" * 2000, b'{"roster":' + b"[" * 5000, _CODE.text().encode()]


TARGETS: dict[str, Callable[[bytes], None]] = {"header": header, "reassembly": reassembly, "roster": roster}


def mutated(rng: random.Random, corpus: list[bytes]) -> bytes:
    """One of the corpus with some bytes flipped, taken out, put in, repeated, or joined with another's."""
    data = bytearray(rng.choice(corpus))
    for _ in range(1 + rng.randrange(4)):
        at, many = rng.randrange(len(data) + 1), 1 + rng.randrange(8)
        kind = rng.randrange(5)
        if kind == 0 and data:
            data[at % len(data)] = rng.choice((0, 0x7F, 0x80, 0xC1, 0xFF, rng.randrange(256)))
        elif kind == 1:
            del data[at : at + many]
        elif kind == 2:
            data[at:at] = rng.randbytes(many)
        elif kind == 3:
            data[at:at] = data[at : at + many] * rng.choice((1, 2, 50))
        else:
            other = rng.choice(corpus)
            data[at:] = other[rng.randrange(len(other) + 1) :]
    return bytes(data[:70_000])
