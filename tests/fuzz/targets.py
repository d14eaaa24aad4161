"""What is fuzzed: four readers of bytes that a stranger may have made. Each takes any bytes and raises only for a bug.

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
from learner_jax.leaves import piece
from learner_jax.network import keys as k
from learner_jax.network.seal import CoordinatorSeal, SiteSeal
from learner_jax.protocol import messages as m
from learner_jax.protocol import transfers

D = "ab" * 32
BLOB = m.Blob(D, 5_000_000, "cd" * 32)
MESSAGES = (
    m.Enrol("s", "h00", "x" * 40, b"k" * 32),
    m.Hello("s", m.PROTOCOL, "h00", "learner-jax 0.1.0", 2, "0a1f"),
    m.Welcome("s", m.PROTOCOL, 3, b"{}", D, ("h00", "h01")),
    m.Open("s", 3, 1, "train", 1, 2, 10, BLOB, {"key": 7, "lr": 0.5, "mode": "x"}),
    m.Want("s", D, m.CHUNK, 8, b"\x05", "zstd"),
    m.Chunk("s", D, 0, True, b"\x05", "zstd"),
    m.Rotate("s", "k" * 40, b"s" * 32, b"p" * 64),
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

    Chunks are of 8 bytes for once, so that a few steps reach everything. The first byte also says whether the peer
    announced pieces, whether some of them are here of an earlier blob, and whether that one is spoilt.
    """
    before, transfers.CHUNK = transfers.CHUNK, CHUNK
    try:
        _reassemble(data)
    finally:
        transfers.CHUNK = before


def _reassemble(data: bytes) -> None:
    first = data[0] if data else 0
    size = first % (SIZE + 1)
    whole, half = bytes(range(size)), size // 2
    digest = hashlib.sha256(whole).hexdigest()
    table = piece(whole[:half]) + piece(whole[half:]) if first & 64 else b""
    before = bytes(half) if first & 32 else whole[:half]
    held = transfers.Held(piece(whole[:half]), before) if first & 128 else None
    blob = m.Blob(digest, size, D)
    here = transfers.Receiver("s", blob, 1 + len(data) % 5, 3.0, pieces=table, held=held)
    there, now, asked, came = transfers.Holder(), 0.0, 0, b""
    there.hold(digest, whole, table)
    have = here._have
    for at in range(1, len(data) - 2, 3):
        do, where, how = data[at : at + 3]
        now, frames = now + how % 4, []
        if do % 4 == 0:
            asked = max([asked, *(want.offset // CHUNK + want.credit for want in here.wants(now))])
        elif do % 4 == 1:  # an honest answer to some question
            frames = there.chunks(m.Want("s", digest, where % 9 * CHUNK, 1 + how % 3, have, "zstd"))
        elif do % 4 == 2:  # any chunk
            payload = whole[where : where + how % 10] if do & 4 else bytes(how % 10)
            about = (have if do & 32 else data[:1], "zstd" if do & 64 else "")
            frames = [(m.Chunk("s", digest if do & 8 else D, where, bool(do & 16), *about), memoryview(payload))]
        else:
            here.resume()
        for chunk, payload in frames:
            with contextlib.suppress(RemoteProtocolError):
                came += b"".join(map(bytes, here.take(chunk, payload, now)))
        assert 0 <= len(came) <= here.received <= min(size, asked * CHUNK + here.saved)
        assert sum(map(len, here._ahead.values())) < here._window * CHUNK
    if here.complete:
        assert here.received == size
        with contextlib.suppress(RemoteProtocolError):  # of a peer that sent others
            here.check()
            assert came == whole


def sealed(data: bytes) -> None:
    """What a site of the roster signs, whatever it is, is opened, or refused; an answer can be sealed or there is none.

    A bare mutation would end at the signature, so the bytes are what is signed: ephemeral keys, count and header.
    """
    here, there = CoordinatorSeal("s", _KEYS.sign_secret, lambda name: [_KEYS.sign_public]), _there()
    hello = m.encode(m.Hello("s", m.PROTOCOL, "h00", "", 0))
    here.open("h00", *there.seal(hello))
    side = there._side
    side.other = here._sides["h00"].public if data[:1] < b"\x80" else data[1:33].ljust(32, b"\0")
    side.public = data[33:65].ljust(32, b"\0") if data[:1] < b"\x40" else side.public
    side.count = int.from_bytes(data[65:73], "big") % (2**64 - 1)
    header, _ = side.seal(data[73:] or hello, b"")
    with contextlib.suppress(RemoteProtocolError):
        here.open("h00", header, data[:40])
    answer = here.seal("h00", hello, b"manifest")
    assert answer is None or len(answer[1]) == len(b"manifest") + 16


def _there() -> SiteSeal:
    return SiteSeal("s", "h00", _KEYS.sign_secret, _KEYS.sign_public)


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
    if name == "seal":
        hello = m.encode(m.Hello("s", m.PROTOCOL, "h00", "", 0))
        return [kind + keys + bytes(7) + b"\x09" + hello for kind in (b"\x00", b"\x50", b"\xff") for keys in (
            bytes(64), bytes(32) + b"\x01" + bytes(31), b"\x09" * 64)]  # fmt: skip
    if name == "reassembly":
        honest = b"".join(bytes([0, 0, 1, 1, at, 1]) for at in range(9))
        pieced = [bytes([kind | 61]) + honest for kind in (64, 192, 224)]
        return [bytes([SIZE]) + honest, bytes([8]) + bytes(range(60)), bytes([0]), *pieced]
    k.save_roster(_folder() / "seed.json", _ROSTER, _KEYS)
    text = (_folder() / "seed.json").read_bytes()
    bare = json.dumps({"roster": {"study": "s", "version": 1, "sites": {}, "codes": {}}, "signature": "00"}).encode()
    return [text, bare, b"[" * 2000, b'{"roster":' + b"[" * 5000, _CODE.text().encode()]


TARGETS: dict[str, Callable[[bytes], None]] = {
    "header": header, "reassembly": reassembly, "seal": sealed, "roster": roster,
}  # fmt: skip


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
