"""Laboratory results in one unit, by hand: what is converted, what is left out, and what is said of it."""

from __future__ import annotations

import pytest

from learner_jax.data import cohorts, measured, units
from learner_jax.data.doors import open_records
from learner_jax.data.units import Line
from learner_jax.errors import ConfigError


@pytest.mark.parametrize(
    "said, wanted, molar, value, becomes",
    [
        ("umol/L", "mg/dL", 113.12, 88.4, 1.0),  # creatinine
        ("mmol/L", "mg/dL", 180.156, 5.551, 100.0),  # glucose
        ("mmol/l", "mg/dL", 28.014, 10.0, 28.0),  # urea nitrogen
        ("µmol/L", "mg/dL", 584.66, 17.1, 1.0),  # bilirubin
        ("g/L", "g/dL", None, 140, 14.0),
        ("mEq/L", "mmol/L", None, 140, 140.0),
        ("K/uL", "10*3/uL", None, 7.5, 7.5),
        ("10*9/L", "10*3/uL", None, 7.5, 7.5),
        ("°F", "Cel", None, 98.6, 37.0),
        ("[degF]", "Cel", None, 98.6, 37.0),
        ("mmHg", "mm[Hg]", None, 120, 120.0),
        ("kPa", "mm[Hg]", None, 16, 120.0),
        ("lbs", "kg", None, 154.3, 70.0),
        ("ng/L", "pg/mL", None, 300, 300.0),
        ("bpm", "/min", None, 70, 70.0),
        ("L/L", "%", None, 0.42, 42.0),
        (None, "mg/dL", None, 1.1, 1.1),
        ("UNK", "mg/dL", None, 1.1, 1.1),
    ],
)
def test_what_hospitals_write_becomes_one_unit(said, wanted, molar, value, becomes):
    times, plus = units.line(said, wanted, molar) or Line(0, 0)
    assert times * value + plus == pytest.approx(becomes, rel=2e-3)


@pytest.mark.parametrize("said", ["kg", "10*3/uL", "nonsense!", "{score}", "mmol/L"])
def test_what_cannot_become_it_is_no_line(said):
    assert units.line(said, "mg/dL") is None


def records_of(tmp_path, results: list[str]):
    (tmp_path / "patients.csv").write_text("patient,birth,sex\n1,1940-01-01,F\n2,1950-01-01,M\n")
    (tmp_path / "stays.csv").write_text(
        "patient,encounter,admit,discharge\n1,10,2020-01-01 08:00,2020-01-05 12:00\n"
        "2,20,2020-02-01 08:00,2020-02-03 12:00\n"
    )
    lines = ["patient,encounter,time,kind,system,code,value,unit"]
    lines += [f"{p},{e},2020-01-01 09:00,diagnosis,ICD10CM,I50.9,," for p, e in ((1, 10), (2, 20))]
    (tmp_path / "events.csv").write_text("\n".join([*lines, *results]) + "\n")
    return open_records(tmp_path)


def find(records):
    rule, lists = cohorts.load("demo_heart_failure")
    cohorts.find(records, rule, lists)
    return measured.find(records, measured.measurements())


def test_the_last_the_lowest_and_the_highest_of_a_stay_by_hand(tmp_path):
    results = [
        "1,10,2019-12-31 08:00,measurement,LOINC,2160-0,9.0,mg/dL",  # before the stay
        "1,10,2020-01-01 09:00,measurement,LOINC,2160-0,1.2,mg/dL",
        "1,10,2020-01-02 09:00,measurement,LOINC,2160-0,176.8,umol/L",  # 2.0
        "1,10,2020-01-04 09:00,measurement,LOINC,38483-4,1.5,mg/dL",
        "1,10,2020-01-05 13:00,measurement,LOINC,2160-0,0.1,mg/dL",  # after the discharge
        "1,10,2020-01-03 09:00,measurement,LOINC,8310-5,98.6,°F",
        "1,10,2020-01-03 09:00,measurement,LOINC,718-7,120,g/L",
        "2,20,2020-02-02 09:00,measurement,LOINC,2951-2,1400,mmol/L",  # no living patient
        "2,20,2020-02-02 09:00,measurement,LOINC,2823-3,4.1,mg",  # no concentration
    ]
    with records_of(tmp_path, results) as records:
        found, notes = find(records)
        ((stay,),) = records.sql("SELECT encounter FROM stays WHERE patient = (SELECT min(patient) FROM stays)")
    assert set(found) == {stay}
    mine = found[stay]
    assert [mine[f"creatinine_{s}"] for s in measured.SUMMARIES] == [1.5, 1.2, pytest.approx(2.0, rel=1e-3)]
    assert mine["temperature_last"] == pytest.approx(37.0) and mine["haemoglobin_last"] == pytest.approx(12.0)
    assert "1 results of potassium are in 'mg', which cannot become mmol/L: left out" in notes
    assert "1 results of sodium are outside 90 to 200 mmol/L: left out" in notes


def test_records_without_results_say_so(tmp_path):
    with records_of(tmp_path, []) as records:
        found, notes = find(records)
    assert found == {} and "no laboratory" in notes[-1]


def test_the_shipped_file_and_what_is_no_such_file(tmp_path):
    shipped = measured.measurements()
    assert len({one.name for one in shipped}) == len(shipped) > 15
    codes = [code for one in shipped for code in one.codes]
    assert len(set(codes)) == len(codes)  # no result is two things
    assert all(one.low < one.high and units.line(one.unit, one.unit) == Line(1.0, 0.0) for one in shipped)
    (tmp_path / "x.csv").write_text("name,unit\ncreatinine,mg/dL\n")
    with pytest.raises(ConfigError, match="expected columns name, unit, low, high, molar and codes"):
        measured.measurements(tmp_path / "x.csv")
    with pytest.raises(ConfigError, match="expected quantities that are measured"):
        measured.measurements(tmp_path / "none.csv")


def test_a_result_by_the_day_alone_counts_on_the_day_of_admission(tmp_path):
    results = [
        "1,10,2020-01-01,measurement,LOINC,2160-0,1.4,mg/dL",  # midnight: the stay begins at eight
        "2,20,2020-01-31,measurement,LOINC,2160-0,9.9,mg/dL",
    ]
    with records_of(tmp_path, results) as records:
        found, _ = find(records)
    assert [mine["creatinine_last"] for mine in found.values()] == [1.4]
