"""A site goes over to new keys: both pairs are valid until the new one has been used, so that nothing can be lost.

    site          makes its next keys (keys.next.json, 0600), says them under its present ones
    coordinator   writes the roster with both, lets both in, answers
    site          puts the next keys in the place of the present ones, and calls by them
    coordinator   hears it by the next keys: the old ones are nobody's

Stopped anywhere, the same command goes on: the next keys stay in their file until they are in place.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TypeVar

from learner_jax.errors import CryptoError, StudyError
from learner_jax.network.enrol import Membership, load_membership, rotation
from learner_jax.network.keys import Keys, load_or_make_keys, sign
from learner_jax.network.links import SiteLink
from learner_jax.network.probe import as_member
from learner_jax.network.tunnel import Proxy, Tunnel, through
from learner_jax.protocol import messages as m
from learner_jax.storage.lock import only_one

Answer = TypeVar("Answer", bound=m.Message)


def rotate(folder: Path, proxy: Proxy | None = None, timeout_s: float = 20.0) -> Membership:
    """Gives a site new keys.

    Args:
      folder: the site's; no worker may run in it meanwhile.
      proxy: the way out, where there is no other.
      timeout_s: to wait for the coordinator.

    Raises:
      StudyError: the folder has not joined a study, a worker runs there, or the coordinator does not answer.
      CryptoError: the coordinator knows neither the present nor the next keys, or refuses the next.
    """
    with only_one(folder, "worker", wait_s=1.0):
        member = load_membership(folder)
        if member is None:
            raise StudyError(f"expected a folder that has joined a study, got {folder}")
        with through(proxy, member.address) as tunnel:
            _go_over(member, folder, tunnel, timeout_s)
        return member


def _go_over(member: Membership, folder: Path, tunnel: Tunnel | None, timeout_s: float) -> None:
    path = folder / "keys.next.json"
    present, following = load_or_make_keys(folder / "keys.json"), load_or_make_keys(path)
    proof = sign(following.sign_secret, rotation(member.study, member.site, following.curve_public))
    question = m.Rotate(member.study, following.curve_public, following.sign_public, proof)
    try:
        _say(member, present, question, m.Rotated, tunnel, timeout_s)
    except CryptoError:
        if not path.exists() or not _knows(member, following, tunnel, timeout_s):
            raise
    path.replace(folder / "keys.json")
    _say(member, following, m.Ask(member.study), m.Told, tunnel, timeout_s)


def _knows(member: Membership, keys: Keys, tunnel: Tunnel | None, timeout_s: float) -> bool:
    """Whether the coordinator knows these keys: it took them before this process was stopped."""
    try:
        _say(member, keys, m.Ask(member.study), m.Told, tunnel, timeout_s)
    except (CryptoError, StudyError):
        return False
    return True


def _say(
    member: Membership,
    keys: Keys,
    question: m.Message,
    wanted: type[Answer],
    tunnel: Tunnel | None,
    timeout_s: float,
) -> Answer:
    caller, stop = as_member(member, keys), time.monotonic() + timeout_s
    header = m.encode(question)
    with SiteLink(caller.address, caller.server_public, caller.keys, via=tunnel) as link:
        while time.monotonic() < stop:
            if not link.connected and not link.dial(1.0):
                continue
            link.send(caller.say(header))
            found = link.recv(2.0)
            answer = None if found is None else m.decode(caller.hear(header, found[0]), "the coordinator")
            if isinstance(answer, m.Refused):
                raise CryptoError(answer.reason)
            if isinstance(answer, wanted):
                return answer
    raise StudyError(f"expected a coordinator at {member.address}, but none answered within {timeout_s:.0f} s")
