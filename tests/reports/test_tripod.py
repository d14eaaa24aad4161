"""TRIPOD+AI: every item in its place, filled by what the run did, and nothing claimed that it did not."""

from __future__ import annotations

import copy
import re

from learner_jax.reports.html import page
from learner_jax.reports.tripod import UNKNOWN, items
from tests.reports.test_included import NORTH, SOUTH, described, inputs
from tests.reports.test_page import read

OTHERS = "2 3a 3b 3c 5b 6c 8b 8c 9c 17 18a 18b 18c 18d 18e 19 25 27b 27c".split()
"""What no run can know."""


def told(result) -> dict[str, str]:
    return {item.number: item.text or "" for item in items(result)}


def study(**changes):
    """A whole run of a declared table, by the notebook's own evaluation."""
    columns = [
        {"name": "patient", "kind": "id"}, {"name": "age", "kind": "number"}, {"name": "smoker", "kind": "flag"},
        {"name": "creatinine", "kind": "number", "missing": "indicator"},
        {"name": "back", "kind": "flag", "about": "readmitted"},
    ]  # fmt: skip
    fields = {"columns": columns, "label": "back", "patient": "patient", "positive": "", "test_share": 0.2,
              "valid_share": 0.1}  # fmt: skip
    return {"task": {"kind": "tasks", "name": "table", "fields": {**fields, **changes}}}


def test_all_items_are_there_in_order(make):
    numbers = [item.number for item in items(make())]
    assert len(numbers) == len(set(numbers)) == 52
    places = [(int(re.sub(r"\D", "", number)), number) for number in numbers]
    assert places == sorted(places) and {place for place, _ in places} == set(range(1, 28))
    assert numbers == [item.number for item in items({})]


def test_an_empty_result_claims_nothing():
    found = told({"study": {}, "kind": "simulation", "rounds": 0, "curve": []})
    assert {number for number, text in found.items() if text} == {"12e", "23a", "26"}
    assert "No measure was computed" in found["12e"] and "Not measured" in found["23a"]


def test_what_only_people_know_is_theirs(make):
    result = {**make(), "data": {"chosen": [NORTH, SOUTH], "inputs": described(("", inputs(3)))}}
    result["study"] |= study()
    found = told(result)
    assert [number for number in OTHERS if found[number]] == []
    _, text = read(page(result))
    assert text.count(UNKNOWN) == sum(not text for text in found.values()) >= len(OTHERS)


def test_measures_are_those_that_were_computed(make):
    found = told(make())
    assert "AUROC, AUPRC, Brier score; 95 % intervals by bootstrap of whole patients" in found["12e"]
    assert "in ten groups, calibration slope, calibration intercept; net benefit (decision curve)" in found["12e"]
    assert "Compared with models of each site alone and a model of all rows in one place." in found["12e"]
    area = make()["evaluation"]["cohorts"][0]["all"]["models"]["federated"]["auroc"]
    assert f"AUROC {area['value']:.3f} ({area['low']:.3f} to {area['high']:.3f})" in found["23a"]


def test_a_run_without_bootstrap_calibration_or_references_says_so(make):
    result = copy.deepcopy(make())
    for cohort in result["evaluation"]["cohorts"]:
        cohort |= {"calibration": [], "slope": None, "intercept": None, "decisions": {}}
        for site in [*cohort["sites"], cohort["all"], cohort["average"]]:
            site["gain"] = {}
            site["models"] = {"federated": site["models"].get("federated", {})}
            for name, figure in site["models"]["federated"].items():
                if isinstance(figure, dict):
                    site["models"]["federated"][name] = {"value": figure["value"]}
    found = told(result)
    assert "no intervals were computed; calibration was not measured; net benefit was not measured" in found["12e"]
    assert "Compared with no other model." in found["12e"]
    whole = " ".join(found.values())
    assert not re.search(r"bootstrap|decision curve|slope|95 %|beside a model of its own| to 0\.\d", whole)


def test_a_run_that_was_not_judged_claims_no_validation(make):
    found = told(make(judged=False, task="x", metric="mse"))
    assert "no internal validation on held-back rows" in found["12c"] and "No measure was computed" in found["12e"]
    assert not any(found[number] for number in ("12d", "12f", "12g", "14", "15", "16", "23b", "24"))
    assert not re.search("bootstrap|AUROC|calibrat(?!ion$)ed", " ".join(found.values()).replace("no calibration", ""))


def test_a_federation_says_what_stays_at_the_sites(make):
    result = make(federation=True)
    result["data"] = {"chosen": [NORTH], "inputs": described(("", inputs(2)), rows=4321)}
    found = told(result)
    assert "4,321 stays to learn from (how many who came back stays at the hospitals)" in found["21"]
    assert "of their average from its errors" in found["12e"] and "a model of all rows in one place" not in found["12e"]
    assert not (found["5a"] or found["6b"] or found["20a"]) and "211" not in " ".join(found.values())


def test_cohort_and_rows_where_they_are_known(make):
    result = make(sites=4, whom=("everyone",))
    dealt = {
        "train": {"rows": 700, "patients": 600, "events": 90},
        "test": {"rows": 200, "patients": 180, "events": 25},
    }
    result["data"] = {"chosen": [NORTH, SOUTH], "dealt": dealt, "inputs": described(("", inputs(2)), rows=700)}
    result["study"] |= study()
    found = told(result)
    assert "read as FHIR, OMOP, two tables. Synthetic figures" in found["5a"]  # what is made up is said
    assert "18 years or more at admission" in found["6b"] and "42 index stays" in found["20a"]
    assert "700 " in found["21"] and "25 " in found["21"] and "no sample size was calculated" in found["10"]
    assert "within 30 days of the discharge" in found["8a"] and found["8a"].startswith("Column back: readmitted.")


def test_predictors_and_missing_values_as_the_config_declares_them(make):
    result = {**make(), "data": {"inputs": described(("", inputs(3)))}}
    result["study"] |= study()
    found = told(result)
    assert "All 3 columns that the config declares" in found["9a"]
    assert (
        "in two columns the mean of all sites’" in found["11"] and "in one column the same, and an input" in found["11"]
    )
    assert "Flags as 0 or 1." in found["12b"] and "category" not in found["12b"]
    assert found["12a"].startswith("By patient: held back to judge on, 20 of 100 drawn; of the others 10 of 100")
    result["study"] |= {**study(patient=None), "data": {"split_column": "split"}}
    assert told(result)["12a"].startswith("By row, each taken as another patient: held back to judge on, as a column")


def test_judged_at_sites_is_only_said_of_those_that_were(make):
    result = copy.deepcopy(make())
    sites = result["evaluation"]["cohorts"][0]["sites"]
    judged = sum("auroc" in site["models"]["federated"] for site in sites)
    assert (
        f"judged at {judged} of 10 hospitals by its own stays, beside a model of its own. The others"
        in told(result)["12d"]
    )
    for site in sites:
        site["models"]["federated"].pop("auroc", None)
    assert "No hospital has enough stays" in told(result)["12d"]


def test_a_study_without_each_site_says_so(make):
    result = copy.deepcopy(make())
    assert "was not judged at hospitals that had no part" in told(result)["16"]
    for cohort in result["evaluation"]["cohorts"]:
        for site in [*cohort["sites"], cohort["all"]]:
            site["models"]["all_but_me"] = site["models"]["federated"]
    assert "was also trained without each hospital" in told(result)["16"]
    assert "the study once more without each site" in told(result)["12e"]


def kept_at_home(make):
    """A federation each of whose sites judged the model and told no figure."""
    result = copy.deepcopy(make(federation=True))
    for cohort in result["evaluation"]["cohorts"]:
        for site in cohort["sites"]:
            site |= {"events": None, "models": {}, "gain": {}}
        cohort["all"] |= {"events": 0, "withheld": 10, "judged": 0, "models": {}, "gain": {}}
        cohort |= {"calibration": [], "slope": None, "intercept": None}
    return result


def test_judged_and_kept_at_home_is_not_unjudged(make):
    result = kept_at_home(make)
    result["study"]["task"] = {**result["study"]["task"], "fields": {"subgroups": [{"name": "age", "edges": [65]}]}}
    found, (_, text) = told(result), read(page(result))
    for number in ("12c", "12e", "23a"):
        assert "Judged at each hospital on its held-back stays; with fewer than ten who came back" in found[number]
    assert "its evaluation on held-back rows at each site" in found["4"]
    assert found["14"].startswith("Asked for: age; too few to tell any.")
    said = " ".join(found.values())
    assert not re.search("not evaluated|no internal validation|No measure|Not measured", said)
    assert "judged on" not in first_part(text) and "Judged at each hospital" in first_part(text)
    assert "None of 10 hospitals has enough stays to judge it." in text.replace("None of ten", "None of 10")
    assert "Uncertainty: in 95" not in text
    assert "Uncertainty: in 95" in read(page(make(federation=True)))[1]


def first_part(text):
    return text[: text.index("In short")]


def test_watching_rows_of_a_federation_are_named_where_they_stay(make):
    for number in ("10", "21"):
        assert "how many were set aside for watching stays at the hospitals" in told(make(federation=True))[number]


def test_as_many_groups_are_told_as_there_are(make):
    result = make(sites=4, whom=("everyone",))
    cohort = result["evaluation"]["cohorts"][0]
    cohort["calibration"] = cohort["calibration"][:2]
    assert "told against observed chances, in two groups" in told(result)["12e"]
    _, text = read(page(result))
    assert "Each dot: one of two groups of the stays" in text and "tenth" not in text
