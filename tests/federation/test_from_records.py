"""From health records to one model: four hospitals, each with records of another kind, by the shipped config."""

from __future__ import annotations

import dataclasses

import pytest

import learner_jax as lr
from benchmarks import population
from learner_jax import specs
from learner_jax.cli.main import main
from learner_jax.data import cohort_file
from learner_jax.data.tables import read_table
from learner_jax.specs import Data, Engine, Federation, Spec, Study
from tests.federation.hospitals import Process, federated, flags, simulated

DOORS = ("meds", "omop", "fhir", "tables")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A table a hospital, made by the command from what lies there."""
    folder, made = tmp_path_factory.mktemp("hospitals"), tmp_path_factory.mktemp("features")
    for seed, door in enumerate(DOORS):
        getattr(population, f"to_{door}")(population.make(120, seed=seed), folder / door)
        asked = ["data", "cohort", str(folder / door), "--cohort=heart_failure_readmission"]
        assert main([*asked, f"--features={made / door}.csv"]) == 0
    return made


def study(tables, **fields) -> Study:
    found = specs.check(specs.read("heart_failure"))
    changed = {
        "data": Data(source=str(tables), site_column=None, split_column=None),
        "engine": Engine(plan="sequential"),
        "federation": Federation(deadline_s=120.0),
        "rounds": 4,
        **fields,
    }
    return specs.check(dataclasses.replace(found, **changed))


@pytest.mark.soak
def test_four_hospitals_with_four_kinds_of_records_train_one_model(tables, tmp_path):
    asked = study(tables)
    ended = federated(asked, tmp_path)
    assert set(ended.sites) == set(DOORS) and [site.error for site in ended.sites.values()] == [None] * 4
    assert ended.sha256 == simulated(asked).sha256


@pytest.mark.soak
def test_their_exact_logistic_regression_is_the_same_in_both_engines(tables, tmp_path):
    newton = Spec("algorithms", "newton", {"penalty": 1e-3})
    asked = study(tables, algorithm=newton, rounds=5)
    ended, alone = federated(asked, tmp_path), simulated(asked)
    assert ended.sha256 == alone.sha256
    losses = [row["train/loss"] for row in alone.history.curve]
    assert losses[0] > losses[-1] and abs(losses[-1] - losses[-2]) < 1e-4


@pytest.mark.soak
def test_four_processes_with_four_kinds_of_records_train_one_model(tables, tmp_path):
    asked = study(tables, precision="float64", rounds=10)
    one = Process("launch.simulate", flags(asked, tmp_path / "simulated"), tmp_path / "simulate").last_line()
    ended = Process("launch.local", flags(asked, tmp_path / "local"), tmp_path / "local-log").last_line()
    assert ended["weights_sha256"] == one["weights_sha256"]


@pytest.mark.soak
def test_the_report_of_a_simulation_tells_how_each_tables_rows_were_chosen(tables, tmp_path):
    run = lr.simulate(study(tables, rounds=2, references=(), data=Data(
        source=str(tables), site_column=None, split_column=None, sites=("fhir", "omop")
    )), workdir=tmp_path / "run")  # fmt: skip
    data = run.result["data"]
    assert [one["name"] for one in data["chosen"]] == ["fhir", "omop"]  # not of tables that had no part
    assert data["chosen"] == [cohort_file.of_table(tables / f"{name}.csv") for name in ("fhir", "omop")]
    assert data["source"] == tables.name
    kept = sum(one["outcomes"]["1"] + one["outcomes"]["0"] for one in data["chosen"])
    assert sum(part["rows"] for part in data["dealt"].values()) == kept > 100
    back = sum(one["outcomes"]["1"] for one in data["chosen"])
    assert sum(part["events"] for part in data["dealt"].values()) == back > 10
    assert data["inputs"]["rows"] == data["dealt"]["train"]["rows"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert (
        "Who is in it" in page and "What the data looked like" in page and str(tables) not in page.split("Config,")[0]
    )
    for name in ("fhir", "omop"):
        (tables / f"{name}.cohort.json").rename(tmp_path / name)
    try:
        bare = lr.simulate(study(tables, rounds=2, references=()))
    finally:
        for name in ("fhir", "omop"):
            (tmp_path / name).rename(tables / f"{name}.cohort.json")
    assert [one["name"] for one in bare.result["data"]["chosen"]] == ["meds", "tables"]
    given = {"a": read_table(tables / "fhir.csv")}
    own = lr.simulate(study(tables, rounds=2, references=()), sites=given).result["data"]
    assert own["chosen"] == [] and own["source"] == ""  # rows that a call hands over are not those of the config


def test_a_table_in_which_something_is_amiss_is_found_before_anything_is_trained(tables, tmp_path, capsys):
    rows = (tables / "meds.csv").read_text().splitlines()
    head = rows[0].split(",")

    def asked(*changed: str) -> str:
        (tmp_path / "t.csv").write_text("\n".join(changed) + "\n")
        assert main(["data", "check", "--config=heart_failure", f"--data={tmp_path / 't.csv'}"]) != 0
        return capsys.readouterr().err

    without = [",".join(row.split(",")[:5] + row.split(",")[6:]) for row in rows]
    assert "stay_days" in asked(*without)
    cells = rows[1].split(",")
    cells[head.index("stay_days")] = str(24 * 365 * 5)  # hours for days
    assert "stay_days" in asked(rows[0], ",".join(cells), *rows[2:])
    cells = rows[1].split(",")
    cells[head.index("outcome")] = "died"
    assert "outcome" in asked(rows[0], ",".join(cells), *rows[2:])
