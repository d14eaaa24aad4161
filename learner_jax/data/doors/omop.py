"""OMOP CDM 5.3 and 5.4, as CSV or Parquet files, gzipped or not, or as a SQL data base; names in any case.

Whether a visit was a stay in a hospital cannot be told from its concept alone: publishers map the same admission to
inpatient, emergency, observation or even ambulatory visits. Here a stay is a visit with an inpatient concept, or one
that says from where the patient was admitted. Source codes may be padded with blanks; ids are 64-bit and stay integers;
5.3 says `admitting_source` and `discharge_to` where 5.4 says `admitted_from` and `discharged_to`.

Reference: OHDSI, OMOP Common Data Model 5.3 and 5.4.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from learner_jax.data.doors import codes, database
from learner_jax.data.doors.files import first, tables_in, told, view
from learner_jax.data.doors.records import Records
from learner_jax.errors import DataError

INPATIENT = (9201, 262, 8717, 32037, 8971, 8970, 581379, 32760, 8913)
"""Visit concepts of stays: inpatient visit, emergency and inpatient visit, inpatient hospital, intensive care, ..."""
EMERGENCY = (9203, 8870, 581381)
PRIMARY = (32901, 32902, 32903, 38000183, 38000184, 38000199, 38000200, 44786627)
"""Statuses and types of conditions that were the primary one, or stood first."""
_NEEDED = {
    "person": ("person_id",),
    "visit_occurrence": ("visit_occurrence_id", "person_id", "visit_concept_id"),
    "condition_occurrence": ("person_id", "visit_occurrence_id"),
}


class _Clinical(NamedTuple):
    """A table of clinical events: what its columns begin with, its dates, and what its rows are."""

    start: str
    date: str
    kind: str


_CLINICAL = {
    "condition_occurrence": _Clinical("condition", "condition_start_date", "diagnosis"),
    "procedure_occurrence": _Clinical("procedure", "procedure_date", "procedure"),
    "drug_exposure": _Clinical("drug", "drug_exposure_start_date", "medicine"),
    "measurement": _Clinical("measurement", "measurement_date", "measurement"),
    "observation": _Clinical("observation", "observation_date", "other"),
    "device_exposure": _Clinical("device", "device_exposure_start_date", "other"),
}


def is_here(source: Path) -> bool:
    """Whether a folder has OMOP's tables of persons and visits."""
    return {"person", "visit_occurrence"} <= tables_in(source).keys()


def read(source: Path | str, records: Records, schema: str | None = None) -> None:
    """Fills the tables.

    Args:
      source: a folder, or the address of a data base.
      records: to be filled.
      schema: of a data base's tables; None: its default.

    Raises:
      DataError: a table or a column is missing.
    """
    every = (*_NEEDED, *(name for name in _CLINICAL if name not in _NEEDED), "death", "concept")
    if isinstance(source, str):
        found = database.tables_in(source, schema, records, every)
    else:
        found = {name: told(files) for name, files in tables_in(source).items() if name in every}
    lacking = [name for name in _NEEDED if name not in found]
    if lacking:
        raise DataError(f"{source}: expected OMOP's tables {', '.join(_NEEDED)}, got no {', no '.join(lacking)}")
    columns = {name: view(records, name, rows) for name, rows in found.items()}
    for name, needed in _NEEDED.items():
        lacking = [column for column in needed if column not in columns[name]]
        if lacking:
            raise DataError(f"{source}: table {name}: expected OMOP's columns, got no {', no '.join(lacking)}")
    concepts = "SELECT 0::BIGINT AS id, '' AS vocabulary, '' AS code, '' AS name WHERE FALSE"
    if "concept" in columns:
        about = f"{codes.vocabulary('vocabulary_id')} AS vocabulary, concept_code AS code"
        about += f", {first(columns['concept'], 'concept_name')} AS name"
        concepts = f"SELECT try_cast(concept_id AS BIGINT) AS id, {about} FROM concept"
    records.sql(f"CREATE TABLE concepts AS {concepts}")
    _patients(records, columns["person"], columns.get("death"))
    _encounters(records, columns["visit_occurrence"])
    for name, about in _CLINICAL.items():
        if name in columns:
            _events(records, name, columns[name], about)


def _patients(records: Records, there: set[str], death: set[str] | None) -> None:
    year, month, day = (first(there, f"{part}_of_birth", cast="INTEGER") for part in ("year", "month", "day"))
    born = first(there, "birth_datetime", cast="TIMESTAMP")
    concept, said = first(there, "gender_concept_id"), first(there, "gender_source_value")
    records.sql(
        "INSERT INTO patients SELECT try_cast(person_id AS BIGINT), person_id, "
        f"coalesce({first(there, 'person_source_value')}, person_id), "
        f"coalesce({born}, make_date({year}, coalesce({month}, 1), coalesce({day}, 1))::TIMESTAMP), "
        f"CASE WHEN {concept} = '8532' OR upper(left({said}, 1)) = 'F' THEN 'female' "
        f"WHEN {concept} = '8507' OR upper(left({said}, 1)) = 'M' THEN 'male' END, NULL FROM person"
    )
    if death is not None:
        died = first(death, "death_datetime", "death_date", cast="TIMESTAMP")
        records.sql(
            "UPDATE patients SET death = found.died FROM (SELECT try_cast(person_id AS BIGINT) AS patient, "
            f"min({died}) AS died FROM death GROUP BY 1) found WHERE found.patient = patients.patient"
        )


def _encounters(records: Records, there: set[str]) -> None:
    start = first(there, "visit_start_datetime", "visit_start_date", cast="TIMESTAMP")
    end = first(there, "visit_end_datetime", "visit_end_date", cast="TIMESTAMP")
    came = first(there, "admitted_from_source_value", "admitting_source_value")
    came_id = first(there, "admitted_from_concept_id", "admitting_source_concept_id")
    went = first(there, "discharged_to_source_value", "discharge_to_source_value")
    went_id = first(there, "discharged_to_concept_id", "discharge_to_concept_id")
    concept, source = "try_cast(visit_concept_id AS BIGINT)", f"coalesce({came}, nullif({came_id}, '0'))"
    records.sql(
        "INSERT INTO encounters SELECT try_cast(visit_occurrence_id AS BIGINT), try_cast(person_id AS BIGINT), "
        f"visit_occurrence_id, coalesce({first(there, 'visit_source_value')}, visit_occurrence_id), "
        f"CASE WHEN {concept} IN {INPATIENT} OR {source} IS NOT NULL THEN 'stay' "
        f"WHEN {concept} IN {EMERGENCY} THEN 'emergency' ELSE 'other' END, {start}, {end}, {source}, "
        f"coalesce({went}, nullif({went_id}, '0')) FROM visit_occurrence"
    )
    odd = records.one(
        f"SELECT count(*) FROM visit_occurrence WHERE {source} IS NOT NULL AND {concept} NOT IN {INPATIENT}"
    )
    if odd:
        told = "visits count as stays that have no inpatient concept: they say from where the patient was admitted"
        records.notes.append(f"{odd} {told}")


def _events(records: Records, table: str, there: set[str], about: _Clinical) -> None:
    """Rows of a clinical table by their source's code where its system is known, else by the standard concept's."""
    value = first(there, f"{about.start}_source_value")
    source, concept = first(there, f"{about.start}_source_concept_id"), first(there, f"{about.start}_concept_id")
    time = first(there, f"{about.date}time", about.date, cast="TIMESTAMP")
    shape, rank = "NULL", "NULL"
    if about.kind == "diagnosis":
        shape, status, type_ = (
            codes.by_shape(value),
            *(first(there, f"condition_{one}_concept_id", cast="BIGINT") for one in ("status", "type")),
        )
        rank = f"CASE WHEN {status} IN {PRIMARY} OR {type_} IN {PRIMARY} THEN 1 END"
    code = (
        "CASE WHEN own.vocabulary IS NOT NULL THEN coded(own.vocabulary, own.code) "
        f"WHEN {shape} IS NOT NULL THEN coded({shape}, {value}) "
        "WHEN std.vocabulary IS NOT NULL THEN coded(std.vocabulary, std.code) "
        f"ELSE 'OMOP//' || coalesce(nullif({concept}, '0'), {value}) END"
    )
    rows = (
        f"FROM {table} t LEFT JOIN concepts own ON own.id = nullif(try_cast({source} AS BIGINT), 0) "
        f"LEFT JOIN concepts std ON std.id = nullif(try_cast({concept} AS BIGINT), 0)"
    )
    if about.kind == "medicine":
        records.sql(
            f"INSERT INTO labels SELECT DISTINCT code, label FROM (SELECT {code} AS code, "
            f"unnest([own.name, std.name, {value}]) AS label {rows}) WHERE label IS NOT NULL"
        )
    records.sql(
        f"INSERT INTO events SELECT try_cast(t.person_id AS BIGINT), {time}, {code}, "
        f"{first(there, 'value_as_number', cast='DOUBLE')}, "
        f"{first(there, 'unit_source_value', 'dose_unit_source_value')}, "
        f"{first(there, 'visit_occurrence_id', cast='BIGINT')}, '{about.kind}', "
        f"nullif(try_cast({concept} AS BIGINT), 0), {rank} {rows}"
    )
