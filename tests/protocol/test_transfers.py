"""Transfers: whatever is lost, doubled or reordered, the bytes arrive whole; what does not fit is refused."""

from __future__ import annotations

import contextlib
import hashlib
import random
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from learner_jax.errors import RemoteProtocolError
from learner_jax.leaves import piece
from learner_jax.protocol import transfers
from learner_jax.protocol.messages import Blob, Chunk, Want
from learner_jax.protocol.transfers import Held, Holder, Receiver
from learner_jax.protocol.zipped import unzipped, zipped


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(transfers, "CHUNK", 8)


def blob(data: bytes) -> Blob:
    return Blob(hashlib.sha256(data).hexdigest(), len(data), "0" * 64)


def holder(data: bytes) -> Holder:
    held = Holder()
    held.hold(blob(data).digest, data)
    return held


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 300), st.integers(1, 9), st.integers(0, 2**32))
def test_any_schedule_ends_with_the_same_bytes(size, window, seed):
    rng = random.Random(seed)
    data = rng.randbytes(size)
    there, here = holder(data), Receiver("s", blob(data), window=window, patience_s=2)
    now, came = 0.0, b""
    line: list[Any] = []
    while not here.complete:
        now += 1
        assert now < 20000
        line += [frame for want in here.wants(now) for frame in there.chunks(want) if rng.random() > 0.3]
        assert len(here._asked) <= window
        rng.shuffle(line)
        for _ in range(min(len(line), rng.randrange(4))):
            frame = line.pop() if rng.random() > 0.2 else line[-1]
            came += b"".join(here.take(frame[0], frame[1], now))
            assert len(came) == here.handed and here.received - here.handed < window * 8
    here.check()
    assert came == data and here.received == size


def test_without_loss_nothing_is_sent_twice_and_a_window_is_one_want():
    data = bytes(range(100))
    there, here = holder(data), Receiver("s", blob(data), window=4)
    assert here.wants(0.0) == [Want("s", blob(data).digest, 0, 4, b"", "zstd")]
    assert here.wants(0.1) == []
    came: list[Any] = []
    for frame in there.chunks(Want("s", blob(data).digest, 0, 4)):
        came += here.take(*frame, 0.2)
    while not here.complete:
        for want in here.wants(0.2):
            for frame in there.chunks(want):
                (part,) = here.take(*frame, 0.2)
                came.append(part)
    here.check()
    assert len(came) == 13 and b"".join(came) == data


def test_a_chunk_is_asked_for_again_after_patience_or_at_once_after_a_restart():
    here = Receiver("s", blob(bytes(32)), window=4, patience_s=5)
    first = here.wants(0.0)
    assert here.wants(4.9) == [] and here.wants(5.0) == first
    here.resume()
    assert here.wants(5.1) == first


def test_on_a_slow_line_nothing_is_asked_for_twice():
    data = bytes(range(100))
    there, here = holder(data), Receiver("s", blob(data), window=4, patience_s=5)
    now, sent = 0.0, 0
    line: list[Any] = []
    while not here.complete:
        for want in here.wants(now):
            line += there.chunks(want)
        now += 4.0
        chunk, payload = line.pop(0)
        here.take(chunk, payload, now)
        sent += 1
    assert sent == 13


@pytest.mark.parametrize("offset, length", [(4, 8), (32, 8), (24, 8), (0, 7), (0, 9), (1 << 39, 8), (24, 0)])
def test_off_the_grid_is_refused(offset, length):
    data = bytes(27)
    with pytest.raises(RemoteProtocolError, match="h00: expected chunks of 8 bytes of 27"):
        Receiver("s", blob(data), peer="h00").take(Chunk("s", blob(data).digest, offset, False), bytes(length), 0.0)


def test_other_bytes_are_seen_at_the_end():
    here = Receiver("s", blob(b"announce"), peer="h00")
    here.wants(0.0)
    assert here.take(Chunk("s", here.blob.digest, 0, True), b"deliver!", 0.0) == [b"deliver!"]
    with pytest.raises(RemoteProtocolError, match="expected bytes with sha256"):
        here.check()


def test_a_claim_takes_no_memory_and_what_was_not_asked_for_is_not_kept():
    here = Receiver("s", Blob("a" * 64, 1 << 40, "0" * 64), window=4)
    (want,) = here.wants(0.0)
    assert (want.offset, want.credit) == (0, 4) and not here.take(Chunk("s", "a" * 64, 32, False), bytes(8), 0.0)
    assert not here.take(Chunk("s", "a" * 64, 24, False), bytes(8), 0.0) and here.received == 8
    assert here.wants(0.1) == []


def test_no_more_than_a_window_waits_for_a_chunk_that_is_late():
    data = bytes(range(200))
    there, here, came = holder(data), Receiver("s", blob(data), window=4, patience_s=5), b""
    for now in (0.0, 1.0, 2.0, 3.0):
        for want in here.wants(now):
            for chunk, payload in there.chunks(want):
                came += b"".join(here.take(chunk, payload, now) if chunk.offset else [])
    assert here.received == 24 and not came
    for want in here.wants(9.0):
        for frame in there.chunks(want):
            came += b"".join(here.take(*frame, 9.0))
    assert came[:32] == data[:32]


def test_what_is_not_held_or_not_on_the_grid_is_not_sent():
    held = Holder(keep=2)
    for data in (b"a", b"b", b"c"):
        held.hold(blob(data).digest, data)
    assert held.get(blob(b"a").digest) is None
    assert held.chunks(Want("s", blob(b"a").digest, 0, 1)) == []
    assert held.chunks(Want("s", blob(b"c").digest, 3, 1)) == []
    assert held.chunks(Want("s", blob(b"c").digest, 800, 1)) == []
    assert [bytes(payload) for _, payload in held.chunks(Want("s", blob(b"c").digest, 0, 9))] == [b"c"]


# ---------------------------------------------------------------- pieces that are here already


def fetch(there: Holder, here: Receiver) -> tuple[bytes, int]:
    """All of it over a perfect line: the bytes handed on, and how many were sent."""
    came, sent = b"".join(here.more()), 0
    for now in range(10_000):
        if here.complete:
            break
        for want in here.wants(float(now)):
            for chunk, payload in there.chunks(want):
                sent += len(payload)
                came += b"".join(here.take(chunk, payload, float(now)))
        came += b"".join(here.more())
    here.check()
    return came, sent


parts = st.lists(st.binary(max_size=40), max_size=6)


@settings(max_examples=300, deadline=None)
@given(parts, parts, st.data())
def test_pieces_that_are_here_are_not_sent(old, new, draw):
    new = [draw.draw(st.sampled_from([part, *old])) for part in new]
    old_data, data = b"".join(old), b"".join(new)
    there = Holder()
    there.hold(blob(data).digest, data, b"".join(map(piece, new)))
    held = Held(b"".join(map(piece, old)), old_data)
    here = Receiver("s", blob(data), window=3, pieces=b"".join(map(piece, new)), held=held)
    came, sent = fetch(there, here)
    assert came == data and sent == sum(len(part) for part in new if part not in old) == len(data) - here.saved


def test_a_blob_that_is_here_already_is_not_asked_for():
    data, table = bytes(range(100)), piece(bytes(range(100)))
    here = Receiver("s", blob(data), pieces=table, held=Held(table, data))
    assert here.wants(0.0) == [] and b"".join(here.more()) == data and here.complete
    here.check()


def test_old_pieces_are_handed_on_some_at_a_time(monkeypatch):
    monkeypatch.setattr(transfers, "AT_ONCE", 16)
    data, new = bytes(range(100)), b"new bytes"
    there, table = Holder(), piece(data) + piece(new)
    there.hold(blob(data + new).digest, data + new, table)
    here = Receiver("s", blob(data + new), pieces=table, held=Held(piece(data), data))
    (want,) = here.wants(0.0)
    came = [b"".join(here.take(*frame, 0.0)) for frame in there.chunks(want)]
    assert [len(part) for part in came] == [16, 16] and here.received == 32 + len(new)
    assert fetch(there, here)[0] == (data + new)[32:] and here.complete


@pytest.mark.parametrize("lying", [b"", bytes(50), bytes(reversed(range(100)))], ids=["gone", "short", "other"])
def test_what_is_lost_or_spoilt_on_the_disk_is_seen(lying):
    data, table = bytes(range(100)), piece(bytes(range(100)))
    here = Receiver("s", blob(data), peer="h00", pieces=table, held=Held(table, lying))
    with pytest.raises(RemoteProtocolError, match=r"here of an earlier one is lost|expected bytes with sha256"):
        here.more()
        here.check()


@pytest.mark.parametrize("table", [b"x", piece(b"four") + b"x", piece(b"longer than it is"), bytes(24) * 9])
def test_a_table_that_is_not_of_the_blob_is_passed_over(table):
    there, here = holder(b"data"), Receiver("s", blob(b"data"), pieces=table, held=Held(piece(b"data"), b"data"))
    assert here.saved == 0 and fetch(there, here) == (b"data", 4)


def test_chunks_of_another_view_of_the_same_blob_are_passed_over():
    data = bytes(range(24))
    table = piece(data[:8]) + piece(data[8:])
    there = Holder()
    there.hold(blob(data).digest, data, table)
    here = Receiver("s", blob(data), pieces=table, held=Held(piece(data[:8]), data[:8]))
    (want,) = here.wants(0.0)
    for chunk, payload in there.chunks(want._replace(have=b"")):
        assert here.take(chunk, payload, 0.0) == []
    assert fetch(there, here)[0] == data


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=4), st.integers(0, 2**70))
def test_no_have_makes_a_holder_send_what_is_not_a_piece(have, bits):
    data = bytes(range(24))
    there = Holder()
    there.hold(blob(data).digest, data, piece(data[:8]) + piece(data[8:]))
    for said in (have, bits.to_bytes(9, "little")):
        sent = b"".join(bytes(p) for _, p in there.chunks(Want("s", blob(data).digest, 0, 64, said)))
        assert sent in (data, data[:8], data[8:], b"")


# ---------------------------------------------------------------- compressed chunks


def test_what_gains_is_compressed_and_what_does_not_is_not(monkeypatch):
    monkeypatch.setattr(transfers, "CHUNK", 4096)
    for data, fewer in ((bytes(40_000), True), (random.Random(0).randbytes(40_000), False), (bytes(100), False)):
        there, here = holder(data), Receiver("s", blob(data), window=3)
        came, sent = fetch(there, here)
        assert came == data and (sent < len(data) / 10) == fewer and (sent == len(data)) != fewer
        assert {chunk.zip for chunk, _ in there.chunks(Want("s", blob(data).digest, 0, 9, b"", "zstd"))} == (
            {"zstd"} if fewer else {""}
        )
        assert {chunk.zip for chunk, _ in there.chunks(Want("s", blob(data).digest, 0, 9))} == {""}


def test_a_bomb_is_refused_before_room_is_made_for_it(monkeypatch):
    bomb = zipped(bytes(1 << 24))
    monkeypatch.setattr(zstandard, "ZstdDecompressor", None)
    with pytest.raises(RemoteProtocolError, match="expected a compressed chunk of 8 bytes, got one of 16777216"):
        unzipped(bomb, 8, "h00")
    here = Receiver("s", blob(bytes(27)), peer="h00")
    here.wants(0.0)
    with pytest.raises(RemoteProtocolError, match="h00: expected a compressed chunk of 8 bytes"):
        here.take(Chunk("s", blob(bytes(27)).digest, 0, False, b"", "zstd"), bomb, 0.0)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 60), st.binary(max_size=3))
def test_whatever_is_compressed_or_claims_to_be_is_the_bytes_or_refused(data, at, noise):
    assert unzipped(zipped(data), len(data), "h00") == data
    packed = zipped(data)
    spoilt = packed[:at] + noise + packed[at + len(noise) :]
    for found in (spoilt, packed + b"x", packed[:-1]):
        with contextlib.suppress(RemoteProtocolError):
            assert len(unzipped(found, len(data), "h00")) == len(data)


def test_a_compressed_chunk_that_was_not_asked_for_is_passed_over_as_a_plain_one():
    here = Receiver("s", blob(bytes(27)))
    assert here.take(Chunk("s", blob(bytes(27)).digest, 8, False, b"", "zstd"), zipped(bytes(8)), 0.0) == []
