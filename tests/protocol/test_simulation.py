"""Whole studies on pretend lines and disks: loss, doubling, reordering, stragglers, any process killed at any moment.

Both machines run as they are; lines, disks, clock and the work are played from one seed. A killed process loses its
machine and every write under way (done or not, by chance); what was written stays. After a while the faults end, and
the study must come to its end. What must hold, whatever happened:

1. a site counts at most once in a round, and nothing counts that is not in the spool and in the journal;
2. an acknowledged update is in the list of its round;
3. no round closes below its quorum, and a closed list never changes, over restarts too;
4. a site commits its state for exactly the rounds that it counts in, in order; each update that counts was computed
   from the round's own broadcast and the state committed for the round before;
5. the study ends;
6. that a site is lost, and that it is back, is said once and in turn.

`python tests/protocol/test_simulation.py 100000` runs that many schedules.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import learner_jax
from learner_jax.leaves import site_id
from learner_jax.network.memory import Faults, Line
from learner_jax.protocol import commands as c
from learner_jax.protocol import messages as m
from learner_jax.protocol import rows, transfers
from learner_jax.protocol.coordinator import RoundKeeper
from learner_jax.protocol.site import SiteKeeper

SCHEMA, DIGEST = "5" * 64, "d" * 64
LEASE, RESEND, TICK = 6.0, 1.0, 1.0
FAULTS_END, LATEST = 40.0, 400.0


def sha(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


class Disk:
    """What survives a kill: at the coordinator, and at each site."""

    def __init__(self, sites: tuple[str, ...]):
        self.epoch = 0
        self.rows: dict[tuple, rows.Row] = {}
        self.spool: dict[str, bytes] = {}
        self.pending: dict[str, tuple] = {}
        self.committed: dict[str, list[Any]] = {site: [] for site in sites}
        self.seen = dict.fromkeys(sites, 0)

    def journal(self, row: Any) -> None:
        place = (type(row), row.round, row.phase, getattr(row, "site", ""), getattr(row, "attempt", 0))
        assert self.rows.setdefault(place, row) == row, f"two rows in one place: {row}"
        if isinstance(row, rows.Accepted):
            assert sha(self.spool[row.digest]) == row.digest, "counted and not spooled"

    def of(self, kind: type) -> list[Any]:
        return [row for row in self.rows.values() if isinstance(row, kind)]


class World:
    """One study under one seed."""

    def __init__(self, seed: int):
        self.rng = rng = random.Random(seed)
        self.bytes = seed % 20 == 0  # encoding and decoding take half the time, and have tests of their own
        self.sites = tuple(f"h{n:02d}" for n in range(rng.randint(2, 4)))
        self.places = [(0, "statistics")] * rng.randint(0, 1) + [(n, "train") for n in range(1, rng.randint(2, 4))]
        self.places += [(self.places[-1][0] + 1, "look")] * rng.randint(0, 1)
        self.deadline = rng.choice((4.0, 12.0, 60.0))
        self.work_s = rng.choice((0.5, 3.0, 10.0))
        self.disk_s = rng.choice((0.0, 0.3, 2.0))
        self.room = rng.choice((10, 60, 10_000))
        faults = Faults(rng.choice((0.0, 0.1, 0.4)), rng.choice((0.0, 0.1, 0.4)), rng.choice((0.0, 0.3, 3.0)))
        self.kills = rng.choice((0.0, 0.02, 0.1))
        self.disk_full = rng.choice((0.0, 0.0, 0.1))
        self.up = {site: Line(rng, faults) for site in self.sites}
        self.down = {site: Line(rng, faults) for site in self.sites}
        self.lines = [(way, site, both[site]) for way, both in enumerate((self.up, self.down)) for site in self.sites]
        self.disk = Disk(self.sites)
        self.now, self.count = 0.0, 0
        self.agenda: list[tuple[float, int, str, int, Any]] = []  # when, order, who, life, event
        self.life: Counter[str] = Counter()
        self.keepers: dict[str, Any] = {}
        self.acknowledged: set[tuple] = set()
        self.done = False
        self.there: set[str] = set()  # sites, by what this coordinator told of them
        self.stats: Counter[str] = Counter()

    # ------------------------------------------------------------ the play

    def run(self) -> Counter[str]:
        for who in ("", *self.sites):
            self.boot(who)
        while not (self.done and all(self.keepers[s] and self.keepers[s].finished for s in self.sites)):
            assert self.now < LATEST, f"the study does not end: {self.state()}"
            self.deliver()
            self.now, _, who, life, event = heapq.heappop(self.agenda)
            if life == self.life[who]:
                self.happen(who, event)
        self.check_end()
        return self.stats

    def later(self, who: str, event: Any, most_s: float) -> None:
        self.count += 1
        heapq.heappush(self.agenda, (self.now + self.rng.random() * most_s, self.count, who, self.life[who], event))

    def happen(self, who: str, event: Any) -> None:
        if event == "boot":
            self.boot(who)
        elif event == "tick":
            self.later(who, "tick", 2 * TICK)
            if self.now < FAULTS_END and self.rng.random() < self.kills:
                self.kill(who)
            else:
                self.give(who, c.Tick())
        elif isinstance(event, tuple) and event[0] == "disk":
            self.write(who, event[1])
        elif event == "next":
            self.next_round()
        else:
            self.give(who, event)

    def deliver(self) -> None:
        """Hands over all messages that are due before the next thing on the agenda."""
        if self.now >= FAULTS_END:
            for line in (*self.up.values(), *self.down.values()):
                line.faults = Faults(delay_s=0.1)
        until = self.agenda[0][0]
        while True:
            due, way, site = min(
                ((d if (d := line.due()) is not None else 1e9), way, site) for way, site, line in self.lines
            )
            if due > until:
                return
            self.now = max(self.now, due)
            arrived: Any = (self.down if way else self.up)[site].get(due)
            message, payload = arrived
            who = site if way else ""
            if self.keepers.get(who):
                self.give(who, c.Heard("" if way else site, message, payload))
            if self.agenda[0][0] < until:
                return

    def kill(self, who: str) -> None:
        self.stats[f"kill {'site' if who else 'coordinator'}"] += 1
        dying = [event[1] for _, _, owner, life, event in self.agenda if owner == who and life == self.life[who]
                 and isinstance(event, tuple) and event[0] == "disk"]  # fmt: skip
        for command in dying:  # a write under way may have reached the disk, unseen by the machine
            if self.rng.random() < 0.5:
                self.effect(who, command)
        self.life[who] += 1
        self.keepers[who] = None
        for site in (who,) if who else self.sites:
            if self.rng.random() < 0.5:
                self.up[site].cut()
                self.down[site].cut()
        self.later(who, "boot", 10.0)

    def boot(self, who: str) -> None:
        disk = self.disk
        if who:
            pending: Any = disk.pending.get(who)
            committed = disk.committed[who]
            if pending and committed and committed[-1] == pending[0]:
                pending = None
                del disk.pending[who]
            self.keepers[who] = SiteKeeper(
                "s", who, "", pending and pending[:2], committed[-1] if committed else None,
                disk.seen[who], DIGEST, LEASE, RESEND, RESEND, f"{self.life[who] + 1:x}",
            )  # fmt: skip
        else:
            disk.epoch += 1
            self.there.clear()
            accepted = {(r.round, r.phase, r.site): r.digest for r in disk.of(rows.Accepted)}
            closed = [(r.round, r.phase) for r in disk.of(rows.Closed)]
            self.keepers[who] = RoundKeeper(
                "s", disk.epoch, b"{}", DIGEST, self.sites, closed, accepted, LEASE, RESEND, RESEND, self.room
            )
            self.later(who, "next", 2.0)
        self.later(who, "tick", TICK)

    def give(self, who: str, event: Any) -> None:
        for command in self.keepers[who].handle(event, self.now):
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
        plan = random.Random(repr(place) + repr(self.sites))
        cohort = tuple(plan.sample(self.sites, plan.randint(1, len(self.sites))))
        quorum = plan.randint(1, len(cohort))
        self.give("", c.StartRound(
            *place, cohort, self.broadcast(place), SCHEMA, SCHEMA, None, quorum, self.deadline,
            len(opened) + 1, accepted,
        ))  # fmt: skip

    def broadcast(self, place: tuple[int, str]) -> bytes:
        """A function of all lists closed before."""
        earlier = self.places[: self.places.index(place)]
        before = [row for row in self.disk.of(rows.Closed) if (row.round, row.phase) in earlier]
        text = repr(sorted(before))
        return (sha(text.encode()) * (1 + len(text) % 2)).encode()[: len(text) % 77]

    def update(self, site: str, opened: m.Open, committed: list[Any]) -> bytes:
        """What a site computes: it shows what it was computed from."""
        state = [(entry.round, entry.phase) for entry in committed]
        told = [site, opened.round, opened.phase, opened.blob.digest, state, site_id(site) % 9 * "x"]
        return json.dumps(told).encode()

    def carry_out(self, who: str, command: Any) -> None:
        match command:
            case c.Send(site, message, payload):
                if isinstance(message, m.Accepted):
                    self.acknowledge(site, message)
                if self.bytes:
                    message = m.decode(m.encode(message))
                item = (message, bytes(payload))
                (self.up[who] if who else self.down[site]).put(item, self.now)
                self.stats[type(message).__name__] += 1
            case c.Validate(site, number, phase, digest, data):
                about = (site, number, phase, digest)
                assert sha(data) == digest
                invalid = site_id(site + repr(self.places)) % 7 == 0 and len(self.quorate(number, phase)) > 0
                self.later(who, c.Invalid(*about, "planted") if invalid else c.Valid(*about), self.disk_s)
            case c.Spool() | c.WriteRow() | c.WriteOutbox() | c.Commit() | c.Discard():
                self.later(who, ("disk", command), self.disk_s)
            case c.CloseRound():
                self.check_closed(command)
                self.later(who, "next", 1.0)
            case c.Work(opened, data):
                assert sha(data) == opened.blob.digest, "a broadcast that is not the one announced"
                done = self.update(who, opened, self.disk.committed[who])
                state = json.dumps([opened.round, opened.phase]).encode()
                self.later(who, c.Worked(opened.round, opened.phase, done, SCHEMA, state), self.work_s)
            case c.RememberEpoch(epoch):
                self.disk.seen[who] = max(epoch, self.disk.seen[who])
            case c.Tell(event):
                self.stats[event.kind] += 1
                if not who and not self.done:
                    self.told(event.kind, event.site)
            case c.Finished(ok, _, reason):
                assert ok, reason
            case c.Fenced():
                raise AssertionError("fenced by itself")

    def quorate(self, number: int, phase: str) -> list[str]:
        """Sites beyond the quorum: of so many, one may always be refused (else no round could ever close)."""
        start = self.keepers[""]._round.start
        return list(start.cohort[start.quorum :]) if start.quorum < len(start.cohort) - 1 else []

    def write(self, who: str, command: Any) -> None:
        if self.now < FAULTS_END and self.rng.random() < self.disk_full:
            self.stats["disk full"] += 1
            self.give(who, c.Failed(command, "No space left on device"))
            return
        self.effect(who, command)
        match command:
            case c.Spool(site, number, phase, digest, _):
                self.give(who, c.Spooled(site, number, phase, digest))
            case c.WriteRow(row):
                self.give(who, c.Journaled(row))
            case c.WriteOutbox(entry):
                self.give(who, c.Written(entry.digest))
            case c.Commit(entry) | c.Discard(entry):
                self.give(who, c.Settled(entry.digest))

    def effect(self, who: str, command: Any) -> None:
        match command:
            case c.Spool(_, _, _, digest, data):
                self.disk.spool[digest] = bytes(data)
            case c.WriteRow(row):
                self.disk.journal(row)
            case c.WriteOutbox(entry, data, state):
                assert sha(data) == entry.digest
                self.disk.pending[who] = (entry, data, state)
            case c.Commit(entry):
                assert self.disk.pending[who][0] == entry, "another update is pending"
                if entry not in self.disk.committed[who]:
                    self.disk.committed[who].append(entry)
                del self.disk.pending[who]
            case c.Discard(entry):
                assert self.disk.pending.pop(who)[0] == entry

    # ------------------------------------------------------------ what must hold

    def acknowledge(self, site: str, message: m.Accepted) -> None:
        place = (message.round, message.phase, site)
        row: Any = self.disk.rows.get((rows.Accepted, *place, 0))
        assert row is not None and row.digest == message.digest, "acknowledged and not journaled"
        self.acknowledged.add((*place, message.digest))

    def told(self, kind: str, site: str | None) -> None:
        """A coordinator says once that a site is lost, and once that it is back."""
        if site is not None and kind in ("site_lost", "site_back"):
            assert (site in self.there) == (kind == "site_lost"), f"said again that {site} is {kind}"
            self.there ^= {site}

    def check_closed(self, closed: c.CloseRound) -> None:
        start, place = None, (closed.round, closed.phase)
        row: Any = self.disk.rows[rows.Closed, *place, "", 0]
        assert row.accepted == closed.accepted, "not the list that was frozen"
        assert list(closed.accepted) == sorted(closed.accepted, key=lambda pair: site_id(pair[0]))
        plan = random.Random(repr(place) + repr(self.sites))
        start = plan.sample(self.sites, plan.randint(1, len(self.sites)))
        assert len(closed.accepted) >= plan.randint(1, len(start)), "closed below its quorum"
        assert {site for site, _ in closed.accepted} | set(closed.lost) == set(start)
        assert len({site for site, _ in closed.accepted}) == len(closed.accepted), "a site counts twice"

    def check_end(self) -> None:
        closed = {(row.round, row.phase): row for row in self.disk.of(rows.Closed)}
        for number, phase, site, digest in self.acknowledged:
            assert (site, digest) in closed[number, phase].accepted, "acknowledged and not in the sum"
        for site in self.sites:
            counted = [(*place, d) for place in self.places for s, d in closed[place].accepted if s == site]
            commits = [(e.round, e.phase, e.digest) for e in self.disk.committed[site]]
            assert commits == counted, f"{site} committed {commits}, counted {counted}"
            for n, (number, phase, digest) in enumerate(counted):
                name, of, in_, broadcast, state, _ = json.loads(self.disk.spool[digest])
                assert (name, of, in_) == (site, number, phase)
                assert state == [[a, b] for a, b, _ in counted[:n]], f"{site} worked from {state} in round {number}"
                opened = {r.broadcast for r in self.disk.of(rows.Opened) if (r.round, r.phase) == (number, phase)}
                assert {broadcast} == opened, "computed from another broadcast"
        self.stats["rounds"] += len(closed)
        self.stats["lost"] += sum(len(row.lost) for row in closed.values())
        self.stats["refused lists"] += sum(1 for row in closed.values() if row.lost)

    def state(self) -> str:
        sites = {s: str(k and (k.job, k._newest and k._newest.round, k._done)) for s, k in self.keepers.items() if s}
        keeper = self.keepers[""]
        shares = keeper and keeper._round and {s: h.part for s, h in keeper._round.shares.items()}
        return f"{sites} {shares} {keeper and keeper._round and keeper._round.state}"


def play(seeds: range) -> Counter[str]:
    total: Counter[str] = Counter()
    chunk, transfers.CHUNK = transfers.CHUNK, 16
    try:
        for seed in seeds:
            try:
                total += World(seed).run()
            except Exception as error:
                raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
    finally:
        transfers.CHUNK = chunk
    return total


def test_what_must_hold_with_every_annotation_checked():
    play(range(25))


def outside(many: int, first: int) -> Counter[str]:
    """Plays in a process of its own, where annotations are not checked: ten times as fast."""
    command = [sys.executable, __file__, str(many), str(first)]
    paths = {**os.environ, "PYTHONPATH": str(Path(learner_jax.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=paths)
    assert done.returncode == 0, done.stderr.strip().splitlines()[-1]
    print(done.stdout)
    return Counter(json.loads(done.stdout.partition(": ")[2]))


def test_what_must_hold_under_any_schedule():
    stats = outside(1000, 1000)
    for kind in ("kill site", "kill coordinator", "disk full", "lost", "Rejected", "site_lost", "site_back", "Bye"):
        assert stats[kind] > 100, f"expected schedules with {kind}, got {stats[kind]}"


@pytest.mark.soak
def test_what_must_hold_under_many_schedules():
    outside(100_000, 10_000)


if __name__ == "__main__":
    began, many = time.monotonic(), int(sys.argv[1])
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    counts = play(range(first, first + many))
    took = time.monotonic() - began
    print(f"{many} schedules in {took:.1f} s ({many / took:.0f} a second), 0 violations: {json.dumps(counts)}")
