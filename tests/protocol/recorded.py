"""A whole study's frames, both ways, as a release of the protocol said them; and today's machines that hear them again.

`python tests/protocol/recorded.py > tests/protocol/fixtures/protocol-1.0.jsonl`, with the PYTHONPATH of the release,
records; nothing here may need what that release lacks. A recording is lines of JSON: the fields that each kind of
message had, how the study ended, and the frames ("" is the coordinator). It holds what a study meets: a site that is
absent at first, an update that does not pass the checks, a site that leaves in the middle and comes back.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import sys
from pathlib import Path
from typing import Any

from learner_jax.protocol import commands as c
from learner_jax.protocol import messages as m
from learner_jax.protocol import transfers
from learner_jax.protocol.coordinator import RoundKeeper
from learner_jax.protocol.site import SiteKeeper

SITES = ("north", "south", "west")
PLACES = ((0, "statistics"), (1, "train"), (2, "train"), (3, "look"))
SCHEMA, DIGEST, DONE = "5" * 64, "d" * 64, "e" * 64
CHUNK, TICK, LATENCY, END = 16, 0.1, 0.05, 60.0


def sha(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def broadcast(place: tuple[int, str]) -> bytes:
    """What a round is computed from: three chunks, of which the last is short."""
    return f"broadcast of round {place[0]}, {place[1]}".encode().ljust(40, b".")


def update(name: str, opened: m.Open, data: bytes | memoryview) -> bytes:
    """A function of the round and the site; one of them does not pass the checks."""
    bad = (name, opened.round) == ("west", 1)
    return f"{'bad' if bad else 'sum'} {name} {opened.round} {sha(data)[:20]}".encode()


class Coordinator:
    """A machine whose disk and engine answer at once. closed: what each round closed with."""

    def __init__(self) -> None:
        self.keeper = RoundKeeper("study", 1, b'{"name":"study"}', DIGEST, SITES)
        self.closed: list[list[Any]] = []
        self.came: dict[str, bytes] = {}  # what has come of a site's newest update

    def begin(self, now: float) -> list[c.Send]:
        return self._next(now)

    def give(self, event: Any, now: float) -> list[c.Send]:
        said: list[c.Send] = []
        for command in self.keeper.handle(event, now):
            if isinstance(command, c.Send):
                said.append(command)
            elif isinstance(command, c.Append):
                before = self.came[command.site][: command.offset] if command.offset else b""
                self.came[command.site] = before + bytes(command.data)
            elif isinstance(command, c.Validate):
                about = (command.site, command.round, command.phase, command.digest)
                bad = self.came[command.site].startswith(b"bad")
                said += self.give(c.Invalid(*about, "expected a sum") if bad else c.Valid(*about), now)
            elif isinstance(command, c.Spool):
                said += self.give(c.Spooled(command.site, command.round, command.phase, command.digest), now)
            elif isinstance(command, c.WriteRow):
                said += self.give(c.Journaled(command.row), now)
            elif isinstance(command, c.CloseRound):
                self.closed.append(json.loads(json.dumps(command)))
                said += self._next(now)
        return said

    def _next(self, now: float) -> list[c.Send]:
        if len(self.closed) == len(PLACES):
            return self.give(c.Finish(DONE, "the study is over"), now)
        place = PLACES[len(self.closed)]
        quorum = 2 if place[1] == "train" else 3
        start = c.StartRound(*place, SITES, broadcast(place), SCHEMA, SCHEMA, None, quorum, 20.0)
        return self.give(start._replace(fields={"lr": 0.5, "mode": "x"}), now)


class Site:
    """A machine whose disk and engine answer at once. committed: the rounds whose state became its own."""

    def __init__(self, name: str):
        self.name, self.keeper = name, SiteKeeper("study", name, "learner-jax 0.1.0")
        self.committed: list[list[Any]] = []

    def give(self, event: Any, now: float) -> list[c.Send]:
        said: list[c.Send] = []
        for command in self.keeper.handle(event, now):
            if isinstance(command, c.Send):
                said.append(command)
            elif isinstance(command, c.Approve):
                said += self.give(c.Approved(command.manifest_digest), now)
            elif isinstance(command, c.Work):
                done = update(self.name, command.open, command.data)
                said += self.give(c.Worked(command.open.round, command.open.phase, done, SCHEMA, b"state"), now)
            elif isinstance(command, c.WriteOutbox):
                said += self.give(c.Written(command.entry.digest), now)
            elif isinstance(command, c.Commit | c.Discard):
                if isinstance(command, c.Commit):
                    self.committed.append(json.loads(json.dumps(command.entry)))
                said += self.give(c.Settled(command.entry.digest), now)
        return said

    def ended(self) -> list[Any]:
        """What this site's study came to."""
        return [self.committed, json.loads(json.dumps(self.keeper.finished))]


def record() -> list[dict[str, Any]]:
    """Plays the study between the machines of this release."""
    transfers.CHUNK = CHUNK
    coordinator, sites = Coordinator(), {name: Site(name) for name in SITES}
    frames: list[dict[str, Any]] = []
    line: list[tuple[float, int, dict[str, Any]]] = []

    def say(who: str, said: list[c.Send], now: float) -> None:
        for send in said:
            at = round(now + LATENCY, 3)
            frame = {"at": at, "from": who, "to": send.site if not who else "", "header": m.encode(send.message).hex()}
            frames.append({**frame, **({"payload": bytes(send.payload).hex()} if len(send.payload) else {})})
            heapq.heappush(line, (at, len(frames), frames[-1]))

    def tick(now: float) -> None:
        say("", coordinator.give(c.Tick(), now), now)
        for name, site in sites.items():
            if not away(name, now):
                say(name, site.give(c.Tick(), now), now)

    say("", coordinator.begin(0.0), 0.0)
    ticks = 0
    while ticks * TICK < END:
        while line and line[0][0] <= ticks * TICK:
            at, _, frame = heapq.heappop(line)
            if not away(frame["from"] or frame["to"], at):
                say(frame["to"], heard(sites[frame["to"]] if frame["to"] else coordinator, frame), at)
        tick(ticks * TICK)
        ticks += 1
    kinds = {cls.__name__.lower(): list(cls._fields) for cls in m._SCHEMA}
    ends = {name: site.ended() for name, site in sites.items()}
    head = {"protocol": list(m.PROTOCOL), "chunk": CHUNK, "fields": kinds, "closed": coordinator.closed, "sites": ends}
    return [head, *frames]


def away(name: str, now: float) -> bool:
    """South comes late, and hears and says nothing for longer than a lease."""
    return name == "south" and (now < 3.0 or 3.3 < now < 21.0)


def heard(who: Coordinator | Site, frame: dict[str, Any]) -> list[c.Send]:
    """One recorded frame, to a machine of today."""
    message = m.decode(bytes.fromhex(frame["header"]), frame["from"] or "the coordinator")
    return who.give(c.Heard(frame["from"], message, bytes.fromhex(frame.get("payload", ""))), frame["at"])


def replay(lines: list[dict[str, Any]], name: str) -> tuple[Any, list[c.Send]]:
    """One machine of today among the others of a recording.

    Args:
      lines: of the recording.
      name: which machine; "" for the coordinator.

    Returns:
      (what its study came to, all that it said).
    """
    before, transfers.CHUNK = transfers.CHUNK, lines[0]["chunk"]
    try:
        who = Site(name) if name else Coordinator()
        said = who.begin(0.0) if isinstance(who, Coordinator) else []
        line = [f for f in sorted(lines[1:], key=lambda f: f["at"]) if f["to"] == name]
        line = [frame for frame in line if not away(frame["from"] or name, frame["at"])]
        for ticks in range(round(END / TICK)):
            while line and line[0]["at"] <= ticks * TICK:
                said += heard(who, line.pop(0))
            if not away(name, ticks * TICK):
                said += who.give(c.Tick(), ticks * TICK)
        return who.closed if isinstance(who, Coordinator) else who.ended(), said
    finally:
        transfers.CHUNK = before


def load(path: Path) -> list[dict[str, Any]]:
    """The lines of a recording."""
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    sys.stdout.write("".join(json.dumps(line) + "\n" for line in record()))
