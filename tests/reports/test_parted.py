"""For whom it works: a table a way, in words, and only where it was asked for."""

from __future__ import annotations

import pytest

from learner_jax.reports import tripod
from learner_jax.reports.html import page
from tests.reports.test_page import read

FIGURE = {"value": 0.704, "low": 0.65, "high": 0.75, "se": 0.02}
WAYS = [
    {
        "name": "sex",
        "levels": [
            {"name": "women", "rows": 1500, "events": 150, "told": 0.131, "auroc": FIGURE},  # 3.6 errors off
            {"name": "men", "rows": 1200, "events": 144, "told": 0.121, "auroc": None},
            {"name": "not known"},
        ],
    }
]


def _joined():
    levels = [{**level, "sites": 3, "withheld": 1} for level in WAYS[0]["levels"] if "rows" in level]
    return [{"name": "age_group", "levels": levels}]


@pytest.mark.parametrize("ways", [WAYS, _joined()], ids=["together", "by site"])
def test_each_group_is_told_with_what_was_expected_and_what_came(make, ways):
    result = make(sites=4, whom=("everyone",))
    result["evaluation"]["cohorts"][0]["subgroups"] = ways
    _, text = read(page(result))
    assert "For whom does it work?" in text
    assert "women. Of 100" in text and "expected 13.1 , and 10.0" in text  # furthest off
    assert "70.4 65 to 75 13.1 10.0" in text and "too few 12.1 12.0" in text
    assert ("not known withheld" in text) == (ways is WAYS)
    assert ("13.1 10.0 3 of 4" in text) == (ways is not WAYS)
    assert "“Withheld”" in text
    told = {number: said or "" for number, _, said in tripod.items(result)}
    assert told["14"].startswith("Judged apart by sex" if ways is WAYS else "Judged apart by age group")


def test_a_gap_that_chance_makes_is_no_headline(make):
    result = make(sites=4, whom=("everyone",))
    levels = [{"name": "women", "rows": 150, "events": 15, "told": 0.131, "auroc": FIGURE}]
    result["evaluation"]["cohorts"][0]["subgroups"] = [{"name": "sex", "levels": levels}]
    _, text = read(page(result))
    assert "What it told fits what came in each group" in text and "Furthest off" not in text


def test_without_subgroups_there_is_no_section_and_tripod_says_so(make):
    result = make(sites=4, whom=("everyone",))
    _, text = read(page(result))
    assert "For whom does it work?" not in text
    told = {number: said or "" for number, _, said in tripod.items(result)}
    assert told["14"].startswith("No subgroups of people were compared")
    result["evaluation"]["cohorts"][0]["subgroups"] = [{"name": "sex", "levels": [{"name": "women"}]}]
    assert "For whom does it work?" not in read(page(result))[1]


def test_subgroups_that_were_asked_for_are_named_where_none_can_be_told(make):
    result = make(sites=4, whom=("everyone",))
    result["study"]["task"] = {"name": "table", "fields": {"subgroups": [{"name": "age", "edges": [65]}, "female"]}}
    result["evaluation"]["cohorts"][0]["subgroups"] = []
    _, text = read(page(result))
    assert "For whom does it work? Asked for: age, female; too few to tell any." in text
    told = {number: said or "" for number, _, said in tripod.items(result)}
    assert told["14"].startswith("Asked for: age, female; too few to tell any.")
    result["evaluation"]["cohorts"][0]["subgroups"] = [{**WAYS[0], "name": "female"}]
    _, text = read(page(result))
    assert "Asked for too, with too few cases to tell any: age." in text
