"""What a site on the roster may send that is wrong, and a process that sends much of it.

`python -m tests.network.flood` reads one JSON line: {"address", "server", "keys": [public, secret], "count", "facts":
fields of `Facts`}, says Hello, and sends so many frames, whatever comes back.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack

from learner_jax.network.links import SiteLink
from learner_jax.protocol import messages as m

Frames = tuple[bytes, bytes]
DIGEST = "a" * 64


class Facts(NamedTuple):
    """What the sender knows of the open round, so that only one thing is wrong with what it sends."""

    study: str
    epoch: int
    round: int
    broadcast: str
    schema: str
    size: int
    site: str = "mallory"


def offer(facts: Facts, **change: Any) -> m.Offer:
    """An update as it should be announced, but for a change."""
    blob = m.Blob(DIGEST, facts.size, facts.schema)
    about = (facts.study, facts.epoch, facts.round, "train", 1, facts.site, facts.broadcast, blob)
    return m.Offer(*about)._replace(**change)


def raw(message: m.Message, **change: Any) -> bytes:
    """A header that our own side would not send."""
    values = {**msgpack.unpackb(m.encode(message)), **change}
    packed: Any = msgpack.packb({name: value for name, value in values.items() if value is not ...})
    return packed


# name -> (frames, a part of the reason): each is refused, and leaves the site free to offer its update
WRONG: dict[str, tuple[Callable[[Facts], Frames], str]] = {
    "bytes that are no msgpack": (lambda f: (b"\xc1" * 40, b""), "expected a msgpack header"),
    "nothing": (lambda f: (b"", b""), "expected a msgpack header"),
    "nested 60,000 deep": (lambda f: (b"\x91" * 60_000 + b"\xc0", b""), "expected a msgpack header"),
    "nested 1,000 deep": (lambda f: (b"\x81\xa4kind" + b"\x91" * 1000 + b"\xc0", b""), "of a known kind, got list"),
    "a map that claims 4 billion entries": (lambda f: (b"\xdf\xff\xff\xff\xff", b""), "expected a msgpack header"),
    "a text that claims 4 GB": (lambda f: (b"\xdb\xff\xff\xff\xff", b""), "expected a msgpack header"),
    "an unknown kind": (lambda f: (raw(offer(f), kind="evil"), b""), "expected a message of a known kind"),
    "an unknown field": (lambda f: (raw(offer(f), extra=1), b""), "unknown field"),
    "a missing field": (lambda f: (raw(offer(f), blob=...), b""), "which is missing"),
    "a wrong type": (lambda f: (raw(offer(f), round="1"), b""), "expected a whole number"),
    "a size of 2^62": (lambda f: (raw(offer(f), blob=[DIGEST, 2**62, DIGEST]), b""), "expected a whole number"),
    "NaN among the fields": (
        lambda f: (raw(m.Open("s", 1, 1, "train", 1, 1, 1, m.Blob(DIGEST, 1, DIGEST), {}), fields={"x": float("nan")}),
                   b""),
        "expected numbers and short texts",
    ),
    "a header of 70,000 bytes": (lambda f: (b"x" * 70_000, b""), "expected a header of at most"),
    "a chunk that is too long": (
        lambda f: (m.encode(m.Chunk(f.study, DIGEST, 0, True)), bytes(m.CHUNK + 600)), "expected a chunk of at most"
    ),
    "what sites do not send": (lambda f: (m.encode(m.Pong(f.study, 1)), b""), "sent a Pong"),
    "another study": (lambda f: (m.encode(m.Ping("other", 1, 1, "train")), b""), "expected a site of study"),
    "another site's name": (lambda f: (m.encode(offer(f, site="honest")), b""), "whose key this is"),
    "a replay of an earlier epoch": (lambda f: (m.encode(offer(f, epoch=f.epoch - 1)), b""), "stale epoch"),
    "a round to come": (lambda f: (m.encode(offer(f, round=99)), b""), "of a later round than 1"),
    "another broadcast": (lambda f: (m.encode(offer(f, broadcast=DIGEST)), b""), "from another broadcast"),
    "another protocol": (
        lambda f: (m.encode(m.Hello(f.study, (9, 0), f.site, "", 0)), b""), "expected protocol"
    ),
}  # fmt: skip


def main() -> None:
    """Sends in turn all that is wrong; chunks that are too long once in a while, since each is a megabyte."""
    told = json.loads(sys.stdin.readline())
    facts = Facts(*told["facts"])
    light = [make(facts) for name, (make, _) in WRONG.items() if name != "a chunk that is too long"]
    heavy = WRONG["a chunk that is too long"][0](facts)
    with SiteLink(told["address"], told["server"], tuple(told["keys"])) as link:
        assert link.dial(30)
        for number in range(told["count"]):
            frames = heavy if number % 200 == 199 else light[number % len(light)]
            while not link.send(*frames):
                assert link.recv(0.001) is not None or link.connected
            while number % 16 == 0 and link.recv(0) is not None:
                pass
        print(json.dumps({"sent": told["count"]}), flush=True)
        stop = time.monotonic() + told.get("linger_s", 60)
        while time.monotonic() < stop and sys.stdin not in ready(link):
            pass


def ready(link: SiteLink) -> list[Any]:
    """Reads what came, and says whether stdin has ended: then this process may go."""
    import select

    while link.recv(0.05) is not None:
        pass
    return select.select([sys.stdin], [], [], 0)[0]


if __name__ == "__main__":
    main()
