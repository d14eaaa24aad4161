"""A coordinator's doors: its port, its roster, its join codes, and the study behind them."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax

from learner_jax import specs
from learner_jax.engines import requests
from learner_jax.engines.coordinator import Outcome, Rounds, Stores, run_study
from learner_jax.engines.parts import Parts
from learner_jax.engines.tap import tap_to
from learner_jax.errors import ConfigError, LocalProtocolError, StudyError
from learner_jax.events import Event, Observer
from learner_jax.network.brokered import BrokeredLink
from learner_jax.network.drive import CoordinatorDrive
from learner_jax.network.enrol import Desk, Membership, invite, membership
from learner_jax.network.keys import Keys, load_or_make_keys
from learner_jax.network.links import CoordinatorLink
from learner_jax.network.seal import CoordinatorSeal
from learner_jax.protocol import commands as c
from learner_jax.protocol import messages as m
from learner_jax.protocol.coordinator import RoundKeeper
from learner_jax.storage.atomic import write_json
from learner_jax.storage.journal import Journal
from learner_jax.storage.spool import Spool

Invited = Callable[[Mapping[str, Path], str], None]


def serve(
    parts: Parts,
    names: Sequence[str],
    folder: Path,
    on_event: Observer,
    host: str,
    port: int,
    invited: Invited = lambda files, address: None,
    check: Callable[[], None] = lambda: None,
    address: str | None = None,
    broker: str | None = None,
) -> Outcome:
    """Serves a study until it is over.

    Args:
      parts: the study.
      names: the sites that take part from the beginning, which is when all of them are enrolled. Others may come later.
      folder: the run's.
      on_event: told what happens; from two threads, never at once.
      host, port: where to listen; port 0 is the one of before, or any free one.
      invited: told of the files with join codes, by site, and of the address, once the port is open.
      address: what sites dial, NAME or NAME:PORT, where it is not the host.
      broker: a broker's join code, to be reached through it; "" for the broker that this folder has joined before.
      check: called now and then while waiting; may raise to end the study.

    Raises:
      StudyError: the port is in use, or the folder is another study's.
    """
    study = parts.study
    if host in ("0.0.0.0", "::", "*") and not address:
        raise ConfigError(f"expected the address that sites dial (--address=NAME), since {host} is no place to dial")
    with contextlib.suppress(KeyError, AttributeError, TypeError):  # of a method that asks for leaves of its own model
        parts.check_buffer({"params": {"w": jax.ShapeDtypeStruct((1,), parts.dtype)}, "stats": {}})
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # updates can tell about patients
    journal = Journal(folder / "journal.sqlite", study.name, specs.manifest_digest(study))
    try:
        keys = load_or_make_keys(folder / "keys.json")
        if broker is not None:
            member = membership(broker or None, study.name, folder / "broker")
            desk = Desk(folder / "roster.json", study.name, keys, member.server_public)
            line: CoordinatorLink | BrokeredLink = _dial(member, desk, keys, folder)
            dial = member.address
        else:
            desk = Desk(folder / "roster.json", study.name, keys)
            line = _listen(folder, host, port, keys, desk.roster.users())
            dial = line.dialled(address)
        with line as link:
            desk.serve(link)
            return _serve(parts, names, folder, on_event, desk, journal, link, invited, check, dial)
    finally:
        journal.close()


def _dial(member: Membership, desk: Desk, keys: Keys, folder: Path) -> BrokeredLink:
    """The line to a broker, by the keys with which this folder joined it; what passes is signed by the study's own."""

    def who(site: str) -> list[bytes]:
        known = (desk.roster.sites.get(site), desk.roster.next.get(site))
        return [one.sign_public for one in known if one is not None]

    seal = CoordinatorSeal(desk.roster.study, keys.sign_secret, who, desk.gone_over)
    own = load_or_make_keys(folder / "broker" / "keys.json")
    return BrokeredLink(member.address, member.server_public, own, seal, tap_to("coordinator"))


def _listen(folder: Path, host: str, port: int, keys: Keys, users: Mapping[str, str]) -> CoordinatorLink:
    """The port: the one asked for; else the one of before, if it is free; else any.

    It knows the roster from the first moment: a site that calls again would take a refusal for the last word.
    """
    tap, known = tap_to("coordinator"), folder / "address.json"
    before = 0 if port else _port_before(known)
    try:
        link = CoordinatorLink(host, port or before, keys, users, tap)
    except StudyError:
        if port or not before:
            raise
        link = CoordinatorLink(host, 0, keys, users, tap)
    write_json(known, {"address": link.address, "port": link.port})
    return link


def _port_before(path: Path) -> int:
    """The port of an earlier process; 0 where the file does not say it."""
    try:
        found = json.loads(path.read_bytes())["port"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0
    return found if type(found) is int and 0 < found < 65536 else 0


def _serve(
    parts: Parts,
    names: Sequence[str],
    folder: Path,
    on_event: Observer,
    desk: Desk,
    journal: Journal,
    link: CoordinatorLink | BrokeredLink,
    invited: Invited,
    check: Callable[[], None],
    dial: str,
) -> Outcome:
    study = parts.study
    _can_be_welcomed(study, names)
    stores = Stores(journal, Spool(folder / "spool"))
    keeper = RoundKeeper(
        study.name,
        journal.epoch,
        specs.manifest(study).encode(),
        specs.manifest_digest(study),
        tuple(desk.roster.sites),
        journal.closed(),
        journal.origins(),
        kept=stores.held(),
        broadcasts=journal.broadcasts(),
        parts=stores.spool.parts(desk.roster.sites),
        buffered=study.federation.buffer is not None,
        invited=len(names),
    )
    rounds = Rounds(study, stores, on_event, check, lambda: (desk.roster.sites, desk.roster.revoked))

    def ended(error: BaseException | None) -> None:
        rounds.fail(error or StudyError("the coordinator's line was closed"))

    drive = CoordinatorDrive(link, keeper, rounds.handlers(), desk, on_end=ended)
    rounds.post = drive.post

    def inviting(site: str) -> Path | None:
        _can_be_welcomed(study, (*desk.roster.sites, *names, site))
        return invite(desk, (site,), dial, folder / "join").get(site)

    take = functools.partial(requests.take, folder, study.name, desk, drive.post, on_event)
    take()
    files = invite(desk, names, dial, folder / "join")
    drive.start()
    try:
        invited(files, dial)
        with requests.taken(functools.partial(take, inviting)):
            _all_enrolled(names, desk, drive, study.name, on_event, check)
            outcome = run_study(
                parts, names, rounds, folder, on_event, lambda: (link.counter.bytes_in, link.counter.bytes_out)
            )
        drive.post(c.Finish(outcome.result["weights_sha256"], "the study is over"))
        drive.drained.wait(10.0)
        return outcome
    finally:
        drive.stop()
        drive.join(5.0)
        stores.spool.close()


def _can_be_welcomed(study: specs.Study, names: Sequence[str]) -> None:
    """Whether every site can be told of the study in one message.

    Raises:
      ConfigError: it has too many sites, or too long a manifest.
    """
    manifest, digest = specs.manifest(study).encode(), specs.manifest_digest(study)
    try:
        m.encode(m.Welcome(study.name, m.PROTOCOL, 2**31 - 1, manifest, digest, tuple(names)))
    except LocalProtocolError as error:
        text = f"{len(names)} sites and a manifest of {len(manifest):,} bytes do not fit in one message: {error}"
        raise ConfigError(text) from None


def _all_enrolled(
    names: Sequence[str],
    desk: Desk,
    drive: CoordinatorDrive,
    study: str,
    on_event: Observer,
    check: Callable[[], None],
) -> None:
    """Waits until every site is in the roster, saying now and then for whom."""
    said = 0.0
    while missing := [name for name in names if name not in (*desk.roster.sites, *desk.roster.revoked)]:
        check()
        if drive.ended.is_set():
            drive.join()
        if time.monotonic() - said > 30:
            said = time.monotonic()
            words = f"waiting for {', '.join(missing)} to join (learner revoke SITE begins without one)"
            on_event(Event("note", study, data={"text": words}))
        time.sleep(0.05)
