"""Whole studies on pretend lines, disks and clocks, played from a seed: every fault that a federation meets, and the
account that must come out right all the same.

Both machines run as they are. A schedule has some kinds of faults, drawn by its seed, for its first part; then they end
and the study must come to its end. The kinds:

    loss        messages are lost                        double      messages come twice
    reorder     messages overtake each other             partition   some sites hear nothing for a while
    kill        a site's process dies at any moment      restart     the coordinator's process dies at any moment
    write       a process dies while it writes: the disk has it, or has not
    full        a disk refuses a write, for a while      amnesia     a site loses its disk, but for its keys
    slow        a site works longer than the deadline    invalid     a site's updates do not pass the checks
    revoke      a site is taken off the roster           join        a site enrols while the study runs
    garble      a frame is not a message                 flip        a chunk has other bytes
    misfit      a site offers an update of another size

What must hold, whatever happened:

1. a site counts at most once in a round, and nothing counts that is not in the spool and in the journal;
2. an acknowledged update is in the list of its round;
3. no round closes below its quorum, and a closed list never changes, over restarts too;
4. a site commits its state for exactly the rounds that it counts in, in order; each update that counts was computed
   from the round's own broadcast and the state committed for the round before (a site that lost its disk begins anew);
5. the study ends;
6. that a site is lost, and that it is back, is said once and in turn;
7. no update of a site counts that comes after the site was taken off the roster.

`python tests/protocol/schedules.py 100000 FIRST PROCESSES` plays that many and prints what was met.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import json
import os
import random
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from learner_jax.leaves import piece, site_id
from learner_jax.protocol import commands as c
from learner_jax.protocol import coordinator, rows, site, transfers
from learner_jax.protocol import messages as m

KINDS = (
    "loss", "double", "reorder", "partition", "kill", "restart", "write", "full", "amnesia", "slow", "invalid",
    "revoke", "join", "garble", "flip", "misfit",
)  # fmt: skip
SCHEMA, DIGEST = "5" * 64, "d" * 64
LEASE, RESEND, TICK, DEADLINE = 3.0, 0.7, 1.0, 4.0
FAULTS_END, LATEST = 12.0, 120.0
NAMES: tuple[str, ...] = ("h00", "h01", "h02", "h03")
_IDS = {name: site_id(name) for name in NAMES}


def sha(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


class Counted(dict):
    """A transition table that counts which of its rows are used."""

    def __init__(self, table: Any):
        super().__init__(table)
        self.used: Counter[Any] = Counter()

    def __getitem__(self, key: Any) -> Any:
        self.used[key] += 1
        return super().__getitem__(key)


class Disk:
    """What survives a kill: at the coordinator, and at each site."""

    def __init__(self) -> None:
        self.epoch = 0
        self.rows: dict[tuple, Any] = {}
        self.by_origin: dict[tuple, Any] = {}
        self.spool: dict[str, bytes] = {}
        self.roster: list[str] = []
        self.pending: dict[str, tuple] = {}
        self.committed: dict[str, list[Any]] = {name: [] for name in NAMES}
        self.seen = dict.fromkeys(NAMES, 0)
        self.held: dict[str, transfers.Held] = {}  # broadcasts by site, updates by digest

    def journal(self, row: Any) -> None:
        place = (type(row), row.round, row.phase, getattr(row, "site", ""), getattr(row, "attempt", 0))
        assert self.rows.setdefault(place, row) == row, f"two rows in one place: {row}"
        if type(row) is rows.Accepted:
            origin = (row.origin or row.round, row.phase, row.site)
            assert self.by_origin.setdefault(origin, row) == row, f"an update counts in two rounds: {row}"
            assert sha(self.spool[row.digest]) == row.digest, "counted and not spooled"

    def of(self, kind: type) -> list[Any]:
        return [row for row in self.rows.values() if type(row) is kind]


class World:
    """One study under one seed."""

    def __init__(self, seed: int):
        self.rng = rng = random.Random(seed)
        self.random = rng.random
        self.kinds = frozenset(rng.sample(KINDS, rng.choice((0, 1, 2, 2, 3, 4, 6, len(KINDS)))))
        self.encoded = seed % 32 == 0  # encoding and decoding take half the time, and have tests of their own
        self.sites = NAMES[: rng.randint(2, 4)]
        self.places = [(0, "statistics")] * rng.randint(0, 1) + [(n, "train") for n in range(1, rng.randint(2, 4))]
        self.places += [(self.places[-1][0] + 1, "look")] * rng.randint(0, 1)
        # one site may be missing from every round, else some could never close: it is the one that kinds may spoil
        self.spoilt = rng.choice(self.sites)
        self.plans = {place: self.plan() for place in self.places}
        self.enters(seed)
        self.buffered = seed % 4 == 3  # its learning rounds close when a quorum is there, and take older updates too
        self.chance = {kind: rng.choice((0.03, 0.1, 0.3)) for kind in KINDS if kind in self.kinds}
        self.loss, self.double = self.chance.get("loss", 0.0), self.chance.get("double", 0.0)
        self.delay = rng.choice((0.3, 1.5)) if "reorder" in self.kinds else 0.0
        self.pieced = seed % 2 == 1  # what is sent says its pieces, some of which stay the same
        self.disk_s, self.work_s = rng.choice((0.0, 0.2, 1.0)), rng.choice((0.2, 1.0))
        self.room = rng.choice((10, 60, 10_000))
        self.disk = Disk()
        self.now, self.count, self.sent = 0.0, 0, 0
        self.agenda: list[tuple[float, int, str, int, Any]] = []  # when, order, who, life, event
        self.life = dict.fromkeys(("", *self.sites), 0)
        self.line = dict.fromkeys(self.sites, 0)  # goes up when what is under way is lost
        self.parted: set[str] = set()
        self.keepers: dict[str, Any] = dict.fromkeys(("", *self.sites))
        self.acknowledged: set[tuple] = set()
        self.wiped: set[str] = set()
        self.revoked = ""
        self.came: dict[str, bytes | None] = {}  # of an update on its way, by site; None: the disk refused it
        self.done = False
        self.there: set[str] = set()  # sites, by what this coordinator told of them
        self.stats: Counter[str] = Counter()

    def enters(self, seed: int) -> None:
        """Before some round one site is asked to prepare, if it is there: one that takes no part before it."""
        trains = [place for place in self.places if place[1] == "train"]
        if seed % 3 == 0:
            after = self.rng.choice(trains)
            before = self.places[: self.places.index(after)]
            others = tuple(name for name in self.sites if name != self.spoilt)
            for place in before:
                cohort, quorum = self.plans[place]
                cohort = tuple(name for name in cohort if name != self.spoilt) or others
                self.plans[place] = cohort, min(quorum, len(cohort))
            enter = after[0], "enter"
            self.places.insert(len(before), enter)
            self.plans[enter] = (self.spoilt,), 0

    def plan(self) -> tuple[tuple[str, ...], int]:
        """A round's cohort and quorum: a function of the schedule, not of what goes wrong in it."""
        cohort = tuple(self.rng.sample(self.sites, self.rng.randint(1, len(self.sites))))
        if cohort == (self.spoilt,):
            cohort = self.sites
        goes = "revoke" in self.kinds and "join" not in self.kinds  # a round that needs it goes on when it is revoked
        return cohort, self.rng.randint(1, len(cohort) if goes else len(set(cohort) - {self.spoilt}))

    def needed(self, place: tuple[int, str], counted: Any = ()) -> int:
        """The quorum, but no more sites than can answer; who counted before it was revoked still does."""
        cohort, quorum = self.plans[place]
        gone = {self.revoked} - set(counted)
        return 0 if place[1] == "enter" else max(1, min(quorum, len(set(cohort) - gone)))

    # ------------------------------------------------------------ the play

    def run(self) -> Counter[str]:
        later = "" if "join" not in self.kinds else self.spoilt
        self.disk.roster = [name for name in self.sites if name != later]
        for who in ("", *self.disk.roster):
            self.boot(who)
        if later:
            self.later("", "join", FAULTS_END, always=True)
        if "revoke" in self.kinds:
            self.later("", "revoke", 2 * FAULTS_END, always=True)
        agenda, life, pop = self.agenda, self.life, heapq.heappop
        while not (self.done and self.ended()):
            self.now, _, who, lived, event = pop(agenda)
            if self.now >= LATEST:
                raise AssertionError(f"the study does not end: {self.state()}")
            if type(event) is tuple:
                self.arrive(who, lived, *event)
            elif lived == life[who] or lived < 0:
                self.happen(who, event)
        self.check_end()
        self.stats["sent"] = self.sent
        return self.stats

    def ended(self) -> bool:
        return all(
            self.keepers[name] is not None and self.keepers[name].finished
            for name in self.sites
            if name in self.disk.roster
        )

    def later(self, who: str, event: Any, most_s: float, always: bool = False) -> None:
        self.count += 1
        when = self.now + self.random() * most_s
        heapq.heappush(self.agenda, (when, self.count, who, -1 if always else self.life[who], event))

    def happen(self, who: str, event: Any) -> None:
        if event == "tick":
            self.tick(who)
        elif event == "boot":
            self.boot(who)
        elif event == "next":
            self.next_round()
        elif event == "join":
            self.join()
        elif event == "revoke":
            self.revoke()
        elif type(event) is Write:
            self.write(who, event.command)
        else:
            self.give(who, event)

    def tick(self, who: str) -> None:
        self.later(who, "tick", 2 * TICK)
        if self.now < FAULTS_END:
            chance = self.chance
            if self.random() < chance.get("kill" if who else "restart", 0.0) / 3:
                self.kill(who)
                return
            if who and self.random() < chance.get("amnesia", 0.0) / 4:
                self.kill(who)
                self.wipe(who)
                return
            if not who and "partition" in chance:
                if self.random() < chance["partition"]:
                    self.parted = set(self.rng.sample(self.sites, self.rng.randint(1, len(self.sites))))
                    self.stats["partition"] += 1
                elif self.random() < 0.3:
                    self.parted = set()
            if "garble" in chance and self.random() < chance["garble"] and self.keepers[who]:
                self.stats["garble"] += 1
                self.give(who, c.Garbled("" if who else self.rng.choice(self.sites), "planted"))
        else:
            self.loss = self.double = self.delay = 0.0
            self.parted = set()
        self.give(who, c.Tick())

    def arrive(self, who: str, line: int, name: str, message: Any, payload: Any) -> None:
        keeper = self.keepers[who]
        if line == self.line[name] and keeper is not None and name not in self.parted:
            if not who and name not in self.disk.roster:
                return  # the link lets nobody in who is not on the roster
            self.give(who, c.Heard("" if who else name, message, payload))

    def kill(self, who: str) -> None:
        self.stats["kill" if who else "restart"] += 1
        for _, _, owner, lived, event in self.agenda:  # a write under way may have reached the disk, unseen
            if owner == who and lived == self.life[who] and type(event) is Write and self.random() < 0.5:
                self.effect(who, event.command)
        if not who:
            self.came.clear()
        self.life[who] += 1
        self.keepers[who] = None
        for name in (who,) if who else self.sites:
            if self.random() < 0.5:
                self.line[name] += 1
        self.later(who, "boot", 3.0)

    def wipe(self, who: str) -> None:
        """The site's disk is lost but for its keys."""
        self.stats["amnesia"] += 1
        self.wiped.add(who)
        self.disk.pending.pop(who, None)
        self.disk.held.pop(who, None)
        self.disk.committed[who], self.disk.seen[who] = [], 0

    def boot(self, who: str) -> None:
        disk = self.disk
        if who:
            pending: Any = disk.pending.get(who)
            committed = disk.committed[who]
            if pending and committed and committed[-1] == pending[0]:
                pending = None
                del disk.pending[who]
            self.keepers[who] = site.SiteKeeper(
                "s", who, "", pending and pending[:2], committed[-1] if committed else None,
                disk.seen[who], DIGEST, LEASE, RESEND, RESEND, f"{self.life[who] + 1:x}", held=self.lying(who),
            )  # fmt: skip
        else:
            disk.epoch += 1
            self.there.clear()
            accepted = {origin: row.digest for origin, row in disk.by_origin.items()}
            broadcasts = {(r.round, r.phase): r.broadcast for r in disk.of(rows.Opened)}
            closed = [(r.round, r.phase) for r in disk.of(rows.Closed)]
            self.keepers[who] = coordinator.RoundKeeper(
                "s",
                disk.epoch,
                b"{}",
                DIGEST,
                tuple(disk.roster),
                closed,
                accepted,
                LEASE,
                RESEND,
                RESEND,
                self.room,
                kept={name: held for (_, _, name), digest in accepted.items() if (held := self.lying(digest))},
                broadcasts=broadcasts,
                buffered=self.buffered,
            )
            self.later(who, "next", 1.0)
        self.later(who, "tick", TICK)

    def join(self) -> None:
        name = self.spoilt
        self.disk.roster.append(name)
        if self.keepers[""] is not None:
            self.give("", c.Enlist(name))
        self.boot(name)
        self.stats["join"] += 1

    def revoke(self) -> None:
        name = self.spoilt
        if name not in self.disk.roster or self.done:
            return
        self.disk.roster.remove(name)
        self.revoked = name
        if self.keepers[""] is not None:
            self.give("", c.Forget(name))
        self.stats["revoke"] += 1

    def give(self, who: str, event: Any) -> None:
        for command in self.keepers[who].handle(event, self.now):
            if type(command) is c.Send:
                self.post(who, command)
            else:
                self.carry_out(who, command)

    # ------------------------------------------------------------ engines and disks

    def next_round(self) -> None:
        """The coordinator's engine: the first round that is not closed, opened again if it was open."""
        closed = {(row.round, row.phase) for row in self.disk.of(rows.Closed)}
        left = [place for place in self.places if place not in closed]
        if not left:
            self.done = True
            self.give("", c.Finish("e" * 64, "finished"))
            return
        place = left[0]
        opened = [row for row in self.disk.of(rows.Opened) if (row.round, row.phase) == place]
        accepted = {r.site: r.digest for r in self.disk.of(rows.Accepted) if (r.round, r.phase) == place}
        cohort, quorum = self.plans[place][0], self.needed(place, accepted)
        data = self.broadcast(place)
        self.give("", c.StartRound(
            *place, cohort, data, SCHEMA, SCHEMA, None, quorum, DEADLINE, len(opened) + 1, accepted,
            pieces=self.table(data), **self.closing(place, quorum),
        ))  # fmt: skip

    def closing(self, place: tuple[int, str], quorum: int) -> dict[str, Any]:
        if not self.buffered or place[1] != "train":
            return {}
        oldest = max(1, place[0] - 1)
        return {"buffer": quorum, "oldest": oldest, "fields": {"oldest": oldest}}

    def broadcast(self, place: tuple[int, str]) -> bytes:
        """A function of all lists closed before."""
        earlier = self.places[: self.places.index(place)]
        text = repr(sorted(row for row in self.disk.of(rows.Closed) if (row.round, row.phase) in earlier))
        return b"=" * 30 * self.pieced + (sha(text.encode()) * (1 + len(text) % 2)).encode()[: len(text) % 77]

    def table(self, data: bytes) -> bytes:
        """The pieces of what is sent: thirty bytes, of which some stay the same, and the rest."""
        return piece(data[:30]) + piece(data[30:]) if self.pieced else b""

    def lying(self, key: str) -> transfers.Held | None:
        """What lies on a disk of an earlier transfer; the disk may have spoilt it."""
        held = self.disk.held.get(key)
        if held is None or "flip" not in self.kinds or self.now >= FAULTS_END or self.random() < 0.5:
            return held
        return held._replace(data=bytes(held.data[:])[:: self.rng.choice((-1, 2))])

    def update(self, name: str, opened: m.Open, committed: list[Any]) -> bytes:
        """What a site computes: it shows what it was computed from."""
        state = [(entry.round, entry.phase) for entry in committed]
        told = [name, opened.round, opened.phase, opened.blob.digest, state, self.life[name] if self.wiped else 0]
        return json.dumps(told).encode()

    def carry_out(self, who: str, command: Any) -> None:
        kind = type(command)
        if kind is c.WriteRow or kind is c.Spool or kind is c.WriteOutbox or kind is c.Commit or kind is c.Discard:
            if kind is c.WriteRow and type(command.row) is rows.Opened and self.disk_s == 0:
                self.write(who, command)  # also the way of an engine whose disk answers at once
            else:
                self.later(who, Write(command), self.disk_s)
        elif kind is c.Append:
            self.append(command)
        elif kind is c.Validate:
            about = (command.site, command.round, command.phase, command.digest)
            came = self.came[command.site]
            assert came is None or sha(came) == command.digest, "what is checked is not what was announced"
            assert command.site in self.disk.roster, "an update counts of a site that is off the roster"
            invalid = "invalid" in self.kinds and command.site == self.spoilt and self.random() < 0.5
            self.stats["invalid"] += invalid
            self.later(who, c.Invalid(*about, "planted") if invalid else c.Valid(*about), self.disk_s)
        elif kind is c.Tell:
            self.stats[command.event.kind] += 1
            if not who and not self.done:
                self.told(command.event.kind, command.event.site)
        elif kind is c.Work:
            opened = command.open
            assert sha(command.data) == opened.blob.digest, "a broadcast that is not the one announced"
            done = self.update(who, opened, self.disk.committed[who])
            state = json.dumps([opened.round, opened.phase]).encode()
            slow = "slow" in self.kinds and self.random() < self.chance["slow"]
            self.stats["slow"] += slow
            worked = c.Worked(opened.round, opened.phase, done, SCHEMA, state, self.table(done))
            self.store(who, opened.blob.digest, transfers.Held(opened.pieces, bytes(command.data)))
            self.later(who, worked, 3 * DEADLINE if slow else self.work_s)
        elif kind is c.CloseRound:
            self.check_closed(command)
            self.later(who, "next", 0.5)
        elif kind is c.RememberEpoch:
            self.disk.seen[who] = max(command.epoch, self.disk.seen[who])
        elif kind is c.Finished:
            assert command.ok, command.reason
        elif kind is c.Approve:
            self.later(who, c.Approved(command.manifest_digest), self.disk_s)
        elif kind is c.Fenced:
            raise AssertionError("fenced by itself")

    def store(self, who: str, digest: str, held: transfers.Held) -> None:
        """A site keeps its last broadcast, or its disk refuses, or it is slow to say so."""
        if self.pieced and self.random() < 0.8:
            self.disk.held[who] = held
            self.later(who, c.Stored(digest, None if self.random() < 0.1 else held.data), self.disk_s)

    def append(self, command: c.Append) -> None:
        """The next bytes of an update; a disk that refuses some drops it all, and refuses what follows."""
        before = self.came.get(command.site, b"") if command.offset else b""
        full = self.now < FAULTS_END and "full" in self.kinds and self.random() < self.chance["full"] / 3
        if full or before is None:
            self.stats["full"] += full
            self.came[command.site] = None
            self.later("", c.Failed(command, "No space left on device"), 0.0)
            return
        assert len(before) == command.offset, "a gap in what is written"
        self.came[command.site] = before + bytes(command.data)

    def whole(self, name: str, digest: str) -> bool:
        """Whether all of an update is on the disk; another of this site may be coming by now."""
        came = self.came.get(name)
        return came is not None and sha(came) == digest

    def post(self, who: str, command: c.Send) -> None:
        """Puts a message on its line."""
        site_name, message, payload, minor = command
        name = who or site_name
        if type(message) is m.Want and message.have:
            self.stats["asked for less"] += 1
        elif type(message) is m.Accepted:
            self.acknowledge(name, message)
        if self.encoded:
            message = m.joined(m.decode(m.encode(message, minor)), m.beside(message, minor))
        if name in self.parted:
            return
        if payload and type(payload) is not bytes:
            payload = bytes(payload)
        if payload and "flip" in self.kinds and self.now < FAULTS_END and self.random() < self.chance["flip"] / 3:
            self.stats["flip"] += 1
            payload = bytes(reversed(payload))
        if type(message) is m.Offer and "misfit" in self.kinds and who == self.spoilt and self.random() < 0.2:
            self.stats["misfit"] += 1
            message = message._replace(blob=message.blob._replace(schema_digest="6" * 64))
        if self.loss and self.random() < self.loss:
            self.stats["loss"] += 1
            return
        self.sent += 1
        event = (name, message, payload)
        for _ in range(2 if self.double and self.random() < self.double else 1):
            self.count += 1
            when = self.now + 0.02 + (self.random() * self.delay if self.delay else 0.0)
            heapq.heappush(self.agenda, (when, self.count, "" if who else name, self.line[name], event))

    def write(self, who: str, command: Any) -> None:
        if self.now < FAULTS_END and "write" in self.kinds and self.random() < self.chance["write"] / 3:
            self.stats["write"] += 1
            if self.random() < 0.5:
                self.effect(who, command)
            self.kill(who)
            return
        if self.now < FAULTS_END and "full" in self.kinds and self.random() < self.chance["full"]:
            self.stats["full"] += 1
            self.give(who, c.Failed(command, "No space left on device"))
            return
        kind = type(command)
        if kind is c.Spool and not self.whole(command.site, command.digest):
            self.give(who, c.Failed(command, "not all of it is there"))
            return
        self.effect(who, command)
        if kind is c.Spool:
            held = self.disk.held.get(command.digest)
            self.give(who, c.Spooled(command.site, command.round, command.phase, command.digest, held and held.data))
        elif kind is c.WriteRow:
            self.give(who, c.Journaled(command.row))
        elif kind is c.WriteOutbox:
            self.give(who, c.Written(command.entry.digest))
        else:
            self.give(who, c.Settled(command.entry.digest))

    def effect(self, who: str, command: Any) -> None:
        match command:
            case c.Spool(name, _, _, digest, pieces):
                if self.whole(name, digest):
                    self.disk.spool[digest] = self.came[name] or b""
                    if pieces and self.random() < 0.9:
                        self.disk.held[digest] = transfers.Held(pieces, self.disk.spool[digest])
            case c.WriteRow(row):
                self.disk.journal(row)
            case c.WriteOutbox(entry, data, state):
                assert sha(data) == entry.digest
                self.disk.pending[who] = (entry, data, state)
            case c.Commit(entry):
                committed = self.disk.committed[who]
                if committed and committed[-1] == entry and who not in self.disk.pending:
                    return  # again, as after a restart of the coordinator that had lost it
                assert self.disk.pending[who][0] == entry, "another update is pending"
                if entry not in committed:
                    committed.append(entry)
                del self.disk.pending[who]
            case c.Discard(entry):
                assert self.disk.pending.pop(who)[0] == entry

    # ------------------------------------------------------------ what must hold

    def acknowledge(self, name: str, message: m.Accepted) -> None:
        place = (message.round, message.phase, name)
        row: Any = self.disk.by_origin.get(place)
        assert row is not None and row.digest == message.digest, "acknowledged and not journaled"
        self.acknowledged.add((*place, message.digest))

    def told(self, kind: str, name: str | None) -> None:
        """A coordinator says once that a site is lost, and once that it is back."""
        if name is not None and kind in ("site_lost", "site_back"):
            assert (name in self.there) == (kind == "site_lost"), f"said again that {name} is {kind}"
            self.there ^= {name}

    def check_closed(self, closed: c.CloseRound) -> None:
        place = (closed.round, closed.phase)
        row: Any = self.disk.rows[rows.Closed, *place, "", 0]
        assert row.accepted == closed.accepted, "not the list that was frozen"
        assert list(closed.accepted) == sorted(closed.accepted, key=lambda pair: _IDS[pair[0]]), "not in site-id order"
        cohort, quorum = self.plans[place][0], self.needed(place, dict(closed.accepted))
        assert len(closed.accepted) >= quorum, "closed below its quorum"
        told = {name for name, _ in closed.accepted} | set(closed.lost)
        assert told == set(cohort) or (self.buffered and told < set(cohort)), "somebody is not accounted for"
        assert len({name for name, _ in closed.accepted}) == len(closed.accepted), "a site counts twice"

    def check_end(self) -> None:
        closed = {(row.round, row.phase): row for row in self.disk.of(rows.Closed)}
        assert list(closed) == self.places, f"closed {list(closed)}, expected {self.places}"
        for number, phase, name, digest in self.acknowledged:
            row = self.disk.by_origin[number, phase, name]
            assert (name, digest) in closed[row.round, phase].accepted, "acknowledged and not in the sum"
            assert row.round - 1 <= number <= row.round if self.buffered else row.round == number, "too stale"
            self.stats["late"] += number < row.round
        opened: dict[tuple, set[str]] = {}
        for row in self.disk.of(rows.Opened):
            opened.setdefault((row.round, row.phase), set()).add(row.broadcast)
        for name in self.sites:
            there = [self.disk.rows[rows.Accepted, *place, name, 0] for place in self.places
                     if name in dict(closed[place].accepted)]  # fmt: skip
            counted = [(row.origin or row.round, row.phase, row.digest) for row in there]
            commits = [(e.round, e.phase, e.digest) for e in self.disk.committed[name]]
            if name in self.wiped or name == self.revoked:
                left = iter(counted)
                assert all(commit in left for commit in commits), f"{name} committed {commits}, counted {counted}"
            else:
                assert commits == counted, f"{name} committed {commits}, counted {counted}"
            for n, (number, phase, digest) in enumerate(counted):
                who, of, in_, broadcast, state, _ = json.loads(self.disk.spool[digest])
                assert (who, of, in_) == (name, number, phase), "an update of somewhere else counts"
                assert {broadcast} == opened[number, phase], "computed from another broadcast"
                before = [[a, b] for a, b, _ in counted[:n]]
                sound = state == before or (name in self.wiped and state == before[len(before) - len(state) :])
                assert sound or name in self.wiped, f"{name} worked from {state} in round {number}, counted {before}"
        self.stats["rounds"] += len(closed)
        self.stats["lists with somebody lost"] += sum(1 for row in closed.values() if row.lost)

    def state(self) -> str:
        sites = {s: str(k and (k.job, k._newest and k._newest.round, k._done)) for s, k in self.keepers.items() if s}
        keeper = self.keepers[""]
        shares = keeper and keeper._round and {s: h.part for s, h in keeper._round.shares.items()}
        return f"{sorted(self.kinds)} {sites} {shares} {keeper and keeper._round and keeper._round.state}"


class Write:
    """A write under way."""

    __slots__ = ("command",)

    def __init__(self, command: Any):
        self.command = command


def play(first: int, many: int) -> dict[str, Any]:
    """Plays schedules first, first + 1, ...

    Returns:
      {"schedules", "met": kind -> times, "pairs": "a+b" -> schedules, "rows": "machine state, what" -> times}.

    Raises:
      AssertionError: names the seed and what does not hold.
    """
    met: Counter[str] = Counter()
    pairs: Counter[str] = Counter()
    chunk, tables = transfers.CHUNK, (coordinator.TABLE, site.TABLE)
    counted = Counted(coordinator.TABLE), Counted(site.TABLE)
    coordinator.TABLE, site.TABLE = counted  # type: ignore[misc]
    try:
        for seed in range(first, first + many):
            transfers.CHUNK = 16 if seed % 4 == 0 else 64
            world = World(seed)
            try:
                met += world.run()
            except Exception as error:
                raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
            hit = [kind for kind in KINDS if world.stats[kind] or (kind == "reorder" and world.kinds & {kind})
                   or (kind == "double" and world.kinds & {kind})]  # fmt: skip
            pairs.update(f"{a}+{b}" for a, b in itertools.combinations(hit, 2))
    finally:
        transfers.CHUNK = chunk
        coordinator.TABLE, site.TABLE = tables  # type: ignore[misc]
    used = {
        f"{machine} {state.name}, {what}": table.used[state, what]
        for machine, table in zip(("coordinator", "site"), counted, strict=True)
        for state, what in table
    }
    return {"schedules": many, "met": dict(met), "pairs": dict(pairs), "rows": used}


def joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The same of several parts."""
    return {
        "schedules": sum(part["schedules"] for part in parts),
        **{name: dict(sum((Counter(part[name]) for part in parts), Counter())) for name in ("met", "pairs")},
        "rows": {row: sum(part["rows"][row] for part in parts) for row in parts[0]["rows"]},
    }


def unmet(found: dict[str, Any]) -> list[str]:
    """Rows of the tables and pairs of kinds that no schedule reached."""
    pairs = [f"{a}+{b}" for a, b in itertools.combinations(KINDS, 2)]
    return [row for row, count in found["rows"].items() if not count] + [p for p in pairs if p not in found["pairs"]]


def main() -> int:
    """Plays, in several processes, and prints one JSON line."""
    os.nice(10)  # what has to keep time beside it goes first
    given = [int(word) for word in sys.argv[1:]]
    many, first, processes = (*given, *(1000, 0, os.cpu_count() or 1)[len(given) :])
    size = max(1, min(2500, many // processes))
    begun = time.monotonic()
    with ProcessPoolExecutor(processes) as pool:
        runs = [pool.submit(play, first + at, min(size, many - at)) for at in range(0, many, size)]
        try:
            found = joined([run.result() for run in runs])
        except AssertionError as error:
            for run in runs:
                run.cancel()
            print(error, file=sys.stderr)
            return 1
    took = time.monotonic() - begun
    faults = sum(found["met"].get(kind, 0) for kind in KINDS) / many
    head = {"schedules": many, "violations": 0, "seconds": round(took, 1), "faults_per_schedule": round(faults, 2)}
    print(json.dumps({**head, "unmet": unmet(found), **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
