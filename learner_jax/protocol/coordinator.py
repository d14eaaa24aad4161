"""The coordinator's machine: it keeps the account of a round. No socket, clock, disk or jax.

Theory of operation. A round is opened by the engine, journaled, and told to the sites of its cohort that are there; a
site that comes (back) while it is open is told too, and so is one whose ping shows that it has not heard: an offer of
such a site is from before it was started again, maybe without its disk, and is not waited for. Each site of the cohort
has a *part* in the round, which moves by the table below: it offers an update, the coordinator fetches it when there is
room, checks it, spools it, journals it, and only then acknowledges it. So what is acknowledged survives any crash, and
what is journaled is counted once: the journal is unique in (round, phase, site).

                 offer            room          arrived       valid          spooled          journaled
        ASKED ---------> QUEUED -------> FETCHING ----> CHECKING ----> SPOOLING ----> JOURNALING ------> ACCEPTED
          |  misfit                                         | invalid
          +--------------> REFUSED <------------------------+

Bytes go to the disk as they come, not through memory. Those that are not the ones announced are fetched again; the
third time the site is told, and may offer them later. What the disk does not take is fetched again after a while.

A site that was refused is asked again in the same round when its process was started again: its administrator may have
mended what was wrong.

A round closes when every part is settled (accepted or refused), or at the deadline, but never with fewer accepted than
the quorum: then it waits on and says for whom. Closing freezes the accepted list, in site-id order, in the journal;
a part that is being journaled at that moment is waited for, since its row may be on disk already. What comes later is
refused with a reason: late, stale epoch, not asked, another update. An offer of what was accepted is acknowledged
again, also long after: the first acknowledgement may have been lost. What was accepted and then lost on this disk is
asked for again; without it the round does not close, since its site has gone on from it. An offer of a later round than
the open one is of a future that this coordinator has lost: it was restored from a backup.

A site is *there* while its lease lasts; every message renews it. A lost site is said, and waited for until the
deadline. A site whose process was started again within its lease was lost and is back: its Hello names another
incarnation, and both are said, once; a Hello of the same incarnation is one that was sent again, or of a new line.

A *buffered* round (FedBuff: Nguyen et al., AISTATS 2022) closes as soon as so many updates are accepted, and takes
those that were computed from an earlier broadcast as well, back to an oldest one: the engine weighs them less. Who is
still at work is not lost, and what is on its way goes on into the next round. A site counts once in a round: its next
update is put off to the next. An update's own round, its *origin*, is in the journal beside the round that it counts
in; what is said to the site names its origin.

What a site does wrong is said once a minute with a count, and a site that comes and goes all the time is said to be
lost and back so often a minute: no peer can fill the log. Nor can one keep the line busy by asking: chunks are handed
out at a limited rate a site.
"""

from __future__ import annotations

import enum
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from learner_jax import events
from learner_jax.errors import LocalProtocolError, RemoteProtocolError
from learner_jax.leaves import Bytes, fitting, site_id
from learner_jax.protocol import commands as c
from learner_jax.protocol import messages as m
from learner_jax.protocol import rows, transfers
from learner_jax.protocol.broker import Meter
from learner_jax.protocol.complaints import EVERY_S, Complaints
from learner_jax.protocol.transfers import Held, Holder, Receiver


class Part(enum.Enum):
    """How far a site is in the open round."""

    __hash__ = object.__hash__  # each is one object; by its name takes much longer, and tables are asked all the time

    ASKED = enum.auto()
    QUEUED = enum.auto()
    FETCHING = enum.auto()
    CHECKING = enum.auto()
    SPOOLING = enum.auto()
    JOURNALING = enum.auto()
    ACCEPTED = enum.auto()
    REFUSED = enum.auto()


# (part, what happened) -> (part, method). What is not here is out of its time, and ignored.
TABLE: Mapping[tuple[Part, str], tuple[Part, str]] = {
    (Part.ASKED, "offer"): (Part.QUEUED, "_begin"),
    (Part.QUEUED, "offer"): (Part.QUEUED, "_begin"),
    (Part.FETCHING, "offer"): (Part.FETCHING, "_begin"),
    (Part.ASKED, "misfit"): (Part.REFUSED, "_refuse"),
    (Part.QUEUED, "misfit"): (Part.REFUSED, "_refuse"),
    (Part.FETCHING, "misfit"): (Part.REFUSED, "_refuse"),
    (Part.QUEUED, "room"): (Part.FETCHING, "_fetch"),
    (Part.FETCHING, "stalled"): (Part.QUEUED, "_nothing"),
    (Part.FETCHING, "gone"): (Part.ASKED, "_nothing"),
    (Part.QUEUED, "gone"): (Part.ASKED, "_nothing"),
    (Part.FETCHING, "unaware"): (Part.ASKED, "_nothing"),
    (Part.QUEUED, "unaware"): (Part.ASKED, "_nothing"),
    (Part.FETCHING, "arrived"): (Part.CHECKING, "_check"),
    (Part.FETCHING, "garbled"): (Part.FETCHING, "_fetch_anew"),
    (Part.FETCHING, "spoilt"): (Part.ASKED, "_put_off"),
    (Part.FETCHING, "unwritten"): (Part.QUEUED, "_wait"),
    (Part.CHECKING, "unwritten"): (Part.QUEUED, "_wait"),
    (Part.SPOOLING, "unwritten"): (Part.QUEUED, "_wait"),
    (Part.CHECKING, "valid"): (Part.SPOOLING, "_spool"),
    (Part.CHECKING, "invalid"): (Part.REFUSED, "_refuse"),
    (Part.SPOOLING, "spooled"): (Part.JOURNALING, "_journal"),
    (Part.JOURNALING, "journaled"): (Part.ACCEPTED, "_accept"),
    (Part.CHECKING, "offer"): (Part.CHECKING, "_busy"),
    (Part.SPOOLING, "offer"): (Part.SPOOLING, "_busy"),
    (Part.JOURNALING, "offer"): (Part.JOURNALING, "_busy"),
    (Part.REFUSED, "offer"): (Part.REFUSED, "_refuse_again"),
    (Part.ACCEPTED, "offer"): (Part.ACCEPTED, "_next_time"),
    (Part.ASKED, "revoked"): (Part.REFUSED, "_nothing"),
    (Part.CHECKING, "revoked"): (Part.REFUSED, "_nothing"),
    (Part.SPOOLING, "revoked"): (Part.REFUSED, "_nothing"),
    (Part.REFUSED, "enlisted"): (Part.ASKED, "_nothing"),
    (Part.REFUSED, "anew"): (Part.ASKED, "_nothing"),
}
_SETTLED = frozenset((Part.ACCEPTED, Part.REFUSED))
_TRIES = 3
_UNKNOWN = "it is not on the roster"
_REVOKED = "it was taken off the roster"
_SAYINGS = 10
"""How often a minute a site is said to be lost or back."""
_CHUNKS = 2000.0, 4000.0
"""Chunks a second for one site, and at once: 16 Gbit/s."""
_OTHERS = 0.5, 16.0
"""Offers of one site a second, and at once, in place of one that is on its way: each begins anew."""
_ZIPS = 200.0, 400.0
"""Chunks that are compressed a second, and at once, for all sites: on lines that are faster they go as they are."""
_TURNS = 2.0, 64.0
"""Times a second, and at once, that a site may say that it has other pieces than before: it does so once a blob."""
_BUFFERED = 3
"""Broadcasts that may be fetched in buffered rounds."""
_REMEMBERED = 128
"""Accepted updates of one site that are acknowledged again."""
_UNDER_WAY = (Part.QUEUED, Part.FETCHING, Part.CHECKING, Part.SPOOLING)


@dataclass
class _Share:
    """One site's part in the open round, and what goes with it."""

    part: Part = Part.ASKED
    offer: m.Offer | None = None
    receiver: Receiver | None = None
    moved: float = 0.0  # when a chunk last came
    reason: str = ""  # why refused
    digest: str = ""  # what is accepted
    data: Bytes | None = None  # and where it lies
    garbled: int = 0  # how often its bytes were not those announced
    later: float = 0.0  # until when the disk is left alone


@dataclass
class _Round:
    """The open round. state: opening (being journaled), open, freezing (its list is being journaled)."""

    start: c.StartRound
    blob: m.Blob
    shares: dict[str, _Share]
    state: str = "opening"
    deadline: float = float("inf")
    frozen: rows.Closed | None = None
    told_waiting: float = float("-inf")

    @property
    def place(self) -> tuple[int, str]:
        return self.start.round, self.start.phase

    def within(self, *parts: Part) -> list[str]:
        return [site for site, share in self.shares.items() if share.part in parts]


@dataclass
class _Session:
    """A site that said Hello. seen: when it was last heard; here: its lease lasts and it has not left.

    incarnation: of the process that said the last Hello, "" if it did not say.
    said: whether it was last said to be there; sayings: when that was, for the last few times.
    """

    seen: float
    here: bool = True
    protocol: tuple[int, int] = m.PROTOCOL
    incarnation: str = ""
    said: bool = True
    sayings: list[float] = field(default_factory=list)
    reason: str = ""  # why it is not there


class RoundKeeper:
    """One study's account of rounds.

    Args:
      study: its name.
      epoch: this incarnation, from the journal.
      manifest: canonical JSON of the study; manifest_digest: over what it means.
      enrolled: names of the sites on the roster.
      closed: (round, phase) of all closed rounds, from the journal.
      accepted: (round, phase, site) -> digest of all accepted updates, from the journal; by the round of their origin.
      broadcasts: (round, phase) -> sha256 of what was sent in each round, from the journal.
      lease_s: after this silence a site is lost.
      retry_s: after which a failed command is asked for again, and who is waited for is said again (tenfold).
      patience_s: after this long without any chunk, those under way are asked for again.
      upload_bytes: on their way here at a time, a window an update at most; one update is always let in.
      size_limit: bytes of an update whose size is not known beforehand.
      kept: site -> its newest accepted update, where it still lies here.
      parts: (site, digest) -> what had come of an update when an earlier process ended.
      invited: how many sites the study has, of which some may not have enrolled yet.
      buffered: the study's rounds are: an update of an earlier one may count in the first that is opened here.
    """

    def __init__(
        self,
        study: str,
        epoch: int,
        manifest: bytes,
        manifest_digest: str,
        enrolled: Iterable[str],
        closed: Iterable[tuple[int, str]] = (),
        accepted: Mapping[tuple[int, str, str], str] | None = None,
        lease_s: float = 15.0,
        retry_s: float = 3.0,
        patience_s: float = 10.0,
        upload_bytes: int = 128 * 2**20,
        size_limit: int = 4 * 2**30,
        kept: Mapping[str, Held] | None = None,
        broadcasts: Mapping[tuple[int, str], str] | None = None,
        parts: Mapping[tuple[str, str], Bytes] | None = None,
        buffered: bool = False,
        invited: int = 0,
    ):
        self._invited = invited
        self.study, self.epoch = m.check_name(study, "a study's name"), epoch
        self._manifest, self._manifest_digest = manifest, manifest_digest
        self._enrolled = tuple(enrolled)
        self._closed = max(map(_order, closed), default=(-1, 0))  # rounds are closed in their order
        self._accepted: dict[tuple[int, str, str], str] = {}
        self._remembered: dict[str, deque[tuple[int, str, str]]] = {}
        for (number, phase, site), digest in (accepted or {}).items():
            self._remember((number, phase), site, digest)
        self._lease, self._retry, self._patience = lease_s, retry_s, patience_s
        self._room, self._limit = upload_bytes, size_limit
        self._sessions: dict[str, _Session] = {}
        self._newer: dict[str, int] = {}  # sites that say that they have met a newer coordinator, and its epoch
        self._forgotten: set[str] = set()
        self._round: _Round | None = None
        self._holder, self._kept = Holder(keep=1), dict(kept or {})
        self._broadcasts, self._parts = dict(broadcasts or {}), dict(parts or {})
        self._may_buffer = self._buffered = buffered  # the study's rounds are; the last one was
        self._final: dict[tuple[int, str, str], tuple[str, str]] = {}  # refused for good in buffered rounds, and why
        self._views: dict[str, bytes] = {}  # which pieces a site last said that it has
        self._turns, self._others, self._zips = Meter(*_TURNS), Meter(*_OTHERS), Meter(*_ZIPS)
        self._under_way: dict[str, _Share] = {}  # of a buffered round, into the next
        self._complaints, self._chunks = Complaints(), Meter(*_CHUNKS)
        self._again: list[tuple[float, c.Command]] = []
        self._done: m.Done | None = None
        self._drained = self._fenced = self._changed = False
        self._out: list[c.Command] = []
        self._now = 0.0

    # ---------------------------------------------------------------- the one door

    def handle(self, event: c.Event, now: float) -> list[c.Command]:
        """Takes one event, gives back what is to be done.

        Args:
          event: see `commands`.
          now: seconds on a clock that only goes forward.

        Raises:
          LocalProtocolError: an engine's event that makes no sense here: a bug of ours. A peer never causes one.
        """
        self._now, self._out = now, []
        if not self._fenced:
            _EVENTS[type(event)](self, event)
            if self._changed:  # these look at all sites, and most messages change no part
                self._changed = False
                self._make_room()
                self._maybe_close()
            if self._done is not None and not self._drained and not self.here():
                self._drained = True
                self._out.append(c.Drained())
        return self._out

    def _remember(self, place: tuple[int, str], site: str, digest: str) -> None:
        """Accepted, to be acknowledged again: of each site the last many, since it offers one after another."""
        of_site = self._remembered.setdefault(site, deque())
        if (*place, site) not in self._accepted:
            of_site.append((*place, site))
        self._accepted[(*place, site)] = digest
        while len(of_site) > _REMEMBERED:
            self._accepted.pop(of_site.popleft(), None)

    def here(self) -> tuple[str, ...]:
        """Names of the sites that are there."""
        return tuple(site for site, session in self._sessions.items() if session.here)

    def _send(self, site: str, message: m.Message, payload: bytes | memoryview = b"") -> None:
        session = self._sessions.get(site)
        minor = session.protocol[1] if session else 0  # nothing was agreed with it yet
        if self._buffered and isinstance(message, m.Rejected) and message.final:
            self._refused_for_good(site, message)
        self._out.append(c.Send(site, message, payload, minor))

    def _refused_for_good(self, site: str, said: m.Rejected) -> None:
        """Its site drops it, so no later round may count these very bytes; one of a round to come may be made again."""
        if (said.round, said.phase) in self._broadcasts:
            self._final[said.round, said.phase, site] = said.digest, said.reason

    def _tell(self, kind: str, site: str | None = None, **data: Any) -> None:
        number = self._round.start.round if self._round else None
        self._out.append(c.Tell(events.Event(kind, self.study, number, site, data)))

    def _complain(self, site: str, kind: str, text: str) -> None:
        """Says what a site does wrong, if it was not said just before."""
        if self._complaints.first(site, kind, self._now):
            self._tell("note", site, text=text)

    # ---------------------------------------------------------------- the engine

    def _on_start(self, event: c.StartRound) -> None:
        place = (event.round, event.phase)
        if self._round is not None or self._done or _order(place) <= self._closed:
            raise LocalProtocolError(f"expected to open a round after {self._closed}, with none open, got {place}")
        if event.buffer and not self._may_buffer:  # what was refused for good before it would count in it
            raise LocalProtocolError("expected no buffer in a study whose rounds are not buffered")
        asked = len(event.cohort)
        if not asked or not 0 <= event.quorum <= asked or not set(event.accepted) <= set(event.cohort):
            text = f"expected a cohort, and a quorum within it, got {event.quorum} of {event.cohort}"
            raise LocalProtocolError(text)
        digest = event.digest or hashlib.sha256(event.data[:]).hexdigest()
        blob = m.Blob(digest, len(event.data), event.schema_digest)
        between = self._may_buffer and event.phase == "enter"  # of buffered rounds: what is on its way goes on after it
        if not between:
            kept = self._final.items() if event.buffer else ()
            self._final = {about: why for about, why in kept if about[0] >= event.oldest}
        self._holder.keep = _BUFFERED if event.buffer or between else 1  # who is slow is still fetching an earlier one
        self._holder.hold(blob.digest, event.data, event.pieces)
        shares = {site: _Share(moved=self._now) for site in sorted(event.cohort, key=site_id)}
        for site in set(event.cohort) - set(self._enrolled):
            shares[site] = _Share(Part.REFUSED, reason=_UNKNOWN)
        for site, digest in event.accepted.items():
            shares[site] = _Share(Part.ACCEPTED, digest=digest)
            if not event.buffer:
                self._remember(place, site, digest)
        for site in event.again:
            self._accepted.pop((*place, site), None)
        self._buffered, self._broadcasts[place] = bool(event.buffer) or (between and self._buffered), blob.digest
        if not between:
            for older in list(self._broadcasts)[: -event.round + event.oldest - 8 if event.buffer else -8]:
                del self._broadcasts[older]
        self._round = _Round(event, blob, shares)
        self._without_the_forgotten(self._round)
        if not between:
            self._go_on_with(self._round)
        self._out.append(c.WriteRow(rows.Opened(*place, event.attempt, self.epoch, tuple(event.cohort), blob.digest)))

    def _go_on_with(self, open_round: _Round) -> None:
        """What was on its way when a buffered round closed goes into the next; there is none after the last."""
        for site, before in self._under_way.items():
            assert before.offer is not None
            place, digest = (before.offer.round, before.offer.phase), before.offer.blob.digest
            share = open_round.shares.get(site)
            if not open_round.start.buffer:
                reason = "late: the round was closed without it"
                self._send(site, m.Rejected(self.study, self.epoch, *place, digest, True, reason))
            elif (
                share is not None
                and share.part is Part.ASKED
                and before.offer.round >= open_round.start.oldest
                and site in self.here()
            ):
                share.part, share.offer, share.garbled = Part.QUEUED, before.offer, before.garbled
                share.receiver = before.receiver
        self._under_way = {}

    def _on_journaled(self, event: c.Journaled) -> None:
        row, open_round, self._changed = event.row, self._round, True
        if open_round is None or (row.round, getattr(row, "phase", "")) != open_round.place:
            return
        if isinstance(row, rows.Opened) and open_round.state == "opening":
            open_round.state, open_round.deadline = "open", self._now + open_round.start.deadline_s
            self._tell("round_open", phase=row.phase, sites=list(row.cohort), attempt=row.attempt)
            for site in self.here():
                self._tell_open(site)
        elif isinstance(row, rows.Accepted):
            self._step(row.site, "journaled", row.digest)
        elif isinstance(row, rows.Closed) and row == open_round.frozen:
            self._close(row)

    def _on_checked(self, event: c.Valid | c.Invalid | c.Spooled) -> None:
        open_round = self._round
        if open_round is None or not self._is_of(event):
            return
        if isinstance(event, c.Invalid):
            open_round.shares[event.site].reason = event.reason
        elif isinstance(event, c.Spooled):
            open_round.shares[event.site].data = event.data
        self._step(event.site, type(event).__name__.lower())

    def _is_of(self, about: c.Valid | c.Invalid | c.Spooled | c.Append | c.Validate | c.Spool) -> bool:
        """Whether this is about the update that a site has offered in the open round."""
        open_round = self._round
        if open_round is None or (about.round, about.phase) != open_round.place or open_round.state != "open":
            return False
        share = open_round.shares.get(about.site)
        return share is not None and share.offer is not None and share.offer.blob.digest == about.digest

    def _on_failed(self, event: c.Failed) -> None:
        command = event.command
        of_update = isinstance(command, c.Append | c.Validate | c.Spool)
        if of_update and not self._is_written(command):
            return  # its bytes are given up already, which was said
        self._tell("note", text=f"could not {_verb(command)}: {event.reason}; trying again")
        if of_update:  # a disk that refused may have lost what it took before: all of it again
            self._step(command.site, "unwritten")
        else:
            self._again.append((self._now + self._retry, command))

    def _is_written(self, about: c.Append | c.Validate | c.Spool) -> bool:
        """Whether the bytes of this update are on their way to the disk, or wait there."""
        return self._is_of(about) and (self._round.shares[about.site].part, "unwritten") in TABLE  # type: ignore[union-attr]

    def _on_finish(self, event: c.Finish) -> None:
        if self._round is not None:
            raise LocalProtocolError(f"expected to finish with no round open, got one: {self._round.place}")
        self._done = m.Done(self.study, self.epoch, event.weights_sha256, event.reason)
        for site in self.here():
            self._send(site, self._done)

    def _on_enlist(self, event: c.Enlist) -> None:
        self._forgotten.discard(event.site)
        if event.site not in self._enrolled:
            self._enrolled = (*self._enrolled, event.site)
        share = self._round.shares.get(event.site) if self._round else None
        if share is not None and share.reason in (_UNKNOWN, _REVOKED):
            share.offer, share.receiver, share.reason = None, None, ""
            self._step(event.site, "enlisted")

    def _on_forget(self, event: c.Forget) -> None:
        self._enrolled = tuple(site for site in self._enrolled if site != event.site)
        self._under_way.pop(event.site, None)
        self._gone(event.site, _REVOKED)
        self._step(event.site, "gone")  # also of who was gone before
        share = self._round.shares.get(event.site) if self._round else None
        if share is not None and (share.part, "revoked") in TABLE:
            share.reason = _REVOKED
        self._step(event.site, "revoked")
        self._sessions.pop(event.site, None)
        self._newer.pop(event.site, None)
        self._forgotten.add(event.site)
        if self._round is not None:
            self._without_the_forgotten(self._round)

    def _without_the_forgotten(self, open_round: _Round) -> None:
        """The round needs no more sites than there are that can still answer: it goes on with the others."""
        counts = (Part.JOURNALING, Part.ACCEPTED)
        able = sum(site not in self._forgotten or share.part in counts for site, share in open_round.shares.items())
        start = open_round.start
        again = {site: digest for site, digest in start.again.items() if site not in self._forgotten}
        fewer = {"quorum": min(start.quorum, max(1, able)), "buffer": min(start.buffer, max(1, able)), "again": again}
        open_round.start, self._changed = start._replace(**fewer), True

    def _on_tick(self, _: c.Tick) -> None:
        self._changed = True
        for site, session in self._sessions.items():
            if session.here and self._now - session.seen > self._lease:
                self._gone(site, f"not heard from for {self._lease:.0f} s")
            self._say(site, session)
        for site, kind, more in self._complaints.due(self._now):
            self._tell("note", site, text=f"{kind}: {more} more times within {EVERY_S:.0f} s", times=more)
        due = [command for at, command in self._again if at <= self._now]
        self._again = [(at, command) for at, command in self._again if at > self._now]
        self._out += due
        if self._round is not None and self._round.state == "open":
            for site in self._round.within(Part.FETCHING):
                share = self._round.shares[site]
                if self._now - share.moved > self._lease:
                    self._step(site, "stalled")
                else:
                    self._take(site, share)

    # ---------------------------------------------------------------- the sites

    def _on_heard(self, event: c.Heard) -> None:
        message, site = event.message, event.site
        if message.study != self.study or site not in self._enrolled:
            self._send(site, m.Refused(self.study, f"expected a site of study '{self.study}', got '{site}'"))
            return
        if isinstance(message, m.Hello):
            self._hello(site, message)
            return
        session = self._sessions.get(site)
        if session is None:
            self._send(site, m.Pong(self.study, 0))  # epoch 0 is nobody's: the site says Hello again
            return
        if isinstance(message, m.Bye):
            self._gone(site, message.reason or "it left")
            return
        self._back(site, session)
        handler = _MESSAGES.get(type(message))
        if handler is None:
            name = type(message).__name__
            self._complain(site, "sent what sites do not send", f"sent a {name}, which sites do not send")
        else:
            handler(self, site, message, event.payload)

    def _on_garbled(self, event: c.Garbled) -> None:
        self._complain(event.site, event.kind, f"{event.kind}: {event.reason}")

    def _hello(self, site: str, hello: m.Hello) -> None:
        try:
            protocol = m.agree(hello.protocol, site)
        except RemoteProtocolError as error:
            self._send(site, m.Refused(self.study, error.reason))
            return
        if hello.site != site:
            self._send(site, m.Refused(self.study, f"expected '{site}', whose key this is, got '{hello.site}'"))
            return
        if hello.epoch_seen > self.epoch:
            self._met_a_newer_one(site, hello.epoch_seen, protocol)
            return
        self._newer.pop(site, None)
        session = self._sessions.get(site)
        if session is None:
            self._sessions[site] = session = _Session(self._now)
            self._tell("site_back", site, first=True, software=hello.software)
        if session.incarnation and hello.incarnation not in ("", session.incarnation):
            self._gone(site, "its process was started again")
            self._ask_anew(site)
        session.protocol, session.incarnation = protocol, hello.incarnation or session.incarnation
        self._back(site, session)
        welcome = (protocol, self.epoch, self._manifest, self._manifest_digest, self._enrolled)
        self._send(site, m.Welcome(self.study, *welcome))
        if self._done is not None:
            self._send(site, self._done)
        share = self._round.shares.get(site) if self._round else None
        if share is not None and share.receiver is not None:
            share.receiver.resume()  # what was under way went with the old line
        self._tell_open(site)

    def _ask_anew(self, site: str) -> None:
        """A site whose update was refused was started again: what was wrong there may have been mended."""
        share = self._round.shares.get(site) if self._round else None
        if share is not None and share.part is Part.REFUSED and share.reason not in (_UNKNOWN, _REVOKED):
            share.offer, share.receiver, share.reason = None, None, ""
            self._step(site, "anew")

    def _met_a_newer_one(self, site: str, epoch: int, protocol: tuple[int, int]) -> None:
        """A site says that it has met a coordinator that is newer than this one, and takes no part here. One site may
        say what it likes; that most of them do is what stops this coordinator."""
        self._newer[site] = epoch
        self._gone(site, f"it has met a newer coordinator (epoch {epoch})")
        self._sessions.pop(site, None)  # whatever it sends next, it says Hello first
        if 2 * len(self._newer) > max(len(self._enrolled), self._invited - len(self._forgotten)):
            self._fenced = True
            self._out.append(c.Fenced(max(self._newer.values())))
            return
        kind = "says that it has met a newer coordinator of this study, and takes no part here"
        text = f"{kind} (epoch {epoch}, this is {self.epoch}): stop this one if another runs, else revoke the site"
        self._complain(site, kind, text)
        welcome = (protocol, self.epoch, self._manifest, self._manifest_digest, self._enrolled)
        self._send(site, m.Welcome(self.study, *welcome))

    def _back(self, site: str, session: _Session) -> None:
        session.seen, session.here = self._now, True
        self._say(site, session)

    def _gone(self, site: str, reason: str) -> None:
        session = self._sessions.get(site)
        if session is None or not session.here:
            return
        session.here, session.reason = False, reason
        self._step(site, "gone")
        self._say(site, session)

    def _say(self, site: str, session: _Session) -> None:
        """Says that a site is lost, or back, if that is news; not too often, and then at a later tick."""
        if session.here == session.said or (not session.here and self._done is not None):
            return
        session.sayings = [at for at in session.sayings if self._now - at < EVERY_S]
        if len(session.sayings) >= _SAYINGS:
            return
        session.sayings.append(self._now)
        session.said = session.here
        if session.here:
            self._tell("site_back", site, first=False)
        else:
            self._tell("site_lost", site, reason=session.reason)

    def _tell_open(self, site: str) -> None:
        open_round = self._round
        if open_round is None or open_round.state != "open":
            return
        share = open_round.shares.get(site)
        if share is not None and share.part not in _SETTLED and self._can_be_told(site, open_round.start.phase):
            start = open_round.start
            counts = (start.attempt, len(start.cohort), start.enrolled or len(self._enrolled))
            what = (open_round.blob, dict(start.fields), start.pieces)
            self._send(site, m.Open(self.study, self.epoch, *open_round.place, *counts, *what))

    def _can_be_told(self, site: str, phase: str) -> bool:
        """Whether a site's software knows such a phase; said where it does not."""
        if self._knows(site, phase):
            return True
        kind = "its software knows less than this study asks"
        older, needed = self._sessions[site].protocol, (m.PROTOCOL[0], m.PHASES_SINCE[phase])
        text = f"{kind}: expected protocol {needed[0]}.{needed[1]}, which has the phase '{phase}', got "
        self._complain(site, kind, f"{text}{older[0]}.{older[1]}: install this learner-jax there")
        return False

    def _knows(self, site: str, phase: str) -> bool:
        return self._sessions[site].protocol[1] >= m.PHASES_SINCE.get(phase, 0)

    def _ping(self, site: str, ping: m.Ping, _: Any) -> None:
        self._send(site, m.Pong(self.study, self.epoch))
        if self._done is not None:
            self._send(site, self._done)
        if self._round is not None and (ping.round, ping.phase) != self._round.place:
            share = self._round.shares.get(site)
            if share is None or share.offer is None or (share.offer.round, share.offer.phase) == self._round.place:
                self._step(site, "unaware")  # an offer of an earlier round is of a site that needs not know of this one
            if share is not None and share.part is Part.ASKED:
                self._tell_open(site)

    def _want(self, site: str, want: m.Want, _: Any) -> None:
        if self._views.get(site, b"") != want.have and not self._turns.allow(site, self._now):
            return  # another view each time would cost more here than there
        self._views[site] = want.have
        for place in self._holder.places(want):
            if not self._chunks.allow(site, self._now):
                return
            if want.zip and not self._zips.allow("", self._now):
                want = want._replace(zip="")
            self._send(site, *self._holder.chunk(want, place))

    def _offered(self, site: str, offer: m.Offer, _: Any) -> None:
        place, digest = (offer.round, offer.phase), offer.blob.digest
        accepted = self._accepted.get((*place, site))
        final, reason = True, ""
        if offer.site != site:
            reason = f"expected an update of '{site}', whose key this is, got one of '{offer.site}'"
        elif offer.epoch != self.epoch:
            final, reason = False, f"stale epoch: expected {self.epoch}, got {offer.epoch}"
        elif accepted == digest:
            self._send(site, m.Accepted(self.study, self.epoch, *place, digest))
            return
        elif accepted is not None:
            reason = f"another update of this site was accepted in this round: {accepted[:12]}"
        elif self._final.get((*place, site), ("", ""))[0] == digest:
            reason = self._final[*place, site][1]
        elif self._too_old(place):
            reason = f"too stale: expected an update of round {self._round.start.oldest} or later"  # type: ignore[union-attr]
        elif self._between() and place[1] == "train":
            final, reason = False, "between two rounds: it may count in the next"
        elif _order(place) <= self._closed and not self._takes(place):
            reason = "late: the round was closed without it"
        elif self._round is not None and _order(place) > _order(self._round.place):
            reason = f"it is of a later round than {self._round.start.round}, where this coordinator, restored, goes on"
        elif self._round is None or not self._takes(place) or self._round.state == "opening":
            final, reason = False, "this round is not open"
        elif self._round.start.again.get(site, digest) != digest:
            reason = f"another update of this site was accepted in this round: {self._round.start.again[site][:12]}"
        elif site not in self._round.shares:
            reason = "this site was not asked in this round"
        elif offer.broadcast != self._broadcasts.get(place):
            expected = self._broadcasts.get(place, "none")
            reason = f"computed from another broadcast: expected {expected[:12]}, got {offer.broadcast[:12]}"
        elif self._replaces(site, offer) and not self._others.allow(site, self._now):
            final, reason = False, "one update after the other was offered: expected one, until it has come"
        if reason:
            self._send(site, m.Rejected(self.study, self.epoch, *place, digest, final, reason))
        elif self._round is not None and self._round.state == "open":
            self._count_in(site, offer, self._round)

    def _replaces(self, site: str, offer: m.Offer) -> bool:
        """Whether it is another update than the one of this site that is on its way."""
        share = self._round.shares.get(site) if self._round else None
        return share is not None and share.offer is not None and share.offer.blob.digest != offer.blob.digest

    def _takes(self, place: tuple[int, str]) -> bool:
        """Whether the open round, or the next one, takes updates of this place."""
        if self._round is None:
            return self._buffered and place[1] == "train" and self._done is None
        start = self._round.start
        return place == self._round.place or (
            start.buffer > 0 and place[1] == start.phase and start.oldest <= place[0] < start.round
        )

    def _between(self) -> bool:
        """Whether newcomers are asked to prepare, between two buffered rounds."""
        return self._may_buffer and self._round is not None and self._round.start.phase == "enter"

    def _too_old(self, place: tuple[int, str]) -> bool:
        start = self._round.start if self._round else None
        return start is not None and start.buffer > 0 and place[1] == start.phase and place[0] < start.oldest

    def _count_in(self, site: str, offer: m.Offer, open_round: _Round) -> None:
        start, share, blob = open_round.start, open_round.shares[site], offer.blob
        size = blob.size if start.update_size is None else start.update_size
        early = share.part in (Part.ASKED, Part.QUEUED, Part.FETCHING)
        if early and (blob.schema_digest != start.update_schema or blob.size != size):
            share.offer, share.reason = (
                offer,
                f"expected an update of {size} bytes in this round's schema, got {blob.size}",
            )
            self._step(site, "misfit")
        elif early and size > self._limit:
            share.offer, share.reason = offer, f"expected an update of at most {self._limit} bytes, got {size}"
            self._step(site, "misfit")
        else:
            self._step(site, "offer", offer)

    def _chunk(self, site: str, chunk: m.Chunk, payload: bytes | memoryview) -> None:
        is_open = self._round is not None and self._round.state == "open"
        shares = self._under_way if self._round is None or site in self._under_way else self._round.shares
        share = shares.get(site)
        if share is None or share.receiver is None:
            return
        under_way = not is_open or shares is self._under_way
        if not under_way and share.part is Part.FETCHING:
            self._take(site, share, chunk, payload)
        elif self._buffered and under_way and share.part in (Part.FETCHING, Part.QUEUED):
            self._take_meanwhile(site, share, chunk, payload)

    def _take_meanwhile(self, site: str, share: _Share, chunk: m.Chunk, payload: bytes | memoryview) -> None:
        """While a buffered round closes and the next is not yet open, what is on its way goes on."""
        receiver = share.receiver
        assert receiver is not None
        offset = receiver.handed
        try:
            for part in receiver.take(chunk, payload, self._now):
                self._append(site, share, offset, part)
                offset += len(part)
            for want in receiver.wants(self._now):
                self._send(site, want)
        except RemoteProtocolError:
            share.receiver = None  # it will be fetched anew

    def _take(self, site: str, share: _Share, chunk: m.Chunk | None = None, payload: bytes | memoryview = b"") -> None:
        """Hands on what comes next of an update: with a chunk that came, or of what was here already."""
        receiver = share.receiver
        assert receiver is not None
        offset, before = receiver.handed, receiver.received
        try:
            for part in receiver.more() if chunk is None else receiver.take(chunk, payload, self._now):
                self._append(site, share, offset, part)
                offset += len(part)
            if receiver.received > before:
                share.moved = self._now
            if receiver.complete:
                receiver.check()
        except RemoteProtocolError as error:
            share.reason, share.garbled = error.reason, share.garbled + 1
            self._step(site, "garbled" if share.garbled < _TRIES else "spoilt")
            return
        if receiver.complete:
            self._step(site, "arrived")
        else:
            self._ask(site)

    # ---------------------------------------------------------------- a site's part in the round

    def _step(self, site: str, what: str, given: Any = None) -> None:
        """Moves one part by the table."""
        share = self._round.shares.get(site) if self._round else None
        if share is None or (share.part, what) not in TABLE:
            return
        share.part, method = TABLE[share.part, what]
        self._changed = True
        getattr(self, method)(site, share, given)

    def _nothing(self, site: str, share: _Share, _: Any) -> None:
        pass

    def _begin(self, site: str, share: _Share, offer: m.Offer) -> None:
        """A first offer, or one again: what came already of the same bytes is kept."""
        if share.offer is None or share.offer.blob != offer.blob:
            share.receiver = None
        share.offer = offer
        if share.part is Part.FETCHING:
            self._fetch(site, share, None)

    def _fetch(self, site: str, share: _Share, _: Any) -> None:
        assert share.offer is not None
        share.moved = self._now
        if share.receiver is None:
            offer = share.offer
            held = None if share.garbled else self._held(site, offer)
            share.receiver = Receiver(
                self.study, offer.blob, patience_s=self._patience, peer=site, pieces=offer.pieces, held=held
            )
        if not share.offer.blob.size:
            self._append(site, share, 0, b"")
        self._take(site, share)

    def _held(self, site: str, offer: m.Offer) -> Held | None:
        """What is here of the same bytes: some of this very update, from before a restart, or the site's last one."""
        data = self._parts.pop((site, offer.blob.digest), None)
        there = b"" if data is None else fitting(offer.pieces, data)
        return Held(there, data) if there and data is not None else self._kept.get(site)

    def _fetch_anew(self, site: str, share: _Share, _: Any) -> None:
        kind = "its update came garbled"
        self._complain(site, kind, f"{kind}: {share.reason}; fetching it again")
        share.receiver = None
        self._fetch(site, share, None)

    def _put_off(self, site: str, share: _Share, _: Any) -> None:
        share.receiver, share.garbled = None, 0
        if share.offer is not None:
            place, digest = (share.offer.round, share.offer.phase), share.offer.blob.digest
            text = f"its bytes came garbled {_TRIES} times: {share.reason}"
            self._send(site, m.Rejected(self.study, self.epoch, *place, digest, False, text[:2000]))

    def _ask(self, site: str) -> None:
        receiver = self._round.shares[site].receiver if self._round else None
        for want in receiver.wants(self._now) if receiver else ():
            self._send(site, want)

    def _append(self, site: str, share: _Share, offset: int, part: bytes | memoryview) -> None:
        assert share.offer is not None
        self._out.append(c.Append(site, *self._what(share), share.offer.blob.size, offset, part))

    def _wait(self, site: str, share: _Share, _: Any) -> None:
        share.receiver, share.later = None, self._now + self._retry

    def _check(self, site: str, share: _Share, _: Any) -> None:
        share.receiver = None
        self._out.append(c.Validate(site, *self._what(share)))

    def _spool(self, site: str, share: _Share, _: Any) -> None:
        assert share.offer is not None
        self._out.append(c.Spool(site, *self._what(share), share.offer.pieces))

    def _what(self, share: _Share) -> tuple[int, str, str]:
        assert share.offer is not None
        place = self._round.place if self._round else (share.offer.round, share.offer.phase)
        return *place, share.offer.blob.digest

    def _journal(self, site: str, share: _Share, _: Any) -> None:
        assert share.offer is not None
        number, phase, digest = self._what(share)
        origin = 0 if share.offer.round == number else share.offer.round
        self._out.append(c.WriteRow(rows.Accepted(number, phase, site, digest, share.offer.blob.size, origin)))

    def _accept(self, site: str, share: _Share, digest: str) -> None:
        assert self._round is not None
        share.digest = digest
        if share.offer is not None and share.data is not None:
            self._kept[site] = Held(share.offer.pieces, share.data)
        assert share.offer is not None
        origin = share.offer.round, share.offer.phase
        self._remember(origin, site, digest)
        self._send(site, m.Accepted(self.study, self.epoch, *origin, digest))
        count = len(self._round.within(Part.ACCEPTED))
        size = share.offer.blob.size
        self._tell("site_done", site, bytes=size, accepted=count, of=len(self._round.shares))

    def _next_time(self, site: str, share: _Share, offer: m.Offer) -> None:
        """A site counts once in a buffered round."""
        reason = "an update of this site counts in this round already; it may count in the next"
        answer = (offer.round, offer.phase, offer.blob.digest, False, reason)
        self._send(site, m.Rejected(self.study, self.epoch, *answer))

    def _refuse(self, site: str, share: _Share, _: Any) -> None:
        share.receiver = None
        self._refuse_again(site, share, share.offer)
        self._tell("note", site, text=f"its update was refused: {share.reason}")

    def _refuse_again(self, site: str, share: _Share, offer: m.Offer | None) -> None:
        assert self._round is not None
        if offer is not None:
            place, digest = (offer.round, offer.phase), offer.blob.digest
            self._send(site, m.Rejected(self.study, self.epoch, *place, digest, True, share.reason[:2000]))

    def _busy(self, site: str, share: _Share, offer: m.Offer) -> None:
        """The same update again: its answer is on the way. Another, of a site that lost its disk: one site, one update;
        but what is being written may be lost in a crash, so the other may be offered again."""
        assert share.offer is not None
        if offer.blob.digest != share.offer.blob.digest:
            number, phase, digest = offer.round, offer.phase, offer.blob.digest
            reason = f"another update of this site is being written: {share.offer.blob.digest[:12]}"
            self._send(site, m.Rejected(self.study, self.epoch, number, phase, digest, False, reason))

    def _make_room(self) -> None:
        """Lets queued updates in, while what is on its way is not too much for memory, and the disk takes them; first
        those that had their turn longest ago, so that one that stands still does not take its room again at once."""
        if self._round is None or self._round.state != "open":
            return
        queued = [(site, share) for site, share in self._round.shares.items() if share.part is Part.QUEUED]
        for site, share in sorted(queued, key=lambda pair: pair[1].moved) if len(queued) > 1 else queued:
            used = sum(_in_memory(s) for s in self._round.shares.values() if s.part is Part.FETCHING)
            if share.later <= self._now and (not used or used + _in_memory(share) <= self._room):
                self._step(site, "room")

    # ---------------------------------------------------------------- closing

    def _maybe_close(self) -> None:
        open_round = self._round
        if open_round is None or open_round.state != "open":
            return
        parts, buffer = [share.part for share in open_round.shares.values()], open_round.start.buffer
        full = 0 < buffer <= parts.count(Part.ACCEPTED) and Part.CHECKING not in parts and Part.SPOOLING not in parts
        settled = full or self._now >= open_round.deadline or self._all_settled(open_round)
        if Part.JOURNALING in parts or not settled:
            return
        accepted = open_round.within(Part.ACCEPTED)
        if len(accepted) < open_round.start.quorum or not set(open_round.start.again) <= set(accepted):
            self._say_waiting(open_round, accepted)
            return
        lost = () if full else tuple(site for site in open_round.shares if site not in accepted)
        listed = tuple((site, open_round.shares[site].digest) for site in accepted)
        open_round.state, open_round.frozen = "freezing", rows.Closed(*open_round.place, listed, lost)
        self._out.append(c.WriteRow(open_round.frozen))

    def _all_settled(self, open_round: _Round) -> bool:
        """Whether nobody is waited for. Where nobody is needed, only who can answer now is."""
        start = open_round.start
        waited = [site for site, share in open_round.shares.items() if share.part not in _SETTLED]
        if start.quorum == 0:
            waited = [site for site in waited if site in self.here() and self._knows(site, start.phase)]
        return not waited

    def _say_waiting(self, open_round: _Round, accepted: list[str]) -> None:
        if self._now - open_round.told_waiting < 10 * self._retry:
            return
        open_round.told_waiting = self._now
        missing = [site for site in open_round.shares if site not in accepted and site not in self._forgotten]
        refused = {site: share.reason for site in missing if (share := open_round.shares[site]).part is Part.REFUSED}
        others = ", ".join(site for site in missing if site not in refused)
        text = f"waiting for a quorum: {len(accepted)} of {open_round.start.quorum} sites"
        text += f"; not yet: {others}" if others else ""
        for site, reason in refused.items():
            text += f"; refused: {site} ({reason[:200]}), which is asked again when its worker is started again"
        lost = [site for site in open_round.start.again if site not in accepted]
        if lost:
            text = f"waiting for {', '.join(lost)} to send again what was accepted and is damaged on this disk"
        self._tell("note", text=text, waiting_for=missing, accepted=len(accepted), quorum=open_round.start.quorum)

    def _close(self, row: rows.Closed) -> None:
        assert self._round is not None
        self._closed = _order(self._round.place)
        for site, share in self._round.shares.items():
            if share.part in _UNDER_WAY and self._round.start.buffer:
                self._under_way[site] = share
            elif share.part in _UNDER_WAY:
                share.reason = "late: the round was closed without it"
                self._refuse_again(site, share, share.offer)
        self._tell("round_closed", phase=row.phase, accepted=[site for site, _ in row.accepted], lost=list(row.lost))
        self._round = None
        self._out.append(c.CloseRound(*row))


def _order(place: tuple[int, str]) -> tuple[int, int]:
    return place[0], m.PHASES.index(place[1])


def _in_memory(share: _Share) -> int:
    """Bytes of an update that may be here and not yet on the disk."""
    return 0 if share.offer is None else min(share.offer.blob.size, transfers.WINDOW * transfers.CHUNK)


def _verb(command: Any) -> str:
    words = {
        c.Append: "write an update",
        c.Validate: "check an update",
        c.Spool: "spool an update",
        c.WriteRow: "write to the journal",
    }
    return words.get(type(command), type(command).__name__)


_EVENTS: dict[type, Callable[[RoundKeeper, Any], None]] = {
    c.StartRound: RoundKeeper._on_start,
    c.Journaled: RoundKeeper._on_journaled,
    c.Valid: RoundKeeper._on_checked,
    c.Invalid: RoundKeeper._on_checked,
    c.Spooled: RoundKeeper._on_checked,
    c.Failed: RoundKeeper._on_failed,
    c.Finish: RoundKeeper._on_finish,
    c.Enlist: RoundKeeper._on_enlist,
    c.Forget: RoundKeeper._on_forget,
    c.Tick: RoundKeeper._on_tick,
    c.Heard: RoundKeeper._on_heard,
    c.Garbled: RoundKeeper._on_garbled,
}
_MESSAGES: dict[type, Callable[[RoundKeeper, str, Any, Any], None]] = {
    m.Ping: RoundKeeper._ping,
    m.Want: RoundKeeper._want,
    m.Offer: RoundKeeper._offered,
    m.Chunk: RoundKeeper._chunk,
}
