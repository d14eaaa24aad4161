"""A crowd on the port, of peers that do nothing and of peers that say half a greeting, keeps no honest site out."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.peers import Crowd
from learner_jax.network.keys import new_keys
from learner_jax.network.links import CoordinatorLink, SiteLink
from learner_jax.protocol import messages as m
from learner_jax.protocol.transfers import Holder, Receiver

SERVER, HONEST, IDLERS = new_keys(), new_keys(), new_keys()
IDLE, HALF_OPEN = 200, 100
SHED_S = 8.0
"""A handshake has 3 s; libzmq's own limit would be 30."""
DATA = random.Random(0).randbytes(5 * m.CHUNK + 17)
BLOB = m.Blob(hashlib.sha256(DATA).hexdigest(), len(DATA), "0" * 64)


@pytest.fixture
def link():
    users = {HONEST.curve_public: "honest", IDLERS.curve_public: "idle"}
    with CoordinatorLink("127.0.0.1", 0, SERVER, users) as link:
        yield link


def fetched(link: CoordinatorLink) -> bytes:
    """What an honest site that dials now hands over."""
    over, found, receiver = threading.Event(), bytearray(), Receiver("s", BLOB, peer="honest")
    site = threading.Thread(target=hand_over, args=(link.address, over))
    site.start()
    try:
        stop = time.monotonic() + 10
        while not receiver.complete and time.monotonic() < stop:
            got = link.recv(0.1)
            if got is not None:
                message = m.decode(got.header, got.user)
                if isinstance(message, m.Chunk):
                    found += b"".join(receiver.take(message, got.payload, time.monotonic()))
                for want in receiver.wants(time.monotonic()):
                    link.send("honest", m.encode(want))
        receiver.check()
    finally:
        over.set()
        site.join(5)
    return bytes(found)


def hand_over(address: str, over: threading.Event) -> None:
    holder = Holder()
    holder.hold(BLOB.digest, DATA)
    with SiteLink(address, SERVER.curve_public, HONEST) as link:
        assert link.dial(5) and link.send(m.encode(m.Ping("s", 1, 1, "train")))
        while not over.is_set():
            got = link.recv(0.1)
            want = m.decode(got[0]) if got is not None else None
            for chunk, payload in holder.chunks(want) if isinstance(want, m.Want) else ():
                link.send(m.encode(chunk), payload)


def descriptors() -> int:
    """Open files of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def within(seconds: float, true: Callable[[], bool]) -> bool:
    """Whether it comes true in time."""
    stop = time.monotonic() + seconds
    while not true():
        if time.monotonic() > stop:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_a_crowd_keeps_nobody_out_and_leaves_nothing_behind(link):
    assert fetched(link) == DATA  # what is made at the first call is there
    before = descriptors()
    crowd = Crowd(link.address, SERVER.curve_public, IDLERS[:2], IDLE, HALF_OPEN, again=False)
    try:
        assert crowd.settle(8) and crowd.half_open() + crowd.shed == HALF_OPEN
        assert fetched(link) == DATA
        assert within(SHED_S, lambda: crowd.shed == HALF_OPEN), f"shed {crowd.shed} of {HALF_OPEN}"
        assert crowd.idle() == IDLE  # whoever has said who it is may be silent as long as it likes
        assert fetched(link) == DATA
    finally:
        crowd.close()
    assert within(5, lambda: descriptors() <= before), f"{descriptors()} open files, {before} before"


def test_half_open_peers_that_dial_again_are_shed_again(link):
    crowd = Crowd(link.address, SERVER.curve_public, IDLERS[:2], 0, HALF_OPEN)
    try:
        assert within(SHED_S, lambda: crowd.shed >= HALF_OPEN)
        assert fetched(link) == DATA
    finally:
        crowd.close()
