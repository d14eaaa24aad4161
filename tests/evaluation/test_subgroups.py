"""Subgroups: what may be told, that it cannot be had otherwise, and figures beside plain loops."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner_jax.data.schema import Column
from learner_jax.data.ways import UNKNOWN, Labels, declared, label
from learner_jax.engines.site_study import SUMMARY_BYTES
from learner_jax.evaluation import evaluate, join_sites, summarise_site
from learner_jax.evaluation.subgroups import check, join, summarise, told
from learner_jax.evaluation.summary import check_summary

FLOOR = 10
COUNTS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=7)


def _counts(pairs) -> np.ndarray:
    return np.array([[events + others, events, others] for events, others in pairs])


@given(COUNTS)
def test_nobody_can_be_singled_out_by_what_is_told(pairs):
    counts = _counts(pairs)
    kept = told(counts, FLOOR)
    assert (counts[kept] >= FLOOR).all()
    hidden = ~kept & (counts[:, 0] > 0)
    if kept.any() and hidden.any():  # the total less those that are told
        assert hidden.sum() > 1
        assert (counts[hidden].sum(axis=0) >= FLOOR).all()


@given(COUNTS, st.randoms())
def test_no_more_is_withheld_than_must_be(pairs, random):
    """Any level more that is told, with all others as they are, breaks a rule."""
    counts = _counts(pairs)
    kept = told(counts, FLOOR)
    for at in np.flatnonzero(~kept & (counts >= FLOOR).all(axis=1)):
        more = kept.copy()
        more[at] = True
        hidden = ~more & (counts[:, 0] > 0)
        assert hidden.any() and (hidden.sum() == 1 or (counts[hidden].sum(axis=0) < FLOOR).any())


def _rows(seed: int, n: int = 600, few: int = 4):
    draw = np.random.default_rng(seed)
    y = (draw.random(n) < 0.3).astype(float)
    score = np.clip(0.3 + 0.2 * (y - 0.3) + 0.15 * draw.normal(size=n), 0.01, 0.99)
    of = draw.integers(0, 3, n).astype(np.int8)
    of[:few] = 3
    return score, y, draw.integers(0, n, n), Labels(("a", "b", "c", UNKNOWN), of)


def test_figures_of_a_level_are_those_of_its_rows():
    from sklearn.metrics import roc_auc_score

    score, y, group, way = _rows(0)
    (found,) = summarise(score, y, group, {"way": way}, 0, name="x", draws=200)
    levels = {level["name"]: level for level in found["levels"]}
    assert set(levels) == {"a", "b", "c", UNKNOWN}
    withheld = [name for name, level in levels.items() if "rows" not in level]
    assert UNKNOWN in withheld and len(withheld) == 2  # one more, or four could be had from the total
    for at, name in enumerate(way.levels):
        if name not in withheld:
            mask = way.of == at
            assert levels[name]["rows"] == mask.sum() and levels[name]["events"] == y[mask].sum()
            assert levels[name]["told"] == pytest.approx(score[mask].mean())
            assert levels[name]["auroc"]["value"] == pytest.approx(roc_auc_score(y[mask], score[mask]))
            assert levels[name]["auroc"]["low"] < levels[name]["auroc"]["value"] < levels[name]["auroc"]["high"]


def test_levels_that_nobody_is_in_are_left_out_where_nothing_is_withheld():
    score, y, group, way = _rows(1, few=0)
    (found,) = summarise(score, y, group, {"way": way}, 0, name="x", draws=50)
    assert [level["name"] for level in found["levels"]] == ["a", "b", "c"]


def test_sites_are_put_together_by_rows_and_by_certainty():
    sites = []
    for seed in (2, 3):
        score, y, group, way = _rows(seed, n=500 * seed, few=0)
        sites.append(summarise(score, y, group, {"way": way}, 0, name=str(seed), draws=200))
    (found,) = join(sites)
    for level in found["levels"]:
        of = [next(one for one in site[0]["levels"] if one["name"] == level["name"]) for site in sites]
        assert level["rows"] == sum(one["rows"] for one in of) and level["sites"] == 2 and level["withheld"] == 0
        assert level["told"] == pytest.approx(
            np.average([one["told"] for one in of], weights=[one["rows"] for one in of])
        )
        weights = [one["auroc"]["se"] ** -2 for one in of]
        assert level["auroc"]["value"] == pytest.approx(
            np.average([one["auroc"]["value"] for one in of], weights=weights)
        )


def test_of_a_site_they_leave_in_the_largest_cohort_alone_and_only_beside_its_figures():
    score, y, group, way = _rows(4)
    half = np.arange(len(y)) < 300
    cohorts = {"half": half, "everyone": np.ones(len(y), bool)}
    found = summarise_site({"federated": score}, y, group, cohorts, 0, name="x", draws=50, ways={"way": way})
    assert "subgroups" not in found["half"] and found["everyone"]["subgroups"]
    checked = check_summary(found)
    assert checked["everyone"]["subgroups"] == found["everyone"]["subgroups"]
    joint = join_sites([checked, checked])
    by_name = {cohort["name"]: cohort for cohort in joint["cohorts"]}
    assert by_name["everyone"]["subgroups"][0]["levels"][0]["sites"] == 2
    assert "subgroups" not in by_name["half"] and "subgroups" not in by_name["everyone"]["sites"][0]
    few = y.copy()
    few[:] = 0
    few[:5] = 1
    withheld = summarise_site({"federated": score}, few, group, cohorts, 0, name="x", draws=50, ways={"way": way})
    assert "subgroups" not in withheld["everyone"]


def test_a_simulation_judges_subgroups_of_all_rows_together():
    score, y, group, way = _rows(5)
    site = np.where(np.arange(len(y)) % 2, "east", "west")
    found = evaluate({"federated": score}, y, group, site, None, 0, draws=50, ways={"way": way})
    levels = found["cohorts"][0]["subgroups"][0]["levels"]
    assert sum("rows" in level for level in levels) == 2


@pytest.mark.parametrize(
    "found",
    [
        {},
        [{"name": "way"}],
        [{"name": "way", "levels": [{"name": "a", "rows": 5, "events": 6, "told": 0.1, "auroc": None}]}],
        [{"name": "way", "levels": [{"name": "a", "rows": 5, "events": 1, "told": float("nan"), "auroc": None}]}],
        [{"name": "way", "levels": [{"name": "a", "rows": True, "events": 1, "told": 0.1, "auroc": None}]}],
        [{"name": "way", "levels": [{"name": "a\x1b[2J"}]}],
        [{"name": "way", "levels": [{"name": "a"}] * 40}],
        [{"name": "w", "levels": [{"name": "a", "rows": 5, "events": 1, "told": 0.1,
                                   "auroc": {"value": 0.5, "low": 0.4, "high": 0.6, "se": 1e-300}}]}],
    ],
)  # fmt: skip
def test_what_is_none_is_refused(found):
    with pytest.raises(ValueError, match="expected subgroups in a site's summary"):
        check(found)


def test_what_a_site_adds_goes_no_further():
    ways = [{"name": "way", "levels": [{"name": "a", "patients": ["me"]}], "more": 1}]
    assert check(ways) == [{"name": "way", "levels": [{"name": "a"}]}]


AGE = Column(name="age", kind="number", unit="years")
SEX = Column(name="sex", kind="flag", codes=("f", "m"))


def test_bands_begin_at_their_edges_and_nobody_is_lost():
    import pandas as pd

    (age, sex), problems = declared(({"name": "age", "edges": (65, 80)}, "sex"), {"age": AGE, "sex": SEX})
    assert not problems
    found = label(pd.Series([64.9, 65, 79.9, 80, np.nan]), age)
    assert [found.levels[at] for at in found.of] == [
        "under 65 years", "65 to under 80 years", "65 to under 80 years", "80 years or more", UNKNOWN,
    ]  # fmt: skip
    found = label(pd.Series([0.0, 1.0, np.nan]), sex)
    assert [found.levels[at] for at in found.of] == ["f", "m", UNKNOWN]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("agee", "expected a number, category or flag among the columns, got 'agee', which is none (near: 'age')"),
        ("age", "task.subgroups.0 ('age'): expected edges, rising numbers at which bands begin, got ()"),
        ({"name": "age", "edges": (80, 65)}, "expected edges, rising numbers"),
        ({"name": "sex", "edges": (1,)}, "edges are for numbers, got kind=flag"),
        ({"nam": "sex"}, "expected a column's name, or name and edges"),
    ],
)
def test_a_wrong_declaration_is_told(asked, words):
    _, problems = declared((asked,), {"age": AGE, "sex": SEX})
    assert words in problems[0]


def test_patients_are_counted_and_not_their_rows():
    """Thirty rows of one patient are one patient, in a level and at a site."""
    score, y, group, way = _rows(6, few=30)
    group = group + 100
    group[:30] = 0
    y[:30] = np.arange(30) % 2
    (found,) = summarise(score, y, group, {"way": way}, 0, name="x", draws=50)
    (level,) = [one for one in found["levels"] if one["name"] == UNKNOWN]
    assert level == {"name": UNKNOWN}
    three = np.arange(60) % 3
    site = summarise_site({"federated": score[:60]}, np.arange(60) % 2, three, None, 0, name="x", draws=50)["everyone"]
    assert site["rows"] is site["patients"] is site["events"] is None and not site["models"]


def test_an_error_that_is_rounding_alone_is_none():
    """Levels in which outcome and score go together rank perfectly in each draw."""
    y = np.arange(60) % 2
    way = Labels(("a", UNKNOWN), np.zeros(60, np.int8))
    (found,) = summarise(0.2 + 0.5 * y, y, np.arange(60), {"way": way}, 0, name="x", draws=50)
    assert found["levels"][0]["auroc"]["se"] == 0
    assert check([found]) == [found]


def test_too_many_levels_are_refused_and_what_may_be_declared_fits_a_summary():
    columns = {f"f{at}": Column(name=f"f{at}", kind="flag") for at in range(22)}
    _, problems = declared(tuple(columns), columns)
    assert "expected at most 64 levels in all" in problems[0] and problems[0].endswith("got 66")
    score, y, group, _ = _rows(7, n=4000)
    draw, ways = np.random.default_rng(1), {}
    for at in range(16):
        ways[f"a_column_with_quite_a_long_name_{at}"] = Labels(
            ("the first level of this column", "another level", "and one more level", UNKNOWN),
            draw.integers(0, 3, len(y)).astype(np.int8),
        )
    scores: dict[str, Any] = {"federated": score, "local_only": score}
    cohorts = {name: draw.random(len(y)) < 0.9 for name in ("heart failure", "diabetes")} | {"everyone": y >= 0}
    found = summarise_site(scores, y, group, cohorts, 0, name="x" * 60, draws=20, ways=ways)
    assert len(json.dumps(found)) < SUMMARY_BYTES
