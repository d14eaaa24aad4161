"""The file beside a table that says how its rows were chosen: whole, of that table alone, and in nobody's way."""

from __future__ import annotations

import csv
import json
import shutil

import pytest

from benchmarks import population
from learner_jax.cli.main import main
from learner_jax.data import cohort_file, cohorts
from learner_jax.data.doors import open_records
from learner_jax.data.tables import files_of, read_sites

RULE = "heart_failure_readmission"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Records of made-up people, and what `learner data cohort` wrote of them."""
    folder = tmp_path_factory.mktemp("cohort")
    (folder / "tables").mkdir()
    population.to_fhir(population.make(200, seed=3), folder / "fhir")
    asked = f"--features={folder / 'tables' / 'north.csv'}"
    assert main(["data", "cohort", str(folder / "fhir"), f"--cohort={RULE}", asked]) == 0
    return folder


@pytest.fixture
def table(made, tmp_path):
    """A copy of the table, and of its file, that a test may spoil."""
    for path in (made / "tables").iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path / "north.csv"


def test_the_command_writes_rule_attrition_outcomes_and_notes(made):
    file = made / "tables" / "north.cohort.json"
    assert (file.stat().st_mode & 0o777) == 0o600
    told = cohort_file.of_table(made / "tables" / "north.csv")
    with open_records(made / "fhir") as records:
        found = cohorts.find(records, *cohorts.load(RULE))
    assert told is not None and told["name"] == "north" and told["door"] == "fhir"
    assert told["attrition"] == [step._asdict() for step in found.attrition]
    assert told["outcomes"] == found.outcomes and told["rule"]["title"] == found.rule.title
    assert set(found.notes) < set(told["notes"])  # and what must be known of the features
    rows = list(csv.DictReader((made / "tables" / "north.csv").read_text().splitlines()))
    assert len(rows) == told["outcomes"]["1"] + told["outcomes"]["0"]


def test_it_holds_counts_and_words_and_nobody(made):
    told = json.loads((made / "tables" / "north.cohort.json").read_text())
    assert set(told) == {"format", "rule", "door", "attrition", "outcomes", "notes", "table"}
    text = json.dumps({**told, "table": ""})
    rows = list(csv.DictReader((made / "tables" / "north.csv").read_text().splitlines()))
    numbers = {str(count) for step in told["attrition"] for count in (step["stays"], step["patients"])}
    numbers |= {str(count) for count in told["outcomes"].values()}
    keys = {row[name] for row in rows for name in ("patient", "encounter")}
    assert keys and not [key for key in keys - numbers if f'"{key}"' in text or f" {key} " in text]
    assert str(made) not in text


def test_the_file_is_no_table_and_no_record(made, table):
    """Beside tables, and beside the records themselves."""
    assert [path.name for path in files_of(table.parent)] == ["north.csv"]
    assert list(read_sites(table.parent, site_column=None)) == ["north"]
    beside = made / "fhir" / "north.cohort.json"
    with open_records(made / "fhir") as records:
        before = [records.one(f"SELECT count(*) FROM {name}") for name in ("patients", "encounters", "events")]
    shutil.copy(table.with_name("north.cohort.json"), beside)
    try:
        with open_records(made / "fhir") as records:
            after = [records.one(f"SELECT count(*) FROM {name}") for name in ("patients", "encounters", "events")]
    finally:
        beside.unlink()
    assert before == after and records.door == "fhir"


def test_a_table_without_one_says_nothing(table):
    table.with_name("north.cohort.json").unlink()
    assert cohort_file.of_table(table) is None


def test_it_is_of_one_table_alone(table):
    table.write_text(table.read_text() + "\n")
    told = cohort_file.of_table(table)
    assert told == {
        "name": "north",
        "problem": "north.cohort.json is of another table than the north.csv that is there now",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"rule": None}, {"rule": {"name": 3}}, {"rule": {"name": "x", "window_days": "30"}},
        {"rule": {"name": "x", "window_days": 30, "diagnoses": [1]}}, {"outcomes": {"1": -1}},
        {"outcomes": {"1": True}},
        {"attrition": {}}, {"attrition": [{"words": "x", "stays": 1}]}, {"notes": "x"}, {"notes": [1]}, {"door": None},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_such_file_is_said_and_not_shown(table, change):
    file = table.with_name("north.cohort.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    told = cohort_file.of_table(table)
    assert told == {"name": "north", "problem": "north.cohort.json is not as `learner data cohort` writes one"}


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00", "3"])
def test_damage_is_said(table, text):
    table.with_name("north.cohort.json").write_text(text)
    told = cohort_file.of_table(table)
    assert told is not None and set(told) == {"name", "problem"}


def test_a_hospitals_own_page_shows_it(table, capsys):
    file = table.with_name("north.cohort.json")
    assert main(["report", str(file)]) == 0
    assert "index stays in one table" in capsys.readouterr().out
    page = table.with_name("north.cohort.html")
    told = json.loads(file.read_text())
    assert (page.stat().st_mode & 0o777) == 0o600
    text = page.read_text()
    assert all(step["words"] in text for step in told["attrition"]) and told["rule"]["title"] in text
    file.write_text("{}")
    assert main(["report", str(file)]) == 1
    assert "expected a cohort file" in capsys.readouterr().err
