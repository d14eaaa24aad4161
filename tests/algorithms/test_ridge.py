"""Exact federated ridge against scikit-learn's, each protein over the rows in which it was seen, wherever they are."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from learner_jax import algorithms, models
from learner_jax.algorithms.ridge import NORMAL_90
from learner_jax.engines.parts import objective
from learner_jax.errors import StudyError
from learner_jax.federate import federate
from learner_jax.tasks.proteins import _loss
from tests.algorithms.studies import rounds_of, start
from tests.algorithms.test_columnwise import COLUMNS, sites

LINEAR = models.protein_net(hidden=())


def fitted(penalty: float, rounds: int = 1):
    """(x, y, seen of all training rows; what is told for x; what the weights before told)."""
    study = start(federate(algorithms.ridge(objective(LINEAR, _loss(0.5)), penalty=penalty)), sites(), model=LINEAR)
    *_, last = rounds_of(study, [np.arange(len(study.world.names), dtype=np.int32)] * rounds)
    weights = study.federated.model(study.federated.send(last.server), study.federated.enrol(study.weights))
    at = np.concatenate(study.world.train)
    rows = jax.tree.map(lambda column: np.asarray(column)[at], study.world.rows)
    rows = {**rows, "x": jax.numpy.asarray(rows["x"])}
    told, _ = LINEAR.apply(weights["params"], weights["stats"], rows, None, False)
    found = {name: np.asarray(value) for name, value in told.items()}
    return np.asarray(rows["x"]), rows["y"]["value"], rows["y"]["seen"] > 0, found, weights


@pytest.mark.parametrize("penalty", [0.01, 1.0, 30.0])
def test_each_protein_is_scikit_learns_ridge_over_the_rows_that_have_it(penalty):
    with jax.enable_x64(True):
        x, y, seen, told, _ = fitted(penalty)
    assert not seen[:, 3].any() and len({int(n) for n in seen.sum(axis=0)}) == COLUMNS
    for c in range(3):
        mine = seen[:, c]
        wanted = Ridge(alpha=penalty).fit(x[mine], y[mine, c])
        mean = wanted.predict(x)
        np.testing.assert_allclose(told["mean"][:, c], mean, rtol=0, atol=1e-9)
        np.testing.assert_allclose(told["mid"][:, c], mean, rtol=0, atol=1e-9)
        half = NORMAL_90 * np.sqrt(np.mean((y[mine, c] - mean[mine]) ** 2))
        np.testing.assert_allclose(told["high"][:, c] - mean, half, rtol=1e-9)
        np.testing.assert_allclose(mean - told["low"][:, c], half, rtol=1e-9)
    assert np.abs(told["mean"][:, 3]).max() < 1e-9  # nobody measures it: weights of 0


def test_more_rounds_change_nothing():
    with jax.enable_x64(True):
        (one, three) = (fitted(1.0, rounds)[4] for rounds in (1, 3))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(three), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_a_model_with_layers_is_refused():
    deep = models.protein_net(hidden=(4,))
    with pytest.raises(StudyError, match=r"expected a linear model, protein_net\(hidden=\(\)\)"):
        study = start(federate(algorithms.ridge(objective(deep, _loss(0.5)))), sites(), model=deep)
        list(rounds_of(study, [np.arange(2, dtype=np.int32)]))
