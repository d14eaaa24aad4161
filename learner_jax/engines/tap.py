"""What leaves and comes, to the byte, for whoever wants to look: LEARNER_TAP names a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

VARIABLE = "LEARNER_TAP"


def tap_to(who: str) -> Callable[[str, str, bytes, bytes | memoryview], None] | None:
    """A tap that appends every message, before it is encrypted, to files in the folder of LEARNER_TAP.

    Args:
      who: this process, "coordinator" or a site's name; part of the file's name.

    Returns:
      None where the variable is not set.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder) / f"{who}-{os.getpid()}.frames"

    def tap(direction: str, peer: str, header: bytes, payload: bytes | memoryview) -> None:
        with path.open("ab") as file:
            file.write(f"\n{direction} {peer} {len(header)} {len(payload)}\n".encode())
            file.write(header)
            file.write(payload)

    return tap
