"""What a site has to hand in: the header of its outbox."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """One update that is ready and not yet acknowledged.

    Attributes:
      round: from 1 (0 for what comes before the first round).
      phase: "statistics" (or a further one of `messages.STATISTICS`), "enter", "train", "look", "calibrate"
        or "finish".
      broadcast: sha256 of the bytes that it was computed from.
      digest: sha256 of the update.
      size: its bytes.
      schema_digest: of its leaves (`leaves.schema_digest`).
      pieces: table of its pieces (`leaves.pieces`), in hexadecimal.
    """

    round: int
    phase: str
    broadcast: str
    digest: str
    size: int
    schema_digest: str
    pieces: str = ""
