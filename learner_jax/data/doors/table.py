"""Plain tables: `stays` and `events`, and perhaps `patients`, as CSV or Parquet files in a folder, or made by a query.

    stays       patient, encounter, admit, discharge; perhaps kind, admitted_from, discharged_to
    events      patient, code; perhaps encounter, time, system, kind, value, unit, rank, label
    patients    patient; perhaps birth, sex, death

A query is a file of DuckDB's SQL (`records.sql`) that makes tables or views of these names, from whatever files it
reads. An event without `kind` is a diagnosis; one without `time` is of its encounter's end.
"""

from __future__ import annotations

from pathlib import Path

from learner_jax.data.doors import codes
from learner_jax.data.doors.files import first, tables_in, told, view
from learner_jax.data.doors.records import Records
from learner_jax.errors import DataError

NAMES = {
    "patient": ("patient", "patient_id", "subject_id", "person_id", "mrn"),
    "encounter": ("encounter", "encounter_id", "hadm_id", "visit_id", "visit_occurrence_id", "stay", "stay_id", "csn"),
    "admit": ("admit", "admitted", "admit_time", "admittime", "admission", "admission_date", "start"),
    "discharge": ("discharge", "discharged", "discharge_time", "dischtime", "discharge_date", "end"),
    "code": ("code", "icd_code", "icd", "diagnosis"),
    "system": ("system", "vocabulary", "icd_version"),
    "label": ("label", "description", "display", "drug"),
    "birth": ("birth", "birth_date", "birthdate", "dob", "date_of_birth"),
    "death": ("death", "death_date", "death_time", "dod", "deathtime"),
    "sex": ("sex", "gender"),
}
"""What a column may be called, in small letters."""
_NEEDED = {
    "stays": ("patient", "encounter", "admit", "discharge"),
    "events": ("patient", "code"),
    "patients": ("patient",),
}
_ALSO = {"stays": ("stays", "encounters", "admissions"), "events": ("events", "diagnoses"), "patients": ("patients",)}


def is_here(source: Path) -> bool:
    """Whether there are tables of stays and events, or a query."""
    if source.is_file():
        return source.suffix.lower() == ".sql"
    there = tables_in(source)
    return all(any(name in there for name in _ALSO[wanted]) for wanted in ("stays", "events"))


def read(source: Path, records: Records) -> None:
    """Fills the tables.

    Raises:
      DataError: a table or a column is missing, or the query cannot be run.
    """
    if source.is_file():
        records.sql(f"CREATE SCHEMA told; USE told; {source.read_text()}\n; USE main")
        made = records.sql("SELECT table_name FROM information_schema.tables WHERE table_schema = 'told'")
        found = {name.lower(): f"told.{name}" for (name,) in made}
    else:
        found = {name: told(files) for name, files in tables_in(source).items()}
    columns: dict[str, set[str]] = {}
    for wanted, also in _ALSO.items():
        name = next((one for one in also if one in found), None)
        if name is None and wanted != "patients":
            raise DataError(f"{source}: expected a table of {wanted}, got {', '.join(found) or 'none'}")
        if name is not None:
            columns[wanted] = view(records, f"given_{wanted}", found[name])
            _need(source, name, wanted, columns[wanted])
    _patients(records, columns)
    _encounters(records, columns["stays"])
    _events(records, columns["events"])


def _need(source: Path, name: str, wanted: str, there: set[str]) -> None:
    for column in _NEEDED[wanted]:
        if not there & set(NAMES[column]):
            known = ", ".join(sorted(there)[:12])
            raise DataError(f"{source}: table {name}: expected a column '{column}', got {known}")


def _column(there: set[str], name: str, cast: str = "VARCHAR") -> str:
    return first(there, *NAMES.get(name, (name,)), cast=cast)


def _patients(records: Records, columns: dict[str, set[str]]) -> None:
    there = columns.get("patients", set())
    every = " UNION ".join(f"SELECT {_column(columns[name], 'patient')} AS id FROM given_{name}" for name in columns)
    sex = f"upper(left({_column(there, 'sex')}, 1))"
    about = (
        f"SELECT {_column(there, 'patient')} AS id, {_column(there, 'birth', 'TIMESTAMP')} AS birth, CASE {sex} "
        f"WHEN 'F' THEN 'female' WHEN 'M' THEN 'male' END AS sex, {_column(there, 'death', 'TIMESTAMP')} AS death "
        "FROM given_patients"
        if there
        else "SELECT NULL::VARCHAR AS id, NULL::TIMESTAMP AS birth, NULL::VARCHAR AS sex, NULL::TIMESTAMP AS death"
    )
    records.sql(
        "INSERT INTO patients SELECT row_number() OVER (ORDER BY every.id), every.id, every.id, "
        "any_value(about.birth), any_value(about.sex), any_value(about.death) "
        f"FROM ({every}) every LEFT JOIN ({about}) about USING (id) WHERE every.id IS NOT NULL GROUP BY every.id"
    )


def _encounters(records: Records, there: set[str]) -> None:
    key, kind = _column(there, "encounter"), "'stay'"
    if "kind" in there:
        kind = "CASE WHEN lower(kind) IN ('stay', 'inpatient', 'imp') THEN 'stay' "
        kind += "WHEN lower(kind) LIKE 'em%' THEN 'emergency' ELSE 'other' END"
    records.sql(
        f"CREATE VIEW visits AS SELECT {key} AS id, {_column(there, 'patient')} AS who, {kind} AS kind, "
        f"{_column(there, 'admit', 'TIMESTAMP')} AS admit, {_column(there, 'discharge', 'TIMESTAMP')} AS discharge, "
        f"{first(there, 'admitted_from', 'admission_source', 'admission_location')} AS came, "
        f"{first(there, 'discharged_to', 'disposition', 'discharge_location')} AS went FROM given_stays"
    )
    records.sql(
        "INSERT INTO encounters SELECT row_number() OVER (ORDER BY v.id), p.patient, v.id, v.id, v.kind, v.admit, "
        "v.discharge, v.came, v.went FROM visits v LEFT JOIN patients p ON p.id = v.who"
    )


def _events(records: Records, there: set[str]) -> None:
    code, system, kind = _column(there, "code"), _column(there, "system"), first(there, "kind")
    named = f"CASE {system} WHEN '9' THEN 'ICD9CM' WHEN '10' THEN 'ICD10CM' ELSE {codes.vocabulary(system)} END"
    records.sql(
        f"CREATE VIEW said AS SELECT {_column(there, 'patient')} AS id, {_column(there, 'encounter')} AS visit, "
        f"{first(there, 'time', 'date', cast='TIMESTAMP')} AS at, "
        f"coded(coalesce({named}, {codes.by_shape(code)}, 'UNKNOWN'), {code}) AS code, "
        f"{first(there, 'value', cast='DOUBLE')} AS value, {first(there, 'unit')} AS unit, "
        f"coalesce(lower({kind}), 'diagnosis') AS what, {first(there, 'rank', 'seq_num', cast='INTEGER')} AS rank, "
        f"coalesce({_column(there, 'label')}, {code}) AS label FROM given_events"
    )
    records.sql("INSERT INTO labels SELECT DISTINCT code, label FROM said WHERE what = 'medicine'")
    records.sql(
        "INSERT INTO events SELECT p.patient, coalesce(said.at, e.discharge), said.code, said.value, said.unit, "
        "e.encounter, said.what, NULL, said.rank FROM said LEFT JOIN patients p ON p.id = said.id "
        "LEFT JOIN encounters e ON e.id = said.visit"
    )
