"""The watched metrics: against scikit-learn, inside jit, vmap and while loops, in both floats, and never NaN."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from learner_jax.evaluation import metrics
from learner_jax.evaluation.metrics import BINS, LIMIT, accuracy, auprc, auroc, brier, log_loss, mse, standard_error

BINARY = [auroc, auprc, brier, log_loss, accuracy]


def rows(seed, n, share=0.3, spread=2.0):
    """Synthetic logits and outcomes that have to do with each other."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < share).astype(np.float32)
    return (rng.normal(size=n) * spread + y).astype(np.float32), y


def fold(metric, z, y, mask=None, size=64):
    """Sums of a metric over batches with a padded tail, the padding full of NaN."""
    mask = np.ones(len(y), bool) if mask is None else mask
    extra = -len(y) % size
    z = np.concatenate([z, np.full((extra, *z.shape[1:]), np.nan, z.dtype)])
    y, mask = np.concatenate([y, np.zeros(extra, y.dtype)]), np.concatenate([mask, np.zeros(extra, bool)])
    step, carry = jax.jit(metric.step), metric.zero()
    for at in range(0, len(y), size):
        carry = step(carry, z[at : at + size], y[at : at + size], mask[at : at + size])
    return jax.jit(metric.release)(carry)


def binned(z):
    return np.clip(np.floor((np.clip(z, -LIMIT, LIMIT) + LIMIT) * (BINS / (2 * LIMIT))), 0, BINS - 1)


@given(st.integers(0, 2**32 - 1), st.integers(40, 400), st.floats(0.3, 0.7))
@settings(max_examples=25, deadline=None)
def test_one_site_against_scikit_learn(seed, n, share):
    z, y = rows(seed, n, share)
    if min(y.sum(), n - y.sum()) < 10:
        return
    p = 1 / (1 + np.exp(-z.astype(np.float64)))
    assert auroc.value(fold(auroc, z, y)) == pytest.approx(sk.roc_auc_score(y, binned(z)), rel=2e-5)
    # bins can turn no more than half of the pairs that share one
    ties = (binned(z[y > 0])[:, None] == binned(z[y == 0])[None, :]).mean() / 2
    assert ties < 0.02 and abs(auroc.value(fold(auroc, z, y)) - sk.roc_auc_score(y, z)) <= ties + 1e-5
    assert auprc.value(fold(auprc, z, y)) == pytest.approx(sk.average_precision_score(y, binned(z)), rel=2e-5)
    assert brier.value(fold(brier, z, y)) == pytest.approx(sk.brier_score_loss(y, p), rel=2e-5)
    assert log_loss.value(fold(log_loss, z, y)) == pytest.approx(sk.log_loss(y, p), rel=2e-5)
    assert accuracy.value(fold(accuracy, z, y)) == pytest.approx(sk.accuracy_score(y, z > 0), rel=2e-5)


def test_masked_rows_do_not_count():
    z, y = rows(1, 300)
    mask = np.random.default_rng(2).random(300) < 0.6
    for metric in BINARY:
        whole, kept = fold(metric, z, y, mask), fold(metric, z[mask], y[mask])
        assert metric.value(whole) == pytest.approx(metric.value(kept), rel=1e-5), metric.name


@pytest.mark.parametrize("metric", BINARY, ids=lambda m: m.name)
def test_inside_vmap_and_while_loop(metric):
    z, y = (np.stack(part) for part in zip(*(rows(seed, 256) for seed in range(3)), strict=True))
    mask = np.arange(256) < 250

    def site(z, y):
        def body(state):
            at, carry = state
            cut = lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, at * 64, 64)  # noqa: E731
            return at + 1, metric.step(carry, cut(z), cut(y), cut(jnp.asarray(mask)))

        return metric.release(jax.lax.while_loop(lambda state: state[0] < 4, body, (0, metric.zero()))[1])

    together = jax.jit(jax.vmap(site))(z, y)
    for at in range(3):
        alone = fold(metric, z[at], y[at], mask)
        for name, leaf in alone.items():
            np.testing.assert_allclose(together[name][at], leaf, rtol=1e-5)


@pytest.mark.parametrize("metric", [*BINARY, mse], ids=lambda m: m.name)
def test_both_floats_and_dtypes_that_stay(metric):
    z, y = rows(3, 128)
    with jax.enable_x64(True):
        wide = fold(metric, z.astype(np.float64), y.astype(np.float64))
        carry = metric.zero()
        after = metric.step(carry, jnp.asarray(z), jnp.asarray(y), jnp.ones(128, bool))
        assert jax.tree.map(lambda a: a.dtype, carry) == jax.tree.map(lambda a: a.dtype, after)
        assert {leaf.dtype for leaf in jax.tree.leaves(wide)} == {np.dtype("float64")}
    narrow = fold(metric, z, y)
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow)} == {np.dtype("float32")}
    assert metric.value(narrow) == pytest.approx(metric.value(wide), rel=1e-5)


@pytest.mark.parametrize("metric", [auroc, auprc], ids=lambda m: m.name)
@pytest.mark.parametrize(("events", "others"), [(9, 500), (500, 9), (0, 50), (50, 0), (0, 0)])
def test_too_few_to_judge_releases_zeros(metric, events, others):
    y = np.r_[np.ones(events), np.zeros(others)].astype(np.float32)
    sums = fold(metric, np.linspace(-1, 1, len(y)).astype(np.float32), y)
    assert all(float(leaf) == 0.0 for leaf in sums.values())
    assert np.isnan(metric.value(sums))


def test_ten_and_ten_are_enough():
    y = np.r_[np.ones(10), np.zeros(10)].astype(np.float32)
    sums = fold(auroc, y * 4 - 2, y)
    assert auroc.value(sums) == pytest.approx(1.0)
    assert 0.01 < standard_error(sums) < 0.2  # perfect by luck is not infinitely sure


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_diverged_model_looks_bad_and_stays_finite(bad):
    y = np.r_[np.ones(20), np.zeros(20)].astype(np.float32)
    z = np.full(40, bad, np.float32)
    for metric in [*BINARY, mse]:
        sums = fold(metric, z, y)
        assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(sums)), metric.name
    assert auroc.value(fold(auroc, z, y)) == pytest.approx(0.5)
    assert brier.value(fold(brier, z, y)) >= 0.5
    assert log_loss.value(fold(log_loss, z, y)) >= 50


def test_average_over_sites_weighs_by_certainty():
    sites = [fold(auroc, *rows(seed, n)) for seed, n in ((1, 100), (2, 1000), (3, 5000))]
    total = jax.tree.map(lambda *leaves: sum(leaves), *sites)
    weights = [1 / standard_error(sums) ** 2 for sums in sites]
    assert auroc.value(total) == pytest.approx(np.average([auroc.value(s) for s in sites], weights=weights), rel=1e-5)
    assert standard_error(total) < min(standard_error(sums) for sums in sites)


def test_standard_error_is_that_of_many_draws():
    areas, errors = [], []
    for seed in range(200):
        sums = fold(auroc, *rows(seed, 320), size=320)
        areas.append(auroc.value(sums))
        errors.append(standard_error(sums))
    assert np.mean(errors) == pytest.approx(np.std(areas), rel=0.2)


def test_classes_and_numbers():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(90, 4)).astype(np.float32), rng.integers(0, 4, 90)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    assert accuracy.value(fold(accuracy, z, y)) == pytest.approx(sk.accuracy_score(y, z.argmax(1)))
    assert log_loss.value(fold(log_loss, z, y)) == pytest.approx(sk.log_loss(y, p), rel=1e-5)
    target = rng.normal(size=90).astype(np.float32)
    assert mse.value(fold(mse, z[:, 0], target)) == pytest.approx(sk.mean_squared_error(target, z[:, 0]), rel=1e-5)


def test_which_way_is_up():
    assert [m.higher_is_better for m in (*BINARY, mse)] == [True, True, False, False, True, False]
    assert metrics.ENOUGH == 10
