"""What a study will take, before it starts: bytes on each line, memory of each process, seconds a round and hours.

Bytes are those of the messages that a round cannot do without, at the sizes that the wire gives them: exact where all
that is sent is new and does not compress; of buffered rounds, as if every site answered each. What is said again on a
bad line, and a ping every few seconds, come on top. Time and memory are estimates: of the compute nothing is known
before the first rounds have shown it, and the line is what somebody says that it is.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from learner_jax.leaves import PIECE_ENTRY
from learner_jax.protocol import messages as m
from learner_jax.protocol.transfers import WINDOW

LAN_MBIT = 1000.0
"""A line of which nobody has said anything."""
LAN_DELAY_S, FAR_DELAY_S = 0.001, 0.04
TURNS = 4
"""Times that a round waits for the other side: open and want, chunk and offer, want and chunk, accepted and open."""
OVERHEAD_S = 0.03
"""A round beside the line and the compute: what is written to disk before it is told to anyone."""
STEP_S, FLOPS = 2e-4, 4e9
"""A local step takes this at least, and computes so fast on one core; both are guesses until a round was seen."""
BATCH_FLOPS = 6
"""Operations for each weight and row of a batch, there and back."""
COORDINATOR_IDLE, COORDINATOR_TIMES, BESIDE = 540e6, 2.6, (8.0, 160e6)
"""Bytes of a coordinator's process, how often it holds what is sent, at its peak, and what reading and saving take
beside: so many times what is sent, at most so many bytes. Within an eighth of what `benchmarks/forecast.py` and
`benchmarks/memory.py` measured from 0.1 MB to 1 GB (benchmarks/results; a test holds them against each other)."""
WORKER_IDLE, WORKER_TIMES = 660e6, 10.0
"""The same of a site's, with the rows of two sites of the sample."""
_DIGEST = "0" * 64


class Line(NamedTuple):
    """How fast a line is.

    Attributes:
      mbit: of each site's line, megabits a second each way; None for a local network's.
      coordinator_mbit: of the line that all sites share at the coordinator.
    """

    mbit: float | None = None
    coordinator_mbit: float = LAN_MBIT

    @property
    def delay_s(self) -> float:
        """There and back."""
        return LAN_DELAY_S if self.mbit is None else FAR_DELAY_S


class Sizes(NamedTuple):
    """What of a study decides what it takes.

    Attributes:
      study: its name.
      sites: names of all that are enrolled.
      rounds: learning rounds.
      asked: (round) -> names of the sites asked in it.
      broadcast, update: bytes of what goes down to a site and comes up from it in a round.
      weights: numbers in the model.
      steps: local steps a site and round, None where nobody knows the rows.
      batch_size: rows a step.
      pieces: in broadcast and update, each of which their tables name.
      epoch: the coordinator's incarnation, which messages name.
      alone: a site trains once more, alone, at the end.
    """

    study: str
    sites: tuple[str, ...]
    rounds: int
    asked: Callable[[int], Sequence[str]]
    broadcast: int
    update: int
    weights: int
    steps: float | None
    batch_size: int
    pieces: tuple[int, int] = (0, 0)
    epoch: int = 1
    alone: bool = False


class Traffic(NamedTuple):
    """Bytes of headers and payloads, as a link counts them."""

    up: int
    down: int


# ---------------------------------------------------------------------------------------------- bytes, exactly


def of_site(sizes: Sizes, site: str, number: int) -> Traffic:
    """What one site's part in one training round puts on its line."""
    counts = len(sizes.asked(number)), len(sizes.sites)
    what = sizes.broadcast, sizes.update, *sizes.pieces
    return _traffic(sizes.study, site, _as_long(number), sizes.epoch, *counts, *what)


def of_round(sizes: Sizes, number: int) -> Traffic:
    """What a round puts on the coordinator's line, if every site asked takes part."""
    parts = [of_site(sizes, site, number) for site in sizes.asked(number)]
    return Traffic(sum(part.up for part in parts), sum(part.down for part in parts))


def _as_long(number: int) -> int:
    """The smallest number that msgpack writes in as many bytes, so that like rounds are counted once."""
    return max(least for least in (0, 2**7, 2**8, 2**16) if least <= number)


@functools.lru_cache(4096)
def _traffic(
    study: str, site: str, number: int, epoch: int, cohort: int, enrolled: int, broadcast: int, update: int,
    broadcast_pieces: int, update_pieces: int,
) -> Traffic:  # fmt: skip
    sent, got = m.Blob(_DIGEST, broadcast, _DIGEST), m.Blob(_DIGEST, update, _DIGEST)
    tables = [bytes(PIECE_ENTRY * many) for many in (broadcast_pieces, update_pieces)]
    opened = m.Open(study, epoch, number, "train", 1, cohort, enrolled, sent, {}, tables[0])
    offer = m.Offer(study, epoch, number, "train", 1, site, _DIGEST, got, tables[1])
    accepted = m.Accepted(study, epoch, number, "train", _DIGEST)
    down, wanted = _blob(study, broadcast)
    up, wants = _blob(study, update)
    return Traffic(
        wanted + len(m.encode(offer)) + len(tables[1]) + up,
        len(m.encode(opened)) + len(tables[0]) + down + wants + len(m.encode(accepted)),
    )


@functools.lru_cache(64)
def _blob(study: str, size: int) -> tuple[int, int]:
    """(bytes of a blob's chunks, bytes of what asks for them)."""
    count = -(-size // m.CHUNK)
    chunks = [m.Chunk(study, _DIGEST, at * m.CHUNK, at + 1 == count) for at in range(count)]
    asks = [m.Want(study, _DIGEST, at * m.CHUNK, credit, b"", "zstd") for at, credit in wants(count)]
    return size + sum(len(m.encode(chunk)) for chunk in chunks), sum(len(m.encode(ask)) for ask in asks)


def wants(count: int) -> list[tuple[int, int]]:
    """(first chunk, how many) of what a receiver asks for, where nothing is lost: a window, then half a window each."""
    asks, at = [], 0
    while at < count:
        credit = min(WINDOW if not at else WINDOW // 2, count - at)
        asks.append((at, credit))
        at += credit
    return asks


# ---------------------------------------------------------------------------------------------- time and memory


def transfer_s(sizes: Sizes, line: Line, number: int = 1) -> float:
    """Seconds of a round that pass on the line: each site on its own, all on the coordinator's."""
    asked = sizes.asked(number)
    parts = [of_site(sizes, site, number) for site in asked]
    mbit = LAN_MBIT if line.mbit is None else line.mbit
    slowest = [max((part[way] for part in parts), default=0) for way in (0, 1)]
    together = [sum(part[way] for part in parts) for way in (0, 1)]
    moving = sum(
        max(one / mbit, all_ / line.coordinator_mbit) for one, all_ in zip(slowest, together, strict=True)
    )  # fmt: skip
    return moving * 8e-6 + TURNS * line.delay_s


def compute_s(sizes: Sizes) -> float:
    """Seconds of a round that a site computes: a guess, from rows and weights."""
    steps = 10.0 if sizes.steps is None else sizes.steps
    step = max(STEP_S, BATCH_FLOPS * sizes.weights * sizes.batch_size / FLOPS)
    return steps * step


def memory(sizes: Sizes) -> tuple[float, float]:
    """(bytes of the coordinator's process, of a site's)."""
    most = max(sizes.broadcast, sizes.update)
    beside = min(BESIDE[0] * most, BESIDE[1])
    return COORDINATOR_IDLE + COORDINATOR_TIMES * most + beside, WORKER_IDLE + WORKER_TIMES * most


def forecast(sizes: Sizes, line: Line = Line(), computed_s: float | None = None) -> dict[str, Any]:
    """What a study will take, as plain values.

    Args:
      sizes: of the study.
      line: of the sites and the coordinator.
      computed_s: seconds of a round beside the line, once they were measured; None for a guess.

    Returns:
      {"sites", "cohort", "rounds", "line_mbit", "measured"}; bytes of one site and round, "up" and "down" (means);
      of the whole study, "bytes_up" and "bytes_down"; "round_s", of which "transfer_s"; "seconds" of all rounds and
      what follows; "coordinator_bytes" and "worker_bytes" of memory.
    """
    rounds = [of_round(sizes, number) for number in range(1, sizes.rounds + 1)]
    up, down = sum(one.up for one in rounds), sum(one.down for one in rounds)
    parts = sum(len(sizes.asked(number)) for number in range(1, sizes.rounds + 1))
    moving = transfer_s(sizes, line)
    computing = compute_s(sizes) + OVERHEAD_S if computed_s is None else computed_s
    coordinator, worker = memory(sizes)
    return {
        "sites": len(sizes.sites),
        "cohort": len(sizes.asked(1)),
        "rounds": sizes.rounds,
        "line_mbit": line.mbit,
        "measured": computed_s is not None,
        "up": up / parts,
        "down": down / parts,
        "bytes_up": up,
        "bytes_down": down,
        "round_s": moving + computing,
        "transfer_s": moving,
        "seconds": sizes.rounds * (moving + computing * (2 if sizes.alone else 1)),
        "coordinator_bytes": coordinator,
        "worker_bytes": worker,
    }


SEEN = 2
"""After so many rounds the forecast is made anew: the first compiles, the second shows what a round takes."""


def seen(sizes: Sizes, line: Line, curve: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The forecast anew, from what the last round of the curve took."""
    return forecast(sizes, line, max(0.0, curve[-1]["seconds"] - transfer_s(sizes, line)))


def compared(told: Mapping[str, Any], curve: Sequence[Mapping[str, Any]], seconds: float, peak: float) -> dict:
    """The same figures as they came to be, beside what was told.

    Args:
      told: of `forecast`.
      curve: a run's rounds, with "seconds", "bytes_up", "bytes_down", "sites" and "lost".
      seconds: of the whole run.
      peak: bytes of this process at most.

    Returns:
      `told` and, under "was", "up", "down", "bytes_up", "bytes_down", "round_s", "seconds", "coordinator_bytes".
    """
    parts = sum(len(row["sites"]) for row in curve) or 1
    took = [row["seconds"] for row in curve[1:] or curve]
    up, down = (sum(row[way] for row in curve) for way in ("bytes_up", "bytes_down"))
    was = {
        "up": up / parts,
        "down": down / parts,
        "bytes_up": up,
        "bytes_down": down,
        "round_s": statistics.median(took) if took else 0.0,
        "seconds": seconds,
        "coordinator_bytes": peak,
    }
    return {**told, "was": was}
