"""What joins an algorithm with its wire: transformations on both sides, weights of 0, states that must not move."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learner_jax import aggregators, algorithms, trees
from learner_jax.engines.rounds import make_round
from learner_jax.federate import Site, Wire, federate
from learner_jax.types import Algorithm, Report, Session

WEIGHTS = {"params": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, "stats": {}}


def pencil():
    """Every site sends what it is told to: an algorithm without passes whose carry is (update, weight)."""
    return Algorithm(
        init=lambda weights, key: weights,
        enrol=lambda weights: jnp.int32(0),
        zero=trees.zeros_like,
        send=lambda server: server,
        passes=(),
        finish=lambda broadcast, site, carry: (Report(carry[0], carry[1], {"train/rows": carry[1]}), site + 1),
        apply=lambda server, update, total, round: trees.add(server, update),
        model=lambda broadcast, site: broadcast,
    )


def round_(number=1):
    return make_round(np.uint32(0), 0, np.int32(number), np.int32(2), np.int32(2))


def send(federated, site, update, weight):
    """(term, new site state) of one site."""
    zero = federated.zero(WEIGHTS)
    wire, site = federated.finish(
        WEIGHTS, site, (), (update, jnp.float32(weight)), Session(round_(), np.uint32(1), zero)
    )
    return federated.lift(wire, WEIGHTS), site


def like(value):
    return {"params": {"w": jnp.full((2, 3), value, jnp.float32)}, "stats": {}}


def test_updates_meet_by_weight():
    federated = federate(pencil())
    server, site = federated.init(WEIGHTS, jax.random.key(0)), federated.enrol(WEIGHTS)
    terms = [send(federated, site, like(value), weight) for value, weight in ((1, 3), (5, 1))]
    total = trees.add(terms[0][0], terms[1][0])
    after = federated.step(server, total, round_(), WEIGHTS)
    np.testing.assert_array_equal(after.learned["params"]["w"], WEIGHTS["params"]["w"] + 2)
    assert total.metrics["train/rows"] == 4
    assert terms[0][1].own == 1


def test_before_changes_each_update_and_keeps_a_state_a_site():
    clipped = federate(pencil(), before=optax.clip_by_global_norm(1.0))
    term, _ = send(clipped, clipped.enrol(WEIGHTS), like(5), 2)
    np.testing.assert_allclose(optax.tree.norm(term.update.sum) / 2, 1, rtol=1e-6)
    slow = federate(pencil(), before=optax.ema(0.5, debias=False))
    site = slow.enrol(WEIGHTS)
    other = site
    term, site = send(slow, site, like(4), 1)
    np.testing.assert_allclose(term.update.sum["params"]["w"], 2)
    term, site = send(slow, site, like(4), 1)
    np.testing.assert_allclose(term.update.sum["params"]["w"], 3)
    assert isinstance(site, Site)
    np.testing.assert_allclose(other.before.ema["params"]["w"], 0)


def test_after_changes_the_mean_and_keeps_its_state_with_the_servers():
    federated = federate(pencil(), after=optax.chain(optax.scale(0.5), optax.trace(1.0)))
    server = federated.init(WEIGHTS, jax.random.key(0))
    term, _ = send(federated, federated.enrol(WEIGHTS), like(4), 1)
    server = federated.step(server, term, round_(1), WEIGHTS)
    np.testing.assert_allclose(server.learned["params"]["w"], WEIGHTS["params"]["w"] + 2)
    server = federated.step(server, term, round_(2), WEIGHTS)
    np.testing.assert_allclose(server.learned["params"]["w"], WEIGHTS["params"]["w"] + 6)  # 2, then 2 + 2 of the trace


METHODS = {
    "fedavg": algorithms.fedavg,
    "fedadam": algorithms.fedadam,
    "fedyogi": algorithms.fedyogi,
    "fedadagrad": algorithms.fedadagrad,
    "fedavgm": algorithms.fedavgm,
    "fedprox": algorithms.fedprox,
    "scaffold": algorithms.scaffold,
}


def _loss(weights, batch):
    return jnp.float32(0), {}


@pytest.mark.parametrize("rule", [aggregators.mean(), aggregators.median()], ids=["mean", "median"])
@pytest.mark.parametrize("method", METHODS)
def test_a_round_that_nobody_takes_part_in_moves_nothing(method, rule):
    """Neither weights nor the state of a server optimizer with momentum, nor that of `after`."""
    federated = federate(METHODS[method](_loss), rule, after=optax.trace(0.9))
    rng = np.random.default_rng(0)
    server = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), federated.init(WEIGHTS, jax.random.key(0))
    )
    zero = federated.zero(WEIGHTS)
    weight = type(zero)(jnp.float32(0), jnp.float32(0)) if method == "scaffold" else jnp.float32(0)
    wire, _ = rule.encode(jax.tree.map(jnp.ones_like, zero), weight, (), Session(round_(), np.uint32(1), zero))
    stack = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], federated.lift(Wire(wire, {}), WEIGHTS))
    term = federated.reduce(stack, jnp.ones(1), server)
    after = federated.step(server, term, round_(), WEIGHTS)
    jax.tree.map(np.testing.assert_array_equal, after, server)


def test_metrics_add_over_those_who_are_there():
    federated = federate(pencil(), aggregators.median())
    server, site = federated.init(WEIGHTS, jax.random.key(0)), federated.enrol(WEIGHTS)
    stack = jax.tree.map(lambda *x: jnp.stack(x), *[send(federated, site, like(k), k)[0] for k in (1, 2, 4)])
    term = federated.reduce(stack, jnp.array([1.0, 0.0, 1.0]), server)
    assert term.metrics["train/rows"] == 5
    np.testing.assert_array_equal(term.update.sum["params"]["w"], np.full((2, 3), 2.5))
