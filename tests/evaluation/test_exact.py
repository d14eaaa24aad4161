"""Exact figures against scikit-learn and a count of pairs: with ties, with weights, many weights at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu
from sklearn import metrics as sk

from learner_jax.evaluation.exact import auprc, auroc, brier, rank, ranked


@st.composite
def judged(draw):
    n = draw(st.integers(2, 60))
    y = np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    y[:2] = [0, 1]
    levels = draw(st.sampled_from([2, 5, 1000]))  # few levels: many ties
    score = np.array(draw(st.lists(st.integers(0, levels), min_size=n, max_size=n))) / levels
    weight = np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), float)
    return y, score, weight


@given(judged())
@settings(max_examples=150, deadline=None)
def test_against_scikit_learn_and_a_count_of_pairs(case):
    y, score, weight = case
    assert auroc(y, score) == pytest.approx(sk.roc_auc_score(y, score), abs=1e-12)
    assert auprc(y, score) == pytest.approx(sk.average_precision_score(y, score), abs=1e-12)
    assert brier(y, score) == pytest.approx(sk.brier_score_loss(y, score), abs=1e-12)
    pairs = np.sign(score[y == 1][:, None] - score[y == 0][None, :])
    assert auroc(y, score) == pytest.approx((pairs + 1).mean() / 2, abs=1e-12)
    u = mannwhitneyu(score[y == 1], score[y == 0], method="asymptotic").statistic
    assert auroc(y, score) == pytest.approx(u / (y.sum() * (1 - y).sum()), abs=1e-12)
    # A whole weight is as many rows.
    if weight[y == 1].sum() and weight[y == 0].sum():
        copies = np.repeat(np.arange(len(y)), weight.astype(int))
        assert auroc(y, score, weight) == pytest.approx(sk.roc_auc_score(y[copies], score[copies]), abs=1e-12)
        assert auprc(y, score, weight) == pytest.approx(sk.average_precision_score(y[copies], score[copies]), abs=1e-12)
        assert brier(y, score, weight) == pytest.approx(sk.brier_score_loss(y[copies], score[copies]), abs=1e-12)


@pytest.mark.parametrize("figure", [auroc, auprc, brier])
def test_many_weights_at_once_equal_one_by_one(figure):
    rng = np.random.default_rng(0)
    y, score = rng.integers(0, 2, 80), rng.integers(0, 9, 80) / 9
    weights = rng.poisson(1, size=(7, 80))
    np.testing.assert_allclose(figure(y, score, weights), [figure(y, score, w) for w in weights], rtol=1e-14)


def test_float32_counts_are_enough():
    rng = np.random.default_rng(1)
    y, score = (rng.random(50_000) < 0.1).astype(int), rng.random(50_000)
    ranking = rank(y, score)
    counts = rng.poisson(1, size=(50_000, 3))[ranking.order]
    narrow, wide = ranked(ranking, counts.astype(np.float32)), ranked(ranking, counts.astype(np.float64))
    for name in ("auroc", "auprc"):
        np.testing.assert_allclose(narrow[name], wide[name], rtol=1e-13)


def test_nothing_to_judge_is_nan_without_a_warning():
    assert np.isnan(auroc([0, 0], [0.1, 0.2]))
    assert np.isnan(auroc([1, 1], [0.1, 0.2]))
    assert np.isnan(auprc([0, 0], [0.1, 0.2]))
    assert all(np.isnan(figure([], [])) for figure in (auroc, auprc, brier))
    assert np.isnan(auroc([0, 1], [0.1, 0.2], [[0, 1], [1, 1]])).tolist() == [True, False]
