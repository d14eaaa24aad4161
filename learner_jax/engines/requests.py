"""What a coordinator's administrator asks of it while it runs: files in its folder, taken within a second.

    requests/revoke-SITE.json   {"reason": ...}: takes a site off the roster and off the line

A request that no coordinator takes is taken by the next one before it lets anybody in.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from learner_jax.errors import CryptoError, StorageError, StudyError
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
    check_site_name(site)
    try:
        found = json.loads((run / "roster.json").read_bytes())["roster"]
        known = sorted({*found["sites"], *(name for name, _ in found["codes"].values() if name)})
        gone = found["revoked"]
    except (OSError, ValueError, KeyError, TypeError):
        raise StudyError(f"expected the folder of a coordinator's run, got {run}: it holds no roster.json") from None
    if site in gone and site not in known:
        raise StudyError(f"'{site}' is off the roster already")
    if site not in known:
        raise StudyError(f"expected a site of the roster ({', '.join(known) or 'nobody yet'}), got '{site}'")
    folder = run / "requests"
    folder.mkdir(mode=0o700, exist_ok=True)
    request = folder / f"revoke-{site}.json"
    write_json(request, {"reason": reason}, mode=0o600)
    stop = time.monotonic() + wait_s
    while request.exists():
        if time.monotonic() > stop:
            return False
        time.sleep(0.05)
    return True


def take(run: Path, study: str, desk: Desk, post: Callable[[c.Event], None], on_event: Observer) -> None:
    """Takes what is asked now."""
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


@contextlib.contextmanager
def taken(run: Path, study: str, desk: Desk, post: Callable[[c.Event], None], on_event: Observer) -> Iterator[None]:
    """Takes requests while the block lasts, on a thread of its own: rounds need not end for it."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(EVERY_S):
            with contextlib.suppress(StorageError, CryptoError, OSError):  # the disk is full: again in a moment
                take(run, study, desk, post, on_event)

    thread = threading.Thread(target=loop, name="requests", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(5.0)
