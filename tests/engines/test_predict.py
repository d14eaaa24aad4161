"""One model, three ways in: a table, a form and a hospital's records give the same bits; nothing of later enters."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
from datetime import datetime

import numpy as np
import pandas as pd
import pytest

import learner_jax as lr
from benchmarks import population
from learner_jax import specs
from learner_jax.cli.main import main
from learner_jax.data import stays
from learner_jax.data.doors import open_records
from learner_jax.data.tables import read_table
from learner_jax.errors import DataError
from learner_jax.specs import Data

RULE = "heart_failure_readmission"
DOORS = ("meds", "omop", "fhir", "tables")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two hospitals' records at every door, and their features by the command."""
    folder = tmp_path_factory.mktemp("predict")
    (folder / "features").mkdir()
    for site, seed in (("north", 11), ("south", 12)):
        made = population.make(150, seed=seed)
        for door in DOORS:
            getattr(population, f"to_{door}")(made, folder / site / door)
        asked = ["data", "cohort", str(folder / site / "fhir"), f"--cohort={RULE}"]
        assert main([*asked, f"--features={folder}/features/{site}.csv"]) == 0
    return folder


@pytest.fixture(scope="module")
def run(place):
    """A network without hidden layers would hide an input that is taken twice: one with."""
    found = specs.check(specs.read("heart_failure"))
    data = Data(source=str(place / "features"), site_column=None, split_column=None)
    study = dataclasses.replace(found, data=data, rounds=4, references=(), model=lr.mlp(hidden=(8,)))
    return lr.simulate(study, workdir=place / "run")


def of_table(run, path) -> dict[str, float]:
    table = read_table(path)
    return dict(zip(table["encounter"].astype(str), run.model.predict(table), strict=True))


def chances(found) -> dict[str, float]:
    return dict(zip(found.table["encounter"], found.table["chance"], strict=True))


# ---- a form ----------------------------------------------------------------------------------------------------------


def test_a_form_gives_the_bits_that_a_table_gives(run, place):
    table = read_table(place / "features" / "north.csv").iloc[:8]
    asked = {column["name"] for column in run.model.parts.study.task.fields["columns"]} - {"patient", "outcome"}
    told = run.model.predict(table)
    assert len(set(told)) == 8
    for (_, row), chance in zip(table.iterrows(), told, strict=True):
        words = {name: row[name] for name in asked}
        assert run.model.predict_one(words).chance == chance
        numbers = {name: float(value) for name, value in words.items() if value != ""}
        assert run.model.predict_one(numbers).chance == chance


def test_what_is_not_given_is_told_with_what_is_taken(run):
    found = run.model.predict_one({"age": 71, "female": True, "sodium_last": None, "charlson": ""})
    instead, unheard = found.notes
    mean = run.model.fitted["mean"]["charlson"]
    assert f"charlson ({mean:.4g})" in instead and " age" not in instead
    assert instead.endswith("the mean of all sites is taken") and "sodium_last" not in instead
    assert "sodium_last" in unheard and unheard.endswith("nothing was learned of it") and "(" not in unheard
    whole = {name: value for name, value in run.model.fitted["mean"].items() if name not in ("age", "female")}
    assert set(whole) == {n for n in whole if n in f"{instead}, {unheard}"}
    assert found.given == ("age", "female")


def test_contributions_are_those_of_the_table_the_largest_first(run, place):
    table = read_table(place / "features" / "north.csv").iloc[:1]
    asked = {column["name"] for column in run.model.parts.study.task.fields["columns"]} - {"patient", "outcome"}
    found = run.model.predict_one({name: table[name].iloc[0] for name in asked}).contributions
    pd.testing.assert_series_equal(found.sort_index(), run.model.contributions(table).iloc[0].sort_index(),
                                   check_names=False)  # fmt: skip
    assert list(found.abs()) == sorted(found.abs(), reverse=True)


@pytest.mark.parametrize(
    "values, words",
    [
        ({"agee": 71}, r"no column 'agee' \(did you mean age\?\)"),
        ({"age": 710}, "column 'age': expected a number, 18 to 120 years, got a number above the range: is it"),
        ({"age": "old"}, "column 'age': expected a number, 18 to 120 years, got text"),
        ({"female": "2"}, "column 'female': expected one of '0', '1', got something else"),
        ({"outcome": 1}, "'outcome' is what is predicted"),
        ({"xyz": 1, "agee": 2}, "no column 'xyz'; no column 'agee'"),
    ],
)
def test_a_form_that_does_not_fit_is_a_line(run, values, words):
    with pytest.raises(DataError, match=f"^form: {words}") as told:
        run.model.predict_one(values)
    assert "row" not in str(told.value)


def test_a_value_that_no_site_had_is_told(run):
    found = run.model.predict_one({"sodium_last": 131})
    assert "no site had a value of sodium_last to learn from" in found.notes[0]
    assert "no site had a value" not in " ".join(run.model.predict_one({"potassium_last": 4}).notes)
    assert found.chance == run.model.predict_one({}).chance == run.model.predict_one({"sodium_last": 150}).chance
    assert found.chance != run.model.predict_one({"potassium_last": 6}).chance


def test_names_by_alias_and_values_that_must_be_known():
    columns = (
        {"name": "dose", "kind": "number", "aliases": ("d",), "missing": "refuse"},
        {"name": "ward", "kind": "category", "codes": ("a", "b")},
        {"name": "code", "kind": "code"},
        {"name": "back", "kind": "flag"},
    )
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"dose": draw.normal(size=80), "ward": list("ab") * 40, "code": list("xy") * 40,
                          "back": draw.integers(0, 2, 80)})  # fmt: skip
    study = lr.Study(name="s", task=lr.table(columns=columns, label="back"), target="valid/loss", references=(),
                     rounds=1, algorithm=lr.fedavg(local=lr.optimizer("sgd", learning_rate=0.1)))  # fmt: skip
    model = lr.simulate(study, sites={"a": frame, "b": frame}).model
    assert model.predict_one({"d": 1.5}).chance == model.predict_one({"dose": 1.5}).chance
    assert model.predict_one({"d": 1.5}).notes == ("not given: ward, code; no code is taken",)
    with pytest.raises(DataError, match="column 'dose' is given twice"):
        model.predict_one({"d": 1.5, "dose": 2})
    with pytest.raises(DataError, match="form: column 'dose': expected a number, got no value"):
        model.predict_one({"ward": "a"})
    with pytest.raises(DataError, match="predict_one takes one row"):
        model.predict({"dose": 1.5})
    with pytest.raises(DataError, match="the study asks for column 'dose', and 2 more, which is no feature"):
        stays.fitting(pd.DataFrame({"age": [1.0]}), model.parts.task.checklist.columns[:3])


# ---- records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
def test_records_give_the_bits_that_cohort_and_features_give(run, place, door):
    found = chances(run.model.predict_records(place / "north" / door, every=True, cohort=RULE))
    table = of_table(run, place / "features" / "north.csv")
    assert len(table) > 100 and len(set(table.values())) > 100
    assert {encounter: found[encounter] for encounter in table} == table
    assert len(found) > len(table)  # stays beside the cohort, too


def bundle(source, patient: str, to) -> None:
    """One patient's resources as a FHIR bundle."""
    entries = []
    for path in sorted(source.glob("*.ndjson.gz")):
        for line in gzip.decompress(path.read_bytes()).splitlines():
            one = json.loads(line)
            if patient in (one["id"], one.get("subject", {}).get("reference", "").removeprefix("Patient/")):
                entries.append({"resource": one})
    to.write_text(json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}, indent=1))


def test_one_patient_s_bundle_gives_the_bits_of_the_table(run, place, tmp_path):
    table = of_table(run, place / "features" / "south.csv")
    rows = list(csv.DictReader((place / "features" / "south.csv").read_text().splitlines()))
    for row in rows[:: len(rows) // 4]:
        bundle(place / "south" / "fhir", f"p{row['patient']}", tmp_path / "one.json")
        found = run.model.predict_records(tmp_path / "one.json", encounter=row["encounter"], cohort=RULE)
        assert chances(found) == {row["encounter"]: table[row["encounter"]]}
        assert "not in the cohort" not in " ".join(found.notes)


@pytest.mark.parametrize("change", ["delete", "shuffle", "ask for then"])
def test_nothing_later_moves_a_prediction(run, place, change):
    """Each patient's first stay: all that comes after its discharge is changed, or taken away by --at."""
    with open_records(place / "north" / "meds") as records:
        first = "SELECT patient, arg_min(number, admit), min(discharge) FROM encounters WHERE kind = 'stay' GROUP BY 1"
        asked = sorted(records.sql(first))
    whole = chances(run.model.predict_records(place / "north" / "meds", every=True))
    tried = 0
    for patient, number, discharge in asked:
        if number not in whole or tried == 5:
            continue
        with open_records(place / "north" / "meds") as records:
            later = "patient = ? AND time > ?"
            if records.one(f"SELECT count(*) FROM events WHERE {later}", patient, discharge) < 10:
                continue
            if records.one("SELECT count(*) FROM encounters WHERE patient = ? AND admit BETWEEN ? AND ?::TIMESTAMP + "
                           "to_hours(24)", patient, discharge, discharge):  # fmt: skip
                continue  # a transfer is part of the stay
            if change == "delete":
                records.sql(f"DELETE FROM events WHERE {later}", patient, discharge)
                records.sql("DELETE FROM encounters WHERE patient = ? AND admit > ?", patient, discharge)
                records.sql("UPDATE patients SET death = NULL")
            elif change == "shuffle":
                ill = "kind = 'diagnosis', code = 'ICD10CM//C780', value = -1"
                records.sql(f"UPDATE events SET {ill} WHERE {later}", patient, discharge)
            at = discharge if change == "ask for then" else None
            found = run.model.predict_records(records, encounter=number, at=at)
        assert chances(found) == {number: whole[number]}
        tried += 1
    assert tried == 5


def by_hand(folder, end: str = "2020-06-07 12:00", more: str = "", events: str = ""):
    """A patient with an earlier stay and one that ends, or has not; and an outpatient visit."""
    folder.mkdir()
    (folder / "patients.csv").write_text("patient,birth,sex,death\n1,1950-06-01,F,\n2,1980-01-01,M,2020-02-02 01:00\n")
    (folder / "stays.csv").write_text(
        "patient,encounter,admit,discharge,kind,admitted_from\n"
        "1,11,2020-02-01 00:00,2020-02-03 12:00,stay,HOME\n"
        f"1,13,2020-06-02 00:00,{end},stay,EMERGENCY ROOM\n"
        "1,12,2020-01-05 00:00,2020-01-05 02:00,other,\n"
        f"2,21,2020-02-01 00:00,2020-02-02 01:00,stay,HOME\n{more}"
    )
    (folder / "events.csv").write_text(
        "patient,encounter,time,kind,system,code\n"
        "1,11,2020-02-01,diagnosis,ICD10CM,E11.9\n"
        "1,13,2020-06-03 00:00,diagnosis,ICD10CM,I50.9\n"
        f"1,13,2020-06-05 12:00,medicine,RxNorm,1191\n{events}"
    )
    return folder


def known(folder, **asked):
    with open_records(folder) as records:
        found = stays.find(records, **asked)
    return found.table.set_index("encounter"), " ".join(found.notes)


def test_a_stay_that_has_not_ended_is_predicted_as_if_it_ended_now(tmp_path):
    table, notes = known(by_hand(tmp_path / "open", end=""))
    row = table.loc["13"]
    assert row["until"] == datetime(2020, 6, 5, 12) and row["stay_days"] == 3.5  # the last that is recorded
    assert row["heart_failure"] == 1 and row["diabetes"] == 1 and row["stays_180"] == 1
    assert "1 stay has not ended: predicted as if discharged now, 2020-06-05 12:00, the last time in" in notes
    table, notes = known(by_hand(tmp_path / "then", end=""), at=datetime(2020, 6, 3, 12))
    assert table.loc["13", "stay_days"] == 1.5 and table.loc["13", "heart_failure"] == 1
    assert "2020-06-03 12:00, the moment asked for" in notes


def test_a_moment_within_a_stay_knows_no_code_that_its_end_brought(tmp_path):
    """A coded diagnosis is known when its stay is over, however early it is stamped; so are end and destination."""
    later = "1,,2020-07-01 00:00,medicine,RxNorm,1191\n"
    table, notes = known(by_hand(tmp_path / "over", events=later), at=datetime(2020, 6, 4))
    row = table.loc["13"]
    assert row["stay_days"] == 2 and row["heart_failure"] == 0 and row["diabetes"] == 1 and "not ended" in notes
    whole = known(tmp_path / "over")[0].loc["13"]
    assert whole["heart_failure"] == 1 and whole["stay_days"] == 5.5
    before, _ = known(tmp_path / "over", at=datetime(2020, 5, 1), patient="1")
    assert list(before.index) == ["11"]  # the stay of June has not begun


def test_who_is_left_out_is_told(tmp_path):
    table, notes = known(by_hand(tmp_path / "h", more="1,10,2019-01-01 00:00,,stay,HOME\n"), every=True)
    assert list(table.index) == ["11", "13"]
    assert "left out: 1 stay of which nobody says the end, though another follows, 1 stay that ended in death" in notes
    assert list(known(tmp_path / "h")[0].index) == ["13"]  # the last of each patient
    for asked, words in (
        ({"encounter": "21"}, "stay 21 ended in death: there is nothing to predict"),
        ({"encounter": "12"}, "encounter 12 is no stay in a hospital"),
        ({"encounter": "10"}, "encounter 10 has no beginning or end that fits"),
        ({"encounter": "99"}, "expected one stay '99', got none"),
        ({"patient": "3"}, "expected one patient '3', got none"),
        ({"patient": "2"}, "expected a stay in a hospital, got none"),
    ):
        with pytest.raises(DataError, match=words):
            known(tmp_path / "h", **asked)


def test_a_transfer_is_part_of_its_stay(tmp_path):
    more = "1,14,2020-06-07 20:00,2020-06-09 00:00,stay,TRANSFER\n"
    table, _ = known(by_hand(tmp_path / "h", more=more), encounter="14")
    assert list(table.index) == ["13"] and table.loc["13", "stay_days"] == 7
    table, _ = known(tmp_path / "h", encounter="14", cohort="demo_heart_failure")  # a rule that merges nothing
    assert list(table.index) == ["14"] and table.loc["14", "stay_days"] == pytest.approx(28 / 24)


def test_stays_beside_the_cohort_are_told_by_the_step_that_leaves_them_out(tmp_path):
    more = "2,20,2019-01-01 00:00,2019-01-05 00:00,stay,HOME\n1,14,2020-06-10 00:00,2020-06-11 00:00,stay,HOME\n"
    ill = "1,14,,diagnosis,ICD10CM,I50.9\n"
    _, notes = known(by_hand(tmp_path / "h", more=more, events=ill), every=True, cohort=RULE)
    assert "not in the cohort heart_failure_readmission" in notes
    assert (
        "2 of 4 (with a diagnosis of heart failure: no), 1 of 4 (not within 30 days of an index discharge: no)" in notes
    )
    _, notes = known(tmp_path / "h", encounter="13", cohort=RULE)
    assert "not in the cohort" not in notes
    _, notes = known(tmp_path / "h", encounter="13", cohort="cms_heart_failure")
    assert "whether it would be in the cohort cms_heart_failure cannot be said" in notes


def test_stays_that_the_study_does_not_take_are_left_out_and_told(run, tmp_path):
    folder = by_hand(tmp_path / "h", more="3,31,2020-02-01 00:00,2020-02-05 00:00,stay,HOME\n")
    with (folder / "patients.csv").open("a") as file:
        file.write("3,2015-01-01,F,\n")
    found = run.model.predict_records(folder)
    assert list(found.table["patient"]) == ["1"]
    assert "1 of 2 stays do not fit what the study asks for (age of 1)" in " ".join(found.notes)
    with pytest.raises(DataError, match=r"1 of 1 stays do not fit what the study asks for \(age of 1\)"):
        run.model.predict_records(folder, patient="3")


def test_values_are_those_of_the_file(place):
    """The file's ten digits, no more: else a bit of the model's input may differ."""
    with open_records(place / "north" / "omop") as records:
        table = stays.find(records, every=True).table
    for name in ("stay_days", "days_since_stay", "days_in_stays_365"):
        values = table[name].dropna()
        assert len(set(values)) > 50 and all(float(f"{value:.10g}") == value for value in values)
