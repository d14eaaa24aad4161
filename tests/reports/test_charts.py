"""Scales: they hold what they must, on round numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner_jax.reports.charts import line, rounds, scale, thin

numbers = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(numbers, min_size=1, max_size=20), st.integers(3, 8))
def test_a_scale_holds_its_values_on_round_ticks(values, ticks):
    found = scale(values, ticks)
    slack = 1e-9 * max(1.0, abs(found.low), abs(found.high))
    assert found.low - slack <= min(values)
    assert max(values) <= found.high + slack
    assert 2 <= len(found.ticks) <= 2 * ticks + 2
    assert list(found.ticks) == sorted(set(found.ticks))
    assert found.at(found.low) == 0.0
    assert found.at(found.high) == 100.0
    labels = [found.label(tick) for tick in found.ticks]
    assert len(set(labels)) == len(labels)  # as many decimals as it takes


def test_shares_stay_within_0_and_100():
    found = scale([0.4, 99.9], 6, floor=0.0, ceiling=100.0)
    assert (found.low, found.high) == (0.0, 100.0)
    assert scale([61.3], floor=0.0, ceiling=100.0).low < 61.3 < scale([61.3], floor=0.0, ceiling=100.0).high
    assert found.at(-5) == 0.0
    assert found.at(105) == 100.0


@given(st.integers(1, 500), st.integers(0, 500))
def test_rounds_start_at_the_first_and_end_at_the_last(first, more):
    found = rounds([first, first + more])
    assert found.ticks[0] == first
    if more:
        assert (found.low, found.high) == (first, first + more)
        assert all(first <= tick <= first + more for tick in found.ticks)
    else:
        assert found.at(first) == 50.0


def test_a_line_goes_up_when_the_value_does():
    along, up = rounds([1, 3]), scale([0.0, 10.0])
    assert line([1, 2, 3], [0.0, 5.0, 10.0], along, up) == "0,100 50,50 100,0"


@given(st.integers(0, 3000), st.integers(1, 40))
def test_thinned_rows_keep_the_ends_and_what_was_asked_for(count, keep):
    shown = thin(count, keep, always=[count // 3])
    assert shown == sorted(set(shown))
    assert len(shown) <= keep + 3
    if count:
        assert {0, count - 1, count // 3} <= set(shown)


@pytest.mark.parametrize(("count", "shown"), [(1, [0]), (3, [0, 1, 2]), (50, [0, 4, 9])])
def test_few_rows_are_all_shown(count, shown):
    assert thin(count, 20)[: len(shown)] == shown or count == 50
    assert thin(50, 10)[:3] == [0, 4, 9]
