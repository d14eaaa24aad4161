"""What the sites add up equals what NumPy and pandas find on the pooled rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from learner_jax.errors import DataError
from learner_jax.statistics import (
    combine,
    counts,
    histogram,
    kept,
    mean_and_deviation,
    missing,
    missing_rate,
    moments,
    quantile,
)


def cut(rows: int, seed: int, sites: int = 5) -> list[np.ndarray]:
    """Places of rows at each site: uneven, some sites empty."""
    dealt = np.random.default_rng(seed).integers(0, sites, rows)
    return [np.flatnonzero(dealt == site) for site in range(sites)]


@given(
    hnp.arrays(np.float64, (40, 3), elements=st.floats(-1e6, 1e6) | st.just(np.nan)),
    st.integers(0, 2**32),
)
def test_moments_equal_the_pooled_ones(values, seed):
    total = combine([moments(values[rows], centre=5.0) for rows in cut(len(values), seed)])
    mean, deviation = mean_and_deviation(total, centre=5.0)
    pooled = pd.DataFrame(values)
    assert total["rows"].tolist() == pooled.count().tolist()
    for column in range(3):
        present = values[:, column][~np.isnan(values[:, column])]
        if len(present):
            size = max(1.0, np.abs(present - 5.0).max())
            assert abs(mean[column] - present.mean()) <= 1e-12 * size
            # the variance is exact to rounding of the squares about the centre, its root less so near 0
            assert abs(deviation[column] ** 2 - present.var()) <= 1e-12 * size**2
        else:
            assert (mean[column], deviation[column]) == (5.0, 0.0)


def test_a_centre_keeps_the_digits_that_zero_loses():
    """Oracle: scikit-learn's StandardScaler, which goes over the rows twice."""
    from sklearn.preprocessing import StandardScaler

    values = 1e8 + np.random.default_rng(0).normal(size=(1000, 1))
    oracle = StandardScaler().fit(values)
    mean, deviation = mean_and_deviation(combine([moments(part, 1e8) for part in np.split(values, 4)]), 1e8)
    true_mean, true_deviation = np.asarray(oracle.mean_, float), np.asarray(oracle.scale_, float)
    np.testing.assert_allclose(mean, true_mean, rtol=1e-14)
    np.testing.assert_allclose(deviation, true_deviation, rtol=1e-12)
    _, blunt = mean_and_deviation(moments(values, 0.0), 0.0)
    assert abs(blunt[0] - true_deviation[0]) > 1e-3


@given(hnp.arrays(np.int64, (30, 3), elements=st.integers(-1, 12)), st.integers(0, 2**32))
def test_counts_equal_the_pooled_ones_exactly(codes, seed):
    total = combine([{"codes": counts(codes[rows], 12)} for rows in cut(len(codes), seed)])["codes"]
    assert total.tolist() == [sum(code in row for row in codes.tolist()) for code in range(12)]


def test_kept_takes_the_most_frequent_and_breaks_ties_by_code():
    total = np.array([0, 5, 9, 5, 5, 1])
    assert kept(total, at_most=3).tolist() == [1, 2, 3]
    assert kept(total, at_most=10, at_least=2).tolist() == [1, 2, 3, 4]
    assert kept(np.zeros(4, np.int64), at_most=2).tolist() == []


@given(hnp.arrays(np.bool_, (25, 4)), st.integers(0, 2**32))
def test_missing_rates_equal_the_pooled_ones(absent, seed):
    total = combine([missing(absent[rows]) for rows in cut(len(absent), seed)])
    assert missing_rate(total).tolist() == absent.mean(axis=0).tolist()


@given(hnp.arrays(np.float64, 50, elements=st.floats(-2, 12)), st.floats(0, 1), st.integers(0, 2**32))
def test_a_quantile_is_off_by_less_than_a_bin(values, share, seed):
    edges = np.linspace(0.0, 10.0, 41)
    total = combine([{"bins": histogram(values[rows], edges)} for rows in cut(len(values), seed)])["bins"]
    exact = np.quantile(np.clip(values, 0.0, 10.0), share, method="inverted_cdf")
    assert 0.0 <= exact - quantile(total, edges, share) <= 0.25 + 1e-12


def test_sites_that_measured_different_things_are_refused():
    with pytest.raises(
        DataError, match=r"'b' to be int64\[2\] as at the first site, got int64\[3\] from site number 2"
    ):
        combine([{"b": np.zeros(2, np.int64)}, {"b": np.zeros(3, np.int64)}])
    with pytest.raises(DataError, match="at least one site"):
        combine([])


def test_combine_changes_no_input():
    first = {"a": np.ones(2)}
    combine([first, {"a": np.ones(2)}])["a"][0] = 9.0
    assert first["a"].tolist() == [1.0, 1.0]
