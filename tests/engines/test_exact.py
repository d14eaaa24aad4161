"""Products are rounded where they stand: a program that writes its result over an argument finds the same bits.

Reference: IEEE 754-2019, of a product and a sum each with a rounding of its own; NumPy computes them so.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learner_jax import algorithms, models, trees
from learner_jax.engines import rounds
from learner_jax.engines.exact import rounded, uncontracted
from learner_jax.engines.parts import objective
from learner_jax.engines.program import Plan, wire_shape
from learner_jax.engines.reducer import Reducer
from learner_jax.federate import federate
from learner_jax.specs import Spec
from tests.algorithms.studies import LOCAL, make_sites, start

SIZES = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 100, 1000)
ONE = np.int32(1)
MODEL = models.mlp(hidden=(8, 17))
LOSS = objective(MODEL, optax.sigmoid_binary_cross_entropy)
pytestmark = pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_a_product_is_rounded_before_it_is_added(size, times):
    """Of half of random numbers a fused multiply-add differs from NumPy's; also where it is rounded twice."""

    def step(weights, update, share, once):
        product = jnp.where(share > 0, update * share, 0)
        for _ in range(times):
            product = rounded(product, once - 1)
        return weights + product

    draw = np.random.default_rng(size)
    for donated in ((), (1,)):
        program = jax.jit(step, donate_argnums=donated)
        for _ in range(20):
            weights, update = draw.normal(size=(2, size)).astype(np.float32)
            share = np.float32(draw.uniform())
            found = program(weights, jnp.array(update), share, ONE)
            np.testing.assert_array_equal(found, weights + update * share)


def test_also_a_product_within_a_function_that_is_compiled_by_itself():
    inner = jax.jit(lambda update, share: jnp.where(share > 0, update * share, 0))

    def step(weights, update, share):
        return weights + jax.nn.silu(jnp.float32(0)) + inner(update, share)  # silu brings its own derivative along

    program = jax.jit(lambda *given: uncontracted(step, given[3] - 1)(*given[:3]), donate_argnums=(1,))
    draw = np.random.default_rng(0)
    for size in SIZES:
        weights, update = draw.normal(size=(2, size)).astype(np.float32)
        share = np.float32(draw.uniform())
        found = program(weights, jnp.array(update), share, ONE)
        np.testing.assert_array_equal(found, weights + update * share)


def test_what_a_function_does_is_as_it_was_but_for_the_roundings():
    def f(tree, number):
        moved = jax.nn.relu(jax.jit(lambda x: x * number + 1)(tree["a"]))
        kept = jax.lax.cond(number > 1, lambda x: x * 2, lambda x: x / 3, tree["b"])
        total = jax.lax.fori_loop(0, 3, lambda i, x: x * 0.5 + i, kept)
        return {"moved": moved, "total": total, "count": tree["n"] + 1, "flag": tree["n"] > 2, "same": tree["b"]}

    tree = {"a": jnp.arange(5.0), "b": jnp.ones((2, 3)), "n": jnp.int32(3)}
    one, other = f(tree, 2.5), jax.jit(lambda tree, n, once: uncontracted(f, once - 1)(tree, n))(tree, 2.5, ONE)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), one, other)
    assert trees.shapes(one) == trees.shapes(other)


FEDERATED = {
    "fedavg": federate(algorithms.fedavg(LOSS)),
    "fedadam": federate(algorithms.fedavg(LOSS, server_lr=0.01, server="adam")),
    "fedavgm": federate(algorithms.fedavg(LOSS, server_lr=0.7, server=Spec("optimizers", "sgd", {"momentum": 0.9}))),
    "scaffold": federate(algorithms.scaffold(LOSS)),
    "clipped": federate(algorithms.scaffold(LOSS), after=optax.clip_by_global_norm(0.3)),
}


@pytest.mark.parametrize("method", FEDERATED)
def test_a_coordinators_step_is_the_simulators_to_the_bit(method):
    """It writes the new state over the sum; a simulator's step is a branch in the middle of a round."""
    federated, draw = FEDERATED[method], np.random.default_rng(0)
    study = start(federated, make_sites(), Plan(), LOCAL, MODEL)
    template = trees.shapes(study.weights)
    wire = wire_shape(federated, template, jax.tree.map(lambda column: column[:2], study.world.rows), LOCAL)
    reducer = Reducer(federated, template, wire, 7, 1, enrolled=9, size=6)

    def simulated(server, term, number, cohort, once):
        round = rounds.make_round(np.uint32(7), 1, number, cohort, np.int32(9))
        return rounds.server_step(federated, template, server, term, round, once)

    simulated, server, theirs = jax.jit(simulated), study.server, jax.tree.map(jnp.copy, study.server)
    for number in range(1, 31):
        wires = [jax.tree.map(lambda x: draw.normal(1, 0.3, x.shape).astype(x.dtype), wire) for _ in range(5)]
        term = reducer._sum(iter(wires), itertools.repeat(1.0))
        theirs, _, digest = simulated(theirs, term, np.int32(number), np.int32(6), ONE)
        server, _, ours = reducer(server, iter(wires), 5, number, 6)
        assert trees.digest_hex(ours) == trees.digest_hex(digest), f"round {number}"
