"""A CONNECT proxy over real sockets, as small as can be, that does wrong what it is told to."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading

REFUSALS = {
    403: b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
    407: b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="here"\r\n\r\n',
    502: b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
}


class ConnectProxy:
    """Serves until closed, a thread or two a connection.

    Args:
      credentials: "user:password" that it wants to hear; "" lets everybody through.
      host: where it listens.
      context: speaks TLS by it.

    Attributes:
      answer: said in place of connecting, where it is not None; b"" says nothing. May be changed at any time.
      once: answers like it, each for one connection.
      delay_s: to wait before it answers.
      asked: the requests that came, head and all.
      carried: what it could read of what passed, both ways.
    """

    def __init__(self, credentials: str = "", host: str = "127.0.0.1", context: ssl.SSLContext | None = None):
        self.answer: bytes | None = None
        self.once: list[bytes] = []
        self.delay_s = 0.0
        self.asked: list[str] = []
        self.carried = bytearray()
        self._told = f"Basic {base64.b64encode(credentials.encode()).decode()}" if credentials else ""
        self._context = context
        self._closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listening = socket.create_server((host, 0))
        self.host, self.port = self._listening.getsockname()[:2]
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://{self.host}:{self.port}"

    def _start(self, work, *arguments) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                self._start(self._serve, self._listening.accept()[0])

    def _serve(self, here: socket.socket) -> None:
        with contextlib.ExitStack() as ends, contextlib.suppress(OSError):
            ends.callback(here.close)
            if self._context is not None:
                here = self._context.wrap_socket(here, server_side=True)
            self._keep(here, ends)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += here.recv(1) or _ended()
                if head[0] != ord("C"):
                    here.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    return
            self.asked.append(head.decode())
            self._closing.wait(self.delay_s)
            answer = self._refusal(head.decode())
            if answer is not None:
                here.sendall(answer)
                return
            host, _, port = head.split()[1].decode().rpartition(":")
            try:
                there = socket.create_connection((host.strip("[]"), int(port)), 5)
            except OSError:
                here.sendall(REFUSALS[502])
                return
            there.settimeout(None)
            self._keep(there, ends)
            here.sendall(b"HTTP/1.1 200 Connection established\r\nVia: a test\r\n\r\n")
            back = self._start(self._carry, there, here)
            self._carry(here, there)
            back.join()

    def _keep(self, one: socket.socket, ends: contextlib.ExitStack) -> None:
        self._open.add(one)
        ends.callback(one.close)
        ends.callback(self._open.discard, one)

    def _refusal(self, head: str) -> bytes | None:
        if self.once:
            return self.once.pop()
        if self.answer is not None:
            return self.answer
        return REFUSALS[407] if self._told and f"Proxy-Authorization: {self._told}\r\n" not in head else None

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.carried += data if len(self.carried) < 2**22 else b""
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Breaks every line that is open."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._closing.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            while thread.is_alive():
                self.cut()
                thread.join(0.05)

    def __enter__(self) -> ConnectProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ended() -> bytes:
    raise ConnectionResetError
