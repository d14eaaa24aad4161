"""Transfers: whatever is lost, doubled or reordered, the bytes arrive whole; what does not fit is refused."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner_jax.errors import RemoteProtocolError
from learner_jax.protocol import transfers
from learner_jax.protocol.messages import Blob, Chunk, Want
from learner_jax.protocol.transfers import Holder, Receiver


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
    assert here.wants(0.0) == [Want("s", blob(data).digest, 0, 4)]
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
