"""Through an HTTP proxy: for a hospital whose only way out it is.

A tunnel listens on this machine's loopback, and the link dials it in place of the coordinator. Of each connection there
it makes one to the proxy, asks it by CONNECT for the coordinator's port, and then carries bytes both ways. So a link
that reconnects asks anew. CURVE runs inside from end to end: a proxy sees which port is asked for, when, and how many
bytes pass.

No answer of a proxy ends the tunnel. What is wrong stands in `trouble` before the connection here is closed; the link
decides by `final` whether it tries again. Credentials are in no message and no `repr`.

Reference: RFC 9110, 9.3.6 (CONNECT); RFC 7617 (Basic).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import socket as sockets
import ssl
import threading
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import NamedTuple

from learner_jax.errors import ConfigError, CryptoError

TIMEOUT_S = 15.0
"""For a proxy to be reached and to answer, the way from it to the coordinator included."""
ANSWER_LIMIT = 64 * 1024
"""Bytes of a proxy's answer to CONNECT; also what is read at a time, so that a slow side holds the other back."""
LINGER_S = 2.0
HALF_S = 60.0
"""A line that one side has ended is cut after this: behind a proxy, nobody may be left to end the other half."""
_EXAMPLE = "--proxy=http://HOST:PORT or https://USER@HOST:PORT"


class Proxy(NamedTuple):
    """Where a proxy is, and what it wants to hear.

    Attributes:
      host, port: of the proxy.
      tls: whether the way to the proxy is encrypted (https://).
      user, password: for Basic; "" for none.
    """

    host: str
    port: int
    tls: bool = False
    user: str = ""
    password: str = ""

    def __str__(self) -> str:
        return f"the proxy at {_place(self.host, self.port)}"

    def __repr__(self) -> str:
        return f"<{self}>"


class Trouble(NamedTuple):
    """Why there is no line through the proxy: one line, and whether trying again is of no use."""

    words: str
    final: bool = False


class _Refused(Exception):
    """Carries a Trouble out of the handshake."""

    def __init__(self, words: str, final: bool = False):
        super().__init__(words)
        self.trouble = Trouble(words, final)


def parse_proxy(url: str) -> Proxy:
    """Reads what --proxy says.

    Raises:
      ConfigError: not a proxy's URL, or one with a password in it. The URL is not in the message.
    """
    wrong = ConfigError(f"--proxy: expected {_EXAMPLE}, got another text")
    try:
        parts = urllib.parse.urlsplit(url)
        port, user = parts.port, urllib.parse.unquote(parts.username or "")
    except ValueError:
        raise wrong from None
    if parts.password is not None:
        raise ConfigError(
            "--proxy: a password never stands on the command line, where others on this machine can read it: "
            "give --proxy=http://USER@HOST:PORT and it is asked for, or --proxy_password_file=PATH"
        )
    if parts.scheme not in ("http", "https"):
        raise ConfigError(f"--proxy: expected {_EXAMPLE}, got a URL of another kind")
    more = parts.path not in ("", "/") or parts.query or parts.fragment or ":" in user
    if not parts.hostname or not port or more:
        raise wrong
    return Proxy(_ascii(parts.hostname, wrong), port, parts.scheme == "https", user)


def host_and_port(address: str) -> tuple[str, int]:
    """("host", port) of "tcp://host:port".

    Raises:
      CryptoError: not such an address.
    """
    wrong = CryptoError(f"expected an address such as tcp://host:port, got '{address}'")
    try:
        parts = urllib.parse.urlsplit(address)
        port = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme != "tcp" or not parts.hostname or not port or re.search(r"\s", address):
        raise wrong
    return _ascii(parts.hostname, wrong), port


def _ascii(host: str, wrong: Exception) -> str:
    """A host's name as it is asked for; nothing in it may end a line of a request."""
    try:
        name = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        raise wrong from None
    if not re.fullmatch(r"[A-Za-z0-9._:%-]+", name):
        raise wrong
    return name


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Tunnel:
    """Carries what dials it through a proxy to one port, until closed.

    Args:
      proxy: as parsed, with its password.
      address: "tcp://host:port" of the coordinator.
      tell: told in words, once, what is wrong, from the tunnel's thread; again after a line was open.
      timeout_s: for the proxy to be reached and to answer.

    Attributes:
      address: "tcp://127.0.0.1:port", to be dialled in place of the coordinator's.
      trouble: why the last connection was refused; None once one is open.
      timeout_s: as given.
    """

    def __init__(
        self, proxy: Proxy, address: str, tell: Callable[[str], None] = lambda words: None, timeout_s: float = TIMEOUT_S
    ):
        self._proxy, self._tell, self.timeout_s = proxy, tell, timeout_s
        self._target = _place(*host_and_port(address))
        self.trouble: Trouble | None = None
        self._lines: set[asyncio.Task[None]] = set()
        opened: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = Future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="tunnel", daemon=True)
        self._thread.start()
        self._loop, self._stop, port = opened.result()
        self.address = f"tcp://127.0.0.1:{port}"

    def close(self) -> None:
        """Ends it, once what was said is on its way. May be called twice."""
        with contextlib.suppress(RuntimeError):  # its loop is closed
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(LINGER_S + 5)

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---------------------------------------------------------------- in the tunnel's thread

    def _run(self, opened: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]]) -> None:
        try:
            asyncio.run(self._serve(opened))
        except BaseException as error:
            if opened.done():
                raise
            opened.set_exception(error)

    async def _serve(self, opened: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]]) -> None:
        stop = asyncio.Event()
        server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, limit=ANSWER_LIMIT)
        opened.set_result((asyncio.get_running_loop(), stop, server.sockets[0].getsockname()[1]))
        await stop.wait()
        server.close()
        if self._lines:
            await asyncio.wait(self._lines, timeout=LINGER_S)
        for line in self._lines:
            line.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = asyncio.current_task()
        assert line is not None
        self._lines.add(line)
        try:
            await self._line(reader, writer)
        except asyncio.CancelledError:  # the tunnel was closed; asyncio would print it
            pass
        finally:
            self._lines.discard(line)

    async def _line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its first byte to its last."""
        async with _closed(writer):
            try:
                async with asyncio.timeout(self.timeout_s):
                    there = await self._ask()
            except TimeoutError:
                self._refused(Trouble(f"{self._proxy} did not answer within {self.timeout_s:.0f} s"))
                return
            except _Refused as error:
                self._refused(error.trouble)
                return
            self.trouble = None
            async with _closed(there[1]):
                await _both_ways((reader, writer), there)

    def _refused(self, trouble: Trouble) -> None:
        known, self.trouble = self.trouble, trouble
        if known != trouble:
            self._tell(trouble.words)

    async def _ask(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A line through the proxy.

        Raises:
          _Refused: there is none.
        """
        reader, writer = await self._reach()
        try:
            writer.write(self._question())
            self._check(await self._answer(reader))
        except OSError:
            writer.transport.abort()
            raise _Refused(f"{self._proxy} hung up before it answered") from None
        except BaseException:
            writer.transport.abort()
            raise
        return reader, writer

    async def _answer(self, reader: asyncio.StreamReader) -> list[str]:
        """The lines of an answer up to the empty one; what follows stays in the reader."""
        lines: list[str] = []
        left = ANSWER_LIMIT
        try:
            while not lines or lines[-1]:
                line = await reader.readuntil(b"\n")
                lines.append(line.decode("latin-1").rstrip("\r\n"))
                left -= len(line)
                if not lines[0].startswith("HTTP/") or left < 0:
                    raise self._no_proxy()
        except asyncio.LimitOverrunError:
            raise self._no_proxy() from None
        except asyncio.IncompleteReadError as error:
            if error.partial and not lines:
                raise self._no_proxy() from None
            raise ConnectionResetError from None
        return lines

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the proxy."""
        proxy = self._proxy
        try:
            context = ssl.create_default_context() if proxy.tls else None
            reader, writer = await asyncio.open_connection(proxy.host, proxy.port, ssl=context, limit=ANSWER_LIMIT)
        except ssl.SSLCertVerificationError as error:
            why = f"expected {proxy} to show a certificate that this machine trusts, got: {error.verify_message}"
            raise _Refused(why, final=True) from None
        except ssl.SSLError:
            raise _Refused(f"expected {proxy} to speak TLS, as https:// says, got another answer", final=True) from None
        except UnicodeError:
            raise _Refused(f"expected the name of a proxy, got {proxy}", final=True) from None
        except OSError as error:
            raise _Refused(f"cannot connect to {proxy}: {_why(error)}") from None
        _keep_alive(writer)
        return reader, writer

    def _question(self) -> bytes:
        proxy, lines = self._proxy, [f"CONNECT {self._target} HTTP/1.1", f"Host: {self._target}"]
        if proxy.user or proxy.password:
            told = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
            lines.append(f"Proxy-Authorization: Basic {told}")
        return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")

    def _check(self, answer: list[str]) -> None:
        """Whether the proxy said yes; if not, what the site's people do about it."""
        found, proxy = re.fullmatch(r"HTTP/1\.[01] ([0-9]{3})(?: (.*))?", answer[0]), self._proxy
        if found is None:
            raise self._no_proxy()
        code = int(found[1])
        if 200 <= code < 300:
            return
        if code == 407:
            raise _Refused(self._password(answer), final=True)
        if code in (401, 403, 405):
            why = f"{proxy} does not let this machine connect to {self._target} ({code})"
            raise _Refused(f"{why}: ask who runs it to allow CONNECT to that port", final=True)
        if code in (502, 503, 504):
            raise _Refused(f"{proxy} does not reach {self._target} ({code}): is the coordinator there, and running?")
        words = "".join(letter if letter.isprintable() else "?" for letter in found[2] or "")[:80]
        raise _Refused(f"expected {proxy} to connect to {self._target}, got: {code} {words}".rstrip())

    def _password(self, answer: list[str]) -> str:
        proxy = self._proxy
        offered = re.findall(r"(?im)^proxy-authenticate: *([a-z0-9-]{1,20})", "\n".join(answer))
        if offered and "basic" not in (name.lower() for name in offered):
            return (
                f"{proxy} wants {' or '.join(dict.fromkeys(offered))} (407), and learner speaks Basic alone: "
                "ask who runs it for an account with a password, or to let this machine through"
            )
        if proxy.user or proxy.password:
            return f"{proxy} refuses this user name or password (407)"
        return f"{proxy} wants a user name and a password (407): give --proxy=http://USER@HOST:PORT"

    def _no_proxy(self) -> _Refused:
        return _Refused(f"expected an HTTP proxy, but what answers is none: {self._proxy}", final=True)


@contextlib.asynccontextmanager
async def _closed(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Closes a connection: once all is written, or at once where the tunnel is closed."""
    try:
        yield
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    except BaseException:
        writer.transport.abort()
        raise


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _both_ways(here: Ends, there: Ends) -> None:
    """Copies until both sides have ended, or one has broken."""
    ways = [asyncio.create_task(_copy(here[0], there[1])), asyncio.create_task(_copy(there[0], here[1]))]
    try:
        done, left = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        if left and all(way.exception() is None for way in done):
            await asyncio.wait(left, timeout=HALF_S)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Copies until the source ends, and says so to the sink. Reads no more than the sink takes.

    Raises:
      OSError: one of them broke.
    """
    while data := await source.read(ANSWER_LIMIT):
        sink.write(data)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()
    else:  # TLS has no half of a line
        sink.close()


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """A dead way to the proxy is found in some 20 s, as on the links themselves."""
    socket = writer.get_extra_info("socket")
    socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1)
    for name, value in (("KEEPIDLE", 10), ("KEEPINTVL", 5), ("KEEPCNT", 3), ("USER_TIMEOUT", 20_000)):
        option = getattr(sockets, f"TCP_{name}", None)
        if option is not None:
            socket.setsockopt(sockets.IPPROTO_TCP, option, value)


def _why(error: OSError) -> str:
    """What the system says, without the addresses that asyncio adds."""
    if isinstance(error, sockets.gaierror):
        return error.strerror or "no such name"
    return os.strerror(error.errno) if error.errno else str(error)[:200]


@contextlib.contextmanager
def through(
    proxy: Proxy | None, address: str, tell: Callable[[str], None] = lambda words: None
) -> Iterator[Tunnel | None]:
    """A tunnel to an address while this lasts; None where there is no proxy."""
    if proxy is None:
        yield None
        return
    with Tunnel(proxy, address, tell) as tunnel:
        yield tunnel
