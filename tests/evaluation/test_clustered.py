"""Standard errors by patient against the paper's sums patient by patient, DeLong's, and repeated worlds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import poisson

from learner_jax.evaluation import clustered, histograms
from tests.oracles.ranking import delong, obuchowski, pairs


def world(seed: int, patients: int = 80, each: int = 4, alike: float = 1.0):
    """(told, y, patient): rows of a patient share a part of what is told and of what comes."""
    draw = np.random.default_rng(seed)
    group = np.repeat(np.arange(patients), draw.integers(1, each + 1, patients))
    own = draw.normal(0, alike, patients)[group]
    z = own + draw.normal(0, 1, len(group))
    y = (draw.random(len(group)) < expit(0.8 * z + own - 1)).astype(int)
    return expit(np.round(z, 1)), y, group


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_it_is_the_papers_variance(seed):
    told, y, group = world(seed, patients=30)
    value, error = clustered.exact(told, y, group)
    assert value == pytest.approx(pairs(told, y), abs=1e-12)
    assert error**2 == pytest.approx(obuchowski(told, y, group), rel=1e-9)


def test_with_one_row_a_patient_it_is_delongs():
    told, y, _ = world(1, patients=300, each=1)
    assert clustered.exact(told, y, np.arange(len(y)))[1] ** 2 == pytest.approx(delong(told, y), rel=5e-3)


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_two_passes_over_sites_are_that_of_all_rows(seed):
    told, y, group = world(seed)
    site, edges = group % 3, np.unique(told)
    counts = [histograms.count(told[site == k], y[site == k], edges) for k in range(3)]
    total = histograms.add(counts)
    placed = [clustered.sums(told[site == k], y[site == k], group[site == k], total) for k in range(3)]
    assert clustered.standard_error(placed) == pytest.approx(clustered.exact(told, y, group)[1], rel=1e-9)


def test_two_hundred_bins_hardly_change_it():
    told, y, group = world(7, patients=2000)
    total = histograms.count(told, y, histograms.edges_of(told))
    error = clustered.standard_error([clustered.sums(told, y, group, total)])
    assert error == pytest.approx(clustered.exact(told, y, group)[1], rel=0.01)


def test_it_is_how_much_the_area_really_varies():
    """Over 300 worlds; the row-wise estimate, which takes rows of a patient for strangers, is too small."""
    areas, errors, rowwise = [], [], []
    for seed in range(300):
        told, y, group = world(seed, patients=100, each=8, alike=1.5)
        value, error = clustered.exact(told, y, group)
        areas.append(value)
        errors.append(error)
        rowwise.append(delong(told, y) ** 0.5)
    assert np.mean(errors) == pytest.approx(np.std(areas), rel=0.12)
    assert np.mean(rowwise) < 0.8 * np.std(areas)


def test_too_few_patients_is_nan():
    assert np.isnan(clustered.exact([0.1, 0.2, 0.3], [1, 0, 0], [0, 1, 2])[1])


def test_draws_are_poisson_and_a_patients_own():
    group = np.repeat(np.arange(4000, dtype=np.int64), 2)
    weights = clustered.poisson_weights(group, 5, 20)
    assert (weights[::2] == weights[1::2]).all()
    for k in range(5):
        assert (weights == k).mean() == pytest.approx(poisson.pmf(k, 1), abs=0.005)
    assert abs(np.corrcoef(weights[::2, 0], weights[::2, 1])[0, 1]) < 0.05
    part = clustered.poisson_weights(group[100:300], 5, 20)
    np.testing.assert_array_equal(part, weights[100:300])
    assert (clustered.poisson_weights(group, 6, 1) != weights[:, :1]).any()


def test_a_bootstrap_over_sites_is_as_wide_as_the_standard_error():
    told, y, group = world(9, patients=600)
    edges = histograms.edges_of(told)
    drawn = clustered.poisson_weights(group, 0, 400)
    areas = [histograms.auroc(histograms.count(told, y, edges, drawn[:, k])).value for k in range(400)]
    assert np.std(areas) == pytest.approx(clustered.exact(told, y, group)[1], rel=0.15)
