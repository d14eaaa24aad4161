"""Our own ZAP responder: which CURVE key is whom.

libzmq asks it, by REQ over inproc, about every connection to a CURVE server of its context; whoever is not in the
table is refused. An exception in one request refuses that request; one in the loop restarts it (pyzmq's asyncio
authenticator stops for good instead, and then nobody connects again). Taking a key out does not end the connections
it already has, so the link asks `who` again for each message.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import zmq
from zmq.utils import z85

from learner_jax.errors import CryptoError

ADDRESS = "inproc://zeromq.zap.01"
DOMAIN = "learner"
KEY = "X-Key"
"""The property of each message under which ZAP gives the CURVE public key (Z85) that it came by."""
_POLL_MS = 100


class Zap:
    """Answers for one zmq context until closed.

    Args:
      context: whose CURVE servers it guards; one Zap a context, bound before the first of them.
      users: CURVE public key (Z85) -> user id.

    Attributes:
      refused: how many requests were refused.
      restarts: how often the loop died and was started again.
    """

    def __init__(self, context: zmq.Context, users: Mapping[str, str] | None = None):
        self._context = context
        self._users = dict(users or {})
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._socket: zmq.Socket | None = self._bind()
        self.refused = self.restarts = 0
        self._thread = self._start()

    def _bind(self) -> zmq.Socket:
        socket = self._context.socket(zmq.REP)
        socket.setsockopt(zmq.LINGER, 0)
        try:
            socket.bind(ADDRESS)
        except zmq.ZMQError:
            socket.close()
            raise CryptoError("expected one ZAP responder a context, got a second") from None
        return socket

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name="zap", daemon=True)
        thread.start()
        return thread

    def allow(self, public: str, user: str) -> None:
        """From now on this key is this user."""
        with self._guard:
            self._users[public] = user

    def revoke(self, public: str) -> str | None:
        """This key is nobody from now on; returns who it was."""
        with self._guard:
            return self._users.pop(public, None)

    def who(self, public: str) -> str | None:
        """The user id of a key."""
        with self._guard:
            return self._users.get(public)

    def alive(self) -> bool:
        """Whether the responder's thread runs."""
        return self._thread.is_alive()

    def watch(self) -> None:
        """Starts the thread again if it is gone; called now and then by whoever reads from the guarded socket."""
        if not self.alive() and not self._stop.is_set():
            self.restarts += 1
            self._thread = self._start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if self._socket is None:
                    self._socket = self._bind()
                self._serve(self._socket)
            except zmq.ContextTerminated:
                break
            except Exception:
                self.restarts += 1
                self._drop()
                self._stop.wait(0.05)
        self._drop()

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close(0)
            self._socket = None

    def _serve(self, socket: zmq.Socket) -> None:
        """Answers the next request, if one comes soon."""
        if socket.poll(_POLL_MS):
            socket.send_multipart(answer(socket.recv_multipart(), self.who, self._count))

    def _count(self) -> None:
        self.refused += 1

    def close(self) -> None:
        """Stops within 0.1 s. May be called twice."""
        self._stop.set()
        self._thread.join(5)
        if not self._thread.is_alive():
            self._drop()  # it died with the socket open


def answer(frames: list[bytes], who: Callable[[str], str | None], refused: Callable[[], None]) -> list[bytes]:
    """The reply to one ZAP 1.0 request.

    Args:
      frames: version, request id, domain, address, identity, mechanism, credentials...
      who: key -> user id or None.
      refused: called for each refusal.

    Reference: https://rfc.zeromq.org/spec/27
    """
    request = frames[1] if len(frames) > 1 else b""
    try:
        version, request, domain, _, _, mechanism, *credentials = frames
        sound = version == b"1.0" and domain == DOMAIN.encode() and mechanism == b"CURVE" and len(credentials) == 1
        user = who(z85.encode(credentials[0]).decode()) if sound and len(credentials[0]) == 32 else None
    except Exception:
        user, credentials = None, []
    if user is None:
        refused()
        return [b"1.0", request, b"400", b"not known here", b"", b""]
    return [b"1.0", request, b"200", b"OK", user.encode(), _property(KEY, z85.encode(credentials[0]))]


def _property(name: str, value: bytes) -> bytes:
    return bytes([len(name)]) + name.encode() + len(value).to_bytes(4, "big") + value
