"""What a site can find out about its way to a coordinator without beginning anything: one question a function.

None of them uses a join code up: a one-time key may shake hands, and ask what time it is.
"""

from __future__ import annotations

import socket as sockets
import time
from collections.abc import Callable
from typing import NamedTuple

from learner_jax.errors import CryptoError, LearnerError, StudyError
from learner_jax.network.enrol import ANSWERS, ENROLS, Membership
from learner_jax.network.keys import JoinCode, Keys, sign, verify
from learner_jax.network.links import SiteLink
from learner_jax.network.seal import SIGNATURE, SiteSeal
from learner_jax.network.tunnel import Tunnel, host_and_port
from learner_jax.protocol import messages as m

ASK_S = 5.0
"""To wait for the coordinator to say what time it is; asked once a second."""


class Caller(NamedTuple):
    """Who calls, and how it talks.

    Attributes:
      address: "tcp://host:port".
      server_public: the CURVE key that is expected there, Z85.
      study: its name.
      keys: a CURVE pair, Z85.
      say: a header -> as it is sent.
      hear: (the header that was sent, what came) -> a header.
    """

    address: str
    server_public: str
    study: str
    keys: tuple[str, str]
    say: Callable[[bytes], bytes]
    hear: Callable[[bytes, bytes], bytes]


def by_code(code: JoinCode) -> Caller:
    """A site that has a join code and has not used it."""

    def say(header: bytes) -> bytes:
        return sign(code.proof, ENROLS + header) + header

    def hear(asked: bytes, found: bytes) -> bytes:
        signature, told = found[:SIGNATURE], found[SIGNATURE:]
        if not verify(code.coordinator, ANSWERS + asked + told, signature):
            raise CryptoError("expected an answer signed by the coordinator that the join code names, got another's")
        return told

    return Caller(code.address, code.server_public, code.study, (code.public, code.secret), say, hear)


def as_member(member: Membership, keys: Keys) -> Caller:
    """A site that has joined."""
    about = (member.address, member.server_public, member.study, (keys.curve_public, keys.curve_secret))
    if not member.sealed:
        return Caller(*about, lambda header: header, lambda asked, found: found)
    seal = SiteSeal(member.study, member.site, keys.sign_secret, bytes.fromhex(member.coordinator_sign))
    return Caller(*about, lambda header: seal.seal(header)[0], lambda asked, found: seal.open(found)[0])


def resolve(host: str) -> tuple[str, ...]:
    """Addresses of a name.

    Raises:
      StudyError: it has none.
    """
    try:
        found = sockets.getaddrinfo(host, None, type=sockets.SOCK_STREAM)
    except OSError as error:
        raise StudyError(f"expected the name '{host}' to lead to a machine, got: {error.strerror or error}") from None
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def knock(host: str, port: int, timeout_s: float) -> None:
    """Opens a port and closes it again.

    Raises:
      StudyError: it is closed.
    """
    try:
        sockets.create_connection((host, port), timeout_s).close()
    except TimeoutError:
        raise StudyError(f"port {port} of {host} does not answer within {timeout_s:.0f} s: a firewall may stand in "
                         "between; ask for a way out to that port, or give --proxy=URL") from None  # fmt: skip
    except ConnectionRefusedError:
        raise StudyError(
            f"port {port} of {host} is closed: the coordinator does not run, or listens elsewhere"
        ) from None
    except OSError as error:
        raise StudyError(f"expected to reach port {port} of {host}, got: {error.strerror or error}") from None


def knock_through(tunnel: Tunnel) -> None:
    """Opens the tunnel's port and waits for the first byte, which who listens there says unasked.

    Raises:
      StudyError: the proxy says no, or nobody says anything.
    """
    try:
        with sockets.create_connection(host_and_port(tunnel.address), tunnel.timeout_s) as one:
            one.settimeout(tunnel.timeout_s + 1)
            found = one.recv(1)
    except OSError:
        found = b""
    if tunnel.trouble is not None:
        raise StudyError(tunnel.trouble.words)
    if not found:
        raise StudyError("the proxy connects, but nothing that answers is there: the coordinator does not run, or "
                         "listens elsewhere")  # fmt: skip


def shake_hands(caller: Caller, link: SiteLink, timeout_s: float) -> None:
    """Opens the encrypted line.

    Raises:
      CryptoError: this key is not known there, or another coordinator has answered.
      StudyError: whoever answers does not speak as a coordinator does.
    """
    if not link.dial(timeout_s):
        raise StudyError(f"expected a coordinator at {caller.address}, but what answers there does not shake hands "
                         f"within {timeout_s:.0f} s: it is another program, or hangs")  # fmt: skip


def ahead_s(caller: Caller, link: SiteLink) -> float | None:
    """By how many seconds this machine's clock is ahead of the coordinator's; None if that is not told."""
    header, stop = m.encode(m.Ask(caller.study)), time.monotonic() + ASK_S
    while (left := stop - time.monotonic()) > 0:
        sent = time.time()
        if not link.send(caller.say(header)):
            time.sleep(0.05)
            continue
        answer = _answer(caller, header, link.recv(min(1.0, left)))
        if isinstance(answer, m.Told):
            return (sent + time.time()) / 2 - answer.time
        if isinstance(answer, m.Refused):  # an older coordinator
            return None
    return None


def _answer(caller: Caller, asked: bytes, found: tuple[bytes, bytes | memoryview] | None) -> m.Message | None:
    if found is None:
        return None
    try:
        return m.decode(caller.hear(asked, found[0]), "the coordinator")
    except LearnerError:
        return None
