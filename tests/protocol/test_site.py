"""A site's machine: each bad day in a few lines."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import pytest

from learner_jax.errors import LocalProtocolError
from learner_jax.leaves import piece
from learner_jax.protocol import commands as c
from learner_jax.protocol import messages as m
from learner_jax.protocol import transfers
from learner_jax.protocol.entry import Entry
from learner_jax.protocol.site import Job, SiteKeeper
from learner_jax.protocol.transfers import Held

D, SCHEMA = "d" * 64, "5" * 64


def blob(data: bytes) -> m.Blob:
    return m.Blob(hashlib.sha256(data).hexdigest(), len(data), SCHEMA)


def opened(number: int = 1, epoch: int = 1, data: bytes = b"weights", phase: str = "train") -> m.Open:
    return m.Open("s", epoch, number, phase, 1, 2, 3, blob(data), {})


def entry(number: int = 1, data: bytes = b"update", broadcast: bytes = b"weights") -> Entry:
    return Entry(number, "train", blob(broadcast).digest, *blob(data))


class Bench:
    def __init__(self, **more: Any):
        self.keeper, self.now, self.log = SiteKeeper("s", "a", approved=D, **more), 0.0, []

    def do(self, event: Any, after: float = 0.0) -> list[Any]:
        self.now += after
        commands = self.keeper.handle(event, self.now)
        self.log += commands
        return commands

    def hear(self, message: Any, payload: bytes = b"") -> list[Any]:
        return self.do(c.Heard("", message, payload))

    def welcome(self, epoch: int = 1, digest: str = D) -> list[Any]:
        self.do(c.Tick())
        return self.hear(m.Welcome("s", m.PROTOCOL, epoch, b"{}", digest, ("a", "b")))

    def work(self, number: int = 1, data: bytes = b"weights") -> list[Any]:
        self.hear(opened(number, self.keeper._epoch, data))
        return self.hear(m.Chunk("s", blob(data).digest, 0, True), data)

    def offered(self, number: int = 1) -> list[Any]:
        self.work(number)
        self.do(c.Worked(number, "train", b"update", SCHEMA, b"state"))
        return self.do(c.Written(blob(b"update").digest))

    def accept(self, number: int = 1, digest: str | None = None) -> list[Any]:
        return self.hear(m.Accepted("s", self.keeper._epoch, number, "train", digest or blob(b"update").digest))

    def reject(self, final: bool, number: int = 1) -> list[Any]:
        return self.hear(m.Rejected("s", self.keeper._epoch, number, "train", blob(b"update").digest, final, "why"))


def kind(commands: list[Any], wanted: type) -> list[Any]:
    return [k for k in commands if isinstance(k, wanted)]


def said(commands: list[Any], wanted: type) -> list[Any]:
    return [k.message for k in kind(commands, c.Send) if isinstance(k.message, wanted)]


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.welcome()
    return bench


def test_a_round_as_it_should_be(bench):
    assert kind(bench.work(), c.Work)[0].data == b"weights"
    assert kind(bench.do(c.Worked(1, "train", b"update", SCHEMA, b"state")), c.WriteOutbox) == [
        c.WriteOutbox(entry(), b"update", b"state")
    ]
    assert not said(bench.log, m.Offer)
    (offer,) = said(bench.do(c.Written(entry().digest)), m.Offer)
    assert offer == m.Offer("s", 1, 1, "train", 1, "a", blob(b"weights").digest, blob(b"update"))
    assert bytes(kind(bench.hear(m.Want("s", entry().digest, 0, 1)), c.Send)[0].payload) == b"update"
    assert kind(bench.accept(), c.Commit) == [c.Commit(entry())]
    bench.do(c.Settled(entry().digest))
    assert bench.keeper.job is Job.IDLE


def test_an_offer_is_repeated_until_it_is_answered(bench):
    bench.offered()
    assert not said(bench.do(c.Tick(), after=1.0), m.Offer) and said(bench.do(c.Tick(), after=1.5), m.Offer)
    assert not kind(bench.log, c.Commit)


def test_the_acknowledgement_comes_twice(bench):
    bench.offered()
    bench.accept()
    assert not bench.accept() and not bench.do(c.Settled("0" * 64))
    bench.do(c.Settled(entry().digest))
    assert not bench.accept() and len(kind(bench.log, c.Commit)) == 1


def test_an_acknowledgement_of_other_bytes_commits_nothing(bench):
    bench.offered()
    assert not bench.accept(digest=D) and not bench.accept(number=2)


def test_refused_for_good(bench):
    bench.offered()
    assert kind(bench.reject(True), c.Discard) == [c.Discard(entry(), "why")]
    bench.do(c.Settled(entry().digest))
    assert not kind(bench.log, c.Commit) and not kind(bench.work(), c.Work) and kind(bench.work(2), c.Work)


def test_refused_for_now(bench):
    bench.offered()
    assert not bench.reject(False) and said(bench.do(c.Tick(), after=2.5), m.Offer)


def test_restarted_with_an_update_in_the_outbox():
    bench = Bench(pending=(entry(3), b"update"), epoch_seen=4, incarnation="0f")
    assert said(bench.do(c.Tick()), m.Hello)[0][-2:] == (4, "0f")
    (offer,) = said(bench.welcome(5), m.Offer)
    assert (offer.epoch, offer.round, offer.blob, offer.broadcast) == (5, 3, blob(b"update"), blob(b"weights").digest)
    assert kind(bench.accept(3), c.Commit)


def test_the_coordinator_restarts_and_gets_the_same_bytes_under_its_new_epoch(bench):
    bench.offered()
    assert said(bench.hear(m.Pong("s", 0)), m.Hello)
    assert [o.epoch for o in said(bench.welcome(2), m.Offer)] == [2]
    assert [(o.epoch, o.blob) for o in said(bench.hear(opened(1, 2)), m.Offer)] == [(2, blob(b"update"))]
    assert len(kind(bench.log, c.Work)) == 1 and kind(bench.log, c.RememberEpoch)[-1].epoch == 2


def test_the_coordinator_restarts_while_the_site_works(bench):
    bench.work()
    bench.hear(m.Pong("s", 0))
    bench.welcome(2)
    bench.hear(opened(1, 2))
    bench.do(c.Worked(1, "train", b"update", SCHEMA))
    assert said(bench.do(c.Written(entry().digest)), m.Offer)[0].epoch == 2 and len(kind(bench.log, c.Work)) == 1


def test_a_round_with_another_broadcast_is_worked_on_again(bench):
    bench.offered()
    assert said(bench.hear(opened(1, 1, b"others!")), m.Offer)
    bench.reject(True)
    bench.do(c.Settled(entry().digest))
    assert kind(bench.hear(m.Chunk("s", blob(b"others!").digest, 0, True), b"others!"), c.Work)


def test_a_newer_round_waits_until_the_older_is_settled(bench):
    bench.offered()
    assert said(bench.hear(opened(2, data=b"second")), m.Offer)[0].round == 1
    bench.accept()
    assert not said(bench.log, m.Want)[1:]
    assert said(bench.do(c.Settled(entry().digest)), m.Want)[0].digest == blob(b"second").digest


def test_work_on_a_round_that_closed_meanwhile_is_dropped(bench):
    bench.work()
    bench.hear(opened(2, data=b"second"))
    commands = bench.do(c.Worked(1, "train", b"update", SCHEMA))
    assert not kind(commands, c.WriteOutbox) and said(commands, m.Want)[0].digest == blob(b"second").digest


def test_a_newer_round_ends_the_fetching_of_an_older_and_not_the_other_way_round(bench):
    bench.hear(opened(1))
    bench.hear(opened(2, data=b"second"))
    bench.hear(opened(1))
    assert not kind(bench.hear(m.Chunk("s", blob(b"weights").digest, 0, True), b"weights"), c.Work)
    assert kind(bench.hear(m.Chunk("s", blob(b"second").digest, 0, True), b"second"), c.Work)[0].open.round == 2


def test_a_garbled_broadcast_is_fetched_again(bench):
    bench.hear(opened())
    assert said(bench.hear(m.Chunk("s", blob(b"weights").digest, 0, True), b"WEIGHTS"), m.Want)
    assert said(bench.hear(m.Chunk("s", blob(b"weights").digest, 0, True), b"xx"), m.Want)
    assert kind(bench.hear(m.Chunk("s", blob(b"weights").digest, 0, True), b"weights"), c.Work)


def test_a_broadcast_of_no_bytes(bench):
    assert bytes(kind(bench.hear(opened(data=b"")), c.Work)[0].data) == b""


def test_nothing_runs_before_the_manifest_is_approved():
    bench = Bench()
    (ask,) = kind(bench.welcome(digest="e" * 64), c.Approve)
    assert ask.manifest == b"{}" and not bench.hear(opened()) and not kind(bench.welcome(digest="e" * 64), c.Approve)
    assert said(bench.do(c.Approved("e" * 64)), m.Want)


def test_a_study_that_is_denied_here():
    bench = Bench()
    bench.welcome(digest="e" * 64)
    commands = bench.do(c.Denied("the data steward said no"))
    assert kind(commands, c.Finished) == [c.Finished(False, "", "the data steward said no")]
    assert said(commands, m.Bye) and bench.work() == []


def test_pings_and_silence(bench):
    assert [p.round for p in said(bench.do(c.Tick(), after=5.1), m.Ping)] == [0]
    bench.hear(opened(4))
    assert [p.round for p in said(bench.do(c.Tick(), after=5.1), m.Ping)] == [4]
    assert said(bench.do(c.Tick(), after=15.1), m.Hello) and not said(bench.do(c.Tick(), after=1.0), m.Hello)


def test_a_new_line_says_hello_at_once(bench):
    assert said(bench.do(c.Connected()), m.Hello)


def test_an_older_coordinator_is_not_followed():
    bench = Bench(epoch_seen=5)
    bench.welcome(4)
    assert bench.hear(opened(1, 4)) == [] and said(bench.do(c.Tick(), after=4.0), m.Hello)


def test_an_open_of_another_epoch_or_a_round_that_is_over_is_ignored():
    bench = Bench(committed=entry(1))
    bench.welcome()
    assert bench.hear(opened(2, 7)) == [] and bench.hear(opened(1)) == [] and bench.hear(opened(2))


def test_the_end_comes_after_the_last_update_is_settled(bench):
    bench.offered()
    assert not kind(bench.hear(m.Done("s", 1, "e" * 64, "finished")), c.Finished)
    bench.accept()
    commands = bench.do(c.Settled(entry().digest))
    assert kind(commands, c.Finished) == [c.Finished(True, "e" * 64, "finished")] and said(commands, m.Bye)


def test_a_full_disk_is_said_and_tried_again(bench):
    bench.work()
    (write,) = kind(bench.do(c.Worked(1, "train", b"update", SCHEMA)), c.WriteOutbox)
    assert "No space left" in kind(bench.do(c.Failed(write, "No space left on device")), c.Tell)[0].event.data["text"]
    assert kind(bench.do(c.Tick(), after=2.5), c.WriteOutbox) == [write]


def test_refused_and_stopped():
    for event, reason in (
        (c.Heard("", m.Refused("s", "not known")), "the coordinator refused this site: not known"),
        (c.Stop("told to leave"), "told to leave"),
    ):
        bench = Bench()
        assert kind(bench.do(event), c.Finished)[0].reason == reason


def test_bugs_of_ours_are_errors(bench):
    with pytest.raises(LocalProtocolError, match="expected work on"):
        bench.do(c.Worked(1, "train", b"update", SCHEMA))


def test_what_the_coordinator_does_wrong_is_said_once_a_minute_with_a_count(bench):
    for _ in range(100):
        bench.do(c.Garbled("", "noise"))
        bench.hear(m.Hello("s", m.PROTOCOL, "a", "", 0))
    notes = [k.event.data["text"] for k in kind(bench.log, c.Tell) if k.event.kind == "note"]
    assert notes == [
        "the coordinator sent what is not a message: noise",
        "the coordinator sent a Hello, not for here",
    ]
    later = [k.event.data for k in kind(bench.do(c.Tick(), after=60.0), c.Tell)]
    assert [data["times"] for data in later if "times" in data] == [99, 99]


@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_accepted_is_sent_again_to_a_coordinator_that_lost_it(bench, restarted):
    bench.offered()
    bench.accept()
    bench.do(c.Settled(entry().digest))
    assert not bench.hear(opened()), "a second telling of the same epoch is none"
    if restarted:
        bench = Bench(committed=entry(), kept=(entry(), b"update"), epoch_seen=1)
    bench.welcome(epoch=2)
    (offer,) = said(bench.hear(opened(epoch=2)), m.Offer)
    assert (offer.epoch, offer.blob) == (2, blob(b"update"))
    assert bytes(kind(bench.hear(m.Want("s", entry().digest, 0, 1)), c.Send)[0].payload) == b"update"
    bench.accept()
    bench.do(c.Settled(entry().digest))
    assert bench.keeper.job is Job.IDLE and kind(bench.work(2), c.Work)


def test_the_same_round_of_another_broadcast_is_worked_on_anew():
    bench = Bench(committed=entry(), kept=(entry(), b"update"), epoch_seen=1)
    bench.welcome(epoch=2)
    assert kind(bench.work(data=b"other weights"), c.Work)


# ---------------------------------------------------------------- pieces that are here already


def told(number: int, data: bytes, epoch: int = 1) -> m.Open:
    """A round whose broadcast is two pieces: three bytes, and the rest."""
    return opened(number, epoch, data)._replace(pieces=piece(data[:3]) + piece(data[3:]))


def test_what_is_as_in_the_last_broadcast_is_not_asked_for_again(bench):
    bench.hear(told(1, b"abcdef"))
    bench.hear(m.Chunk("s", blob(b"abcdef").digest, 0, True), b"abcdef")
    bench.do(c.Worked(1, "train", b"update", SCHEMA, b"state", b"t" * 24))
    (offer,) = said(bench.do(c.Written(blob(b"update").digest)), m.Offer)
    assert offer.pieces == b"t" * 24
    bench.accept()
    bench.do(c.Settled(blob(b"update").digest))
    bench.do(c.Stored(blob(b"abcdef").digest, b"abcdef"))
    (want,) = said(bench.hear(told(2, b"abcXYZ")), m.Want)
    assert want.have == b"\1"
    (work,) = kind(bench.hear(m.Chunk("s", blob(b"abcXYZ").digest, 0, True, b"\1"), b"XYZ"), c.Work)
    assert work.data == b"abcXYZ"


@pytest.mark.parametrize("lying", [b"abcdef", b"", b"ABCdef"], ids=["there", "gone", "spoilt"])
def test_nor_after_a_restart_if_it_is_still_what_it_was(lying):
    bench = Bench(held=Held(piece(b"abc") + piece(b"def"), lying))
    bench.welcome()
    steps = bench.hear(told(2, b"abcdef"))
    if lying != b"abcdef":
        assert [want.have for want in said(steps, m.Want)] == [b""]
        steps = bench.hear(m.Chunk("s", blob(b"abcdef").digest, 0, True), b"abcdef")
    assert kind(steps, c.Work)[0].data == b"abcdef"


def test_a_broadcast_that_the_disk_did_not_take_is_asked_for_whole(bench):
    bench.hear(told(1, b"abcdef"))
    bench.hear(m.Chunk("s", blob(b"abcdef").digest, 0, True), b"abcdef")
    bench.do(c.Stored(blob(b"abcdef").digest, None))
    bench.do(c.Worked(1, "train", b"update", SCHEMA))
    bench.do(c.Written(blob(b"update").digest))
    bench.accept()
    bench.do(c.Settled(blob(b"update").digest))
    assert [want.have for want in said(bench.hear(told(2, b"abcXYZ")), m.Want)] == [b""]


# ---------------------------------------------------------------- buffered rounds (FedBuff)


@pytest.mark.parametrize("fields, offers", [({"oldest": 1}, 1), ({"oldest": 2}, 0), ({"oldest": "1"}, 0), ({}, 0)])
def test_work_that_a_later_round_takes_is_offered(bench, fields, offers):
    bench.work()
    bench.hear(opened(2, data=b"others")._replace(fields=fields))
    bench.do(c.Worked(1, "train", b"update", SCHEMA, b"state"))
    found = said(bench.do(c.Written(blob(b"update").digest)), m.Offer)
    assert [(offer.round, offer.broadcast) for offer in found] == [(1, blob(b"weights").digest)] * offers
    if offers:
        bench.accept()
        assert said(bench.do(c.Settled(blob(b"update").digest)), m.Want)  # and on with the newest


def test_a_buffered_round_does_not_begin_a_slow_fetch_anew(bench, monkeypatch):
    monkeypatch.setattr(transfers, "CHUNK", 4)
    bench.hear(opened(1, data=b"weights of 1")._replace(fields={"oldest": 1}))
    bench.hear(m.Chunk("s", blob(b"weights of 1").digest, 0, False), b"weig")
    assert not said(bench.hear(opened(2, data=b"weights of 2")._replace(fields={"oldest": 1})), m.Want)
    for at, part in ((4, b"hts "), (8, b"of 1")):
        steps = bench.hear(m.Chunk("s", blob(b"weights of 1").digest, at, at == 8), part)
    (work,) = kind(steps, c.Work)
    assert (work.open.round, bytes(work.data)) == (1, b"weights of 1")


def test_nor_is_one_waited_for_of_which_nothing_comes(bench):
    bench.hear(opened(1)._replace(fields={"oldest": 1}))
    bench.hear(opened(2, data=b"others")._replace(fields={"oldest": 1}))
    for _ in range(25):
        bench.hear(m.Pong("s", 1))
        bench.do(c.Tick(), 1.0)
    assert said(bench.log, m.Want)[-1].digest == blob(b"others").digest
    assert kind(bench.hear(m.Chunk("s", blob(b"others").digest, 0, True), b"others"), c.Work)[0].open.round == 2


# ---------------------------------------------------------------- what small faults passed by (see mutants.md)


def test_hellos_that_nobody_answers_come_less_and_less_often():
    bench, times = Bench(resend_s=1.0), []
    for step in range(600):
        if said(bench.do(c.Tick(), 0.1), m.Hello):
            times.append(round(step / 10, 1))
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps[0] < 2.0 and all(after >= before - 0.11 for before, after in itertools.pairwise(gaps))
    assert 9.9 <= gaps[-1] <= 10.2
    bench.welcome()
    bench.do(c.Connected())  # the line was made anew: at once, and often again
    assert said(bench.log[-3:], m.Hello)


@pytest.mark.parametrize("event", [c.Denied("no"), c.Stop("no")])
def test_a_study_that_is_not_wanted_here_ends_without_success(bench, event):
    (ended,) = kind(bench.do(event), c.Finished)
    assert (ended.ok, ended.weights_sha256, ended.reason) == (False, "", "no")


def test_a_site_that_nobody_answers_for_a_week_still_calls():
    bench = Bench()
    for _ in range(7 * 24 * 60):
        assert not kind(bench.do(c.Tick(), 60.0), c.Finished)
    assert said(bench.log[-5:], m.Hello)
