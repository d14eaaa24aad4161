"""Links without sockets, for tests: a line that loses, doubles, delays and reorders messages under a seed.

`Line` is the pretend line with a clock of its caller's; `MemoryHub` makes of two lines a site something that is driven
like `CoordinatorLink` and `SiteLink` in threads.
"""

from __future__ import annotations

import heapq
import random
import threading
import time
from typing import Any, NamedTuple

from learner_jax.network.links import Counter, Received


class Faults(NamedTuple):
    """How bad a line is: chances of losing and doubling a message; each takes 0 to delay_s, so they reorder."""

    loss: float = 0.0
    double: float = 0.0
    delay_s: float = 0.0


class Line:
    """One direction of a line.

    Args:
      rng: decides every fault.
      faults: how bad it is; may be changed at any time.
    """

    def __init__(self, rng: random.Random, faults: Faults = Faults()):
        self._rng, self.faults = rng, faults
        self._under_way: list[tuple[float, int, Any]] = []
        self._count = 0

    def put(self, item: Any, now: float) -> None:
        """Sends one message."""
        if self._rng.random() < self.faults.loss:
            return
        for _ in range(1 + (self._rng.random() < self.faults.double)):
            self._count += 1
            heapq.heappush(self._under_way, (now + self._rng.random() * self.faults.delay_s, self._count, item))

    def get(self, now: float) -> Any | None:
        """The next message that has arrived, or None."""
        if self._under_way and self._under_way[0][0] <= now:
            return heapq.heappop(self._under_way)[2]
        return None

    def due(self) -> float | None:
        """When the next message arrives."""
        return self._under_way[0][0] if self._under_way else None

    def cut(self) -> None:
        """Loses all that is under way."""
        self._under_way.clear()


class _End:
    """What both ends share: waiting for a line with one condition, and being woken."""

    def __init__(self, ready: threading.Condition):
        self.counter = Counter()
        self._ready, self._woken = ready, False

    def wake(self) -> None:
        """Ends a `recv` that waits. From any thread."""
        with self._ready:
            self._woken = True
            self._ready.notify_all()

    def close(self) -> None:
        """Nothing to close."""

    def _wait(self, lines: dict[str, Line], timeout_s: float | None) -> tuple[str, Any] | None:
        stop = None if timeout_s is None else time.monotonic() + timeout_s
        with self._ready:
            while True:
                now = time.monotonic()
                for name, line in lines.items():
                    found = line.get(now)
                    if found is not None:
                        self.counter.bytes_in += sum(map(len, found))
                        self.counter.messages_in += 1
                        return name, found
                if self._woken or (stop is not None and now >= stop):
                    self._woken = False
                    return None
                until = [due for line in lines.values() if (due := line.due()) is not None]
                until += [] if stop is None else [stop]
                self._ready.wait(max(0.0, min(until) - now) if until else None)

    def _put(self, line: Line, header: bytes, payload: bytes | memoryview) -> bool:
        with self._ready:
            line.put((header, payload), time.monotonic())
            self._ready.notify_all()
        self.counter.bytes_out += len(header) + len(payload)
        self.counter.messages_out += 1
        return True


class MemoryCoordinatorLink(_End):
    """`CoordinatorLink` without a socket."""

    def __init__(self, ready: threading.Condition, up: dict[str, Line], down: dict[str, Line]):
        super().__init__(ready)
        self._up, self._down = up, down

    def recv(self, timeout_s: float | None = None) -> Received | None:
        """As `CoordinatorLink.recv`."""
        found = self._wait(self._up, timeout_s)
        return None if found is None else Received(found[0], found[0].encode(), *found[1])

    def send(self, user: str, header: bytes, payload: bytes | memoryview = b"") -> bool:
        """As `CoordinatorLink.send`."""
        return user in self._down and self._put(self._down[user], header, payload)

    def forget(self, user: str) -> None:
        """Nothing to forget."""


class MemorySiteLink(_End):
    """`SiteLink` without a socket."""

    connected = True

    def __init__(self, ready: threading.Condition, up: Line, down: Line):
        super().__init__(ready)
        self._up, self._down = up, down

    def recv(self, timeout_s: float | None = None) -> tuple[bytes, bytes | memoryview] | None:
        """As `SiteLink.recv`."""
        found = self._wait({"": self._down}, timeout_s)
        return None if found is None else found[1]

    def send(self, header: bytes, payload: bytes | memoryview = b"") -> bool:
        """As `SiteLink.send`."""
        return self._put(self._up, header, payload)


class MemoryHub:
    """A coordinator's link and one for each site, joined by bad lines.

    Args:
      sites: user ids.
      seed: decides every fault.
      faults: of all lines.
    """

    def __init__(self, sites: tuple[str, ...], seed: int = 0, faults: Faults = Faults()):
        rng, ready = random.Random(seed), threading.Condition()
        up, down = ({site: Line(rng, faults) for site in sites} for _ in range(2))
        self.coordinator = MemoryCoordinatorLink(ready, up, down)
        self.sites = {site: MemorySiteLink(ready, up[site], down[site]) for site in sites}
