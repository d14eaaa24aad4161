"""A run's folder: steps, journal, and going on where a run was stopped.

A step is a cache of a deterministic function: a run that was killed restores the newest step and runs the rounds after
it again; each must give the digest that the journal remembers.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from learner_jax import spans, specs, trees
from learner_jax.engines.history import History, said
from learner_jax.errors import StorageError, StudyError
from learner_jax.leaves import schema_bytes, schema_of
from learner_jax.protocol.rows import Committed, Measured, Row
from learner_jax.specs import Study
from learner_jax.storage.journal import Journal
from learner_jax.storage.patience import patiently
from learner_jax.storage.shelf import Shelf
from learner_jax.storage.steps import Steps
from learner_jax.types import PyTree

_ALL = 10**9
_BUSY = 0.1
"""The share of the time that may pass in saving steps: where rounds take milliseconds, some are not saved, and are run
again after a crash."""
_SMALL = 64 * 2**20
"""Bytes of a server's state up to which the best is held in memory until a step that names it is saved."""
_ON_DISK, _IN_STEPS = "on the disk", "in memory"
"""Where a run has its sites' states: beside its steps, or in them."""
T = TypeVar("T")


def _all(*done: Callable[[], object] | None) -> None:
    for one in done:
        if one is not None:
            one()


class Keeper:
    """Keeps what a run must not lose; a keeper without a folder keeps nothing.

    Args:
      study: the config.
      folder: the run's, or None.
      journal: one that is open already, as a coordinator's.
      rows: digest of the rows that this process trains on, "" where it has none: a run goes on with no others.
      say: told in a line that the disk is waited for; None does not wait, and raises.
    """

    def __init__(
        self,
        study: Study,
        folder: Path | None,
        journal: Journal | None = None,
        rows: str = "",
        say: Callable[[str], None] | None = None,
    ):
        self._say, self._seen = say, 0  # the round that a step was asked for last
        self.folder, self._checkpoint, self._rows = folder, study.checkpoint, rows
        self._steps = self._best = self._journal = None
        self._committed: dict[int, str] = {}
        self._measured: dict[int, str] = {}  # figures of rounds that may be run again
        self._names: dict[int, int] = {}  # step -> the best round that it names
        self._bests: set[int] = set()  # best rounds that this process saved
        self._held: dict[int, PyTree] = {}  # best rounds that are not on the disk: the newest, and the one before
        if folder is None:
            return
        self._own_journal = journal is None
        self._journal = journal or Journal(folder / "journal.sqlite", study.name, specs.manifest_digest(study))
        self._committed, self._measured = self._journal.committed(), self._journal.measured()
        steps = Steps(folder / "checkpoints", study.checkpoint.keep_last, 0, point="coordinator.steps", busy=_BUSY)
        self._steps = steps
        # a step is of no use without the best model that it names
        self._best = Steps(folder / "best", _ALL, 0, point="coordinator.best")

    @property
    def begun(self) -> bool:
        """Whether rounds were run in the folder before."""
        return bool(self._committed)

    def restore(
        self, server: PyTree, states: PyTree, history: History
    ) -> tuple[int, PyTree, PyTree, int | None, list[str]]:
        """Where the run stands.

        Args:
          server, states: fresh ones, for their shapes.
          history: filled from the step.

        Returns:
          (round, server, states, best round or None, notes on corrupt steps that were passed over).

        Raises:
          StudyError: the step is of other rows, or of another model.
        """
        notes: list[str] = []
        if self._steps is None or self._best is None:
            return 0, server, states, None, notes
        for step in reversed(self._steps.all()):
            try:
                _, items = self._steps.restore(step)
                best_round = items["meta"]["best_round"]
                if best_round not in (None, step):
                    self._best.check(best_round)
            except StorageError as error:
                notes.append(str(error))
                continue
            was, now = items["meta"].get("states", _IN_STEPS), _ON_DISK if isinstance(states, Shelf) else _IN_STEPS
            if was != now:
                raise StudyError(
                    f"expected sites' states {was}, as the run in {self.folder} began, got them {now}: set "
                    "engine.states_mib (0: always on the disk), or name a new folder"
                )
            if items["meta"].get("rows", self._rows) != self._rows:
                raise StudyError(
                    f"expected the rows that step {step} in {self.folder} was trained on, got others; name a new folder"
                )
            history.restore(items["meta"], self._said_until(step, items["meta"]))
            restored = self._fitted(step, server, items["server"])
            if isinstance(states, Shelf):
                states.back_to(step)
            else:
                states = self._fitted(step, states, items["sites"])
            self._seen = step
            return step, restored, states, best_round, notes
        if isinstance(states, Shelf):
            states.back_to(0)
        return 0, server, states, None, notes

    def _said_until(self, step: int, meta: Mapping[str, Any]) -> list[str]:
        """What the journal says of each round up to a step's. Earlier versions kept it in the step: it is taken over.

        Raises:
          StudyError: of some round nothing is said.
        """
        assert self._journal is not None
        there = self._journal.measured()
        kept = {number: said(row, {}) for number, row in enumerate(meta.get("curve", ()), 1) if number not in there}
        if kept:
            self._journal.write(*(Measured(number, figures) for number, figures in kept.items()))
        there |= kept
        self._measured = {number: text for number, text in there.items() if number > step}
        found = [text for number, text in sorted(there.items()) if number <= step]
        if len(found) != step:
            raise StudyError(
                f"expected the figures of rounds 1 to {step} in the journal in {self.folder}, got those of "
                f"{len(found)}: it is not the journal of these steps; name a new folder"
            )
        return found

    def _fitted(self, step: int, like: PyTree, leaves: Mapping[str, Any]) -> PyTree:
        """The tree of saved leaves, if they are those of this study's model."""
        if trees.schema(like) != schema_of(leaves):
            raise StudyError(f"expected step {step} in {self.folder} to be of this model, got another's; "
                             "name a new folder")  # fmt: skip
        return trees.rebuild(like, leaves)

    def commit(self, round_number: int, digest: str, figures: str, *rows: Row) -> str:
        """Writes the round's digest, or holds it against the one of an earlier run of the same round.

        Args:
          round_number, digest: of the round's new state.
          figures: of the round, see `History.said`.
          *rows: what is to be journaled with it, before it.

        Returns:
          The figures that stand: of the first time that the round was run, where it is run again.

        Raises:
          StudyError: the round gave something else than before.
        """
        if self._journal is None:
            return figures
        before = self._committed.get(round_number)
        if before is not None and before != digest:
            raise StudyError(
                f"expected round {round_number} to end in state {before[:12]}, as it did before in {self.folder}, got "
                f"{digest[:12]}: other data, versions, devices, XLA flags or settings of the engine than at the start; "
                "name a new folder"
            )
        new: list[Row] = [*rows] if before is None else []
        stands = self._measured.pop(round_number, None)
        new += [Measured(round_number, figures)] if stands is None else []
        new += [Committed(round_number, digest)] if before is None else []
        if new:
            journal = self._journal
            self._write(lambda: journal.write(*new))
        return figures if stands is None else stands

    def interrupted(self, newest: tuple[int, PyTree, PyTree, Mapping[str, Any]] | None) -> None:
        """Saves the newest round on the way out, durably, unless its arrays are gone into the round at hand."""
        self._say = None  # who stops does not wait
        if newest is not None:
            with contextlib.suppress(RuntimeError):
                try:
                    self.step(*newest, last=True)
                except StorageError:  # of the save before, which this one waited for
                    self.step(*newest, last=True)

    def step(
        self, round_number: int, server: PyTree, states: PyTree, meta: Mapping[str, Any], last: bool = False
    ) -> bool:
        """Saves a step, if one is due; True if it was. meta: of the history, as of this round. Of a shelf of states
        what was put there is durable before the step is, and what no step may go back to is removed."""
        every, before, self._seen = self._checkpoint.every, self._seen, round_number
        if self._steps is None or (not last and round_number // every == before // every):
            return False
        with spans.span("checkpoint"):
            shelf = states if isinstance(states, Shelf) else None
            items = {
                "server": trees.named_leaves(server),
                "sites": {} if shelf is not None else trees.named_leaves(states),
                "meta": {**meta, "rows": self._rows, **({} if shelf is None else {"states": _ON_DISK})},
            }
            steps, wait = self._steps, last or self._checkpoint.wait
            copy = not wait and bool(items["sites"])  # the simulator donates its states to the next round
            held = self._held.get(meta["best_round"])
            first = None if held is None else functools.partial(self._save_best, meta["best_round"], held)
            if shelf is not None:
                self._write(shelf.settle)
                shelf.forget(self.oldest() or 0)
                first = functools.partial(_all, shelf.flush, first)
            return self._write(lambda: steps.save(round_number, items, wait=wait, copy=copy, first=first))

    def _write(self, act: Callable[[], T]) -> T:
        return act() if self._say is None else patiently(act, self._say)

    def best(self, round_number: int, server: PyTree) -> PyTree:
        """Keeps the best round's model; what is to be held of it: its round where it lies on disk, else all of it.

        A step is of no use without the best model that it names, so that is saved before it. A small one is held until
        then: where rounds take milliseconds, most of the best are surpassed before a step is saved. A large one is
        saved at once, since its memory is dearer than the wait.
        """
        if self._best is None:
            return server
        if self._checkpoint.keep_best <= 1 and schema_bytes(trees.schema(server)) <= _SMALL:
            newest = max(self._held, default=round_number)
            self._held = {newest: self._held[newest]} if self._held else {}  # the newest round's step may name it yet
            self._held[round_number] = server
            return server
        with spans.span("checkpoint"):
            self._write(lambda: self._save_best(round_number, server))
        return round_number

    def _save_best(self, round_number: int, server: PyTree) -> None:
        """Durable when it returns."""
        best = self._best
        assert best is not None
        if round_number not in self._bests:  # what lies there from an earlier start may be damaged
            best.save(round_number, {"server": trees.named_leaves(server), "meta": {}}, wait=True, copy=False)
            self._bests.add(round_number)
        best.drop_before(self._oldest_needed())

    def best_of(self, held: PyTree, like: PyTree) -> PyTree:
        """The server's state after the best round: what `best` or `restore` gave of it, from the disk where it lies.

        Args:
          held: that.
          like: a state, or its shapes.
        """
        if not isinstance(held, int) or self._best is None or self._steps is None:
            return held
        steps = self._best if held in self._best.all() else self._steps
        return self._fitted(held, like, steps.restore(held)[1]["server"])

    def _oldest_needed(self) -> int:
        """The oldest best round that a step on disk names, or that the study's `keep_best` keeps."""
        assert self._steps is not None and self._best is not None
        there = self._steps.all()
        named = [] if there else [0]
        for step in there:
            if step not in self._names:
                with contextlib.suppress(StorageError):  # not intact: it will be passed over
                    found = self._steps.meta(step)["best_round"]
                    self._names[step] = step if found is None else found
            named += [self._names[step]] if step in self._names else []
        if not named:
            return 0  # they went while they were read: the next time
        return min([*named, *self._best.all()[-max(1, self._checkpoint.keep_best) :]])

    def oldest(self) -> int | None:
        """The oldest round of which a step is durable."""
        steps = () if self._steps is None else self._steps.all()
        return steps[0] if steps else None

    def close(self) -> None:
        """Lets the folder go; waits for a save in flight."""
        for steps in (self._steps, self._best):
            if steps is not None:
                steps.close()
        if self._journal is not None and self._own_journal:
            self._journal.close()
