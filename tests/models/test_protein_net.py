"""The network of proteins: quantiles in order, the site's shift, genes that stay sparse until the minibatch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from learner_jax import trees
from learner_jax.errors import ConfigError
from learner_jax.models import protein_net
from learner_jax.models.protein_net import spread
from learner_jax.tasks.proteins import padded
from tests.oracles import proteins as oracle

INPUTS, PROTEINS = 7, 3
DRAW = np.random.default_rng(0)
ROWS = {
    "x": jnp.asarray(DRAW.normal(size=(9, INPUTS)), jnp.float32),
    "y": {"value": jnp.zeros((9, PROTEINS)), "seen": jnp.ones((9, PROTEINS))},
}


def begin(model, rows=ROWS, scale=0.0, seed=0):
    """Weights at the start, or with noise of this scale on every leaf."""
    params, stats = model.init(jax.random.key(seed), rows)
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + scale * draw.normal(size=leaf.shape).astype(np.float32), params), stats


def told(model, weights, rows=ROWS, key=None, train=False):
    return model.apply(*weights, rows, key, train)[0]


@given(st.integers(0, 2**31), st.sampled_from([0.1, 1.0, 30.0]), st.sampled_from([(), (5,), (6, 4)]))
@settings(max_examples=30, deadline=None)
def test_quantiles_never_cross_whatever_the_weights(seed, scale, hidden):
    model = protein_net(hidden=hidden, dropout=0.0)
    out = told(model, begin(model, scale=scale, seed=seed))
    assert (out["low"] <= out["mid"]).all() and (out["mid"] <= out["high"]).all()
    assert out["mean"].shape == out["low"].shape == (9, PROTEINS)


def test_what_it_tells_is_what_a_loop_tells():
    model = protein_net(hidden=(5,), dropout=0.3, site=True)
    weights = begin(model, scale=1.0)
    out = told(model, weights)
    flat = {name: np.asarray(leaf, np.float64) for name, leaf in trees.named_leaves(weights[0]).items()}
    _, _, wanted = oracle.forward(flat, np.asarray(ROWS["x"], np.float64))
    np.testing.assert_allclose(out["mean"], wanted[:, 0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(out["mid"], wanted[:, 2], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(out["low"], wanted[:, 2] - oracle.softplus(wanted[:, 1]), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(out["high"], wanted[:, 2] + oracle.softplus(wanted[:, 3]), rtol=1e-4, atol=1e-4)


def test_a_sites_own_shift_is_0_at_the_start_and_a_site_that_took_no_part_is_the_average_one():
    with_it, without = protein_net(hidden=(5,), site=True), protein_net(hidden=(5,))
    (params, stats), (plain, none) = begin(with_it), begin(without)
    assert "shift" not in plain and (params["shift"]["own"] == 0).all()
    bare = {name: leaf for name, leaf in params.items() if name != "shift"}
    for name, value in told(without, (bare, none)).items():
        np.testing.assert_array_equal(told(with_it, (params, stats))[name], value)
    own = {**params, "shift": {"own": params["shift"]["own"] + 1}}
    assert np.abs(told(with_it, (own, stats))["mean"] - told(with_it, (params, stats))["mean"]).max() > 0.01
    assert "shift" not in begin(protein_net(hidden=(), site=True))[0]  # no hidden layer to shift


def test_the_last_axis_of_head_and_skip_is_the_proteins():
    params, _ = begin(protein_net(hidden=(5, 4), types=6, site=True))
    shapes = {name: leaf.shape for name, leaf in trees.named_leaves(params).items()}
    assert {name for name, shape in shapes.items() if shape[-1] == PROTEINS} == {
        "head/bias", "head/kernel", "skip/bias", "skip/kernel"
    }  # fmt: skip
    assert (params["skip"]["kernel"] == 0).all() and shapes["types/kernel"] == (4, 6)


def test_genes_as_they_are_counted_give_what_dense_rows_give():
    """Rows with no entry, a few, and as many as are kept; the filling points at gene 0 and adds nothing."""
    genes, kept = 11, 6
    dense = np.random.default_rng(3).integers(1, 9, (9, genes)) * (np.random.default_rng(4).random((9, genes)) < 0.4)
    dense[0], dense[1] = 0, 0
    dense[1, :kept] = 2
    dense[2, 0] = 5
    assert (dense > 0).sum(axis=1).max() <= kept
    x = padded(sparse.csr_matrix(dense.astype(np.float64)), kept)
    assert x["gene"].shape == x["value"].shape == (9, kept) and x["gene"].dtype == np.int32
    block = spread({name: jnp.asarray(part) for name, part in x.items()}, genes, jnp.float32)
    np.testing.assert_array_equal(block, dense)
    rows = {**ROWS, "x": {name: jnp.asarray(part) for name, part in x.items()}}
    whole = {**ROWS, "x": jnp.asarray(dense, jnp.float32)}
    model = protein_net(hidden=(5,), dropout=0.0, genes=genes)
    weights = begin(model, rows, scale=0.3)
    for name, value in told(model, weights, whole).items():
        np.testing.assert_allclose(told(model, weights, rows)[name], value, rtol=1e-6, atol=1e-6)


def test_of_a_cell_with_more_genes_than_are_kept_the_largest_are():
    x = padded(sparse.csr_matrix(np.array([[3.0, 1.0, 4.0, 1.0, 5.0], [0, 2, 0, 0, 0]])), 3)
    np.testing.assert_array_equal(x["gene"], [[0, 2, 4], [1, 0, 0]])
    np.testing.assert_array_equal(x["value"], [[3, 4, 5], [2, 0, 0]])


def test_dropout_is_of_training_alone_and_types_have_logits_of_their_own():
    model = protein_net(hidden=(64,), dropout=0.5, types=4)
    weights = begin(model)
    a, b = told(model, weights, key=jax.random.key(1), train=True), told(model, weights)
    assert np.abs(a["mean"] - b["mean"]).max() > 1e-3
    np.testing.assert_array_equal(told(model, weights)["mean"], b["mean"])
    assert b["types"].shape == (9, 4)
    assert "types" not in told(protein_net(), begin(protein_net()))


def test_genes_without_their_number_are_refused():
    rows = {**ROWS, "x": {"gene": jnp.zeros((2, 3), jnp.int32), "value": jnp.zeros((2, 3))}}
    with pytest.raises(ConfigError, match=r"model.genes: expected the number of genes .* got none"):
        protein_net().init(jax.random.key(0), rows)
