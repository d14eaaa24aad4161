"""What is let through to a study, decided frame by frame: sizes, who may send what, and how fast. Pure, keeps no study.

The coordinator embeds it; a broker that stands alone asks the same questions.
"""

from __future__ import annotations

from typing import NamedTuple

from learner_jax.protocol.messages import CHUNK, ENROL_LIMIT, HEADER_LIMIT

ENROL = "enrol:"
"""What the user id of a one-time key begins with."""


SEALED = 512
"""Bytes that signatures, seals and names may add to a frame through a broker."""


def admit(user: str, header: int, payload: int, sealed: bool = False) -> str | None:
    """Whether frames of these sizes may pass.

    Args:
      user: as ZAP knows the sender.
      header, payload: bytes.
      sealed: whether the frames are signed and sealed, and so may be a little longer.

    Returns:
      None, or the reason why not.
    """
    more = SEALED if sealed else 0
    header, payload = max(0, header - more), max(0, payload - more)
    if user.startswith(ENROL):
        if payload or header > ENROL_LIMIT:
            return f"expected one enrolment of at most {ENROL_LIMIT} bytes from a one-time key, got {header + payload}"
    elif header > HEADER_LIMIT:
        return f"expected a header of at most {HEADER_LIMIT} bytes, got {header}"
    elif payload > CHUNK:
        return f"expected a chunk of at most {CHUNK} bytes, got {payload}"
    return None


_ACCOUNTS = 4096
"""Peers of which an account is kept: whoever makes up names makes no more."""


class Bucket(NamedTuple):
    """How much a peer may still send at once, and when that was."""

    left: float
    at: float


class Meter:
    """A rate limit a peer: so many messages a second, in bursts of at most `burst`.

    Args:
      rate: messages a second. Chunks of 1 MiB at 10 Gbit/s are 1,200.
      burst: messages at once.
    """

    def __init__(self, rate: float = 2000.0, burst: float = 4000.0):
        self._rate, self._burst = rate, burst
        self._buckets: dict[str, Bucket] = {}

    def allow(self, user: str, now: float) -> bool:
        """Counts one message; False if it is one too many."""
        left, at = self._buckets.get(user, Bucket(self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        self._buckets[user] = Bucket(left - 1 if left >= 1 else left, now)
        if len(self._buckets) > _ACCOUNTS:
            self._drop_the_full(now)
        return left >= 1

    def _drop_the_full(self, now: float) -> None:
        """An account that is full again is as a new one; of the others, if they are many, those used last stay."""
        busy = [item for item in self._buckets.items() if item[1].left + (now - item[1].at) * self._rate < self._burst]
        self._buckets = dict(sorted(busy, key=lambda item: item[1].at)[-_ACCOUNTS // 2 :])

    def forget(self, user: str) -> None:
        """Drops a peer's account."""
        self._buckets.pop(user, None)
