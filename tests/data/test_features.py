"""What is known of an index stay at its discharge: the same at every door, nothing of later, and points by hand."""

from __future__ import annotations

import csv
import datetime
import json

import pytest

from benchmarks import population
from learner_jax.cli.main import main
from learner_jax.data import cohorts, features
from learner_jax.data.doors import open_records
from learner_jax.errors import ConfigError
from learner_jax.reports import attrition

DOORS = {name: getattr(population, f"to_{name}") for name in ("meds", "omop", "fhir", "tables")}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("people"), population.make(400, seed=5)
    for name, write in DOORS.items():
        write(made, folder / name)
    return folder


def find(records, rule_name: str = "heart_failure_readmission"):
    rule, codes = cohorts.load(rule_name)
    cohort = cohorts.find(records, rule, codes)
    return cohort, features.find(records, features.charlson())


def test_every_door_gives_the_same_features(people):
    told = {}
    for door in DOORS:
        with open_records(people / door) as records:
            cohort, found = find(records)
        assert len(found.rows) == len(cohort.stays) > 300
        rows = list(csv.DictReader(features.as_csv(cohort, found).splitlines()))
        told[door] = [{name: row[name] for name in (*found.names, "lace")} for row in rows]
    new = (
        "elixhauser",
        "medicine_ras_inhibitor",
        "medicine_loop_diuretic_days",
        "count_medicine_90",
        "days_since_measurement",
    )
    for name in ("stays_180", "days_since_stay", "diabetes", "charlson", "emergency", "count_medicine", "lace", *new):
        assert len({row[name] for row in told["meds"]}) > 1, f"{name} is the same for everybody"
    for door in DOORS:
        assert told[door] == told["meds"], door


@pytest.mark.parametrize("change", ["shuffle", "move", "close", "delete"])
def test_nothing_of_later_enters(people, change):
    """For the first index stay of each patient: all that comes after its discharge is changed."""
    with open_records(people / "meds") as records:
        cohort, _ = find(records)
        patients = records.sql("SELECT patient, min(discharge) FROM stays GROUP BY patient")
        records.sql("CREATE TABLE cut (patient BIGINT, until TIMESTAMP)")
        records.fill("cut", patients)
        records.sql("DELETE FROM stays USING cut WHERE stays.patient = cut.patient AND stays.discharge > cut.until")
        before = features.find(records, features.charlson())
        assert len(before.rows) == len(patients) > 200
        varied = {name for place, name in enumerate(before.names) if len({row[place] for row in before.rows}) > 1}
        new = {"elixhauser", "medicine_loop_diuretic", "medicine_loop_diuretic_days", "medicine_antiplatelet"}
        assert varied > new | {
            "elixhauser_diabetes",
            "count_medicine_30",
            "count_measurement_365",
            "count_diagnosis_90",
        }
        events = "cut WHERE events.patient = cut.patient AND events.time > cut.until"
        assert records.one("SELECT count(*) FROM events JOIN cut USING (patient) WHERE time > until") > 1000
        if change == "delete":
            records.sql(f"DELETE FROM events USING {events}")
        elif change == "move":
            records.sql(f"UPDATE events SET time = time + to_days(3) FROM {events}")
        elif change == "close":  # right after the discharge, and a medicine that nobody had
            later = "time = cut.until + to_seconds(1), code = 'RxNorm//9997', kind = 'medicine', encounter = NULL"
            records.sql(f"UPDATE events SET {later} FROM {events}")
        else:
            records.sql(f"UPDATE events SET code = 'ICD10CM//C780', value = -1, kind = 'diagnosis' FROM {events}")
        for table in ("encounters", "every"):
            stays = f"cut WHERE {table}.patient = cut.patient AND {table}.admit >= cut.until"
            if change == "delete":
                records.sql(f"DELETE FROM {table} USING {stays}")
            else:
                later = "admit = admit + to_days(400), discharge = discharge + to_days(900)"
                records.sql(f"UPDATE {table} SET {later} FROM {stays}")
        assert features.find(records, features.charlson()) == before


def test_what_came_before_does_enter(people):
    with open_records(people / "meds") as records:
        find(records)
        before = features.find(records, features.charlson())
        records.sql("UPDATE events SET code = 'ICD10CM//C780' WHERE kind = 'diagnosis'")
        after = features.find(records, features.charlson())
    place = before.names.index("metastatic")
    assert not any(row[place] for row in before.rows) and all(row[place] for row in after.rows)


@pytest.mark.parametrize(
    "days, emergency, comorbidity, visits, points",
    [
        (0.5, 0, 0, 0, 0), (1.2, 0, 0, 0, 1), (2.0, None, 0, 0, 2), (3.9, 0, 0, 0, 3), (4.0, 0, 0, 0, 4),
        (6.9, 0, 0, 0, 4), (7.0, 0, 0, 0, 5), (13.9, 0, 0, 0, 5), (14.0, 0, 0, 0, 7), (0.5, 1, 0, 0, 3),
        (0.5, 0, 3, 0, 3), (0.5, 0, 4, 0, 5), (0.5, 0, 9, 0, 5), (0.5, 0, 0, 3, 3), (0.5, 0, 0, 7, 4),
        (20, 1, 6, 5, 19),
    ],
)  # fmt: skip
def test_lace_by_its_table(days, emergency, comorbidity, visits, points):
    assert features.lace(days, emergency, comorbidity, visits) == points


def made_by_hand(folder):
    """One patient: three earlier stays, an emergency visit, then the index stay; worked out on paper below."""
    folder.mkdir()
    (folder / "patients.csv").write_text("patient,birth,sex\n1,1950-06-01,F\n")
    (folder / "stays.csv").write_text(
        "patient,encounter,admit,discharge,kind,admitted_from\n"
        "1,10,2019-01-01 00:00,2019-01-05 00:00,stay,HOME\n"  # more than a year before
        "1,15,2019-05-20 00:00,2019-06-04 12:00,stay,HOME\n"  # ends within the year
        "1,11,2020-02-01 00:00,2020-02-03 12:00,stay,EMERGENCY ROOM\n"
        "1,12,2020-05-01 10:00,2020-05-01 14:00,emergency,\n"
        "1,13,2020-06-02 00:00,2020-06-07 12:00,stay,EMERGENCY ROOM\n"
        "1,14,2020-06-20 00:00,2020-06-21 00:00,stay,EMERGENCY ROOM\n"
    )
    (folder / "events.csv").write_text(
        "patient,encounter,time,kind,system,code\n"
        "1,10,,diagnosis,ICD10CM,B20\n"  # too long ago
        "1,15,2019-05-20,diagnosis,ICD10CM,G81.9\n"  # stamped before, and coded at its end
        "1,11,,diagnosis,ICD10CM,E11.9\n1,11,,diagnosis,ICD10CM,K74.6\n"
        "1,13,,diagnosis,ICD10CM,I50.9\n1,13,,diagnosis,ICD10CM,E11.22\n1,13,,diagnosis,ICD9CM,410.71\n"
        "1,14,,diagnosis,ICD10CM,C78.0\n"  # later
    )
    (folder / "one.csv").write_text("vocabulary,code,match,label\nICD10CM,I50,prefix,heart failure\n")
    (folder / "rule.yaml").write_text("name: by_hand\nindex: {diagnoses: [one]}\n")


def test_a_patient_by_hand(tmp_path):
    made_by_hand(tmp_path / "hospital")
    rule, codes = cohorts.load(str(tmp_path / "hospital" / "rule.yaml"))
    with open_records(tmp_path / "hospital") as records:
        cohort = cohorts.find(records, rule, codes)
        found = features.find(records, features.charlson())
    assert [stay.encounter for stay in cohort.stays] == ["13"]
    known = dict(zip(found.names, found.rows[0], strict=True))
    assert known["age"] == 70 and known["female"] == 1 and known["emergency"] == 1
    assert known["stay_days"] == 5.5 and known["stays_180"] == 1 and known["stays_365"] == 2
    since = datetime.datetime(2020, 6, 2) - datetime.datetime(2020, 2, 3, 12)
    assert known["days_since_stay"] == since.total_seconds() / 86400 and known["days_in_stays_365"] == 2.5 + 15.5
    assert known["emergency_180"] == 1 and known["count_diagnosis"] == 3
    groups = {name for name in (group.name for group in features.charlson()) if known[name]}
    now = {"heart_failure", "diabetes_complicated", "myocardial_infarction"}
    assert groups == now | {"diabetes", "mild_liver", "hemiplegia"}
    assert known["charlson"] == 1 + 2 + 1 + 1 + 2  # the complicated diabetes alone
    assert found.lace == (4 + 3 + 5 + 1,)  # 2 + 2 + 2 + 1 points of diagnoses are 5


def test_the_groups_are_those_of_the_paper():
    groups = {group.name: group for group in features.charlson()}
    assert len(groups) == 17
    assert [groups[name].points for name in ("metastatic", "aids", "severe_liver", "renal")] == [6, 6, 3, 2]

    def of(code: str) -> set[str]:
        return {
            name
            for name, group in groups.items()
            if any(code.startswith(f"{one.vocabulary}//{one.code}") for one in group.codes)
        }

    assert of("ICD10CM//I2101") == {"myocardial_infarction"} and of("ICD9CM//42830") == {"heart_failure"}
    assert of("ICD10CM//E1165") == {"diabetes"} and of("ICD10CM//E1122") == {"diabetes_complicated"}
    assert of("ICD9CM//5856") == {"renal"} and of("ICD9CM//1739") == set() and of("ICD10CM//C449") == set()
    assert (
        of("ICD10CM//C787") == {"metastatic"}
        and of("ICD10CM//Z9484") == set()
        and of("ICD10CM//Z944") == {"mild_liver"}
    )


def test_a_file_of_groups_that_is_none_is_one_line(tmp_path):
    (tmp_path / "g.csv").write_text("vocabulary,code\nICD9CM,1\n")
    with pytest.raises(ConfigError, match="expected columns vocabulary, code, match, group"):
        features.charlson(tmp_path / "g.csv")
    with pytest.raises(ConfigError, match="expected groups of diagnoses, got"):
        features.charlson(tmp_path / "none.csv")


def test_the_command_writes_features_and_tells_of_lace(people, tmp_path, capsys):
    out = tmp_path / "features.csv"
    asked = ["data", "cohort", str(people / "meds"), f"--features={out}"]
    assert main([*asked, "--cohort=heart_failure_readmission"]) == 0
    told = capsys.readouterr().out
    assert "LACE: mean" in told and "AUROC" in told and "HOSPITAL" in told and "no emergency visits" in told
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert {row["outcome"] for row in rows} == {"0", "1"} and "have no outcome and no row" in told
    assert list(rows[0])[:3] == ["patient", "encounter", "outcome"] and (out.stat().st_mode & 0o777) == 0o600
    assert main(asked) != 0
    assert "expected --cohort=NAME" in capsys.readouterr().err


def test_a_stay_of_which_nobody_says_the_end_tells_nothing_before_it_ends(tmp_path):
    made_by_hand(tmp_path / "h")
    with (tmp_path / "h" / "stays.csv").open("a") as file:
        file.write("1,16,2020-06-01 00:00,,stay,HOME\n")
    with (tmp_path / "h" / "events.csv").open("a") as file:
        file.write("1,16,2020-06-01,diagnosis,ICD10CM,C78.0\n")
    rule, codes = cohorts.load(str(tmp_path / "h" / "rule.yaml"))
    with open_records(tmp_path / "h") as records:
        cohorts.find(records, rule, codes)
        found = features.find(records, features.charlson())
    assert dict(zip(found.names, found.rows[0], strict=True))["metastatic"] == 0


@pytest.mark.parametrize("visit", ["2020-06-01 18:00,2020-06-01 23:00", "2020-06-02,2020-06-02", "2020-06-02 00:00,"])
def test_the_emergency_visit_that_led_to_the_stay_is_no_earlier_one(tmp_path, visit):
    made_by_hand(tmp_path / "h")
    stays = tmp_path / "h" / "stays.csv"
    text = stays.read_text().replace("2020-06-07 12:00,stay,EMERGENCY ROOM", "2020-06-07 12:00,stay,")
    stays.write_text(text + f"1,16,{visit},emergency,\n")
    rule, codes = cohorts.load(str(tmp_path / "h" / "rule.yaml"))
    with open_records(tmp_path / "h") as records:
        cohorts.find(records, rule, codes)
        found = features.find(records, features.charlson())
    known = dict(zip(found.names, found.rows[0], strict=True))
    assert known["emergency_180"] == 1 and known["emergency"] == 1 and found.lace == (13,)


def urgent_in_fhir(folder, visits) -> dict[str, float | None]:
    """The features of the second of two stays; visits: class, begin, end and the number of the whole ("" for none)."""
    folder.mkdir()
    patient = {"reference": "Patient/p"}
    lines: list[dict] = [{"resourceType": "Patient", "id": "p", "birthDate": "1950-06-01"}]

    def met(key: str, kind: str, begin: str, end: str, whole: str) -> None:
        part = {"partOf": {"reference": f"Encounter/{whole}"}} if whole else {}
        about = {"resourceType": "Encounter", "id": key, "class": {"code": kind}, "subject": patient, **part}
        lines.append({**about, "period": {"start": begin, "end": end}})

    met("first", "IMP", "2020-04-01T10:00:00", "2020-04-03T10:00:00", "")
    met("index", "IMP", "2020-06-02T10:00:00", "2020-06-07T10:00:00", "")
    for place, visit in enumerate(visits):
        met(f"v{place}", *visit)
    code = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "I50.9"}]}
    encounter = {"reference": "Encounter/index"}
    lines.append({"resourceType": "Condition", "id": "c", "subject": patient, "encounter": encounter, "code": code})
    (folder / "all.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with open_records(folder) as records:
        cohorts.find(records, *cohorts.load("demo_heart_failure"))
        found = features.find(records, features.charlson())
    assert len(found.rows) == 1
    return dict(zip(found.names, found.rows[0], strict=True))


@pytest.mark.parametrize(
    "visits, urgent, earlier",
    [
        # part of the stay that it led to, though it ended a day before
        ([("EMER", "2020-05-31T20:00:00", "2020-06-01T08:00:00", "index")], 1, 0),
        # of an earlier stay
        ([("EMER", "2020-04-01T02:00:00", "2020-04-01T11:00:00", "first"),
          ("EMER", "2020-06-02T02:00:00", "2020-06-02T11:00:00", "index")], 1, 1),
        # a stage of the visit is no visit beside it, nor is intensive care
        ([("EMER", "2020-06-02T02:00:00", "2020-06-02T11:00:00", "index"),
          ("EMER", "2020-06-02T02:00:00", "2020-06-02T03:00:00", "v0"),
          ("EMER", "2020-05-02T02:00:00", "2020-05-02T11:00:00", ""),
          ("EMER", "2020-05-02T02:00:00", "2020-05-02T03:00:00", "v2"),
          ("ACUTE", "2020-06-03T02:00:00", "2020-06-04T11:00:00", "index")], 1, 1),
        # part of no stay: by its time
        ([("EMER", "2020-06-02T02:00:00", "2020-06-02T11:00:00", "v1"),
          ("AMB", "2020-06-02T02:00:00", "2020-06-02T11:00:00", "")], 1, 0),
    ],
)  # fmt: skip
def test_an_emergency_visit_that_is_part_of_a_stay_is_a_visit_still(tmp_path, visits, urgent, earlier):
    known = urgent_in_fhir(tmp_path / "fhir", visits)
    assert (known["emergency"], known["emergency_180"]) == (urgent, earlier)
    assert known["stays_180"] == 1 and known["stay_days"] == 5


def of_a_rule(folder):
    """Features and stays of the rule beside these records."""
    rule, codes = cohorts.load(str(folder / "rule.yaml"))
    with open_records(folder) as records:
        cohort = cohorts.find(records, rule, codes)
        return cohort, features.find(records, features.charlson())


ILLNESSES = ("heart_failure", "charlson", "elixhauser_depression", "elixhauser", "group_septicaemia")


def otherwise_coded(folder, others: str = ""):
    """Two patients' stays, 1 with SNOMED alone and 2 without any diagnosis; others: more events."""
    folder.mkdir()
    (folder / "stays.csv").write_text(
        "patient,encounter,admit,discharge,kind,admitted_from\n"
        "1,10,2020-01-01,2020-01-05,stay,HOME\n2,20,2020-01-01,2020-01-05,stay,\n3,30,2020-01-01,2020-01-05,stay,HOME\n"
    )
    (folder / "events.csv").write_text(
        f"patient,encounter,time,kind,system,code\n1,10,,diagnosis,SNOMED,84114007\n{others}"
    )
    (folder / "rule.yaml").write_text("name: every\ncensoring: {death: not_told, lost: not_told}\n")


@pytest.mark.parametrize(
    "others, of_two",
    [
        ("", None),  # nobody has a code that can be read: that 2 has none says nothing
        ("3,30,,diagnosis,ICD10CM,J18.9\n", 0),  # who is ill gets one
        ("3,30,,diagnosis,ICD9CM,486\n", 0),
    ],
)
def test_illnesses_without_a_code_that_can_be_read_are_not_known(tmp_path, others, of_two):
    otherwise_coded(tmp_path / "h", others)
    _, found = of_a_rule(tmp_path / "h")
    one, two, three = (dict(zip(found.names, row, strict=True)) for row in found.rows)
    assert [one[name] for name in ILLNESSES] == [None] * 5
    assert [two[name] for name in ILLNESSES] == [of_two] * 5
    assert three["charlson"] == of_two and three["group_pneumonia_and_airways_infection"] == (None if not others else 1)
    count = 1 if others else 3
    told = f"in {count} of 3 stays no diagnosis has a code of ICD-9-CM or ICD-10: no comorbidity group is known"
    assert told in found.notes
    assert found.lace == (4, 4, 4)
    text = features.as_csv(*of_a_rule(tmp_path / "h"))
    assert next(csv.DictReader(text.splitlines()))["charlson"] == ""


@pytest.mark.parametrize("drug", ["", "3,30,2020-01-02,medicine,OURS,5\n", "3,30,2020-02-02,medicine,OURS,5\n"])
def test_medicines_of_records_without_any_are_not_known(tmp_path, drug):
    """One of anybody before a discharge, and that nobody else had one is a fact."""
    otherwise_coded(tmp_path / "h", drug)
    _, found = of_a_rule(tmp_path / "h")
    known = [dict(zip(found.names, row, strict=True)) for row in found.rows]
    held = "01-02" in drug
    assert {row[name] for row in known for name in ("medicine_digoxin", "medicine_inotrope")} == {0 if held else None}
    assert any("hold no medicine before a discharge" in note for note in found.notes) == (not held)


@pytest.mark.parametrize("visits", ["", "3,31,2019-12-01,2019-12-01,emergency,\n"])
def test_emergency_visits_of_records_without_any_are_not_known(tmp_path, visits):
    """Where visits are recorded, a stay that none led to did not begin with one, though nobody says with what."""
    otherwise_coded(tmp_path / "h")
    with (tmp_path / "h" / "stays.csv").open("a") as file:
        file.write(visits)
    _, found = of_a_rule(tmp_path / "h")
    known = [dict(zip(found.names, row, strict=True)) for row in found.rows]
    assert [row["emergency_180"] for row in known] == ([0, 0, 1] if visits else [None] * 3)
    assert [row["emergency"] for row in known] == [0, 0 if visits else None, 0]
    told = "in 1 of 3 stays it is not known whether the patient came by the emergency department"
    assert (told in found.notes) == (not visits)
    lace = [note for note in found.notes if note.startswith("LACE")]
    lacking = "diagnoses" if visits else "emergency visits and ways in and diagnoses"
    assert lace == [f"LACE counts the {lacking} that are not known as none"]


def test_an_empty_cohort_says_that_alone_and_writes_no_features(people, tmp_path, capsys):
    (tmp_path / "nobody.csv").write_text("vocabulary,code,match,label\nICD10CM,Z999,exact,nothing\n")
    (tmp_path / "mine.yaml").write_text("name: mine\nindex: {diagnoses: [nobody]}\n")
    out = tmp_path / "features.csv"
    asked = ["data", "cohort", str(people / "meds"), f"--cohort={tmp_path / 'mine.yaml'}", f"--features={out}"]
    assert main(asked) == 0
    told = capsys.readouterr().out
    assert "The cohort is empty" in told and f"No stay, no features: {out} was not written." in told
    assert not any(word in told for word in ("medicine", "LOINC", "LACE", "emergency"))
    assert not out.exists() and not list(tmp_path.glob("*.json"))


def test_the_check_of_a_table_says_why_columns_are_empty(people, tmp_path, capsys):
    out = tmp_path / "features.csv"
    asked = ["data", "cohort", str(people / "tables"), "--cohort=heart_failure_readmission", f"--features={out}"]
    assert main(asked) == 0 and capsys.readouterr()
    main(["data", "check", "--config=heart_failure", f"--data={out}"])
    told = capsys.readouterr()
    assert "column 'emergency_180': no row has a value" in told.out + told.err
    said = "its cohort file says: these records hold no emergency visits before a discharge"
    assert said in told.out + told.err
    (tmp_path / "features.cohort.json").unlink()
    main(["data", "check", "--config=heart_failure", f"--data={out}"])
    told = capsys.readouterr()
    assert "cohort file" not in told.out + told.err


@pytest.mark.parametrize("readmitted, said", [(1, False), (9, False), (10, True), (15, True), (16, False)])
def test_how_well_lace_tells_is_not_said_of_a_few(readmitted, said):
    rule, now = cohorts.load("demo_heart_failure")[0], datetime.datetime(2020, 1, 1)
    outcomes = ["1"] * readmitted + ["0"] * (25 - readmitted)
    stays = tuple(cohorts.Index("1", str(n), now, now, outcome, "1", str(n)) for n, outcome in enumerate(outcomes))
    cohort = cohorts.Cohort(rule, stays, (), ())
    found = features.Features(("age",), tuple((50.0,) for _ in stays), tuple(range(19)) + (0,) * 6, ())
    told = attrition.known(cohort, found)
    assert ("AUROC" in told) == said and (f"{readmitted} of 25" in told)
    assert ("too few" in told) != said
