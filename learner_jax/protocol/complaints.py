"""What a peer does wrong, said once a minute with a count: a flood of it does not fill the log. Pure."""

from __future__ import annotations

EVERY_S = 60.0


class Complaints:
    """Which complaints are said at once, and how many of a kind are kept for later.

    Args:
      every_s: a complaint of one kind about one peer is said once in this time.
    """

    def __init__(self, every_s: float = EVERY_S):
        self._every = every_s
        self._said: dict[tuple[str, str], tuple[float, int]] = {}  # when, and how many times since

    def first(self, peer: str, kind: str, now: float) -> bool:
        """Counts one; whether it is the first of its kind, to be said in full."""
        at, more = self._said.get((peer, kind), (now, -1))
        self._said[peer, kind] = at, more + 1
        return more < 0

    def due(self, now: float) -> list[tuple[str, str, int]]:
        """(peer, kind, how many more times) of those whose time is over; give it the time now and then."""
        over = [key for key, (at, _) in self._said.items() if now - at >= self._every]
        found = []
        for key in over:
            more = self._said[key][1]
            if more:
                self._said[key] = now, 0
                found.append((*key, more))
            else:
                del self._said[key]
        return found
