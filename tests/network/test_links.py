"""Links over real sockets on loopback: who may talk, who is whom, and what happens when things break."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from learner_jax.errors import CryptoError, StudyError
from learner_jax.network import links
from learner_jax.network.keys import Keys, new_keys
from learner_jax.network.links import CoordinatorLink, SiteLink
from learner_jax.protocol.messages import CHUNK

SERVER, A, B = new_keys(), new_keys(), new_keys()


def dial(link: CoordinatorLink, keys: Keys, **more) -> SiteLink:
    site = SiteLink(link.address, SERVER.curve_public, keys, **more)
    if not site.dial(5):
        site.close()
        raise AssertionError("expected a line within 5 s")
    return site


@pytest.fixture
def link():
    with CoordinatorLink("127.0.0.1", 0, SERVER, {A.curve_public: "a", B.curve_public: "b"}) as link:
        yield link


def test_both_ways_by_user_id_and_counted(link):
    seen = []
    with (
        dial(link, A, tap=lambda *message: seen.append(message)) as a,
        dial(link, B) as b,
    ):
        big = bytes(range(256)) * (CHUNK // 256)
        assert a.send(b"hello", b"") and a.send(b"chunk", big) and b.send(b"hello")
        got = [link.recv(5) for _ in range(3)]
        assert sorted((r.user, r.header, bytes(r.payload)) for r in got if r) == [
            ("a", b"chunk", big),
            ("a", b"hello", b""),
            ("b", b"hello", b""),
        ]
        assert link.send("a", b"for a", memoryview(big)) and link.send("b", b"for b")
        header, payload = a.recv(5) or (b"", b"")
        assert (header, bytes(payload)) == (b"for a", big)
        assert b.recv(5) == (b"for b", b"")
        assert not link.send("c", b"nobody")
        assert a.counter.bytes_out == 10 + CHUNK and a.counter.bytes_in == 5 + CHUNK
        assert link.counter.bytes_in == 15 + CHUNK and link.counter.bytes_out == 10 + CHUNK
        assert [(way, peer, h) for way, peer, h, _ in seen] == [
            ("out", "coordinator", b"hello"),
            ("out", "coordinator", b"chunk"),
            ("in", "coordinator", b"for a"),
        ]


def test_a_key_that_is_not_known_sees_one_clear_line(link):
    with SiteLink(link.address, SERVER.curve_public, new_keys()) as stranger:
        stranger.send(b"hello")
        with pytest.raises(CryptoError, match="does not know this key: the join code was used already or is wrong"):
            stranger.recv(10)
    assert link.recv(0.1) is None and link.zap.refused > 0


def test_another_coordinators_key_sees_one_clear_line(link):
    with SiteLink(link.address, new_keys().curve_public, A) as site:
        site.send(b"hello")
        with pytest.raises(CryptoError, match="it is another coordinator"):
            site.recv(10)
    assert link.recv(0.1) is None


def test_a_plain_or_silent_peer_is_not_heard(link):
    with zmq.Context() as context, context.socket(zmq.DEALER) as plain:
        plain.linger = 0
        plain.connect(link.address)
        plain.send_multipart([b"hello", b""])
        assert link.recv(0.5) is None


def test_nobody_is_let_in_while_the_responder_is_away(link):
    link.zap.close()
    with SiteLink(link.address, SERVER.curve_public, new_keys()) as stranger, pytest.raises(CryptoError):
        stranger.dial(5)


def test_the_responder_survives_what_goes_wrong_in_it(link, monkeypatch):
    calls, real = [], link.zap.who

    def broken(public):
        calls.append(public)
        if len(calls) == 1:
            raise RuntimeError("planted")
        return real(public)

    monkeypatch.setattr(link.zap, "who", broken)
    with SiteLink(link.address, SERVER.curve_public, A) as refused, pytest.raises(CryptoError):
        refused.send(b"hello")
        refused.recv(10)
    monkeypatch.setattr(link.zap, "_serve", lambda _: (_ for _ in ()).throw(RuntimeError("planted")))
    time.sleep(0.3)
    monkeypatch.undo()
    assert link.zap.restarts > 0
    with dial(link, A) as a:
        a.send(b"hello")
        assert link.recv(10) is not None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_responder_is_started_again_by_the_link(link, monkeypatch):
    def die(_):
        raise SystemExit

    monkeypatch.setattr(link.zap, "_serve", die)
    link.zap._thread.join(5)
    assert not link.zap.alive()
    monkeypatch.undo()
    assert link.recv(2) is None and link.zap.alive() and link.zap.restarts == 1
    with dial(link, A) as a:
        a.send(b"hello")
        assert link.recv(10) is not None


def test_revoking_a_key_ends_its_live_connection(link):
    with dial(link, A) as a:
        a.send(b"one")
        assert link.recv(5)
        assert link.revoke(A.curve_public) == "a"
        a.send(b"two")
        assert link.recv(0.5) is None and not link.send("a", b"x")
        link.allow(new_keys().curve_public, "a")  # the name with another key: the old connection stays out
        with pytest.raises(
            CryptoError, match="or the site was taken off the roster"
        ):  # it was hung up, calls again, and is told
            for _ in range(100):
                a.send(b"three")
                assert link.recv(0.05) is None
                a.recv(0.05)
    link.allow(A.curve_public, "a")
    with dial(link, A) as a:
        a.send(b"four")
        four = link.recv(5)
        assert four is not None and four.header == b"four"


def test_one_site_cannot_take_anothers_traffic_by_its_routing_id(link):
    with dial(link, A) as a, dial(link, B) as b:
        a.send(b"hello")
        hello = link.recv(5)
        assert hello is not None
        b._socket.disconnect(link.address)
        b._socket.setsockopt(zmq.ROUTING_ID, hello.routing_id)
        b._socket.connect(link.address)
        b.send(b"hello")
        link.recv(0.5)
        assert link.send("a", b"for a")
        assert a.recv(5) == (b"for a", b"") and b.recv(0.3) is None


def test_a_site_that_comes_back_is_the_same_user(link):
    for n in range(3):
        with dial(link, A) as a:
            a.send(b"hello%d" % n)
            got = link.recv(5)
            assert got is not None and got.user == "a"
            assert link.send("a", b"welcome") and a.recv(5) == (b"welcome", b"")


def test_a_full_queue_is_said_and_costs_no_other_site(link):
    with dial(link, A) as a, dial(link, B) as b:
        for each in (a, b):
            each.send(b"hello")
            link.recv(5)
        sent = [link.send("a", b"x", bytes(CHUNK)) for _ in range(400)]
        assert not all(sent) and sum(sent) >= 64
        assert link.send("b", b"still") and b.recv(5) == (b"still", b"")
        got = 0
        while a.recv(1.0) is not None:
            got += 1
        assert got == sum(sent)


def test_a_frame_that_is_too_long_ends_that_connection_only(link):
    with dial(link, A) as a, dial(link, B) as b:
        a.send(b"x", bytes(4 * CHUNK))
        b.send(b"hello")
        got = link.recv(5)
        assert got is not None and got.user == "b" and link.recv(0.5) is None


def test_a_port_in_use_is_one_clear_line(link):
    with pytest.raises(StudyError, match=f"port {link.port} on 127.0.0.1 is in use") as caught:
        CoordinatorLink("127.0.0.1", link.port, SERVER)
    assert "\n" not in str(caught.value)
    with pytest.raises(StudyError, match="expected to listen on port 0"):
        CoordinatorLink("no.such.host.invalid", 0, SERVER)


def test_an_address_that_is_none():
    with pytest.raises(CryptoError, match="expected an address such as tcp://host:port"):
        SiteLink("hospital", SERVER.curve_public, A)


def test_wake_ends_a_wait_from_another_thread(link):
    with dial(link, A) as a:
        for each in (link, a):
            timer = threading.Timer(0.1, each.wake)
            timer.start()
            assert each.recv(None) is None  # without the wake it would wait for ever
            timer.join()


FLOOD = """
import sys, time
from learner_jax.network.keys import new_keys
from learner_jax.network.links import CoordinatorLink, SiteLink
server, key = new_keys(), new_keys()
with CoordinatorLink("127.0.0.1", 0, server, {key.curve_public: "a"}) as link:
    site = SiteLink(link.address, server.curve_public, key, linger_ms=500)
    assert site.dial(5)
    for _ in range(200):
        if not site.send(b"x", bytes(1 << 20)):
            time.sleep(0.005)
    site.close()
    time.sleep(6)
    while link.recv(0.3) is not None:
        pass
"""


def test_a_site_that_fills_the_queue_and_goes_away_does_not_take_the_coordinator_with_it():
    paths = {**os.environ, "PYTHONPATH": str(Path(links.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", FLOOD], capture_output=True, text=True, check=False, env=paths)
    assert done.returncode == 0, done.stderr


def ends(close: Callable[[], None]) -> bool:
    """Whether a call comes back, in a thread of its own, so that one that hangs is a failure and no stuck suite."""
    thread = threading.Thread(target=close, daemon=True)
    thread.start()
    thread.join(60)
    return not thread.is_alive()


def test_closing_never_hangs():
    link = CoordinatorLink("127.0.0.1", 0, SERVER, {A.curve_public: "a"})
    site = dial(link, A)
    site.send(b"hello")
    assert link.recv(5)
    while link.send("a", b"x", bytes(CHUNK)):  # until its queue is full, and it does not read
        pass
    for each in (link, link, site, site):
        assert ends(each.close)
    lonely = SiteLink("tcp://127.0.0.1:9", SERVER.curve_public, A)
    for _ in range(20):
        lonely.send(b"hello")
    assert lonely.recv(0.1) is None
    assert ends(lonely.close)


def test_a_relay_in_front_of_a_coordinator_that_is_down_ends_no_site_that_has_joined():
    """It takes each call and hangs up at once, as somebody without the coordinator's key does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def hang_up() -> None:
            server.settimeout(0.1)
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    server.accept()[0].close()
                    calls.append(1)

        calls: list[int] = []
        thread = threading.Thread(target=hang_up)
        thread.start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        try:
            with SiteLink(address, SERVER.curve_public, A, hung_up_s=60.0) as member:
                until = time.monotonic() + 20
                while len(calls) < 5 and time.monotonic() < until:
                    member.recv(0.2)
                assert len(calls) >= 5
            with (
                SiteLink(address, SERVER.curve_public, A) as joining,
                pytest.raises(CryptoError, match="hangs up"),
            ):
                while time.monotonic() < until:
                    joining.recv(0.2)
        finally:
            stop.set()
            thread.join()
