"""Calibration against scipy's optimiser, scikit-learn's unpenalised regression, and worlds whose truth is known."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from learner_jax.evaluation.calibration import Slopes, calibrate, newton, slopes, wilson


def world(seed, n, intercept=0.0, slope=1.0):
    """Outcomes whose true log-odds are intercept + slope * told log-odds."""
    rng = np.random.default_rng(seed)
    told = expit(rng.normal(-1.5, 1.0, n))
    return told, (rng.random(n) < expit(intercept + slope * logit(told))).astype(int)


@given(st.integers(0, 10_000), st.floats(-1, 1), st.floats(0.3, 2))
@settings(max_examples=20, deadline=None)
def test_intercept_and_slope_against_other_optimisers(seed, intercept, slope):
    told, y = world(seed, 2400, intercept, slope)
    if min(y.sum(), 2400 - y.sum()) < 100:
        return
    found = calibrate(told, y)
    z = logit(told)
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(z[:, None], y)
    assert found["slope"] == pytest.approx(fit.coef_[0, 0], abs=1e-4)
    loss = lambda a: np.logaddexp(0, z + a).sum() - (y * (z + a)).sum()  # noqa: E731
    other: Any = minimize_scalar(loss, bracket=(-1, 1))
    assert found["intercept"] == pytest.approx(other.x, abs=1e-5)


@pytest.mark.parametrize(("intercept", "slope"), [(0.0, 1.0), (-0.7, 1.0), (0.3, 0.5)])
def test_finds_the_truth(intercept, slope):
    told, y = world(1, 60_000, intercept, slope)
    found = calibrate(told, y)
    assert abs(found["slope"] - slope) < 4 * found["slope_se"] < 0.1
    if slope == 1.0:
        assert abs(found["intercept"] - intercept) < 4 * found["intercept_se"] < 0.1


def test_deciles_hold_all_rows_in_order():
    told, y = world(2, 1003)
    table = calibrate(told, y)["calibration"]
    assert len(table) == 10
    assert sum(row["rows"] for row in table) == 1003
    assert {row["rows"] for row in table} <= {100, 101}
    assert sum(row["observed"] * row["rows"] for row in table) == pytest.approx(y.sum())
    assert sum(row["told"] * row["rows"] for row in table) == pytest.approx(told.sum())
    assert [row["told"] for row in table] == sorted(row["told"] for row in table)
    lowest = np.sort(told)[:101]
    assert table[0]["told"] == pytest.approx(lowest[: table[0]["rows"]].mean())
    for row in table:
        known = binomtest(round(row["observed"] * row["rows"]), row["rows"]).proportion_ci(method="wilson")
        assert (row["low"], row["high"]) == pytest.approx((known.low, known.high), abs=1e-9)


@given(st.integers(0, 500), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_equal_told_chances_are_never_parted(n, levels):
    rng = np.random.default_rng(n)
    told, y = rng.integers(0, levels, n) / levels, rng.integers(0, 2, n)
    table = calibrate(told, y)["calibration"]
    assert sum(row["rows"] for row in table) == n
    assert len(table) <= levels
    for low, high in pairwise(table):
        assert low["told"] < high["told"]


def test_small_or_one_sided_says_less():
    assert calibrate([], [])["calibration"] == []
    assert calibrate([], [])["told"] is None
    assert len(calibrate([0.1] * 30, [0] * 30)["calibration"]) == 1
    assert calibrate([0.1] * 30, [0] * 30)["slope"] is None
    equal = calibrate([0.2] * 50, [0] * 40 + [1] * 10)
    assert equal["slope"] is None
    assert equal["intercept"] == pytest.approx(0.0, abs=1e-9)
    apart = calibrate(np.r_[np.full(50, 0.1), np.full(50, 0.9)], np.r_[np.zeros(50), np.ones(50)])
    assert apart["slope"] is None  # perfectly parted: the slope runs away, and is not told
    assert wilson(0.0, 10)[0] == 0.0


def test_sums_of_sites_are_the_recalibration_of_all_rows():
    told, y = world(3, 3000, 0.5, 0.7)
    site = np.random.default_rng(0).integers(0, 4, len(y))

    def ask(at):
        every = [slopes(told[site == k], y[site == k], at) for k in range(4)]
        gradients, information = zip(*every, strict=True)
        return Slopes(np.sum(gradients, axis=0), np.sum(information, axis=0))

    found = calibrate(told, y)
    (intercept,), (error,) = newton(ask, 1)
    assert (intercept, error) == (pytest.approx(found["intercept"]), pytest.approx(found["intercept_se"]))
    (_, slope), (_, error) = newton(ask, 2)
    assert (slope, error) == (pytest.approx(found["slope"]), pytest.approx(found["slope_se"]))


def test_with_fewer_than_a_hundred_events_there_is_no_slope():
    told, y = world(1, 5000)
    few = np.flatnonzero(y)[:99]
    rows = np.r_[few, np.flatnonzero(y == 0)]
    found = calibrate(told[rows], y[rows])
    assert found["slope"] is None and found["intercept"] is not None
