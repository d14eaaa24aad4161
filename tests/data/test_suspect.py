"""What fits a checklist and is still likely to be wrong: each found before round 1, in a sentence with the fix."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import learner_jax as lr
from learner_jax import specs
from learner_jax.data import suspect, units
from learner_jax.data.sites import encode_sites
from learner_jax.data.suspect import Sums, others
from learner_jax.errors import DataError
from learner_jax.specs import Data, Engine, Federation
from learner_jax.tasks.table import checklist
from tests.federation.hospitals import federated

COLUMNS = (
    {"name": "patient", "kind": "id"},
    {"name": "age", "kind": "number", "unit": "years", "low": 0, "high": 120},
    {"name": "creatinine", "kind": "number", "unit": "mg/dL", "low": 0},
    {"name": "temperature", "kind": "number", "unit": "Cel", "low": 0},
    {"name": "weight", "kind": "number", "unit": "kg", "low": 0},
    {"name": "emergency", "kind": "flag"},
    {"name": "diagnosis", "kind": "code", "keep": 10},
    {"name": "back", "kind": "flag"},
)
ASKED = checklist(columns=COLUMNS, label="back", patient="patient")


def hospital(seed: int, rows: int = 300) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "patient": np.arange(rows) + 1000 * seed,
            "age": draw.normal(70, 10, rows).clip(20, 100).round(),
            "creatinine": draw.gamma(4, 0.3, rows),
            "temperature": draw.normal(37, 0.6, rows),
            "weight": draw.normal(78, 14, rows).clip(40, 160),
            "emergency": draw.integers(0, 2, rows),
            "diagnosis": draw.choice(["428", "250", "401", "486"], rows),
            "back": draw.integers(0, 2, rows),
        }
    )


def told(changed: pd.DataFrame, sites: int = 4) -> list[str]:
    """What is told of a hospital among three others."""
    found: list[str] = []
    frames = {f"s{k}": hospital(k) for k in range(1, sites)} | {"odd": changed}
    encode_sites(ASKED, frames, found.append)
    assert all("\n" not in text for text in found)
    return found


def test_hospitals_that_are_alike_are_told_nothing():
    assert told(hospital(9)) == []


FAULTS = {
    r"'creatinine'.*(8|9)\d.* times as much, as creatinine in umol/L would be.*mg/dL": lambda t: t.assign(
        creatinine=t.creatinine * 88.42
    ),
    "'temperature'.*degrees Fahrenheit. Put it into Cel": lambda t: t.assign(temperature=t.temperature * 1.8 + 32),
    "'weight'.*weight in lb would be. Put it into kg": lambda t: t.assign(weight=t.weight * 2.2046),
    "'age': on average": lambda t: t.assign(age=t.age / 12),
    "'creatinine': no row has a value": lambda t: t.assign(creatinine=np.nan),
    r"more than half.*'creatinine' \(60 of 100\)": lambda t: t.assign(creatinine=t.creatinine.where(t.index % 5 < 2)),
    "'diagnosis': 0 of 100 frequent codes.*another code system": lambda t: t.assign(diagnosis="I" + t.diagnosis),
    "'emergency': set in 100 of 100 rows here": lambda t: t.assign(emergency=1),
    "the same as an earlier row in every column": lambda t: pd.concat([t, t.head(30)]),
    "all training rows have the same outcome.*how the outcome is coded": lambda t: t.assign(back=1),
    "'weight' alone tells who has the outcome": lambda t: t.assign(weight=np.where(t.back == 1, 90.0, 70.0)),
    "'weight' alone tells who.*": lambda t: t.assign(weight=t.weight.where(t.back == 1)),
}


@pytest.mark.parametrize("said", FAULTS)
def test_each_is_found_before_a_round_and_told_with_what_to_do(said):
    found = told(FAULTS[said](hospital(9)))
    assert any(re.search(said, text) for text in found), found
    assert all("odd" in text for text in found)


def test_a_flag_the_other_way_round_is_seen():
    frames = {f"s{k}": hospital(k).assign(emergency=lambda t: (t.index % 10 > 0).astype(int)) for k in range(3)}
    frames["odd"] = frames["s0"].assign(patient=lambda t: t.patient + 5000, emergency=lambda t: 1 - t.emergency)
    found: list[str] = []
    encode_sites(ASKED, frames, found.append)
    assert any("'emergency'" in text and "the other way round" in text for text in found)


def test_where_most_rows_are_out_of_range_the_unit_is_asked_for():
    with pytest.raises(DataError, match="in 100 of 100 rows: is it in another unit than years"):
        ASKED.check(hospital(1).assign(age=lambda t: t.age * 365), "table")


def test_the_other_sites_are_all_sites_less_one():
    draw = np.random.default_rng(0)
    mine, rest = draw.normal(100, 3, 50), draw.normal(2, 5, 400)
    whole = np.concatenate([mine, rest])
    found = others(Sums(460, 450, whole.mean(), whole.std()), Sums(60, 50, mine.mean(), mine.std()))
    assert found.rows == 400 and found.known == 400
    assert found.mean == pytest.approx(rest.mean()) and found.deviation == pytest.approx(rest.std())


def test_the_area_is_that_of_scikit_learn():
    draw = np.random.default_rng(1)
    score, outcome = draw.integers(0, 9, 200).astype(float), draw.integers(0, 2, 200).astype(bool)
    assert suspect._area(outcome, score) == pytest.approx(roc_auc_score(outcome, score))


def test_a_simulation_tells_it_as_notes_before_its_first_round():
    events = []
    frames = {"a": hospital(1), "b": hospital(2).assign(weight=lambda t: t.weight * 2.2046)}
    asked = lr.Study(
        name="s", task=lr.table(columns=COLUMNS, label="back", patient="patient"), model=lr.logistic(),
        rounds=1, target="valid/loss", references=(),
    )  # fmt: skip
    lr.simulate(asked, sites=frames, on_event=events.append)
    kinds = [event.kind for event in events]
    notes = [event.data["text"] for event in events if event.kind == "note"]
    assert any("lb" in text for text in notes) and kinds.index("note") < kinds.index("round_open")


MOLAR = {"creatinine": 113.12, "bilirubin": 584.66, "glucose": 180.156, "cholesterol": 386.65, "triglycerides": 885.4,
         "urea nitrogen": 28.014, "calcium": 40.078}  # fmt: skip
UCUM: dict[str, str] = {
    "mmHg": "mm[Hg]",
    "lb": "[lb_av]",
    "inches": "[in_i]",
    "metres": "m",
    "years": "a",
    "months": "mo",
    "days": "d",
    "hours": "h",
}


@pytest.mark.parametrize("factor", suspect.FACTORS, ids=lambda one: f"{one.of} in {one.other}")
def test_the_factors_are_those_of_ucum(factor: suspect.Factor):
    if factor.of == "haemoglobin":
        wanted = 10 / 16.114  # by the monomer, g/mmol; pint would need the molar mass the other way round
    else:
        back = units.line(
            UCUM.get(factor.other, factor.other), UCUM.get(factor.unit, factor.unit), MOLAR.get(factor.of)
        )
        assert back is not None
        wanted = 1 / back.times
    assert factor.times == pytest.approx(wanted, rel=0.02)


def test_a_site_of_a_federation_is_told_before_its_first_round(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    hospital(1).to_csv(folder / "a.csv", index=False)
    hospital(2).assign(weight=lambda t: t.weight * 2.2046).to_csv(folder / "b.csv", index=False)
    study = lr.Study(
        name="s", task=lr.table(columns=COLUMNS, label="back", patient="patient"), model=lr.logistic(), rounds=1,
        target="valid/loss", references=(), data=Data(source=str(folder), site_column=None, split_column=None),
        engine=Engine(plan="sequential"), federation=Federation(deadline_s=120.0),
    )  # fmt: skip
    ended = federated(specs.check(study), tmp_path)
    mine = [event for who, event in ended.events if who == "b"]
    told_at = [at for at, event in enumerate(mine) if event.kind == "note" and "as weight in lb" in event.data["text"]]
    trained_at = [at for at, event in enumerate(mine) if event.kind == "site_done" and event.data["phase"] == "train"]
    assert told_at and trained_at and told_at[0] < trained_at[0]
    assert not [event for who, event in ended.events if who == "coordinator" and "lb" in str(event.data)]
