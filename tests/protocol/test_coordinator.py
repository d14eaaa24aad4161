"""The coordinator's machine: each bad day of a round in a few lines."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from learner_jax.errors import LocalProtocolError
from learner_jax.leaves import piece
from learner_jax.protocol import commands as c
from learner_jax.protocol import messages as m
from learner_jax.protocol import rows, transfers
from learner_jax.protocol.coordinator import Part, RoundKeeper
from learner_jax.protocol.transfers import Held, Holder

SITES = ("a", "b", "c")
SCHEMA = "5" * 64
D = "d" * 64
BROADCAST = b"weights"
SENT = hashlib.sha256(BROADCAST).hexdigest()


def blob(data: bytes, schema: str = SCHEMA) -> m.Blob:
    return m.Blob(hashlib.sha256(data).hexdigest(), len(data), schema)


def table(data: bytes) -> bytes:
    """Two pieces: three bytes, and the rest."""
    return piece(data[:3]) + piece(data[3:])


class Bench:
    """A keeper with sites that answer as they should, unless told otherwise. Each call returns the commands."""

    def __init__(self, epoch: int = 1, **more: Any):
        self.keeper = RoundKeeper("s", epoch, b"{}", D, SITES, **more)
        self.now, self.epoch, self.log = 0.0, epoch, []
        self.held = Holder(keep=99)

    def do(self, event: Any, after: float = 0.0) -> list[Any]:
        self.now += after
        commands = self.keeper.handle(event, self.now)
        self.log += commands
        return commands

    def start(self, number: int = 1, cohort: tuple[str, ...] = SITES, quorum: int = 2, **more: Any) -> list[Any]:
        begin = c.StartRound(number, "train", cohort, BROADCAST, SCHEMA, SCHEMA, 6, quorum, 100.0, **more)
        return [after for row in kind(self.do(begin), c.WriteRow) for after in self.do(c.Journaled(row.row))]

    def hello(self, *sites: str, incarnation: str = "") -> list[Any]:
        hellos = [m.Hello("s", m.PROTOCOL, site, "x", 0, incarnation) for site in sites]
        return [k for hello in hellos for k in self.do(c.Heard(hello.site, hello))]

    def offer(self, sender: str, data: bytes = b"update", number: int = 1, **more: Any) -> list[Any]:
        self.held.hold(blob(data).digest, data, table(data))
        offer = m.Offer("s", self.epoch, number, "train", 1, sender, SENT, blob(data), table(data))
        return self.do(c.Heard(sender, offer._replace(**more)))

    def serve(self, commands: list[Any]) -> list[Any]:
        """Sends the chunks that were asked for."""
        wants = [(k.site, k.message) for k in kind(commands, c.Send) if isinstance(k.message, m.Want)]
        return [
            after
            for site, want in wants
            for chunk, data in self.held.chunks(want)
            for after in self.do(c.Heard(site, chunk, data))
        ]

    def disk(self, commands: list[Any], *kinds: type) -> list[Any]:
        """Answers validation, spool and journal (or only some kinds of them), and what follows."""
        out = []
        for k in commands:
            if isinstance(k, c.Validate) and c.Validate in (kinds or (c.Validate,)):
                out += self.do(c.Valid(k.site, k.round, k.phase, k.digest))
            elif isinstance(k, c.Spool) and c.Spool in (kinds or (c.Spool,)):
                out += self.do(c.Spooled(k.site, k.round, k.phase, k.digest))
            elif isinstance(k, c.WriteRow) and c.WriteRow in (kinds or (c.WriteRow,)):
                out += self.do(c.Journaled(k.row))
        return out + (self.disk(out, *kinds) if out else [])

    def whole(self, site: str, data: bytes = b"update", number: int = 1) -> list[Any]:
        return self.disk(self.serve(self.offer(site, data, number)))


def kind(commands: list[Any], wanted: type) -> list[Any]:
    return [k for k in commands if isinstance(k, wanted)]


def said(commands: list[Any], wanted: type, site: str | None = None) -> list[Any]:
    return [
        k.message for k in kind(commands, c.Send) if isinstance(k.message, wanted) and site in (None, k.site)
    ]  # fmt: skip


def closed(commands: list[Any]) -> list[tuple[str, ...]]:
    return [tuple(site for site, _ in k.accepted) for k in kind(commands, c.CloseRound)]


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.hello(*SITES)
    bench.start()
    return bench


def order(*sites: str) -> tuple[str, ...]:
    from learner_jax.leaves import site_ids

    return tuple(site_ids(sites))


def test_a_round_as_it_should_be(bench):
    assert [o.round for o in said(bench.log, m.Open)] == [1, 1, 1]
    steps = bench.offer("a")
    assert [w.credit for w in said(steps, m.Want, "a")]
    steps = bench.serve(steps)
    assert b"".join(bytes(part.data) for part in kind(steps, c.Append)) == b"update"
    bench.disk(steps)
    bench.whole("b")
    assert not closed(bench.log)
    bench.whole("c")
    assert closed(bench.log) == [order(*SITES)] and kind(bench.log, c.CloseRound)[0].lost == ()
    journal = [k.row for k in kind(bench.log, c.WriteRow)]
    assert [type(row) for row in journal] == [rows.Opened, *[rows.Accepted] * 3, rows.Closed]
    assert len(said(bench.log, m.Accepted)) == 3


def test_it_is_acknowledged_only_after_spool_and_journal(bench):
    steps = bench.serve(bench.offer("a"))
    spool = bench.disk(steps, c.Validate)
    assert kind(spool, c.Spool) and not kind(spool, c.WriteRow) and not said(bench.log, m.Accepted)
    row = bench.disk(spool, c.Spool)
    assert kind(row, c.WriteRow) and not said(bench.log, m.Accepted)
    assert said(bench.disk(row, c.WriteRow), m.Accepted, "a")


def test_straggler(bench):
    bench.whole("a")
    bench.whole("b")
    assert not closed(bench.do(c.Tick(), after=99.0))
    bench.disk(bench.do(c.Tick(), after=2.0))
    assert closed(bench.log) == [order("a", "b")] and kind(bench.log, c.CloseRound)[0].lost == ("c",)


def test_late(bench):
    test_straggler(bench)
    (answer,) = said(bench.offer("c"), m.Rejected, "c")
    assert answer.final and answer.reason.startswith("late") and not kind(bench.log[-2:], c.Validate)


def test_what_is_under_way_when_the_round_closes_is_late(bench):
    steps = bench.serve(bench.offer("c"))
    spool = bench.disk(steps, c.Validate)
    test_straggler(bench)
    assert said(bench.log, m.Rejected, "c")[0].reason.startswith("late")
    assert bench.disk(spool) == []


def test_what_is_being_journaled_at_the_deadline_is_waited_for(bench):
    row = bench.disk(bench.disk(bench.serve(bench.offer("c")), c.Validate), c.Spool)
    bench.whole("a")
    bench.whole("b")
    assert not kind(bench.do(c.Tick(), after=200.0), c.WriteRow)
    bench.disk(row)
    assert closed(bench.log) == [order(*SITES)]


def test_duplicate(bench):
    first = bench.offer("a")
    assert kind(first, c.Send)
    again = bench.offer("a")
    bench.disk(bench.serve(first) + bench.serve(again))
    assert len(kind(bench.log, c.Spool)) == 1 and len(said(bench.log, m.Accepted)) == 1


def test_lost_ack(bench):
    bench.whole("a")
    assert said(bench.offer("a"), m.Accepted, "a") and len(kind(bench.log, c.Spool)) == 1


def test_lost_ack_of_a_round_long_closed(bench):
    test_straggler(bench)
    bench.start(2)
    assert said(bench.offer("a", number=1), m.Accepted, "a")


def test_another_update_of_the_same_site(bench):
    bench.whole("a")
    (answer,) = said(bench.offer("a", b"other!"), m.Rejected)
    assert answer.final and "another update" in answer.reason


def test_another_update_while_one_is_written(bench):
    row = bench.disk(bench.disk(bench.serve(bench.offer("a")), c.Validate), c.Spool)
    (answer,) = said(bench.offer("a", b"other!"), m.Rejected)
    assert not answer.final and "being written" in answer.reason
    assert said(bench.disk(row), m.Accepted)[0].digest == blob(b"update").digest


def test_stale_epoch():
    bench = Bench(epoch=2)
    bench.hello("a")
    bench.start()
    (answer,) = said(bench.offer("a", epoch=1), m.Rejected, "a")
    assert not answer.final and answer.reason.startswith("stale epoch") and not said(bench.log, m.Want)


@pytest.mark.parametrize(
    "change, final, reason",
    [
        ({"site": "b"}, True, "whose key this is"),
        ({"round": 2}, True, "of a later round than 1"),
        ({"phase": "look"}, True, "of a later round than 1"),
        ({"broadcast": D}, True, "another broadcast"),
        ({"blob": blob(b"too long")}, True, "expected an update of 6 bytes"),
        ({"blob": blob(b"update", D)}, True, "in this round's schema"),
    ],
)
def test_offers_that_never_count(bench, change, final, reason):
    (answer,) = said(bench.offer("a", **change), m.Rejected, "a")
    assert answer.final == final and reason in answer.reason and not said(bench.log, m.Want)


def test_a_site_that_was_not_asked(bench):
    bench = Bench()
    bench.hello("a", "c")
    bench.start(cohort=("a", "b"))
    assert not said(bench.log, m.Open, "c")
    assert "not asked" in said(bench.offer("c"), m.Rejected)[0].reason


def test_a_stranger(bench):
    assert said(bench.hello("x"), m.Refused, "x")
    assert said(bench.do(c.Heard("a", m.Ping("other", 1, 0, ""))), m.Refused, "a")


def test_wrong_bytes_are_fetched_again_and_the_third_time_put_off(bench):
    steps = bench.offer("a")
    bench.held.hold(blob(b"update").digest, b"UPDATE")
    for _ in range(2):
        steps = bench.serve(steps)
        assert said(steps, m.Want, "a") and not said(steps, m.Rejected)
    (answer,) = said(bench.serve(steps), m.Rejected, "a")
    assert not answer.final and "sha256" in answer.reason and not kind(bench.log, c.Validate)
    assert said(bench.disk(bench.serve(bench.offer("a"))), m.Accepted, "a")


def test_an_invalid_update_is_refused_and_the_round_closes_without_it(bench):
    (check,) = kind(bench.serve(bench.offer("a")), c.Validate)
    (answer,) = said(bench.do(c.Invalid("a", 1, "train", check.digest, "leaf 'w' is not finite")), m.Rejected, "a")
    assert answer.final and answer.reason == "leaf 'w' is not finite"
    assert said(bench.offer("a"), m.Rejected)[0].reason == answer.reason
    bench.whole("b")
    bench.whole("c")
    assert closed(bench.log) == [order("b", "c")]


def test_a_refused_site_that_was_started_again_is_asked_again_in_the_same_round():
    bench = Bench()
    bench.hello(*SITES, incarnation="1")
    bench.start(quorum=3)
    (check,) = kind(bench.serve(bench.offer("a", b"faulty")), c.Validate)
    bench.do(c.Invalid("a", 1, "train", check.digest, "a count is below zero"))
    bench.whole("b")
    (note,) = [k.event.data["text"] for k in kind(bench.whole("c"), c.Tell) if "waiting" in str(k)]
    assert "2 of 3 sites; refused: a (a count is below zero), which is asked again when" in note
    assert not said(bench.hello("a", incarnation="1"), m.Open), "the same process would send the same"
    assert said(bench.offer("a", b"mended"), m.Rejected)[0].final and not closed(bench.log)
    assert said(bench.hello("a", incarnation="2"), m.Open, "a")
    bench.whole("a", b"mended")
    assert closed(bench.log) == [order(*SITES)]


def test_below_quorum_it_waits_and_says_for_whom(bench):
    bench.whole("a")
    commands = bench.do(c.Tick(), after=101.0)
    (note,) = kind(commands, c.Tell)[-1:]
    assert note.event.data["waiting_for"] == list(order("b", "c")) and "1 of 2" in note.event.data["text"]
    assert not kind(commands, c.WriteRow)
    assert not any("waiting" in str(k) for k in bench.do(c.Tick(), after=1.0))
    bench.whole("b")
    assert closed(bench.log) == [order("a", "b")]


def test_a_site_that_comes_during_a_round_is_told():
    bench = Bench()
    bench.start()
    assert not said(bench.log, m.Open)
    assert said(bench.hello("b"), m.Open, "b")


def test_rejoin(bench):
    assert [k.event.site for k in kind(bench.do(c.Tick(), after=16.0), c.Tell)] == list(SITES)
    commands = bench.hello("a")
    assert [k.event.kind for k in kind(commands, c.Tell)] == ["site_back"] and said(commands, m.Open, "a")
    bench.whole("a")
    assert not said(bench.hello("a"), m.Open)[1:]


def _told(commands: list[Any]) -> list[tuple[str, Any]]:
    return [(k.event.kind, k.event.data.get("reason", k.event.data.get("first"))) for k in kind(commands, c.Tell)]


LOST_AND_BACK = [("site_lost", "its process was started again"), ("site_back", False)]


def test_a_process_started_again_within_its_lease_is_lost_and_back_once():
    bench = Bench()
    assert _told(bench.hello("a", incarnation="1")) == [("site_back", True)]
    bench.start()
    assert _told(bench.hello("a", incarnation="1")) == []  # a new line, or a Hello sent again
    again = bench.hello("a", incarnation="2")
    assert _told(again) == LOST_AND_BACK and said(again, m.Welcome) and len(said(again, m.Open, "a")) == 1
    assert _told(bench.hello("a", incarnation="2")) == []
    assert _told(bench.do(c.Heard("a", m.Ping("s", 1, 1, "train")))) == []
    bench.do(c.Tick(), after=16.0)  # now its lease has shown it
    assert _told(bench.hello("a", incarnation="3")) == LOST_AND_BACK[1:]
    assert _told(bench.hello("a")) == [] and _told(bench.hello("a", incarnation="3")) == []  # one that does not say


def test_a_process_started_again_in_mid_upload_gives_its_room_away():
    bench = Bench(upload_bytes=6)
    bench.hello(*SITES, incarnation="1")
    bench.start()
    assert said(bench.offer("a"), m.Want) and not said(bench.offer("b"), m.Want)
    again = bench.hello("a", incarnation="2")
    assert said(again, m.Want, "b") and said(bench.disk(bench.serve(again)), m.Accepted, "b")
    assert said(bench.whole("a"), m.Accepted, "a")


def test_a_lost_site_in_mid_upload_goes_on_where_it_stopped(monkeypatch):
    monkeypatch.setattr("learner_jax.protocol.transfers.CHUNK", 2)
    bench = Bench()
    bench.hello("a")
    bench.start()
    bench.offer("a")
    (first, *_) = bench.held.chunks(m.Want("s", blob(b"update").digest, 0, 3))
    bench.do(c.Heard("a", *first))
    bench.do(c.Heard("a", m.Bye("s", "restarting")))
    bench.hello("a")
    assert [(w.offset, w.credit) for w in said(bench.offer("a"), m.Want)] == [(2, 2)]


def test_a_ping_that_does_not_know_the_round_is_told_again(bench):
    assert said(bench.do(c.Heard("a", m.Ping("s", 1, 0, ""))), m.Open, "a")
    assert not said(bench.do(c.Heard("a", m.Ping("s", 1, 1, "train"))), m.Open, "a")


def test_a_site_from_before_a_restart_is_asked_to_say_hello_again():
    bench = Bench(epoch=2)
    assert said(bench.do(c.Heard("a", m.Ping("s", 1, 1, "train"))), m.Pong)[0].epoch == 0


def test_recovery_counts_what_the_journal_has():
    digest = blob(b"update").digest
    bench = Bench(epoch=2, accepted={(1, "train", "a"): digest})
    bench.hello(*SITES)
    bench.start(attempt=2, accepted={"a": digest})
    assert not said(bench.log, m.Open, "a") and said(bench.log, m.Open, "b")[0].attempt == 2
    assert said(bench.offer("a"), m.Accepted, "a")
    bench.whole("b")
    bench.whole("c")
    assert closed(bench.log) == [order(*SITES)] and len(kind(bench.log, c.Spool)) == 2


def test_what_the_journal_closed_stays_closed():
    accepted = {(1, "train", "a"): blob(b"update").digest}
    bench = Bench(epoch=2, closed=[(1, "train")], accepted=accepted)
    bench.hello("a", "b")
    assert said(bench.offer("a"), m.Accepted, "a") and said(bench.offer("b"), m.Rejected)[0].final
    with pytest.raises(LocalProtocolError, match="expected to open a round"):
        bench.start(1)


def test_fenced_by_a_newer_incarnation(bench):
    assert not kind(bench.do(c.Heard("a", m.Hello("s", m.PROTOCOL, "a", "x", 8))), c.Fenced)
    assert kind(bench.do(c.Heard("b", m.Hello("s", m.PROTOCOL, "b", "x", 9))), c.Fenced) == [c.Fenced(9)]
    assert bench.whole("c") == []


def test_the_word_of_one_site_stops_no_coordinator(bench):
    steps = bench.do(c.Heard("a", m.Hello("s", m.PROTOCOL, "a", "x", 2**31 - 1)))
    told = [k.event for k in kind(steps, c.Tell)]
    assert [event.kind for event in told] == ["site_lost", "note"] and all(event.site == "a" for event in told)
    assert "stop this one if another runs, else revoke the site" in told[1].data["text"]
    assert said(steps, m.Welcome, "a") and not said(steps, m.Open)  # it takes no part here, and sees why
    for _ in range(5):
        assert not kind(bench.do(c.Heard("a", m.Hello("s", m.PROTOCOL, "a", "x", 2**31 - 1))), c.Fenced)
    bench.whole("b")
    assert bench.whole("c") and closed(bench.do(c.Tick(), 101.0) + bench.disk(bench.log[-1:])) == [order("b", "c")]
    assert _told(bench.hello("a")) == [("site_back", True)]  # its disk was mended


def test_while_sites_are_still_joining_the_first_one_stops_nobody():
    bench = Bench(invited=3)
    bench.keeper._enrolled = ("a",)
    assert not kind(bench.do(c.Heard("a", m.Hello("s", m.PROTOCOL, "a", "x", 9))), c.Fenced)
    alone = RoundKeeper("s", 1, b"{}", D, ("a",), invited=1)  # the only one there is
    assert kind(alone.handle(c.Heard("a", m.Hello("s", m.PROTOCOL, "a", "x", 9)), 0.0), c.Fenced)


def test_who_has_met_a_newer_one_takes_no_part_until_it_says_otherwise(bench):
    bench.do(c.Heard("a", m.Hello("s", m.PROTOCOL, "a", "x", 9)))
    assert [answer.epoch for answer in said(bench.offer("a"), m.Pong)] == [0] and not said(bench.log, m.Want)
    bench.hello("a")
    assert said(bench.whole("a"), m.Accepted)


def test_what_is_damaged_of_a_site_that_was_taken_off_the_roster_is_not_waited_for():
    bench = Bench()
    bench.hello("a", "b")
    bench.start(again={"c": blob(b"update").digest})
    bench.whole("a")
    bench.whole("b")
    assert not closed(bench.log)
    bench.do(c.Forget("c"))
    assert closed(bench.disk(bench.log[-1:])) == [order("a", "b")]


def test_a_site_that_goes_just_before_a_round_begins_is_not_needed_in_it():
    bench = Bench()
    bench.hello("a", "b")
    bench.do(c.Forget("c"))
    bench.start(quorum=3)
    bench.whole("a")
    assert closed(bench.whole("b")) == [order("a", "b")]


def test_a_site_that_is_revoked_and_enrolled_again_takes_part_in_the_open_round(bench):
    bench.offer("a")
    bench.do(c.Forget("a"))
    bench.do(c.Enlist("a"))
    assert said(bench.hello("a"), m.Open, "a") and said(bench.whole("a"), m.Accepted, "a")


def test_one_update_after_the_other_is_not_begun_as_often_as_it_is_offered(bench):
    answers = [bench.offer("a", b"upda%02d" % (n % 2)) for n in range(100)]
    begun = sum(bool(said(steps, m.Want)) for steps in answers)
    assert begun <= 20
    refused = [answer for steps in answers for answer in said(steps, m.Rejected)]
    assert len(refused) >= 40 and not any(answer.final for answer in refused)


@pytest.mark.parametrize("before", ["", "accepted", "offered"])
def test_a_round_goes_on_without_a_site_that_is_taken_off_the_roster(before):
    bench = Bench()
    bench.hello(*SITES)
    bench.start(quorum=3)
    if before:
        (bench.whole if before == "accepted" else bench.offer)("c")
    bench.whole("a")
    bench.do(c.Forget("c"))
    assert closed(bench.whole("b")) == [order("a", "b", "c") if before == "accepted" else order("a", "b")]


def test_nobody_is_waited_for_who_was_taken_off_the_roster(bench):
    bench.do(c.Forget("c"))
    notes = [k.event.data for k in kind(bench.do(c.Tick(), 101.0), c.Tell) if k.event.kind == "note"]
    assert [(note["waiting_for"], note["quorum"]) for note in notes] == [(list(order("a", "b")), 2)]
    bench.do(c.Forget("b"))
    bench.hello("a")
    assert closed(bench.whole("a") + bench.do(c.Tick(), 1.0)) == [("a",)]


def test_another_protocol_is_refused(bench):
    assert "expected protocol" in said(bench.do(c.Heard("a", m.Hello("s", (9, 0), "a", "x", 0))), m.Refused)[0].reason


def test_a_full_disk_is_said_and_tried_again(bench):
    (spool,) = kind(bench.disk(bench.serve(bench.offer("a")), c.Validate), c.Spool)
    (note,) = kind(bench.do(c.Failed(spool, "No space left on device")), c.Tell)
    assert "spool an update: No space left" in note.event.data["text"]
    assert not said(bench.do(c.Tick(), after=1.0), m.Want)
    steps = bench.serve(bench.do(c.Tick(), after=3.0))  # a disk that refused may have lost all of it
    assert [part.offset for part in kind(steps, c.Append)] == [0] and kind(bench.disk(steps, c.Validate), c.Spool) == [
        spool
    ]


def test_an_update_that_the_disk_did_not_take_is_not_checked_again(bench):
    """Of a small update the last bytes and the check are asked for at once: both fail, and one of them is news."""
    commands = bench.serve(bench.offer("a"))
    (append,), (check,) = kind(commands, c.Append), kind(commands, c.Validate)
    assert kind(bench.do(c.Failed(append._replace(data=b""), "No space left on device")), c.Tell)
    assert bench.do(c.Failed(check, "No such file or directory")) == []
    steps = bench.serve(bench.do(c.Tick(), after=3.0))
    assert len(kind(steps, c.Append)) == 1 and kind(steps, c.Validate) == [check]
    bench.disk(steps)
    assert not kind(bench.do(c.Tick(), after=60.0), c.Validate)


def test_an_update_that_cannot_be_read_is_fetched_again(bench):
    (check,) = kind(bench.serve(bench.offer("a")), c.Validate)
    (note,) = kind(bench.do(c.Failed(check, "Input/output error")), c.Tell)
    assert "check an update: Input/output error; trying again" in note.event.data["text"]
    steps = bench.serve(bench.do(c.Tick(), after=3.0))
    assert kind(steps, c.Append) and kind(steps, c.Validate) == [check]


def test_only_so_many_bytes_at_a_time_and_a_stalled_site_makes_room():
    bench = Bench(upload_bytes=13)
    bench.hello(*SITES)
    bench.start(quorum=3)
    offers = {site: bench.offer(site) for site in SITES}
    assert [bool(said(offers[site], m.Want)) for site in SITES] == [True, True, False]
    for _ in range(4):
        bench.do(c.Tick(), after=5.0)
        for site in SITES:
            bench.do(c.Heard(site, m.Ping("s", 1, 1, "train")))
    assert said(bench.log, m.Want, "c")


def test_finish_tells_all_and_drains(bench):
    test_straggler(bench)
    bench.hello("a", "b")
    commands = bench.do(c.Finish("e" * 64, "finished"))
    assert [k.site for k in kind(commands, c.Send)] == ["a", "b"] and not kind(commands, c.Drained)
    bench.do(c.Heard("a", m.Bye("s", "")))
    assert said(bench.do(c.Heard("b", m.Ping("s", 1, 1, "train"))), m.Done)
    assert kind(bench.do(c.Heard("b", m.Bye("s", ""))), c.Drained)
    assert said(bench.hello("c"), m.Done, "c")


def test_an_offer_from_before_a_site_lost_its_disk_is_not_waited_for(bench):
    keeper = bench.keeper
    assert said(bench.offer("a"), m.Want, "a")  # said before, and late: the site knows of no round
    told = bench.do(c.Heard("a", m.Ping("s", 1, 0, "")))
    assert said(told, m.Open, "a") and keeper._round.shares["a"].part is Part.ASKED
    assert said(bench.disk(bench.serve(bench.offer("a", b"better"))), m.Accepted, "a")


def test_a_revoked_site_is_not_waited_for(bench):
    bench.whole("a")
    bench.whole("b")
    bench.disk(bench.do(c.Forget("c")))
    assert closed(bench.log) == [order("a", "b")] and said(bench.offer("c"), m.Refused)


def test_a_site_of_the_cohort_that_is_not_on_the_roster_is_lost_until_it_is_enlisted(bench):
    for site in SITES:
        bench.whole(site)
    bench.start(2, cohort=("a", "b", "x"), quorum=1)
    bench.whole("a", number=2)
    bench.do(c.Enlist("x"))
    assert said(bench.hello("x"), m.Open, "x")
    bench.whole("b", number=2)
    assert len(closed(bench.log)) == 1, "x is waited for"
    bench.whole("x", number=2)
    assert closed(bench.log)[1:] == [order("a", "b", "x")]
    bench.start(3, cohort=("a", "y"), quorum=1)
    bench.whole("a", number=3)
    assert closed(bench.log)[2:] == [("a",)], "y is not"


@pytest.mark.parametrize("more", [{"quorum": -1}, {"quorum": 4}, {"accepted": {"x": D}}, {"number": 0}])
def test_bugs_of_ours_are_errors(bench, more):
    test_straggler(bench)
    with pytest.raises(LocalProtocolError):
        bench.start(**{"number": 2, **more})
    bench.start(2)
    with pytest.raises(LocalProtocolError, match="none open"):
        bench.start(3)


def _notes(commands: list[Any]) -> list[str]:
    return [k.event.data["text"] for k in kind(commands, c.Tell) if k.event.kind == "note"]


def test_what_is_not_a_message_is_said_once_a_minute_with_a_count():
    bench = Bench()
    bench.hello("a", "b")
    for number in range(1000):
        bench.do(c.Garbled("a", f"unknown field {number}"))
        bench.do(c.Garbled("x", "of a stranger"))
        bench.do(c.Heard("b", m.Pong("s", 1)))
    assert _notes(bench.log) == [
        "sent what is not a message: unknown field 0",
        "sent what is not a message: of a stranger",
        "sent a Pong, which sites do not send",
    ]
    assert _notes(bench.do(c.Tick(), after=59.0)) == []
    assert _notes(bench.do(c.Tick(), after=1.1)) == [
        "sent what is not a message: 999 more times within 60 s",
        "sent what is not a message: 999 more times within 60 s",
        "sent what sites do not send: 999 more times within 60 s",
    ]
    assert _notes(bench.do(c.Tick(), after=61.0)) == [] and len(_notes(bench.do(c.Garbled("a", "again")))) == 1


def test_a_site_that_comes_and_goes_all_the_time_is_said_so_often_a_minute_and_in_turn():
    bench = Bench()
    bench.hello("a", incarnation="1")
    for number in range(500):
        bench.do(c.Heard("a", m.Bye("s", "again")))
        bench.hello("a", incarnation=f"{number:x}")
    told = [k.event.kind for k in kind(bench.log, c.Tell)][1:]
    assert told == ["site_lost", "site_back"] * 5
    bench.do(c.Heard("a", m.Bye("s", "for good")))
    later = kind(bench.do(c.Tick(), after=61.0), c.Tell)
    assert [(k.event.kind, k.event.data["reason"]) for k in later] == [("site_lost", "for good")]


def test_chunks_are_handed_out_at_a_limited_rate_a_site_and_no_other_pays():
    bench = Bench()
    bench.hello("a", "b")
    bench.start()
    want = m.Want("s", SENT, 0, 1)
    assert sum(len(said(bench.do(c.Heard("a", want)), m.Chunk)) for _ in range(10_000)) == 4000
    assert said(bench.do(c.Heard("b", want)), m.Chunk) and said(bench.do(c.Heard("a", want), after=0.1), m.Chunk)


def test_what_this_disk_has_lost_is_asked_for_again_and_the_round_waits_for_it():
    lost, other = hashlib.sha256(b"update").hexdigest(), hashlib.sha256(b"xxxxxx").hexdigest()
    bench = Bench(epoch=2, accepted={(1, "train", "a"): lost, (1, "train", "b"): lost})
    bench.hello(*SITES)
    bench.start(attempt=2, accepted={"b": lost}, again={"a": lost})
    bench.whole("c")
    assert not closed(bench.log) and not closed(bench.do(c.Tick(), after=500.0)), "it closes without what counted"
    (told,) = [k.event.data["text"] for k in kind(bench.log, c.Tell) if "damaged" in k.event.data.get("text", "")]
    assert "waiting for a to send again" in told
    (answer,) = said(bench.offer("a", b"xxxxxx"), m.Rejected, "a")
    assert answer.final and "another update of this site was accepted" in answer.reason and answer.digest == other
    (row,) = [k.row for k in kind(bench.disk(bench.serve(bench.offer("a"))), c.WriteRow) if k.row.round == 1][:1]
    assert row == rows.Accepted(1, "train", "a", lost, 6)
    assert closed(bench.log) == [order("a", "b", "c")]


def test_an_update_of_a_later_round_is_of_a_future_that_a_restored_coordinator_lost(bench):
    (answer,) = said(bench.offer("a", number=7), m.Rejected, "a")
    assert answer.final and "restored" in answer.reason


# ---------------------------------------------------------------- pieces that are here already


def spooled(bench: Bench, steps: list[Any], data: bytes) -> None:
    """All of an update came; the disk shows where it lies."""
    (check,) = kind(steps, c.Validate)
    (spool,) = kind(bench.do(c.Valid(*check)), c.Spool)
    assert spool.pieces == table(data)
    (row,) = kind(bench.do(c.Spooled(check.site, check.round, check.phase, check.digest, data)), c.WriteRow)
    assert said(bench.do(c.Journaled(row.row)), m.Accepted)


def one_site(number: int, **more: Any) -> Bench:
    bench = Bench(**more)
    bench.hello("a")
    bench.start(number, cohort=("a",), quorum=1)
    return bench


def appended(commands: list[Any]) -> bytes:
    return b"".join(bytes(part.data) for part in kind(commands, c.Append))


def test_what_is_as_in_the_sites_last_update_is_not_asked_for_again():
    bench = one_site(1)
    spooled(bench, bench.serve(bench.offer("a", b"abcdef")), b"abcdef")
    bench.disk(bench.log[-2:])
    bench.start(2, cohort=("a",), quorum=1)
    steps = bench.offer("a", b"abcXYZ", 2)
    (want,) = said(steps, m.Want)
    ((_, payload),) = bench.held.chunks(want)
    assert want.have == b"\1" and bytes(payload) == b"XYZ" and appended(steps) == b"abc"
    steps += bench.serve(steps)
    assert appended(steps) == b"abcXYZ" and [part.offset for part in kind(steps, c.Append)] == [0, 3]
    spooled(bench, steps, b"abcXYZ")


def test_nor_after_a_restart_where_it_still_lies_here():
    bench = one_site(2, epoch=2, kept={"a": Held(table(b"abcdef"), b"abcdef")})
    steps = bench.offer("a", b"abcdef", 2)  # nothing at all has changed
    assert not said(steps, m.Want) and appended(steps) == b"abcdef"
    spooled(bench, steps, b"abcdef")


@pytest.mark.parametrize(("half", "have"), [(b"abcX\0\0", b"\1"), (b"ab\0\0\0\0", b""), (b"abcXYZ", b"\3")])
def test_what_had_come_of_an_update_before_a_restart_is_not_asked_for_again(half, have):
    bench = one_site(2, epoch=2, parts={("a", blob(b"abcXYZ").digest): half})
    steps = bench.offer("a", b"abcXYZ", 2)
    assert [want.have for want in said(steps, m.Want)] == ([have] if have != b"\3" else [])
    steps += bench.serve(steps)
    assert appended(steps) == b"abcXYZ"
    spooled(bench, steps, b"abcXYZ")


@pytest.mark.parametrize("lying", [b"", b"ABC"], ids=["gone", "spoilt"])
def test_what_is_lost_or_spoilt_on_this_disk_is_asked_for(lying):
    bench = one_site(2, epoch=2, kept={"a": Held(table(b"abcdef"), lying)})
    steps = bench.offer("a", b"abcXYZ", 2)
    if lying:
        steps = bench.serve(steps)
    (want,) = said(steps, m.Want)
    steps = bench.serve(steps)
    assert want.have == b"" and appended(steps) == b"abcXYZ" and kind(steps, c.Append)[0].offset == 0
    spooled(bench, steps, b"abcXYZ")


# ---------------------------------------------------------------- buffered rounds (FedBuff)


def buffered(bench: Bench, number: int, buffer: int = 1, oldest: int = 1) -> list[Any]:
    return bench.start(number, quorum=1, buffer=buffer, oldest=oldest, fields={"oldest": oldest})


@pytest.fixture
def buffer() -> Bench:
    """In round 2, which takes what was computed from round 1's broadcast; "a" counted in round 1."""
    bench = Bench(buffered=True)
    bench.hello(*SITES)
    buffered(bench, 1)
    bench.whole("a")
    assert closed(bench.log) == [("a",)] and kind(bench.log, c.CloseRound)[0].lost == ()
    buffered(bench, 2)
    assert {opened.fields["oldest"] for opened in said(bench.log, m.Open)} == {1}
    return bench


def test_an_update_of_an_earlier_round_counts_in_the_open_one(buffer):
    steps = buffer.whole("b")  # it answers round 1
    assert [(a.round, a.phase) for a in said(steps, m.Accepted, "b")] == [(1, "train")]
    (row,) = [k.row for k in kind(steps, c.WriteRow) if isinstance(k.row, rows.Accepted)]
    assert (row.round, row.origin) == (2, 1) and closed(steps) == [("b",)]
    assert said(buffer.offer("b"), m.Accepted) and not said(buffer.offer("b"), m.Rejected)  # the answer was lost


def test_a_site_counts_once_in_a_round_and_its_next_update_in_the_next():
    bench = Bench(buffered=True)
    bench.hello(*SITES)
    buffered(bench, 1)
    bench.whole("a")
    buffered(bench, 2, buffer=2)
    assert said(bench.whole("b"), m.Accepted, "b")
    (answer,) = said(bench.offer("b", b"second", 2), m.Rejected, "b")
    assert not answer.final and "may count in the next" in answer.reason
    assert said(bench.whole("c"), m.Accepted, "c")
    assert closed(bench.log)[-1] == order("b", "c")
    buffered(bench, 3, oldest=2)
    assert said(bench.whole("b", b"second", 2), m.Accepted, "b") and closed(bench.log)[-1] == ("b",)


def test_what_is_older_than_the_oldest_or_of_another_broadcast_does_not_count(buffer):
    (answer,) = said(buffer.offer("b", broadcast="b" * 64), m.Rejected, "b")
    assert answer.final and "computed from another broadcast" in answer.reason
    buffer.whole("c", number=2)
    buffered(buffer, 3, oldest=2)
    (answer,) = said(buffer.offer("b"), m.Rejected, "b")
    assert answer.final and answer.reason == "too stale: expected an update of round 2 or later"


def test_what_is_on_its_way_when_a_round_closes_goes_on_in_the_next(buffer):
    before = buffer.offer("b")
    steps = buffer.whole("c", number=2)
    assert closed(steps) == [("c",)] and not said(steps, m.Rejected)
    assert not said(buffer.offer("b"), m.Rejected)[0].final  # between two rounds
    steps = buffered(buffer, 3)
    assert not said(steps, m.Want, "b")  # it is asked for already
    steps = buffer.disk(buffer.serve(before))
    assert said(steps, m.Accepted, "b") and closed(steps) == [("b",)]


def test_after_the_last_buffered_round_what_comes_is_late(buffer):
    buffer.offer("b")
    buffer.whole("c", number=2)
    steps = buffer.do(c.StartRound(3, "look", SITES, BROADCAST, SCHEMA, SCHEMA, 6, 1, 100.0))
    (answer,) = said(steps, m.Rejected, "b")
    assert answer.final and answer.reason == "late: the round was closed without it"
    assert said(buffer.offer("b"), m.Rejected)[0].final


def test_at_the_deadline_a_quorum_is_enough(buffer):
    buffer.whole("c", number=2)
    buffered(buffer, 3, buffer=3)
    buffer.whole("c", b"third!", 3)
    assert len(closed(buffer.log)) == 2
    (done,) = kind(buffer.do(c.Tick(), 101.0), c.WriteRow)
    assert done.row.accepted[0][0] == "c" and set(done.row.lost) == {"a", "b"}


def test_an_update_of_an_earlier_round_is_not_refused_for_good_before_a_restarted_coordinator_opens_one():
    bench = Bench(epoch=2, closed=[(1, "train")], broadcasts={(1, "train"): SENT}, buffered=True)
    bench.hello(*SITES)
    (answer,) = said(bench.offer("b"), m.Rejected, "b")
    assert not answer.final and answer.reason == "this round is not open"
    buffered(bench, 2)
    assert said(bench.whole("b"), m.Accepted, "b")


@pytest.mark.parametrize("number", [2, 4])
def test_a_restored_coordinator_of_buffered_rounds_counts_what_was_made_again(number):
    """It was restored to round 2; a site comes with an update that the lost coordinator asked for."""
    known = {(1, "train"): SENT}
    bench = Bench(epoch=5, closed=[(1, "train")], broadcasts=known, buffered=True)
    bench.hello(*SITES)
    buffered(bench, 2, buffer=2)
    broadcast = {} if number > 2 else {"broadcast": "b" * 64}
    (answer,) = said(bench.offer("b", b"before", number, **broadcast), m.Rejected, "b")
    assert answer.final  # it drops it, and works again
    for earlier in range(2, number):
        for site in ("a", "c"):
            bench.whole(site, number=earlier)
        buffered(bench, earlier + 1, buffer=2)
    assert said(bench.whole("b", b"again!", number), m.Accepted, "b")


def test_made_up_offers_that_are_refused_for_good_are_not_remembered():
    bench = Bench(buffered=True)
    bench.hello(*SITES)
    buffered(bench, 1)
    for number in range(2, 500):
        assert said(bench.offer("a", number=number), m.Rejected)[0].final
    assert len(bench.keeper._final) <= 1


def test_a_buffered_round_needs_a_keeper_that_was_told_of_such_rounds():
    bench = Bench()  # what it refuses for good before the first one would count in it
    with pytest.raises(LocalProtocolError, match="expected no buffer in a study whose rounds are not buffered"):
        buffered(bench, 1)


def test_what_comes_while_a_buffered_round_closes_is_not_lost(buffer, monkeypatch):
    monkeypatch.setattr(transfers, "CHUNK", 2)
    (first,) = said(buffer.offer("b"), m.Want, "b")
    frames = buffer.held.chunks(first)
    buffer.do(c.Heard("b", *frames[0]))
    buffer.whole("c", number=2)  # the round is closed; none is open
    assert appended(buffer.do(c.Heard("b", *frames[1]))) == b"da"
    begin = c.StartRound(3, "train", SITES, BROADCAST, SCHEMA, SCHEMA, 6, 1, 100.0, buffer=1, oldest=1)
    (row,) = kind(buffer.do(begin), c.WriteRow)
    assert appended(buffer.do(c.Heard("b", *frames[2]))) == b"te"  # nor is it yet
    steps = buffer.disk(buffer.do(c.Journaled(row.row)))
    assert said(steps, m.Accepted, "b") and closed(steps) == [("b",)]


def test_a_ping_of_a_site_at_work_on_an_earlier_round_stops_no_upload(buffer):
    steps = buffer.offer("b")
    buffer.do(c.Heard("b", m.Ping("s", 1, 1, "train")))
    assert said(buffer.disk(buffer.serve(steps)), m.Accepted, "b")


def test_other_pieces_in_each_want_are_not_made_for_it():
    bench = Bench()
    bench.hello("a")
    bench.start(1, cohort=("a",), quorum=1, pieces=table(BROADCAST))
    wants = [m.Want("s", SENT, 0, 1, (number << 2).to_bytes(2, "little")) for number in range(1, 500)]
    assert 60 < sum(len(said(bench.do(c.Heard("a", want)), m.Chunk)) for want in wants) < 70


def test_what_a_buffered_round_refused_for_good_counts_in_no_later_one(buffer):
    (answer,) = said(buffer.offer("b", blob=blob(b"update", "6" * 64)), m.Rejected, "b")
    assert answer.final and "schema" in answer.reason
    buffer.whole("c", number=2)
    buffered(buffer, 3)
    (again,) = said(buffer.offer("b"), m.Rejected, "b")  # said before the refusal came, and heard after
    assert again.final and again.reason == answer.reason


# ---------------------------------------------------------------- what small faults passed by (see mutants.md)


def test_what_is_accepted_is_told_with_its_size_and_how_many_are_there(bench):
    told = [k.event for k in kind(bench.whole("a") + bench.whole("b"), c.Tell) if k.event.kind == "site_done"]
    assert [(event.site, dict(event.data)) for event in told] == [
        ("a", {"bytes": 6, "accepted": 1, "of": 3}), ("b", {"bytes": 6, "accepted": 2, "of": 3}),
    ]  # fmt: skip


def test_an_upload_that_moves_is_not_put_off_and_one_that_stands_still_gives_its_room_away(monkeypatch):
    monkeypatch.setattr(transfers, "CHUNK", 2)
    bench = Bench(upload_bytes=6, lease_s=4.0)
    bench.hello(*SITES)
    bench.start()
    bench.do(c.Tick(), 1.0)
    frames = bench.held.chunks(said(bench.offer("a"), m.Want, "a")[0])
    assert not said(bench.offer("b"), m.Want, "b")
    for frame in frames[:2]:  # a chunk each three seconds: slow, and it moves
        bench.do(c.Heard("b", m.Ping("s", 1, 1, "train")), 3.0)
        bench.do(c.Heard("a", *frame))
        assert not said(bench.do(c.Tick()), m.Want, "b")
    for _ in range(3):  # it is there, and sends nothing more
        bench.do(c.Heard("a", m.Ping("s", 1, 1, "train")), 1.5)
        bench.do(c.Heard("b", m.Ping("s", 1, 1, "train")))
    assert said(bench.do(c.Tick()), m.Want, "b")


def test_of_a_sites_accepted_updates_the_last_ones_are_remembered():
    bench = Bench()
    for number in range(1, 140):
        bench.hello(*SITES)
        bench.start(number, quorum=1, cohort=("a",))
        bench.whole("a", b"update", number)
    assert len(bench.keeper._accepted) == 128
    assert said(bench.offer("a", number=139), m.Accepted) and said(bench.offer("a", number=12), m.Accepted)
    (answer,) = said(bench.offer("a", number=11), m.Rejected)
    assert answer.final and answer.reason.startswith("late")


def test_an_update_that_is_larger_than_any_may_be_is_refused_for_good():
    bench = Bench(size_limit=5)
    bench.hello(*SITES)
    bench.start()
    (answer,) = said(bench.offer("a"), m.Rejected, "a")
    assert answer.final and answer.reason == "expected an update of at most 5 bytes, got 6"


def test_a_site_that_flaps_is_told_of_some_times_a_minute_and_again_in_the_next():
    bench = Bench()

    def flaps(times: int) -> int:
        told = []
        for _ in range(times):
            told += _told(bench.hello("a") + bench.do(c.Heard("a", m.Bye("s", "again")), 0.1))
        return len(told)

    first = flaps(40)
    assert 4 <= first <= 12
    bench.do(c.Tick(), 61.0)
    assert 4 <= flaps(40) <= 12


def test_in_buffered_rounds_a_slow_site_still_fetches_the_broadcast_of_an_earlier_one(buffer):
    (told,) = {(o.blob.digest, o.round) for o in said(buffer.log, m.Open, "b")[:1]}
    assert told == (SENT, 1)
    assert closed(buffer.whole("c", number=2))
    buffer.do(c.StartRound(3, "train", SITES, b"other", SCHEMA, SCHEMA, 6, 1, 100.0, buffer=1, oldest=1))
    served = said(buffer.do(c.Heard("b", m.Want("s", SENT, 0, 1))), m.Chunk, "b")
    assert [chunk.digest for chunk in served] == [SENT]


def test_who_says_the_same_pieces_again_and_again_is_served_and_who_says_others_is_not():
    """Another view of a broadcast is work; the same one is not."""
    bench = Bench()
    bench.hello(*SITES)
    bench.start(pieces=table(BROADCAST))
    same = [bench.do(c.Heard("a", m.Want("s", SENT, 0, 1, b"\x01"))) for _ in range(200)]
    assert all(said(steps, m.Chunk, "a") for steps in same)
    turns = [bench.do(c.Heard("b", m.Want("s", SENT, 0, 1, bytes([1 + n % 2])))) for n in range(200)]
    assert 64 <= sum(bool(said(steps, m.Chunk, "b")) for steps in turns) < 150  # the last view that it was let have


def test_a_study_does_not_end_in_an_open_round(bench):
    with pytest.raises(LocalProtocolError, match="expected to finish with no round open"):
        bench.do(c.Finish("e" * 64, "finished"))


def test_a_site_that_was_away_while_the_disk_refused_its_update_is_not_waited_for_once_it_is_revoked(bench):
    offered = bench.offer("a")
    bench.serve(offered)
    assert bench.keeper._round.shares["a"].part is Part.CHECKING
    bench.do(c.Heard("a", m.Bye("s", "stopped")))
    bench.do(c.Failed(c.Validate("a", 1, "train", blob(b"update").digest), "refused"))
    assert bench.keeper._round.shares["a"].part is Part.QUEUED
    bench.do(c.Forget("a"))
    bench.whole("b")
    assert closed(bench.whole("c")) == [order("b", "c")]


# ---------------------------------------------------------------- newcomers


def enter(bench: Bench, number: int = 2, cohort: tuple[str, ...] = ("c",), **more: Any) -> list[Any]:
    begin = c.StartRound(number, "enter", cohort, BROADCAST, SCHEMA, SCHEMA, 6, 0, 100.0, **more)
    return [after for row in kind(bench.do(begin), c.WriteRow) for after in bench.do(c.Journaled(row.row))]


def test_newcomers_who_are_there_are_waited_for_and_nobody_else_is():
    bench = Bench()
    bench.hello("a", "b")
    told = enter(bench, cohort=("b", "c"))
    assert [(o.round, o.phase) for o in said(told, m.Open)] == [(2, "enter")]
    assert not closed(bench.do(c.Tick(), 1.0)), "b is there"
    bench.disk(bench.serve(bench.offer("b", number=2, phase="enter")))
    (done,) = kind(bench.log, c.CloseRound)
    assert [site for site, _ in done.accepted] == ["b"] and done.lost == ("c",)


def test_a_phase_of_newcomers_closes_with_nobody_when_the_last_one_leaves():
    bench = Bench()
    bench.hello("c")
    enter(bench)
    assert not kind(bench.do(c.Tick(), 1.0), c.WriteRow)
    bench.do(c.Heard("c", m.Bye("s", "its table does not fit")))
    bench.disk(bench.do(c.Tick(), 1.0))
    assert closed(bench.log) == [()] and kind(bench.log, c.CloseRound)[0].lost == ("c",)


def test_a_newcomer_who_answers_nothing_is_waited_for_until_the_deadline():
    bench = Bench()
    bench.hello("c")
    enter(bench)
    for _ in range(20):
        bench.do(c.Heard("c", m.Ping("s", 1, 2, "enter")), 4.9)
        assert not kind(bench.do(c.Tick()), c.WriteRow)
    bench.do(c.Heard("c", m.Ping("s", 1, 2, "enter")), 4.9)
    bench.disk(bench.do(c.Tick()))
    assert closed(bench.log) == [()]


def test_who_speaks_of_no_such_phase_is_not_asked_and_not_waited_for_and_that_is_said():
    bench = Bench()
    bench.do(c.Heard("c", m.Hello("s", (1, 2), "c", "x", 0)))
    steps = enter(bench)
    assert not said(steps, m.Open)
    (note,) = _notes(bench.log)
    assert "expected protocol 1.3, which has the phase 'enter', got 1.2" in note
    bench.disk(steps)
    assert closed(bench.log) == [()]
    assert said(bench.start(2), m.Open, "c"), "what it knows it is asked"


def test_sites_are_told_how_many_take_part_and_not_who_is_on_the_roster():
    for enrolled, told in ((2, 2), (0, 3)):
        bench = Bench()
        bench.hello("a")
        assert [o.enrolled for o in said(bench.start(enrolled=enrolled), m.Open)] == [told]


def test_between_buffered_rounds_newcomers_prepare_and_what_is_on_its_way_goes_on(buffer):
    under_way = buffer.offer("b", b"b" * 6)
    buffer.whole("c", number=2)
    enter(buffer, 3, ("a",))
    (answer,) = said(buffer.offer("b", b"b" * 6), m.Rejected, "b")
    assert not answer.final and answer.reason == "between two rounds: it may count in the next"
    buffer.serve(under_way)
    buffer.disk(buffer.serve(buffer.offer("a", number=3, phase="enter")))
    assert len(closed(buffer.log)) == 3
    buffer.disk(buffered(buffer, 3, oldest=1))
    assert closed(buffer.log)[3:] == [("b",)], "its bytes came while the others prepared"


def test_what_of_a_phase_of_newcomers_comes_late_counts_in_no_buffered_round(buffer):
    buffer.whole("c", number=2)
    enter(buffer, 3, ("a",))
    for _ in range(21):  # it is there, and sends nothing of what it has offered
        buffer.offer("a", number=3, phase="enter")
        buffer.disk(buffer.do(c.Tick(), 4.9))
    assert closed(buffer.log)[2:] == [()]
    buffered(buffer, 3, buffer=2, oldest=1)
    assert buffer.keeper._round.shares["a"].part is Part.ASKED
