"""Cohorts' files, what is wrong with one, and a cohort in words and as a file."""

from __future__ import annotations

import csv

import pytest

from benchmarks import population
from learner_jax.cli.main import main
from learner_jax.data import cohorts
from learner_jax.data.doors import open_records
from learner_jax.errors import ConfigError
from learner_jax.reports.attrition import emptied, text


def test_shipped_rules_and_lists_are_read_and_fit_together():
    rules = cohorts.shipped("cohorts", ".yaml")
    assert {"heart_failure_readmission", "cms_heart_failure", "demo_heart_failure"} <= rules.keys()
    for name in rules:
        rule, lists = cohorts.load(name)
        assert rule.name == name and rule.title and set(lists) == set(rule.lists)
        assert all(lists.values())


@pytest.mark.parametrize(
    "told, said",
    [
        ("[1, 2", "expected YAML"),
        ("just words", "expected a cohort"),
        ("name: x\nindx: {}", r"no section 'indx' \(did you mean index\?\)"),
        ("name: x\nindex: {posision: any}", r"no field 'index.posision' \(did you mean position\?\)"),
        ("name: x\nindex: {position: first}", "expected any or primary, got 'first'"),
        ("name: x\nindex: {diagnoses: heart_failure}", "index.diagnoses: expected a list of names"),
        ("name: x\nindex: {discharged_not_to: [hospise]}", r"no 'hospise' \(did you mean hospice\?\)"),
        ("name: x\noutcome: {window_days: -1}", "expected a number from 0 up, got -1"),
        ("name: x\nindex: {age_min: old}\nmerge: {gap: 1}", "index.age_min.*; no field 'merge.gap'"),
        ("name: x\nindex: {diagnoses: [heart_failur]}", r"no code list 'heart_failur' \(did you mean heart_failure"),
    ],
)
def test_what_is_wrong_with_a_rule_is_one_line(tmp_path, told, said):
    path = tmp_path / "rule.yaml"
    path.write_text(told)
    with pytest.raises(ConfigError, match=said) as caught:
        cohorts.load(str(path))
    assert "\n" not in str(caught.value)


def test_a_rule_of_ones_own_with_a_list_beside_it(tmp_path):
    (tmp_path / "kidneys.csv").write_text(
        "# mine\nvocabulary,code,match,label\nICD9CM,584,prefix,AKI\nICD10CM,N17,prefix,AKI\n"
    )
    (tmp_path / "mine.yaml").write_text("name: mine\nindex: {diagnoses: [kidneys]}\n")
    rule, lists = cohorts.load(str(tmp_path / "mine.yaml"))
    assert lists["kidneys"][0] == cohorts.Code("ICD9CM", "584", True)
    population.to_meds(population.make(60, seed=1), tmp_path / "meds")
    with open_records(tmp_path / "meds") as records:
        found = cohorts.find(records, rule, lists)
    assert found.stays and [step.words for step in found.attrition][-1] == "with a diagnosis of kidneys"


def test_the_command_writes_the_rows_and_tells_each_step(tmp_path, capsys):
    population.to_omop(population.make(80, seed=2), tmp_path / "omop")
    out = tmp_path / "cohort.csv"
    asked = ["data", "cohort", str(tmp_path / "omop")]
    assert main([*asked, "--cohort=heart_failure_readmission", f"--out={out}"]) == 0
    told = capsys.readouterr().out
    assert "read as OMOP" in told and "hospital stays" in told and "index stays:" in told
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert list(rows[0])[:5] == ["patient", "encounter", "admit", "discharge", "outcome"]
    assert {row["outcome"] for row in rows} <= {"0", "1", "died", "lost"}
    assert (out.stat().st_mode & 0o777) == 0o600
    assert main(asked) == 0  # every shipped one
    told = capsys.readouterr().out
    assert all(f"{name}: " in told for name in cohorts.shipped("cohorts", ".yaml"))


def test_an_empty_cohort_is_said_with_the_counts_that_led_to_it(tmp_path):
    (tmp_path / "nobody.csv").write_text("vocabulary,code,match,label\nICD10CM,Z999,exact,nothing\n")
    (tmp_path / "mine.yaml").write_text("name: mine\nindex: {diagnoses: [nobody]}\n")
    population.to_fhir(population.make(30, seed=1), tmp_path / "fhir")
    with open_records(tmp_path / "fhir") as records:
        found = cohorts.find(records, *cohorts.load(str(tmp_path / "mine.yaml")))
    said = emptied(found)
    assert said.startswith("The cohort is empty: of ") and said.endswith("none is left with a diagnosis of nobody.")
    assert said in text(found)


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "expected one file or folder of records"),
        (["nowhere"], "expected a file or a folder of health records, got nothing there"),
        (["nowhere", "--out=x.csv"], "expected --cohort=NAME with --out"),
    ],
)
def test_mistakes_are_one_line(words, said, capsys):
    assert main(["data", "cohort", *words]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_stays_before_birth_after_death_or_there_twice_are_told_with_what_to_do(tmp_path):
    (tmp_path / "patients.csv").write_text(
        "patient,birth,sex,death\n1,1940-01-01,F,\n2,2021-05-01,M,\n3,1950-01-01,F,2020-01-09\n"
    )
    stays = ["patient,encounter,admit,discharge", "1,10,2020-01-01,2020-01-05", "1,11,2020-01-01,2020-01-05"]
    stays += ["2,20,2020-02-01,2020-02-03", "3,30,2020-03-01,2020-03-02"]
    (tmp_path / "stays.csv").write_text("\n".join(stays) + "\n")
    (tmp_path / "events.csv").write_text("patient,encounter,code,system\n1,10,4280,ICD9CM\n2,20,4280,ICD9CM\n")
    rule, lists = cohorts.load("demo_heart_failure")
    with open_records(tmp_path) as records:
        found = cohorts.find(records, rule, lists)
    told = "\n".join(found.notes)
    assert "1 stays begin before their patient's birth and are left out" in told
    assert "1 stays begin after their patient's death" in told
    assert "1 stays have patient, beginning and end of another" in told
    assert "that begin after the patient's birth" in [step.words for step in found.attrition]
    assert [stay.patient_id for stay in found.stays] == ["1"]


@pytest.mark.parametrize("last, index", [("SKILLED NURSING FACILITY", ["10"]), ("", ["10"]), ("HOSPICE", [])])
def test_a_stay_of_several_parts_ends_where_its_last_part_does(tmp_path, last, index):
    """A place of no consequence is a place, too: not that of a part before."""
    (tmp_path / "patients.csv").write_text("patient,birth,sex\n1,1940-01-01,F\n")
    (tmp_path / "stays.csv").write_text(
        "patient,encounter,admit,discharge,discharged_to\n"
        "1,10,2020-01-01 00:00,2020-01-05 10:00,HOSPICE\n"
        f"1,11,2020-01-05 12:00,2020-01-09 00:00,{last}\n"
    )
    (tmp_path / "events.csv").write_text("patient,encounter,code,system\n1,10,4280,ICD9CM\n")
    with open_records(tmp_path) as records:
        found = cohorts.find(records, *cohorts.load("heart_failure_readmission"))
    assert [stay.encounter for stay in found.stays] == index
