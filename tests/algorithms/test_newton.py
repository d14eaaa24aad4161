"""Newton's method over sites is a logistic regression of all rows in one place."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

import learner_jax as lr
from learner_jax import algorithms, models
from learner_jax.engines.parts import objective
from learner_jax.errors import StudyError
from learner_jax.federate import federate
from tests.algorithms.studies import SIZES, WIDTH, cohorts, make_sites, rounds_of, start
from tests.oracles.logistic import fit

CROSS = optax.sigmoid_binary_cross_entropy
TASK = lr.Task(model=lr.logistic(), loss=CROSS, metrics=(lr.brier,))
LOGISTIC = objective(models.logistic(), CROSS)


def learned(weights) -> tuple[np.ndarray, float]:
    leaves = jax.tree.leaves(weights)
    (slopes,), (intercept,) = ([leaf for leaf in leaves if leaf.ndim == n] for n in (2, 1))
    return np.asarray(slopes)[:, 0], float(intercept[0])


def ended(asked, penalty: float, sites=None):
    """(slopes, intercept, what scikit-learn finds in all rows that are trained on)."""
    with jax.enable_x64(True):
        study = start(federate(algorithms.newton(LOGISTIC, penalty=penalty)), sites, model=models.logistic())
        *_, last = rounds_of(study, asked(study.world))
        found = learned(last.server.learned.weights)
    x, y = (np.asarray(study.world.rows[part]) for part in "xy")
    rows = np.concatenate(study.world.train)
    return *found, *fit(x[rows], y[rows], penalty)


def everybody(rounds: int):
    return [np.arange(len(SIZES), dtype=np.int32)] * rounds


@pytest.mark.parametrize("penalty", [1e-4, 0.1])
def test_it_finds_what_all_rows_in_one_place_would(penalty):
    slopes, intercept, wanted, there = ended(lambda world: everybody(25), penalty)
    assert slopes.shape == (WIDTH,) and np.abs(wanted).max() > 0.3
    assert np.abs(slopes - wanted).max() < 1e-7 and abs(intercept - there) < 1e-7


def test_it_comes_back_from_where_the_plain_steps_would_fly_off():
    """Rounds with some sites alone, of which some have few rows and one outcome, then with all."""
    slopes, intercept, wanted, there = ended(lambda world: [*cohorts(world, 6), *everybody(60)], 0.01)
    assert np.abs(slopes - wanted).max() < 1e-7 and abs(intercept - there) < 1e-7


def test_a_round_in_which_nobody_has_rows_moves_nothing():
    study = start(federate(algorithms.newton(LOGISTIC)), model=models.logistic())
    nobody = [len(rows) for rows in study.world.train].index(0)
    *_, last = rounds_of(study, [np.array([nobody], np.int32)])
    for before, after in zip(jax.tree.leaves(study.weights), jax.tree.leaves(last.server.learned.weights), strict=True):
        np.testing.assert_array_equal(before, after)


def test_inputs_that_tell_each_other_are_no_obstacle():
    sites = make_sites()
    for site in sites.values():
        site.rows["x"][:, 1] = site.rows["x"][:, 0]
        site.rows["x"][:, 2] = 0
    slopes, _, wanted, _ = ended(lambda world: everybody(20), 0.01, sites)
    assert abs(slopes[0] - slopes[1]) < 1e-9 and abs(slopes[2]) < 1e-9 and np.abs(slopes - wanted).max() < 1e-6


def test_a_model_of_many_weights_is_refused_in_one_line():
    task = lr.Task(model=lr.mlp(hidden=(400,)), loss=CROSS, metrics=(lr.brier,))
    with pytest.raises(StudyError, match="newton: expected a model of at most 2048 weights, got 2,801") as caught:
        lr.simulate(task, sites=make_sites(), rounds=1, algorithm=lr.newton(), references=(), target="valid/brier")
    assert "\n" not in str(caught.value)
