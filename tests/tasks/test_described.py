"""What a report tells of the inputs: the figures of the rows that were learned from, and never of a few of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from learner_jax.data.described import FEWEST, of_column, of_input
from learner_jax.data.schema import Column
from learner_jax.data.sites import TRAIN, encode_sites
from learner_jax.data.tables import read_sites
from learner_jax.tasks import readmission
from learner_jax.tasks.table import checklist

COLUMNS = (
    {"name": "age", "kind": "number", "unit": "years", "low": 0, "high": 120, "about": "at admission"},
    {"name": "rare", "kind": "number"},
    {"name": "same", "kind": "number"},
    {"name": "smoker", "kind": "flag"},
    {"name": "seldom", "kind": "flag"},
    {"name": "mostly", "kind": "flag"},
    {"name": "ward", "kind": "category", "codes": ("1", "2")},
    {"name": "drug", "kind": "code", "codes": ("A10", "B01", "C03")},
    {"name": "note", "kind": "code", "keep": 3},
    {"name": "died", "kind": "flag"},
)


def tables(rows: int = 400) -> dict[str, pd.DataFrame]:
    """Two sites; "rare" is known of six rows in all, "seldom" is true of six, "mostly" of all but six."""
    rng = np.random.default_rng(7)
    found = {}
    for name in ("a", "b"):
        few = np.zeros(rows, bool)
        few[:3] = True
        age = rng.normal(60, 9, rows).clip(0, 120)
        age[rng.random(rows) < 0.25] = np.nan
        found[name] = pd.DataFrame(
            {
                "age": age, "rare": np.where(few, 5.0, np.nan), "same": 2.5, "smoker": (rng.random(rows) < 0.3) * 1.0,
                "seldom": few * 1.0, "mostly": 1.0 - few, "ward": rng.choice(["1", "2"], rows),
                "drug": rng.choice(["A10", "B01", "C03"], rows, p=[0.2, 0.795, 0.005]),
                "note": rng.choice(["x", "y"], rows, p=[0.7, 0.3]), "died": (rng.random(rows) < 0.4) * 1.0,
                "split": "train",
            }
        )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def told():
    rules, frames = checklist(columns=COLUMNS, label="died", valid_share=0.0), tables()
    fitted, _ = encode_sites(rules, frames)
    found = rules.describe(fitted)
    whole = pd.concat(frames.values())
    assert found["rows"] == len(whole)
    return {one["name"]: one for table in found["tables"] for one in table["inputs"]}, whole, found


def test_figures_are_those_of_all_rows_together(told):
    inputs, whole, found = told
    assert list(inputs) == [one["name"] for one in COLUMNS[:-1]]  # the outcome is no input
    age = inputs["age"]
    assert age["missing"] == pytest.approx(whole["age"].isna().mean())
    assert age["mean"] == pytest.approx(whole["age"].mean())
    assert age["deviation"] == pytest.approx(whole["age"].std(ddof=0))
    assert (age["unit"], age["about"]) == ("years", "at admission")
    assert inputs["smoker"]["mean"] == pytest.approx(whole["smoker"].mean()) and inputs["smoker"]["deviation"] is None
    assert inputs["same"]["mean"] == 2.5 and inputs["same"]["deviation"] is None
    assert (inputs["ward"]["mean"], inputs["ward"]["codes"]) == (None, ())
    assert inputs["drug"]["codes"][0] == ("B01", pytest.approx((whole["drug"] == "B01").mean()))
    assert inputs["note"]["codes"][0][0].startswith("#") and "#0 to #4095" in found["note"]


def test_of_a_few_rows_nothing_is_told(told):
    inputs, whole, _ = told
    assert (whole["drug"] == "C03").sum() < FEWEST
    assert (inputs["rare"]["mean"], inputs["rare"]["deviation"]) == (None, None)
    assert inputs["rare"]["few"] == "known of a few"
    assert (inputs["seldom"]["mean"], inputs["seldom"]["few"]) == (None, "a few")
    assert (inputs["mostly"]["mean"], inputs["mostly"]["few"]) == (None, "all but a few")
    assert [code for code, _ in inputs["drug"]["codes"]] == ["B01", "A10"]


@pytest.mark.parametrize(
    ("have", "few"),
    [(0, ""), (1, "a few"), (9, "a few"), (10, ""), (90, ""), (91, "all but a few"), (99, "all but a few"), (100, "")],
)
def test_ten_are_not_a_few(have, few):
    assert (
        of_input("x", 100, have / 100).few == few == of_column(Column(name="x", kind="flag"), 100, 0.0, have / 100).few
    )


def test_no_rows_say_nothing():
    one = of_column(Column(name="x", kind="number"), 0, 0.0, 0.0, 0.0)
    assert (one.missing, one.mean, one.deviation, one.few) == (None, None, None, "known of none")


def test_readmission_tells_of_columns_inputs_and_diagnoses():
    rules = readmission(scale_floor=0.25).checklist
    frames = read_sites("diabetes130", sites=("h08", "h09"))
    fitted, data = encode_sites(rules, frames)
    found = rules.describe(fitted)
    columns, inputs, diagnoses = ({one["name"]: one for one in table["inputs"]} for table in found["tables"])
    assert not {"patient", "order", "split", "readmitted"} & set(columns)
    train = {name: site.split == TRAIN for name, site in data.items()}
    assert found["rows"] == sum(mask.sum() for mask in train.values())
    assert list(inputs) == fitted["inputs"][: len(inputs)] and set(diagnoses) == set(fitted["inputs"][len(inputs) :])
    shares = [one["mean"] or 0.0 for one in diagnoses.values()]
    assert shares == sorted(shares, reverse=True) and shares[0] > 0.2
    assert all(one["deviation"] is None or one["deviation"] > 0.25 for one in inputs.values())
    assert "at most 0.25" in found["note"]
