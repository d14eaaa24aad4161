"""All sites in one process: a study's rounds, one compiled call each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from learner_jax import spans, trees
from learner_jax.data import plans
from learner_jax.data.sites import SiteData
from learner_jax.engines import choose, fused, machines
from learner_jax.engines.history import History, said
from learner_jax.engines.keeper import Keeper
from learner_jax.engines.parts import Parts, describe, values
from learner_jax.engines.program import Plan, Program, enrol_all, wire_shape
from learner_jax.engines.shelved import Shelved, shelf_of
from learner_jax.engines.streamed import is_streamed, program_over, world_of
from learner_jax.engines.world import World, world_sha256
from learner_jax.errors import ConfigError, DataError
from learner_jax.events import Event, Observer, silent
from learner_jax.leaves import weights_sha256
from learner_jax.specs import Engine, Study
from learner_jax.storage.shelf import Shelf
from learner_jax.types import PyTree


class Trained(NamedTuple):
    """What a run ends with.

    Attributes:
      server: the coordinator's state after the last round.
      best: its state after the best round, which the study's model is taken from.
      states: every site's, [N, ...], or a `Shelf` of them.
      history: curve and best round.
      sha256: of the last round's weights.
      bytes_up, bytes_down: payload that crossed, or would have crossed, the wire.
      seconds: wall time of the rounds.
    """

    server: PyTree
    best: PyTree
    states: PyTree
    history: History
    sha256: str
    bytes_up: int
    bytes_down: int
    seconds: float


def plan_of(engine: Engine, sites: int) -> Plan:
    """Streams and lanes for this machine.

    Raises:
      ConfigError: more streams than devices.
    """
    devices = jax.devices()
    if machines.several():  # each has its part of the streams; with fewer sites than processes all do the same
        each = min(jax.local_device_count(), sites // jax.process_count())
        streams = each * jax.process_count() or 1
        return Plan(streams, engine.lanes or (4 if engine.plan == "lanes" or devices[0].platform != "cpu" else 1))
    if engine.plan == "sequential":
        return Plan(1, 1)
    if engine.plan == "lanes" or (engine.plan == "auto" and devices[0].platform != "cpu"):
        return Plan(1, max(1, min(engine.lanes or 4, sites)))
    streams = engine.streams or len(devices)
    if streams > len(devices):
        raise ConfigError(
            f"engine.streams: expected at most {len(devices)}, the devices of this process, got {streams}"
        )
    return Plan(max(1, min(streams, sites)), max(1, engine.lanes or 1))


def _is_free(engine: Engine) -> bool:
    """Whether nothing of the plan is the user's own, and it can be tried: processes would not find the same."""
    return not machines.several() and engine.plan == "auto" and engine.streams is None and engine.lanes is None


def cohort_size(study: Study, sites: int) -> int:
    """Sites asked in a round."""
    if study.cohort is None:
        return sites
    size = round(study.cohort * sites) if isinstance(study.cohort, float) else study.cohort
    return max(1, min(size, sites))


def template_rows(world: World) -> PyTree:
    """Two rows, for shapes."""
    return jax.tree.map(lambda column: column[:2], world.rows)


def state_of(states: PyTree, place: int) -> PyTree:
    """A site's state: of all, [N, ...], or of a shelf."""
    return states.one(place) if isinstance(states, Shelf) else jax.tree.map(lambda x: x[place], states)


def simulate(
    parts: Parts, sites: Mapping[str, SiteData], workdir: Path | None = None, on_event: Observer = silent
) -> tuple[Trained, World]:
    """Runs a study's rounds, going on from the newest step in `workdir`.

    Args:
      parts: the study.
      sites: name -> rows.
      workdir: the run's folder; None keeps nothing on disk.
      on_event: told of each round.

    Returns:
      What was trained, and the world it was trained on.

    Raises:
      DataError: no site has a row to train on.
      StudyError: the folder is another run's, or a round gave another result than before.
    """
    if parts.study.federation.buffer is not None:
        raise ConfigError(
            "federation.buffer: expected none in a simulation, which has no clock by which one site is later than "
            "another; `learner local` runs the study's sites as processes"
        )
    workdir = workdir if machines.first() else None
    world = world_of(parts.study.engine, sites, parts.dtype)
    if machines.several() and is_streamed(world):
        raise ConfigError(
            "processes: expected rows that fit on each device, got more (engine.rows_mib), or some on the disk, which "
            "come in blocks in one process alone"
        )
    if machines.several() and machines.from_first(mine := world_sha256(world)) != mine:
        raise DataError("processes: expected the rows that the first process reads, got others here")
    if not sum(map(len, world.train)):
        raise DataError(f"expected rows to train on, got none at any of {len(world.names)} sites")
    keeper = Keeper(parts.study, workdir, rows="" if workdir is None else world_sha256(world))
    try:
        return _train(parts, world, keeper, on_event), world
    finally:
        keeper.close()


def _train(parts: Parts, world: World, keeper: Keeper, on_event: Observer) -> Trained:
    study, federated = parts.study, parts.federated

    def say(text: str) -> None:
        on_event(Event("note", study.name, data={"text": text}))

    size, sites = cohort_size(study, len(world.names)), len(world.names)
    # ---- the start, or the newest step
    weights = parts.init_weights(template_rows(world))
    parts.check_inputs(weights, template_rows(world))
    server = federated.init(weights, jax.random.key(study.seed))
    shelf = shelf_of(study.engine, federated, weights, world, keeper.folder)
    states = enrol_all(federated, weights, sites) if shelf is None else shelf

    def by(plan: Plan) -> Program:
        make = program_over(study.engine, world, plan) if shelf is None else Shelved
        return make(federated, trees.shapes(weights), world, parts.local, plan, size, parts.number)

    plan = plan_of(study.engine, sites)
    if _is_free(study.engine) and shelf is None:
        first = _cohort(study, world, 1, size)
        tried = choose.candidates(plan, len(jax.devices()), size)
        program = choose.chosen(study, tried, by, server, states, first, keeper.folder, keeper.begun, say)
    else:
        program = by(plan)
    history = History(parts)
    done, server, states, best, notes = _restored(keeper, server, states, history)
    server, states = program.place(server), program.place(states) if shelf is None else shelf
    for note in notes:
        say(f"a step was passed over: {note}")
    if done:
        on_event(Event("resumed", study.name, done, data={"rounds": study.rounds}))
    started = time.perf_counter()
    per_site = _traffic(program)
    # ---- rounds
    number, newest = done, None
    asked = fused.Rounds(
        program, lambda number: _cohort(study, world, number, size), study.rounds,
        fused.how_many(study, program, server, states),
    )  # fmt: skip
    try:
        while number < study.rounds and not history.over:
            number += 1
            with spans.span("round", number):
                cohort = asked.cohort(number)
                names = [world.names[place] for place in cohort]
                with spans.span("tell"):
                    on_event(Event("round_open", study.name, number, data={"sites": names, "rounds": study.rounds}))
                with spans.span("launch"):  # arrays of the round before are let go here, which takes a while
                    outcome = asked.round(server, states, number)
                    before, server, states = server, outcome.server, outcome.states
                asked.prepare(number + 1)  # while this one runs
                with spans.span("evaluate"):
                    figures = values(outcome.metrics, parts.task.metrics)
                    traffic = {"bytes_up": per_site[0] * len(cohort), "bytes_down": per_site[1] * len(cohort)}
                    best = look_at(keeper, history, figures, before, best)
                    history.add(figures, seconds=asked.over(), sites=names, lost=[], **traffic)
                with spans.span("journal"):
                    history.stands(keeper.commit(number, trees.digest_hex(outcome.digest), history.said()))
                    # within several rounds of one call nobody has the sites' states
                    step = None if states is None else (number, server, states, history.to_json())
                    newest = step or newest
                with spans.span("tell"):
                    on_event(_closed(study, number, history, figures))  # before its step: see the coordinator
                if step is not None:
                    keeper.step(*step)
    except KeyboardInterrupt:
        keeper.interrupted(newest)
        raise
    # ---- the last model, looked at by everyone
    history.ended = True
    spans.over()
    _, sums = program.look(program.send(server), states, number + 1)
    best = look_at(keeper, history, values(sums, parts.task.metrics), server, best)
    keeper.step(number, server, states, history.to_json(), last=True)
    seconds = time.perf_counter() - started
    up, down = (sum(row[key] for row in history.curve) for key in ("bytes_up", "bytes_down"))
    best = server if best is None or history.best_round == number else keeper.best_of(best, server)
    best = machines.tree_from_first(best, trees.shapes(server))
    server, best = jax.device_get((server, best))
    states = jax.device_get(states) if shelf is None else shelf
    return Trained(server, best, states, history, sha256_of(federated, server, weights),
                   up, down, seconds)  # fmt: skip


def _restored(
    keeper: Keeper, server: PyTree, states: PyTree, history: History
) -> tuple[int, PyTree, PyTree, PyTree, list[str]]:
    """As `Keeper.restore`; what one process finds in the folder, all of them go on from."""
    done, server, states, best, notes = keeper.restore(server, states, history)
    if machines.several():
        told = machines.from_first([done, best, history.to_json(), [said(row, {}) for row in history.curve]])
        done, best, saved, rows = told
        if done:
            history.restore(saved, rows)
            server, states = machines.tree_from_first((server, states), trees.shapes((server, states)))
    return done, server, states, best, notes


def _cohort(study: Study, world: World, number: int, size: int) -> np.ndarray:
    """int32, places of the sites asked in a round, ascending."""
    with spans.span("plan"):
        return np.searchsorted(world.ids, plans.cohort(study.seed, number, world.ids, size)).astype(np.int32)


def look_at(keeper: Keeper, history: History, figures: Mapping[str, float], server: PyTree, best: PyTree) -> PyTree:
    """What is held of the best server state, after `server`'s model has been looked at: see `Keeper.best`."""
    return keeper.best(len(history.curve), server) if history.look(figures) else best


def _closed(study: Study, number: int, history: History, figures: Mapping[str, float]) -> Event:
    row = history.curve[-1]
    data = {"metrics": dict(figures), "rounds": study.rounds}
    data |= {key: row[key] for key in ("seconds", "bytes_up", "bytes_down", "sites", "lost")}
    return Event("round_closed", study.name, number, data=data)


def _traffic(program: Program) -> tuple[int, int]:
    """(bytes up, bytes down) of one site in one round."""
    federated, template = program.federated, program.template
    broadcast = jax.eval_shape(lambda weights: federated.send(federated.init(weights, jax.random.key(0))), template)
    rows = jax.tree.map(lambda column: jax.ShapeDtypeStruct((2, *column.shape[1:]), column.dtype), program.world.rows)
    return describe(wire_shape(federated, template, rows, program.local)), describe(broadcast)


def sha256_of(federated: Any, server: PyTree, weights: PyTree) -> str:
    """sha256 of the weights that a study ends with: those of a site that has just enrolled."""
    broadcast = federated.send(server)
    return weights_sha256(trees.named_leaves(federated.model(broadcast, federated.enrol(weights))))
