"""Sums of histograms against scikit-learn on the pooled rows: within the bound that is told, exact at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

from learner_jax.errors import DataError
from learner_jax.evaluation import histograms
from tests.oracles.ranking import net_benefit

THRESHOLDS = (0.05, 0.1, 0.2)


def world(seed: int, sites: int = 3, rows: int = 500, ties: bool = False):
    """Sites as (told, y)."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(sites):
        z = draw.normal(-2, 1, draw.integers(1, rows))
        told = expit(np.round(z, 1) if ties else z)
        found.append((told, (draw.random(len(z)) < expit(1.5 * z + 1)).astype(int)))
    return found


def pooled(found):
    return (np.concatenate(part) for part in zip(*found, strict=True))


@given(st.integers(0, 10**6), st.sampled_from([1, 5, 200]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_is_told_holds_the_figure_of_all_rows(seed, edges, ties):
    sites = world(seed, ties=ties)
    told, y = pooled(sites)
    if not 0 < y.sum() < len(y):
        return
    at = histograms.edges_of(sites[0][0], THRESHOLDS, edges)
    total = histograms.add([histograms.count(mine, outcome, at) for mine, outcome in sites])
    for figure, wanted in ((histograms.auroc, roc_auc_score), (histograms.auprc, average_precision_score)):
        value, bound = figure(total)
        assert abs(value - wanted(y, told)) <= bound + 1e-12
    for threshold in THRESHOLDS:
        found, called = histograms.at_threshold(total, threshold), told >= threshold
        assert found["net_benefit"] == pytest.approx(net_benefit(told, y, threshold), abs=1e-12)
        assert found["treat_all"] == pytest.approx(net_benefit(np.ones(len(y)), y, threshold), abs=1e-12)
        assert found["called"] == pytest.approx(called.mean())
        assert found["sensitivity"] == pytest.approx(recall_score(y, called))
        assert found["precision"] == (pytest.approx(precision_score(y, called)) if called.any() else None)


def test_two_hundred_edges_leave_little_open():
    told, y = pooled(world(1, sites=20, rows=2000))
    total = histograms.count(told, y, histograms.edges_of(told))
    assert len(total.edges) == histograms.EDGES
    assert histograms.auroc(total).bound < 0.004 and histograms.auprc(total).bound < 0.06


def test_the_bound_is_reached():
    """Rows of one bin may all be ranked rightly, or all wrongly, or be tied."""
    y = np.array([0, 0, 0, 1, 1])
    total = histograms.count(np.full(5, 0.5), y, np.array([0.1, 0.9]))
    value, bound = histograms.auroc(total)
    assert (value, bound) == (0.5, 0.5)
    value, bound = histograms.auprc(total)
    best, worst = np.array([0.2, 0.3, 0.4, 0.5, 0.6]), np.array([0.6, 0.5, 0.4, 0.3, 0.2])
    assert value + bound == pytest.approx(average_precision_score(y, best))
    assert value - bound == pytest.approx(average_precision_score(y, worst))


def test_tied_events_may_lie_above_any_that_are_not():
    """Ten tied events below a hundred others: average precision is 10/110, more than the same one by one."""
    told, y = np.r_[np.full(100, 0.9), np.full(10, 0.2)], np.r_[np.zeros(100), np.ones(10)]
    value, bound = histograms.auprc(histograms.count(told, y, np.array([0.5])))
    assert average_precision_score(y, told) == pytest.approx(10 / 110)
    assert value - bound <= 10 / 110 <= value + bound + 1e-12


@pytest.mark.parametrize("share", [0.05, 0.2, 1.0])
def test_the_highest_are_those_with_the_highest_chances(share):
    told, y = pooled(world(3))
    found = histograms.highest(histograms.count(told, y, np.unique(told)), share)
    called = told >= found["threshold"]
    assert called.mean() == pytest.approx(found["share"]) and abs(found["share"] - share) <= 1 / len(y)
    assert found["sensitivity"] == pytest.approx(recall_score(y, called))
    assert found["precision"] == pytest.approx(precision_score(y, called))
    assert found["called_for_one"] == pytest.approx(called.sum() / y[called].sum())


def test_the_calibration_curve_has_the_rows_of_all():
    told, y = pooled(world(4))
    found = histograms.curve(histograms.count(told, y, histograms.edges_of(told)))
    assert sum(one["rows"] for one in found) == len(y) and len(found) == 10
    assert sum(one["rows"] * one["told"] for one in found) == pytest.approx(told.sum())
    assert sum(one["rows"] * one["observed"] for one in found) == pytest.approx(y.sum())


def test_without_rows_of_a_kind_nothing_is_said():
    none = histograms.count(np.zeros(0), np.zeros(0, int), np.array([0.5]))
    assert all(np.isnan(part) for part in (*histograms.auroc(none), *histograms.auprc(none)))
    assert histograms.curve(none) == []
    with pytest.raises(DataError, match="expected rows in the histogram"):
        histograms.at_threshold(none, 0.5)


def test_what_does_not_fit_is_a_line():
    one = histograms.count([0.1, 0.9], [0, 1], np.array([0.5]))
    other = histograms.count([0.1, 0.9], [0, 1], np.array([0.4]))
    with pytest.raises(DataError, match="the same 1 edges"):
        histograms.add([one, other])
    with pytest.raises(DataError, match=r"an edge of the histogram, got 0\.3"):
        histograms.at_threshold(one, 0.3)
    plain = histograms.to_plain(one)
    assert histograms.auroc(histograms.from_plain(plain)) == histograms.auroc(one)
    for wrong in ({**plain, "events": [1]}, {**plain, "others": [-1, 0]}, {**plain, "edges": [float("nan")]}):
        with pytest.raises(DataError, match=r"(of|in) a histogram"):
            histograms.from_plain(wrong)


def test_a_claim_of_very_many_rows_costs_nothing():
    """Counts that a site only claims: sums over them are closed forms."""
    total = histograms.Counts(np.array([0.5]), np.array([3, 2**38]), np.array([2**39, 7]), np.zeros(2))
    for figure in (histograms.auroc, histograms.auprc):
        value, bound = figure(total)
        assert 0 <= value <= 1 and 0 <= bound <= 1


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 40), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_the_lowest_average_precision_is_its_sum(h, more, o, e):
    """Of e events behind o others in a bin, h events and c calls above it."""
    c = h + more
    found = e - (c + o - h) * (histograms._digamma(c + o + e + 1) - histograms._digamma(c + o + 1))
    assert found == pytest.approx(sum((h + j) / (c + o + j) for j in range(1, e + 1)), abs=1e-9)


def test_the_highest_without_any_event_call_for_nothing():
    total = histograms.count(np.r_[0.1, np.linspace(0.2, 0.9, 50)], np.r_[1, np.zeros(50)], np.array([0.15, 0.85]))
    assert histograms.highest(total, 0.05)["called_for_one"] is None
