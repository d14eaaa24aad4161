"""What each site gained: references trained beside the study, and the models judged on held-back rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from learner_jax import trees
from learner_jax.data.columns import joined, some_of
from learner_jax.data.sites import TRAIN, SiteData
from learner_jax.data.ways import Labels
from learner_jax.engines.history import History
from learner_jax.engines.parts import Parts, values
from learner_jax.engines.program import enrol_all
from learner_jax.engines.simulator import plan_of, simulate, template_rows
from learner_jax.engines.streamed import program_over, world_of
from learner_jax.engines.world import World
from learner_jax.errors import DataError
from learner_jax.evaluation import evaluate
from learner_jax.events import Event, Observer
from learner_jax.types import Model, PyTree

CHUNK = 2048


def train_references(
    parts: Parts, sites: Mapping[str, SiteData], world: World, on_event: Observer
) -> dict[str, list[PyTree]]:
    """Trains the study's references, each for the study's rounds or until its own patience is out.

    Returns:
      name -> the weights that each site of the world would use, in the world's order.
    """
    found: dict[str, list[PyTree]] = {}
    for name in parts.study.references:
        if name == "local_only":
            found[name] = train_alone(parts, world, on_event)
        elif name == "all_but_me":
            found[name] = train_without_each(parts, sites, world, on_event)
        else:
            found[name] = [train_pooled(parts, sites, on_event)] * len(world.names)
    return found


def train_alone(parts: Parts, world: World, on_event: Observer) -> list[PyTree]:
    """Each site trains its own model on its own rows; its best round by the loss on its own validation rows is kept.

    The study's patience holds for each site by itself: one that was no better for so many rounds has ended, and the
    rounds end when all have. A site without validation rows, which cannot be said to be no better, has every round.
    """
    study, federated = parts.study, parts.references["local_only"]
    weights = parts.init_weights(template_rows(world))
    plan = plan_of(study.engine, len(world.names))
    make = program_over(study.engine, world, plan)
    program = make(federated, trees.shapes(weights), world, parts.local, plan, study=parts.number)
    server = program.place(federated.init(weights, jax.random.key(study.seed)))
    states = program.place(enrol_all(federated, weights, len(world.names)))
    everyone = np.arange(len(world.names), dtype=np.int32)
    best, lowest = jax.tree.map(jnp.copy, states), jnp.full(len(world.names), jnp.inf)
    since = jnp.zeros(len(world.names), jnp.int32)
    for number in range(1, study.rounds + 1):
        states = program.round(server, states, number, everyone).states
        each, _ = program.look(weights, states, number)
        best, lowest, since = _keep_lower(best, lowest, since, states, each, study.patience)
        # One program at a time: host devices that wait for each other in two of them at once wait for ever.
        jax.block_until_ready((best, lowest, since))
        on_event(Event("reference", study.name, number, data={"name": "local_only", "rounds": study.rounds}))
        if study.patience is not None and bool((since >= study.patience).all()):
            break
    kept = jax.device_get(best)
    return [federated.model(weights, _place(kept, place)) for place in range(len(world.names))]


def _place(states: PyTree, place: int) -> PyTree:
    """One site's state."""
    return jax.tree.map(lambda x: x[place], states)


@functools.partial(jax.jit, static_argnames="patience")
def _keep_lower(
    best: PyTree, lowest: Any, since: Any, states: PyTree, each: PyTree, patience: int | None
) -> tuple[PyTree, Any, Any]:
    """Sites whose validation loss is lower than ever keep their present state; those without such rows, always.

    Args:
      best: [N, ...], the states kept.
      lowest: float[N], their losses.
      since: int32[N], rounds since then; a site at `patience` has ended and keeps what it has.
      states: [N, ...], as of this round.
      each: sums of the look, [N].
      patience: of the study.
    """
    rows = each["valid/rows"]
    loss = jnp.where(rows > 0, each["valid/loss"] / jnp.maximum(rows, 1), -jnp.inf)
    lower = (loss < lowest) | (rows == 0)
    if patience is not None:
        lower &= since < patience

    def one(old, new):
        return jnp.where(lower.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(one, best, states), jnp.where(lower, loss, lowest), jnp.where(lower, 0, since + 1)


def train_pooled(parts: Parts, sites: Mapping[str, SiteData], on_event: Observer) -> PyTree:
    """One model on all rows in one place; its best round by the study's target is kept, and patience ends it."""
    study, federated = parts.study, parts.references["pooled"]
    world = world_of(study.engine, {"pooled": merge(list(sites.values()))}, parts.dtype)
    weights = parts.init_weights(template_rows(world))
    make = program_over(study.engine, world)
    program = make(federated, trees.shapes(weights), world, parts.local, study=parts.number)
    server, states = federated.init(weights, jax.random.key(study.seed)), enrol_all(federated, weights, 1)
    history, best = History(parts), None
    for number in range(1, study.rounds + 1):
        outcome = program.round(server, states, number, np.zeros(1, np.int32))
        if history.look(values(outcome.metrics, parts.task.metrics)):
            best = server
        server, states = outcome.server, outcome.states
        history.add({})
        on_event(Event("reference", study.name, number, data={"name": "pooled", "rounds": study.rounds}))
        if history.over:
            break
    _, sums = program.look(federated.send(server), states, len(history.curve) + 1)
    last_is_best = history.look(values(sums, parts.task.metrics))
    # Without validation rows no round is better than another, and the last one is kept.
    kept = server if last_is_best or best is None else best
    return federated.model(federated.send(kept), federated.enrol(weights))


def train_without_each(parts: Parts, sites: Mapping[str, SiteData], world: World, on_event: Observer) -> list[PyTree]:
    """The study once more for each site, without that site: what the others alone would have given it.

    The inputs are those of the study, so their scales are of all sites' sums; no outcome of the site enters.

    Returns:
      Weights, in the world's order; where a site is the only one with rows to train on, those of the start.
    """
    study, found = parts.study, []
    for place, left_out in enumerate(world.names):
        others = {name: site for name, site in sites.items() if name != left_out}

        def told(event: Event, before: int = place * study.rounds) -> None:
            if event.kind == "round_closed":
                data = {"name": "all_but_me", "rounds": study.rounds * len(world.names)}
                on_event(Event("reference", study.name, before + (event.round or 0), data=data))

        fresh = parts.init_weights(template_rows(world))
        if any((site.split == TRAIN).any() for site in others.values()):
            trained, _ = simulate(parts, others, None, told)
            broadcast = parts.federated.send(trained.best)
            fresh = parts.federated.model(broadcast, parts.federated.enrol(fresh))
        found.append(fresh)
    return found


def merge(sites: Sequence[SiteData]) -> SiteData:
    """All rows in one place."""
    return SiteData(
        rows=jax.tree.map(lambda *parts: joined(parts), *[site.rows for site in sites]),
        split=np.concatenate([site.split for site in sites]),
        group=np.concatenate([site.group for site in sites]),
        cohorts={name: np.concatenate([site.cohorts[name] for site in sites]) for name in sites[0].cohorts},
        ways={
            name: Labels(way.levels, np.concatenate([site.ways[name].of for site in sites]))
            for name, way in sites[0].ways.items()
        },
    )


def judgeable(parts: Parts, sites: Mapping[str, SiteData]) -> bool:
    """Whether something can be said of the study's models on held-back rows, and there are any."""
    held = any((site.split == 2).any() for site in sites.values())
    return held and (parts.task.judging is not None or is_binary(parts, sites))


def compiled(model: Model) -> Any:
    """(weights, rows [n, ...]) -> the model's output, jitted."""
    return jax.jit(lambda weights, rows: model.apply(weights["params"], weights["stats"], rows, None, False)[0])


def predictor(parts: Parts) -> Callable[[PyTree, PyTree], Any]:
    """(weights, rows [n, ...]) -> the model's output, leaves [n, ...], in chunks of one shape."""
    run = compiled(parts.model)

    def predict(weights: PyTree, rows: PyTree) -> Any:
        def first(output: PyTree, count: int) -> PyTree:
            return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], output)

        outputs = [first(run(weights, chunk), count) for chunk, count in _chunks(rows)]
        if outputs:
            return jax.tree.map(lambda *leaves: np.concatenate(leaves), *outputs)
        one = jax.tree.map(lambda leaf: jnp.zeros((1, *np.shape(leaf)[1:]), leaf.dtype), rows)
        return jax.tree.map(lambda leaf: np.zeros((0, *leaf.shape[1:]), leaf.dtype), jax.eval_shape(run, weights, one))

    return predict


def slopes_along(parts: Parts, weights: PyTree, x: np.ndarray, steps: int) -> np.ndarray:
    """Mean gradient of each row's logit on the straight way from zeros to it, [n, inputs]; midpoint rule.

    Raises:
      DataError: the model gives more than one number a row.
    """
    model = parts.model

    def logit(one: Any) -> Any:
        output = model.apply(weights["params"], weights["stats"], {"x": one[None]}, None, False)[0]
        if output.size != 1:
            raise DataError(f"contributions: expected one logit a row, got {output.size}")
        return output.reshape(())

    @jax.jit
    def mean(rows: Any) -> Any:
        def add(total: Any, step: Any) -> Any:
            return total + jax.vmap(jax.grad(logit))(rows * (step + 0.5) / steps), None

        return jax.lax.scan(add, jnp.zeros_like(rows), jnp.arange(steps, dtype=rows.dtype))[0] / steps

    found = [np.asarray(mean(chunk))[:count] for chunk, count in _chunks(np.asarray(x, np.float32))]
    return np.concatenate(found) if found else np.zeros_like(x)


def _chunks(rows: PyTree) -> Iterator[tuple[PyTree, int]]:
    """(rows of one shape, how many of them are meant)."""
    total = len(jax.tree.leaves(rows)[0])
    for start in range(0, total, CHUNK):
        places = np.minimum(np.arange(start, start + CHUNK), total - 1)
        yield jax.tree.map(np.asarray, take_rows(rows, places)), min(CHUNK, total - start)


def take_rows(rows: PyTree, places: np.ndarray) -> PyTree:
    """The rows at these places, on the host; of columns those that are asked for when they are."""
    return jax.tree.map(lambda x: some_of(x, places), rows)


def chances(output: np.ndarray) -> np.ndarray:
    """The chance that a logit tells, float64 in [0, 1]."""
    return 1 / (1 + np.exp(-output.astype(np.float64)))


def is_binary(parts: Parts, sites: Mapping[str, SiteData]) -> bool:
    """Whether the study can be judged by ranking: AUROC is watched and outcomes are 0 or 1."""
    watched = {metric.name for metric in parts.task.metrics}
    return "auroc" in watched and all(np.isin(site.rows["y"], (0, 1)).all() for site in sites.values())


def judge(
    parts: Parts,
    sites: Mapping[str, SiteData],
    world: World,
    models: Mapping[str, Sequence[PyTree]],
    fitted: Mapping[str, Any] | None = None,
    moves: Mapping[str, Sequence[Any]] | None = None,
) -> dict[str, Any]:
    """The "evaluation" of a result: every model on the held-back rows of every site.

    Args:
      parts: the study.
      sites: name -> rows.
      world: its order counts for `models`.
      models: name -> each site's weights; "federated" first.
      fitted: to all sites' sums.
      moves: of each model, what its outputs are moved by at each site (`calibrate.moves`).
    """
    predict = predictor(parts)
    if parts.task.judging is not None:
        calibrating = parts.task.judging.calibrating
        held_rows = [take_rows(sites[name].rows, np.flatnonzero(sites[name].split == 2)) for name in world.names]
        told = {
            model: [predict(weights[place], {"x": rows["x"]}) for place, rows in enumerate(held_rows)]
            for model, weights in models.items()
        }
        if calibrating is not None and moves:
            told = {
                model: [calibrating.move(output, by) for output, by in zip(outputs, moves[model], strict=True)]
                for model, outputs in told.items()
            }
        abouts = {name: sites[name].about for name in world.names}
        return parts.task.judging.evaluate(told, held_rows, abouts, fitted or {}, parts.study.seed)
    scores: dict[str, list[np.ndarray]] = {name: [] for name in models}
    held = {name: np.flatnonzero(sites[name].split == 2) for name in world.names}
    for place, name in enumerate(world.names):
        rows = take_rows(sites[name].rows, held[name])
        for model, weights in models.items():
            scores[model].append(chances(predict(weights[place], rows)))

    def column(of):
        return np.concatenate([np.asarray(of(sites[name]))[held[name]] for name in world.names])

    return evaluate(
        {name: np.concatenate(parts_) for name, parts_ in scores.items()},
        column(lambda site: site.rows["y"]),
        column(lambda site: site.group),
        np.concatenate([np.repeat(name, len(held[name])) for name in world.names]),
        {cohort: column(lambda site, c=cohort: site.cohorts[c]) for cohort in sites[world.names[0]].cohorts} or None,
        parts.study.seed,
        ways={
            name: Labels(way.levels, column(lambda site, w=name: site.ways[w].of))
            for name, way in sites[world.names[0]].ways.items()
        },
    )
