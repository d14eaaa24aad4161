"""MEDS event streams (0.3, 0.4): Parquet shards of (subject_id, time, code, numeric_value).

The standard names few codes. A stay is an admission's code and a discharge's, of one number (`hadm_id` and the like)
where the publisher has added a column for it; else each discharge is of the admission right before it, and an event is
of the stay that its time lies in. What follows a code after "//" says from where a patient came and where to they went.
Diagnoses are often stamped at discharge, births and sexes may have no time, and events may lie after a death: nothing
is assumed of their order. A code that says nothing of its system is looked up in `metadata/codes.parquet`.

Reference: Medical Event Data Standard, github.com/Medical-Event-Data-Standard.
"""

from __future__ import annotations

from pathlib import Path

from learner_jax.data.doors import codes
from learner_jax.data.doors.records import Records, quoted
from learner_jax.errors import DataError

ROLES = {
    "admitted": r"^(HOSPITAL_|INPATIENT_)?ADMISSION(//|$)|^HOSPITALIZATION(_START)?(//|$)",
    "discharged": r"^(HOSPITAL_|INPATIENT_)?DISCHARGE(//|$)|^HOSPITALIZATION_END(//|$)",
    "ed in": r"^ED_(REGISTRATION|ARRIVAL|ADMISSION)(//|$)",
    "ed out": r"^ED_(OUT|DISCHARGE)(//|$)",
    "birth": r"^MEDS_BIRTH(//|$)",
    "death": r"^MEDS_DEATH(//|$)",
    "sex": r"^(GENDER|SEX)/",
}
"""What a code is that is no clinical event."""
KINDS = {
    "diagnosis": r"^(DIAGNOSIS|CONDITION|DX)\b|^ICD9CM|^ICD10CM|^ICD/",
    "procedure": r"^(PROCEDURE|HCPCS|CPT)\b|^ICD9PROC|^ICD10PCS|^CPT4|^HCPCS",
    "medicine": r"^(MEDICATION|DRUG|RX|INFUSION_START)\b|^RXNORM|^NDC|^ATC/",
    "measurement": r"^(LAB|VITAL|VITALS|MEASUREMENT|OBSERVATION)\b|^LOINC",
}
NUMBERS = ("hadm_id", "encounter_id", "visit_id", "visit_occurrence_id", "csn")
"""Columns beyond the standard that say whose stay an event is of: the first that is there."""
_STAY_OF = (
    "ASOF LEFT JOIN (SELECT * FROM encounters WHERE kind = 'stay') e "
    "ON e.patient = told.patient AND e.admit <= told.time"
)


def is_here(source: Path) -> bool:
    """Whether a folder has MEDS's metadata."""
    return any((source / "metadata" / name).is_file() for name in ("codes.parquet", "dataset.json"))


def read(source: Path, records: Records) -> None:
    """Fills the tables.

    Raises:
      DataError: no shards, or not MEDS's columns.
    """
    folder = source / "data" if (source / "data").is_dir() else source
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise DataError(f"{source}: expected MEDS shards in {folder}, got no .parquet file")
    records.sql(f"CREATE VIEW shards AS SELECT * FROM read_parquet({quoted(files)}, union_by_name=true)")
    there = records.columns("shards")
    subject = "subject_id" if "subject_id" in there else "patient_id"
    lacking = [name for name in (subject, "time", "code") if name not in there]
    if lacking:
        raise DataError(f"{source}: expected MEDS's columns subject_id, time and code, got no {', no '.join(lacking)}")
    number = next((name for name in NUMBERS if name in there), None)
    _name_codes(source, records)
    value = "try_cast(numeric_value AS DOUBLE)" if "numeric_value" in there else "NULL::DOUBLE"
    unit = "coalesce(shards.unit, names.unit)" if there.get("unit") == "VARCHAR" else "names.unit"
    own = f"try_cast({number} AS BIGINT)" if number else "NULL::BIGINT"
    records.sql(
        f"CREATE VIEW told AS SELECT {subject}::BIGINT AS patient, time::TIMESTAMP AS time, {value} AS value, "
        f"{unit} AS unit, {own} AS own, names.code AS code, names.kind AS kind, names.role AS role, "
        "names.rest AS rest FROM shards JOIN names ON names.raw = shards.code"
    )
    _patients(records)
    _encounters(records)
    if number is None:
        records.notes.append("no column says whose stay an event is of: it is of the stay that its time lies in")
    mine = "own" if number else "CASE WHEN told.time <= e.discharge THEN e.encounter END"
    records.sql(
        f"INSERT INTO events SELECT told.patient, told.time, told.code, told.value, told.unit, {mine}, "
        f"told.kind, NULL, NULL FROM told {'' if number else _STAY_OF} WHERE told.role IS NULL"
    )


def _name_codes(source: Path, records: Records) -> None:
    """A row for each distinct code: what it is, and how other hospitals say it."""
    records.sql(
        "CREATE TABLE raws AS SELECT DISTINCT code AS raw, NULL::VARCHAR AS parent, NULL::VARCHAR AS said FROM shards"
    )
    metadata = source / "metadata" / "codes.parquet"
    if metadata.is_file():
        listed = f"read_parquet({quoted([metadata])})"
        for ours, theirs, told in (
            ("parent", "parent_codes", "parent_codes[1]"),
            ("said", "description", "description"),
        ):
            if {"code", theirs} <= records.columns(listed).keys():
                records.sql(f"UPDATE raws SET {ours} = found.{told} FROM {listed} found WHERE found.code = raws.raw")
    role, kind = (
        "CASE " + " ".join(f"WHEN regexp_matches(upper(raw), '{words}') THEN '{one}'" for one, words in table.items())
        for table in (ROLES, KINDS)
    )
    records.sql(
        f"CREATE TABLE parted AS SELECT raw, said, {role} END AS role, {kind} ELSE 'other' END AS kind, "
        "regexp_extract(raw, '//([^/].*)$', 1) AS rest, "
        "regexp_extract(coalesce(parent, raw), '^([A-Za-z0-9_]+)/{1,2}(.+)$', ['system', 'code']) AS part, "
        "regexp_extract(raw, '^(?:[A-Za-z]+/{1,2})?ICD/{1,2}(9|10)/{1,2}(.+)$', ['version', 'code']) AS icd "
        "FROM raws WHERE raw IS NOT NULL"
    )
    procedures = "CASE part.system WHEN 'PROCEDURE' THEN TRUE ELSE kind = 'procedure' END"
    records.sql(
        "CREATE TABLE names AS SELECT raw, said, role, kind, nullif(rest, '') AS rest, "
        "CASE WHEN kind = 'measurement' THEN nullif(regexp_extract(raw, '^LAB//[^/]+//(.+)$', 1), '') END AS unit, "
        f"CASE WHEN icd.version <> '' AND {procedures} "
        "THEN coded(CASE icd.version WHEN '9' THEN 'ICD9Proc' ELSE 'ICD10PCS' END, icd.code) "
        "WHEN icd.version <> '' THEN coded('ICD' || icd.version || 'CM', icd.code) "
        f"WHEN part.system <> '' THEN coded({codes.vocabulary('part.system')}, part.code) ELSE raw END AS code "
        "FROM parted"
    )
    records.sql(
        "INSERT INTO labels SELECT DISTINCT code, label FROM (SELECT code, unnest([raw, said]) AS label FROM names "
        "WHERE kind = 'medicine' AND role IS NULL) WHERE label IS NOT NULL"
    )


def _patients(records: Records) -> None:
    records.sql(
        "INSERT INTO patients SELECT patient, patient::VARCHAR, patient::VARCHAR, min(time) FILTER (role = 'birth'), "
        "CASE upper(left(any_value(rest) FILTER (role = 'sex'), 1)) WHEN 'F' THEN 'female' WHEN 'M' THEN 'male' END, "
        "min(time) FILTER (role = 'death') FROM told GROUP BY patient"
    )


def _encounters(records: Records) -> None:
    """Stays by their number where there is one, else an admission and the discharge that follows it."""
    records.sql(
        "CREATE TABLE ends AS SELECT patient, time, own, role, rest, "
        "row_number() OVER (ORDER BY patient, time, role) AS place FROM told "
        "WHERE role IN ('admitted', 'discharged', 'ed in', 'ed out') AND time IS NOT NULL"
    )
    records.sql(
        "INSERT INTO encounters SELECT own, patient, own::VARCHAR, own::VARCHAR, 'stay', "
        "min(time) FILTER (role = 'admitted'), max(time) FILTER (role = 'discharged'), "
        "arg_min(regexp_extract(rest, '([^/]+)$', 1), time) FILTER (role = 'admitted'), "
        "arg_max(rest, time) FILTER (role = 'discharged') FROM ends "
        "WHERE own IS NOT NULL AND role IN ('admitted', 'discharged') GROUP BY own, patient "
        "HAVING count(*) FILTER (role = 'admitted') > 0"
    )
    pairs = (("admitted", "discharged", "stay", "own IS NULL"), ("ed in", "ed out", "emergency", "TRUE"))
    for first, last, kind, which in pairs:
        records.sql(
            "INSERT INTO encounters SELECT -place, patient, patient::VARCHAR || ' ' || time::VARCHAR, "
            f"patient::VARCHAR || ' ' || time::VARCHAR, '{kind}', time, next_time, "
            "regexp_extract(rest, '([^/]+)$', 1), next_rest FROM (SELECT *, lead(time) OVER w AS next_time, "
            "lead(rest) OVER w AS next_rest, lead(role) OVER w AS next_role FROM ends "
            f"WHERE role IN ('{first}', '{last}') AND {which} WINDOW w AS (PARTITION BY patient ORDER BY time, place)) "
            f"WHERE role = '{first}' AND next_role = '{last}'"
        )
