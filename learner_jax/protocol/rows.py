"""What a coordinator's journal holds: one NamedTuple a kind of row.

A round goes OPENED -> ACCEPTED (once a site) -> CLOSED -> AGGREGATED -> MEASURED -> COMMITTED. The round keeper asks
for the first three; the engine writes the others.
"""

from __future__ import annotations

from typing import NamedTuple


class Opened(NamedTuple):
    """A round was opened (again, if attempt > 1).

    Attributes:
      round: from 1 (0 for what comes before the first round).
      phase: "statistics" (or a further one of `messages.STATISTICS`), "enter", "train", "look", "calibrate"
        or "finish".
      attempt: from 1; one more each time a restarted coordinator opens the same round.
      epoch: the coordinator's incarnation.
      cohort: names of the sites asked.
      broadcast: sha256 of the bytes that they were sent.
    """

    round: int
    phase: str
    attempt: int
    epoch: int
    cohort: tuple[str, ...]
    broadcast: str


class Accepted(NamedTuple):
    """A site's update is spooled and counts. Unique per (round, phase, site).

    Attributes:
      digest: sha256 of the update, its name in the spool.
      size: its bytes.
      origin: the round whose broadcast it was computed from, where that is an earlier one; 0 where it is this one.
    """

    round: int
    phase: str
    site: str
    digest: str
    size: int
    origin: int = 0


class Closed(NamedTuple):
    """The accepted list is frozen.

    Attributes:
      accepted: (site, digest) in ascending order of site id.
      lost: sites of the cohort that are not in it.
    """

    round: int
    phase: str
    accepted: tuple[tuple[str, str], ...]
    lost: tuple[str, ...] = ()


class Aggregated(NamedTuple):
    """The accepted updates were added up."""

    round: int
    phase: str


class Measured(NamedTuple):
    """What is told of a round that is over.

    Attributes:
      figures: its row of the curve, and what it found of the round before, as JSON.
    """

    round: int
    figures: str


class Committed(NamedTuple):
    """The round's new server state is known.

    Attributes:
      digest: of the server state, 128 bits in hex.
    """

    round: int
    digest: str


Row = Opened | Accepted | Closed | Aggregated | Measured | Committed
"""Any row of the journal."""
