"""What a notebook sees: names, the lines of the README, a task of one's own, models that are saved and loaded."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from flax import linen, nnx

import learner_jax as lr
from learner_jax.data.samples import sample_path
from learner_jax.errors import ConfigError, DataError, StorageError
from tests.algorithms.studies import make_sites

FAST = {"references": (), "batch_size": 16, "engine": lr.Engine(plan="sequential")}


def arrays(sizes=(60, 90, 40), seed=1):
    """name -> (x, y) of sites with a common truth."""
    return {name: (site.rows["x"], site.rows["y"]) for name, site in make_sites(sizes, 0, seed).items()}


class Net(nnx.Module):
    def __init__(self, rngs):
        self.a, self.b = nnx.Linear(5, 8, rngs=rngs), nnx.Linear(8, 1, rngs=rngs)
        self.drop = nnx.Dropout(0.2)

    def __call__(self, x, rngs=None):
        return self.b(self.drop(nnx.relu(self.a(x)), rngs=rngs))[:, 0]


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(1)(linen.relu(linen.Dense(8)(x)))[:, 0]


def cross_entropy(output, target):
    return optax.sigmoid_binary_cross_entropy(output, target)


# ---- names -----------------------------------------------------------------------------------------------------------


def test_importing_costs_no_jax():
    code = "import learner_jax, sys; dir(learner_jax); assert not {'jax', 'pandas', 'flax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_misspelt_name_is_told_its_near_ones():
    with pytest.raises(AttributeError, match="learner_jax has no 'scafold'; near: scaffold"):
        lr.scafold  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_a_method_is_its_frozen_hyperparameters():
    spec = lr.scaffold(local_lr=0.05)
    assert (spec.kind, spec.name, dict(spec.fields)) == ("algorithms", "scaffold", {"local_lr": 0.05})
    assert hash(spec) == hash(lr.scaffold(local_lr=0.05))
    with pytest.raises(ConfigError, match=r"scaffold has no field 'local_rl' \(did you mean local_lr\?\)"):
        lr.scaffold(local_rl=0.05)  # pyright: ignore[reportCallIssue]


# ---- the notebook ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """The ten lines, with two of the ten sites and two rounds."""
    run = lr.simulate(
        "readmission", rounds=2, algorithm=lr.scaffold(local_lr=0.05), references=(),
        data=lr.Data(source="diabetes130", sites=("h00", "h01")),
    )  # fmt: skip
    return run, tmp_path_factory.mktemp("notebook")


def test_the_ten_lines(notebook):
    run, folder = notebook
    page = run.report(folder / "out.html").read_text()
    assert "<html" in page
    assert "h01" in page
    assert isinstance(run.metrics, pd.DataFrame)
    assert list(run.metrics.index) == [1, 2]
    assert {"train/loss", "valid/loss", "valid/auroc"} <= set(run.metrics)
    table = pd.read_parquet(sample_path("diabetes130"))[:100]
    chances = run.model.predict(table)
    assert chances.shape == (100,)
    assert ((chances > 0) & (chances < 1)).all()
    assert len(run.weights_sha256) == 64
    assert "valid/auroc" in repr(run) or "AUROC" in repr(run)


def test_a_saved_model_says_what_it_said(notebook):
    run, folder = notebook
    run.model.save(folder / "model")
    table = pd.read_parquet(sample_path("diabetes130"))[-50:]
    np.testing.assert_array_equal(lr.load(folder / "model").predict(table), run.model.predict(table))
    with pytest.raises(StorageError, match="expected a saved model in"):
        lr.load(folder / "nothing")


# ---- a task of one's own ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nnx", "linen", "spec"])
def test_a_flax_module_and_arrays(kind, workdir):
    module = {"nnx": lambda: Net(nnx.Rngs(0)), "linen": LinenNet, "spec": lambda: lr.mlp(hidden=(8,))}[kind]()
    task = lr.Task(model=module, loss=cross_entropy, metrics=(lr.auroc,))
    run = lr.simulate(task, sites=arrays(), rounds=8, workdir=workdir, algorithm=lr.fedavg(local_lr=0.2), **FAST)
    losses = run.metrics["train/loss"]
    assert losses.iloc[-1] < losses.iloc[0]
    if kind == "nnx":
        assert not module.drop.deterministic  # the caller's module is as it was
    x = arrays()["site-1"][0]
    chances = run.model.predict(x)
    assert ((chances > 0) & (chances < 1)).all()
    run.model.save(workdir / "copy")
    for folder in ("copy", "model"):
        np.testing.assert_array_equal(lr.load(workdir / folder, task).predict(x), chances)


def test_references_are_trained_beside_it_where_outcomes_can_be_ranked():
    task = lr.Task(model=lr.logistic(), loss=cross_entropy, metrics=(lr.auroc,))
    run = lr.simulate(task, sites=arrays((150, 200)), rounds=2, batch_size=32, engine=lr.Engine(plan="sequential"))
    (everyone,) = run.result["evaluation"]["cohorts"]
    assert set(everyone["all"]["models"]) == {"federated", "local_only", "pooled"}


def test_several_classes_and_a_loss_of_ones_own():
    draw = np.random.default_rng(0)
    sites = {}
    for name in ("a", "b"):
        x = draw.normal(size=(80, 4)).astype(np.float32)
        sites[name] = (x, np.argmax(x[:, :3], axis=1))
    loss = optax.softmax_cross_entropy_with_integer_labels
    task = lr.Task(model=lr.logistic(outputs=3), loss=lambda o, t: loss(o, t.astype(jnp.int32)), metrics=(lr.accuracy,))
    run = lr.simulate(task, sites=sites, rounds=15, algorithm=lr.fedavg(local_lr=0.5), **FAST)
    assert run.metrics["valid/accuracy"].iloc[-1] > 0.8
    assert run.model.predict(sites["a"][0]).shape == (80, 3)


def test_small_sites_empty_sites_and_sites_of_one_class():
    """A site smaller than a batch, one with no row to train on, one without events: trained, counted, no NaN."""
    sites = make_sites((40, 3, 0, 30), 4)
    sites["site-3"].rows["y"][:] = 0
    task = lr.Task(model=lr.logistic(), loss=cross_entropy, metrics=(lr.auroc, lr.brier))
    run = lr.simulate(task, sites=sites, rounds=3, algorithm=lr.scaffold(), target="valid/brier", **FAST)
    assert np.isfinite(run.metrics["train/loss"]).all()
    assert np.isfinite(run.metrics["valid/brier"]).all()
    assert not any("valid/auroc" in row for row in run.result["curve"])  # too few to judge anywhere
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.model.weights))


# ---- what is refused, in one line ------------------------------------------------------------------------------------


def _refused(error, match, sites, task=None, **fields):
    task = lr.Task(model=lr.logistic(), loss=cross_entropy) if task is None else task
    with pytest.raises(error, match=match) as found:
        lr.simulate(task, sites=sites, rounds=1, **{**FAST, **fields})
    assert "\n" not in str(found.value)


def test_bad_arrays_are_refused_in_one_line():
    x, y = arrays()["site-0"]
    hole = x.copy()
    hole[3, 1] = np.nan
    _refused(DataError, "site 'a': expected finite numbers in x, got NaN or infinity in row 3", {"a": (hole, y)})
    _refused(DataError, "site 'a': expected numbers in y", {"a": (x, np.array(["yes"] * len(x)))})
    _refused(DataError, "site 'a': expected as many rows in x as in y.*got 60 and 59", {"a": (x, y[:-1])})
    _refused(DataError, "at least one, got 0 and 0", {"a": (x[:0], y[:0])})
    _refused(DataError, "expected at least one site, got none", {})
    _refused(DataError, r"expected \(x, y\), got int", {"a": 3})
    _refused(DataError, "expected rows like those of site", {"a": (x, y), "b": (x[:, :2], y)})
    _refused(DataError, "expected rows to train on, got none", make_sites((0, 0), 3))


def test_bad_settings_are_refused_in_one_line():
    sites = arrays()
    _refused(ConfigError, "a study has no field 'round'.*did you mean rounds", sites, round=3)
    _refused(ConfigError, "target: expected one of valid/loss, got 'valid/auroc'", sites, target="valid/auroc")
    _refused(ConfigError, "engine.streams: expected at most 2", sites, engine=lr.Engine(plan="streams", streams=9))
    task = lr.Task(model=lr.logistic(), loss=lambda output, target: jnp.mean(output))
    _refused(DataError, r"expected loss: one number a row", sites, task)
    _refused(ConfigError, "expected model: a Flax module", sites, lr.Task(model=3, loss=cross_entropy))


def test_values_of_a_study_are_checked_for_a_task_too():
    _refused(ConfigError, "batch_size", arrays(), batch_size=0)
    _refused(ConfigError, "local_lr", arrays(), algorithm=lr.fedavg(local_lr="fast"))  # pyright: ignore
