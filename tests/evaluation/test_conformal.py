"""Intervals that hold what they promise: against the order statistic itself, and on cells that come later."""

from __future__ import annotations

import numpy as np
import pytest

from learner_jax.errors import DataError
from learner_jax.evaluation.conformal import STEP, STEPS, outside, widened, widening

rng = np.random.default_rng(7)


def test_the_sum_over_sites_gives_the_order_statistic_of_all_cells_together():
    for n in (90, 137, 2000):
        y, middle, wide = rng.normal(size=(n, 3)), rng.normal(size=(n, 3)) / 3, rng.uniform(0.1, 2, (n, 3))
        low, high, seen = middle - wide, middle + wide / 2, rng.random((n, 3)) < 0.8
        site = rng.integers(0, 2, n)
        parts = [outside(y[site == s], low[site == s], high[site == s], seen[site == s]) for s in (0, 1)]
        np.testing.assert_array_equal(parts[0] + parts[1], outside(y, low, high, seen))
        found = widening(parts[0] + parts[1])
        far = np.maximum(low - y, y - high)
        for column in range(3):
            mine = np.sort(far[seen[:, column], column])
            told = mine[int(np.ceil(0.8 * (len(mine) + 1))) - 1]
            assert abs(found[column] - told) <= STEP


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5])
def test_cells_that_come_later_are_in_their_intervals_as_often_as_promised(factor):
    y = rng.normal(size=(20_000, 1)) * 1.3
    half = np.full_like(y, 1.2816 * 1.3 * factor)
    watched, later = slice(0, 10_000), slice(10_000, None)
    by = widening(outside(y[watched], -half[watched], half[watched], np.ones((10_000, 1), bool)))
    low, high = widened(-half[later], half[later], by)
    held = np.mean((low <= y[later]) & (y[later] <= high))
    assert abs(held - 0.8) < 0.015  # three standard errors of both draws
    assert np.sign(by[0]) == np.sign(1 - factor) or factor == 1.0


def test_ends_do_not_pass_each_other():
    low, high = widened(np.array([[0.0, 0.0]]), np.array([[1.0, 4.0]]), np.array([-1.0, -1.0]))
    assert low.tolist() == [[0.5, 1.0]] and high.tolist() == [[0.5, 3.0]]


def test_of_few_cells_nothing_is_counted_and_nothing_moved():
    y, seen = np.full((24, 2), 5.0), np.ones((24, 2), bool)
    seen[13:, 1] = False
    counts = outside(y, y - 9, y - 8, seen)
    assert counts.sum(axis=1).tolist() == [24, 0]
    assert widening(counts)[1] == 0.0 and abs(widening(counts)[0] - 8.0) <= 2 * STEP
    counts[0] = 0
    counts[0, :19] = 1
    assert widening(counts)[0] == 0.0


def test_what_is_beyond_the_ends_is_counted_at_them():
    far = np.array([[-50.0], [50.0]] * 10)
    counts = outside(np.zeros((20, 1)), far, far + 100, np.ones((20, 1), bool))
    assert counts[0, 0] == 10 and counts[0, STEPS - 1] == 10


def test_an_interval_that_is_not_finite_is_refused_where_a_cell_counts_alone():
    low, seen = np.zeros((20, 2)), np.ones((20, 2), bool)
    low[3, 1] = np.nan
    with pytest.raises(DataError, match="expected finite intervals"):
        outside(np.zeros((20, 2)), low, low + 1, seen)
    seen[3, 1] = False
    assert outside(np.zeros((20, 2)), low, low + 1, seen).sum() == 20
