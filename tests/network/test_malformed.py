"""Real sockets, a coordinator, and a site on the roster that sends what it should not: refused, each with a reason.

No jax: the machine, its drive, and an engine that checks updates as ours does.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import queue
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner_jax.errors import RemoteProtocolError
from learner_jax.leaves import check_file, pack, schema_bytes, schema_digest, schema_of
from learner_jax.network.drive import FLOOD, CoordinatorDrive, CoordinatorHandlers, SiteDrive, SiteHandlers
from learner_jax.network.keys import new_keys
from learner_jax.network.links import CoordinatorLink, SiteLink
from learner_jax.protocol import commands as c
from learner_jax.protocol import messages as m
from learner_jax.protocol.broker import Meter
from learner_jax.protocol.coordinator import RoundKeeper
from learner_jax.protocol.site import SiteKeeper
from tests.network.flood import WRONG, Facts, offer

STUDY, SITES, EPOCH, MIB = "s", ("honest", "mallory"), 2, 2**20
ZERO = {"w": np.zeros(4096, np.float32)}
SCHEMA = schema_of(ZERO)
SIZE, SCHEMA_DIGEST = schema_bytes(SCHEMA), schema_digest(SCHEMA)
BROADCAST = pack(ZERO)
SENT = hashlib.sha256(BROADCAST).hexdigest()


def blob(data: bytes, schema: str = SCHEMA_DIGEST) -> m.Blob:
    return m.Blob(hashlib.sha256(data).hexdigest(), len(data), schema)


class Federation:
    """A coordinator with an honest site, on sockets, and a door for one that is not.

    Attributes:
      closed: what each round closed with.
      notes: what was told in words.
      judged: how each frame of mallory was answered: a reason or "not a message"; "" for none.
    """

    def __init__(self, meter: Meter | None = None):
        self.server, self.keys = new_keys(), {name: new_keys() for name in SITES}
        users = {self.keys[name].curve_public: name for name in SITES}
        self.link = CoordinatorLink("127.0.0.1", 0, self.server, users)
        self.closed: queue.Queue[c.CloseRound] = queue.Queue()
        self.notes: list[str] = []
        self.judged: Counter[str] = Counter()
        self.spooled: dict[str, bytes] = {}
        self.came: dict[str, bytearray] = {}
        self.number = 0
        keeper = RoundKeeper(STUDY, EPOCH, b"{}", "d" * 64, SITES)
        self._handle, keeper.handle = keeper.handle, self.judge
        handlers = CoordinatorHandlers(
            validate=self.validate,
            append=self.append,
            spool=lambda k: self.spooled.update({k.digest: bytes(self.came[k.site])}),
            journal=lambda *rows: None,
            close=self.closed.put,
            tell=lambda event: self.notes.append(str(event.data["text"])) if "text" in event.data else None,
        )
        self.drive = CoordinatorDrive(self.link, keeper, handlers, meter=meter)
        self.drive.start()
        self.honest = self.site("honest")

    def append(self, asked: c.Append) -> None:
        before = self.came.setdefault(asked.site, bytearray())
        before[asked.offset :] = asked.data

    def validate(self, asked: c.Validate) -> str | None:
        try:
            check_file(io.BytesIO(self.came[asked.site]), SCHEMA, asked.site)
        except RemoteProtocolError as error:
            return error.reason
        return None

    def judge(self, event: Any, now: float) -> list[c.Command]:
        """The machine, seen from outside."""
        commands = self._handle(event, now)
        if isinstance(event, c.Garbled):
            self.judged[event.kind] += 1
        elif isinstance(event, c.Heard) and event.site == "mallory":
            answers = [k.message for k in commands if isinstance(k, c.Send) and k.site == "mallory"]
            reasons = [a.reason.split(":")[0] for a in answers if isinstance(a, m.Rejected | m.Refused)]
            odd = ["what sites do not send"] if isinstance(event.message, m.Pong) else []
            self.judged[next(iter(reasons + odd), "")] += 1
        return commands

    def site(self, name: str) -> tuple[SiteDrive, SiteLink]:
        link = SiteLink(self.link.address, self.server.curve_public, self.keys[name])

        def work(asked: c.Work) -> None:
            update = pack({"w": np.full(4096, asked.open.round, np.float32)})
            drive.post(c.Worked(asked.open.round, asked.open.phase, update, SCHEMA_DIGEST))

        approve = lambda asked: c.Approved(asked.manifest_digest)  # noqa: E731
        nothing: Any = lambda *given: None  # noqa: E731
        drive = SiteDrive(link, SiteKeeper(STUDY, name), SiteHandlers(approve, work, nothing, nothing, nothing))
        drive.start()
        return drive, link

    def begin(self, cohort: tuple[str, ...] = SITES, size: int | None = SIZE) -> None:
        self.number += 1
        start = c.StartRound(
            self.number, "train", cohort, BROADCAST, SCHEMA_DIGEST, SCHEMA_DIGEST, size, 1, 300.0
        )  # fmt: skip
        self.drive.post(start)

    def facts(self) -> Facts:
        return Facts(STUDY, EPOCH, self.number, SENT, SCHEMA_DIGEST, SIZE)

    def counted(self) -> list[str]:
        """Whose updates the open round closed with."""
        found = self.closed.get(timeout=60)
        assert found.round == self.number
        return [site for site, _ in found.accepted]

    def close(self) -> None:
        with contextlib.ExitStack() as last:  # all of it ends, also after one that failed
            last.callback(self.link.close)
            last.callback(self.honest[1].close)
            for drive in (self.honest[0], self.drive):
                last.callback(drive.join, 20)
                drive.stop()


class Mallory:
    """A key on the roster and a raw line: says what it likes."""

    def __init__(self, federation: Federation):
        self.federation = federation
        self.link = SiteLink(federation.link.address, federation.server.curve_public, federation.keys["mallory"])
        assert self.link.dial(20)
        self.say(m.Hello(STUDY, m.PROTOCOL, "mallory", "", 0))
        assert isinstance(self.hear(m.Welcome), m.Welcome)

    def say(self, message: m.Message, payload: bytes = b"") -> None:
        assert self.link.send(m.encode(message), payload)

    def hear(self, *kinds: type) -> Any:
        """The next message of these kinds."""
        stop = time.monotonic() + 30
        while time.monotonic() < stop:
            found = self.link.recv(1.0)
            message = m.decode(found[0]) if found is not None else None
            if isinstance(message, kinds):
                return message
        raise AssertionError(f"expected one of {kinds}")

    def opened(self) -> Facts:
        while self.hear(m.Open).round != self.federation.number:
            pass
        return self.federation.facts()

    def send(self, data: bytes, instead: bytes | None = None, **change: Any) -> Any:
        """Offers these bytes, hands them (or others) over when asked, and gives the answer."""
        self.say(offer(self.federation.facts(), **{"blob": blob(data), **change}))
        while True:
            answer = self.hear(m.Want, m.Accepted, m.Rejected, m.Refused)
            if not isinstance(answer, m.Want):
                return answer
            self.say(m.Chunk(STUDY, answer.digest, 0, True), data if instead is None else instead)


@pytest.fixture
def federation() -> Iterator[Federation]:
    federation = Federation()
    yield federation
    federation.close()


@pytest.fixture
def mallory(federation: Federation) -> Iterator[Mallory]:
    mallory = Mallory(federation)
    yield mallory
    mallory.link.close()


def full(value: float) -> bytes:
    """An update of the right names, shapes and dtypes, with one number of this value in it."""
    numbers = np.zeros(4096, np.float32)
    numbers[17] = value
    return pack({"w": numbers})


def wait_for(true: Callable[[], bool]) -> None:
    stop = time.monotonic() + 30
    while not true():
        assert time.monotonic() < stop
        time.sleep(0.005)


def test_each_wrong_frame_is_refused_with_its_reason_and_the_round_goes_on(federation, mallory):
    federation.begin()
    facts = mallory.opened()
    for name, (make, reason) in WRONG.items():
        said = len(federation.notes)
        words: list[str] = []

        def seen(words=words, said=said, reason=reason) -> bool:
            words += _reasons(mallory)
            return any(reason in word for word in (*federation.notes[said:], *words))

        def answered(name=name, make=make, seen=seen) -> bool:
            """Sent once more now and then: a complaint of the frame before may have come after the clearing."""
            federation.drive._keeper._complaints._said.clear()  # so that each is said in full
            assert mallory.link.send(*make(facts)), name
            stop = time.monotonic() + 2
            while not seen() and time.monotonic() < stop:
                time.sleep(0.005)
            return seen()

        wait_for(answered)
    assert federation.judged[""] <= 1, "a frame went without an answer"
    assert mallory.send(full(1.0)).__class__ is m.Accepted  # it is still heard
    assert sorted(federation.counted()) == sorted(SITES)


def test_more_frames_than_a_message_has_are_refused_and_a_frame_that_is_too_long_ends_its_line_alone(
    federation, mallory
):
    assert mallory.link.send(b"x", b"y")  # as a header and a payload, no message
    mallory.link._socket.send_multipart([b"x", b"y", b"z"])
    wait_for(lambda: federation.judged["sent what is not a message"] >= 2)
    federation.drive._keeper._complaints._said.clear()
    mallory.link._socket.send_multipart([b"x"] * 40)
    wait_for(lambda: any("at most one payload, got 40 frames" in note for note in federation.notes))
    mallory.link.send(b"x", bytes(4 * MIB))
    wait_for(lambda: mallory.link.recv(0.01) is None and not mallory.link.connected)
    federation.begin(cohort=("honest",))
    assert federation.counted() == ["honest"]


UPDATES = {
    "NaN": (lambda f: {"data": full(float("nan"))}, "expected finite numbers in leaf 'w', got 1"),
    "infinity": (lambda f: {"data": full(float("inf"))}, "expected finite numbers in leaf 'w', got 1"),
    "another shape or dtype, as it says": (
        lambda f: {"data": full(1.0), "blob": blob(full(1.0), "b" * 64)}, "in this round's schema"
    ),
    "too few bytes": (lambda f: {"data": full(1.0)[:-4]}, f"expected an update of {SIZE} bytes"),
    "a claim of 10 GB": (
        lambda f: {"data": b"", "blob": blob(b"")._replace(size=10**10)}, "got 10000000000"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", UPDATES)
def test_an_update_that_does_not_fit_is_refused_for_good_and_the_round_closes_without_it(what, federation, mallory):
    federation.begin()
    mallory.opened()
    make, reason = UPDATES[what]
    for _ in range(2):  # the second time with the round closed, or with the same answer
        answer = mallory.send(**make(federation.facts()))
        assert isinstance(answer, m.Rejected) and answer.final
        assert reason in answer.reason or answer.reason.startswith("late"), answer
    assert federation.counted() == ["honest"]


def test_replayed_duplicated_late_and_swapped_updates(federation, mallory):
    federation.begin()
    mallory.opened()
    answer = mallory.send(full(1.0), instead=full(2.0))
    assert not answer.final and "came garbled 3 times" in answer.reason
    assert isinstance(mallory.send(full(1.0)), m.Accepted)
    assert sorted(federation.counted()) == sorted(SITES)
    assert isinstance(mallory.send(full(1.0)), m.Accepted)  # again: it is acknowledged, and counts once
    assert "another update of this site was accepted" in mallory.send(full(2.0)).reason
    assert federation.closed.empty() and len(federation.spooled) == 2
    federation.begin(cohort=("honest",))
    assert federation.counted() == ["honest"]
    assert mallory.send(full(3.0)).reason.startswith("late")
    federation.begin(size=None)
    mallory.opened()
    claim = mallory.send(b"", blob=blob(b"")._replace(size=10**10))
    assert "expected an update of at most 4294967296 bytes" in claim.reason
    assert federation.counted() == ["honest"]


def _reasons(mallory: Mallory) -> list[str]:
    """What was answered by now."""
    found = []
    while (got := mallory.link.recv(0.02)) is not None:
        message = m.decode(got[0])
        found += [message.reason] if isinstance(message, m.Rejected | m.Refused) else []
    return found


def rss() -> int:
    """Bytes of this process in memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


class Flood:
    """Another process that sends so many wrong frames."""

    def __init__(self, federation: Federation, count: int):
        keys = federation.keys["mallory"]
        told = {
            "address": federation.link.address, "server": federation.server.curve_public, "keys": keys[:2],
            "count": count, "facts": federation.facts(),
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.network.flood"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("count", [4_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_a_flood_of_wrong_frames_is_judged_one_by_one_and_takes_no_memory(count):
    federation = Federation(Meter(1e9, 1e9))
    try:
        mallory = Mallory(federation)
        federation.begin()
        mallory.opened()
        mallory.link.close()
        before, most = rss(), 0
        flood = Flood(federation, count)
        while sum(federation.judged.values()) < count:
            assert flood.process.poll() is None and not federation.drive.ended.is_set(), federation.drive.error
            most = max(most, rss())
            time.sleep(0.02)
        flood.end()
        print(
            f"{count} frames, {(most - before) / MIB:.1f} MiB more, {len(federation.notes)} lines: {federation.judged}"
        )
        assert most - before < 64 * MIB
        assert federation.judged[""] <= 1 and len(federation.notes) < 30  # "": its first Hello
        assert federation.closed.empty()
        mallory = Mallory(federation)
        assert isinstance(mallory.send(full(1.0)), m.Accepted)
        assert sorted(federation.counted()) == sorted(SITES)
        mallory.link.close()
    finally:
        federation.close()


def test_a_flood_is_shed_by_the_rate_limit_while_an_honest_sites_rounds_go_on():
    rate, burst = 100, 200
    federation = Federation(Meter(rate, burst))
    begun = time.monotonic()
    flood = Flood(federation, 10**9)
    try:
        wait_for(lambda: federation.judged[FLOOD] > 500)
        for _ in range(10):
            federation.begin(cohort=("honest",))
            assert federation.counted() == ["honest"]
        shed = federation.judged[FLOOD]
        judged, took = sum(federation.judged.values()) - shed, time.monotonic() - begun
        print(f"{took:.1f} s: {judged} frames were judged, {shed} shed")
        assert burst <= judged <= burst + rate * took + 1
        assert sum(FLOOD in note for note in federation.notes) == 1
    finally:
        flood.process.kill()
        flood.process.communicate()
        federation.close()
