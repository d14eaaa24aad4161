"""Small skewed studies that many tests run: sites, the batches that the package draws, rounds one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from learner_jax import models, trees
from learner_jax.data import plans
from learner_jax.data.sites import SiteData
from learner_jax.engines.parts import objective
from learner_jax.engines.program import Plan, Program, enrol_all
from learner_jax.engines.world import Local, World, build_world
from learner_jax.federate import Federated

SIZES = (1, 3, 17, 40, 64, 9, 0)  # training rows; the last site has validation rows only
WIDTH = 5
LOCAL = Local(batch_size=8, epochs=2, steps=None, seed=11)
MODEL = models.mlp(hidden=(6,))
LOSS = objective(MODEL, optax.sigmoid_binary_cross_entropy)


def make_sites(sizes: Sequence[int] = SIZES, valid: int | Sequence[int] = 2, seed: int = 0) -> dict[str, SiteData]:
    """Sites whose inputs and outcomes differ from one another."""
    draw = np.random.default_rng(seed)
    truth, sites = draw.normal(size=WIDTH), {}
    for k, (rows, held) in enumerate(zip(sizes, np.broadcast_to(valid, len(sizes)), strict=True)):
        n = rows + int(held)
        x = draw.normal(loc=0.3 * (k % 5), size=(n, WIDTH)).astype(np.float32)
        y = (x @ (truth + draw.normal(size=WIDTH)) + draw.normal(size=n) > 0.2 * k).astype(np.float32)
        split = np.r_[np.zeros(rows), np.ones(held)].astype(np.int8)[draw.permutation(n)]
        sites[f"site-{k}"] = SiteData({"x": x, "y": y}, split, np.arange(n, dtype=np.int64), {})
    return sites


def cohorts(world: World, rounds: int, seed: int = 5, smallest: int = 1) -> list[np.ndarray]:
    """A cohort of another size in each round: places, ascending."""
    draw, n = np.random.default_rng(seed), len(world.names)
    return [
        np.sort(draw.choice(n, draw.integers(smallest, n + 1), replace=False)).astype(np.int32) for _ in range(rounds)
    ]


def batches(
    world: World, local: Local, asked: Sequence[np.ndarray], pass_number: int = 1
) -> list[dict[int, np.ndarray]]:
    """What an oracle is given: the plan of one pass of each site in each round."""
    return [
        {
            int(place): plans.train_plan(
                world.train[place], local.batch_size, local.epochs, local.steps,
                plans.generator(local.seed, int(world.ids[place]), number, pass_number),
            )
            for place in cohort
        }
        for number, cohort in enumerate(asked, 1)
    ]  # fmt: skip


class Study(NamedTuple):
    """A program at its start."""

    federated: Federated
    weights: Any
    world: World
    program: Program
    server: Any
    states: Any


def start(
    federated: Federated, sites=None, plan: Plan = Plan(), local: Local = LOCAL, model=MODEL, size: int | None = None
) -> Study:
    """Built in the precision that is switched on."""
    float_ = jax.dtypes.canonicalize_dtype(float)
    world = build_world(make_sites() if sites is None else sites, float_)
    params, stats = model.init(jax.random.key(3), jax.tree.map(lambda column: column[:2], world.rows))
    weights = jax.tree.map(lambda leaf: leaf.astype(float_), {"params": params, "stats": stats})
    program = Program(federated, trees.shapes(weights), world, local, plan, size)
    server = program.place(federated.init(weights, jax.random.key(3)))
    return Study(
        federated, weights, world, program, server, program.place(enrol_all(federated, weights, len(world.names)))
    )


def rounds_of(study: Study, asked: Sequence[np.ndarray]) -> Iterator[Any]:
    """Each round's Outcome."""
    server, states = study.server, jax.tree.map(jax.numpy.copy, study.states)
    for number, cohort in enumerate(asked, 1):
        outcome = study.program.round(server, states, number, cohort)
        server, states = outcome.server, jax.tree.map(jax.numpy.copy, outcome.states)
        yield outcome


def learned(study: Study, server: Any) -> dict[str, np.ndarray]:
    """The weights that a server state stands for, by the oracles' names."""
    return flat(study.federated.model(study.federated.send(server), study.federated.enrol(study.weights)))


def flat(weights: Any) -> dict[str, np.ndarray]:
    """Weights as the oracles name them: "0/kernel"."""
    return {name.removeprefix("params/dense/"): leaf for name, leaf in trees.named_leaves(weights).items()}


def furthest(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """Largest absolute difference."""
    assert ours.keys() == theirs.keys()
    return max(float(np.max(np.abs(ours[name] - theirs[name]))) for name in ours)
