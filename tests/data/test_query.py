"""A query is a table: of the files beside it, in an order of its own, and no value is in what it says."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest

from learner_jax.data.query import read_query
from learner_jax.data.tables import read_sites, read_table
from learner_jax.errors import DataError

CANARY = "ZZCANARYZZ"
ROOT = Path(__file__).parents[2]
JOIN = """
CREATE MACRO cut(code) AS left(code, 3);
SELECT p.patient, w.ward, cut(p.code) AS code, try_cast(p.days AS INTEGER) AS days, sum(w.beds) OVER () AS beds,
  try_cast(p.admit AS DATE) AS admit
FROM patients p JOIN wards w USING (ward)
"""


@pytest.fixture
def query(tmp_path):
    rows = ["patient,ward,code,days,admit", "3,b,03811,2,2020-01-02", "1,a,4280,x,2020-01-01", "2,a,0389,5,"]
    with gzip.open(tmp_path / "Patients.csv.gz", "wt") as file:
        file.write("\n".join(rows) + "\n")
    pd.DataFrame({"ward": ["a", "b"], "beds": [10, 20]}).to_parquet(tmp_path / "wards.parquet")
    (tmp_path / "table.sql").write_text(JOIN)
    return tmp_path / "table.sql"


def test_files_beside_it_go_by_their_names_and_text_stays_text(query):
    found = read_table(query)
    assert found["code"].tolist() == ["428", "038", "038"]  # the zeros are there, the rows in their own order
    assert found["patient"].tolist() == ["1", "2", "3"] and found["days"].fillna(-1).tolist() == [-1, 5, 2]
    assert found["beds"].tolist() == [40.0, 40.0, 40.0] and found["admit"].tolist()[:1] == ["2020-01-01"]
    assert found.index.tolist() == [1, 2, 3] and found.index.name == "row"


def test_the_order_of_rows_is_that_of_what_they_say(query):
    before = read_query(query)
    with gzip.open(query.parent / "Patients.csv.gz", "rt") as file:
        head, *rows = file.read().splitlines()
    with gzip.open(query.parent / "Patients.csv.gz", "wt") as file:
        file.write("\n".join([head, *reversed(rows)]) + "\n")
    pd.testing.assert_frame_equal(before, read_query(query))


def test_its_rows_belong_to_sites_like_those_of_any_file(query):
    found = read_sites(query, site_column="ward")
    assert {name: len(table) for name, table in found.items()} == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    "text, line",
    [
        ("", "expected a query whose last statement is a SELECT, got none"),
        ("CREATE TABLE x (y INTEGER)", "expected a query whose last statement is a SELECT, got none"),
        ("SELEC 1", "expected a query that DuckDB can run, got: Parser Error"),
        ("SELECT nothing FROM patients", 'got: Binder Error: Referenced column "nothing" not found'),
        ("SELECT * FROM elsewhere", "got: Catalog Error: Table with name elsewhere does not exist"),
        ("SELECT cast(days AS INTEGER) AS days FROM patients", "got: Conversion error (a value that does not fit)"),
    ],
)
def test_what_is_wrong_is_one_line_without_a_value(query, text, line):
    with gzip.open(query.parent / "Patients.csv.gz", "wt") as file:
        file.write(f"patient,days\n1,{CANARY}\n")
    query.write_text(text)
    with pytest.raises(DataError) as told:
        read_table(query)
    assert line in str(told.value) and CANARY not in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    "rows",
    [
        f"id,name,age,died\n1,{CANARY},41,1,note\n2,B,42,0,note\n3,C,43,0,note\n",
        f"id,name,age,died\n1,{CANARY},41,1\n2,B,42,0\n3,C,42,1,z\n4,D,40,0,\n5,E,40,0,\n",
        "",
    ],
)
def test_ragged_rows_are_an_error_and_no_row_becomes_the_header(tmp_path, rows):
    (tmp_path / "people.csv").write_text(rows)
    (tmp_path / "t.sql").write_text("SELECT * FROM people")
    with pytest.raises(DataError) as told:
        read_query(tmp_path / "t.sql")
    assert CANARY not in str(told.value)


def test_a_query_made_of_values_tells_no_value(query):
    with gzip.open(query.parent / "Patients.csv.gz", "wt") as file:
        file.write(f"patient,name\n1,{CANARY}\n")
    query.write_text(
        "SET VARIABLE v = (SELECT name FROM patients LIMIT 1);\nSELECT * FROM query_table(getvariable('v'))"
    )
    with pytest.raises(DataError) as told:
        read_query(query)
    assert CANARY not in str(told.value)


def test_files_that_the_query_does_not_name_are_not_looked_at(query):
    before = read_query(query)
    (query.parent / "README.txt").write_text("This is\nnot, a table,\nat all\n")
    (query.parent / "SHA256SUMS.txt").write_text("")
    (query.parent / "other.csv").write_text("a,b\n1\n2,3,4\n")
    pd.testing.assert_frame_equal(before, read_query(query))


def test_the_query_of_the_icu_study(tmp_path):
    """The first unit stay of a stay in hospital, -1 as nothing, ages over 89, and no column that knows the end."""
    units = [
        "patientunitstayid,patienthealthsystemstayid,unitvisitnumber,hospitalid,age,gender,uniquepid,"
        "hospitaldischargestatus,unitdischargestatus",
        "11,1,2,7,70,Female,p1,Expired,Expired",
        "10,1,1,7,70,Female,p1,Expired,Alive",
        "20,2,1,8,> 89,Male,p2,Alive,Alive",
        "30,3,1,7,50,Unknown,p3,,Alive",
        "40,4,1,7,,Male,p4,Alive,Alive",
    ]
    aps = [
        "apacheapsvarid,patientunitstayid,creatinine,ph,eyes",
        "1,10,1.5,-1,4",
        "2,11,9,7.4,1",
        "3,20,-1,7.3,3",
        "4,30,1,7,4",
        "5,40,2.0,-1,-1",
    ]
    for name, lines in (("patient", units), ("apacheApsVar", aps), ("hospital", ["hospitalid,region", "7,West", "8,"])):
        with gzip.open(tmp_path / f"{name}.csv.gz", "wt") as file:
            file.write("\n".join(lines) + "\n")
    (tmp_path / "icu.sql").write_text((ROOT / "configs" / "icu_death.sql").read_text())
    found = read_query(tmp_path / "icu.sql").astype(object).where(lambda t: t.notna(), None)
    assert found.columns.tolist() == ["patient", "region", "age", "female", "creatinine", "ph", "eyes", "died"]
    assert found.to_numpy().tolist() == [
        ["p1", "West", 70, 1, 1.5, None, 4.0, 1],
        ["p2", "Unknown", 90, 0, None, 7.3, 3.0, 0],
        ["p4", "West", None, 0, 2.0, None, None, 0],
    ]
