"""Health records through their doors: the same people from MEDS, OMOP and FHIR, and what others' renderings hide."""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import population
from learner_jax.data import cohorts
from learner_jax.data.doors import door_of, open_records
from learner_jax.data.doors.records import Records
from learner_jax.errors import DataError

WRITE: dict[str, Callable[[population.Population, Path], None]] = {
    "meds": population.to_meds,
    "meds without numbers": lambda found, folder: population.to_meds(found, folder, numbered=False),
    "omop csv": population.to_omop,
    "omop parquet": lambda found, folder: population.to_omop(found, folder, "parquet"),
    "fhir": population.to_fhir,
    "table": population.to_tables,
}


@pytest.fixture(scope="module")
def people() -> population.Population:
    return population.make(400, seed=3)


@pytest.fixture(scope="module")
def folders(people, tmp_path_factory) -> dict[str, Path]:
    there = {name: tmp_path_factory.mktemp("records") / name.split()[0] for name in WRITE}
    for name, folder in there.items():
        WRITE[name](people, folder)
    return there


@pytest.fixture(scope="module")
def opened(folders) -> Iterator[dict[str, Records]]:
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(open_records(folder)) for name, folder in folders.items()}


def found(source: Path | Records, rule: str = "heart_failure_readmission") -> cohorts.Cohort:
    if isinstance(source, Records):
        return cohorts.find(source, *cohorts.load(rule))
    with open_records(source) as records:
        return cohorts.find(records, *cohorts.load(rule))


@pytest.mark.parametrize("rule", ["heart_failure_readmission", "demo_heart_failure"])
def test_every_door_gives_the_same_cohort(opened, rule):
    there = {name: found(records, rule) for name, records in opened.items()}
    first = there["omop csv"]
    assert len(first.stays) > 100 and min(first.outcomes["0"], first.outcomes["1"]) > 10
    plain = [(row.patient, row.encounter, row.admit, row.discharge, row.outcome) for row in first.stays]
    for name, other in there.items():
        if name == "meds without numbers":  # which names no stay
            same = [(row.patient, row.admit, row.discharge, row.outcome) for row in other.stays]
            assert same == [(patient, *rest) for patient, _, *rest in plain]
            continue
        rows = [(row.patient, row.encounter, row.admit, row.discharge, row.outcome) for row in other.stays]
        assert sorted(rows) == sorted(plain), name
        assert other.attrition == first.attrition, name


def test_the_primary_diagnosis_where_the_records_tell_it(opened):
    omop, fhir = found(opened["omop csv"], "cms_heart_failure"), found(opened["fhir"], "cms_heart_failure")
    assert sorted(row.encounter for row in omop.stays) == sorted(row.encounter for row in fhir.stays)
    assert 0 < len(omop.stays) < len(found(opened["omop csv"]).stays)
    with pytest.raises(DataError, match="nothing in these records tells which one that is"):
        found(opened["meds"], "cms_heart_failure")


def test_events_are_the_same_at_every_door(opened, people):
    asked = (
        "SELECT kind, code, count(*), count(DISTINCT patient), round(sum(value), 2), any_value(unit), "
        "count(encounter) FROM events WHERE kind <> 'other' GROUP BY ALL ORDER BY ALL"
    )
    rows = {name: records.sql(asked) for name, records in opened.items()}
    first = rows.pop("omop parquet")
    assert len(first) == 2 * len(population.DIAGNOSES) + len(population.LABS) + len(population.MEDICINES)
    assert sum(row[2] for row in first) == len(people.diagnoses) + len(people.labs) + len(people.medicines)
    for name, other in rows.items():
        without_units = [(*row[:5], row[6]) for row in other]  # MEDS has none for these
        assert without_units == [(*row[:5], row[6]) for row in first], name
        assert name.startswith("meds") or other == first


def test_a_query_makes_the_tables(folders, opened, tmp_path):
    """DuckDB's SQL in a file: whatever it reads, it makes `stays` and `events`."""
    table = folders["table"]
    query = tmp_path / "ours.sql"
    query.write_text(
        f"CREATE VIEW stays AS SELECT * FROM '{table}/admissions.csv';\n"
        f"CREATE VIEW events AS SELECT * FROM '{table}/events.parquet'; -- all of them\n"
        f"CREATE VIEW patients AS SELECT * FROM '{table}/patients.csv'"
    )
    with open_records(query) as records:
        assert records.door == "table" and found(records).stays == found(opened["table"]).stays
    query.write_text("CREATE VIEW stays AS SELECT 1 AS patient, 2 AS encounter, 3 AS admit, 4 AS discharge")
    with pytest.raises(DataError, match="expected a table of events, got stays"):
        open_records(query)
    query.write_text("SELEC nonsense")
    with pytest.raises(DataError, match="expected TABLE that can be read, got: Parser Error") as caught:
        open_records(query)
    assert "\n" not in str(caught.value)


def to_database(folder: Path, path: Path, schema: str = "") -> None:
    """OMOP's Parquet files as a SQLite data base, all of it as their own types."""
    base = sqlite3.connect(path)
    for file in sorted(folder.glob("*.parquet")):
        pq.read_table(file).to_pandas().to_sql(f"{schema}{file.stem}", base, index=False)
    base.close()


def test_a_data_base_of_omops_tables_is_read_as_its_files_are(folders, opened, tmp_path):
    to_database(folders["omop parquet"], tmp_path / "cdm.sqlite")
    with open_records(f"sqlite:///{tmp_path}/cdm.sqlite") as records:
        assert records.door == "omop" and found(records).stays == found(opened["omop parquet"]).stays


@pytest.mark.parametrize(
    "address, said",
    [
        ("sqlite:////nowhere/at/all.sqlite", "expected a data base that can be read at sqlite:////nowhere"),
        ("nosuch://host/cdm", "expected a data base that can be read at nosuch://host/cdm, got: Can't load plugin"),
        ("postgresql://me:secret@host/cdm", "expected an address without a password"),
    ],
)
def test_what_is_wrong_with_a_data_base_is_one_line_and_tells_no_secret(address, said, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        open_records(address)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value).replace("address without", "")
    monkeypatch.setenv("LEARNER_DATABASE_PASSWORD_FILE", str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"LEARNER_DATABASE_PASSWORD_FILE|without a password|nosuch"):
        open_records(address)


def test_the_door_is_guessed_and_said(folders):
    assert {name: door_of(folder) for name, folder in folders.items()} == {name: name.split()[0] for name in WRITE}


def test_a_bundle_is_read_as_an_export_is(folders, opened, tmp_path):
    lines = [
        json.loads(line)
        for path in sorted(folders["fhir"].glob("*.gz"))
        for line in gzip.open(path, "rt")  # noqa: SIM115
    ]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in lines]}
    (tmp_path / "all.json").write_text(json.dumps(bundle, indent=1))
    assert found(tmp_path).stays == found(tmp_path / "all.json").stays == found(opened["fhir"]).stays


@pytest.mark.parametrize(
    "files, said",
    [
        ({}, "expected MEDS .* OMOP .* FHIR .* or tables .* got an empty folder"),
        ({"notes.txt": "x"}, "got notes.txt"),
        ({"person.csv": "person_id\n1\n", "visit_occurrence.csv": "x\n1\n"}, "got no condition_occurrence"),
        (
            {
                "person.csv": "person_id\n1\n",
                "visit_occurrence.csv": "visit_id\n1\n",
                "condition_occurrence.csv": "a\n1\n",
            },
            "table visit_occurrence: expected OMOP's columns, got no visit_occurrence_id, no person_id",
        ),
        ({"p.ndjson": '{"resourceType": "Patient", "id": "1"}\n'}, "got no Encounter"),
    ],
)
def test_what_no_door_reads_is_one_line(tmp_path, files, said):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=said) as caught:
        open_records(tmp_path)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- odd records, worked out on paper


def meds(folder: Path, rows: list[tuple[str, str, str]], patient: int = 1) -> Path:
    """rows: time, code, number of the stay ("" for none)."""
    (folder / "metadata").mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    (folder / "metadata" / "dataset.json").write_text("{}")
    times = [dt.datetime.fromisoformat(time) if time else None for time, _, _ in rows]
    table = pa.table({
        "subject_id": pa.array([patient] * len(rows), pa.int64()), "time": pa.array(times, pa.timestamp("us")),
        "code": [code for _, code, _ in rows], "numeric_value": pa.array([None] * len(rows), pa.float32()),
        "hadm_id": pa.array([int(number) if number else None for _, _, number in rows], pa.int64()),
    })  # fmt: skip
    pq.write_table(table, folder / "data" / f"{patient}.parquet")
    return folder


def stay(number: int, admit: str, discharge: str, went: str = "HOME", code: str = "I509") -> list[tuple[str, str, str]]:
    own = str(number)
    return [
        (admit, "HOSPITAL_ADMISSION//URGENT//EMERGENCY ROOM", own),
        (discharge, f"HOSPITAL_DISCHARGE//{went}", own),
        (discharge, f"DIAGNOSIS//ICD//10//{code}", own),
    ]


BORN = [("1950-06-01", "MEDS_BIRTH", "")]
LATER = stay(99, "2021-01-01 08:00", "2021-01-02 08:00", code="J189")
"""Long after: so that nobody counts as lost."""


@pytest.mark.parametrize(
    "name, rows, index",
    [
        ("overlapping stays are one",
         stay(1, "2020-01-01 10:00", "2020-01-10 10:00") + stay(2, "2020-01-08 10:00", "2020-01-12 10:00", code="J189"),
         [("1", "2020-01-01 10:00", "2020-01-12 10:00", "0")]),
        ("a chain of transfers is one stay, and its diagnosis may come with any of them",
         stay(1, "2020-01-01 10:00", "2020-01-03 10:00", "ACUTE HOSPITAL", "J189")
         + stay(2, "2020-01-03 11:00", "2020-01-06 10:00", "ACUTE HOSPITAL")
         + stay(3, "2020-01-06 20:00", "2020-01-09 10:00", code="N179"),
         [("1", "2020-01-01 10:00", "2020-01-09 10:00", "0")]),
        ("death on day 3", [*stay(1, "2020-01-01 10:00", "2020-01-05 10:00"), ("2020-01-08 04:00", "MEDS_DEATH", "")],
         [("1", "2020-01-01 10:00", "2020-01-05 10:00", "died")]),
        ("death in hospital is no index stay", stay(1, "2020-01-01 10:00", "2020-01-05 10:00", "DIED"), []),
        ("hospice is no index stay", stay(1, "2020-01-01 10:00", "2020-01-05 10:00", "HOSPICE"), []),
        ("readmitted at midnight of day 30: within, by dates",
         stay(1, "2020-01-01 10:00", "2020-01-05 10:00") + stay(2, "2020-02-04 00:00", "2020-02-05 10:00", code="J189"),
         [("1", "2020-01-01 10:00", "2020-01-05 10:00", "1")]),
        ("one minute before midnight of day 30: within",
         stay(1, "2020-01-01 10:00", "2020-01-05 10:00") + stay(2, "2020-02-04 23:59", "2020-02-05 10:00", code="J189"),
         [("1", "2020-01-01 10:00", "2020-01-05 10:00", "1")]),
        ("at the midnight that ends day 30: after",
         stay(1, "2020-01-01 10:00", "2020-01-05 10:00") + stay(2, "2020-02-05 00:00", "2020-02-06 10:00", code="J189"),
         [("1", "2020-01-01 10:00", "2020-01-05 10:00", "0")]),
        ("a repeat within 30 days is no new index; the first after them is one",
         stay(1, "2020-01-01 10:00", "2020-01-05 10:00") + stay(2, "2020-01-20 10:00", "2020-01-25 10:00")
         + stay(3, "2020-02-10 10:00", "2020-02-15 10:00"),
         [("1", "2020-01-01 10:00", "2020-01-05 10:00", "1"), ("3", "2020-02-10 10:00", "2020-02-15 10:00", "0")]),
        ("a stay that ends before it begins is none", stay(1, "2020-01-05 10:00", "2020-01-01 10:00"), []),
    ],
)  # fmt: skip
def test_odd_records(tmp_path, name, rows, index):
    there = found(meds(tmp_path, [*BORN, *rows, *LATER]))
    got = [(r.encounter, f"{r.admit:%Y-%m-%d %H:%M}", f"{r.discharge:%Y-%m-%d %H:%M}", r.outcome) for r in there.stays]
    assert got == index, name


def test_by_the_clock_day_30_ends_at_the_hour_of_the_discharge(tmp_path):
    for admit, outcome in (("2020-02-04 10:00", "1"), ("2020-02-04 10:01", "0"), ("2020-01-05 10:00", "1")):
        rows = stay(1, "2020-01-01 10:00", "2020-01-05 10:00") + stay(2, admit, "2020-02-06 10:00", code="J189")
        there = found(meds(tmp_path, [*BORN, *rows, *LATER]), "demo_heart_failure")
        assert [row.outcome for row in there.stays] == [outcome], admit


def test_who_is_not_followed_for_30_days_is_lost(tmp_path):
    there = found(meds(tmp_path, [*BORN, *stay(1, "2020-01-01 10:00", "2020-01-05 10:00")]))
    assert [row.outcome for row in there.stays] == ["lost"]


def test_a_child_and_one_whose_birth_is_not_known_are_left_out_and_said(tmp_path):
    rows = stay(1, "2020-01-01 10:00", "2020-01-05 10:00")
    meds(tmp_path, [("2004-01-02", "MEDS_BIRTH", ""), *rows, *LATER], patient=1)  # the day before being 16
    meds(tmp_path, [(time, code, f"5{number}") for time, code, number in rows], patient=2)
    there = found(tmp_path)
    assert not there.stays and "1 stays are of patients whose birth is not known" in " ".join(there.notes)


def test_ids_of_64_bits_come_whole(tmp_path):
    person, visit = 4783904755296699562, -4406053801395356975
    (tmp_path / "person.csv").write_text(f"person_id,year_of_birth\n{person},1950\n")
    (tmp_path / "visit_occurrence.csv").write_text(
        "visit_occurrence_id,person_id,visit_concept_id,visit_start_datetime,visit_end_datetime,preceding_visit_occurrence_id\n"
        f"{visit},{person},9201,2020-01-01 10:00:00,2020-01-05 10:00:00,\n"
        f"{visit + 1},{person},9201,2020-06-01 10:00:00,2020-06-05 10:00:00,{visit}\n"
    )
    (tmp_path / "condition_occurrence.csv").write_text(
        "person_id,visit_occurrence_id,condition_concept_id,condition_source_value\n"
        f"{person},{visit},0,4280   \n{person},{visit + 1},0,I50.9\n"
    )
    there = found(tmp_path)
    assert [(row.patient_id, row.encounter_id) for row in there.stays] == [
        (str(person), str(visit)), (str(person), str(visit + 1)),
    ]  # fmt: skip


def test_the_temporary_files_go(folders):
    records = open_records(folders["omop parquet"])
    folder = records._folder
    assert folder.exists()
    records.close()
    assert not folder.exists() and isinstance(records, Records)
