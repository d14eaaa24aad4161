"""The page's cohort and inputs: sums that are sums, a step that a site did not need, and no count of a federation."""

from __future__ import annotations

import copy
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner_jax.data.cohorts import AS_ONE
from learner_jax.reports.html import cohort_page, page
from learner_jax.reports.included import in_words, included, merged, section, summary
from learner_jax.reports.inputs import absent, looked_like, rounded
from learner_jax.reports.words import Nouns
from tests.reports.test_page import read

RULE = {
    "name": "hf", "title": "Adults with heart failure", "diagnoses": ["heart_failure"], "position": "any",
    "age_min": 18, "discharged_not_to": ["died", "hospice"], "repeat_within_days": 30, "gap_hours": 24,
    "window_days": 30.0, "count": "dates", "planned": [], "death": "own_row", "lost": "not_told",
}  # fmt: skip


def chosen(name: str, left: list[int], outcomes=(8, 20, 2, 0), words="abcdef", **more):
    """A table's cohort, its stays after each step."""
    steps = [{"words": f"step {word}", "stays": count, "patients": count // 2} for word, count in zip(words, left)]
    kinds = dict(zip(("1", "0", "died", "lost"), outcomes))
    return {"name": name, "door": "omop", "rule": RULE, "attrition": steps, "outcomes": kinds, "notes": [], **more}


NORTH, SOUTH = chosen("north", [211, 207, 30]), chosen("south", [150, 140, 131, 12], (3, 9, 0, 0), "abxc", door="fhir")


def cells(table):
    return [row["cells"] for row in table["rows"]]


def test_the_sum_is_that_of_the_sites_and_a_step_not_needed_leaves_what_was_there():
    assert merged([NORTH, SOUTH]) == [
        ("step a", [(211, 105), (150, 75)]),
        ("step b", [(207, 103), (140, 70)]),
        ("step x", [(207, 103), (131, 65)]),
        ("step c", [(30, 15), (12, 6)]),
    ]
    (group,) = section([NORTH, SOUTH], Nouns())["groups"]
    assert cells(group["steps"]) == [
        ["1. step a", "361", "180", ""],
        ["2. step b", "347", "173", "14"],
        ["3. step x", "338", "168", "9"],
        ["4. step c", "42", "21", "296"],
    ]
    assert cells(group["by_site"])[-1] == ["All", "361", "347", "338", "42"]
    assert cells(group["came"]) == [
        ["north", "OMOP", "30", "8", "20", "2"],
        ["south", "FHIR", "12", "3", "9", "0"],
        ["All", "", "42", "11", "29", "2"],
    ]
    assert summary([NORTH, SOUTH]) == "42 index stays in two tables: 11 readmitted, 29 not, 2 died before."


@given(st.lists(st.lists(st.sampled_from("abcdefg"), unique=True, min_size=1), min_size=1, max_size=5), st.randoms())
def test_no_step_is_lost_and_none_leaves_more(orders, random):
    found = []
    for at, words in enumerate(orders):
        left = sorted((random.randrange(100) for _ in words), reverse=True)
        found.append(chosen(f"s{at}", left, words="".join(sorted(words))))
    steps = merged(found)
    words = [word for word, _ in steps]
    assert sorted(words) == sorted({f"step {word}" for order in orders for word in order})
    for at, one in enumerate(found):
        own = {step["words"]: step["stays"] for step in one["attrition"]}
        column = [left[at][0] for _, left in steps]
        assert all(column[words.index(word)] == count for word, count in own.items())


def test_tables_of_one_rule_stand_together_and_of_another_apart():
    other = chosen("west", [9, 5], rule={**RULE, "title": "Everyone", "diagnoses": None})
    groups = section([NORTH, other, SOUTH], Nouns())["groups"]
    assert [group["heading"] for group in groups] == ["Adults with heart failure", "Everyone"]
    assert [row[0] for row in cells(groups[0]["came"])] == ["north", "south", "All"]
    assert [row[0] for row in cells(groups[1]["came"])] == ["west"]


def test_stays_that_were_merged_are_not_told_as_left_out():
    one = chosen("north", [211, 207, 30])
    one["attrition"][1]["words"] = f"after stays with at most 24 hours between them {AS_ONE}"
    (group,) = section([one], Nouns())["groups"]
    assert [row[-1] for row in cells(group["steps"])] == ["", "4 merged", "177"]


def test_a_rule_in_words():
    told = dict(in_words(RULE))
    assert told["Index stay"] == "a stay with a diagnosis, in any position, of heart failure"
    assert (
        told["Age"] == "18 years or more at admission" and told["Left out"] == "stays that ended in death or to hospice"
    )
    assert "within 30 days of the discharge, counted by dates" in told["Outcome"]
    assert told["Deaths"].endswith("has no row") and told["Follow-up"].endswith("counts as not readmitted")
    bare = {"name": "x", "window_days": 7, "count": "clock", "planned": ["planned_stays"], "death": "not_told"}
    told = dict(in_words(bare))
    assert told["Index stay"] == "every hospital stay" and not {"Age", "Left out", "Transfers", "Repeats"} & set(told)
    assert "within 7 days of the discharge, counted by the clock; a stay with" in told["Outcome"]
    assert told["Outcome"].endswith("a code of planned stays is none")


def test_the_page_shows_it_and_without_files_no_section(make):
    result = make(sites=4, whom=("everyone",))
    assert 'id="who"' not in page(result) and 'id="inputs"' not in page(result)
    problem = {"name": "west", "problem": "west.cohort.json is no JSON"}
    north = {**NORTH, "notes": ["61% of <b>the</b> diagnoses have no code", "both"]}
    result["data"] = {"chosen": [north, {**SOUTH, "notes": ["both"]}, problem]}
    reader, text = read(page(result))
    assert "From the records of two hospitals, 42 index stays" in text and "4. step c" in text
    assert "north: 61% of <b>the</b> diagnoses have no code." in text and "b" not in {tag for tag, _ in reader.seen}
    assert "All: both." in text and text.count("both.") == 1
    assert "Left out: west.cohort.json is no JSON." in text


def test_of_a_federation_no_count_is_shown_whatever_the_result_holds(make):
    result = make(federation=True)
    result["data"] = {"chosen": [chosen("north", [98765, 43210])]}
    html = page(result)
    _, text = read(html)
    assert "Each hospital keeps how it chose its rows" in text and "No count of it left a site." in text
    assert "98,765" not in html and "98765" not in html and "43,210" not in html
    found = included(result, Nouns())
    assert found is not None and found["groups"] == []


def test_a_hospitals_own_page(make):
    reader, text = read(cohort_page({**NORTH, "name": "<i>north</i>"}))
    assert "<i>north</i>" in text and "i" not in {tag for tag, _ in reader.seen}
    assert "From the records of one hospital, 30 index stays" in text and "step b" in text
    assert [attributes["scope"] for tag, attributes in reader.seen if tag == "th"]
    assert "data:" not in cohort_page(NORTH) and "<script" not in cohort_page(NORTH)


# ---- what the data looked like ---------------------------------------------------------------------------------------


def inputs(count: int):
    one = {"kind": "number", "unit": "mg/dL", "about": "last", "missing": 0.123, "mean": 1.5, "deviation": 0.25,
           "few": "", "codes": []}  # fmt: skip
    return [{**one, "name": f"input {at:03d}"} for at in range(count)]


def described(*tables, rows=1234):
    return {
        "rows": rows,
        "tables": [{"title": title, "inputs": found} for title, found in tables],
        "note": "As summed.",
    }


@pytest.mark.parametrize(("count", "shown"), [(16, 16), (17, 12), (90, 12)])
def test_long_tables_fold_and_nothing_is_lost(make, count, shown):
    result = make(sites=4, whom=("everyone",))
    result["data"] = {"inputs": described(("", inputs(count)))}
    html = page(result)
    part = html[html.index('aria-labelledby="inputs"') : html.index('aria-labelledby="curve"')]
    before, _, after = part.partition("<details>")
    assert before.count(">input ") == shown and after.count(">input ") == count - shown
    assert (f"{count - shown} more" in after) == (shown < count)
    assert "details::details-content { content-visibility: visible" in html  # and on paper all of it


def test_the_figures_of_an_input(make):
    result = make(sites=4, whom=("everyone",))
    one, flag, code, few, open_ = inputs(5)
    flag |= {"kind": "flag", "unit": "", "about": "", "mean": 0.4321, "deviation": None, "missing": 0.004}
    code |= {"kind": "code", "mean": None, "deviation": None, "codes": [["A10", 0.5], ["B01", 0.25]], "missing": 0.0}
    few |= {"mean": None, "deviation": None, "few": "a few", "missing": 1.0}
    open_ |= {"missing": None}
    result["data"] = {"inputs": described(("", [one, flag, code, few, open_])),
                      "dealt": {"train": {"rows": 1234, "patients": 999, "events": 77}}}  # fmt: skip
    html = page(result)
    _, text = read(html)
    assert "Five columns, of 1,234 stays to learn from" in text and "As summed." in text
    assert "input 000 mg/dL, last number 12 % 1.50 0.250" in text
    assert "input 001 yes or no under 1 % 43.2 % –" in text
    assert "none A10 50.0 %, B01 25.0 % –" in text
    assert "all a few –" in text and "fewer than ten rows" in text
    assert "to learn from 1,234 999 77" in text
    part = html[html.index('aria-labelledby="inputs"') : html.index('aria-labelledby="curve"')]
    heads = part.count("<th ")
    assert heads and part.count('scope="') == heads and part.count("<caption") == part.count("<table")


def test_names_of_columns_are_told_and_never_run(make):
    result = make(sites=4, whom=("everyone",))
    odd = inputs(2)
    odd[0]["name"], odd[1]["about"] = "<script>1</script>", '"><img src=x>'
    result["data"] = {"inputs": described(("<i>t</i>", odd))}
    reader, _ = read(page(result))
    assert not {"script", "img", "i"} & {tag for tag, _ in reader.seen}


def test_numbers_as_people_read_them():
    assert [rounded(one) for one in (66.0, 7.3833, 0.01706, 1234.5, 0.0, 100.4, -2.5)] == [
        "66.0", "7.38", "0.0171", "1,234", "0.00", "100", "-2.50",
    ]  # fmt: skip
    assert [absent(one) for one in (None, 0.0, 0.001, 0.126, 1.0)] == ["", "none", "under 1 %", "13 %", "all"]
    assert looked_like({}, Nouns()) is None


def test_a_result_is_not_changed_by_its_page(make):
    result = make(sites=4, whom=("everyone",))
    result["data"] = {"chosen": [NORTH, SOUTH], "inputs": described(("", inputs(3)))}
    before = copy.deepcopy(result)
    page(result)
    assert result == before


def test_every_cell_of_a_table_names_its_column_on_a_phone(make):
    """Where a row becomes lines, its head is out of sight."""
    result = {**make(), "data": {"chosen": [NORTH, SOUTH]}}
    html = page(result)
    for table_ in re.findall(r'<table class="reflow sheet".*?</table>', html, re.S):
        heads = re.findall(r"<th scope=\"col\"[^>]*>([^<]*)</th>", table_)
        for row in re.findall(r"<tr role=\"row\".*?</tr>", table_.split("</thead>")[1], re.S):
            labels = re.findall(r'<td[^>]* data-label="([^"]*)"', row)
            assert [label.removeprefix("Step ") for label in labels] == heads[1:]
            assert row.count("<td") == len(labels)
    assert 'data-label="Step 1"' in html and '<table role="table">' not in html
