"""How a site comes to be known: the desk at the coordinator, and `join` at the site.

    coordinator   makes a code: a one-time CURVE key that ZAP knows as enrol:<id>
    site          makes its own keys (0600), dials with the one-time key, sends them in one Enrol
    coordinator   writes the roster (code out, site in: one step), answers Enrolled, and knows the code no more

If the answer is lost, the code is used up but the site is on the roster; `join` asks with the site's own keys.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import NamedTuple, TypeVar

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
    save_roster,
    write_private,
)
from learner_jax.network.links import CoordinatorLink, SiteLink
from learner_jax.protocol import messages as m


class Desk:
    """Makes join codes and turns each into one site.

    Args:
      path: of the roster's file; read if it is there.
      study: its name.
      keys: the coordinator's.

    Attributes:
      roster: as it is now.

    Raises:
      CryptoError: the roster was changed by someone else, or is another study's.
    """

    def __init__(self, path: str | Path, study: str, keys: Keys):
        self._path, self._keys = Path(path), keys
        self._guard = threading.Lock()
        self._link: CoordinatorLink | None = None
        self.roster = load_roster(path, keys) if self._path.exists() else Roster(study)
        if self.roster.study != study:
            raise CryptoError(f"expected the roster of study '{study}' in {path}, got that of '{self.roster.study}'")

    def serve(self, link: CoordinatorLink) -> None:
        """From now on this link lets in whom the roster has."""
        self._link = link
        for public, user in self.roster.users().items():
            link.allow(public, user)

    def invite(self, address: str, name: str = "") -> JoinCode:
        """Makes a code for one site. From any thread.

        Args:
          address: "tcp://host:port" as the site will dial it.
          name: the only name that it may enrol under; "" leaves it to the site.
        """
        public, secret = new_curve()
        with self._guard:
            self._keep(self.roster.with_code(public, name))
        if self._link is not None:
            self._link.allow(public, code_id(public))
        return JoinCode(address, self._keys.curve_public, self.roster.study, secret)

    def enlist(self, name: str, site: Site) -> None:
        """Puts a site on the roster without a code: `learner local`, which makes both sides' keys itself."""
        public, _ = new_curve()
        with self._guard:
            self._keep(self.roster.with_code(public, name).with_site(public, name, site))
        if self._link is not None:
            self._link.allow(site.curve_public, name)

    def revoke(self, name: str) -> None:
        """Takes a site off the roster and off the line; give the machine a Forget too. From any thread."""
        with self._guard:
            site = self.roster.sites.get(name)
            self._keep(self.roster.without_site(name))
        if site is not None and self._link is not None:
            self._link.revoke(site.curve_public)

    def _keep(self, roster: Roster) -> None:
        save_roster(self._path, roster, self._keys)
        self.roster = roster

    def receive(self, user: str, header: bytes) -> str | None:
        """Answers what a one-time key sent; returns the site's name if there is a new one. In the link's thread."""
        study = self.roster.study
        code = next((public for public in self.roster.codes if code_id(public) == user), "")
        try:
            enrol = m.decode(header, user)
            if not isinstance(enrol, m.Enrol) or enrol.study != study:
                raise CryptoError(f"expected an enrolment in study '{study}' from a one-time key, got something else")
            with self._guard:
                site = Site(enrol.curve_public, enrol.sign_public)
                self._keep(self.roster.with_site(code, check_site_name(enrol.name), site))
        except (CryptoError, ProtocolError) as error:
            self._answer(user, m.Refused(study, str(error)[:2000]))
            return None
        assert self._link is not None
        self._link.allow(enrol.curve_public, enrol.name)
        self._answer(user, m.Enrolled(study, enrol.name, self._keys.sign_public, self.roster.version))
        self._link.revoke(code)
        return enrol.name

    def _answer(self, user: str, message: m.Message) -> None:
        if self._link is not None:
            self._link.send(user, m.encode(message))


class Membership(NamedTuple):
    """What a site keeps of having joined a study."""

    study: str
    site: str
    address: str
    server_public: str
    coordinator_sign: str = ""


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
    except (ValueError, TypeError):
        raise CryptoError(f"expected a membership in {path}, got something else") from None


def join(code: JoinCode, name: str, folder: str | Path, timeout_s: float = 20.0) -> Membership:
    """Joins a study: makes this site's keys if it has none, and hands their public halves in under the one-time key.

    Args:
      code: as parsed from its text.
      name: this site's.
      folder: keeps keys.json and membership.json; 0700.
      timeout_s: to wait for the coordinator.

    Raises:
      CryptoError: the code was used, is wrong, or is for another name; the name is taken; another coordinator answers.
      StudyError: no coordinator answers at the address.
    """
    check_site_name(name)
    folder = Path(folder)
    keys = load_or_make_keys(folder / "keys.json")
    enrol = m.Enrol(code.study, name, keys.curve_public, keys.sign_public)
    try:
        enrolled = _ask(code, (code.public, code.secret), enrol, m.Enrolled, timeout_s)
        sign = enrolled.sign_public.hex()
    except CryptoError:
        if not _known(code, keys, name, timeout_s):
            raise
        sign = ""
    member = Membership(code.study, name, code.address, code.server_public, sign)
    write_private(folder / "membership.json", member._asdict())
    return member


def _known(code: JoinCode, keys: Keys, name: str, timeout_s: float) -> bool:
    """Whether the code was used up by this site itself, before the answer was lost."""
    try:
        _ask(code, keys[:2], m.Hello(code.study, m.PROTOCOL, name, "", 0), m.Welcome, timeout_s)
    except (CryptoError, StudyError):
        return False
    return True


Answer = TypeVar("Answer", bound=m.Message)


def _ask(code: JoinCode, keys: tuple[str, str], question: m.Message, wanted: type[Answer], timeout_s: float) -> Answer:
    """Says one thing to the coordinator, waits for its answer; dials twice, since a used code is seen in dialling."""
    for _ in range(2):
        stop = time.monotonic() + timeout_s / 2
        with SiteLink(code.address, code.server_public, keys) as link:
            if not link.dial(timeout_s / 2):
                continue
            link.send(m.encode(question))
            while time.monotonic() < stop:
                found = link.recv(max(0.0, stop - time.monotonic()))
                answer = m.decode(found[0], "the coordinator") if found is not None else None
                if isinstance(answer, m.Refused):
                    raise CryptoError(answer.reason)
                if isinstance(answer, wanted):
                    return answer
    raise StudyError(f"expected a coordinator at {code.address}, but none answered within {timeout_s:.0f} s")
