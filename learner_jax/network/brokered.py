"""A coordinator and a site on the two ends of a broker: what `CoordinatorLink` and `SiteLink` are without one.

Both dial the broker. On the coordinator's leg a header begins with the name of the site that it is from or for, and a
zero byte; a name of no letters is the broker itself, which is told whose keys to let in (`guest_list`). Headers are
signed and payloads sealed (`seal.py`) between coordinator and site; the broker sees names, sizes and times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgpack

from learner_jax.errors import RemoteProtocolError
from learner_jax.network.keys import Keys
from learner_jax.network.links import Received, SiteLink, Tap
from learner_jax.network.seal import CoordinatorSeal, NotMet, SiteSeal
from learner_jax.network.tunnel import Tunnel
from learner_jax.protocol.broker import ENROL

REFUSED_S = 86_400.0
"""A broker that was started anew knows no keys until its coordinators have called, who may be away for a night: so long
is a refusal doubted."""
_WAITING, _SOON_S = 16_384, 0.005
"""Messages that wait for a full line, which hold the coordinator's own memory alone; how soon it is tried again."""
GUESTS = 8192
"""Keys that one coordinator may let in."""


def guest_list(users: Mapping[str, str]) -> bytes:
    """What a coordinator tells a broker: CURVE public key -> user, of all whom it may let in."""
    packed: Any = msgpack.packb(sorted(users.items()))
    return packed


def read_guest_list(payload: bytes | memoryview, peer: str) -> dict[str, str]:
    """The same, read.

    Raises:
      RemoteProtocolError: not such a list.
    """
    try:
        pairs = msgpack.unpackb(bytes(payload), strict_map_key=True, max_ext_len=0)
        found = dict(pairs)
        sound = len(found) == len(pairs) <= GUESTS and all(
            type(text) is str and 0 < len(text) <= 80 for pair in pairs for text in pair
        )
    except Exception:  # msgpack raises a dozen kinds
        sound, found = False, {}
    if not sound or any(len(public) != 40 for public in found):
        raise RemoteProtocolError(peer, f"expected a list of at most {GUESTS} keys and users, got something else")
    return found


class BrokeredLink:
    """`CoordinatorLink` through a broker.

    Args:
      address: of the broker.
      broker_public: its CURVE key, Z85.
      keys: the coordinator's.
      seal: signs and seals.
      tap: sees every message before it is signed and sealed.
    """

    def __init__(self, address: str, broker_public: str, keys: Keys, seal: CoordinatorSeal, tap: Tap | None = None):
        self.address, self.port = address, int(address.rpartition(":")[2])
        self._seal, self._tap = seal, tap
        self._users: dict[str, str] = {}
        self._told: Mapping[str, str] | None = None
        self._waiting: deque[tuple[str, bytes, bytes | memoryview]] = deque()  # for a full line; not sealed yet
        self._line = SiteLink(address, broker_public, keys, peer="the broker", refused_s=REFUSED_S, hung_up_s=REFUSED_S)
        self.counter = self._line.counter

    def recv(self, timeout_s: float | None = None) -> Received | None:
        """As `CoordinatorLink.recv`.

        Raises:
          RemoteProtocolError: what came is not signed by its sender, is not for this process, or came before.
        """
        was = self._line.connected
        if self._waiting:  # all sites' chunks go through one line
            self._send_waiting()
        if self._waiting:
            timeout_s = _SOON_S if timeout_s is None else min(timeout_s, _SOON_S)
        found = self._line.recv(timeout_s)
        if self._line.connected != was:
            self._told = None
            self._waiting.clear()  # old words are not said later
        self._tell_guests()
        if found is None:
            return None
        name, _, header = found[0].partition(b"\0")
        user = name.decode("ascii", "replace")
        payload: bytes | memoryview = found[1]
        if not user.startswith(ENROL):
            try:
                header, payload = self._seal.open(user, header, payload)
            except NotMet as error:
                self._line.send(name + b"\0" + error.answer)
                raise
        if self._tap is not None:
            self._tap("in", user, header, payload)
        return Received(user, name, header, payload)

    def send(self, user: str, header: bytes, payload: bytes | memoryview = b"") -> bool:
        """As `CoordinatorLink.send`; where the line is full, in its turn: it is one line for all sites."""
        if self._waiting or (self._line.connected and not self._line.writable):
            if len(self._waiting) >= _WAITING:
                return False
            self._waiting.append((user, header, payload))
            return True
        return self._send(user, header, payload)

    def _send(self, user: str, header: bytes, payload: bytes | memoryview) -> bool:
        sealed: Any = (header, payload) if user.startswith(ENROL) else self._seal.seal(user, header, payload)
        if sealed is None:
            return False
        if self._tap is not None:
            self._tap("out", user, header, payload)
        return self._line.send(user.encode() + b"\0" + sealed[0], sealed[1])

    def _send_waiting(self) -> None:
        while self._waiting and self._line.writable:
            self._send(*self._waiting.popleft())

    def _tell_guests(self) -> None:
        """Says whom the broker may let in, when that has changed or the line is new."""
        if self._line.connected and self._told != self._users:
            now = dict(self._users)
            if self._line.send(b"\0guests", guest_list(now)):
                self._told = now

    def allow(self, public: str, user: str) -> None:
        """Lets a CURVE key in, as this user. From any thread."""
        self._users = {**self._users, public: user}
        self._line.wake()

    def revoke(self, public: str) -> str | None:
        """Keeps a CURVE key out, also on a connection that it has; returns who it was. From any thread."""
        user = self._users.get(public)
        self._users = {key: who for key, who in self._users.items() if key != public}
        if user is not None and user not in self._users.values():  # not one that goes over to other keys
            self.forget(user)
        self._line.wake()
        return user

    def watch(self, public: str, act: Callable[[], None]) -> None:
        """Keys of lines are the broker's business: who signs tells (`CoordinatorSeal`)."""

    def forget(self, user: str) -> None:
        """Drops what is known of a user's process."""
        self._seal.forget(user)

    def wake(self) -> None:
        """Ends a `recv` that waits. From any thread."""
        self._line.wake()

    def close(self) -> None:
        """Ends the line."""
        self._line.close()

    def __enter__(self) -> BrokeredLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SealedSiteLink:
    """`SiteLink` through a broker.

    Args:
      address: of the broker.
      broker_public: its CURVE key, Z85.
      keys: the site's.
      seal: signs and seals.
      tap: sees every message before it is signed and sealed.
      via: a tunnel to that address, which is dialled in its place.
    """

    def __init__(
        self,
        address: str,
        broker_public: str,
        keys: Keys,
        seal: SiteSeal,
        tap: Tap | None = None,
        via: Tunnel | None = None,
    ):
        self.address, self._seal, self._tap = address, seal, tap
        self._line = SiteLink(
            address, broker_public, keys, peer="the broker", refused_s=REFUSED_S, hung_up_s=REFUSED_S, via=via
        )
        self.counter = self._line.counter

    @property
    def connected(self) -> bool:
        """Whether there is a line to the broker."""
        return self._line.connected

    def recv(self, timeout_s: float | None = None) -> tuple[bytes, bytes | memoryview] | None:
        """As `SiteLink.recv`.

        Raises:
          CryptoError: as `SiteLink.recv`.
          RemoteProtocolError: what came is not signed by the coordinator, is not for this process, or came before.
        """
        found = self._line.recv(timeout_s)
        if found is None:
            return None
        header, payload = self._seal.open(*found)
        if self._tap is not None:
            self._tap("in", "coordinator", header, payload)
        return header, payload

    def send(self, header: bytes, payload: bytes | memoryview = b"") -> bool:
        """As `SiteLink.send`."""
        if self._tap is not None:
            self._tap("out", "coordinator", header, payload)
        return self._line.send(*self._seal.seal(header, payload))

    def wake(self) -> None:
        """Ends a `recv` that waits. From any thread."""
        self._line.wake()

    def close(self) -> None:
        """Ends the line."""
        self._line.close()

    def __enter__(self) -> SealedSiteLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
