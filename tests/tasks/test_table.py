"""Any declared table: federated equals pooled, a site alone equals one among others, and no order of rows matters."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import zipfile
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import learner_jax.tasks
from learner_jax import specs
from learner_jax.data.fetch import SETS, fetch
from learner_jax.data.samples import find, not_there
from learner_jax.data.sites import TEST, TRAIN, VALID, encode_sites
from learner_jax.data.tables import read_sites, read_table
from learner_jax.errors import ConfigError, DataError
from learner_jax.leaves import schema_of
from learner_jax.specs import Data, Spec, Study
from learner_jax.statistics import combine
from learner_jax.tasks.table import PLACES, checklist

COLUMNS = (
    {"name": "age", "kind": "number", "unit": "years", "low": 0, "high": 120},
    {"name": "weight", "kind": "number", "unit": "kg", "absent": ("0", "-9"), "missing": "indicator"},
    {"name": "smoker", "kind": "flag", "codes": ("no", "yes")},
    {"name": "ward", "kind": "category", "codes": ("1", "2", "3"), "missing": "indicator"},
    {"name": "drug", "kind": "code", "codes": ("A10", "B01", "C03"), "keep": 2},
    {"name": "diagnosis", "kind": "code", "keep": 4},
    {"name": "died", "kind": "flag"},
)
OF = {"columns": COLUMNS, "label": "died", "valid_share": 0.2, "test_share": 0.2}


def rules(**changes):
    return checklist(**{**OF, **changes})


def drawn(rows: int, seed: int) -> pd.DataFrame:
    """A table as a hospital has it: numbers as numbers, holes of all sorts, words that nobody declared."""
    draw = np.random.default_rng(seed)
    pick = draw.choice
    return pd.DataFrame(
        {
            "age": draw.normal(60, 15, rows).clip(0, 120).round(1),
            "weight": pd.Series(pick([0.0, -9.0, np.nan, 61.5, 70.0, 82.25, 99.0], rows)),
            "smoker": pick(["no", "yes", ""], rows),
            "ward": pick([1.0, 2.0, 3.0, np.nan], rows),
            "drug": pick(["A10", "B01", "C03", "something else", ""], rows, p=[0.5, 0.1, 0.2, 0.1, 0.1]),
            "diagnosis": pick([f"D{i}" for i in range(30)] + [""], rows),
            "died": pick([0, 1], rows),
        }
    )


tables = st.builds(drawn, st.integers(1, 60), st.integers(0, 2**32 - 1))


def assert_same(one, other, order=slice(None)):
    assert one.rows["x"].dtype == one.rows["y"].dtype == np.float32
    for name in ("x", "y"):
        assert one.rows[name][order].tobytes() == other.rows[name].tobytes()
    assert one.split[order].tobytes() == other.split.tobytes() and one.group[order].tobytes() == other.group.tobytes()


# ---- Federated equals pooled -----------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.lists(tables, min_size=1, max_size=4))
def test_the_sites_sums_equal_the_pooled_ones(frames):
    """With a patient column, so that who is held back does not depend on which rows lie together."""
    for place, frame in enumerate(frames):
        frame["who"] = np.arange(len(frame)) + 1000 * place
    task = rules(patient="who")
    total, pooled = combine([task.measure(f) for f in frames]), task.measure(pd.concat(frames, ignore_index=True))
    assert schema_of(total) == schema_of(pooled) == schema_of(task.zero())
    for name, value in total.items():
        if value.dtype == np.int64:
            np.testing.assert_array_equal(value, pooled[name], err_msg=name)
        else:
            np.testing.assert_allclose(value, pooled[name], rtol=1e-12, atol=1e-9, err_msg=name)
    one, other = task.fit(total), task.fit(pooled)
    assert [one[k] for k in ("inputs", "codes", "rows", "missing")] == [
        other[k] for k in ("inputs", "codes", "rows", "missing")
    ]
    for part in ("mean", "scale"):
        np.testing.assert_allclose(list(one[part].values()), list(other[part].values()), rtol=1e-9, atol=1e-9)


def test_what_is_fitted_is_what_pandas_finds_in_the_pooled_training_rows():
    frames = {name: drawn(400, seed) for seed, name in enumerate("abc")}
    fitted, sites = encode_sites(rules(), frames)
    train: Any = pd.concat([frames[name][sites[name].split == TRAIN] for name in "abc"])
    weight = train["weight"].replace([0.0, -9.0], np.nan)
    smoker = train["smoker"].map({"yes": 1.0, "no": 0.0})
    for name, column in (("age", train["age"]), ("weight", weight), ("smoker", smoker)):
        assert fitted["mean"][name] == pytest.approx(column.mean(), rel=1e-12)
        assert fitted["scale"][name] == pytest.approx(column.std(ddof=0), rel=1e-9)
    assert fitted["missing"]["weight"] == pytest.approx(weight.isna().mean())
    assert fitted["codes"]["drug"] == [0, 2]  # A10 and C03, most frequent of those declared
    place = {
        f"D{i}": int.from_bytes(hashlib.sha256(f"D{i}".encode()).digest()[:8], "little") % PLACES for i in range(30)
    }
    seen = train["diagnosis"][train["diagnosis"] != ""].map(place).value_counts()
    chosen = sorted(sorted(seen.index, key=lambda p: (-seen[p], p))[:4])
    assert fitted["codes"]["diagnosis"] == chosen
    assert fitted["inputs"] == [
        "age", "weight", "weight missing", "smoker", "ward = 1", "ward = 2", "ward = 3", "ward missing",
        "drug = A10", "drug = C03", *(f"diagnosis #{p}" for p in chosen),
    ]  # fmt: skip


def test_inputs_are_those_of_a_reader_that_shares_no_code():
    """Row by row, cell by cell."""
    frames = {"a": drawn(50, 7), "b": drawn(30, 8)}
    fitted, sites = encode_sites(rules(), frames)
    mean, scale = fitted["mean"], fitted["scale"]
    for row, x in zip(frames["a"].to_dict("records"), sites["a"].rows["x"]):
        weight = None if row["weight"] in (0, -9) or np.isnan(row["weight"]) else row["weight"]
        code = (
            row["diagnosis"]
            and int.from_bytes(hashlib.sha256(row["diagnosis"].encode()).digest()[:8], "little") % PLACES
        )
        wanted = [
            (row["age"] - mean["age"]) / scale["age"],
            0.0 if weight is None else (weight - mean["weight"]) / scale["weight"],
            weight is None,
            {"no": 0.0, "yes": 1.0, "": mean["smoker"]}[row["smoker"]],
            *(row["ward"] == ward for ward in (1, 2, 3)),
            np.isnan(row["ward"]),
            *(row["drug"] == ("A10", "B01", "C03")[p] for p in fitted["codes"]["drug"]),
            *(code == p for p in fitted["codes"]["diagnosis"]),
        ]
        np.testing.assert_allclose(x, np.array(wanted, np.float64), rtol=1e-6, atol=1e-7)
    assert sites["a"].rows["y"].tolist() == frames["a"]["died"].tolist()
    assert sites["a"].cohorts["everyone"].all()


def test_the_checklist_is_whole():
    frames = {"a": drawn(80, 1)}
    task = rules()
    fitted, sites = encode_sites(task, frames)
    assert all(callable(part) for part in (task.check, task.zero, task.measure, task.fit, task.template, task.encode))
    assert not any(value.any() for value in task.zero().values())
    assert sum(value.size for value in task.zero().values()) < 2 * PLACES
    shapes = {k: (v.shape[1:], v.dtype) for k, v in task.template(fitted).items()}
    assert shapes == {k: (v.shape[1:], v.dtype) for k, v in sites["a"].rows.items()}
    assert json.loads(json.dumps(fitted)) == fitted
    assert task.label == "died" and {c.name for c in task.columns} == {c["name"] for c in COLUMNS} | {"split"}
    nobody = task.fit(task.zero())
    assert np.isfinite(task.encode(frames["a"], nobody).rows["x"]).all() and json.dumps(nobody, allow_nan=False)


# ---- Alone, and in any order -----------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(tables, tables, st.booleans())
def test_a_site_alone_encodes_the_same_bits_as_among_others(mine, theirs, named):
    if named:
        mine["who"], theirs["who"] = np.arange(len(mine)), np.arange(len(theirs))
    task = rules(patient="who" if named else None)
    fitted, sites = encode_sites(task, {"mine": mine, "theirs": theirs})
    assert_same(
        rules(patient="who" if named else None).encode(mine.copy(), json.loads(json.dumps(fitted))), sites["mine"]
    )


@settings(max_examples=30)
@given(tables, st.randoms())
def test_the_order_of_rows_does_not_matter(frame, random):
    frame = pd.concat([frame, frame.head(3)], ignore_index=True)  # rows that are alike
    order = list(range(len(frame)))
    random.shuffle(order)
    task = rules()
    one, other = task.measure(frame), task.measure(frame.iloc[order].reset_index(drop=True))
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-12, atol=1e-9)
    fitted = task.fit(one)
    straight, shuffled = task.encode(frame, fitted), task.encode(frame.iloc[order], fitted)
    assert len(set(straight.group.tolist())) == len(frame)  # each row is its own
    by_group = [np.argsort(site.group) for site in (straight, shuffled)]
    for part in (lambda s: s.group, lambda s: s.split, lambda s: s.rows["x"], lambda s: s.rows["y"]):
        assert part(straight)[by_group[0]].tobytes() == part(shuffled)[by_group[1]].tobytes()


@settings(max_examples=20)
@given(tables)
def test_csv_parquet_and_a_frame_give_the_same_bits(tmp_path_factory, frame):
    folder = tmp_path_factory.mktemp("t")
    task = rules()
    fitted = task.fit(task.measure(frame))
    frame.to_csv(folder / "a.csv", index=False)
    frame.to_parquet(folder / "a.parquet", index=False)
    frame.astype(str).to_parquet(folder / "b.parquet", index=False)
    for file in ("a.csv", "a.parquet", "b.parquet"):
        assert_same(task.encode(read_table(folder / file), fitted), task.encode(frame, fitted))


def test_no_input_is_the_label_the_patient_or_the_split():
    frame = drawn(60, 3).assign(who=range(60), split="train")
    task = rules(patient="who")
    fitted = task.fit(task.measure(frame))
    turned = frame.assign(who=frame["who"] + 500, split="test", died=1 - frame["died"])
    assert task.encode(turned, fitted).rows["x"].tobytes() == task.encode(frame, fitted).rows["x"].tobytes()


# ---- Patients and splits ---------------------------------------------------------------------------------------------


def test_rows_of_one_patient_stay_together():
    frame = drawn(600, 4)
    frame["who"] = [f"P-{i // 3}" for i in range(600)]
    task = rules(patient="who")
    site = task.encode(frame, task.fit(task.measure(frame)))
    sides = [set(site.group[site.split == side]) for side in (TRAIN, VALID, TEST)]
    assert sum(map(len, sides)) == len(set(site.group)) == 200
    assert 0.1 < len(sides[2]) / 200 < 0.3 and 0.1 < len(sides[1]) / (200 - len(sides[2])) < 0.3
    with pytest.raises(DataError, match="the patient is in both train and test"):
        task.check(frame.assign(split=["train", "test", "train"] * 200), "site 'a'")


def test_the_tables_own_split_is_held_to():
    frame = drawn(100, 5).assign(split=["test"] * 20 + ["train"] * 80)
    site = rules().encode(frame, rules().fit(rules().measure(frame)))
    assert (site.split[:20] == TEST).all() and not (site.split[20:] == TEST).any()


def test_a_prediction_needs_neither_outcome_nor_patient():
    frame = drawn(40, 6).assign(who=range(40))
    task = rules(patient="who")
    fitted = task.fit(task.measure(frame))
    asked = frame.drop(columns=["died", "who"])
    got = task.encode(asked, fitted, labelled=False)
    assert got.rows["x"].tobytes() == task.encode(frame, fitted).rows["x"].tobytes() and not got.rows["y"].any()


# ---- Outcomes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column, positive, cells, wanted",
    [
        ({"kind": "flag"}, "", ["0", "1", "true"], [0, 1, 1]),
        ({"kind": "flag", "codes": ("alive", "dead")}, "alive", ["dead", "alive", "dead"], [0, 1, 0]),
        ({"kind": "category", "codes": ("0", "1", "2")}, ("1", "2"), [0.0, 1.0, 2.0], [0, 1, 1]),
        ({"kind": "category", "codes": ("0", "1", "2")}, "2", ["0", "1", "2.0"], [0, 0, 1]),
        ({"kind": "number"}, ">= 7", [6.9, 7, 8], [0, 1, 1]),
        ({"kind": "number"}, "<-1.5", [-2, -1.5, 0], [1, 0, 0]),
    ],
)
def test_which_value_is_the_outcome(column, positive, cells, wanted):
    columns = ({"name": "x", "kind": "number"}, {"name": "y", **column})
    task = checklist(columns=columns, label="y", positive=positive)
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "y": cells})
    assert task.encode(frame, task.fit(task.measure(frame))).rows["y"].tolist() == wanted


# ---- One line for what is wrong --------------------------------------------------------------------------------------

AGE = {"name": "age", "kind": "number"}
DIED = {"name": "died", "kind": "flag"}


@pytest.mark.parametrize(
    "fields, line",
    [
        ({"columns": ({**AGE, "unti": "years"}, DIED)}, "('age'): a column has no field 'unti' (did you mean unit"),
        ({"columns": ({**AGE, "kind": "nummer"}, DIED)}, ".0 ('age').kind: expected number, category, code, "),
        ({"columns": ({**AGE, "low": "0"}, DIED)}, "task.columns.0 ('age').low: expected a number or None, got '0'"),
        ({"columns": ({**AGE, "low": 9, "high": 1}, DIED)}, "('age'): expected low <= high, got low=9, high=1"),
        ({"columns": ({"name": "age"}, DIED)}, "task.columns.0 ('age'): expected the field 'kind', got none"),
        ({"columns": ("age", DIED)}, "task.columns.0: expected a dict with name and kind, got str"),
        ({"columns": ({"name": "w", "kind": "category"}, DIED)}, "('w').codes: expected the codes of the category"),
        ({"columns": ({"name": "w", "kind": "category", "codes": ("1", 2)}, DIED)}, "codes.1: expected text, got 2"),
        ({"columns": ({"name": "w", "kind": "flag", "codes": ("a",)}, DIED)}, "codes: expected two words, no and yes"),
        ({"columns": ({**AGE, "missing": "median"}, DIED)}, "('age').missing: expected typical, indicator, masked or"),
        ({"columns": ({**AGE, "keep": 3}, DIED)}, "('age').keep: expected at least 1, for a column of kind code"),
        ({"columns": ({**DIED, "low": 0},)}, "('died'): a range is for numbers"),
        ({"columns": (AGE, AGE, DIED)}, "task.columns: 'age' is declared twice"),
        ({"columns": ({**AGE, "name": "split"}, DIED)}, "task.columns: 'split' is the name of who is held back"),
        ({"columns": (DIED,)}, "task.columns: expected at least one column beside label and ids, got none"),
        ({"label": "dead"}, "task.label: no column 'dead' is declared (did you mean died?)"),
        ({"positive": "2"}, "task.positive: expected some, but not all, of '0', '1', got '2'"),
        ({"positive": ("0", "1")}, "task.positive: expected some, but not all, of '0', '1'"),
        ({"label": "age"}, "task.positive: expected a comparison such as '>= 1' for the number 'age', got ''"),
        ({"patient": "age"}, "task.patient: expected a column of kind id, got 'age' of kind number"),
    ],
)  # fmt: skip
def test_a_wrong_declaration_is_one_line(fields, line):
    with pytest.raises(ConfigError) as told:
        learner_jax.tasks.table(**{"columns": (AGE, DIED), "label": "died", **fields})
    assert line in str(told.value) and "\n" not in str(told.value) and ";" not in str(told.value)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as told:
        checklist(columns=({**AGE, "unti": ""}, {**DIED, "kind": "flg"}), label="died")
    assert "'unti'" in str(told.value) and "flg" in str(told.value)


@pytest.mark.parametrize(
    "change, line",
    [
        (lambda f: f.drop(columns="ward"), "expected a column 'ward', got none"),
        (lambda f: f.rename(columns={"ward": "Ward"}), "expected a column 'ward', got none (near: 'Ward')"),
        (lambda f: f.assign(age=130.0), "'age', row 1 and 19 more: expected a number, 0 to 120 years, got a"),
        (lambda f: f.assign(ward="4"), "expected one of '1', '2', '3', got something else"),
        (lambda f: f.assign(died=None), "column 'died', row 1 and 19 more: expected one of '0', '1', got no value"),
        (lambda f: f.iloc[:0], "expected at least one row, got an empty table"),
        (lambda f: f.assign(ward=[["1"]] * 20), "expected one of '1', '2', '3', got a list"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_is_one_line(change, line):
    with pytest.raises(DataError) as told:
        rules().check(change(drawn(20, 2)), "site 'a'")
    assert str(told.value).startswith("site 'a': ") and line in str(told.value) and "\n" not in str(told.value)


def test_a_declared_absence_can_be_refused_and_an_optional_column_left_out():
    columns = ({**AGE, "absent": ("-9",), "missing": "refuse"}, {"name": "w", "kind": "category", "codes": ("a", "b"),
               "required": False}, {"name": "n", "kind": "number", "required": False}, DIED)  # fmt: skip
    task = checklist(columns=columns, label="died")
    frame = pd.DataFrame({"age": [40, 50, 61, 33], "died": [0, 1, 0, 1]})
    fitted = task.fit(task.measure(frame))
    assert fitted["inputs"] == ["age", "w = a", "w = b", "n"]
    assert not task.encode(frame, fitted).rows["x"][:, 1:].any()
    with pytest.raises(DataError, match="column 'age', row 2: expected a number, got no value"):
        task.check(frame.assign(age=[40, -9, 61, 33]), "x")


def test_one_outcome_and_no_training_rows_are_warnings():
    frame = drawn(30, 9)
    assert rules().check(frame.assign(died=0), "x") == [
        "x: all training rows have the same outcome; the site adds little alone. If both "
        "occur here, look at how the outcome is coded"
    ]
    assert rules().check(frame.assign(split="test"), "x") == ["x: no training rows; the site can only be judged"]


def test_a_constant_number_is_not_blown_up():
    columns = ({"name": "lab", "kind": "number"}, AGE, DIED)
    task = checklist(columns=columns, label="died", valid_share=0.0, test_share=0.0)
    for rows in range(1, 40):
        frame = pd.DataFrame({"lab": [120.1] * rows, "age": range(rows), "died": [0] * rows})
        fitted = task.fit(combine([task.measure(frame)] * 7))
        assert fitted["scale"]["lab"] == 1.0
        np.testing.assert_allclose(task.encode(frame, fitted).rows["x"][:, 0], 0.0, atol=1e-6)


CANARY, NUMBER = "ZZCANARYZZ", 987654321


def test_no_message_and_no_sum_holds_a_value():
    frame = drawn(20, 10).assign(who=[f"{CANARY}{i}" for i in range(20)], diagnosis=CANARY).astype(object)
    sums = rules(patient="who").measure(frame)
    assert not any(CANARY.encode() in name.encode() + value.tobytes() for name, value in sums.items())
    for column in frame.columns:
        for value in (CANARY, NUMBER, [CANARY]):
            odd = frame.copy()
            odd.at[4, column] = value
            try:
                words = rules(patient="who").check(odd, "x")
            except DataError as error:
                words = [str(error), str(error.__cause__)]
            assert not any(CANARY in word or str(NUMBER) in word for word in words), column


# ---- In a study ------------------------------------------------------------------------------------------------------


def study_of(folder, **changes) -> Study:
    fields = {**OF, "patient": None}
    return Study(
        name="ours", task=Spec("tasks", "table", fields), model=Spec("models", "logistic"), rounds=2, references=(),
        data=Data(source=str(folder)), **changes,
    )  # fmt: skip


def test_a_study_holds_the_columns_through_json(tmp_path):
    study = specs.check(study_of(tmp_path))
    again = specs.check(Study.from_json(study.to_json()))
    assert again == study and hash(again) == hash(study) and again.to_json() == study.to_json()
    assert specs.manifest_digest(again) == specs.manifest_digest(study)
    task = specs.make(again.task)
    frame = drawn(50, 11)
    assert [m.name for m in task.metrics] == ["auroc", "auprc", "brier", "log_loss"]
    assert {k: v.tobytes() for k, v in task.checklist.measure(frame).items()} == {
        k: v.tobytes() for k, v in rules().measure(frame).items()
    }


def test_a_metric_that_there_is_not_is_told_by_the_check(tmp_path):
    study = study_of(tmp_path)
    with pytest.raises(ConfigError, match=r"task.metrics.0: expected .* got 'aurocc' \(did you mean auroc"):
        specs.check(dataclasses.replace(study, task=study.task.but(metrics=("aurocc",))))


def test_a_hospital_with_its_own_csv_trains_from_a_config_alone(tmp_path):
    from learner_jax import api

    for seed, name in enumerate(("north", "south")):
        frame = drawn(120, seed)
        frame["died"] = (frame["age"] > 60).astype(int)
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    run = api.simulate(study_of(tmp_path, batch_size=8, epochs=20))
    assert [site["name"] for site in run.result["evaluation"]["cohorts"][0]["sites"]] == ["north", "south"]
    assert run.metrics["valid/auroc"].iloc[-1] > 0.9
    chance = run.model.predict(pd.DataFrame(drawn(30, 99)).drop(columns="died"))
    assert chance.shape == (30,) and ((chance > 0) & (chance < 1)).all()


# ---- Heart disease, four hospitals -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hearts():
    path = find("heart_disease.csv")
    if path is None:
        pytest.skip(not_there("heart_disease.csv"))
    return read_sites(path, site_column="hospital", split_column=None)


def test_the_heart_config_fits_the_four_hospitals(hearts):
    task = specs.make(specs.check(specs.read("heart_disease")).task).checklist
    fitted, sites = encode_sites(task, hearts)
    raw = pd.concat(hearts.values())
    assert {name: len(site.split) for name, site in sites.items()} == {
        "cleveland": 303, "hungarian": 294, "switzerland": 123, "va": 200,
    }  # fmt: skip
    assert sum(int(site.rows["y"].sum()) for site in sites.values()) == (raw["num"].astype(int) > 0).sum() == 509
    place = fitted["inputs"].index("chol missing")
    assert sites["switzerland"].rows["x"][:, place].all() and not sites["cleveland"].rows["x"][:, place].any()
    train: Any = pd.concat([hearts[name][site.split == TRAIN] for name, site in sites.items()])
    numbers: Any = pd.to_numeric(train["chol"].astype(str), errors="coerce")
    measured = numbers.replace(0.0, np.nan)
    assert fitted["mean"]["chol"] == pytest.approx(measured.mean(), rel=1e-12)
    assert len(fitted["inputs"]) == 27


def test_without_the_file_the_heart_config_says_how_to_get_it(monkeypatch, tmp_path):
    """The config alone is read: a coordinator has no table."""
    from learner_jax import api

    monkeypatch.setenv("LEARNER_DATA", str(tmp_path))
    study = specs.check(specs.read("heart_disease"))
    with pytest.raises(DataError) as told:
        api.simulate(study)
    assert "heart_disease.csv" in str(told.value) and "learner data fetch heart-disease" in str(told.value)
    assert "\n" not in str(told.value)


# ---- The page --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(root):
    return re.findall(r"^```python\n(.*?)^```", (root / "docs/your-own-table.md").read_text(), re.DOTALL | re.MULTILINE)


def test_the_config_of_the_page_trains(page, tmp_path, monkeypatch):
    from learner_jax import api

    monkeypatch.chdir(tmp_path)
    (tmp_path / "tables").mkdir()
    (tmp_path / "ours.py").write_text(page[0])
    for seed, name in enumerate(("north", "south")):
        draw = np.random.default_rng(seed)
        frame = pd.DataFrame(
            {
                "case": [f"{name}-{i // 2}" for i in range(80)],
                "age": draw.integers(60, 99, 80),
                "haemoglobin": draw.choice([0, -9, 9.5, 13.25], 80),
                "sex": draw.choice(["m", "f"], 80),
                "ward": draw.choice(["surgery", "geriatrics", "other", ""], 80),
                "diagnosis": draw.choice(["S72.0", "S72.1", "I50"], 80),
                "dead": draw.choice(["no", "yes"], 80),
            }
        )
        frame.to_csv(tmp_path / "tables" / f"{name}.csv", index=False)
    run = api.simulate("ours.py", rounds=1, references=())
    assert np.isfinite(run.metrics["valid/loss"].iloc[-1])
    (tmp_path / "tables" / "north.csv").write_text(
        (tmp_path / "tables" / "north.csv").read_text().replace("other", "x")
    )
    with pytest.raises(DataError, match=r"site 'north': column 'ward', row .* got something else"):
        api.simulate("ours.py", rounds=1, references=())


def test_what_is_fetched_fits_the_config(tmp_path):
    """Lines as the publisher writes them: every number with a point, ? for none."""
    lines = {
        "cleveland": "63.0,1.0,1.0,145.0,233.0,1.0,2.0,150.0,0.0,2.3,3.0,0.0,6.0,0",
        "hungarian": "28,1,2,130,132,0,2,185,0,0,?,?,?,0",
        "switzerland": "32,1,1,95,0,?,0,127,0,.7,1,?,?,1",
        "va": "63,1,4,140,260,0,1,112,1,3,2,?,?,2",
    }
    zipped = tmp_path / "heart.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        for hospital, line in lines.items():
            archive.writestr(f"processed.{hospital}.data", f"{line}\n{line.replace(',1,', ',0,', 1)}\n")
    got = fetch(SETS["heart-disease"]._replace(url=zipped.as_uri()), tmp_path)
    task = specs.make(specs.read("heart_disease").task).checklist
    fitted, sites = encode_sites(task, read_sites(got.path, site_column="hospital", split_column=None))
    assert {name: site.rows["y"].tolist() for name, site in sites.items()} == {
        "cleveland": [0, 0], "hungarian": [0, 0], "switzerland": [1, 1], "va": [1, 1],
    }  # fmt: skip
    missing = {name: int(s.rows["x"][0, fitted["inputs"].index("chol missing")]) for name, s in sites.items()}
    assert missing == {"cleveland": 0, "hungarian": 0, "switzerland": 1, "va": 0}
