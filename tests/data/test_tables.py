"""Files to one table a site, and every file that is wrong to one line without a value."""

from __future__ import annotations

import pandas as pd
import pytest

from learner_jax.data.samples import SHIPPED, find, not_there, sample_path
from learner_jax.data.tables import read_sites, read_table
from learner_jax.errors import DataError

CSV = "patient,site,split,drug\n1,b,train,None\n2,a,test,NO\n3,b,test,\n"
CANARY = "ZZCANARYZZ"


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "ward.csv"
    path.write_text(CSV)
    return path


def test_csv_is_text_and_nothing_is_guessed(csv):
    got = read_table(csv)
    assert got.astype(str).to_numpy().tolist() == [row.split(",") for row in CSV.splitlines()[1:]]
    assert got.index.tolist() == [1, 2, 3] and got.index.name == "row"


def test_sites_come_from_the_column_with_their_rows_numbers(csv):
    got = read_sites(csv)
    assert list(got) == ["a", "b"]
    assert got["b"].index.tolist() == [1, 3] and "site" not in got["b"]


def test_one_file_a_site(tmp_path):
    (tmp_path / "north.csv").write_text("patient\n1\n")
    pd.DataFrame({"patient": [2, 3]}).to_parquet(tmp_path / "south.parquet")
    got = read_sites(tmp_path)
    assert {name: len(table) for name, table in got.items()} == {"north": 1, "south": 2}
    assert list(read_sites(tmp_path, sites=["south"])) == ["south"]


def test_parquet_and_csv_of_the_same_rows_are_the_same(tmp_path, csv):
    pd.read_csv(csv, dtype=str, keep_default_na=False).to_parquet(tmp_path / "ward.parquet")
    left, right = read_sites(csv), read_sites(tmp_path / "ward.parquet")
    for name in left:
        pd.testing.assert_frame_equal(left[name].astype(str), right[name].astype(str))


def test_the_split_may_have_another_name_or_none(csv):
    assert read_sites(csv, split_column=None)["a"].columns.tolist() == ["patient", "drug"]
    csv.write_text(CSV.replace("split", "held_out"))
    assert "split" in read_sites(csv, split_column="held_out")["a"]


@pytest.mark.parametrize(
    "name, content, line",
    [
        ("x.csv", b"", "x.csv: expected a header and rows, got an empty file"),
        ("x.csv", b"patient,split\n", "site 'x': expected at least one row, got an empty table"),
        ("x.csv", b"patient,site\n", "x.csv: expected at least one row, got an empty table"),
        ("x.csv", b"a,b\n1,ZZCANARYZZ\nZZCANARYZZ\n", "x.csv: row 2: expected 2 cells as in the header, got 1"),
        ("x.csv", b"a,b\n1,2\n1,ZZCANARYZZ,3\n", "x.csv: row 2: expected 2 cells as in the header, got 3"),
        ("x.csv", b"a,a\n1,2\n", "x.csv: column 'a' is there twice"),
        ("x.csv", b"a,b\n1,\xff\xfeZZCANARYZZ\n", "x.csv: expected text in UTF-8, got something else"),
        ("x.csv", b"a,b\n" + b"1,2\n" * 9000 + b"1,\xff\xfe\n", "x.csv: expected text in UTF-8, got something else"),
        ("x.csv", b"a,site\n1,b\n2,\n", "x.csv: column 'site', row 2: expected the site's name, got no value"),
        ("x.parquet", b"ZZCANARYZZ", "x.parquet: expected a Parquet file, got something else or a damaged one"),
        ("x.parquet", b"", "x.parquet: expected a Parquet file, got something else or a damaged one"),
        ("x.xlsx", b"", "x.xlsx: expected a .csv, .parquet or .sql file, got '.xlsx'"),
    ],
)
def test_a_file_that_is_wrong_is_one_line(tmp_path, name, content, line):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as told:
        read_sites(tmp_path / name)
    assert str(told.value).endswith(line) or f"{line} (" in str(told.value)
    assert "\n" not in str(told.value) and CANARY not in f"{told.value} {told.value.__cause__}"
    assert told.value.__suppress_context__ or told.value.__context__ is None


def test_a_cut_parquet_file(tmp_path):
    path = tmp_path / "x.parquet"
    pd.DataFrame({"a": range(1000)}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="something else or a damaged one"):
        read_sites(path)


def test_a_site_in_two_files(tmp_path):
    (tmp_path / "north.csv").write_text("patient\n1\n")
    pd.DataFrame({"patient": [2]}).to_parquet(tmp_path / "north.parquet")
    with pytest.raises(DataError, match=r"each site in one file, got site 'north' in north\.csv and north\.parquet"):
        read_sites(tmp_path)
    (tmp_path / "north.parquet").unlink()
    (tmp_path / "other.csv").write_text("patient,site\n1,north\n")
    with pytest.raises(DataError, match=r"got site 'north' in north\.csv and other\.csv"):
        read_sites(tmp_path)


def test_what_is_not_there_names_the_near(tmp_path, csv):
    with pytest.raises(DataError, match=r"which does not exist \(near: .*ward\.csv\)"):
        read_sites(tmp_path / "wards.csv")
    with pytest.raises(DataError, match=r"which does not exist \(near: diabetes130\)"):
        read_sites("diabetes13")
    with pytest.raises(DataError, match=r"expected a site 'c', got none \(there: a, b\)"):
        read_sites(csv, sites=["c"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"expected \.csv or \.parquet files in the folder, got none"):
        read_sites(tmp_path / "empty")
    with pytest.raises(DataError, match="the name of a sample, got 'pbmc'; near: pbmc10k"):
        sample_path("pbmc")


def test_learner_data_is_looked_into_first(tmp_path, monkeypatch):
    monkeypatch.delenv("LEARNER_DATA", raising=False)
    assert find("ehr/none.csv") is None and "LEARNER_DATA is not set" in not_there("ehr/none.csv")
    shipped = sample_path("diabetes130")
    monkeypatch.setenv("LEARNER_DATA", str(tmp_path))
    assert sample_path("diabetes130") == shipped
    (tmp_path / "samples").mkdir()
    own = tmp_path / "samples" / SHIPPED["diabetes130"]
    own.write_bytes(b"own")
    assert sample_path("diabetes130") == own


def test_the_shipped_files_are_those_that_notice_names(root):
    import hashlib

    notice = (root / "NOTICE").read_text()
    for file in SHIPPED.values():
        digest = hashlib.sha256((root / "learner_jax" / "samples" / file).read_bytes()).hexdigest()
        assert f"samples/{file}\nsha256 {digest}" in notice
