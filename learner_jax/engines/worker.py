"""A site's process: it joins, and then answers whatever the coordinator of an approved study asks.

The machine (`protocol.site`) and the line have a thread of their own, so that a long local round loses no lease; this
thread computes.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from learner_jax import __version__, spans
from learner_jax.engines.answers import Answers, own_figures
from learner_jax.engines.site_study import SiteStudy, study_of
from learner_jax.engines.tap import tap_to
from learner_jax.errors import LearnerError, StudyError
from learner_jax.events import Event, Observer
from learner_jax.network.brokered import REFUSED_S, SealedSiteLink
from learner_jax.network.drive import SiteDrive, SiteHandlers
from learner_jax.network.enrol import Membership, load_membership, membership
from learner_jax.network.keys import Keys, load_or_make_keys
from learner_jax.network.links import SiteLink
from learner_jax.network.seal import SiteSeal
from learner_jax.network.tunnel import Proxy, Tunnel, through
from learner_jax.protocol import commands as c
from learner_jax.protocol.entry import Entry
from learner_jax.protocol.messages import Open
from learner_jax.protocol.site import SiteKeeper
from learner_jax.storage.held import held, hold
from learner_jax.storage.lock import only_one
from learner_jax.storage.outbox import Outbox

_BROADCAST = "broadcast"
"""The last one, in the outbox."""


def take_part(
    code: str | None,
    name: str,
    frame: Any,
    folder: Path,
    on_event: Observer,
    build: Callable[[Any], Any],
    approve: Callable[[c.Approve], str | None] = lambda asked: None,
    proxy: Proxy | None = None,
) -> dict[str, Any]:
    """Joins, if this site has not joined yet, and takes part until the study is over.

    Args:
      code: the join code's text; None where the site has joined before.
      name: the site's.
      frame: its table.
      folder: its keys, outbox and state; kept from run to run.
      on_event: told what happens; from two threads.
      build: (study) -> Parts.
      approve: (what is asked) -> None, or why this site does not take part.
      proxy: the only way out, if there is one.

    Returns:
      {"study", "site", "algorithm", "rounds" (in which it took part), "seconds", "metrics" (its own figures, by name),
      "weights_sha256", "bytes_up", "bytes_down"}.

    Raises:
      CryptoError: the join code is wrong or used.
      DataError: the table does not fit what the study asks for.
      StudyError: the coordinator cannot be reached, or it or the proxy refuses this site; another worker runs in the
        folder.
    """
    with only_one(folder, "worker"):
        verb = "joined" if load_membership(folder) is None else "goes on in"
        member = membership(code, name, folder, proxy)
        outbox = Outbox(folder / "outbox")
        keys = load_or_make_keys(folder / "keys.json")

        def say(words: str) -> None:
            on_event(Event("note", member.study, site=member.site, data={"text": words}))

        say(f"{verb} study {member.study}")
        with through(proxy, member.address, say) as via, dial(member, keys, via) as link:
            return _Part(member, frame, folder, on_event, build, approve, outbox, link).run()


def agrees(release_histograms: bool) -> Callable[[c.Approve], str | None]:
    """What a site answers a study: None, or why it does not take part.

    Args:
      release_histograms: its steward has agreed that counts of told chances leave.
    """

    def approve(asked: c.Approve) -> str | None:
        if study_of(asked.manifest).release.histograms == "plain" and not release_histograms:
            return (
                "the study lets score histograms leave (release.histograms=plain), and this site has not agreed: with "
                "few patients they tell nearly each one's outcome. To agree: learner join --release_histograms"
            )
        return None

    return approve


def dial(member: Membership, keys: Keys, via: Tunnel | None = None) -> SiteLink | SealedSiteLink:
    """The line to the coordinator, or to the broker in between; through a tunnel, where there is one."""
    tap = tap_to(member.site)
    if not member.sealed:
        return SiteLink(member.address, member.server_public, keys, tap, hung_up_s=REFUSED_S, via=via)
    seal = SiteSeal(member.study, member.site, keys.sign_secret, bytes.fromhex(member.coordinator_sign))
    return SealedSiteLink(member.address, member.server_public, keys, seal, tap, via)


def check_order(asked: Open, entry: Entry, state: bytes, folder: Path) -> None:
    """A round is worked on with the state of an earlier one, never of a later. A method without state has none.

    Raises:
      StudyError: the coordinator was restored from a backup that is older than this site's state.
    """
    if state and asked.phase == "train" and entry.round >= asked.round:
        raise StudyError(
            f"expected a round after {entry.round}, which this site's state is of, got round {asked.round}: the "
            "coordinator was restored from an older backup; put this site's folder back as it was then, or delete "
            f"{folder / 'outbox' / 'committed'} to go on with a fresh state"
        )


class _Part:
    """One process's part: what the two threads share."""

    def __init__(
        self,
        member: Membership,
        frame: Any,
        folder: Path,
        on_event: Observer,
        build: Callable[[Any], Any],
        approve: Callable[[c.Approve], str | None],
        outbox: Outbox,
        link: SiteLink | SealedSiteLink,
    ):
        self._member, self._frame, self._folder, self._tell = member, frame, folder, on_event
        self._build, self._approve, self._outbox, self._link = build, approve, outbox, link
        self._asked: queue.SimpleQueue[c.Approve | c.Work | BaseException | None] = queue.SimpleQueue()
        self._study: SiteStudy | None = None
        self._answers = Answers(folder)
        pending, committed = outbox.pending(), outbox.committed()
        keeper = SiteKeeper(
            member.study,
            member.site,
            f"learner-jax {__version__}",
            None if pending is None else pending[:2],
            None if committed is None else committed[0],
            outbox.epoch_seen(),
            incarnation=secrets.token_hex(8),
            kept=outbox.kept(),
            held=held(outbox.folder / _BROADCAST),
        )
        handlers = SiteHandlers(
            approve=self._asked.put,
            work=self._asked.put,
            write=outbox.put,
            commit=lambda entry: outbox.commit(entry.digest),
            discard=lambda entry, reason: outbox.discard(),
            remember=outbox.see_epoch,
            tell=self._told,
        )
        self._drive = SiteDrive(link, keeper, handlers, on_end=self._asked.put)

    def run(self) -> dict[str, Any]:
        self._drive.start()
        try:
            while True:
                asked = self._asked.get()
                if isinstance(asked, BaseException):
                    raise asked
                if asked is None:
                    return self._ended()
                self._answer(asked)
        except KeyboardInterrupt:  # the outbox holds what counts; the coordinator need not wait out a lease to know
            self._drive.post(c.Stop("it was stopped at the site"))
            raise
        finally:
            self._drive.stop()
            self._drive.join(5.0)

    def _told(self, event: Event) -> None:
        """What the machine says, on the line's thread."""
        study = self._study
        self._tell(self._answers.told(event, study.parts.study.rounds if study else None))

    def _answer(self, asked: c.Approve | c.Work) -> None:
        try:
            if isinstance(asked, c.Approve):
                self._drive.post(self._approved(asked))
            else:
                learns = asked.open.phase == "train"
                with spans.span("round", asked.open.round) if learns else contextlib.nullcontext():
                    self._drive.post(self._worked(asked))
                    with spans.span("journal"):
                        self._drive.post(self._stored(asked))
        except LearnerError as error:
            self._drive.post(c.Stop(str(error)))
            raise

    def _approved(self, asked: c.Approve) -> c.Approved | c.Denied:
        reason = self._approve(asked)
        if reason is not None:
            return c.Denied(reason)
        member = self._member
        self._study = SiteStudy(self._build, asked.manifest, member.site, self._frame, self._folder, self._tell)
        study = self._study.parts.study
        about = {"kind": "site", "rounds": study.rounds, "algorithm": study.algorithm.name}
        self._tell(Event("start", member.study, site=member.site, data=about))
        for warning in self._study.warnings:
            self._tell(Event("note", member.study, site=member.site, data={"text": warning}))
        return c.Approved(asked.manifest_digest)

    def _worked(self, asked: c.Work) -> c.Worked:
        assert self._study is not None
        committed = self._outbox.committed()
        if committed is not None:
            check_order(asked.open, *committed, self._folder)
        answer = self._study.work(asked.open, asked.data, None if committed is None else committed[1])
        return c.Worked(asked.open.round, asked.open.phase, *answer)

    def _stored(self, asked: c.Work) -> c.Stored:
        """Keeps a broadcast for the pieces that the next one shares with it, while the answer is on its way."""
        table, path = asked.open.pieces, self._outbox.folder / _BROADCAST
        return c.Stored(asked.open.blob.digest, hold(path, table, asked.data) if table else None)

    def _ended(self) -> dict[str, Any]:
        finished, member = self._drive.finished, self._member
        if finished is None or not finished.ok:
            raise StudyError(finished.reason if finished else "the line to the coordinator was closed")
        counter = self._link.counter
        return {
            "study": member.study,
            "site": member.site,
            "algorithm": self._study.parts.study.algorithm.name if self._study else None,
            "rounds": self._answers.rounds,
            "seconds": self._answers.seconds,
            "metrics": own_figures(self._folder),
            "weights_sha256": finished.weights_sha256,
            "bytes_up": counter.bytes_out,
            "bytes_down": counter.bytes_in,
        }
