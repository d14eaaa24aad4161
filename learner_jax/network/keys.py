"""Keys: who a site and a coordinator are, and how a site comes to be known.

Each party has a CURVE pair (the line) and an Ed25519 pair (what it signs), born where they are used, in one 0600 file.
A join code carries the coordinator's address and CURVE key, the study and a one-time CURVE secret; with that key a
site may send its own public keys, once. The roster is the coordinator's list of sites and of codes not yet used:
JSON, versioned, signed, written whole or not at all, so that "code used" and "site known" are one step.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import zmq
from zmq.utils import z85

from learner_jax.errors import CryptoError
from learner_jax.protocol.broker import ENROL
from learner_jax.protocol.messages import NAME_RULE, check_name

_CODE = "LEARNER-"
_VERSION = b"\x01"


class Keys(NamedTuple):
    """One party's keys. CURVE as Z85 text of 40 characters, Ed25519 as 32 raw bytes."""

    curve_public: str
    curve_secret: str
    sign_public: bytes
    sign_secret: bytes


def new_keys() -> Keys:
    """Makes both pairs from the system's randomness."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    secret = Ed25519PrivateKey.generate()
    return Keys(*new_curve(), secret.public_key().public_bytes_raw(), secret.private_bytes_raw())


def new_curve() -> tuple[str, str]:
    """A CURVE pair: (public, secret)."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def load_or_make_keys(path: str | Path) -> Keys:
    """The keys in a file; made and kept there (0600) if there is none.

    Raises:
      CryptoError: not a key file, or others may read it.
    """
    path = Path(path)
    if path.exists():
        return _load_keys(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    keys = new_keys()
    write_private(path, {name: v if isinstance(v, str) else v.hex() for name, v in keys._asdict().items()})
    return keys


def _load_keys(path: Path) -> Keys:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise CryptoError(f"expected a key file that only its owner may read, got {path}: run chmod 600 on it")
    wrong = CryptoError(f"expected a key file in {path}, got something else")
    try:
        found = json.loads(path.read_bytes())
        signing = bytes.fromhex(found["sign_public"]), bytes.fromhex(found["sign_secret"])
        keys = Keys(found["curve_public"], found["curve_secret"], *signing)
        sound = zmq.curve_public(keys.curve_secret.encode()).decode() == keys.curve_public
        sound &= verify(keys.sign_public, b"", sign(keys.sign_secret, b""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zmq.ZMQError):
        raise wrong from None
    if not sound:
        raise wrong
    return keys


def write_private(path: Path, value: Any) -> None:
    """Writes JSON that only the owner may read, whole or not at all.

    Raises:
      CryptoError: the disk refuses.
    """
    write_secret(path, (json.dumps(value, sort_keys=True, indent=1) + "\n").encode())


def write_secret(path: Path, data: bytes) -> None:
    """Writes bytes that only the owner may read, whole or not at all.

    Raises:
      CryptoError: the disk refuses.
    """
    beside = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):  # on a disk that may only be read this is refused, too
            beside.unlink(missing_ok=True)
        raise CryptoError(f"expected to write keys to {path}, got: {error.strerror}") from None


def sign(secret: bytes, data: bytes) -> bytes:
    """An Ed25519 signature of 64 bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(secret).sign(data)


def sign_public(secret: bytes) -> bytes:
    """The Ed25519 public key of a secret, 32 raw bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def verify(public: bytes, data: bytes, signature: bytes) -> bool:
    """Whether an Ed25519 signature is of these bytes by this key."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


class JoinCode(NamedTuple):
    """What a coordinator hands to one hospital.

    Attributes:
      address: "tcp://host:port".
      server_public: the CURVE key of whoever listens there, the coordinator or a broker, Z85.
      study: its name.
      secret: of the one-time CURVE pair, Z85.
      coordinator: the Ed25519 key by which the coordinator signs, 32 raw bytes; so a broker cannot pass for it.
      sealed: whether a broker stands between, so that all is signed and sealed from end to end.
    """

    address: str
    server_public: str
    study: str
    secret: str
    coordinator: bytes = bytes(32)
    sealed: bool = False

    @property
    def public(self) -> str:
        """Of the one-time pair, Z85."""
        return zmq.curve_public(self.secret.encode()).decode()

    @property
    def proof(self) -> bytes:
        """The Ed25519 secret by which this code's holder signs its enrolment."""
        return hashlib.sha256(b"learner enrolment" + z85.decode(self.secret.encode())).digest()

    def text(self) -> str:
        """As it is mailed or read out: one line, url-safe, with a checksum."""
        keys = z85.decode(self.server_public.encode()) + z85.decode(self.secret.encode()) + self.coordinator
        body = keys + bytes([self.sealed, len(self.address)]) + self.address.encode() + self.study.encode()
        return _CODE + base64.urlsafe_b64encode(_VERSION + body + _checksum(_VERSION + body)).decode().rstrip("=")


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(b"learner join code" + body).digest()[:5]


def parse_join_code(text: str) -> JoinCode:
    """Reads a join code; blanks and line breaks in it do not matter.

    Raises:
      CryptoError: not a join code, or a character of it is wrong. The code itself is never in the message.
    """
    text = re.sub(r"\s", "", text)
    wrong = CryptoError("wrong join code: expected the text that begins with LEARNER-, copied whole, got another text")
    if not text.startswith(_CODE):
        raise wrong
    try:
        coded = text.removeprefix(_CODE).encode("ascii")
        raw = base64.b64decode(coded + b"=" * (-len(coded) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise wrong from None
    version, body, check = raw[:1], raw[1:-5], raw[-5:]
    if len(body) < 100 or check != _checksum(version + body) or base64.urlsafe_b64encode(raw).rstrip(b"=") != coded:
        raise wrong
    if version != _VERSION:
        raise CryptoError(f"expected a join code of version 1, got {version[0]}: install a newer learner-jax")
    cut = 98 + body[97]
    server, secret = (z85.encode(part).decode() for part in (body[:32], body[32:64]))
    return JoinCode(body[98:cut].decode(), server, body[cut:].decode(), secret, body[64:96], bool(body[96]))


def code_id(public: str) -> str:
    """The user id of a one-time key: "enrol:" and 16 hexadecimal digits."""
    return ENROL + hashlib.sha256(public.encode()).hexdigest()[:16]


class Site(NamedTuple):
    """A site's public keys."""

    curve_public: str
    sign_public: bytes


class Roster(NamedTuple):
    """Who may talk to a study's coordinator.

    Attributes:
      study: its name.
      version: one more at each change.
      sites: name -> Site.
      codes: one-time CURVE public key -> the name that the code is for; "" for any.
      proofs: the same -> the Ed25519 key by which the code's holder signs its enrolment, 32 raw bytes.
      revoked: names of sites that were taken off.
      next: name -> the keys that a site goes over to; both are valid until it has used these.
    """

    study: str
    version: int = 0
    sites: Mapping[str, Site] = {}
    codes: Mapping[str, str] = {}
    proofs: Mapping[str, bytes] = {}
    revoked: tuple[str, ...] = ()
    next: Mapping[str, Site] = {}

    def with_code(self, public: str, name: str = "", proof: bytes = b"") -> Roster:
        """This roster and one more unused code, in place of an earlier one for the same name."""
        if name:
            check_name(name, "a site's name")
        codes, proofs = self._without_codes(self.codes_for(name))
        codes, proofs = {**codes, public: name}, {**proofs, public: proof}
        return self._replace(version=self.version + 1, codes=codes, proofs=proofs)

    def codes_for(self, name: str) -> tuple[str, ...]:
        """One-time keys that were made for this name and no other; none for ""."""
        return tuple(public for public, for_name in self.codes.items() if name and for_name == name)

    def _without_codes(self, gone: Collection[str]) -> tuple[dict[str, str], dict[str, bytes]]:
        codes = {public: name for public, name in self.codes.items() if public not in gone}
        return codes, {public: proof for public, proof in self.proofs.items() if public not in gone}

    def with_site(self, code: str, name: str, site: Site) -> Roster:
        """This roster with a code used up and its site known.

        Raises:
          CryptoError: the code is not there (any more), is for another name, or the name or key is taken; the site was
            taken off.
        """
        if code not in self.codes:
            raise CryptoError("this join code was used already, or was never made here")
        if self.codes[code] not in ("", name):
            raise CryptoError(f"expected site '{self.codes[code]}', for which the join code was made, got '{name}'")
        if name in self.sites:
            raise CryptoError(f"expected a new name, but a site '{name}' is enrolled already: choose another")
        if name in self.revoked:
            raise CryptoError(f"expected a new name, but a site '{name}' was taken off the roster: choose another")
        taken = {known.curve_public for both in (self.sites, self.next) for known in both.values()} | set(self.codes)
        if site.curve_public in taken:
            raise CryptoError(f"expected a key of its own for site '{name}', got one that is known already")
        codes, proofs = self._without_codes((code, *self.codes_for(name)))
        return self._replace(version=self.version + 1, sites={**self.sites, name: site}, codes=codes, proofs=proofs)

    def without_site(self, name: str) -> Roster:
        """This roster with a site revoked, and what codes there are for it."""
        codes, proofs = self._without_codes(self.codes_for(name))
        left = {known: site for known, site in self.sites.items() if known != name}
        following = {known: site for known, site in self.next.items() if known != name}
        off = (*(known for known in self.revoked if known != name), name)
        return Roster(self.study, self.version + 1, left, codes, proofs, off, following)

    def with_next(self, name: str, site: Site) -> Roster:
        """This roster with the keys that a site goes over to.

        Raises:
          CryptoError: the site is not known, or the key is known already.
        """
        if name not in self.sites:
            raise CryptoError(f"expected a site of the roster, got '{name}'")
        taken = {known.curve_public for known in self.sites.values()} | set(self.codes)
        taken |= {known.curve_public for other, known in self.next.items() if other != name}
        if site.curve_public in taken:
            raise CryptoError(f"expected a key of its own for site '{name}', got one that is known already")
        return self._replace(version=self.version + 1, next={**self.next, name: site})

    def gone_over(self, name: str) -> Roster:
        """This roster once a site has used its next keys: the old ones are nobody's."""
        following = {known: site for known, site in self.next.items() if known != name}
        return self._replace(version=self.version + 1, sites={**self.sites, name: self.next[name]}, next=following)

    def users(self) -> dict[str, str]:
        """CURVE public key -> user id, for ZAP."""
        sites = {site.curve_public: name for both in (self.sites, self.next) for name, site in both.items()}
        return {**sites, **{public: code_id(public) for public in self.codes}}


def _roster_bytes(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def save_roster(path: str | Path, roster: Roster, keys: Keys) -> None:
    """Writes a roster with the coordinator's signature, whole or not at all."""
    body = {
        "study": roster.study,
        "version": roster.version,
        "sites": {name: [site.curve_public, site.sign_public.hex()] for name, site in roster.sites.items()},
        "revoked": list(roster.revoked),
        "next": {name: [site.curve_public, site.sign_public.hex()] for name, site in roster.next.items()},
        "codes": {public: [name, roster.proofs[public].hex()] for public, name in roster.codes.items()},
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_private(Path(path), {"roster": body, "signature": sign(keys.sign_secret, _roster_bytes(body)).hex()})


def load_roster(path: str | Path, keys: Keys) -> Roster:
    """Reads a roster and checks its signature.

    Raises:
      CryptoError: changed by someone else, or not a roster.
    """
    try:
        found = json.loads(Path(path).read_bytes())
        body, signature = found["roster"], bytes.fromhex(found["signature"])
        sound = verify(keys.sign_public, _roster_bytes(body), signature)
        sites = {name: Site(curve, bytes.fromhex(key)) for name, (curve, key) in body["sites"].items()}
        codes = {public: name for public, (name, _) in body["codes"].items()}
        proofs = {public: bytes.fromhex(proof) for public, (_, proof) in body["codes"].items()}
        following = {name: Site(curve, bytes.fromhex(key)) for name, (curve, key) in body["next"].items()}
        roster = Roster(body["study"], body["version"], sites, codes, proofs, tuple(body["revoked"]), following)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CryptoError(f"expected a roster in {path}, got something else") from None
    if not sound:
        raise CryptoError(f"expected the roster {path} with this coordinator's signature, got another: it was changed")
    return roster


def check_site_name(name: str) -> str:
    """A name that a site may have.

    Raises:
      CryptoError: it may not.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,63}", name):
        raise CryptoError(f"expected a site's name ({NAME_RULE}), got {name!r}")
    return name
