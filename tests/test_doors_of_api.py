"""What the api refuses before anything runs, and what a join code carries."""

from __future__ import annotations

import inspect
import json

import numpy as np
import optax
import pandas as pd
import pytest
from flax import linen, nnx

import learner_jax as lr
from learner_jax import specs
from learner_jax.build import build
from learner_jax.engines import serving
from learner_jax.engines.given import checked_task
from learner_jax.engines.trained import TrainedModel
from learner_jax.errors import ConfigError, DataError, LearnerError
from learner_jax.network.keys import parse_join_code


@pytest.mark.parametrize("make", [lr.scaffold, lr.fedavg, lr.mlp, lr.readmission])
def test_a_field_without_its_name_is_refused(make):
    with pytest.raises(ConfigError, match="expected its fields by name"):
        make(0.05)


@pytest.mark.parametrize(
    ("call", "args", "fields", "words"),
    [
        (lr.Study, (), {"name": "s", "task": "readmission", "rouns": 3}, "Study has no field 'rouns' (did you mean ro"),
        (lr.Study, (), {"rouns": 3}, "Study has no field 'rouns' (did you mean rounds?); Study needs name and task, "),
        (lr.Engine, (), {"plann": "auto"}, "Engine has no field 'plann' (did you mean plan or lanes?)"),
        (lr.Study, ("readmission",), {}, "Study: expected its fields by name, such as name=..., got 1 without a name"),
        (lr.simulate, ("readmission",), {"rouns": 3}, "a study has no field 'rouns' (did you mean rounds?)"),
        (lr.scaffold, (), {"locl_lr": 0.1}, "scaffold has no field 'locl_lr' (did you mean local_lr?)"),
        (lr.optimizer, ("sgd",), {"learing_rate": 0.1}, "sgd has no field 'learing_rate' (did you mean learning_rate?"),
    ],
)
def test_a_misspelt_field_is_answered_with_the_near_ones_in_one_line(call, args, fields, words):
    with pytest.raises(ConfigError) as error:
        call(*args, **fields)
    assert str(error.value).startswith(words)
    assert "\n" not in str(error.value)


def test_a_method_shows_its_own_fields_and_no_loss():
    assert list(inspect.signature(lr.scaffold).parameters) == ["local_lr", "server_lr", "by_rows"]
    words = lr.scaffold.__doc__ or ""
    assert "loss:" not in words and "local_lr: lr_l" in words


# ---- a task and arrays of one's own ----------------------------------------------------------------------------------


class Net(nnx.Module):
    """Five inputs, one logit."""

    def __init__(self, rngs):
        self.dense = nnx.Linear(5, 1, rngs=rngs)

    def __call__(self, x):
        return self.dense(x)[:, 0]


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(1)(x)[:, 0]


X = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.float32)
GONE = np.where(Y > 0, np.nan, Y)


def tried(sites=None, study=None, **task):
    """A call with one thing changed; nothing may be trained by it."""
    known = {"model": lr.logistic(), "loss": optax.sigmoid_binary_cross_entropy}
    return lr.simulate(study or lr.Task(**{**known, **task}), sites=sites, rounds=1, references=())


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({"metrics": lr.auroc}, ConfigError, "Task.metrics: expected a tuple, got auroc alone: write metrics=(auroc,)"),
        ({"metrics": ("auroc",)}, ConfigError, "Task.metrics: expected a tuple of metrics, such as (lr.auroc,), got"),
        ({"loss": "mse"}, ConfigError, "Task.loss: expected a function (output, target) -> float[B], got 'mse'"),
        ({"model": Net}, ConfigError, "expected model: a Flax module, got the class Net: make one of it, Net(...)"),
        ({"model": LinenNet}, ConfigError, "expected model: a Flax module, got the class LinenNet: make one of it"),
        ({"sites": None}, DataError, "sites: expected a dict, name -> (x, y), got nothing: this task has no checklist"),
        ({"sites": [(X, Y)]}, DataError, "sites: expected a dict, name -> (x, y), got list"),
        ({"sites": [X], "study": "readmission"}, DataError, "sites: expected a dict, name -> (x, y), got list"),
        ({"sites": {}}, DataError, "sites: expected at least one site, got none"),
        ({"sites": {}, "study": "readmission"}, DataError, "sites: expected at least one site, got none"),
        ({"sites": {3: (X, Y)}}, DataError, "sites: expected names in text, got 3"),
        ({"sites": {"a": (X, Y[:-1])}}, DataError, "site 'a': expected as many rows in x as in y, and at least one, g"),
        ({"sites": {"a": (X, GONE)}}, DataError, "site 'a': expected finite numbers in y, got NaN or infinity in row "),
        ({"sites": {"a": ([[1], [2, 3]], Y)}}, DataError, "site 'a': expected rows of one length in x, got several"),
        (
            {"sites": {"a": (1.0, 0.0)}},
            DataError,
            "site 'a': expected a row of x and an outcome in y each, got a singl",
        ),
        (
            {"sites": {"a": (X[:, 0], Y)}},
            DataError,
            "model: expected an output for each row of x float32[n], got an ou",
        ),
        (
            {"model": Net(nnx.Rngs(0)), "sites": {"a": (X[:, :3], Y)}},
            DataError,
            "model: expected one that takes rows of x float32[n, 3], but it says: dot_general requires contracting",
        ),
    ],
)
def test_what_a_call_hands_over_is_refused_in_one_line(changed, kind, words):
    with pytest.raises(LearnerError) as error:
        tried(**{"sites": {"a": (X, Y)}, **changed})
    assert type(error.value) is kind
    assert str(error.value).startswith(words)
    assert "\n" not in str(error.value)


def test_a_table_is_no_pair_of_arrays():
    with pytest.raises(DataError, match=r"site 'a': expected \(x, y\), got a table"):
        tried({"a": pd.DataFrame({"u": [1, 2], "v": [0, 1]})})


def test_rows_to_predict_for_are_like_those_of_the_training():
    task = checked_task(lr.Task(lr.logistic(), optax.sigmoid_binary_cross_entropy, metrics=[lr.auroc]))  # pyright: ignore
    assert task.metrics == (lr.auroc,)  # a list of metrics is as good as a tuple
    parts = build(specs.check(lr.Study(name="s", task=lr.Spec("tasks", "readmission"), references=())), task)
    rows = {"x": X[:2], "y": Y[:2]}
    model = TrainedModel(parts, parts.init_weights(rows), None, rows)
    assert model.predict(X.tolist()).shape == (20,)
    assert model.predict(X[:0]).shape == (0,)
    for table, words in (
        (X[:, :3], r"predict: expected rows like those it was trained on, \[n, 5\], got \[20, 3\]"),
        (X[0], r"trained on, \[n, 5\], got \[5\]"),
        ([["a"] * 5], "predict: expected numbers in its rows, got <U1"),
        (None, "predict: expected numbers in its rows, got object"),
    ):
        with pytest.raises(DataError, match=words):
            model.predict(table)


@pytest.mark.parametrize("count", [0, 11])
def test_a_number_of_sites_that_the_study_does_not_have(tmp_path, count):
    with pytest.raises(ConfigError, match=f"expected 1 to 10, the sites of study 'readmission', got {count}"):
        lr.local("readmission", sites=count, workdir=tmp_path)


@pytest.mark.parametrize(("sites", "got"), [((), "got none"), (("a", "b", "a"), "got 'a' twice")])
def test_sites_that_cannot_take_part(tmp_path, sites, got):
    with pytest.raises(ConfigError, match=got):
        lr.coordinate("readmission", sites=sites, workdir=tmp_path)


def test_a_host_that_is_no_place_to_dial_needs_an_address(tmp_path):
    with pytest.raises(ConfigError, match="expected the address that sites dial"):
        lr.coordinate("readmission", sites=("a",), workdir=tmp_path / "run", host="0.0.0.0", references=())


@pytest.mark.parametrize(
    ("address", "dialled"),
    [
        ("there.example", "tcp://there.example:{port}"),
        ("there.example:443", "tcp://there.example:443"),
        ("tcp://10.1.2.3:443", "tcp://10.1.2.3:443"),
        (None, "tcp://127.0.0.1:{port}"),
    ],
)
def test_a_join_code_carries_what_sites_dial(tmp_path, monkeypatch, address, dialled):
    class Enough(Exception):
        pass

    found = {}

    def invited(files, told):
        code = parse_join_code(files["north"].read_text())
        found.update(code=code.address, told=told, mode=files["north"].stat().st_mode & 0o777)
        raise Enough

    parts = build(specs.check(lr.Study(name="s", task=lr.Spec("tasks", "readmission"), references=())))
    folder = tmp_path / "run"
    with pytest.raises(Enough):
        serving.serve(parts, ("north",), folder, print, "127.0.0.1", 0, invited, address=address)
    expected = dialled.format(port=json.loads((folder / "address.json").read_text())["port"])
    assert found == {"code": expected, "told": expected, "mode": 0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
