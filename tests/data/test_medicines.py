"""Groups of medicines and counts of codes with how long ago: worked out by hand, by codes and by words."""

from __future__ import annotations

import datetime as dt
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from learner_jax.data import cohorts, features, medicines
from learner_jax.data.doors import open_records
from learner_jax.errors import ConfigError

STAYS = (
    "patient,encounter,admit,discharge\n"
    "1,8,2018-12-01 00:00,2018-12-10 00:00\n"
    "1,9,2020-03-01 00:00,2020-03-05 00:00\n"
    "1,10,2020-06-10 08:00,2020-06-15 12:00\n"
    "1,11,2020-07-01 08:00,2020-07-02 12:00\n"
)
ONE = "name: one\nindex: {diagnoses: [one]}\n"


def known(folder) -> dict[str, float | None]:
    """Features of the one index stay of these records; the rule and its code list lie beside."""
    rule, codes = cohorts.load(str(folder.parent / "rule.yaml"))
    with open_records(folder) as records:
        cohort = cohorts.find(records, rule, codes)
        found = features.find(records, features.charlson())
    assert len(cohort.stays) == 1
    return dict(zip(found.names, found.rows[0], strict=True))


def written(tmp_path, events: str, header: str = "patient,encounter,time,kind,system,code,label"):
    """A folder of plain tables; stay 10 is the index."""
    folder = tmp_path / "hospital"
    folder.mkdir()
    (tmp_path / "one.csv").write_text("vocabulary,code,match,label\nICD10CM,I50,prefix,heart failure\n")
    (tmp_path / "rule.yaml").write_text(ONE)
    (folder / "stays.csv").write_text(STAYS)
    (folder / "events.csv").write_text(f"{header}\n1,10,,diagnosis,ICD10CM,I50.9,\n{events}")
    return folder


def taken(row: dict[str, float | None]) -> dict[str, float | None]:
    """Group -> days since the last, of those that were known at all."""
    names = [one.name for one in medicines.medicines()]
    return {name: row[f"medicine_{name}_days"] for name in names if row[f"medicine_{name}_days"] is not None}


def test_days_by_hand(tmp_path):
    folder = written(
        tmp_path,
        "1,10,2020-06-11 12:00,medicine,RxNorm,4603,\n"  # furosemide, four days before the discharge
        "1,10,2020-06-14 12:00,medicine,RxNorm,4603,\n"  # and one
        "1,9,2020-03-02 12:00,medicine,ATC,C03CA01,\n"
        "1,9,2020-03-02 12:00,medicine,ATC,C09AA05,\n"  # ramipril, in the stay before alone
        "1,,2020-06-10 00:00,medicine,ATC,C07AB02,\n"  # by the day of the admission: in the stay
        "1,,2020-06-10 07:00,medicine,ATC,C01AA05,\n"  # an hour before it
        "1,8,2018-12-05 00:00,medicine,ATC,A10AB01,\n"  # too long ago
        "1,11,2020-07-01 12:00,medicine,ATC,C10AA05,\n",  # later
    )
    row = known(folder)
    since = (dt.datetime(2020, 6, 15, 12) - dt.datetime(2020, 3, 2, 12)).days
    morning = (5 * 24 + 5) / 24
    assert taken(row) == {
        "loop_diuretic": 1, "ras_inhibitor": since, "beta_blocker": 5.5, "digoxin": pytest.approx(morning),
    }  # fmt: skip
    flags = {one.name for one in medicines.medicines() if row[f"medicine_{one.name}"]}
    assert flags == {"loop_diuretic", "beta_blocker"}


def test_counts_and_days_of_codes_by_hand(tmp_path):
    folder = written(
        tmp_path,
        "1,9,,diagnosis,ICD10CM,E11.9,\n1,9,,diagnosis,ICD10CM,I10,\n1,9,2020-03-04,diagnosis,ICD10CM,J44.1,\n"
        "1,10,,diagnosis,ICD10CM,I10,\n"
        "1,10,2020-06-12 08:00,measurement,LOINC,2160-0,\n1,10,2020-06-13 08:00,measurement,LOINC,2160-0,\n"
        "1,,2020-05-16 12:00,measurement,LOINC,718-7,\n"  # thirty days before the discharge to the minute
        "1,,2020-05-16 11:59,measurement,LOINC,2823-3,\n"
        "1,,2019-06-16 12:00,measurement,LOINC,6690-2,\n"  # within a year before the discharge
        "1,,2019-06-11 12:00,measurement,LOINC,777-3,\n"  # within a year before the admission alone
        "1,,2020-06-10 00:00,procedure,CPT4,1,\n"  # by the day of the admission
        "1,,2020-06-08 08:00,procedure,CPT4,2,\n"
        "1,10,2020-06-09 08:00,procedure,CPT4,3,\n"  # of the stay, before its admission: known at its end
        "1,11,,diagnosis,ICD10CM,C78.0,\n1,11,2020-06-20,measurement,LOINC,2345-7,\n",  # later
    )
    row = known(folder)
    counts = {name: row[name] for name in row if name.startswith(("count_", "days_since_")) and row[name]}
    assert counts == {
        "count_diagnosis": 2, "count_diagnosis_30": 2, "count_diagnosis_90": 2, "count_diagnosis_365": 4,
        "count_measurement": 1, "count_measurement_30": 2, "count_measurement_90": 3, "count_measurement_365": 4,
        "count_procedure": 1, "count_procedure_30": 3, "count_procedure_90": 3, "count_procedure_365": 3,
        "days_since_stay": pytest.approx(97 + 8 / 24), "days_since_diagnosis": pytest.approx(97 + 8 / 24),
        "days_since_measurement": pytest.approx(24 + 20 / 24), "days_since_procedure": 2,
    }  # fmt: skip
    assert row["count_medicine_365"] == 0 and row["days_since_medicine"] is None


@pytest.mark.parametrize(
    "label, groups",
    [
        ("Furosemide 40mg tab", "loop_diuretic"), ("LISINOPRIL-hydrochlorothiazide", "ras_inhibitor thiazide"),
        ("24 HR metoprolol succinate 50 MG", "beta_blocker"), ("Sotalol HCl", "beta_blocker antiarrhythmic"),
        ("Ipratropium Bromide Neb", ""), ("Belladonna & Opium", "opioid"), ("apomorphine", ""),
        ("HYDROmorphone (Dilaudid)", "opioid"), ("Heparin", "parenteral_anticoagulant"),
        ("Heparin Flush (10 units/ml)", ""), ("insulin glargine", "insulin"), ("Insulin Syringe U-500", ""),
        ("Digoxin Immune Fab", ""), ("Nystatin", ""), ("lidocaine-prilocaine", ""),
        ("Sacubitril-Valsartan", "ras_inhibitor"),
        ("EPINEPHrine", "inotrope"), ("NORepinephrine", "inotrope"), ("Adrenaline 1 mg/ml", "inotrope"),
        ("lidocaine-EPINEPHrine 1%", ""), ("Bupivacaine 0.5 % with epinephrine 1:200", ""), ("Racepinephrine", ""),
        ("EPINEPHrine (EpiPen) 0.3 mg", ""), ("epinephrine 0.3 MG/0.3 ML Auto-Injector", ""),
        ("Epinephrine 1:1000", ""), ("PHENYLEPHrine", ""),
        ("desmopressin", ""), ("Enalaprilat", "ras_inhibitor"), ("Potassium Chloride", ""),
    ],
)  # fmt: skip
def test_what_a_medicine_is_called_tells_its_group(tmp_path, label, groups):
    folder = written(tmp_path, f"1,10,2020-06-11,medicine,OURS,77,{label}\n")
    assert set(taken(known(folder))) == set(groups.split())


@pytest.mark.parametrize("said, known_as", [("Administered", 1), ("Not Given", 0), ("Hold Dose", 0), ("Stopped", 0)])
def test_what_was_not_given_is_not_known(tmp_path, said, known_as):
    """MEDS says in the code's end what came of a dose; a RxNorm product is known by its description."""
    times = [dt.datetime(2020, 1, day) for day in (1, 2, 2, 3, 3)]
    codes = ["HOSPITAL_ADMISSION", f"MEDICATION//Digoxin//{said}", "INFUSION//7", "HOSPITAL_DISCHARGE//HOME"]
    codes += ["DIAGNOSIS//ICD//10//I509"]
    folder = written(tmp_path, "").parent / "meds"
    (folder / "metadata").mkdir(parents=True)
    (folder / "data").mkdir()
    described = {"code": ["INFUSION_START//7"], "description": ["milrinone Injection"], "parent_codes": [["RxNorm/99"]]}
    pq.write_table(pa.table(described), folder / "metadata" / "codes.parquet")
    codes[2] = "INFUSION_START//7"
    events = pa.table({
        "subject_id": [1] * 5, "time": pa.array(times, pa.timestamp("us")), "code": codes,
        "numeric_value": pa.array([None] * 5, pa.float32()),
    })  # fmt: skip
    pq.write_table(events, folder / "data" / "0.parquet")
    row = known(folder)
    assert row["medicine_digoxin"] == known_as and row["medicine_inotrope"] == 1
    assert row["medicine_inotrope_days"] == 1


def fhir(folder, requests: list[dict], medications: list[dict]) -> None:
    """One stay from 1 to 3 January, with these requests on the second."""
    folder.mkdir(parents=True)
    code = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "I50.9"}]}
    patient, encounter = {"reference": "Patient/p"}, {"reference": "Encounter/e"}
    lines: list[dict] = [
        {"resourceType": "Patient", "id": "p"},
        {"resourceType": "Encounter", "id": "e", "class": {"code": "IMP"}, "subject": patient,
         "period": {"start": "2020-01-01", "end": "2020-01-03"}},
        {"resourceType": "Condition", "id": "c", "subject": patient, "encounter": encounter, "code": code},
    ]  # fmt: skip
    lines += [{"resourceType": "Medication", **one} for one in medications]
    about = {
        "resourceType": "MedicationRequest",
        "subject": patient,
        "encounter": encounter,
        "authoredOn": "2020-01-02",
    }
    lines += [{**about, "id": f"r{n}", **one} for n, one in enumerate(requests)]
    with gzip.open(folder / "all.ndjson.gz", "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


NDC = "http://hl7.org/fhir/sid/ndc"


@pytest.mark.parametrize(
    "request_, groups",
    [
        ({"medicationReference": {"reference": "Medication/lasix"}}, "loop_diuretic"),  # named by an identifier
        ({"medicationReference": {"reference": "Medication/mix"}}, "inotrope"),  # by its parts
        ({"medicationReference": {"reference": "#in"}, "contained": [
            {"resourceType": "Medication", "id": "in", "code": {"text": "Warfarin", "coding": [{"code": "w"}]}}
        ]}, "oral_anticoagulant"),
        ({"medicationReference": {"reference": "Medication/none", "display": "aspirin 81 mg"}}, "antiplatelet"),
        ({"medicationCodeableConcept": {"text": "Apixaban"}}, "oral_anticoagulant"),
        ({"medicationCodeableConcept": {"coding": [{"system": "http://www.whocc.no/atc", "code": "C03DA01"}]}}, "mra"),
        ({"medicationCodeableConcept": {"coding": [{"system": NDC, "code": "7", "display": "Simvastatin"}]}}, "statin"),
        ({"medicationReference": {"reference": "Medication/lasix"}, "status": "entered-in-error"}, ""),
        ({"medicationCodeableConcept": {"text": "Furosemide"}, "status": "cancelled"}, ""),
        ({"medicationCodeableConcept": {"text": "Furosemide"}, "status": "draft"}, ""),
        ({"medicationCodeableConcept": {"text": "Furosemide"}, "doNotPerform": True}, ""),
        ({"medicationCodeableConcept": {"text": "Furosemide"}, "intent": "proposal"}, ""),
        ({"medicationCodeableConcept": {"text": "Furosemide"}, "status": "stopped"}, "loop_diuretic"),
    ],
)  # fmt: skip
def test_a_request_names_its_medicine_in_many_ways(tmp_path, request_, groups):
    folder = written(tmp_path, "").parent / "fhir"
    parts = [{"itemReference": {"reference": f"Medication/{one}"}} for one in ("milrinone", "water")]
    fhir(folder, [request_], [
        {"id": "lasix", "code": {"coding": [{"system": NDC, "code": "1"}]}, "identifier": [{"value": "Furosemide"}]},
        {"id": "milrinone", "code": {"text": "Milrinone", "coding": [{"system": NDC, "code": "2"}]}},
        {"id": "water", "code": {"text": "Sterile water", "coding": [{"system": NDC, "code": "3"}]}},
        {"id": "mix", "identifier": [{"value": "Milrinone--water"}], "ingredient": parts},
    ])  # fmt: skip
    row = known(folder)
    assert set(taken(row)) == set(groups.split())
    assert row["count_medicine"] == (2 if "mix" in str(request_) else 1 if groups else 0)


def test_a_part_of_a_mix_has_its_own_words_alone(tmp_path):
    folder = tmp_path / "fhir"
    parts = [{"itemReference": {"reference": f"Medication/{one}"}} for one in ("m", "w")]
    fhir(folder, [{"medicationReference": {"reference": "Medication/mix"}}], [
        {"id": "m", "code": {"text": "Milrinone", "coding": [{"system": NDC, "code": "2"}]}},
        {"id": "w", "code": {"text": "Sterile water", "coding": [{"system": NDC, "code": "3"}]}},
        {"id": "mix", "ingredient": parts},
    ])  # fmt: skip
    with open_records(folder) as records:
        labels = set(records.sql("SELECT code, label FROM labels"))
    assert labels == {("NDC//2", "Milrinone"), ("NDC//2", "2"), ("NDC//3", "Sterile water"), ("NDC//3", "3")}


def test_omop_tells_a_medicine_by_its_concepts_name_and_without_it_by_the_concept(tmp_path):
    folder = written(tmp_path, "").parent / "omop"
    folder.mkdir()
    tables = {
        "person": "person_id\n1\n",
        "visit_occurrence": "visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_end_date\n"
        "5,1,9201,2020-01-01,2020-01-03\n",
        "condition_occurrence": "person_id,visit_occurrence_id,condition_source_value\n1,5,I509\n",
        "drug_exposure": "person_id,visit_occurrence_id,drug_concept_id,drug_source_value,drug_exposure_start_date\n"
        "1,5,900,x,2020-01-02\n1,5,40167213,00000000000,2020-01-02\n1,5,0,Spironolactone 25 mg,2020-01-02\n",
        "concept": "concept_id,vocabulary_id,concept_code,concept_name\n900,RxNorm,1,bumetanide 1 MG Oral Tablet\n",
    }
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text)
    assert set(taken(known(folder))) == {"loop_diuretic", "beta_blocker", "mra"}


def test_how_many_medicines_have_no_group_is_said(tmp_path):
    folder = written(
        tmp_path, "1,10,2020-06-11,medicine,RxNorm,4603,\n" + 3 * "1,10,2020-06-11,medicine,OURS,5,Senna\n"
    )
    with open_records(folder) as records:
        cohorts.find(records, *cohorts.load(str(tmp_path / "rule.yaml")))
        notes = features.find(records, features.charlson()).notes
        assert "75% of the medicines are in none of the 16 groups of medicines" in notes
        records.sql("DELETE FROM events WHERE kind = 'medicine'")
        notes = features.find(records, features.charlson()).notes
        assert any("no medicine is known of these stays" in note for note in notes)
        assert not medicines.names(()) and features.find(records, features.charlson(), drugs=()).rows


def test_a_file_of_medicines_that_is_none_is_one_line(tmp_path):
    (tmp_path / "m.csv").write_text("vocabulary,code\nATC,C03\n")
    with pytest.raises(ConfigError, match="expected columns vocabulary, code, match and group, got others"):
        medicines.medicines(tmp_path / "m.csv")
    with pytest.raises(ConfigError, match="expected groups of medicines, got"):
        medicines.medicines(tmp_path / "none.csv")
