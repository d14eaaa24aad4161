"""What joins an algorithm with its wire: transformations on both sides, weights of 0, states that must not move."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learner_jax import aggregators, algorithms, trees
from learner_jax.engines.rounds import make_round
from learner_jax.errors import StudyError
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


def nearest_bfloat16(values: np.ndarray) -> np.ndarray:
    """To the nearest bfloat16, ties to even, by the bits of float32."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def test_on_a_wire_of_bfloat16_each_number_is_rounded_and_sums_are_not():
    rng = np.random.default_rng(0)
    federated = federate(pencil(), wire="bfloat16")
    site, updates = federated.enrol(WEIGHTS), rng.normal(size=(3, 2, 3)).astype(np.float32)

    @jax.jit
    def both(update, weight):  # in one program, where XLA would drop a conversion there and back
        zero = federated.zero(WEIGHTS)
        carry = {"params": {"w": update}, "stats": {}}, weight
        wire, _ = federated.finish(WEIGHTS, site, (), carry, Session(round_(), np.uint32(1), zero))
        return wire, federated.lift(wire, WEIGHTS)

    weights = np.array([3.0, 1.0, 1000.5], np.float32)
    sent = [both(update, weight) for update, weight in zip(updates, weights, strict=True)]
    for (wire, term), update, weight in zip(sent, updates, weights, strict=True):
        expected = nearest_bfloat16(update * weight)
        assert wire.update.sum["params"]["w"].dtype == jnp.bfloat16 and wire.update.weight.dtype == jnp.float32
        np.testing.assert_array_equal(term.update.sum["params"]["w"], expected)
        assert term.update.weight == weight and term.metrics["train/rows"] == weight
    total = trees.add(trees.add(sent[0][1], sent[1][1]), sent[2][1])
    rounded = nearest_bfloat16(updates * weights[:, None, None])
    np.testing.assert_array_equal(total.update.sum["params"]["w"], (rounded[0] + rounded[1]) + rounded[2])
    server = federated.init({"params": {"w": updates[0]}, "stats": {}}, jax.random.key(0))
    seen = jax.jit(lambda server: federated.receive(federated.send(server)))(server)
    np.testing.assert_array_equal(seen["params"]["w"], nearest_bfloat16(updates[0]))
    np.testing.assert_array_equal(server.learned["params"]["w"], updates[0])


def test_weights_of_bfloat16_are_not_rounded_again():
    weights = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), WEIGHTS)
    with pytest.raises(StudyError, match="wire: expected weights of float32 for wire='bfloat16', got some of bfloat16"):
        federate(pencil(), wire="bfloat16").init(weights, jax.random.key(0))
