"""A broker that stands alone: one port, behind it many coordinators with their studies.

It authenticates, routes and limits rates, and keeps nothing of a study: whom a coordinator lets in, the coordinator
says when it calls. What passes is signed and sealed between coordinator and site (`network.seal`); a message that finds
nobody is dropped, and the machines at the ends make that good. A coordinator gets in by a join code, as a site does.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from learner_jax.engines import requests
from learner_jax.errors import CryptoError, RemoteProtocolError, StorageError
from learner_jax.events import Event, Observer
from learner_jax.network.brokered import read_guest_list
from learner_jax.network.enrol import Desk, invite
from learner_jax.network.keys import load_or_make_keys
from learner_jax.network.links import CoordinatorLink, Received
from learner_jax.protocol import broker
from learner_jax.protocol import commands as c
from learner_jax.protocol.complaints import EVERY_S, Complaints
from learner_jax.storage.lock import only_one

NAME = "broker"
"""What a broker's roster and join codes call it in place of a study."""
QUEUE = 512
"""Messages that wait for one peer: all that a coordinator with a full window asks for."""


class Switch:
    """Routes what a link brings.

    Args:
      link: the port.
      desk: enrols coordinators.
      on_event: told who is refused, and why: once a minute, and how often.
    """

    def __init__(self, link: CoordinatorLink, desk: Desk, on_event: Observer):
        self._link, self._desk, self._tell = link, desk, on_event
        self._meter = broker.Meter()
        self._guests: dict[str, dict[str, str]] = {}  # coordinator -> CURVE key -> user
        self._complaints, self._next_look = Complaints(), 0.0

    def turn(self, timeout_s: float) -> None:
        """Takes and passes on one message, if one comes in time."""
        try:
            found = self._link.recv(timeout_s)
        except RemoteProtocolError as error:  # of more frames than a message has
            found = None
            self._refuse(error.peer, error.reason)
        if (now := time.monotonic()) >= self._next_look:
            self._next_look = now + 1.0
            for user, kind, more in self._complaints.due(now):
                self._note(user, f"{user}: {kind}: {more} more times within {EVERY_S:.0f} s", times=more)
        if found is None:
            return
        try:
            self._route(found)
        except RemoteProtocolError as error:
            self._refuse(error.peer, error.reason)

    def _route(self, found: Received) -> None:
        user, _, header, payload = found
        coordinator, slash, name = user.partition("/")
        to, _, inner = (b"", b"", header) if slash or user.startswith(broker.ENROL) else header.partition(b"\0")
        if not self._meter.allow(f"{user} to {to.decode('ascii', 'replace')}" if to else user, time.monotonic()):
            raise RemoteProtocolError(user, "expected fewer messages a second")  # by site: none takes another's share
        reason = broker.admit(name or user, len(header), len(payload), sealed=True)
        if reason is not None:
            raise RemoteProtocolError(user, reason)
        if slash:
            self._link.send(coordinator, name.encode() + b"\0" + header, payload)
        elif user.startswith(broker.ENROL):
            name = self._desk.receive(user, header)
            if name:
                self._tell(Event("note", NAME, data={"text": f"{name} has joined: its sites may call now"}))
        else:
            if to:
                self._link.send(f"{user}/{to.decode('ascii', 'replace')}", inner, payload)
            elif inner == b"guests":
                self._let_in(user, read_guest_list(payload, user))
            else:
                raise RemoteProtocolError(user, "expected a message for a site, or a list of guests")

    def _let_in(self, coordinator: str, users: dict[str, str]) -> None:
        """These keys and no others are this coordinator's, but for those that are another's: a site may claim any."""
        before = self._guests.get(coordinator, {})
        others = {key for name, keys in self._guests.items() if name != coordinator for key in keys}
        others |= {site.curve_public for site in self._desk.roster.sites.values()} | set(self._desk.roster.codes)
        taken = others & set(users)
        users = {key: name for key, name in users.items() if key not in taken}
        for key in set(before) - set(users):
            self._link.revoke(key)
        for key, name in users.items():
            if before.get(key) != name:
                self._link.allow(key, f"{coordinator}/{name}")
        self._guests[coordinator] = users
        if taken:
            raise RemoteProtocolError(coordinator, f"expected keys of its own, got {len(taken)} that are another's")

    def forget(self, coordinator: str) -> None:
        """A coordinator is off the roster: those whom it let in are nobody's guests any more."""
        for key in self._guests.pop(coordinator, {}):
            self._link.revoke(key)

    def _refuse(self, user: str, reason: str) -> None:
        kind = re.sub(r"\d+", "", reason)  # a reason names sizes, of which there are very many
        if self._complaints.first(user, kind, time.monotonic()):
            self._note(user, f"{user}: {reason}")

    def _note(self, user: str, text: str, **more: int) -> None:
        self._tell(Event("note", NAME, site=user, data={"text": text, **more}))


def run_broker(
    names: Sequence[str],
    folder: Path,
    on_event: Observer,
    host: str,
    port: int,
    address: str | None = None,
    opened: Callable[[str, dict[str, Path]], None] = lambda address, files: None,
    going: Callable[[], bool] = lambda: True,
) -> None:
    """Serves until stopped.

    Args:
      names: coordinators that may join: the names of their studies.
      folder: keeps keys, the roster of coordinators and their join codes; 0700.
      on_event: told what happens.
      host, port: where to listen.
      address: what sites and coordinators dial, NAME or NAME:PORT, where it is not the host.
      opened: told of the address, and of the files with join codes, by coordinator.
      going: asked about once a second; False ends it.

    Raises:
      StudyError: the port is in use, or another broker runs in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with only_one(folder, NAME):
        keys = load_or_make_keys(folder / "keys.json")
        desk = Desk(folder / "roster.json", NAME, keys)
        requests.take(folder, NAME, desk, lambda event: None, on_event)  # before anybody is let in
        with CoordinatorLink(host, port, keys, queue=QUEUE) as link:
            desk.serve(link)
            files = invite(desk, names, link.dialled(address), folder / "join")
            opened(link.address, files)
            switch = Switch(link, desk, on_event)

            def forgotten(event: c.Event) -> None:
                if isinstance(event, c.Forget):
                    switch.forget(event.site)

            def inviting(coordinator: str) -> Path | None:
                return invite(desk, (coordinator,), link.dialled(address), folder / "join").get(coordinator)

            due = 0.0
            while going():
                if (now := time.monotonic()) >= due:  # a turn is a message
                    due = now + requests.EVERY_S
                    with contextlib.suppress(StorageError, CryptoError, OSError):  # the disk is full: again in a moment
                        requests.take(folder, NAME, desk, forgotten, on_event, inviting)
                switch.turn(requests.EVERY_S)
