"""A model's chances moved to what comes at another hospital: by the numbers, through a model, at the terminal."""

from __future__ import annotations

import numpy as np
import optax
import pandas as pd
import pytest

import learner_jax as lr
from learner_jax.cli.main import main
from learner_jax.errors import DataError
from learner_jax.evaluation.calibration import recalibrate
from learner_jax.models import logistic
from learner_jax.specs import Data, Spec, Study


def _told(seed: int, n: int, a: float, b: float) -> tuple[np.ndarray, np.ndarray]:
    """Told chances, and outcomes of logit a + b logit(told)."""
    draw = np.random.default_rng(seed)
    logit = draw.normal(-1.5, 1.0, n)
    y = draw.random(n) < 1 / (1 + np.exp(-(a + b * logit)))
    return 1 / (1 + np.exp(-logit)), y.astype(float)


def test_it_is_the_logistic_regression_of_the_outcome_on_the_told_log_odds():
    from sklearn.linear_model import LogisticRegression

    told, y = _told(0, 4000, 0.4, 0.6)
    found = recalibrate(told, y)
    logit = np.log(told / (1 - told))
    other = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit[:, None], y)
    assert found.slope == pytest.approx(other.coef_[0, 0], abs=1e-6)
    assert found.intercept == pytest.approx(other.intercept_[0], abs=1e-6)
    assert abs(found.intercept - 0.4) < 4 * found.intercept_se and abs(found.slope - 0.6) < 4 * (found.slope_se or 0)
    new = found.move(told)
    assert new.mean() == pytest.approx(y.mean(), abs=1e-9)  # what likelihood asks for
    assert (np.argsort(new, kind="stable") == np.argsort(told, kind="stable")).all()


def test_with_few_events_the_intercept_alone_is_moved():
    told, y = _told(1, 300, 0.8, 1.0)
    assert 10 <= y.sum() < 100
    found = recalibrate(told, y)
    assert found.slope == 1.0 and found.slope_se is None
    assert found.move(told).mean() == pytest.approx(y.mean(), abs=1e-9)


def test_that_it_is_needed_is_judged_by_both_together_and_by_patient():
    """A shift that is plain in the mean is told, wide as the intercept's own interval at odds of one to one is."""
    needed = [recalibrate(*_told(seed, 2000, 0.3, 1.0)).needed for seed in range(20)]
    assert np.mean(np.array(needed) < 0.05) > 0.9
    right = [recalibrate(*_told(seed, 2000, 0.0, 1.0)).needed for seed in range(100, 300)]
    assert 0.01 < np.mean(np.array(right) < 0.05) < 0.11
    told, y = _told(5, 500, 0.2, 0.8)
    alone = recalibrate(told, y)
    six = recalibrate(np.tile(told, 6), np.tile(y, 6), np.tile(np.arange(500), 6))
    assert six.slope == pytest.approx(alone.slope) and six.needed == pytest.approx(alone.needed)
    assert six.slope_se == pytest.approx(alone.slope_se)  # six copies of a patient say no more than one


def test_too_few_and_a_model_that_ranks_the_wrong_way_are_refused():
    told, y = _told(2, 2000, 0.0, -0.7)
    with pytest.raises(DataError, match=r"expected higher told chances to mean more events, got a slope of -0\.\d+"):
        recalibrate(told, y)
    with pytest.raises(DataError, match="at least 10 patients with the outcome and 10 without, got 3 and 97"):
        recalibrate(told[:100], np.arange(100) < 3)


COLUMNS = (
    {"name": "patient", "kind": "id"},
    {"name": "age", "kind": "number", "unit": "years", "low": 0, "high": 130},
    {"name": "died", "kind": "flag"},
)


def _table(seed: int, n: int, shift: float) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    age = draw.normal(70, 10, n)
    died = draw.random(n) < 1 / (1 + np.exp(-(shift + 0.12 * (age - 70))))
    return pd.DataFrame({"patient": draw.integers(0, 1 << 40, n), "age": age.clip(0, 130), "died": died.astype(int)})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sites")
    for seed, name in enumerate(("east", "west")):
        _table(seed, 500, -1.0).to_csv(folder / f"{name}.csv", index=False)
    study = Study(
        name="ages",
        question="Who died?",
        task=Spec("tasks", "table", {"columns": COLUMNS, "label": "died", "patient": "patient"}),
        model=Spec("models", "logistic"),
        algorithm=Spec("algorithms", "fedavg", {"local": Spec("optimizers", "adam", {"learning_rate": 0.03})}),
        rounds=10,
        batch_size=32,
        epochs=1,
        target="valid/log_loss",
        references=(),
        data=Data(source=str(folder), site_column=None, split_column=None),
    )
    return lr.simulate(study, workdir=folder.parent / "run")


def test_a_model_tells_what_comes_here_keeps_its_ranking_and_is_saved(run, tmp_path):
    here, later = _table(7, 1500, -2.5), _table(8, 4000, -2.5)
    before = run.model.predict(later)
    new = run.model.recalibrated(here)
    after = new.predict(later)
    assert before.mean() > 1.5 * later["died"].mean()
    assert after.mean() == pytest.approx(later["died"].mean(), abs=0.02)
    assert (np.diff(after[np.argsort(before)]) >= 0).all()
    new.save(tmp_path / "here")
    np.testing.assert_array_equal(lr.load(tmp_path / "here").predict(later), after)
    np.testing.assert_array_equal(run.model.predict(later), before)  # the other is as it was
    logit = np.log(after / (1 - after))
    shares = new.contributions(later)["age"].to_numpy()
    typical = logit - shares
    np.testing.assert_allclose(typical, typical[0], atol=1e-3)
    form = new.predict_one({"age": 81.5})
    assert form.chance == new.predict(pd.DataFrame({"age": [81.5]}))[0]


def test_arrays_take_their_outcomes_beside_them():
    draw = np.random.default_rng(3)
    x = draw.normal(size=(800, 2)).astype(np.float32)
    y = (draw.random(800) < 1 / (1 + np.exp(-x[:, 0]))).astype(np.float32)
    task = lr.Task(logistic(), optax.sigmoid_binary_cross_entropy, (lr.auroc,))
    sites = {"a": (x[:400], y[:400]), "b": (x[400:], y[400:])}
    run = lr.simulate(
        task, sites=sites, rounds=2, batch_size=32, algorithm=lr.fedavg(local_lr=0.1), target="valid/auroc",
        references=(),
    )  # fmt: skip
    moved = run.model.recalibrated(x, y)
    assert moved.predict(x).mean() == pytest.approx(y.mean(), abs=1e-6)
    with pytest.raises(DataError, match="expected y, an outcome of 0 or 1 for each of 800 rows"):
        run.model.recalibrated(x)


def test_the_command_says_it_and_writes_a_model_that_predict_reads(run, tmp_path, capsys):
    table, folder = tmp_path / "here.csv", str(run.workdir)
    _table(9, 1500, -2.5).to_csv(table, index=False)
    assert main(["recalibrate", folder, f"--data={table}"]) == 0
    said = capsys.readouterr().out
    assert "where the model told" in said and "their spread is taken times" in said and "Nothing was written" in said
    out = tmp_path / "new"
    assert main(["recalibrate", folder, f"--data={table}", f"--out={out}"]) == 0
    assert main(["predict", str(out), "--value=age=70"]) == 0
    here = capsys.readouterr().out
    assert main(["predict", folder, "--value=age=70"]) == 0
    assert here.split("chance")[1] != capsys.readouterr().out.split("chance")[1]
    assert main(["recalibrate", folder, f"--data={table}", f"--out={out}"]) == 2
    assert "--out: expected a new folder" in capsys.readouterr().err
    assert main(["recalibrate", folder]) == 2
    assert "expected --data=TABLE" in capsys.readouterr().err
    few = tmp_path / "few.csv"
    _table(10, 30, -2.5).to_csv(few, index=False)
    assert main(["recalibrate", folder, f"--data={few}"]) == 1
    assert "at least 10 patients with the outcome" in capsys.readouterr().err
