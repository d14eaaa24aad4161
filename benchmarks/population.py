"""A synthetic population of patients, written as MEDS, OMOP, FHIR and plain tables: the same people, four times.

    python -m benchmarks.population --patients=100000 --out=population     meds/, omop/, fhir/ and tables/

**Synthetic.** Nobody in it lives, and no rate in it is one of medicine: it is made to try how health records are read,
not to learn from. Stays follow each other as in life (transfers within the hour, readmissions, deaths in hospital and
soon after), with diagnoses in ICD-9-CM before October 2015 and in ICD-10-CM since, laboratory results and medicines.
The same seed gives the same people.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

DIAGNOSES = (
    ("4280", "I509"), ("42823", "I5023"), ("40291", "I110"), ("25000", "E119"), ("5849", "N179"), ("486", "J189"),
    ("41401", "I2510"), ("42731", "I4891"), ("496", "J449"), ("4019", "I10"), ("2724", "E785"), ("V4581", "Z951"),
)  # fmt: skip
"""The same diagnosis in ICD-9-CM and in ICD-10-CM."""
LABS = (("2160-0", "mg/dL", 1.2, 0.5), ("2823-3", "mmol/L", 4.2, 0.5), ("718-7", "g/dL", 12.0, 2.0))
"""LOINC, unit (UCUM), mean, standard deviation: creatinine, potassium, haemoglobin."""
MEDICINES = ("4603", "29046", "6918", "11289", "1191")
"""RxNorm ingredients: furosemide, lisinopril, metoprolol, warfarin, aspirin."""
CAME = ("EMERGENCY ROOM", "PHYSICIAN REFERRAL", "TRANSFER FROM HOSPITAL")
WENT = ("HOME", "HOME HEALTH CARE", "SKILLED NURSING FACILITY", "ACUTE HOSPITAL", "HOSPICE", "DIED")
START, TURN = np.datetime64("2012-01-01T00:00"), np.datetime64("2015-10-01T00:00")
DAY = 24 * 60


class Population(NamedTuple):
    """Tables of one population; times are minutes.

    Attributes:
      patients: patient, birth, sex, death.
      stays: encounter, patient, admit, discharge, came, went.
      diagnoses: encounter, patient, system, code, first.
      labs: encounter, patient, time, code, unit, value.
      medicines: encounter, patient, time, code.
    """

    patients: pa.Table
    stays: pa.Table
    diagnoses: pa.Table
    labs: pa.Table
    medicines: pa.Table


def make(patients: int, seed: int = 0) -> Population:
    """Draws a population.

    Args:
      patients: how many.
      seed: of all that is drawn.
    """
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    person = np.arange(1, patients + 1, dtype=np.int64) * 7919 + 10_000_000
    birth = START - (rng.integers(18 * 365, 95 * 365, patients) * DAY).astype("timedelta64[m]")
    count = rng.geometric(0.35, patients)
    owner = np.repeat(np.arange(patients), count)
    first = np.concatenate([[True], owner[1:] != owner[:-1]]) if len(owner) else np.zeros(0, bool)
    stays = len(owner)
    length = np.maximum(60, rng.gamma(1.5, 3.0 * DAY, stays)).astype(np.int64)
    gap = np.maximum(0, rng.choice([20, 12 * DAY, 28 * DAY, 200 * DAY], stays, p=[0.08, 0.2, 0.12, 0.6])
                     * rng.uniform(0.5, 1.5, stays)).astype(np.int64)  # fmt: skip
    wait = np.where(first, rng.integers(0, 4 * 365 * DAY, stays), gap)
    both = np.cumsum(wait + length)
    base = np.repeat((both - wait - length)[first], count)
    discharge = START + (both - base).astype("timedelta64[m]")
    admit = discharge - length.astype("timedelta64[m]")
    last = np.concatenate([first[1:], [True]]) if stays else first
    went = rng.choice(len(WENT) - 1, stays, p=[0.5, 0.2, 0.2, 0.07, 0.03])
    dies = last & (rng.random(stays) < 0.1)
    went = np.where(dies, len(WENT) - 1, went)
    soon = last & ~dies & (rng.random(stays) < 0.05)
    death = np.full(patients, np.datetime64("NaT"), "datetime64[m]")
    death[owner[dies]] = discharge[dies]
    death[owner[soon]] = discharge[soon] + (rng.integers(1, 60, soon.sum()) * DAY).astype("timedelta64[m]")
    encounter = 20_000_000 + np.arange(stays, dtype=np.int64) * 13
    came = rng.choice(len(CAME), stays, p=[0.6, 0.3, 0.1])

    def each(mean: float) -> np.ndarray:
        return np.repeat(np.arange(stays), rng.poisson(mean, stays))

    def within(rows: np.ndarray) -> np.ndarray:
        return admit[rows] + (rng.random(len(rows)) * length[rows]).astype(np.int64).astype("timedelta64[m]")

    ill, lab, pill = np.concatenate([np.arange(stays), each(3.0)]), each(4.0), each(2.0)
    ill.sort()
    which, new = rng.integers(0, len(DIAGNOSES), len(ill)), (discharge[ill] >= TURN).astype(np.int64)
    test, drug = rng.integers(0, len(LABS), len(lab)), rng.integers(0, len(MEDICINES), len(pill))
    mean, spread = np.array([one[2] for one in LABS]), np.array([one[3] for one in LABS])
    value = np.round(np.maximum(0.1, mean[test] + spread[test] * rng.standard_normal(len(lab))), 2)

    def micro(times: np.ndarray) -> Any:
        return pa.array(times.astype("datetime64[us]"))

    of = lambda rows: {"encounter": encounter[rows], "patient": person[owner[rows]]}  # noqa: E731
    return Population(
        pa.table({"patient": person, "birth": micro(birth.astype("datetime64[D]").astype("datetime64[m]")),
                  "sex": np.where(rng.random(patients) < 0.5, "F", "M"), "death": micro(death)}),
        pa.table({**of(np.arange(stays)), "admit": micro(admit), "discharge": micro(discharge),
                  "came": np.array(CAME)[came], "went": np.array(WENT)[went]}),
        pa.table({**of(ill), "system": np.array(["9", "10"])[new], "code": np.array(DIAGNOSES)[which, new],
                  "first": np.concatenate([[True], ill[1:] != ill[:-1]]) if len(ill) else np.zeros(0, bool)}),
        pa.table({**of(lab), "time": micro(within(lab)), "code": np.array([one[0] for one in LABS])[test],
                  "unit": np.array([one[1] for one in LABS])[test], "value": value}),
        pa.table({**of(pill), "time": micro(within(pill)), "code": np.array(MEDICINES)[drug]}),
    )  # fmt: skip


def _open(found: Population) -> duckdb.DuckDBPyConnection:
    import duckdb

    base = duckdb.connect()
    for name, table in found._asdict().items():
        base.register(name, table)
    return base


def _copy(base: duckdb.DuckDBPyConnection, query: str, to: Path, how: str) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    base.execute(f"COPY ({query}) TO '{to}' ({how})")


def to_meds(found: Population, folder: Path, numbered: bool = True) -> None:
    """Writes MEDS. numbered: with a column `hadm_id`, which the standard does not know."""
    own = ", hadm_id" if numbered else ""
    parts = (
        "SELECT patient, NULL::TIMESTAMP, 'GENDER//' || sex, NULL::FLOAT, NULL::BIGINT FROM patients",
        "SELECT patient, birth, 'MEDS_BIRTH', NULL, NULL FROM patients",
        "SELECT patient, death, 'MEDS_DEATH', NULL, NULL FROM patients WHERE death IS NOT NULL",
        "SELECT patient, admit, 'HOSPITAL_ADMISSION//URGENT//' || came, NULL, encounter FROM stays",
        "SELECT patient, discharge, 'HOSPITAL_DISCHARGE//' || went, NULL, encounter FROM stays",
        "SELECT patient, discharge, 'DIAGNOSIS//ICD//' || system || '//' || code, NULL, encounter "
        "FROM diagnoses JOIN stays USING (encounter, patient)",
        "SELECT patient, time, 'LOINC/' || code, value, encounter FROM labs",
        "SELECT patient, time, 'RxNorm/' || code, NULL, encounter FROM medicines",
    )
    rows = f"SELECT subject_id, time, code, numeric_value{own} FROM ({' UNION ALL '.join(parts)}) "
    rows += "AS t(subject_id, time, code, numeric_value, hadm_id) ORDER BY subject_id, time NULLS FIRST"
    with _open(found) as base:
        _copy(base, rows, folder / "data" / "train" / "0.parquet", "FORMAT parquet, COMPRESSION zstd")
    (folder / "metadata").mkdir(parents=True, exist_ok=True)
    about = {"dataset_name": "synthetic population", "meds_version": "0.4.0"}
    (folder / "metadata" / "dataset.json").write_text(json.dumps(about))


def to_omop(found: Population, folder: Path, kind: str = "csv.gz") -> None:
    """Writes OMOP 5.4: kind "csv.gz", its names in capitals and codes padded, or "parquet"."""
    queries = {
        "person": "SELECT patient AS person_id, CASE sex WHEN 'F' THEN 8532 ELSE 8507 END AS gender_concept_id, "
        "year(birth) AS year_of_birth, month(birth) AS month_of_birth, day(birth) AS day_of_birth, "
        "patient AS person_source_value, sex AS gender_source_value FROM patients",
        "death": "SELECT patient AS person_id, death::DATE AS death_date, death AS death_datetime FROM patients "
        "WHERE death IS NOT NULL",
        "visit_occurrence": "SELECT -encounter * 100000000000 AS visit_occurrence_id, patient AS person_id, "
        "CASE came WHEN 'EMERGENCY ROOM' THEN 262 ELSE 8883 END AS visit_concept_id, admit::DATE AS visit_start_date, "
        "admit AS visit_start_datetime, discharge::DATE AS visit_end_date, discharge AS visit_end_datetime, "
        "encounter AS visit_source_value, came AS admitted_from_source_value, went AS discharged_to_source_value, "
        "NULL::BIGINT AS preceding_visit_occurrence_id FROM stays",
        "condition_occurrence": "SELECT row_number() OVER () AS condition_occurrence_id, patient AS person_id, "
        "CASE WHEN code IN ('4280', 'I509') THEN 316139 ELSE 0 END AS condition_concept_id, "
        "admit::DATE AS condition_start_date, admit AS condition_start_datetime, "
        "CASE WHEN first THEN 32902 ELSE 32908 END AS condition_status_concept_id, "
        "-encounter * 100000000000 AS visit_occurrence_id, rpad(code, 7, ' ') AS condition_source_value, "
        "0 AS condition_source_concept_id FROM diagnoses JOIN stays USING (encounter, patient)",
        "measurement": "SELECT row_number() OVER () AS measurement_id, patient AS person_id, "
        "concept_id AS measurement_concept_id, time::DATE AS measurement_date, time AS measurement_datetime, "
        "value AS value_as_number, -encounter * 100000000000 AS visit_occurrence_id, code AS measurement_source_value, "
        "unit AS unit_source_value FROM labs JOIN concept ON concept_code = code",
        "drug_exposure": "SELECT row_number() OVER () AS drug_exposure_id, patient AS person_id, "
        "concept_id AS drug_concept_id, time::DATE AS drug_exposure_start_date, time AS drug_exposure_start_datetime, "
        "-encounter * 100000000000 AS visit_occurrence_id, code AS drug_source_value FROM medicines "
        "JOIN concept ON concept_code = code",
        "concept": "SELECT * FROM concept",
    }
    known = [("LOINC", one[0], 3_000_000 + n) for n, one in enumerate(LABS)]
    known += [("RxNorm", code, 1_300_000 + n) for n, code in enumerate(MEDICINES)]
    with _open(found) as base:
        base.execute("CREATE TABLE concept (vocabulary_id VARCHAR, concept_code VARCHAR, concept_id BIGINT)")
        base.executemany("INSERT INTO concept VALUES (?, ?, ?)", known)
        for name, query in queries.items():
            if kind == "parquet":
                _copy(base, query, folder / f"{name}.parquet", "FORMAT parquet, COMPRESSION zstd")
            else:
                _copy(base, query, folder / f"{name.upper()}.{kind}", "FORMAT csv, HEADER, COMPRESSION gzip")


def to_fhir(found: Population, folder: Path) -> None:
    """Writes FHIR R4 as a bulk export of gzipped NDJSON; no Encounter has class IMP, and times have offsets."""
    when = "strftime({0}, '%Y-%m-%dT%H:%M:%S') || '-05:00'"
    coding = "{{'coding': [{{'system': '{0}', 'code': {1}}}]}}"
    patient = "{'reference': 'Patient/p' || patient} AS subject"
    visit = "{'reference': 'Encounter/e' || encounter} AS encounter"
    icd = "CASE system WHEN '9' THEN 'http://hl7.org/fhir/sid/icd-9-cm' ELSE 'http://hl7.org/fhir/sid/icd-10-cm' END"
    point = "CASE WHEN length(code) > 3 THEN code[:3] || '.' || code[4:] ELSE code END"
    queries = {
        "Patient": "SELECT 'Patient' AS resourceType, 'p' || patient AS id, [{'system': 'urn:mrn', 'value': "
        "patient::VARCHAR}] AS identifier, CASE sex WHEN 'F' THEN 'female' ELSE 'male' END AS gender, "
        f"strftime(birth, '%Y-%m-%d') AS birthDate, {when.format('death')} AS deceasedDateTime FROM patients",
        "Encounter": "SELECT 'Encounter' AS resourceType, 'e' || encounter AS id, [{'system': 'urn:visit', 'value': "
        "encounter::VARCHAR}] AS identifier, 'finished' AS status, {'code': CASE came WHEN 'EMERGENCY ROOM' THEN "
        f"'EMER' ELSE 'AMB' END}} AS class, {patient}, {{'start': {when.format('admit')}, 'end': "
        f"{when.format('discharge')}}} AS period, {{'coding': [{{'code': 'MED'}}]}} AS serviceType, "
        f"{{'admitSource': {coding.format('urn:from', 'came')}, "
        f"'dischargeDisposition': {coding.format('urn:to', 'went')}}} AS hospitalization, "
        "[{'condition': {'reference': 'Condition/c' || first}, 'rank': 1}] AS diagnosis FROM stays "
        "JOIN (SELECT encounter, min(place) AS first FROM numbered GROUP BY encounter) USING (encounter)",
        "Condition": f"SELECT 'Condition' AS resourceType, 'c' || place AS id, {patient}, {visit}, "
        f"{{'coding': [{{'system': {icd}, 'code': {point}}}]}} AS code FROM numbered",
        "Observation": f"SELECT 'Observation' AS resourceType, 'o' || row_number() OVER () AS id, 'final' AS status, "
        f"{patient}, {visit}, {coding.format('http://loinc.org', 'code')} AS code, {when.format('time')} AS "
        "effectiveDateTime, {'value': value, 'unit': unit, 'system': 'http://unitsofmeasure.org', 'code': unit} AS "
        "valueQuantity FROM labs",
        "MedicationRequest": "SELECT 'MedicationRequest' AS resourceType, 'm' || row_number() OVER () AS id, "
        f"'completed' AS status, 'order' AS intent, {patient}, {visit}, {when.format('time')} AS authoredOn, "
        f"{coding.format('http://www.nlm.nih.gov/research/umls/rxnorm', 'code')} AS medicationCodeableConcept "
        "FROM medicines",
    }
    with _open(found) as base:
        order = "ORDER BY encounter, NOT first, code"
        base.execute(f"CREATE TABLE numbered AS SELECT *, row_number() OVER ({order}) AS place FROM diagnoses")
        for name, query in queries.items():
            _copy(base, query, folder / f"{name}.000.ndjson.gz", "FORMAT json, COMPRESSION gzip")


def to_tables(found: Population, folder: Path) -> None:
    """Writes plain tables, as a hospital's own reports might be."""
    events = (
        "SELECT patient AS mrn, encounter AS hadm_id, NULL AS time, 'diagnosis' AS kind, system AS icd_version, code, "
        "NULL AS value, NULL AS unit, CASE WHEN first THEN 1 ELSE 2 END AS rank FROM diagnoses UNION ALL "
        "SELECT patient, encounter, time, 'measurement', 'LOINC', code, value, unit, NULL FROM labs UNION ALL "
        "SELECT patient, encounter, time, 'medicine', 'RxNorm', code, NULL, NULL, NULL FROM medicines"
    )
    with _open(found) as base:
        how = "FORMAT csv, HEADER"
        _copy(base, "SELECT patient AS mrn, birth AS dob, sex AS gender, death AS dod FROM patients",
              folder / "patients.csv", how)  # fmt: skip
        stays = "SELECT patient AS MRN, encounter AS hadm_id, admit AS admittime, discharge AS dischtime, "
        stays += "came AS admission_location, went AS discharge_location FROM stays"
        _copy(base, stays, folder / "admissions.csv", how)
        _copy(base, events, folder / "events.parquet", "FORMAT parquet")


def main() -> None:
    """Writes a population four times."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--patients", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="a folder; meds/, omop/, fhir/ and tables/ in it")
    given = parser.parse_args()
    found = make(given.patients, given.seed)
    to_meds(found, given.out / "meds")
    to_omop(found, given.out / "omop")
    to_fhir(found, given.out / "fhir")
    to_tables(found, given.out / "tables")
    print(
        f"{len(found.patients):,} synthetic patients, {len(found.stays):,} stays: {given.out}/{{meds,omop,fhir,tables}}"
    )


if __name__ == "__main__":
    main()
