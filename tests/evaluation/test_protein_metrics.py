"""What is watched in each round of a study of proteins: against scipy, over batches with a padded tail and masks."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr

from learner_jax.evaluation.protein_metrics import ENOUGH, correlations, coverage, pearson, rmse

P = 4
METRICS = (pearson(P), rmse, coverage)


def cells(seed, n, share=0.7):
    """(output, target) of n cells; a value that was not measured is far off, and must not count."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n, P))
    mean = y * 0.5 + rng.normal(size=(n, P))
    half = rng.uniform(0.1, 2.0, (n, P))
    seen = (rng.random((n, P)) < share).astype(np.float32)
    value = np.where(seen > 0, y, 1e6)
    return {"mean": mean, "low": mean - half, "high": mean + half}, {"value": value, "seen": seen}


def fold(metric, output, target, mask=None, size=32):
    """Sums of a metric over batches with a padded tail, the padding full of nan."""
    n = len(target["seen"])
    mask = np.ones(n, bool) if mask is None else mask
    extra = -n % size

    def longer(leaf):
        return np.concatenate([leaf, np.full((extra, *leaf.shape[1:]), np.nan, leaf.dtype)])

    output, target = jax.tree.map(longer, (output, target))
    mask = np.concatenate([mask, np.zeros(extra, bool)])
    step, carry = jax.jit(metric.step), metric.zero()
    for at in range(0, n, size):
        batch = jax.tree.map(lambda leaf, at=at: leaf[at : at + size], (output, target, mask))
        carry = step(carry, *batch)
    return jax.jit(metric.release)(carry)


@given(st.integers(0, 2**32 - 1), st.integers(60, 200))
@settings(max_examples=20, deadline=None)
def test_over_batches_it_is_scipys_and_numpys(seed, n):
    output, target = cells(seed, n)
    seen = target["seen"] > 0
    with jax.enable_x64(True):
        found = [metric.value(fold(metric, output, target)) for metric in METRICS]
    r = [pearsonr(target["value"][seen[:, c], c], output["mean"][seen[:, c], c])[0] for c in range(P)]
    assert found[0] == pytest.approx(np.mean(np.array(r, np.float64)), rel=1e-9)
    away = (output["mean"] - target["value"])[seen]
    assert found[1] == pytest.approx(np.sqrt(np.mean(away**2)), rel=1e-9)
    inside = (target["value"] >= output["low"]) & (target["value"] <= output["high"])
    assert found[2] == pytest.approx(inside[seen].mean(), rel=1e-9)


def test_sites_sums_add_to_those_of_all_cells_and_masked_cells_do_not_count():
    output, target = cells(1, 300)
    part = np.random.default_rng(2).random(300) < 0.4
    with jax.enable_x64(True):
        for metric in METRICS:
            whole = fold(metric, output, target)
            two = jax.tree.map(
                lambda a, b: a + b, fold(metric, output, target, part), fold(metric, output, target, ~part)
            )
            for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(two), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-12)


def test_single_precision_is_enough_for_targets_of_deviation_1():
    output, target = cells(3, 2000)
    with jax.enable_x64(True):
        exact = [metric.value(fold(metric, output, target)) for metric in METRICS]
    small = jax.tree.map(lambda leaf: leaf.astype(np.float32), (output, target))
    assert [metric.value(fold(metric, *small)) for metric in METRICS] == pytest.approx(exact, abs=1e-5)


def test_a_protein_with_few_cells_or_no_spread_has_no_r_and_none_at_all_is_not_a_number():
    output, target = cells(4, 60, share=1.0)
    target["seen"][ENOUGH - 1 :, 0] = 0  # one cell too few
    output["mean"][:, 1] = 0.25  # the same for all cells
    with jax.enable_x64(True):
        metric = pearson(P)
        sums = fold(metric, output, target)
        r = correlations(np.asarray(sums, np.float64))
        assert np.isnan(r).tolist() == [True, True, False, False]
        assert metric.value(sums) == pytest.approx(np.mean(r[2:]))
        target["seen"][:] = 0
        assert all(np.isnan(one.value(fold(one, output, target))) for one in METRICS)


def test_an_output_that_is_no_number_leaves_sums_that_are():
    output, target = cells(5, 60)
    output["mean"][3], output["mean"][4] = np.nan, np.inf
    for metric in METRICS:
        for leaf in jax.tree.leaves(fold(metric, output, target)):
            assert np.isfinite(leaf).all()


def test_more_is_better_but_of_the_error():
    assert [metric.higher_is_better for metric in METRICS] == [True, False, True]
