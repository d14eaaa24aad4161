"""A site's machine: it takes part in rounds. No socket, clock, disk or jax.

Theory of operation. The site says Hello until it is welcomed, and from then on pings; after a lease without an answer,
or at a sign of another epoch, it says Hello again. What the study is comes with the welcome and must be approved here
before anything is worked on. Apart from that session, there is at most one *job*, which moves by the table below:

             open               arrived             worked            written           accepted
        IDLE -----> FETCHING ------------> WORKING --------> WRITING --------> OFFERING ---------> COMMITTING --> IDLE
                                              | stale                             | rejected
                                              +--> IDLE                           +-----------> DISCARDING --> IDLE

An update is written to the outbox, with the state that it would commit, before it is offered, and is offered byte for
byte until it is accepted or refused for good, whatever restarts meanwhile: the offer carries the epoch of the session,
the bytes stay. Only an accepted update commits its state. A newer round waits until the older update is settled, since
what the site would work with depends on it; an update that was still being worked on when a newer round came is of a
round that closed without this site, and is dropped unseen, unless the newer round takes earlier ones (a buffered one).

The bytes of the last accepted update are kept until the next one's. A restarted coordinator that opens the same round
with the same broadcast has lost them, and gets them again.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from learner_jax import events
from learner_jax.errors import LocalProtocolError, RemoteProtocolError
from learner_jax.protocol import commands as c
from learner_jax.protocol import messages as m
from learner_jax.protocol.complaints import EVERY_S, Complaints
from learner_jax.protocol.entry import Entry
from learner_jax.protocol.transfers import Held, Holder, Receiver


class Job(enum.Enum):
    """What the site is at."""

    __hash__ = object.__hash__  # as Part's

    IDLE = enum.auto()
    FETCHING = enum.auto()
    WORKING = enum.auto()
    WRITING = enum.auto()
    OFFERING = enum.auto()
    COMMITTING = enum.auto()
    DISCARDING = enum.auto()


# (job, what happened) -> (job, method). What is not here is out of its time, and ignored.
TABLE: Mapping[tuple[Job, str], tuple[Job, str]] = {
    (Job.IDLE, "open"): (Job.FETCHING, "_fetch"),
    (Job.FETCHING, "open"): (Job.FETCHING, "_fetch"),
    (Job.FETCHING, "garbled"): (Job.FETCHING, "_fetch_anew"),
    (Job.FETCHING, "arrived"): (Job.WORKING, "_work"),
    (Job.WORKING, "worked"): (Job.WRITING, "_write"),
    (Job.WORKING, "stale"): (Job.IDLE, "_next"),
    (Job.WRITING, "written"): (Job.OFFERING, "_offer"),
    (Job.OFFERING, "open"): (Job.OFFERING, "_offer"),
    (Job.OFFERING, "welcome"): (Job.OFFERING, "_offer"),
    (Job.OFFERING, "silence"): (Job.OFFERING, "_offer"),
    (Job.OFFERING, "accepted"): (Job.COMMITTING, "_commit"),
    (Job.OFFERING, "rejected"): (Job.DISCARDING, "_discard"),
    (Job.COMMITTING, "settled"): (Job.IDLE, "_next"),
    (Job.DISCARDING, "settled"): (Job.IDLE, "_next"),
}
_AT_ONCE = 64 * 2**20
"""Bytes of pieces that are here already, taken in one go: a site has one transfer."""
_OLDEST = 3
"""Every third Hello that goes unanswered is said in the words of minor 0, which any coordinator of this major knows: it
may be too old to read ours."""


class SiteKeeper:
    """One site's part in one study.

    Args:
      study, site: names, as enrolled.
      software: what runs here, "learner-jax 0.1.0".
      pending: the outbox's update and its bytes, if there is one.
      committed: the last update whose state was committed here, if any.
      epoch_seen: the newest epoch met.
      approved: digest of the manifest that was approved here before, if any.
      lease_s: after this silence the coordinator is lost; a third of it passes between pings.
      resend_s: after this silence an offer, or Hello, is sent again.
      patience_s: after this long without any chunk, those under way are asked for again.
      kept: the last update whose state was committed, and its bytes, if they are still there.
      incarnation: this process's own, in hexadecimal: shows the coordinator a restart within the lease.
      held: the last broadcast, where it still lies here.
    """

    def __init__(
        self,
        study: str,
        site: str,
        software: str = "",
        pending: tuple[Entry, bytes] | None = None,
        committed: Entry | None = None,
        epoch_seen: int = 0,
        approved: str = "",
        lease_s: float = 15.0,
        resend_s: float = 2.0,
        patience_s: float = 10.0,
        incarnation: str = "",
        kept: tuple[Entry, bytes] | None = None,
        held: Held | None = None,
    ):
        self.study, self.site, self._software = m.check_name(study, "a study's name"), site, software
        self._epoch_seen, self._approved, self._incarnation = epoch_seen, approved, incarnation
        self._lease, self._resend, self._patience = lease_s, resend_s, patience_s
        self._epoch = 0  # of the session; 0 while there is none
        self._heard = self._said = self._moved = self._came = float("-inf")
        self._hellos = 0
        self._minor = m.PROTOCOL[1]  # of what is said, as last agreed
        self.job = Job.IDLE
        self._newest: m.Open | None = None  # the newest round told
        self._open: m.Open | None = None  # the round that the job is of; None for an update from before a restart
        self._receiver: Receiver | None = None
        self._incoming = bytearray()  # what the receiver has handed on
        self._held, self._held_digest = held, ""  # the last broadcast that was worked with
        self._holder, self._complaints = Holder(keep=1), Complaints()
        self._entry: Entry | None = None
        self._last = (committed.round, committed.phase) if committed else None  # the last round that is over here
        self._asked = ""  # digest of the manifest that approval was asked for
        self._done: m.Done | None = None
        self.finished: c.Finished | None = None
        self._again: list[tuple[float, c.Command]] = []
        self._out: list[c.Command] = []
        self._now = 0.0
        self._kept: Entry | None = None  # what was accepted last, held still
        self._kept_by = 0  # by the coordinator of which epoch
        if kept is not None and pending is None:
            self._kept = kept[0]
            self._holder.hold(kept[0].digest, kept[1], bytes.fromhex(kept[0].pieces))
        if pending is not None:
            self._entry, self.job = pending[0], Job.OFFERING
            self._holder.hold(pending[0].digest, pending[1], bytes.fromhex(pending[0].pieces))

    # ---------------------------------------------------------------- the one door

    def handle(self, event: c.Event, now: float) -> list[c.Command]:
        """Takes one event, gives back what is to be done. Give it a Tick first.

        Args:
          event: see `commands`.
          now: seconds on a clock that only goes forward.

        Raises:
          LocalProtocolError: an engine's event that makes no sense here: a bug of ours. A peer never causes one.
        """
        self._now, self._out = now, []
        if self.finished is None:
            _EVENTS[type(event)](self, event)
        return self._out

    def _send(self, message: m.Message, payload: bytes | memoryview = b"") -> None:
        self._out.append(c.Send("", message, payload, self._minor))

    def _tell(self, kind: str, **data: Any) -> None:
        number = self._newest.round if self._newest else None
        self._out.append(c.Tell(events.Event(kind, self.study, number, self.site, data)))

    def _complain(self, kind: str, text: str) -> None:
        """Says what the coordinator does wrong, if it was not said just before."""
        if self._complaints.first("", kind, self._now):
            self._tell("note", text=text)

    def _finish(self, ok: bool, weights: str, reason: str) -> None:
        self._send(m.Bye(self.study, reason[:2000]))
        self.finished = c.Finished(ok, weights, reason)
        self._out.append(self.finished)

    # ---------------------------------------------------------------- the session

    def _on_tick(self, _: c.Tick) -> None:
        if self._again:
            self._out += [command for at, command in self._again if at <= self._now]
            self._again = [(at, command) for at, command in self._again if at > self._now]
        for _peer, kind, more in self._complaints.due(self._now):
            self._tell("note", text=f"{kind}: {more} more times within {EVERY_S:.0f} s", times=more)
        if self._epoch and self._now - self._heard > self._lease:
            self._tell("note", text=f"the coordinator was not heard from for {self._lease:.0f} s; calling again")
            self._leave_session()
        if not self._epoch:
            if self._now - self._said >= min(self._resend * 1.5 ** min(self._hellos, 20), 10.0):
                self._hello()
            return
        if self._now - self._said >= self._lease / 3:
            self._said = self._now
            known = (self._newest.round, self._newest.phase) if self._newest else (0, "")
            self._send(m.Ping(self.study, self._epoch, *known))
        if self._now - self._moved >= self._resend:
            self._step("silence")
        if self.job is Job.FETCHING and self._open is not None and self._newest is not None and self._gone(self._open):
            self._receiver = None
            self._step("open", self._newest)
        elif self.job is Job.FETCHING:
            self._take()

    def _hello(self) -> None:
        self._said, self._hellos = self._now, self._hellos + 1
        about = (self.site, self._software, self._epoch_seen, self._incarnation)
        minor = self._minor if self._hellos % _OLDEST else 0
        self._out.append(c.Send("", m.Hello(self.study, m.PROTOCOL, *about), minor=minor))

    def _on_connected(self, _: c.Connected) -> None:
        self._leave_session()
        self._hello()

    def _leave_session(self) -> None:
        self._epoch, self._hellos, self._said = 0, 0, float("-inf")

    def _on_heard(self, event: c.Heard) -> None:
        handler = _MESSAGES.get(type(event.message))
        if event.message.study != self.study or handler is None:
            name = type(event.message).__name__
            self._complain("the coordinator sent what is not for here", f"the coordinator sent a {name}, not for here")
            return
        self._heard = self._now
        handler(self, event.message, event.payload)

    def _on_garbled(self, event: c.Garbled) -> None:
        kind = "the coordinator sent what is not a message"
        self._complain(kind, f"{kind}: {event.reason}")

    def _welcome(self, welcome: m.Welcome, _: Any) -> None:
        try:
            self._minor = m.agree(welcome.protocol, "the coordinator")[1]
        except RemoteProtocolError as error:
            self._tell("note", text=f"the coordinator speaks otherwise: {error.reason}")
            return
        if welcome.epoch < self._epoch_seen:
            self._tell(
                "note", text=f"an older coordinator answered: epoch {welcome.epoch}, met {self._epoch_seen} before"
            )
            return
        if welcome.epoch > self._epoch_seen:
            self._epoch_seen = welcome.epoch
            self._out.append(c.RememberEpoch(welcome.epoch))
        if self._receiver is not None and not self._epoch:
            self._receiver.resume()  # what was under way went with the old session
        self._epoch, self._hellos = welcome.epoch, 0
        if self._newest is not None and self._newest.epoch != welcome.epoch:
            self._newest = None  # it will be told again if it is still open
        if welcome.manifest_digest != self._approved and welcome.manifest_digest != self._asked:
            self._asked, self._approved = welcome.manifest_digest, ""
            self._out.append(c.Approve(welcome.manifest, welcome.manifest_digest, welcome.enrolled))
        self._step("welcome")

    def _pong(self, pong: m.Pong, _: Any) -> None:
        if self._epoch and pong.epoch != self._epoch:
            self._leave_session()
            self._hello()

    def _refused(self, refused: m.Refused, _: Any) -> None:
        self._finish(False, "", f"the coordinator refused this site: {refused.reason}")

    def _on_approved(self, event: c.Approved) -> None:
        self._approved = event.manifest_digest
        if self.job is Job.IDLE:
            self._next(None)

    def _on_denied(self, event: c.Denied) -> None:
        self._finish(False, "", event.reason)

    def _on_stop(self, event: c.Stop) -> None:
        self._finish(False, "", event.reason)

    def _on_failed(self, event: c.Failed) -> None:
        self._tell("note", text=f"could not {type(event.command).__name__}: {event.reason}; trying again")
        self._again.append((self._now + self._resend, event.command))

    # ---------------------------------------------------------------- the job

    def _step(self, what: str, given: Any = None) -> None:
        """Moves the job by the table."""
        if (self.job, what) in TABLE:
            self.job, method = TABLE[self.job, what]
            getattr(self, method)(given)

    def _opened(self, opened: m.Open, _: Any) -> None:
        place, newest = _place(opened), _place(self._newest)
        older = newest is not None and place is not None and _order(place) < _order(newest)
        if opened.epoch != self._epoch or older or (place == self._last and not self._asked_again(opened)):
            return
        self._newest = opened
        if self._approved:
            self._step("open", opened)

    def _asked_again(self, opened: m.Open) -> bool:
        """Whether a round that is over here is to be worked on: a restarted coordinator has lost what it accepted.

        The same bytes are offered again where they answer the same broadcast.
        """
        kept = self._kept
        if kept is None or _place(opened) != (kept.round, kept.phase) or self._kept_by == self._epoch:
            return False
        if self.job is not Job.IDLE:
            return False
        if opened.blob.digest != kept.broadcast:
            self._last = self._kept = None
            return True
        self._newest, self._entry, self.job = opened, kept, Job.OFFERING
        self._offer(None)
        return False

    def _fetch(self, opened: m.Open) -> None:
        before = self._open
        if self._receiver is not None and before is not None and self._goes_on(before, opened):
            self._take()
            return
        if self._receiver is None or self._receiver.blob != opened.blob:
            self._receiver = self._receive(opened, self._held)
            self._came = self._now
        self._open = opened
        self._take()

    def _goes_on(self, before: m.Open, opened: m.Open) -> bool:
        """Whether what is being fetched may be worked on although a round was opened since: a buffered one."""
        counts = not _same(opened, before) and before.phase == "train" and self._still_counts(before.round)
        return counts and not self._gone(before)

    def _gone(self, opened: m.Open) -> bool:
        """Whether a broadcast is not to be had any more: nothing of it comes, and there is a newer one."""
        return self._now - self._came > 2 * self._patience and not _same(opened, self._newest)

    def _fetch_anew(self, _: Any) -> None:
        assert self._open is not None
        self._receiver = self._receive(self._open, None)
        self._ask()

    def _receive(self, opened: m.Open, held: Held | None) -> Receiver:
        self._incoming = bytearray()
        return Receiver(
            self.study, opened.blob, patience_s=self._patience, peer="the coordinator", pieces=opened.pieces, held=held,
            at_once=_AT_ONCE,
        )  # fmt: skip

    def _ask(self) -> None:
        if self._epoch and self._receiver is not None:
            for want in self._receiver.wants(self._now):
                self._send(want)

    def _chunk(self, chunk: m.Chunk, payload: bytes | memoryview) -> None:
        if self.job is Job.FETCHING:
            self._came = self._now
            self._take(chunk, payload)

    def _take(self, chunk: m.Chunk | None = None, payload: bytes | memoryview = b"") -> None:
        """What comes next of the broadcast: with a chunk that came, or of what was here already."""
        receiver = self._receiver
        assert receiver is not None
        try:
            for part in receiver.more() if chunk is None else receiver.take(chunk, payload, self._now):
                self._incoming += part
            if receiver.complete:
                receiver.check()
        except RemoteProtocolError as error:
            kind = "the broadcast came garbled"
            self._complain(kind, f"{kind}: {error.reason}; fetching it again")
            self._step("garbled")
            return
        if receiver.complete:
            self._step("arrived")
        else:
            self._ask()

    def _work(self, _: Any) -> None:
        assert self._open is not None and self._receiver is not None
        data, self._receiver, self._incoming = memoryview(self._incoming).toreadonly(), None, bytearray()
        self._held, self._held_digest = Held(self._open.pieces, data), self._open.blob.digest
        self._tell("round_open", phase=self._open.phase)
        self._out.append(c.Work(self._open, data))

    def _on_worked(self, event: c.Worked) -> None:
        if self.job is not Job.WORKING or (event.round, event.phase) != _place(self._open):
            raise LocalProtocolError(
                f"expected work on {_place(self._open)}, got {(event.round, event.phase)} at {self.job}"
            )
        if self._newest is not None and not _same(self._newest, self._open) and not self._still_counts(event.round):
            self._tell("note", text=f"round {event.round} was closed without this site")
            self._step("stale")
        else:
            self._step("worked", event)

    def _still_counts(self, number: int) -> bool:
        """Whether the newest round takes an update of this earlier one: a buffered round says back to which."""
        newest = self._newest
        oldest = newest.fields.get("oldest") if newest is not None and newest.phase == "train" else None
        return isinstance(oldest, int) and number >= oldest

    def _on_stored(self, event: c.Stored) -> None:
        if self._held is not None and event.digest == self._held_digest:
            self._held = None if event.data is None else self._held._replace(data=event.data)

    def _write(self, worked: c.Worked) -> None:
        assert self._open is not None
        digest = hashlib.sha256(worked.data).hexdigest()
        broadcast, size = self._open.blob.digest, len(worked.data)
        about = (broadcast, digest, size, worked.schema_digest, worked.pieces.hex())
        self._entry = Entry(worked.round, worked.phase, *about)
        self._holder.hold(digest, worked.data, worked.pieces)
        self._kept = None
        self._out.append(c.WriteOutbox(self._entry, worked.data, worked.state))

    def _on_written(self, event: c.Written) -> None:
        if self._entry is not None and event.digest == self._entry.digest:
            self._step("written")

    def _offer(self, _: Any) -> None:
        entry = self._entry
        assert entry is not None
        self._moved = self._now
        if self._epoch:
            attempt = self._newest.attempt if self._newest and _place(self._newest) == (entry.round, entry.phase) else 1
            blob = m.Blob(entry.digest, entry.size, entry.schema_digest)
            about = (entry.round, entry.phase, attempt, self.site, entry.broadcast, blob, bytes.fromhex(entry.pieces))
            self._send(m.Offer(self.study, self._epoch, *about))

    def _want(self, want: m.Want, _: Any) -> None:
        for chunk, payload in self._holder.chunks(want):
            self._moved = self._now
            self._send(chunk, payload)

    def _answered(self, answer: m.Accepted | m.Rejected, _: Any) -> None:
        entry = self._entry
        if entry is None or (answer.round, answer.phase, answer.digest) != (entry.round, entry.phase, entry.digest):
            return
        if isinstance(answer, m.Accepted):
            self._step("accepted", answer)
        elif answer.final:
            self._step("rejected", answer)

    def _commit(self, accepted: m.Accepted) -> None:
        assert self._entry is not None
        self._kept_by = accepted.epoch
        self._last = (self._entry.round, self._entry.phase)
        self._out.append(c.Commit(self._entry))

    def _discard(self, rejected: m.Rejected) -> None:
        assert self._entry is not None
        self._tell("note", text=f"the update of round {self._entry.round} was refused: {rejected.reason}")
        self._out.append(c.Discard(self._entry, rejected.reason))

    def _on_settled(self, event: c.Settled) -> None:
        entry = self._entry
        if entry is not None and event.digest == entry.digest and self.job in (Job.COMMITTING, Job.DISCARDING):
            if self.job is Job.COMMITTING:
                self._kept = entry
                self._tell("site_done", round=entry.round, phase=entry.phase, bytes=entry.size)
            outdated = self._newest is not None and self._newest.blob.digest != entry.broadcast
            if self.job is Job.COMMITTING or not outdated:
                self._last = (entry.round, entry.phase)  # else its round is told again, with another broadcast
            self._entry = None
            self._step("settled")

    def _next(self, _: Any) -> None:
        """The job is over: the newest round, if it is another; else the end, if it has come."""
        if self._newest is not None and _place(self._newest) != self._last and self._approved:
            self._step("open", self._newest)
        elif self._done is not None:
            self._finish(True, self._done.weights_sha256, self._done.reason)

    def _ended(self, done: m.Done, _: Any) -> None:
        if done.epoch == self._epoch:
            self._done = done
            if self.job in (Job.IDLE, Job.FETCHING):
                self._finish(True, done.weights_sha256, done.reason)

    def _left(self, bye: m.Bye, _: Any) -> None:
        self._tell("note", text=f"the coordinator left: {bye.reason}")
        self._leave_session()
        self._said, self._hellos = self._now, 1


def _place(opened: m.Open | None) -> tuple[int, str] | None:
    return None if opened is None else (opened.round, opened.phase)


def _same(one: m.Open, other: m.Open | None) -> bool:
    return other is not None and (_place(one), one.blob.digest) == (_place(other), other.blob.digest)


def _order(place: tuple[int, str]) -> tuple[int, int]:
    return place[0], m.PHASES.index(place[1])


_EVENTS: dict[type, Callable[[SiteKeeper, Any], None]] = {
    c.Connected: SiteKeeper._on_connected,
    c.Tick: SiteKeeper._on_tick,
    c.Heard: SiteKeeper._on_heard,
    c.Garbled: SiteKeeper._on_garbled,
    c.Failed: SiteKeeper._on_failed,
    c.Worked: SiteKeeper._on_worked,
    c.Stored: SiteKeeper._on_stored,
    c.Written: SiteKeeper._on_written,
    c.Settled: SiteKeeper._on_settled,
    c.Approved: SiteKeeper._on_approved,
    c.Denied: SiteKeeper._on_denied,
    c.Stop: SiteKeeper._on_stop,
}
_MESSAGES: dict[type, Callable[[SiteKeeper, Any, Any], None]] = {
    m.Welcome: SiteKeeper._welcome,
    m.Refused: SiteKeeper._refused,
    m.Open: SiteKeeper._opened,
    m.Want: SiteKeeper._want,
    m.Chunk: SiteKeeper._chunk,
    m.Accepted: SiteKeeper._answered,
    m.Rejected: SiteKeeper._answered,
    m.Done: SiteKeeper._ended,
    m.Pong: SiteKeeper._pong,
    m.Bye: SiteKeeper._left,
}
