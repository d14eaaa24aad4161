"""Scales: they hold what they must, on round numbers."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner_jax.reports import words
from learner_jax.reports.by_round import learning_curve
from learner_jax.reports.charts import DOT, EM, HEIGHT, LOW, Words, box, lifts, line, rounds, scale, thin
from learner_jax.reports.result import cohorts, figure, within

TOUCH = 0.02  # ems: as near as words may come, for places are rounded

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


# ---- words in a chart ------------------------------------------------------------------------------------------------


def overlaps(placed, dots, at_lines, height=HEIGHT):
    """Whatever runs into what, in charts of several widths. placed: (Words, lift)."""
    found = []
    for width in (18.0, 30.0, 65.0):
        boxes = [(w.text, box(w, lift, height, width)) for w, lift in placed]
        for (one, a), (other, b) in itertools.combinations(boxes, 2):
            apart = a.right <= b.left or b.right <= a.left or a.bottom <= b.top + TOUCH or b.bottom <= a.top + TOUCH
            found += [] if apart else [(one, other)]
        for text, a in boxes:
            found += [(text, f"line {y}") for y in at_lines if a.top + TOUCH < y / 100 * height < a.bottom - TOUCH]
            for x, y in dots:
                across, down = x / 100 * width, y / 100 * height
                beside = across + DOT <= a.left or a.right <= across - DOT
                apart = beside or down + DOT <= a.top + TOUCH or a.bottom <= down - DOT + TOUCH
                found += [] if apart else [(text, f"dot {x} {y}")]
            found += [] if a.top >= -1.0 and a.bottom <= height + TOUCH else [(text, "the plot's edge")]
    return found


places = st.floats(0, 100)
# Values close to one another, as those that are told beside a line are.
near = st.tuples(places, st.lists(st.floats(-12, 12), min_size=4, max_size=4)).map(
    lambda drawn: [min(100.0, max(0.0, drawn[0] + by)) for by in drawn[1]]
)


@given(near | st.lists(places, min_size=4, max_size=4), places)
def test_words_in_a_chart_never_overlap(ys, best):
    last, other, coin, alone = ys
    points = [
        Words(100.0, last, "end", "61.2", 0.9),
        Words(best, other, "end" if best > 85 else "start" if best < 15 else "middle", "best 63.4", 0.9),
    ]
    at_lines = [
        Words(100.0, coin, "end", "coin toss 50", 0.55),
        Words(100.0, alone, "end", "a hospital alone, on average 61", 0.55),
    ]
    dots, ruled = [(p.x, p.y) for p in points], [w.y for w in at_lines]
    found = lifts([*points, *at_lines], dots, ruled)
    assert overlaps(list(zip([*points, *at_lines], found, strict=True)), dots, ruled) == []


def test_words_with_room_stand_over_their_point():
    points = [Words(100.0, 30.0, "end", "61.2", 0.9), Words(100.0, 80.0, "end", "coin toss 50", 0.55)]
    assert lifts(points, [(100.0, 30.0)], [80.0]) == [-0.9, -0.55]
    assert lifts([Words(50.0, 2.0, "middle", "0.3", 0.9)], [(50.0, 2.0)], height=LOW) == [1.45]  # no room over it


@pytest.mark.parametrize("by", [-0.02, -0.01, -0.007, -0.005, -0.002, -0.001, 0.0, 0.001, 0.002, 0.005, 0.02])
def test_the_last_figure_beside_the_line_of_a_hospital_alone(make, by):
    result = make()
    alone = figure(within(cohorts(result)[0]), "local_only", "auroc")
    assert alone is not None
    result["curve"][-1]["valid/auroc"] = alone["value"] + by
    chart = learning_curve(result, words.nouns(result))
    assert chart is not None
    plot = chart["plot"]
    placed = [(Words(d["x"], d["y"], d["anchor"], d["text"], 0.9), d["dy"]) for d in plot["dots"]]
    placed += [(Words(100.0, r["at"], "end", r["text"], 0.55), r["dy"]) for r in plot["refs"]]
    assert len(placed) == 4
    dots = [(d["x"], d["y"]) for d in plot["dots"]]
    assert overlaps(placed, dots, [r["at"] for r in plot["refs"]]) == []


def test_the_page_draws_charts_of_the_size_that_words_are_placed_for(root):
    css = (root / "learner_jax/reports/page/style.css").read_text(encoding="utf-8")
    heights = re.findall(r"\.plot(\.low)? \{[^}]*height: ([\d.]+)rem", css)
    assert heights == [("", f"{HEIGHT * EM:g}"), (".low", f"{LOW * EM:g}")]
    assert f"--t-xs: {EM:.4f}rem".replace("0.", ".") in css
    assert re.search(r"\.plot \{[^}]*font: var\(--t-xs\)", css)
