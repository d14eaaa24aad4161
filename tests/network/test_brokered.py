"""A broker over real sockets: who is let in, who hears whom, and what a broker or a guest could try."""

from __future__ import annotations

import threading
import time
from unittest import mock

import pytest

from learner_jax.engines import broker
from learner_jax.engines.broker import Switch, run_broker
from learner_jax.engines.requests import ask_to_revoke
from learner_jax.errors import CryptoError, RemoteProtocolError
from learner_jax.network.brokered import BrokeredLink, SealedSiteLink, guest_list, read_guest_list
from learner_jax.network.enrol import Desk, membership
from learner_jax.network.keys import Site, load_or_make_keys, new_keys
from learner_jax.network.links import CoordinatorLink, Received
from learner_jax.network.seal import CoordinatorSeal, SiteSeal
from learner_jax.protocol import messages as m

HELLO = m.encode(m.Hello("heart", m.PROTOCOL, "a", "", 0))
PING, PONG = m.encode(m.Ping("heart", 1, 0, "")), m.encode(m.Pong("heart", 1))


class Place:
    """A broker with its loop, and keys for everybody."""

    def __init__(self, folder):
        self.keys = {name: new_keys() for name in ("broker", "heart", "lung", "a", "b")}
        self.desk = Desk(folder / "roster.json", "broker", self.keys["broker"])
        self.link = CoordinatorLink("127.0.0.1", 0, self.keys["broker"])
        self.port, self.told = self.link.port, []
        self.desk.serve(self.link)
        for name in ("heart", "lung"):
            self.desk.enlist(name, Site(self.keys[name].curve_public, self.keys[name].sign_public))
        self._start()

    def _start(self) -> None:
        self.switch = switch = Switch(self.link, self.desk, lambda event: self.told.append(event.data["text"]))
        self._stop = threading.Event()

        def loop() -> None:
            while not self._stop.is_set():
                switch.turn(0.2)

        self._thread = threading.Thread(target=loop)
        self._thread.start()

    def restart(self) -> None:
        """A new process on the same port, which knows no guests."""
        self.close()
        self.link = CoordinatorLink("127.0.0.1", self.port, self.keys["broker"])
        self.desk.serve(self.link)
        self._start()

    def close(self) -> None:
        self._stop.set()
        self.link.wake()
        self._thread.join(5)
        self.link.close()

    def coordinator(self, name: str = "heart", guests: tuple[str, ...] = ("a",)) -> BrokeredLink:
        seal = CoordinatorSeal(name, self.keys[name].sign_secret, lambda site: [self.keys[site].sign_public])
        link = BrokeredLink(self.link.address, self.keys["broker"].curve_public, self.keys[name], seal)
        for guest in guests:
            link.allow(self.keys[guest].curve_public, guest)
        return link

    def site(self, name: str = "a", study: str = "heart") -> SealedSiteLink:
        keys = self.keys[name]
        seal = SiteSeal(study, name, keys.sign_secret, self.keys[study].sign_public)
        return SealedSiteLink(self.link.address, self.keys["broker"].curve_public, keys, seal)


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    place.close()


def heard(link, seconds: float = 8.0):
    """The next message, or None."""
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        found = link.recv(0.1)
        if found is not None:
            return found
    return None


def say_until_heard(speaker, header: bytes, listener):
    """Says it again and again: lines come up when they come up."""
    for _ in range(60):
        speaker.recv(0.05)
        speaker.send(header)
        found = heard(listener, 0.2)
        if found is not None:
            return found
    raise AssertionError("nothing came through")


def test_both_ways_through_the_broker(place):
    with place.coordinator() as here, place.site() as there:
        found = say_until_heard(there, HELLO, here)
        assert (found.user, found.header) == ("a", HELLO)
        assert here.send("a", PONG, b"x" * 2**20)
        assert heard(there) == (PONG, b"x" * 2**20)
        there.send(PING, b"update")
        came = [heard(here, 0.5) for _ in range(3)]  # the Hello was said until it was heard
        assert (PING, b"update") in [(found.header, bytes(found.payload)) for found in came if found]
        assert not here.send("b", PONG), "who has not said Hello cannot be written to"


def test_a_broker_started_anew_is_told_again_whom_to_let_in(place):
    with place.coordinator() as here, place.site() as there:
        say_until_heard(there, HELLO, here)
        assert here.send("a", PONG) and heard(there)
        place.restart()
        for header in (PING, HELLO):
            while (found := say_until_heard(there, header, here)).header != header:
                pass
            assert found.user == "a"


def test_a_site_is_let_in_by_its_own_coordinator_alone_and_not_once_it_is_revoked(place):
    with place.coordinator() as here, place.coordinator("lung", guests=()) as other, place.site() as there:
        say_until_heard(there, HELLO, here)
        other.allow(place.keys["a"].curve_public, "a")  # a guest of another is not to be had
        for _ in range(20):
            other.recv(0.05)
        assert any("that are another's" in text for text in place.told)
        here.revoke(place.keys["a"].curve_public)
        for _ in range(10):
            here.recv(0.05)
        begun = time.monotonic()
        while time.monotonic() - begun < 1.0:
            there.send(PING)
            found = here.recv(0.1)
            assert found is None or time.monotonic() - begun < 0.5, "what was under way may come, no more"


def test_what_a_coordinator_may_not_send(place):
    with place.coordinator(guests=()) as here:
        for _ in range(40):
            here.recv(0.05)
            if here._line.connected:
                break
        here._line.send(b"\0orders", b"")
        here._line.send(b"\0guests", b"\xc1")
        here._line.send(b"lung/a\0x", b"")
        for _ in range(10):
            here.recv(0.05)
    said = " ".join(place.told)
    assert "a message for a site, or a list of guests" in said and "a list of at most" in said


def meet(here: BrokeredLink, there: SealedSiteLink) -> None:
    """Turns both ends until the site's line is open."""
    for _ in range(60):
        here.recv(0.02)
        there.recv(0.02)
        if there.connected:
            return


def test_a_message_of_too_many_frames_ends_no_broker(place):
    with place.coordinator() as here, place.site("a") as there:
        meet(here, there)
        there._line._socket.send_multipart([b"a", b"b", b"c", b"d"])
        for _ in range(10):
            here.recv(0.05)
        assert place._thread.is_alive() and "expected a header and at most one payload" in " ".join(place.told)


def test_a_key_that_two_coordinators_claim_is_the_firsts_and_all_others_are_let_in(place):
    """A site may say any key for its next one."""
    guests = place.switch._guests
    with place.coordinator(guests=("a", "b")) as here:
        for _ in range(400):  # as long as a busy machine takes
            here.recv(0.05)
            if len(guests.get("heart", ())) == 2:  # who says it first
                break
        other = place.coordinator("lung", guests=("b",))
        for _ in range(400):
            here.recv(0.05)
            other.recv(0.05)
            if "are another's" in " ".join(place.told):
                break
        other.allow(new_keys().curve_public, "c")
        for _ in range(400):
            other.recv(0.05)
            if guests.get("lung"):
                break
        other.close()
    assert "got 1 that are another's" in " ".join(place.told)
    assert sorted(guests["heart"].values()) == ["a", "b"] and sorted(guests["lung"].values()) == ["c"]


def test_a_guest_that_sends_too_much_is_a_line_a_minute_whatever_the_sizes(place):
    with place.coordinator() as here, place.site("a") as there:
        meet(here, there)
        for size in range(40):
            there._line.send(bytes(70_000 + size))
        for _ in range(10):
            here.recv(0.05)
    lines = [text for text in place.told if "a header of at most" in text]
    assert len(lines) == 1


def test_a_key_that_nobody_let_in_ends_with_one_line(place, monkeypatch):
    monkeypatch.setattr("learner_jax.network.brokered.REFUSED_S", 0.5)
    with place.site("b") as there, pytest.raises(CryptoError, match="does not know this key"):
        heard(there, 20)


@pytest.mark.parametrize("payload", [b"", b"\xc1", guest_list({"short": "a"}), b"\x91\xc0", guest_list({"k" * 40: ""})])
def test_a_list_of_guests_that_is_none(payload):
    with pytest.raises(RemoteProtocolError, match="a list of at most"):
        read_guest_list(payload, "heart")
    assert read_guest_list(guest_list({"k" * 40: "a"}), "heart") == {"k" * 40: "a"}


class Counting(CoordinatorLink):
    """A link that takes each message and counts to whom."""

    def __init__(self):
        self.users: dict[str, str] = {}
        self.sent: dict[str, int] = {}
        self.next: Received | None = None

    def recv(self, timeout_s=None):
        found, self.next = self.next, None
        return found

    def allow(self, public, user):
        self.users[public] = user

    def revoke(self, public):
        return self.users.pop(public, None)

    def send(self, user, header, payload=b""):
        self.sent[user] = self.sent.get(user, 0) + 1
        return True


def test_one_site_takes_no_other_ones_share_of_its_coordinators_line(tmp_path, monkeypatch):
    """A coordinator that answers twice to each of one site's 2,000 messages a second still reaches the others, and a
    site that is taken off its list is out."""
    link, now = Counting(), [0.0]
    monkeypatch.setattr(broker.time, "monotonic", lambda: now[0])
    switch = Switch(link, Desk(tmp_path / "roster.json", "broker", new_keys()), lambda event: None)

    def say(header: bytes, payload: bytes = b"") -> None:
        link.next = Received("heart", b"", header, payload)
        switch.turn(0)

    say(b"\0guests", guest_list({"k" * 40: "bad", "g" * 40: "good"}))
    for number in range(20_000):
        now[0] = number / 4000
        say(b"bad\0x")
        if number % 100 == 50:
            say(b"good\0x")
    assert link.sent["heart/good"] == 200 and link.sent["heart/bad"] < 16_000
    say(b"\0guests", guest_list({"g" * 40: "good"}))
    assert set(link.users) == {"g" * 40}


class FullLine:
    """In place of a coordinator's line to its broker: it takes so many messages at a time."""

    def __init__(self):
        self.connected, self.room, self.sent = True, 2, []

    @property
    def writable(self) -> bool:
        return self.room > 0

    def send(self, header: bytes, payload: bytes = b"") -> bool:
        if header.startswith(b"\0guests"):
            return True
        if self.room == 0:
            return False
        self.room -= 1
        self.sent.append((header.partition(b"\0")[0].decode(), bytes(payload)))
        return True

    def recv(self, timeout_s: float | None = None) -> None:
        assert timeout_s is not None
        self.waited = timeout_s


def test_what_a_line_that_all_sites_share_does_not_hold_goes_in_its_turn(place):
    link = place.coordinator(guests=("a", "b"))
    line, real = FullLine(), link._line
    real.close()
    link._line = line
    link._seal.seal = lambda user, header, payload: (header, payload)  # of sites that were met
    said = [("ab"[k % 2], b"%d" % k) for k in range(12)]
    assert all(link.send(user, PONG, payload) for user, payload in said)
    assert line.sent == said[:2]
    for room in (1, 4, 4):
        line.room = room
        link.recv(60.0)
        assert line.waited < 1.0, "it would wait a minute with messages in its hands"
    line.room = 4
    link.recv(60.0)
    assert line.sent == said and line.waited == 60.0
    line.room = 0
    assert link.send("a", PONG, b"old")
    line.connected = False
    line.recv = lambda timeout_s=None: setattr(line, "connected", True)
    link.recv(0.1)
    line.room = 9
    link.recv(0.1)
    assert line.sent == said, "old words are said on a new line"


def test_a_coordinator_is_taken_off_a_running_broker_and_its_sites_with_it(tmp_path):
    folder, keys, told = tmp_path / "broker", {name: new_keys() for name in ("heart", "a")}, []
    opened, going = threading.Event(), threading.Event()
    going.set()

    def listening(address, files):
        found["address"], found["code"] = address, files["heart"].read_text().strip()
        opened.set()

    found: dict[str, str] = {}
    arguments = (["heart"], folder, lambda event: told.append(event.data["text"]), "127.0.0.1", 0)
    thread = threading.Thread(target=run_broker, args=arguments, kwargs={"opened": listening, "going": going.is_set})
    thread.start()
    try:
        assert opened.wait(10)
        member = membership(found["code"], "heart", tmp_path / "there")
        own = load_or_make_keys(tmp_path / "there" / "keys.json")
        seal = CoordinatorSeal("heart", own.sign_secret, lambda site: [keys[site].sign_public])
        site_seal = SiteSeal("heart", "a", keys["a"].sign_secret, own.sign_public)
        with BrokeredLink(member.address, member.server_public, own, seal) as here:
            here.allow(keys["a"].curve_public, "a")
            with SealedSiteLink(member.address, member.server_public, keys["a"], site_seal) as there:
                meet(here, there)
                assert ask_to_revoke(folder, "heart", "stolen", 8.0), "the broker's process does not take it"
                assert any("heart was taken off the roster: stolen" in text for text in told)
                for _ in range(3):
                    there.send(PING)
                    assert here.recv(0.3) is None
    finally:
        going.clear()
        thread.join(10)


def test_who_was_to_be_taken_off_while_no_broker_ran_is_off_before_anybody_is_let_in(tmp_path):
    folder, keys, rosters = tmp_path / "broker", new_keys(), []
    folder.mkdir()
    desk = Desk(folder / "roster.json", broker.NAME, load_or_make_keys(folder / "keys.json"))
    desk.enlist("heart", Site(keys.curve_public, keys.sign_public))
    assert not ask_to_revoke(folder, "heart", wait_s=0.0)
    served = Desk.serve

    def serving(self, link):
        rosters.append(set(self.roster.sites))
        served(self, link)

    with mock.patch.object(Desk, "serve", serving):
        run_broker(["lung"], folder, lambda event: None, "127.0.0.1", 0, going=lambda: False)
    assert rosters == [set()] and not list((folder / "requests").iterdir())
