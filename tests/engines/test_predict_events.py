"""A study of events in time predicts from records what it predicts from the table that was made of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import learner_jax as lr
from benchmarks import population
from learner_jax.cli.main import main
from learner_jax.data.tables import read_table
from learner_jax.specs import Data, Spec, Study

COLUMNS = (
    {"name": "patient", "kind": "id"},
    {"name": "age", "kind": "number", "low": 18, "high": 120, "missing": "masked"},
    {"name": "days_since_stay", "kind": "number", "low": 0, "missing": "masked"},
    {"name": "history", "kind": "events", "keep": 16},
    {"name": "outcome", "kind": "flag"},
)


@pytest.mark.soak
def test_records_and_their_table_give_the_same_bits(tmp_path, capsys):
    made, features = population.make(120, seed=31), tmp_path / "features"
    population.to_meds(made, tmp_path / "meds")
    population.to_fhir(made, tmp_path / "fhir")
    features.mkdir()
    asked = ["data", "cohort", str(tmp_path / "meds"), "--cohort=heart_failure_readmission", "--events"]
    assert main([*asked, f"--features={features / 'north.csv'}"]) == 0
    study = Study(
        name="events",
        question="?",
        task=Spec("tasks", "table", {"columns": COLUMNS, "label": "outcome", "patient": "patient"}),
        model=Spec("models", "transformer", {"width": 16, "layers": 1, "heads": 2}),
        algorithm=Spec("algorithms", "fedavg", {"local": Spec("optimizers", "adam", {"learning_rate": 1e-3})}),
        rounds=1,
        batch_size=32,
        epochs=1,
        target="valid/log_loss",
        references=(),
        data=Data(source=str(features), site_column=None, split_column=None),
    )
    model = lr.simulate(study, workdir=tmp_path / "run").model
    table = read_table(features / "north.csv")
    known = pd.Series(model.predict(table), index=table["encounter"].astype(str))
    for door in ("meds", "fhir"):
        found = model.predict_records(tmp_path / door, every=True).table.set_index("encounter")["chance"]
        both = [stay for stay in known.index if stay in found.index]
        assert len(both) > 50
        np.testing.assert_array_equal(found.loc[both].to_numpy(), known.loc[both].to_numpy())
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "run"), f"--records={tmp_path / 'meds'}", f"--encounter={both[0]}"]) == 0
    assert f"chance {known.loc[both[0]]:.3f}" in capsys.readouterr().out  # events have no list of inputs to tell of
