"""Messages that never end: connections on which more comes than is handed on.

libzmq bounds a frame (`ZMQ_MAXMSGSIZE`) and the messages that wait for us (`ZMQ_RCVHWM`), but not the frames of one
message, and hands none of them on before the last has come: whoever is let in could so fill this process's memory. So
we compare, for each connection, the bytes that TCP has received (`tcpi_bytes_received`, Linux >= 4.1) with those of the
messages that we took, and shut down a connection that is too far ahead. Where the kernel does not tell (other systems),
nothing is shut down.
"""

from __future__ import annotations

import os
import socket as sockets
import struct
from collections.abc import Sequence
from typing import NamedTuple

import zmq
from zmq.utils import monitor

ALLOWED = 16 * 2**20
"""Bytes on the way in a connection on which no whole message waits, beside the kernel's own buffer."""
_RECEIVED = 128  # where tcpi_bytes_received is in struct tcp_info
_SECURED = 33  # a CURVE MESSAGE command: its name 8, the nonce 8, the authenticator 16, flags 1


class _Line(NamedTuple):
    """A connection: who is at its ends, so that a file descriptor that was used again is not taken for it."""

    here: object
    there: object


class Unended:
    """Watches the connections of one bound socket. Belongs to the socket's thread.

    Args:
      socket: before it is bound; CURVE.
      waiting: bytes of whole messages that may wait in it for one peer.
    """

    def __init__(self, socket: zmq.Socket, waiting: int):
        self._socket, self._waiting = socket, waiting
        self._lines: dict[int, _Line] = {}
        self._taken: dict[int, int] = {}
        address = f"inproc://connections-{id(self)}"
        socket.monitor(address, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self._monitor = socket.context.socket(zmq.PAIR)
        self._monitor.setsockopt(zmq.RCVHWM, 0)  # libzmq's own thread waits where its reports find no room
        self._monitor.connect(address)
        self.shut = 0
        """How many connections were shut down."""

    def took(self, frames: Sequence[zmq.Frame]) -> None:
        """Counts one message, its routing id first, as libzmq gave it."""
        try:
            line = int(frames[-1].get(zmq.SRCFD))
        except (zmq.ZMQError, ValueError):
            return
        self._hear()  # first: a new connection may have an old one's number
        self._taken[line] = self._taken.get(line, 0) + sum(on_the_wire(len(frame)) for frame in frames[1:])

    def hang_up(self, frame: zmq.Frame) -> None:
        """Shuts down the connection that a message came by, as libzmq gave it."""
        try:
            number = int(frame.get(zmq.SRCFD))
        except (zmq.ZMQError, ValueError):
            return
        self._hear()
        line = self._lines.pop(number, None)
        if line is None:
            return
        with _same(number, line) as connection:
            if connection is not None:
                connection.shutdown(sockets.SHUT_RDWR)

    def check(self) -> int:
        """Shuts down what is too far ahead; returns how many connections that were.

        A connection may be ahead by what the kernel buffers and `ALLOWED`, and by `waiting` more while whole messages
        wait to be taken.
        """
        self._hear()
        more = self._may_wait()
        before = self.shut
        for number, line in list(self._lines.items()):
            with _same(number, line) as connection:
                ahead = _received(connection) - self._taken.get(number, 0) if connection is not None else 0
                if connection is None or ahead <= ALLOWED + more + _buffered(connection):
                    continue
                more = more or self._may_wait()  # whole messages may have come since
                if ahead > ALLOWED + more + _buffered(connection):
                    connection.shutdown(sockets.SHUT_RDWR)
                    del self._lines[number]
                    self.shut += 1
        return self.shut - before

    def _may_wait(self) -> int:
        return self._waiting if int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN else 0

    def ahead(self) -> list[int]:
        """By how many bytes each connection is ahead of what was taken, those of the handshake with them."""
        self._hear()
        found = []
        for number, line in self._lines.items():
            with _same(number, line) as connection:
                if connection is not None:
                    found.append(_received(connection) - self._taken.get(number, 0))
        return found

    def _hear(self) -> None:
        while int(self._monitor.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            said = monitor.recv_monitor_message(self._monitor)
            number = int(said["value"])
            self._lines.pop(number, None)
            self._taken.pop(number, None)
            if said["event"] == zmq.EVENT_ACCEPTED and (line := _ends(number)) is not None:
                self._lines[number] = line

    def close(self) -> None:
        """Ends the watch, before the socket is closed."""
        if not self._socket.closed:
            self._socket.disable_monitor()
        self._monitor.close(0)


def on_the_wire(size: int) -> int:
    """Bytes of a frame of `size` bytes under CURVE (ZMTP 3.1, RFC 23 and 26): flags, length, and the secured frame."""
    secured = size + _SECURED
    return secured + (2 if secured <= 255 else 9)


class _same:
    """The connection of a file descriptor of libzmq's while it is the one that it was; None otherwise."""

    def __init__(self, number: int, line: _Line | None):
        self._connection: sockets.socket | None = None
        try:
            copy = os.dup(number)  # now nobody can close it under us
        except OSError:
            return
        try:
            self._connection = sockets.socket(fileno=copy)
        except OSError:
            os.close(copy)
            return
        try:
            ends = _Line(self._connection.getsockname(), self._connection.getpeername())
        except OSError:
            ends = None
        if ends is None or (line is not None and ends != line):
            self._connection.close()
            self._connection = None

    def __enter__(self) -> sockets.socket | None:
        return self._connection

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()


def _ends(number: int) -> _Line | None:
    with _same(number, None) as connection:
        return None if connection is None else _Line(connection.getsockname(), connection.getpeername())


def _received(connection: sockets.socket) -> int:
    try:
        told = connection.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_INFO, 256)
        return struct.unpack_from("=Q", told, _RECEIVED)[0]
    except (AttributeError, OSError, struct.error):  # not this kernel
        return 0


def _buffered(connection: sockets.socket) -> int:
    return connection.getsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF)
