"""Links: messages over one CURVE-encrypted ZeroMQ socket, with nothing of the protocol in them.

A coordinator binds a ROUTER, a site dials out with a DEALER. Two frames a message: a header and a payload, which may be
empty. Who sent it is the user id that ZAP gave for the CURVE key, never the routing id. `send` may say False (no such
peer, or its queue is full): a message lost, which the machines above make good.

A link belongs to one thread, but `wake` may be called from any. `close` never hangs: what is unsent is dropped after
`linger_ms`.

There are no ZMTP heartbeats: with them libzmq 4.3.5 aborts this process (`Assertion failed: !_io_error`) when a peer
fills our receive queue and goes away. A dead line is found by TCP (keepalive, and a limit on unacknowledged time), a
peer that hangs by the machines' lease.
"""

from __future__ import annotations

import contextlib
import errno
import resource
import socket as sockets
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import zmq
from zmq.utils import monitor

from learner_jax.errors import CryptoError, RemoteProtocolError, StudyError
from learner_jax.network.keys import Keys
from learner_jax.network.tunnel import Tunnel
from learner_jax.network.unended import Unended
from learner_jax.network.zap import DOMAIN, KEY, Zap
from learner_jax.protocol.broker import ENROL
from learner_jax.protocol.messages import CHUNK, HEADER_LIMIT

Tap = Callable[[str, str, bytes, "bytes | memoryview"], None]
"""tap(direction "in" or "out", peer, header, payload): sees every message before it is encrypted."""

FRAME_LIMIT = CHUNK + 1024
QUEUE = 64  # messages per peer, so at most 64 MiB
HANDSHAKE_MS, SILENCE_MS = 3000, 20_000


_FILES = 65_536
"""Open files, at most, that a coordinator or a broker asks for."""


class Received(NamedTuple):
    """One message. user: as ZAP knows the sender; payload: b"" if there is none."""

    user: str
    routing_id: bytes
    header: bytes
    payload: bytes | memoryview


class Counter:
    """Bytes of headers and payloads, both ways."""

    def __init__(self) -> None:
        self.bytes_in = self.bytes_out = self.messages_in = self.messages_out = 0


class _Waker:
    """Lets any thread end a poll: a socket pair beside the ZeroMQ socket."""

    def __init__(self) -> None:
        self.here, self._there = sockets.socketpair()
        self.here.setblocking(False)
        self._there.setblocking(False)

    def wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake anyway; closed: so is the link
            self._there.send(b"x")

    def calm(self) -> None:
        with contextlib.suppress(OSError):
            while self.here.recv(4096):
                pass

    def close(self) -> None:
        self.here.close()
        self._there.close()


def _plain(socket: zmq.Socket, linger_ms: int, queue: int = QUEUE) -> None:
    for option, value in (
        (zmq.LINGER, linger_ms),
        (zmq.SNDHWM, queue),
        (zmq.RCVHWM, queue),
        (zmq.MAXMSGSIZE, max(FRAME_LIMIT, HEADER_LIMIT)),
        (zmq.HANDSHAKE_IVL, HANDSHAKE_MS),
        (zmq.TCP_KEEPALIVE, 1),
        (zmq.TCP_KEEPALIVE_IDLE, 10),
        (zmq.TCP_KEEPALIVE_INTVL, 5),
        (zmq.TCP_KEEPALIVE_CNT, 3),
        (zmq.TCP_MAXRT, SILENCE_MS),
    ):
        socket.setsockopt(option, value)


class CoordinatorLink:
    """Binds one port and talks to all sites that ZAP knows.

    Args:
      host: to bind, "127.0.0.1" or "0.0.0.0".
      port: 0 takes a free one.
      keys: the coordinator's.
      users: CURVE public key -> user id, to begin with; `allow` and `revoke` change it.
      tap: sees every message before it is encrypted.
      linger_ms: how long `close` waits for what is unsent.
      queue: messages that wait for one peer.

    Attributes:
      address: "tcp://host:port" as bound.
      counter: bytes both ways.
      zap: the responder that guards the port.
      unended: ends connections whose messages never end.

    Raises:
      StudyError: the port is in use, or the host is not this machine's.
    """

    def __init__(
        self,
        host: str,
        port: int,
        keys: Keys,
        users: Mapping[str, str] | None = None,
        tap: Tap | None = None,
        linger_ms: int = 1000,
        queue: int = QUEUE,
    ):
        self.counter, self._tap = Counter(), tap
        self._routes: dict[str, bytes] = {}
        self._watched_keys: dict[str, Callable[[], None]] = {}
        self._revoked: set[str] = set()
        _more_files()
        self._context = zmq.Context()
        self._waker = _Waker()
        self._watched = time.monotonic()
        try:
            self.zap = Zap(self._context, users)  # before the socket: CURVE without ZAP accepts any key
            self._socket = self._context.socket(zmq.ROUTER)
            _plain(self._socket, linger_ms, queue)
            self._socket.curve_server = True
            self._socket.curve_secretkey = keys.curve_secret.encode()
            self._socket.zap_domain = DOMAIN.encode()
            self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # no responder, no connection
            self._socket.router_mandatory = True
            self.unended = Unended(self._socket, queue * FRAME_LIMIT)
            self._bind(host, port)
        except BaseException:
            self.close()
            raise
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._waker.here, zmq.POLLIN)

    def _bind(self, host: str, port: int) -> None:
        place = f"[{host}]" if ":" in host else host
        self._socket.setsockopt(zmq.IPV6, int(":" in host))
        try:
            self._socket.bind(f"tcp://{place}:{port if port else '*'}")
        except zmq.ZMQError as error:
            if error.errno == errno.EADDRINUSE:
                text = f"expected a free port, but port {port} on {host} is in use: stop what uses it or choose another"
            else:
                text = f"expected to listen on port {port} of {host}, got: {error.strerror}"
            raise StudyError(text) from None
        bound = self._socket.last_endpoint
        text = bound.decode() if isinstance(bound, bytes) else str(bound)
        self.port = int(text.rstrip("\0").rpartition(":")[2])
        self.address = f"tcp://{place}:{self.port}"

    def dialled(self, address: str | None) -> str:
        """What a join code carries: "tcp://host:port" of NAME or NAME:PORT; as bound without one."""
        if not address:
            return self.address
        name = address.removeprefix("tcp://")
        _, _, port = name.rpartition(":")
        return f"tcp://{name}" if port.isdigit() and not name.endswith("]") else f"tcp://{name}:{self.port}"

    def recv(self, timeout_s: float | None = None) -> Received | None:
        """The next message of a known user, or None after the timeout or a `wake`.

        Raises:
          RemoteProtocolError: a user sent more frames than a message has.
        """
        stop = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self._watch()
            left = 1.0 if stop is None else min(1.0, max(0.0, stop - time.monotonic()))
            ready = dict(self._poller.poll(int(left * 1000)))
            if self._socket in ready:
                return self._take()  # None of whom nobody knows: the caller has other things to do than to shed more
            if self._waker.here.fileno() in ready or self._waker.here in ready:
                self._waker.calm()
                return None
            if stop is not None and time.monotonic() >= stop:
                return None

    def _watch(self) -> None:
        if time.monotonic() - self._watched > 1:
            self._watched = time.monotonic()
            self.zap.watch()
            self.unended.check()

    def _take(self) -> Received | None:
        frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
        self.unended.took(frames)
        user = self._who(frames[-1])
        if user is None:
            return None
        if len(frames) not in (2, 3):
            raise RemoteProtocolError(user, f"expected a header and at most one payload, got {len(frames) - 1} frames")
        routing_id, header = frames[0].bytes, frames[1].bytes
        payload = frames[2].buffer if len(frames) == 3 else b""
        self._routes[user] = routing_id
        self.counter.bytes_in += len(header) + len(payload)
        self.counter.messages_in += 1
        if self._tap is not None:
            self._tap("in", user, header, payload)
        return Received(user, routing_id, header, payload)

    def _who(self, frame: zmq.Frame) -> str | None:
        """Who sent a message, by the key of its connection; None once that key was revoked."""
        try:
            user, key = frame.get("User-Id"), frame.get(KEY)
        except zmq.ZMQError:
            return None
        if not user or self.zap.who(str(key)) != user:
            if str(key) in self._revoked:
                self.unended.hang_up(frame)  # it calls again, and is told that its key is refused
            return None
        act = self._watched_keys.pop(str(key), None)
        if act is not None:
            act()
        return str(user)

    def send(self, user: str, header: bytes, payload: bytes | memoryview = b"") -> bool:
        """Queues one message for a user; False if it is not connected or its queue is full."""
        routing_id = self._routes.get(user)
        if routing_id is None:
            return False
        if self._tap is not None:
            self._tap("out", user, header, payload)
        frames = [routing_id, header] if not len(payload) else [routing_id, header, payload]
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK, copy=len(payload) < 65536)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            self._routes.pop(user, None)
            return False
        self.counter.bytes_out += len(header) + len(payload)
        self.counter.messages_out += 1
        return True

    def allow(self, public: str, user: str) -> None:
        """Lets a CURVE key in, as this user."""
        self._revoked.discard(public)
        self.zap.allow(public, user)

    def revoke(self, public: str) -> str | None:
        """Keeps a CURVE key out, also on a connection that it has, which is hung up with its next message; returns who
        it was. A one-time key's connection lives on for its answer."""
        user = self.zap.revoke(public)
        if user is not None and not user.startswith(ENROL):
            self._revoked.add(public)
        self._watched_keys.pop(public, None)
        if user is not None:
            self.forget(user)
        return user

    def watch(self, public: str, act: Callable[[], None]) -> None:
        """Calls `act` once, when the first message by this key has come. Before the link's thread runs, or in it."""
        self._watched_keys[public] = act

    def forget(self, user: str) -> None:
        """Drops the route to a user; its next message makes a new one."""
        self._routes.pop(user, None)

    def wake(self) -> None:
        """Ends a `recv` that waits. From any thread."""
        self._waker.wake()

    def close(self) -> None:
        """Ends the socket, the responder and the context. May be called twice."""
        if hasattr(self, "unended"):
            self.unended.close()
        if hasattr(self, "_socket"):
            self._socket.close()
        if hasattr(self, "zap"):
            self.zap.close()
        self._context.term()
        self._waker.close()

    def __enter__(self) -> CoordinatorLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SiteLink:
    """Dials out to one coordinator, and again whenever the line breaks.

    Args:
      address: "tcp://host:port".
      server_public: the coordinator's CURVE key, Z85.
      keys: the site's: (public, secret) in Z85, or its `Keys`.
      tap: sees every message before it is encrypted.
      linger_ms: how long `close` waits for what is unsent.
      peer: what the tap calls the other side.
      refused_s: so long a refusal of this key is doubted: a broker started anew knows no keys at first.
      hung_up_s: so long is it doubted that who hangs up at once, again and again, is somebody else: a relay in front of
        a server that is down does so too.
      via: a tunnel to that address, which is dialled in its place.

    Attributes:
      counter: bytes both ways.
      connected: whether a handshake has succeeded and the line has not broken since.
    """

    def __init__(
        self,
        address: str,
        server_public: str,
        keys: Keys | tuple[str, str],
        tap: Tap | None = None,
        linger_ms: int = 1000,
        peer: str = "coordinator",
        refused_s: float = 0.0,
        hung_up_s: float = 0.0,
        via: Tunnel | None = None,
    ):
        self._via = via
        self.address, self.counter, self._tap, self._peer = address, Counter(), tap, peer
        self.connected = self._ever = False
        self._opened: float | None = None  # when the line was opened, until its handshake is over
        self._hung_up, self._first_hung_up = 0, 0.0
        self._refused_s, self._hung_up_s = refused_s, hung_up_s
        self._refused: float | None = None  # since when this key is refused
        self._context = zmq.Context()
        self._waker = _Waker()
        self._how = server_public, keys, linger_ms
        self._dial()

    def _dial(self) -> None:
        """Makes the socket and its monitor."""
        server_public, keys, linger_ms = self._how
        self._socket = self._context.socket(zmq.DEALER)
        self._monitor = self._socket.get_monitor_socket(_WATCHED)
        try:
            _plain(self._socket, linger_ms)
            self._socket.setsockopt(zmq.IPV6, 1)
            self._socket.setsockopt(zmq.IMMEDIATE, 1)  # no queue while there is no line: old words are not said later
            self._socket.setsockopt(zmq.RECONNECT_IVL, 200)
            self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 5000)
            self._socket.curve_serverkey = server_public.encode()
            self._socket.curve_publickey, self._socket.curve_secretkey = keys[0].encode(), keys[1].encode()
            if self._via is not None:  # the proxy is to have answered before a silence counts
                self._socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS + int(1000 * self._via.timeout_s))
            self._socket.connect(self._via.address if self._via is not None else self.address)
        except zmq.ZMQError as error:
            self.close()
            raise CryptoError(
                f"expected an address such as tcp://host:port, got '{self.address}': {error.strerror}"
            ) from None
        self._poller = zmq.Poller()
        for each in (self._socket, self._monitor, self._waker.here):
            self._poller.register(each, zmq.POLLIN)

    def _dial_again(self) -> None:
        """libzmq never dials again once a key was refused."""
        self._hang_up()
        self._dial()

    def recv(self, timeout_s: float | None = None) -> tuple[bytes, bytes | memoryview] | None:
        """The next (header, payload), or None after the timeout, a `wake`, or when the line was opened or broke.

        Raises:
          CryptoError: the coordinator refuses this key, or is not the one whose key this site has.
          StudyError: the proxy refuses this site, and there was no line yet.
        """
        stop = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = 1.0 if stop is None else max(0.0, stop - time.monotonic())
            ready = dict(self._poller.poll(int(left * 1000)))
            if self._monitor in ready:
                before = self.connected
                self._observe()
                if self.connected != before:
                    return None
            if self._socket in ready:
                found = self._take()
                if found is not None:
                    return found
                continue
            if self._waker.here.fileno() in ready or self._waker.here in ready:
                self._waker.calm()
                return None
            if stop is not None and time.monotonic() >= stop:
                return None

    def dial(self, timeout_s: float) -> bool:
        """Waits for the line to be open; False after the timeout.

        Raises:
          CryptoError, StudyError: as `recv`.
        """
        stop = time.monotonic() + timeout_s
        while not self.connected and time.monotonic() < stop:
            if self._poller.poll(50) and self._monitor.poll(0):
                self._observe()
        return self.connected

    def _take(self) -> tuple[bytes, bytes | memoryview] | None:
        frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
        if len(frames) not in (1, 2):
            return None
        header, payload = frames[0].bytes, frames[1].buffer if len(frames) == 2 else b""
        self.counter.bytes_in += len(header) + len(payload)
        self.counter.messages_in += 1
        if self._tap is not None:
            self._tap("in", self._peer, header, payload)
        return header, payload

    def _observe(self) -> None:
        """Reads what libzmq tells about the line; a refused key becomes one clear error."""
        while self._monitor.poll(0):
            event = monitor.recv_monitor_message(self._monitor)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.connected, self._ever, self._opened, self._refused = True, True, None, None
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._refused = self._refused or time.monotonic()
                doubted = time.monotonic() - self._refused
                if doubted < self._refused_s:
                    self.connected, self._opened = False, None
                    time.sleep(min(2.0, max(0.2, doubted / 10)))
                    self._dial_again()
                    return
                raise CryptoError(
                    f"the coordinator at {self.address} does not know this key: the join code was used already or is "
                    "wrong, or the site was taken off the roster; ask for a new join code"
                )
            elif event == zmq.EVENT_CONNECTED:
                self._opened = time.monotonic()
            elif event in (zmq.EVENT_DISCONNECTED, *_FAILED):
                self._broken()

    def _broken(self) -> None:
        """The line is gone. A server that hangs up at once, again and again, does not have the key that we expect."""
        trouble = self._via.trouble if self._via is not None else None
        if trouble is not None:  # it was the proxy that hung up
            self.connected, self._opened = False, None
            if trouble.final and not self._ever:
                raise StudyError(trouble.words)
            return
        quick = self._opened is not None and time.monotonic() - self._opened < HANDSHAKE_MS / 2000
        if quick and not self._ever:
            self._first_hung_up = self._first_hung_up if self._hung_up else time.monotonic()
            self._hung_up += 1
        self.connected, self._opened = False, None
        if self._hung_up >= 3 and time.monotonic() - self._first_hung_up >= self._hung_up_s:
            raise CryptoError(
                f"expected the coordinator at {self.address} to have the key in this join code, but it hangs up on it: "
                "it is another coordinator, or no coordinator at all; ask for a new join code"
            )

    @property
    def writable(self) -> bool:
        """Whether `send` would take a message now. In the link's thread."""
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLOUT)

    def send(self, header: bytes, payload: bytes | memoryview = b"") -> bool:
        """Queues one message; False if there is no line now, or its queue is full."""
        if self._tap is not None:
            self._tap("out", self._peer, header, payload)
        frames = [header] if not len(payload) else [header, payload]
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK, copy=len(payload) < 65536)
        except zmq.Again:
            return False
        self.counter.bytes_out += len(header) + len(payload)
        self.counter.messages_out += 1
        return True

    def wake(self) -> None:
        """Ends a `recv` that waits. From any thread."""
        self._waker.wake()

    def close(self) -> None:
        """Ends the socket and the context. May be called twice."""
        self._hang_up()
        self._context.term()
        self._waker.close()

    def _hang_up(self) -> None:
        if not self._socket.closed:
            self._socket.disable_monitor()
            if not self.connected:
                self._socket.setsockopt(zmq.LINGER, 0)  # nobody to send it to
        self._monitor.close(0)
        self._socket.close()

    def __enter__(self) -> SiteLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_FAILED = (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
_WATCHED = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


def _more_files() -> None:
    """As many open files as this process may have: connections that say nothing use them up before they are shed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, _FILES) if hard != resource.RLIM_INFINITY else _FILES
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
