"""What moves a model: contributions that add up, and columns that matter more than noise does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

import learner_jax as lr
from learner_jax.errors import DataError

COLUMNS = (
    {"name": "dose", "kind": "number"},
    {"name": "ward", "kind": "category", "codes": ("a", "b", "c")},
    {"name": "noise", "kind": "number"},
    {"name": "back", "kind": "flag"},
)


def hospital(seed: int, rows: int = 400) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    dose, ward = draw.normal(5, 2, rows), draw.choice(list("abc"), rows)
    odds = 1.2 * (dose - 5) + 1.0 * (ward == "c") - 0.5
    back = (draw.random(rows) < 1 / (1 + np.exp(-odds))).astype(int)
    return pd.DataFrame({"dose": dose, "ward": ward, "noise": draw.normal(size=rows), "back": back})


def trained(network):
    study = lr.Study(
        name="s", task=lr.table(columns=COLUMNS, label="back"), target="valid/loss", references=(), rounds=12,
        model=network, algorithm=lr.fedavg(local=lr.optimizer("adam", learning_rate=0.02)), batch_size=32,
    )  # fmt: skip
    return lr.simulate(study, sites={"a": hospital(1), "b": hospital(2)}).model


@pytest.fixture(scope="module")
def model():
    return trained(lr.mlp(hidden=(8,)))


def test_contributions_add_up_to_what_moves_the_logit(model):
    table = hospital(3, 30)
    table.index = pd.Index([f"p{k}" for k in range(30)])
    found = model.contributions(table, steps=400)
    assert list(found.index) == list(table.index) and list(found.columns) == model.fitted["inputs"]
    typical = {"x": jnp.zeros((1, found.shape[1]))}
    zero = float(model.parts.model.apply(model.weights["params"], model.weights["stats"], typical, None, False)[0][0])
    np.testing.assert_allclose(found.sum(axis=1), logit(model.predict(table)) - zero, atol=5e-3)
    assert found["dose"].abs().mean() > 5 * found["noise"].abs().mean()


def test_of_a_logistic_regression_they_are_weight_times_input():
    model, table = trained(lr.logistic()), hospital(3, 20)
    (kernel,) = [np.asarray(leaf) for leaf in jax.tree.leaves(model.weights["params"]) if leaf.ndim == 2]
    np.testing.assert_allclose(model.contributions(table).to_numpy(), model._encoded(table) * kernel[:, 0], atol=1e-5)


def test_a_column_matters_by_what_the_ranking_loses_without_it(model):
    found = model.importance(hospital(4, 800), draws=3)
    assert next(iter(found.index)) == "dose" and set(found.index) == {"dose", "ward", "noise"}
    assert found.loc["dose", "auroc"] > 0.15 and abs(found.loc["noise", "auroc"]) < 0.02
    pd.testing.assert_frame_equal(found, model.importance(hospital(4, 800), draws=3))


def test_what_cannot_be_said_is_a_line(model):
    with pytest.raises(DataError, match="one of the two alone"):
        model.importance(hospital(4, 50).assign(back=1))
    with pytest.raises(DataError, match="a pandas frame"):
        model.importance(np.zeros((3, 3)))
