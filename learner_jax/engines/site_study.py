"""One site's part in a study over the wire: bytes in, bytes out; the compute half of a worker.

What a site is asked, phase by phase:

    (0, "statistics")   measure the table: sums for preprocessing           -> named leaves
    (0, "statistics2")  the same by what was found so far, and so on        -> named leaves
    (0, "look")         get what was fitted from all sites' sums; encode    -> ready
    (t, "enter")        the same, of a site that takes part from round t on -> ready
    (t, "train")        one local round                                     -> a Wire
    (T+1, "look")       the watch on the last broadcast                     -> sums
    (T+1, "calibrate")  how far outputs are from watched rows, of tasks     -> counts
                        that set them right (`types.Calibrating`)
    (T+1, "finish")     train alone, judge both models on held-back rows    -> figures, as JSON in one leaf
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from learner_jax import failpoints, spans, specs, trees
from learner_jax.data.sites import SiteData
from learner_jax.data.tables import with_split
from learner_jax.data.ways import Labels
from learner_jax.engines import calibrate
from learner_jax.engines.answers import keep_figures
from learner_jax.engines.judge import chances, is_binary, predictor, take_rows, train_alone
from learner_jax.engines.parts import Parts, values
from learner_jax.engines.program import Program
from learner_jax.engines.streamed import program_over, world_of
from learner_jax.engines.world import TEST, World
from learner_jax.errors import ConfigError, DataError, StorageError
from learner_jax.evaluation import summarise_site
from learner_jax.events import Event, Observer
from learner_jax.leaves import LeafSpec, Schema, leaf_pieces, pack, schema_digest, schema_of, unpack
from learner_jax.protocol.messages import STATISTICS, Open
from learner_jax.specs import Study
from learner_jax.storage.atomic import read_json, write_json
from learner_jax.storage.patience import patiently
from learner_jax.types import Judging, PyTree

READY: Schema = (LeafSpec("ready", "int32", (1,)),)
SUMMARY_BYTES = 32 * 1024
SUMMARY: Schema = (LeafSpec("summary", "uint8", (SUMMARY_BYTES,)),)
"""A site's figures as JSON, padded with blanks to one size."""


class Answer(NamedTuple):
    """What a site sends, and what it will keep once that is acknowledged.

    Attributes:
      data: packed leaves.
      schema_digest: of the leaves.
      state: the site's state from then on, packed; b"" before the first round.
      pieces: table of data's pieces.
    """

    data: bytes
    schema_digest: str
    state: bytes
    pieces: bytes


def study_of(manifest: bytes) -> Study:
    """The study of a Welcome's manifest, checked.

    Raises:
      ConfigError: this installation cannot run it: it names what is not installed here.
    """
    try:
        return specs.check(Study.from_json(manifest.decode()))
    except (UnicodeDecodeError, RecursionError, TypeError, AttributeError, KeyError) as error:
        raise ConfigError(f"expected a study's manifest, got something else ({type(error).__name__})") from None


class SiteStudy:
    """A study at one site.

    Args:
      build: (study) -> Parts.
      manifest: canonical JSON of the study.
      name: the site's.
      frame: its table, checked here.
      folder: where what was fitted is kept.
      on_event: told of the training alone at the end.

    Raises:
      ConfigError: the study asks for what is not installed.
      DataError: the table does not fit its checklist.
    """

    def __init__(
        self, build: Callable[[Study], Parts], manifest: bytes, name: str, frame: Any, folder: Path, on_event: Observer
    ):
        self.parts, self.name, self._folder, self._tell = build(study_of(manifest)), name, folder, on_event
        self._frame = frame = with_split(frame, self.parts.study.data.split_column)
        if self.parts.task.checklist is None:
            raise DataError("expected a task with a checklist, got one whose rows are handed over as arrays")
        self.warnings = [*self.parts.task.checklist.check(frame, f"site '{name}'"), *_without_split(self.parts, frame)]
        self._ready: tuple[SiteData, World, PyTree] | None = None
        self._program: Program | None = None

    # ---- what it is asked -----------------------------------------------------------------------------------------

    def work(self, asked: Open, data: bytes | memoryview, committed: bytes | None) -> Answer:
        """Answers one Open.

        Args:
          asked: the round and its phase.
          data: the broadcast's bytes.
          committed: the site's own state as of its last acknowledged update, packed; None at first.

        Raises:
          DataError: the site cannot do this; the reason is one line.
        """
        if asked.phase == "train":
            return self._train(asked, data, committed)
        if asked.round and asked.phase != "enter":
            spans.over()
        if asked.phase in STATISTICS:
            leaves = self._measure(asked.phase, data)
        elif asked.phase == "enter" or (asked.phase == "look" and asked.round == 0):
            leaves = self._prepare(data)
        elif asked.phase == "look":
            states = _one_row(self._state(committed))
            _, sums = self._running(asked.enrolled).look(self._broadcast(data), states, asked.round)
            leaves = trees.named_leaves(sums)
            keep_figures(self._folder, watched=values(sums, self.parts.task.metrics))
        elif asked.phase == "calibrate":
            leaves = self._calibrate(data, committed)
        else:
            leaves = self._finish(data, committed)
        return _answer(leaves, committed or b"")

    def _measure(self, phase: str, data: bytes | memoryview) -> dict[str, np.ndarray]:
        """The sums of one round of statistics."""
        number, statistics = STATISTICS.index(phase), self.parts.task.checklist.statistics
        if number >= len(statistics):
            raise DataError(f"expected at most {len(statistics)} rounds of statistics in this study, got '{phase}'")
        if not number:
            return statistics[0].measure(self._frame, {})
        with _of_use():
            return statistics[number].measure(self._frame, json.loads(bytes(data)))

    def _prepare(self, data: bytes | memoryview) -> dict[str, np.ndarray]:
        """Keeps what was fitted, and encodes the table by it."""
        path = self._folder / "fitted.json"
        with _of_use():
            fitted = json.loads(bytes(data))
            self.parts.task.checklist.encode(self._frame.head(2), fitted)  # it is of use, before it is kept
            apart = self.parts.task.checklist.compare(self._frame, fitted)
        patiently(lambda: write_json(path, fitted, mode=0o600, point="site.fitted"), self._note)
        self._ready = None
        self._prepared()
        for text in apart:
            self._note(text)
        return {"ready": np.ones(1, np.int32)}

    def _note(self, text: str) -> None:
        self._tell(Event("note", self.parts.study.name, site=self.name, data={"text": text}))

    def _train(self, asked: Open, data: bytes | memoryview, committed: bytes | None) -> Answer:
        program = self._running(asked.enrolled)
        failpoints.here("site.round.before_training")
        with spans.span("decode"):
            broadcast, before = self._broadcast(data), self._state(committed)
        wire, state = program.local_round(broadcast, before, asked.round, asked.cohort)
        failpoints.here("site.round.mid_training")  # jax has been told what to compute, and is at it
        with spans.span("encode"):
            answer = _answer(trees.named_leaves(wire), pack(trees.named_leaves(state)))
        failpoints.here("site.round.after_training")
        return answer

    def _calibrate(self, data: bytes | memoryview, committed: bytes | None) -> dict[str, np.ndarray]:
        """Counts of the joint model's outputs on the site's watched rows."""
        calibrating = calibrate.calibrating_of(self.parts)
        if calibrating is None:
            raise DataError("expected a phase of this study, got 'calibrate', which it has not")
        weights = self.parts.federated.model(self._broadcast(data), self._state(committed))
        return calibrate.count(calibrating, predictor(self.parts), weights, self._prepared()[0])

    def _finish(self, data: bytes | memoryview, committed: bytes | None) -> dict[str, np.ndarray]:
        """Figures of the joint model and of the site's own, on the site's held-back rows."""
        site, world, _ = self._prepared()
        held = np.flatnonzero(site.split == TEST)
        found: dict[str, Any] = {}
        if len(held) and self.parts.task.judging is not None:
            found = self._judged(self.parts.task.judging, data, committed)
        elif len(held) and is_binary(self.parts, {self.name: site}):
            rows, predict = take_rows(site.rows, held), predictor(self.parts)
            joint = self.parts.federated.model(self._broadcast(data), self._state(committed))
            scores = {"federated": chances(predict(joint, rows))}
            if "local_only" in self.parts.references:
                alone = train_alone(self.parts, world, self._tell)[0]
                scores["local_only"] = chances(predict(alone, rows))
            cohorts = {name: mask[held] for name, mask in site.cohorts.items()} or None
            seed = self.parts.study.seed
            plain = self.parts.study.release.histograms == "plain"
            ways = {name: Labels(way.levels, way.of[held]) for name, way in site.ways.items()}
            found = summarise_site(
                scores, rows["y"], site.group[held], cohorts, seed, name=self.name, release=plain, ways=ways
            )
        if self.parts.task.judging is None:
            keep_figures(self._folder, judged=list(found.values()))
        text = json.dumps(found, allow_nan=False).encode()
        if len(text) > SUMMARY_BYTES:  # the subgroups are what may be left out
            fewer = {cohort: {k: v for k, v in one.items() if k != "subgroups"} for cohort, one in found.items()}
            text = json.dumps(fewer, allow_nan=False).encode()
        if len(text) > SUMMARY_BYTES:
            raise DataError(f"expected figures of at most {SUMMARY_BYTES} bytes, got {len(text)}")
        return {"summary": np.frombuffer(text.ljust(SUMMARY_BYTES), np.uint8)}

    def _judged(self, judging: Judging, data: bytes | memoryview, committed: bytes | None) -> dict[str, Any]:
        """The task's own figures of the joint model and of the site's own."""
        site, world, _ = self._prepared()
        rows, predict = take_rows(site.rows, np.flatnonzero(site.split == TEST)), predictor(self.parts)
        x, calibrating = {"x": rows["x"]}, judging.calibrating
        broadcast, by = self._with_move(data) if calibrating else (self._broadcast(data), None)
        told = {"federated": predict(self.parts.federated.model(broadcast, self._state(committed)), x)}
        if calibrating is not None:
            told["federated"] = calibrating.move(told["federated"], by)
        if "local_only" in self.parts.references:
            alone = train_alone(self.parts, world, self._tell)[0]
            told["local_only"] = predict(alone, x)
            if calibrating is not None:
                own = calibrating.fit(calibrate.count(calibrating, predict, alone, site))
                told["local_only"] = calibrating.move(told["local_only"], own)
        fitted = read_json(self._folder / "fitted.json")
        return judging.summarise(told, rows, self.name, site.about, fitted, self.parts.study.seed)

    # ---- what it stands on ----------------------------------------------------------------------------------------

    def _prepared(self) -> tuple[SiteData, World, PyTree]:
        """(rows, world of one, common start), made once from what was fitted."""
        if self._ready is None:
            path = self._folder / "fitted.json"
            if not path.exists():
                raise StorageError(f"expected {path}, which all sites' sums were fitted to; ask for a new join code")
            site = self.parts.task.checklist.encode(self._frame, read_json(path))
            world = world_of(self.parts.study.engine, {self.name: site}, self.parts.dtype)
            weights = self.parts.init_weights(jax.tree.map(lambda column: column[:2], world.rows))
            self._ready = site, world, weights
        return self._ready

    def _running(self, enrolled: int) -> Program:
        if self._program is None or self._program.enrolled != enrolled:
            if self._program is not None:
                self._note(f"the study has {enrolled} sites now; it had {self._program.enrolled}")
            _, world, weights = self._prepared()
            parts = self.parts
            make = program_over(parts.study.engine, world)
            self._program = make(
                parts.federated, trees.shapes(weights), world, parts.local, size=1, study=parts.number,
                enrolled=enrolled,
            )  # fmt: skip
        return self._program

    def _broadcast(self, data: bytes | memoryview) -> PyTree:
        _, _, weights = self._prepared()
        shape = broadcast_shape(self.parts, weights)
        return jax.tree.map(jnp.asarray, trees.rebuild(shape, unpack(data, trees.schema(shape), "the coordinator")))

    def _with_move(self, data: bytes | memoryview) -> tuple[PyTree, np.ndarray]:
        """A broadcast, and what outputs are moved by, which came with it."""
        calibrating = calibrate.calibrating_of(self.parts)
        assert calibrating is not None
        _, _, weights = self._prepared()
        shape = broadcast_shape(self.parts, weights)
        more = schema_of({calibrate.MOVED: calibrating.fit(calibrating.zero())})
        leaves = unpack(data, tuple(sorted((*trees.schema(shape), *more))), "the coordinator")
        by = np.array(leaves.pop(calibrate.MOVED))
        return jax.tree.map(jnp.asarray, trees.rebuild(shape, leaves)), by

    def _state(self, committed: bytes | None) -> PyTree:
        _, _, weights = self._prepared()
        fresh = self.parts.federated.enrol(weights)
        if not committed:
            return fresh
        return jax.tree.map(jnp.asarray, trees.rebuild(fresh, unpack(committed, trees.schema(fresh), "this disk")))


def _without_split(parts: Parts, frame: Any) -> list[str]:
    """Said where the study names a column for who is held back, and this table has none of the name."""
    column = parts.study.data.split_column
    if column in (None, "split") or "split" in getattr(frame, "obs", frame):
        return []
    return [f"expected a column '{column}' that says who is held back, got none: it is drawn"]


@contextlib.contextmanager
def _of_use() -> Iterator[None]:
    """Says in one line that what came as fitted is nothing that this study's functions can read."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        text = f"expected what the study has fitted, got something of no use here ({type(error).__name__})"
        raise DataError(text) from None


def broadcast_shape(parts: Parts, weights: PyTree) -> PyTree:
    """Shapes of what a coordinator sends."""
    federated = parts.federated
    return jax.eval_shape(lambda w: federated.send(federated.init(w, jax.random.key(0))), weights)


def _answer(leaves: dict[str, np.ndarray], state: bytes) -> Answer:
    data, schema = pack(leaves), schema_of(leaves)
    return Answer(data, schema_digest(schema), state, leaf_pieces(data, schema))


def _one_row(state: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x[None], state)
