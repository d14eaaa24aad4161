"""End to end through a broker: every header is signed, every payload is sealed.

CURVE protects one line; a broker that stands alone is the end of two, and could read and write what passes. So with a
broker in between, each side signs its headers with its Ed25519 key (the site's is on the roster, the coordinator's in
the join code) and seals its payloads with a key that the broker cannot know:

    header'   version 1 | own ephemeral 32 | the other's ephemeral 32 | count 8 | signature 64 | header
    payload'  AES-256-GCM(key, nonce = count, payload, additional data = header')
    key       HKDF-SHA256(X25519(own ephemeral, the other's ephemeral), info = study, site, direction, ephemerals)

An ephemeral key lives as long as its process. What names the other's ephemeral was said to this very process, after it
said it, and is taken once: the count goes up. Only Hello may name none, since it begins the talk; an old Hello said
again makes the coordinator answer it, and no more. So a broker can delay and lose, which the machines make good; it can
neither read, change, make up nor repeat.

The signature is over all of header' but itself. Reference: RFC 7748 (X25519), RFC 8032 (Ed25519), RFC 5869 (HKDF),
NIST SP 800-38D (GCM: a key is used for fewer than 2^32 messages of counted nonces).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from learner_jax.errors import RemoteProtocolError
from learner_jax.network.keys import verify
from learner_jax.protocol import messages as m

SIGNATURE = 64
"""Bytes of an Ed25519 signature."""
_VERSION, _NOBODY = b"\x01", bytes(32)
_OWN, _OTHER, _COUNT, _SIGNED = slice(1, 33), slice(33, 65), slice(65, 73), slice(73, 137)
OVERHEAD = _SIGNED.stop
"""Bytes that a header grows by; a payload grows by 16."""
UP, DOWN = b"up", b"down"
_PROCESSES = 64
"""Processes of one peer whose messages are known when they are said again."""


class NotMet(RemoteProtocolError):
    """A site spoke to an earlier process of this coordinator. answer: a header for it, which makes it say Hello."""

    def __init__(self, peer: str, answer: bytes):
        super().__init__(peer, "expected a Hello first, since this coordinator was started anew")
        self.answer = answer


class _Side:
    """One side's keys towards one peer.

    Args:
      about: what is signed with everything: study and site.
      own: this process's ephemeral key.
      sign: signs bytes by the long-lived key.
    """

    def __init__(self, about: bytes, own: X25519PrivateKey, sign: Callable[[bytes], bytes], way: bytes):
        self._about, self._own, self._sign, self._way = about, own, sign, way
        self.public = own.public_key().public_bytes_raw()
        self.other, self.count, self._heard = _NOBODY, 0, dict[bytes, int]()
        self._shared = b""
        self._keys: dict[bytes, AESGCM] = {}

    def meet(self, other: bytes, peer: str) -> None:
        """From now on the peer's process is the one with this ephemeral key.

        Raises:
          RemoteProtocolError: one of the few keys with which the secret would be known to all (RFC 7748, section 6.1);
            whom this side has met stays as it was.
        """
        if self._shared and other == self.other:
            return
        try:
            shared = self._own.exchange(X25519PublicKey.from_public_bytes(other))
        except ValueError:
            raise RemoteProtocolError(peer, "expected an ephemeral key, got one that makes no secret") from None
        self.other, self._shared = other, shared
        self._keys.clear()

    def once(self, other: bytes, count: int, peer: str) -> None:
        """Refuses what was said before by the process with this ephemeral key.

        Raises:
          RemoteProtocolError: it was.
        """
        if count <= self._heard.get(other, 0):
            raise RemoteProtocolError(peer, "expected a message not said before, got one again")

    def heard(self, other: bytes, count: int) -> None:
        """Counts a message; of earlier processes the last few are remembered."""
        self._heard.pop(other, None)
        self._heard[other] = count
        while len(self._heard) > _PROCESSES:
            self._heard.pop(next(iter(self._heard)))

    @property
    def met(self) -> bool:
        """Whether there is a process to seal for."""
        return bool(self._shared)

    def _key(self, way: bytes) -> AESGCM:
        if way not in self._keys:
            both = b"".join(sorted((self.public, self.other)))
            info = b"learner payload\0" + self._about + b"\0" + way + both
            self._keys[way] = AESGCM(HKDF(hashes.SHA256(), 32, None, info).derive(self._shared))
        return self._keys[way]

    def seal(self, header: bytes, payload: bytes | memoryview) -> tuple[bytes, bytes]:
        """A message as it goes through a broker."""
        self.count += 1
        count = self.count.to_bytes(8, "big")
        front = _VERSION + self.public + self.other + count
        sealed = front + self._sign(self._way + self._about + front + header) + header
        if not len(payload):
            return sealed, b""
        return sealed, self._key(self._way).encrypt(b"\0\0\0\0" + count, payload, sealed)

    def payload(self, sealed: bytes, payload: bytes | memoryview, peer: str) -> bytes:
        """A sealed payload's bytes; its header was checked before."""
        if not len(payload):
            return b""
        way = DOWN if self._way == UP else UP
        try:
            return self._key(way).decrypt(b"\0\0\0\0" + sealed[_COUNT], payload, sealed)
        except InvalidTag:
            raise RemoteProtocolError(peer, "expected a payload sealed for this process, got another") from None


def _parts(sealed: bytes, peer: str) -> tuple[bytes, bytes, int, bytes]:
    if len(sealed) <= OVERHEAD or sealed[:1] != _VERSION:
        raise RemoteProtocolError(peer, f"expected a signed header of version 1, got {len(sealed)} bytes")
    return sealed[_OWN], sealed[_OTHER], int.from_bytes(sealed[_COUNT], "big"), sealed[OVERHEAD:]


def _signed(public: bytes, way: bytes, about: bytes, sealed: bytes) -> bool:
    return verify(public, way + about + sealed[: _COUNT.stop] + sealed[OVERHEAD:], sealed[_SIGNED])


def _check(public: bytes, way: bytes, about: bytes, sealed: bytes, peer: str) -> None:
    if not _signed(public, way, about, sealed):
        raise RemoteProtocolError(peer, "expected a header signed by its sender, got one that is not")


def _about(study: str, site: str) -> bytes:
    return f"\0{study}\0{site}\0".encode()


class SiteSeal:
    """A site's end.

    Args:
      study, site: names, as enrolled.
      sign_secret: the site's Ed25519 secret.
      coordinator: the coordinator's Ed25519 public key.
    """

    def __init__(self, study: str, site: str, sign_secret: bytes, coordinator: bytes):
        signer = Ed25519PrivateKey.from_private_bytes(sign_secret)
        self._coordinator, self._about = coordinator, _about(study, site)
        self._side = _Side(self._about, X25519PrivateKey.generate(), signer.sign, UP)

    def seal(self, header: bytes, payload: bytes | memoryview = b"") -> tuple[bytes, bytes]:
        """A message for the coordinator, as it goes through a broker."""
        return self._side.seal(header, payload)

    def open(self, sealed: bytes, payload: bytes | memoryview = b"") -> tuple[bytes, bytes]:
        """A message of the coordinator.

        Raises:
          RemoteProtocolError: not signed by it, not for this process, said before, or a payload that was changed.
        """
        peer = "the coordinator"
        other, own, count, header = _parts(sealed, peer)
        _check(self._coordinator, DOWN, self._about, sealed, peer)
        if own != self._side.public:
            raise RemoteProtocolError(peer, "expected a message for this process, got one for an earlier one")
        self._side.once(other, count, peer)
        self._side.meet(other, peer)
        found = header, self._side.payload(sealed, payload, peer)
        self._side.heard(other, count)
        return found


class CoordinatorSeal:
    """A coordinator's end, towards all its sites.

    Args:
      study: its name.
      sign_secret: the coordinator's Ed25519 secret.
      who: a site's name -> its Ed25519 public keys: none if it is not on the roster, two while it goes over to others.
      gone_over: told of a site that signs by the second.
    """

    def __init__(
        self,
        study: str,
        sign_secret: bytes,
        who: Callable[[str], Sequence[bytes]],
        gone_over: Callable[[str], None] = lambda site: None,
    ):
        self._study, self._who, self._gone_over = study, who, gone_over
        self._sign: Callable[[bytes], bytes] = Ed25519PrivateKey.from_private_bytes(sign_secret).sign
        self._own = X25519PrivateKey.generate()
        self._sides: dict[str, _Side] = {}

    def seal(self, site: str, header: bytes, payload: bytes | memoryview = b"") -> tuple[bytes, bytes] | None:
        """A message for a site, as it goes through a broker; None for one that has not said Hello."""
        side = self._sides.get(site)
        return side.seal(header, payload) if side is not None and side.met else None

    def open(self, site: str, sealed: bytes, payload: bytes | memoryview = b"") -> tuple[bytes, bytes]:
        """A message of a site.

        Raises:
          RemoteProtocolError: as `SiteSeal.open`.
        """
        keys = tuple(self._who(site))
        if not keys:  # a broker may make up as many names as it likes
            raise RemoteProtocolError("the broker", "expected a message of a site of the roster, got one of another")
        other, own, count, header = _parts(sealed, site)
        about = _about(self._study, site)
        signer = next((key for key in keys[1:] if _signed(key, UP, about, sealed)), keys[0])
        _check(signer, UP, about, sealed, site)
        if signer != keys[0]:
            self._gone_over(site)
        side = self._sides.get(site)
        if side is None:
            side = self._sides[site] = _Side(about, self._own, self._sign, DOWN)
        if own != side.public:  # it does not know this process yet, so that it may have been said to another
            if not isinstance(m.decode(header, site), m.Hello):
                raise NotMet(site, self._bye(about, other, side))
            side.once(other, count, site)
            side.meet(other, site)
            side.heard(other, count)
            return header, b""
        side.once(other, count, site)
        side.meet(other, site)
        found = header, side.payload(sealed, payload, site)
        side.heard(other, count)
        return found

    def _bye(self, about: bytes, other: bytes, side: _Side) -> bytes:
        """Without a payload, so without a secret; its count is the side's, or what is said next would be an old one."""
        once = _Side(about, self._own, self._sign, DOWN)
        once.other, once.count = other, side.count
        sealed = once.seal(m.encode(m.Bye(self._study, "it was started anew")), b"")[0]
        side.count = once.count
        return sealed

    def forget(self, site: str) -> None:
        """Drops what is known of a site's process."""
        self._sides.pop(site, None)
