"""A message that never ends is not held in memory, and no honest connection is taken for one that sends it."""

from __future__ import annotations

import socket
import sys
import threading
import time

import pytest
import zmq
from zmq.utils import monitor

from learner_jax.network import links, unended
from learner_jax.network.keys import new_keys
from learner_jax.network.links import CoordinatorLink, SiteLink
from learner_jax.protocol.messages import CHUNK

SERVER, A, B = new_keys(), new_keys(), new_keys()

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells what TCP has received")


@pytest.fixture
def link():
    with CoordinatorLink("127.0.0.1", 0, SERVER, {A.curve_public: "a", B.curve_public: "b"}) as link:
        yield link


def site(link, keys=A) -> SiteLink:
    found = SiteLink(link.address, SERVER.curve_public, keys)
    assert found.dial(5)
    return found


def test_what_was_taken_is_what_came_to_the_byte(link):
    sizes = [0, 1, 221, 222, 223, 1000, 65_536, CHUNK]  # 222 + 33 is the last that has a length of one byte
    with site(link) as a:
        assert a.send(b"hello")
        assert link.recv(5)
        handshake = link.unended.ahead()
        assert len(handshake) == 1 and 0 < handshake[0] < 1024
        for size in sizes * 20:
            assert a.send(bytes(size), bytes(size))
            assert link.recv(5)
        assert link.unended.ahead() == handshake


def test_a_message_without_an_end_is_ended(link):
    """libzmq sends a message once it has an end, so this one has one: 400 MiB after its beginning."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as endless, site(link, B) as b:
        endless.linger, endless.reconnect_ivl = 0, -1
        endless.curve_serverkey = SERVER.curve_public.encode()
        endless.curve_publickey, endless.curve_secretkey = A.curve_public.encode(), A.curve_secret.encode()
        watch = endless.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        endless.connect(link.address)
        assert monitor.recv_monitor_message(watch)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
        block = bytes(CHUNK)
        endless.send_multipart([block] * 400, copy=False)
        stop, ahead = time.monotonic() + 30, 0
        while not watch.poll(0) and time.monotonic() < stop:
            ahead = max([ahead, *link.unended.ahead()])
            link.unended.check()
            assert b.send(b"honest")
            if (got := link.recv(0.001)) is not None:
                assert got.user == "b"
        assert link.unended.shut == 1 and ahead < 200 * 2**20
        assert monitor.recv_monitor_message(watch)["event"] == zmq.EVENT_DISCONNECTED
        endless.disable_monitor()
        watch.close(0)
        assert b.send(b"still here")
        while (got := link.recv(1)) is not None:
            assert got.user == "b"


def test_all_that_may_wait_waits_and_nobody_is_shut_out(link):
    """A coordinator that is busy elsewhere finds 64 MiB and a full kernel's buffer, and takes them all."""
    with site(link) as a:
        sent = 0
        stop = time.monotonic() + 1.5
        while time.monotonic() < stop:
            sent += a.send(b"chunk", bytes(CHUNK))
        assert sent > links.QUEUE
        assert link.unended.check() == 0
        got = 0
        while link.recv(0.5) is not None:
            got += 1
            link.unended.check()
        assert got == sent and link.unended.shut == 0


def test_many_connections_come_and_go_with_the_same_number(link):
    """What an old connection sent is not counted for the new one that the system gives its number."""
    for _ in range(5):
        with site(link) as a:
            for _ in range(20):
                while not a.send(b"chunk", bytes(CHUNK)):
                    time.sleep(0.01)
                assert link.recv(5)
            assert all(0 <= ahead < 1024 for ahead in link.unended.ahead())
    assert link.unended.shut == 0


def test_a_number_that_another_socket_has_now_is_left_alone(link):
    with site(link) as a, site(link, B) as b:
        assert a.send(b"hello") and b.send(b"hello")
        assert link.recv(5) and link.recv(5)
        watch = link.unended
        (first, line), (second, other) = watch._lines.items()
        watch._lines = {first: other, second: line}
        watch._taken = {first: -(2**40), second: -(2**40)}
        assert watch.check() == 0


@pytest.mark.soak
def test_reports_are_read_while_nobody_else_does():
    """libzmq's own thread would wait for room for its reports: 3,000 connections that nobody looks at stop nothing."""
    with CoordinatorLink("127.0.0.1", 0, SERVER, {A.curve_public: "a"}) as link:

        def knock():
            for _ in range(3000):
                socket.create_connection(("127.0.0.1", link.port)).close()

        thread = threading.Thread(target=knock)
        thread.start()
        thread.join()
        with site(link) as a:
            assert a.send(b"hello")
            assert link.recv(5)


def test_where_the_kernel_tells_nothing_nothing_is_shut(link, monkeypatch):
    monkeypatch.setattr(unended, "_RECEIVED", 10_000)
    with site(link) as a:
        assert a.send(b"hello")
        assert link.recv(5)
        assert link.unended.check() == 0
