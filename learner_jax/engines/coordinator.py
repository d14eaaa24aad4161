"""The coordinator of one study: sites enrol, rounds run, nothing is lost.

The account of a round is the machine's (`protocol.coordinator`), driven by a thread of its own. This thread adds up
what was accepted, by the simulator's own functions. A coordinator that was killed restores the newest step and adds up
the rounds after it again, from the spool; each must give the digest that the journal remembers.
"""

from __future__ import annotations

import functools
import json
import math
import queue
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from learner_jax import failpoints, spans, trees
from learner_jax.data import plans
from learner_jax.engines import calibrate
from learner_jax.engines.expected import line_of, peak_bytes, sizes_of
from learner_jax.engines.figures import Figures, check_figures, read_summary
from learner_jax.engines.forecast import SEEN, compared, forecast, seen
from learner_jax.engines.history import History
from learner_jax.engines.keeper import Keeper
from learner_jax.engines.newcomers import ENTER, Newcomers
from learner_jax.engines.outcome import result as make_result
from learner_jax.engines.parts import Parts, values
from learner_jax.engines.program import wire_shape
from learner_jax.engines.reducer import Final, Reducer, Sender
from learner_jax.engines.simulator import cohort_size, look_at
from learner_jax.engines.site_study import READY, SUMMARY, broadcast_shape
from learner_jax.errors import CorruptError, RemoteProtocolError, StorageError, StudyError
from learner_jax.evaluation import join_sites
from learner_jax.events import Event, Observer
from learner_jax.leaves import (
    Leaves,
    Packed,
    Schema,
    check_file,
    read_leaves,
    schema_bytes,
    schema_digest,
    schema_of,
    site_ids,
    weights_sha256,
)
from learner_jax.network.drive import CoordinatorHandlers
from learner_jax.protocol import commands as c
from learner_jax.protocol.messages import STATISTICS
from learner_jax.protocol.rows import Aggregated
from learner_jax.protocol.transfers import Held
from learner_jax.specs import Study
from learner_jax.statistics import combine, impossible
from learner_jax.storage.journal import Journal
from learner_jax.storage.patience import patiently
from learner_jax.storage.spool import Spool
from learner_jax.types import PyTree


class Phase(NamedTuple):
    """What is asked of whom.

    Attributes:
      round, phase: see `site_study`.
      cohort: names of the sites asked.
      data: the broadcast.
      sent: schema of the broadcast's leaves, () where it is no leaves.
      expected: schema of the answer.
      everyone: all of the cohort must answer; otherwise the study's quorum, at the deadline.
      optional: none of them must, and who is not there is not waited for.
      buffered: the study's buffer closes it, where it has one.
      enrolled: how many sites the study has in this round.
    """

    round: int
    phase: str
    cohort: tuple[str, ...]
    data: Packed
    sent: Schema
    expected: Schema
    everyone: bool = False
    optional: bool = False
    buffered: bool = False
    enrolled: int = 0


class Stores(NamedTuple):
    """What of a run lies on disk."""

    journal: Journal
    spool: Spool

    def held(self) -> dict[str, Held]:
        """site -> its newest accepted update of a learning round, where it lies here."""
        found = {site: self.spool.held(digest) for site, digest in self.journal.newest().items()}
        return {site: held for site, held in found.items() if held is not None}


def quorum(study: Study, asked: int) -> int:
    """Fewest sites with which a round of so many may close at its deadline: more than half, unless the study says."""
    wanted = study.federation.quorum
    if wanted is None:
        return asked // 2 + 1
    return max(1, min(asked, round(wanted * asked) if isinstance(wanted, float) else wanted))


class Rounds:
    """Runs phases through the machine, or takes them from the journal where they are closed already.

    Args:
      study: the config.
      stores: journal and spool.
      on_event: told what happens.
      check: called now and then while a phase is open; may raise.
      roster: () -> names of the sites on the roster, and of those that were taken off it.

    Attributes:
      post: hands the machine an event, from any thread; set by whoever drives it.
      figures: (what a site sends as its figures, its name) -> the same, checked; raises ValueError.
    """

    def __init__(
        self,
        study: Study,
        stores: Stores,
        on_event: Observer,
        check: Callable[[], None] = lambda: None,
        roster: Callable[[], tuple[Collection[str], Collection[str]]] = lambda: ((), ()),
    ):
        self.study, self.stores, self._tell, self._check, self._roster = study, stores, on_event, check, roster
        self._present: frozenset[str] = frozenset()  # replaced, never changed: two threads look at it
        self.post: Callable[[c.Event], None] = lambda event: None
        self._closed: queue.SimpleQueue[c.CloseRound | BaseException] = queue.SimpleQueue()
        self._expected: Schema = ()
        self._phase = ""
        self.figures: Figures = check_figures

    # ---- what the machine asks for, on the thread that drives it ----------------------------------------------------

    def handlers(self) -> CoordinatorHandlers:
        """For the drive."""
        return CoordinatorHandlers(
            append=self._append,
            validate=self._validate,
            spool=lambda command: self.stores.spool.keep(command.site, command.digest, command.pieces),
            journal=self.stores.journal.write,
            close=self._closed.put,
            tell=self._say,
            fenced=self._fenced,
        )

    def _fenced(self, epoch: int) -> None:
        text = f"most sites have met a newer coordinator of this study (epoch {epoch}), so this one stops"
        self.fail(StudyError(text))

    def _append(self, command: c.Append) -> None:
        self.stores.spool.append(command.site, command.digest, command.size, command.offset, command.data)

    def _validate(self, command: c.Validate) -> str | None:
        expected = self._expected
        try:
            with self.stores.spool.arrived(command.site, command.digest) as file:
                check_file(file, expected, command.site)
                if self._phase in (*STATISTICS, "calibrate"):
                    file.seek(0)
                    return impossible(read_leaves(file, expected, command.site))
                if expected == SUMMARY:
                    file.seek(0)
                    read_summary(dict(read_leaves(file, expected, command.site))["summary"], command.site, self.figures)
        except RemoteProtocolError as error:
            return error.reason
        except OSError as error:  # read again later
            raise StorageError(f"expected to read an update of {command.site}, got: {error.strerror}") from None
        return None

    def _say(self, event: Event) -> None:
        if event.kind in ("site_back", "site_lost") and event.site is not None:
            changed = {event.site}
            self._present = self._present | changed if event.kind == "site_back" else self._present - changed
        if event.kind == "round_closed":
            return  # the engine tells of it once the sum is made
        if event.kind == "round_open":
            if event.data.get("phase") != "train":
                return
            event = event._replace(data={**event.data, "rounds": self.study.rounds})
        self._tell(event)

    def there(self) -> list[str]:
        """The sites on the roster that can be asked now."""
        present, (roster, _) = self._present, self._roster()
        return [site for site in roster if site in present]

    def fail(self, error: BaseException) -> None:
        """Ends the phase at hand with an error, from any thread."""
        self._closed.put(error)

    def note(self, text: str) -> None:
        """Tells people something in a line."""
        self._tell(Event("note", self.study.name, data={"text": text}))

    # ---- a phase, on the engine's thread --------------------------------------------------------------------------

    def run(self, asked: Phase) -> tuple[list[tuple[str, str]], list[str]]:
        """Runs a phase to its close.

        Returns:
          The accepted (site, digest) in ascending order of site id, and the sites that were lost.
        """
        self._expected, self._phase = asked.expected, asked.phase
        journal = self.stores.journal
        closed = patiently(lambda: journal.closed_at(asked.round, asked.phase), self.note)
        if closed is not None:
            return list(closed.accepted), list(closed.lost)
        attempt, accepted, damaged = 1, {}, {}
        before = patiently(journal.open_round, self.note)
        if before is not None and (before[0].round, before[0].phase) == (asked.round, asked.phase):
            attempt, accepted = before[0].attempt + 1, before[1]
            if accepted and before[0].broadcast != asked.data.sha256:
                raise StudyError(
                    f"expected round {asked.round} ({asked.phase}) to go on with the broadcast that it was opened "
                    "with, but this process makes another, so what sites have answered does not count: go on with the "
                    "versions of Python packages that began it, or name a new folder"
                )
            damaged = self._damaged(accepted, asked.buffered)
            accepted = {site: digest for site, digest in accepted.items() if site not in damaged}
        size = schema_bytes(asked.expected)
        gone = set(self._roster()[1]) - set(accepted)  # who counted before it was revoked still does
        damaged = {site: digest for site, digest in damaged.items() if site not in gone}
        there = max(1, len(set(asked.cohort) - gone))
        needed = there if asked.everyone else 0 if asked.optional else quorum(self.study, there)
        federation, more = self.study.federation, {}
        if asked.buffered and federation.buffer is not None:
            buffer, oldest = min(federation.buffer, there), max(1, asked.round - federation.stale)
            needed = min(needed, buffer)
            more = {"buffer": buffer, "oldest": oldest, "fields": {"oldest": oldest}}
        self.post(
            c.StartRound(
                asked.round, asked.phase, asked.cohort, asked.data, schema_digest(asked.sent),
                schema_digest(asked.expected), size, needed, federation.deadline_s, attempt, accepted, again=damaged,
                digest=asked.data.sha256, pieces=asked.data.pieces, enrolled=asked.enrolled, **more,
            )
        )  # fmt: skip
        while True:
            try:
                found = self._closed.get(timeout=1.0)
            except queue.Empty:
                self._check()
                continue
            if isinstance(found, BaseException):
                raise found
            if (found.round, found.phase) == (asked.round, asked.phase):
                return list(found.accepted), list(found.lost)

    def shares(self, accepted: Sequence[tuple[str, str]], number: int) -> list[float] | None:
        """What each accepted update of a learning round counts: less, the more rounds it is late; None: all alike.

        Reference: Nguyen et al., AISTATS 2022 (FedBuff), section 5: s(t) = 1 / sqrt(1 + t).
        """
        if self.study.federation.buffer is None:
            return None
        late = self.stores.journal.staleness(number)
        return [1.0 / math.sqrt(1.0 + late[site]) for site, _ in accepted]

    def leaves(self, accepted: Sequence[tuple[str, str]], expected: Schema) -> Iterator[Leaves]:
        """Accepted answers from the spool in the order given; nothing of them is held here.

        Raises:
          StorageError: one of them is not there, or not as it was accepted: said when all of it was read.
        """
        for site, digest in accepted:
            yield self._accepted(site, digest, expected)

    def _accepted(self, site: str, digest: str, expected: Schema) -> Leaves:
        try:
            with self.stores.spool.opened(digest) as file:
                yield from read_leaves(file, expected, site)
        except OSError as error:
            raise StorageError(f"expected to read the update of site '{site}', got: {error.strerror}") from None
        except (CorruptError, RemoteProtocolError) as error:
            raise CorruptError(
                f"expected the update of site '{site}' as it was accepted, but {error}; the site has sent it and "
                "gone on: restore a backup (learner restore), or name a new folder"
            ) from None

    def _damaged(self, accepted: Mapping[str, str], buffered: bool) -> dict[str, str]:
        """Those of an open round's accepted updates whose bytes are lost: told, and asked for again. What cannot be
        read now may be whole: it is waited for.

        Raises:
          StorageError: one is lost in a buffered round: a site that has gone on to a later broadcast keeps no bytes of
            an earlier one.
        """
        found = {}
        for site, digest in accepted.items():
            try:
                patiently(functools.partial(self._read_whole, digest), self.note)
            except CorruptError as error:
                found[site] = digest
                self.note(f"{error}" + ("" if buffered else f"; asking site '{site}' for it again"))
        if found and buffered:
            raise StorageError(
                f"expected the updates of {', '.join(found)} as they were accepted in a buffered round, but they are "
                "damaged on this disk: restore a backup (learner restore), or name a new folder"
            )
        for digest in found.values():
            patiently(functools.partial(self._drop, digest), self.note)
        return found

    def _read_whole(self, digest: str) -> None:
        with self.stores.spool.opened(digest):
            pass  # it is read to its end

    def _drop(self, digest: str) -> None:
        try:
            self.stores.spool.drop(digest)
        except OSError as error:
            raise StorageError(f"expected to remove a damaged update, got: {error.strerror}") from None


class Outcome(NamedTuple):
    """What a coordinated study ends with: the result's dict, and the model's parts."""

    result: dict[str, Any]
    weights: PyTree
    fitted: Mapping[str, Any]
    rows: PyTree


def as_leaf(fitted: Mapping[str, Any]) -> np.ndarray:
    """What was fitted, as the bytes of its canonical JSON."""
    return np.frombuffer(json.dumps(fitted, sort_keys=True, separators=(",", ":")).encode(), np.uint8)


def run_study(
    parts: Parts, sites: Sequence[str], rounds: Rounds, folder: Path, on_event: Observer, traffic: Callable[[], tuple]
) -> Outcome:
    """Everything from the sites' statistics to the result, once the sites are enrolled.

    Args:
      parts: the study.
      sites: names of the enrolled sites.
      rounds: runs phases.
      folder: the run's.
      on_event: told of each round.
      traffic: () -> (bytes in, bytes out) of the link so far.

    Raises:
      DataError: no site has rows to train on.
      StudyError: a round gave another result than before.
    """
    study, federated, checklist, judging = parts.study, parts.federated, parts.task.checklist, parts.task.judging
    plain = study.release.histograms == "plain"
    rounds.figures = functools.partial(check_figures, release=plain) if judging is None else judging.check
    names = tuple(site_ids(sites))
    started, begun = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    # ---- statistics: sums from each site, what is fitted from their total back to each
    fitted: dict[str, Any] = {}
    for phase, one in zip(STATISTICS, checklist.statistics, strict=False):
        measured, known = schema_of(one.zero(fitted)), Packed({"fitted": as_leaf(fitted)} if fitted else {})
        accepted, _ = rounds.run(Phase(0, phase, names, known, (), measured, everyone=True))
        failpoints.here("coordinator.study.after_statistics")
        fitted = one.fit(combine([dict(leaves) for leaves in rounds.leaves(accepted, measured)]), fitted)
    on_event(Event("statistics", study.name, data={"sites": len(names), "inputs": len(fitted.get("inputs", ()))}))
    rounds.run(Phase(0, "look", names, Packed({"fitted": as_leaf(fitted)}), (), READY, everyone=True))
    # ---- the start, or the newest step
    rows = checklist.template(fitted)
    parts.check_genes(rows)
    weights = jax.block_until_ready(parts.init_weights(rows))
    template = trees.shapes(weights)
    parts.check_buffer(weights)
    parts.check_inputs(weights, rows)
    server = federated.init(weights, jax.random.key(study.seed))
    del weights  # large, and made again where it is wanted
    wire = wire_shape(federated, template, rows, parts.local)
    sent, expected = trees.schema(broadcast_shape(parts, template)), trees.schema(wire)

    def reducer_of(enrolled: int) -> Reducer:
        return Reducer(federated, template, wire, parts.number, study.seed, enrolled, cohort_size(study, enrolled))

    def prepare(number: int, come: Sequence[str]) -> list[str]:
        known = Packed({"fitted": as_leaf(fitted)})
        accepted, _ = rounds.run(Phase(number, ENTER, tuple(come), known, (), READY, optional=True))
        return [site for site, _ in accepted]

    keeper, history = Keeper(study, folder, rounds.stores.journal, say=rounds.note), History(parts)
    send, newest = Sender(federated, server), None
    count = fitted["rows"] / len(names) if "rows" in fitted else None
    expecting = sizes_of(parts, names, rows, count, rounds.stores.journal.epoch)
    foretold = forecast(expecting, line_of(study))
    on_event(Event("forecast", study.name, data=foretold))
    try:
        failpoints.here("coordinator.study.before_restore")
        done, server, _, best, notes = keeper.restore(server, (), history)
        failpoints.here("coordinator.study.after_restore")
        for note in notes:
            on_event(Event("note", study.name, data={"text": f"a step was passed over: {note}"}))
        _all_there(rounds.stores, done, folder)
        if done:
            on_event(Event("resumed", study.name, done, data={"rounds": study.rounds}))
        # ---- rounds
        number, part = 0, Newcomers(rounds.stores.journal, names, rounds.there, prepare, rounds.note)
        while number < done:
            number += 1
            names = part.at(number)
        by_id, reducer = ids_of(names), reducer_of(len(names))
        while number < study.rounds and not history.over:
            number += 1
            names = part.at(number)
            if len(names) != len(by_id):
                by_id, reducer, best = ids_of(names), reducer_of(len(names)), None
                history.forget_best()
            with spans.span("round", number):
                with spans.span("plan"):
                    numbers = np.fromiter(by_id, np.uint32, len(by_id))
                    cohort = tuple(by_id[int(at)] for at in plans.cohort(study.seed, number, numbers, reducer.size))
                opened, (had_in, had_out) = time.perf_counter(), traffic()
                with spans.span("encode"):
                    packed = send(server)
                with spans.span("wait"):
                    accepted, lost = rounds.run(
                        Phase(number, "train", cohort, packed, sent, expected, enrolled=len(names), buffered=True)
                    )
                del packed
                shares = rounds.shares(accepted, number)
                wires = rounds.leaves(accepted, expected)
                failpoints.here("coordinator.round.before_reduce")
                with spans.span("aggregate"):
                    before = server
                    server, sums, digest = reducer(server, wires, len(accepted), number, len(cohort), shares)
                    if spans.listening():
                        jax.block_until_ready(digest)
                failpoints.here("coordinator.round.after_reduce")
                with spans.span("evaluate"):
                    figures = values(sums, parts.task.metrics)
                    best = look_at(keeper, history, figures, before, best)
                del before
                now_in, now_out = traffic()
                row = {
                    "seconds": time.perf_counter() - opened,
                    "bytes_up": now_in - had_in,
                    "bytes_down": now_out - had_out,
                    "sites": [site for site, _ in accepted],
                    "lost": lost,
                }
                if shares is not None:
                    late = rounds.stores.journal.staleness(number)
                    row["late"] = {site: rounds_late for site, rounds_late in late.items() if rounds_late}
                history.add(figures, **row)
                if number == SEEN < study.rounds:
                    on_event(Event("forecast", study.name, number, data=seen(expecting, line_of(study), history.curve)))
                with spans.span("journal"):
                    summed = Aggregated(number, "train")
                    history.stands(keeper.commit(number, trees.digest_hex(digest), history.said(), summed))
                row |= {name: history.curve[-1][name] for name in row}
                newest = number, server, (), history.to_json()
                with spans.span("tell"):  # before its step: a run that goes on has said all rounds up to it
                    said = {"metrics": figures, "rounds": study.rounds, **row}
                    on_event(Event("round_closed", study.name, number, data=said))
                keeper.step(*newest)
                with spans.span("checkpoint"):
                    _sweep(rounds, keeper)
        # ---- the last model looked at by everyone; the best one judged beside each site's own
        history.ended = True
        spans.over()
        looked = wire_shape(federated, template, rows, parts.local, look=True)
        look = trees.schema(looked)
        accepted, _ = rounds.run(Phase(number + 1, "look", names, send(server), sent, look, enrolled=len(names)))
        sums = trees.zeros_like(looked)
        for leaves in rounds.leaves(accepted, look):
            sums = trees.add(sums, trees.rebuild(looked, dict(leaves)))
        best = look_at(keeper, history, values(sums, parts.task.metrics), server, best)
        keeper.step(number, server, (), history.to_json(), last=True)
        newest, model_of = None, Final(federated, parts.init_weights, rows, server)
        sha256 = weights_sha256(trees.named_leaves(model_of(server)))
        if best is not None and history.best_round != number:
            server = trees.shapes(server)  # one of the two is in memory
            server = keeper.best_of(best, server)
    except KeyboardInterrupt:
        keeper.interrupted(newest)
        raise
    finally:
        keeper.close()
    # ---- what is set right on watched rows, and figures
    failpoints.here("coordinator.study.before_finish")
    calibrating, more = calibrate.calibrating_of(parts), {}
    if calibrating is not None:
        counts = schema_of(calibrating.zero())
        accepted, _ = rounds.run(Phase(number + 1, "calibrate", names, send(server), sent, counts))
        total = combine([calibrating.zero(), *(dict(leaves) for leaves in rounds.leaves(accepted, counts))])
        more = {calibrate.MOVED: calibrating.fit(total)}
        fitted = calibrate.kept(fitted, more[calibrate.MOVED])
    sent = tuple(sorted((*sent, *schema_of(more))))
    accepted, _ = rounds.run(Phase(number + 1, "finish", names, send(server, more), sent, SUMMARY))
    failpoints.here("coordinator.study.after_finish")
    summaries = [
        read_summary(dict(leaves)["summary"], site, rounds.figures)
        for (site, _), leaves in zip(accepted, rounds.leaves(accepted, SUMMARY), strict=True)
    ]
    evaluation = (join_sites if judging is None else judging.join)([found for found in summaries if found])
    seconds = time.perf_counter() - begun
    up, down = (sum(row[key] for row in history.curve) for key in ("bytes_up", "bytes_down"))
    result = make_result(study, "federation", started, seconds, history, sha256, evaluation, [], up, down)
    result["forecast"] = compared(foretold, history.curve, seconds, peak_bytes())
    return Outcome(result, model_of(server), fitted, rows)


def ids_of(names: Sequence[str]) -> dict[int, str]:
    """id -> name, in ascending order of id."""
    return {number: name for name, number in site_ids(names).items()}


def _all_there(stores: Stores, done: int, folder: Path) -> None:
    """Whether the rounds after a step can be added up again.

    Raises:
      StorageError: an update of one of them was swept: newer steps were there once.
    """
    kept, closed = set(stores.spool.list()), stores.journal.closed()
    for (number, phase, _), digest in stores.journal.accepted().items():
        if phase == "train" and number > done and digest not in kept and (number, phase) in closed:
            begin = f"step {done}" if done else "the beginning"
            raise StorageError(
                f"expected an intact step in {folder / 'checkpoints'}, or all updates since {begin}, got neither: "
                f"those of round {number} were dropped when newer steps were there; name a new folder"
            )


def _sweep(rounds: Rounds, keeper: Keeper) -> None:
    """Drops updates of rounds that the oldest step on disk has behind it; what came before round 1 stays."""
    stores = rounds.stores
    oldest = keeper.oldest()
    if oldest is None:
        return
    newest = stores.journal.newest().values()  # the next may share pieces with them
    try:
        stores.spool.sweep({*stores.journal.accepted(after=oldest).values(), *newest})
    except StorageError as error:  # they only take room, and are swept after the next round
        rounds.note(str(error))
