"""How a site comes to be known: the desk at the coordinator, and `join` at the site.

    coordinator   makes a code: a one-time CURVE key that ZAP knows as enrol:<id>
    site          makes its own keys (0600), dials with the one-time key, sends them in one Enrol
    coordinator   writes the roster (code out, site in: one step), answers Enrolled, and knows the code no more

Both messages are signed, the first by a key that only the code's holder has, the second by the coordinator's own, which
the code names: so a broker in between can put no key of its own in anybody's place.

If the answer is lost, the code is used up but the site is on the roster; `join` asks with the site's own keys.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from learner_jax.errors import CryptoError, ProtocolError, StudyError
from learner_jax.network.keys import (
    JoinCode,
    Keys,
    Roster,
    Site,
    check_site_name,
    code_id,
    load_or_make_keys,
    load_roster,
    new_curve,
    parse_join_code,
    save_roster,
    sign,
    sign_public,
    verify,
    write_private,
    write_secret,
)
from learner_jax.network.links import SiteLink
from learner_jax.network.seal import SIGNATURE, SiteSeal
from learner_jax.network.tunnel import Proxy, Tunnel, through
from learner_jax.protocol import messages as m

ENROLS, ANSWERS = b"learner enrols\0", b"learner answers\0"
"""What is signed begins with what it is for, so that no signature serves twice."""


def rotation(study: str, name: str, curve_public: str) -> bytes:
    """What a site signs by its next Ed25519 key."""
    return f"learner rotates\0{study}\0{name}\0{curve_public}".encode()


@runtime_checkable
class Line(Protocol):
    """What a desk needs of a link: a `CoordinatorLink`, or a `BrokeredLink`."""

    def allow(self, public: str, user: str) -> None: ...

    def revoke(self, public: str) -> str | None: ...

    def send(self, user: str, header: bytes, payload: Any = b"") -> bool: ...

    def watch(self, public: str, act: Callable[[], None]) -> None: ...


class Desk:
    """Makes join codes and turns each into one site.

    Args:
      path: of the roster's file; read if it is there.
      study: its name.
      keys: the coordinator's.
      server: the CURVE key of the broker that sites dial, Z85; "" where they dial this coordinator.

    Attributes:
      roster: as it is now.

    Raises:
      CryptoError: the roster was changed by someone else, or is another study's.
    """

    def __init__(self, path: str | Path, study: str, keys: Keys, server: str = ""):
        self._path, self._keys, self._server = Path(path), keys, server
        self._guard = threading.Lock()
        self._link: Line | None = None
        self.roster = load_roster(path, keys) if self._path.exists() else Roster(study)
        if self.roster.study != study:
            raise CryptoError(f"expected the roster of study '{study}' in {path}, got that of '{self.roster.study}'")

    def serve(self, link: Line) -> None:
        """From now on this link lets in whom the roster has."""
        self._link = link
        for public, user in self.roster.users().items():
            link.allow(public, user)
        for name in self.roster.next:
            self._await(name)

    def invite(self, address: str, name: str = "") -> JoinCode:
        """Makes a code for one site. From any thread.

        Args:
          address: "tcp://host:port" as the site will dial it.
          name: the only name that it may enrol under; "" leaves it to the site.
        """
        public, secret = new_curve()
        server, sealed = self._server or self._keys.curve_public, bool(self._server)
        code = JoinCode(address, server, self.roster.study, secret, self._keys.sign_public, sealed)
        with self._guard:
            before = self.roster.codes_for(name)
            self._keep(self.roster.with_code(public, name, sign_public(code.proof)))
            if self._link is not None:
                for older in before:
                    self._link.revoke(older)
                self._link.allow(public, code_id(public))
        return code

    def enlist(self, name: str, site: Site) -> None:
        """Puts a site on the roster without a code: `learner local`, which makes both sides' keys itself."""
        public, _ = new_curve()
        with self._guard:
            self._keep(self.roster.with_code(public, name).with_site(public, name, site))
        if self._link is not None:
            self._link.allow(site.curve_public, name)

    def revoke(self, name: str) -> None:
        """Takes a site, and what codes there are for it, off the line and the roster; give the machine a Forget too.
        From any thread.

        Raises:
          CryptoError, StorageError: the disk refuses the roster; off the line it is, while this process lives.
        """
        with self._guard:
            codes = self.roster.codes_for(name)
            both = [site for site in (self.roster.sites.get(name), self.roster.next.get(name)) if site is not None]
            if self._link is not None:  # first: a full disk keeps nobody in
                for public in (*(site.curve_public for site in both), *codes):  # within: no rotation lets it in after
                    self._link.revoke(public)
            self._keep(self.roster.without_site(name))

    def rotate(self, name: str, asked: m.Rotate) -> m.Rotated | m.Refused:
        """Takes a site's next keys, which it says under its present ones. In the link's thread."""
        study = self.roster.study
        try:
            if not verify(asked.sign_public, rotation(study, name, asked.curve_public), asked.proof):
                raise CryptoError("expected a proof signed by the next key, got another")
            site = Site(asked.curve_public, asked.sign_public)
            if self.roster.sites.get(name) != site:  # said again, by a site that has gone over
                assert self._link is not None
                with self._guard:  # a revocation comes before all of it, or after
                    before = self.roster.next.get(name)
                    self._keep(self.roster.with_next(name, site))
                    if before is not None and before != site:
                        self._link.revoke(before.curve_public)
                    self._link.allow(site.curve_public, name)
                    self._await(name)
        except CryptoError as error:
            return m.Refused(study, str(error)[:2000])
        return m.Rotated(study, asked.curve_public)

    def gone_over(self, name: str) -> None:
        """A site has used its next keys: the old ones are nobody's from now on. In the link's thread."""
        with self._guard:
            if name not in self.roster.next:
                return
            old = self.roster.sites[name]
            try:
                self._keep(self.roster.gone_over(name))
            except CryptoError:  # the disk is full: both keys stay good, and its next message tries again
                if self._link is not None:
                    self._await(name)
                return
        if self._link is not None:
            self._link.revoke(old.curve_public)

    def _await(self, name: str) -> None:
        assert self._link is not None
        if name in self.roster.next:
            self._link.watch(self.roster.next[name].curve_public, lambda: self.gone_over(name))

    def _keep(self, roster: Roster) -> None:
        save_roster(self._path, roster, self._keys)
        self.roster = roster

    def receive(self, user: str, header: bytes) -> str | None:
        """Answers what a one-time key sent; returns the site's name if there is a new one. In the link's thread."""
        study = self.roster.study
        code = next((public for public in self.roster.codes if code_id(public) == user), "")
        try:
            signature, header = header[:SIGNATURE], header[SIGNATURE:]
            if not verify(self.roster.proofs.get(code, b""), ENROLS + header, signature):
                raise CryptoError("expected an enrolment signed by the join code's holder, got another")
            enrol = m.decode(header, user)
            if isinstance(enrol, m.Ask):
                self._answer(user, header, m.Told(study, time.time()))
                return None
            if not isinstance(enrol, m.Enrol) or enrol.study != study:
                raise CryptoError(f"expected an enrolment in study '{study}' from a one-time key, got something else")
            with self._guard:
                site, codes = Site(enrol.curve_public, enrol.sign_public), self.roster.codes_for(enrol.name)
                self._keep(self.roster.with_site(code, check_site_name(enrol.name), site))
                if self._link is not None:
                    self._link.allow(enrol.curve_public, enrol.name)
        except (CryptoError, ProtocolError) as error:
            self._answer(user, header, m.Refused(study, str(error)[:2000]))
            return None
        assert self._link is not None
        self._answer(user, header, m.Enrolled(study, enrol.name, self._keys.sign_public, self.roster.version))
        for public in {code, *codes}:
            self._link.revoke(public)
        return enrol.name

    def _answer(self, user: str, asked: bytes, message: m.Message) -> None:
        if self._link is not None:
            header = m.encode(message)
            self._link.send(user, sign(self._keys.sign_secret, ANSWERS + asked + header) + header)


def invite(desk: Desk, names: Sequence[str], address: str, folder: Path) -> dict[str, Path]:
    """A file with a join code for each of these sites that is not enrolled; a code that still works is kept.

    Returns:
      name -> file, which only its owner may read.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    files = {}
    for name in names:
        path = folder / f"{name}.code"
        if name in desk.roster.sites or name in desk.roster.revoked:
            path.unlink(missing_ok=True)
            continue
        if not _works(path, desk, address):
            write_secret(path, desk.invite(address, name).text().encode() + b"\n")
        files[name] = path
    return files


def _works(path: Path, desk: Desk, address: str) -> bool:
    try:
        code = parse_join_code(path.read_text())
    except (OSError, CryptoError):
        return False
    return code.public in desk.roster.codes and code.address == address


class Membership(NamedTuple):
    """What a site keeps of having joined a study: as in its join code; coordinator_sign in hexadecimal."""

    study: str
    site: str
    address: str
    server_public: str
    coordinator_sign: str = ""
    sealed: bool = False


def load_membership(folder: str | Path) -> Membership | None:
    """What `join` kept in a folder; None if this site has not joined.

    Raises:
      CryptoError: not what was kept.
    """
    path = Path(folder) / "membership.json"
    if not path.exists():
        return None
    try:
        return Membership(**json.loads(path.read_bytes()))
    except (ValueError, TypeError, RecursionError):
        raise CryptoError(f"expected a membership in {path}, got something else") from None


class _Forged(CryptoError):
    """Somebody else answers in the coordinator's place."""


def join(
    code: JoinCode, name: str, folder: str | Path, timeout_s: float = 20.0, via: Tunnel | None = None
) -> Membership:
    """Joins a study: makes this site's keys if it has none, and hands their public halves in under the one-time key.

    Args:
      code: as parsed from its text.
      name: this site's.
      folder: keeps keys.json and membership.json; 0700.
      timeout_s: to wait for the coordinator.
      via: a tunnel to the code's address, where there is no other way.

    Raises:
      CryptoError: the code was used, is wrong, or is for another name; the name is taken; another coordinator answers.
      StudyError: no coordinator answers at the address, or the proxy refuses.
    """
    check_site_name(name)
    folder = Path(folder)
    keys = load_or_make_keys(folder / "keys.json")
    header = m.encode(m.Enrol(code.study, name, keys.curve_public, keys.sign_public))

    def answer(found: bytes) -> bytes:
        signature, told = found[:SIGNATURE], found[SIGNATURE:]
        if not verify(code.coordinator, ANSWERS + header + told, signature):
            raise _Forged("expected an answer signed by the coordinator that the join code names, got another's")
        return told

    try:
        signed = sign(code.proof, ENROLS + header) + header
        _ask(code, (code.public, code.secret), signed, answer, m.Enrolled, timeout_s, via)
    except _Forged:
        raise
    except CryptoError:
        if not _known(code, keys, name, timeout_s, via):
            raise
    about = (code.address, code.server_public, code.coordinator.hex(), code.sealed)
    member = Membership(code.study, name, *about)
    write_private(folder / "membership.json", member._asdict())
    return member


def _known(code: JoinCode, keys: Keys, name: str, timeout_s: float, via: Tunnel | None) -> bool:
    """Whether the code was used up by this site itself, before the answer was lost."""
    hello = m.encode(m.Hello(code.study, m.PROTOCOL, name, "", 0))
    seal = SiteSeal(code.study, name, keys.sign_secret, code.coordinator) if code.sealed else None
    question = seal.seal(hello)[0] if seal else hello

    def answer(told: bytes) -> bytes:
        return seal.open(told)[0] if seal else told

    try:
        _ask(code, keys[:2], question, answer, m.Welcome, timeout_s, via)
    except (CryptoError, StudyError, ProtocolError):
        return False
    return True


Answer = TypeVar("Answer", bound=m.Message)


def _ask(
    code: JoinCode,
    keys: tuple[str, str],
    question: bytes,
    read: Callable[[bytes], bytes],
    wanted: type[Answer],
    timeout_s: float,
    via: Tunnel | None = None,
) -> Answer:
    """Says one thing to the coordinator, waits for its answer; dials twice, since a used code is seen in dialling."""
    for _ in range(2):
        stop = time.monotonic() + timeout_s / 2
        with SiteLink(code.address, code.server_public, keys, via=via) as link:
            if not link.dial(timeout_s / 2):
                continue
            link.send(question)
            while time.monotonic() < stop:
                found = link.recv(max(0.0, stop - time.monotonic()))
                answer = m.decode(read(found[0]), "the coordinator") if found is not None else None
                if isinstance(answer, m.Refused):
                    raise CryptoError(answer.reason)
                if isinstance(answer, wanted):
                    return answer
    why = f": {via.trouble.words}" if via is not None and via.trouble is not None else ""
    raise StudyError(f"expected a coordinator at {code.address}, but none answered within {timeout_s:.0f} s{why}")


def membership(code: str | None, name: str, folder: Path, proxy: Proxy | None = None) -> Membership:
    """Membership in a study, or at a broker: the one that this folder has, or one by a join code.

    Raises:
      StudyError: neither.
    """
    member = load_membership(folder)
    if member is not None:
        return member
    if code is None:
        raise StudyError(f"expected a join code: {folder} has not joined a study yet")
    parsed = parse_join_code(code)
    with through(proxy, parsed.address) as via:
        return join(parsed, name, folder, via=via)
