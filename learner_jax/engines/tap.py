"""What leaves and comes, to the byte, for whoever wants to look: LEARNER_TAP names a folder.

What is written is what encryption hides from everyone else: updates, which can tell about patients, in the clear, and
as they were before chunks were compressed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from learner_jax.errors import RemoteProtocolError
from learner_jax.protocol import messages as m
from learner_jax.protocol.zipped import unzipped

VARIABLE = "LEARNER_TAP"


def tap_to(who: str) -> Callable[[str, str, bytes, bytes | memoryview], None] | None:
    """A tap that appends every message, before it is encrypted, to files in the folder of LEARNER_TAP; stderr hears so.

    The folder, if it is made here, and the files are for this user alone.

    Args:
      who: this process, "coordinator" or a site's name; part of the file's name.

    Returns:
      None where the variable is not set.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        return None
    Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    path = Path(folder) / f"{who}-{os.getpid()}.frames"
    warning = f"WARNING: {VARIABLE} is set, so every message of {who} is written IN THE CLEAR to {path}: "
    print(warning + "it can tell about patients; unset it unless you are looking", file=sys.stderr, flush=True)

    def tap(direction: str, peer: str, header: bytes, payload: bytes | memoryview) -> None:
        payload = plain(header, payload)
        with open(path, "ab", opener=_private) as file:
            file.write(f"\n{direction} {peer} {len(header)} {len(payload)}\n".encode())
            file.write(header)
            file.write(payload)

    return tap


def plain(header: bytes, payload: bytes | memoryview) -> bytes | memoryview:
    """What a payload says: a compressed chunk's bytes, else itself."""
    try:
        message = m.decode(header)
        if isinstance(message, m.Chunk) and message.zip:
            return unzipped(payload, None, "the line")
    except RemoteProtocolError:  # it will be refused, and is looked at as it came
        pass
    return payload


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
