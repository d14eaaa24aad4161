"""What a coordinator's administrator asks of it while it runs: files in its folder, taken within a second.

    requests/revoke-SITE.json   {"reason": ...}: takes a site off the roster and off the line
    requests/invite-SITE.json   {}: makes a join code for a site that is to come while the study runs

A request that no coordinator takes is taken by the next one; who is to be off the roster, before it lets anybody in. A
broker takes the same requests, of coordinators.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from learner_jax.errors import ConfigError, CryptoError, StorageError, StudyError
from learner_jax.events import Event, Observer
from learner_jax.network.enrol import Desk
from learner_jax.network.keys import check_site_name
from learner_jax.protocol import commands as c
from learner_jax.storage.atomic import write_json

EVERY_S = 0.5


def ask_to_revoke(run: Path, site: str, reason: str = "", wait_s: float = 5.0) -> bool:
    """Asks the coordinator of a run to take a site off its roster.

    Args:
      run: the coordinator's folder.
      site: its name.
      reason: for the record.
      wait_s: for a running coordinator to do it.

    Returns:
      Whether one did; if not, the next to start in this folder will.

    Raises:
      StudyError: no coordinator has run there, or the site is not on its roster.
    """
    sites, invited, gone = _roster_of(run, site)
    known = sorted({*sites, *invited})
    if site in gone and site not in known:
        raise StudyError(f"'{site}' is off the roster already")
    if site not in known:
        raise StudyError(f"expected a site of the roster ({', '.join(known) or 'nobody yet'}), got '{site}'")
    return _ask(run, f"revoke-{site}", {"reason": reason}, wait_s)


def ask_to_invite(run: Path, site: str, wait_s: float = 5.0) -> Path | None:
    """Asks the coordinator of a run to make a join code for one more site.

    Args:
      run: the coordinator's folder.
      site: its name.
      wait_s: for a running coordinator to do it.

    Returns:
      The file with the code; None if no coordinator runs: the next to start in this folder will make it.

    Raises:
      StudyError: no coordinator has run there, the site is on its roster or was taken off it, or the coordinator
        refuses, which it says.
    """
    sites, _, gone = _roster_of(run, site)
    if site in sites:
        raise StudyError(f"'{site}' is on the roster already")
    if site in gone:
        raise StudyError(f"'{site}' was taken off the roster: expected a name that it has not had")
    code = run / "join" / f"{site}.code"
    if not _ask(run, f"invite-{site}", {}, wait_s):
        return None
    if not code.exists():
        raise StudyError(f"expected a join code in {code}, got none: what the coordinator says tells why")
    return code


def _roster_of(run: Path, site: str) -> tuple[list[str], list[str], list[str]]:
    """Names of the sites on a run's roster, of those invited, and of those taken off it."""
    check_site_name(site)
    try:
        found = json.loads((run / "roster.json").read_bytes())["roster"]
        return list(found["sites"]), [name for name, _ in found["codes"].values() if name], list(found["revoked"])
    except (OSError, ValueError, KeyError, TypeError):
        raise StudyError(f"expected the folder of a coordinator's run, got {run}: it holds no roster.json") from None


def _ask(run: Path, name: str, about: dict[str, str], wait_s: float) -> bool:
    """Puts a request down; whether it was taken in time."""
    folder = run / "requests"
    folder.mkdir(mode=0o700, exist_ok=True)
    request = folder / f"{name}.json"
    write_json(request, about, mode=0o600)
    stop = time.monotonic() + wait_s
    while request.exists():
        if time.monotonic() > stop:
            return False
        time.sleep(0.05)
    return True


Inviting = Callable[[str], Path | None]
"""(site) -> the file with its join code, None where it gets none."""


def take(
    run: Path,
    study: str,
    desk: Desk,
    post: Callable[[c.Event], None],
    on_event: Observer,
    inviting: Inviting | None = None,
) -> None:
    """Takes what is asked now; inviting: makes a join code and says where it lies; None while no port is open."""
    if inviting is not None:
        _take_invitations(run, study, on_event, inviting)
    for request in sorted((run / "requests").glob("revoke-*.json")):
        site = request.stem.removeprefix("revoke-")
        try:
            reason = str(json.loads(request.read_bytes()).get("reason", ""))
        except (OSError, ValueError, AttributeError):
            reason = ""
        if site in desk.roster.sites or desk.roster.codes_for(site):
            try:
                desk.revoke(site)
            finally:
                post(c.Forget(site))  # whatever the disk says of the roster
            words = f"{site} was taken off the roster" + (f": {reason}" if reason else "")
            on_event(Event("note", study, site=site, data={"text": words}))
        request.unlink(missing_ok=True)


def _take_invitations(run: Path, study: str, on_event: Observer, inviting: Inviting) -> None:
    for request in sorted((run / "requests").glob("invite-*.json")):
        site = request.stem.removeprefix("invite-")
        try:
            code = inviting(check_site_name(site))
            if code is None:
                raise ConfigError("expected a name that neither is on the roster nor was taken off it")
            words = f"join code of {site}, works once: {code}"
        except (ConfigError, CryptoError) as error:
            words = f"no join code was made for '{site}': {error}"
        on_event(Event("note", study, data={"text": words}))
        request.unlink(missing_ok=True)


@contextlib.contextmanager
def taken(take_now: Callable[[], None]) -> Iterator[None]:
    """Takes requests while the block lasts, on a thread of its own: rounds need not end for it. take_now: as `take`."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(EVERY_S):
            with contextlib.suppress(StorageError, CryptoError, OSError):  # the disk is full: again in a moment
                take_now()

    thread = threading.Thread(target=loop, name="requests", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(5.0)
