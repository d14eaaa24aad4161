"""Flax modules as pure functions: NNX and Linen, batch norm, dropout."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from learner_jax import algorithms, trees
from learner_jax.engines.parts import objective
from learner_jax.engines.program import Program, wire_shape
from learner_jax.engines.reducer import Reducer
from learner_jax.engines.world import build_world
from learner_jax.errors import ConfigError
from learner_jax.federate import federate
from learner_jax.models import from_flax, logistic, mlp
from learner_jax.types import Batch
from tests.algorithms.studies import LOCAL, WIDTH, make_sites, start

ROWS = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(8, WIDTH)), jnp.float32), "y": jnp.zeros(8)}


class Normed(nnx.Module):
    """A batch norm between two layers; told which rows are there."""

    def __init__(self, width, rngs):
        self.a, self.norm = nnx.Linear(width, 4, rngs=rngs), nnx.BatchNorm(4, momentum=0.8, rngs=rngs)
        self.b = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x, mask=None):
        mask = None if mask is None else mask[:, None]
        return self.b(nnx.relu(self.norm(self.a(x), mask=mask)))[:, 0]


class LinenNormed(linen.Module):
    @linen.compact
    def __call__(self, x, train, mask=None):
        mask = None if mask is None else mask[:, None]
        x = linen.BatchNorm(use_running_average=not train, momentum=0.8)(linen.Dense(4)(x), mask=mask)
        return linen.Dense(1)(linen.relu(x))[:, 0]


class LinenDropout(linen.Module):
    @linen.compact
    def __call__(self, x, deterministic):
        return linen.Dense(1)(linen.Dropout(0.5, deterministic=deterministic)(linen.Dense(16)(x)))[:, 0]


NORMED = {"nnx": from_flax(lambda rngs, rows: Normed(rows["x"].shape[1], rngs)), "linen": from_flax(LinenNormed())}


def test_widths_come_from_the_rows_and_one_output_is_a_logit():
    params, stats = mlp(hidden=(3,)).init(jax.random.key(0), ROWS)
    assert trees.names(params) == ["dense/0/bias", "dense/0/kernel", "dense/1/bias", "dense/1/kernel"]
    assert params["dense"][0]["kernel"].shape == (WIDTH, 3)
    assert stats == {}
    assert mlp(hidden=(3,)).apply(params, stats, ROWS, None, False)[0].shape == (8,)
    model = logistic(outputs=3)
    params, stats = model.init(jax.random.key(0), ROWS)
    output, _ = model.apply(params, stats, ROWS, None, False)
    np.testing.assert_allclose(
        output, ROWS["x"] @ params["dense"][0]["kernel"] + params["dense"][0]["bias"], rtol=1e-5, atol=1e-6
    )


def test_dropout_is_keyed_by_the_batch_and_off_outside_training():
    for model in (mlp(hidden=(16,), dropout=0.5), from_flax(LinenDropout())):
        params, stats = model.init(jax.random.key(0), ROWS)

        def run(key, train, model=model, params=params, stats=stats):
            return np.asarray(model.apply(params, stats, ROWS, key, train)[0])

        one, other = jax.random.key(1), jax.random.key(2)
        np.testing.assert_array_equal(run(one, True), run(one, True))
        assert (run(one, True) != run(other, True)).any()
        np.testing.assert_array_equal(run(one, False), run(None, False))


class Own(nnx.Module):
    """Dropout as Flax's own pages write it: the layer has the random stream."""

    def __init__(self, rngs):
        self.dense, self.drop = nnx.Linear(WIDTH, 16, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.drop(self.dense(x)).sum(-1)


@pytest.mark.parametrize("module", [Own(nnx.Rngs(0)), lambda rngs, rows: Own(rngs)], ids=["instance", "function"])
def test_a_modules_own_random_streams_are_keyed_by_the_batch_and_never_enter_the_weights(module):
    model = from_flax(module)
    params, stats = model.init(jax.random.key(0), ROWS)
    assert trees.names(params) == ["dense/bias", "dense/kernel"]
    assert stats == {}

    def run(key, train):
        return np.asarray(model.apply(params, stats, ROWS, key, train)[0])

    one, other = jax.random.key(1), jax.random.key(2)
    np.testing.assert_array_equal(run(one, True), run(one, True))
    assert (run(one, True) != run(other, True)).any()
    np.testing.assert_array_equal(run(one, False), run(None, False))


def test_other_kinds_of_variables_are_refused_in_one_line():
    class Remembers(nnx.Module):
        def __init__(self, rngs):
            self.dense, self.seen = nnx.Linear(WIDTH, 1, rngs=rngs), nnx.Cache(jnp.zeros(3))

    with pytest.raises(ConfigError, match="expected model: variables of kind Param and BatchStat, got Cache"):
        from_flax(Remembers(nnx.Rngs(0))).init(jax.random.key(0), ROWS)


def test_a_module_that_is_there_already_starts_from_its_values_and_is_left_alone():
    module = nnx.Linear(WIDTH, 1, rngs=nnx.Rngs(5))
    before = np.asarray(module.kernel[...])
    model = from_flax(module)
    params, stats = model.init(jax.random.key(0), ROWS)
    np.testing.assert_array_equal(params["kernel"], before)
    moved = jax.tree.map(lambda leaf: leaf + 1, params)
    assert (np.asarray(model.apply(moved, stats, ROWS, None, True)[0]) != np.asarray(module(ROWS["x"]))).all()
    np.testing.assert_array_equal(module.kernel[...], before)


def test_apply_needs_no_init_before_it():
    """A loaded model: weights from a file, in a process that never initialised the module."""
    params, stats = NORMED["nnx"].init(jax.random.key(0), ROWS)
    fresh = from_flax(lambda rngs, rows: Normed(rows["x"].shape[1], rngs))
    np.testing.assert_array_equal(
        fresh.apply(params, stats, ROWS, None, False)[0], NORMED["nnx"].apply(params, stats, ROWS, None, False)[0]
    )


def test_what_is_no_module_is_refused():
    with pytest.raises(ConfigError, match=r"expected model: a Flax module, .* got int"):
        from_flax(3)


@pytest.mark.parametrize("kind", NORMED)
def test_padding_is_no_part_of_the_statistics(kind):
    """One step over 3 rows of a batch of 8 renews mean and variance as 3 rows alone do."""
    model = NORMED[kind]
    loss = objective(model, optax.sigmoid_binary_cross_entropy)
    params, stats = model.init(jax.random.key(0), ROWS)
    weights = {"params": params, "stats": stats}
    three = jax.tree.map(lambda leaf: leaf[:3], ROWS)
    value, kept = loss(weights, Batch(three, jnp.ones(3, bool), jax.random.key(1), jnp.int32(0)))
    padded, kept_too = loss(weights, Batch(ROWS, jnp.arange(8) < 3, jax.random.key(1), jnp.int32(0)))
    np.testing.assert_allclose(value, padded, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), kept, kept_too)


@pytest.mark.parametrize("kind", NORMED)
def test_statistics_are_averaged_like_weights_and_workers_find_the_same(kind):
    """After a round of all sites every leaf is the mean of what each site alone ends with, weighted by rows."""
    sites, model = make_sites((13, 40, 3), 2), NORMED[kind]
    federated = federate(algorithms.fedavg(objective(model, optax.sigmoid_binary_cross_entropy)))
    study = start(federated, sites, local=LOCAL, model=model)
    names = range(len(study.world.names))

    def after(cohort):
        states = jax.tree.map(jnp.copy, study.states)
        return study.program.round(study.server, states, 1, np.array(cohort, np.int32))

    rows = [len(places) for places in study.world.train]
    together, alone = after(names), [after([k]).server.learned.weights for k in names]
    mean = jax.tree.map(lambda *x: sum(n * leaf for n, leaf in zip(rows, x, strict=True)) / sum(rows), *alone)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), together.server.learned.weights, mean)
    moved = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), mean["stats"], study.weights["stats"])
    assert min(jax.tree.leaves(moved)) > 1e-3
    # ---- and the wires of workers, whose padding is another row than the simulator's
    template = trees.shapes(study.weights)
    wire = wire_shape(federated, template, trees.shapes(study.world.rows), LOCAL)
    reducer, wires = Reducer(federated, template, wire, 0, LOCAL.seed, 3, 3), []
    for name in study.world.names:
        worker = Program(federated, template, build_world({name: sites[name]}), LOCAL, size=1, enrolled=3)
        wires.append(worker.local_round(study.weights, federated.enrol(study.weights), 1, 3)[0])
    _, _, digest = reducer(study.server, wires, 3, 1, 3)
    assert trees.digest_hex(digest) == trees.digest_hex(together.digest)
