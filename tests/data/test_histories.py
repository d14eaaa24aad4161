"""Coded events before a discharge: by hand, the same at every door, nothing of later, and through to a model."""

from __future__ import annotations

import csv
import datetime

import pytest

from benchmarks import population
from learner_jax.cli.main import main
from learner_jax.data import cohorts, histories
from learner_jax.data.doors import open_records
from learner_jax.data.told_events import read

DOORS = {name: getattr(population, f"to_{name}") for name in ("meds", "omop", "fhir", "tables")}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("people"), population.make(300, seed=11)
    for name, write in DOORS.items():
        write(made, folder / name)
    return folder


def _found(records):
    rule, codes = cohorts.load("heart_failure_readmission")
    return cohorts.find(records, rule, codes)


def test_every_door_tells_the_same_history(people):
    told = {}
    for door in DOORS:
        with open_records(people / door) as records:
            cohort = _found(records)
            told[door] = histories.find(records)
        assert len(told[door]) == len(cohort.stays) > 200
    codes = {code.split("//")[0] for cell in told["meds"] if cell for _, code in read(cell)}
    assert {"ICD10CM", "LOINC", "RxNorm"} <= codes
    for door in DOORS:
        assert told[door] == told["meds"], door


def test_a_history_beside_a_loop_over_the_events(people):
    """An independent way: each stay's events one by one, in Python."""
    with open_records(people / "meds") as records:
        _found(records)
        cells = histories.find(records, latest=20)
        stays = records.sql("SELECT encounter, patient, admit, discharge FROM stays ORDER BY patient, admit, encounter")
        ends = dict(records.sql("SELECT encounter, discharge FROM encounters WHERE kind IN ('stay', 'emergency')"))
        rows = records.sql("SELECT patient, code, kind, time, encounter FROM events")
    by_patient: dict = {}
    for patient, code, kind, time, encounter in rows:
        by_patient.setdefault(patient, []).append((code, kind, time, encounter))
    for cell, (_, patient, admit, discharge) in zip(cells, stays, strict=True):
        latest: dict = {}
        for code, kind, time, encounter in by_patient.get(patient, []):
            end = ends.get(encounter)
            known = time if kind not in ("diagnosis", "procedure") or end is None else max(time or end, end)
            known = known or end
            if known and admit - datetime.timedelta(days=365) <= known <= discharge:
                period = (code, (discharge.date() - known.date()).days // 30)
                latest[period] = max(latest.get(period, known), known)
        kept = sorted(
            ((when, code) for (code, _), when in latest.items()), key=lambda one: (-one[0].timestamp(), one[1])
        )
        expected = sorted(kept[:20])
        assert [code for _, code in read(cell or "")] == [code for _, code in expected]
        for (days, _), (when, _) in zip(read(cell or ""), expected, strict=True):
            assert days == pytest.approx((discharge - when).total_seconds() / 86400, abs=6e-4)


def test_a_ward_s_hourly_results_do_not_push_out_the_rest_and_odd_blanks_are_none(people):
    with open_records(people / "meds") as records:
        _found(records)
        before = histories.find(records)
        records.sql(
            "INSERT INTO events BY NAME SELECT s.patient, 'HOURLY\u3000LAB' AS code, 'measurement' AS kind, "
            "s.discharge - to_minutes(k) AS time FROM stays s, range(600) t(k)"
        )
        after = histories.find(records)
    for cell, more in zip(before, after, strict=True):
        events = read(more or "")
        mine = sum(code == "HOURLY_LAB" for _, code in events)
        assert 1 <= mine <= 13  # once in thirty days; a patient's earlier stays have theirs
        assert len(events) == len(read(cell or "")) + mine
    (note,) = histories.notes(after)
    assert note.startswith("half of the histories reach back")


@pytest.mark.parametrize("change", ["move", "delete"])
def test_nothing_of_later_is_told(people, change):
    with open_records(people / "meds") as records:
        _found(records)
        records.sql("CREATE TABLE cut AS SELECT patient, min(discharge) AS until FROM stays GROUP BY patient")
        records.sql("DELETE FROM stays USING cut WHERE stays.patient = cut.patient AND stays.discharge > cut.until")
        before = histories.find(records)
        later = "cut WHERE events.patient = cut.patient AND events.time > cut.until"
        if change == "move":
            records.sql(f"UPDATE events SET time = cut.until + to_seconds(1), code = 'X//1' FROM {later}")
        else:
            records.sql(f"DELETE FROM events USING {later}")
        assert histories.find(records) == before
        assert any(before)


def test_the_command_writes_a_column_that_a_study_reads(people, tmp_path, capsys):
    out = tmp_path / "north.csv"
    asked = ["data", "cohort", str(people / "fhir"), "--cohort=heart_failure_readmission", "--events"]
    assert main([*asked, f"--features={out}"]) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert sum(bool(read(row["history"])) for row in rows) > 100
    assert main(asked) == 2
    assert "expected --features=FILE with --events" in capsys.readouterr().err
