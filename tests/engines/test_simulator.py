"""A simulated study from config to curve: plans, cohorts, patience, the best round, bytes."""

from __future__ import annotations

import numpy as np
import optax
import pytest

import learner_jax as lr
from learner_jax.build import build
from learner_jax.engines.history import History, said
from learner_jax.engines.program import Plan
from learner_jax.engines.simulator import cohort_size, plan_of
from learner_jax.errors import ConfigError
from learner_jax.specs import Engine, Spec, Study
from tests.algorithms.studies import make_sites

TASK = lr.Task(lr.mlp(hidden=(4,)), optax.sigmoid_binary_cross_entropy, (lr.brier,))
SITES = make_sites((20, 17, 3, 40, 1), 5)
WEIGHTS = 4 * (5 * 4 + 4 + 4 + 1)  # bytes of the network in float32


def run(**fields):
    settings = {"rounds": 5, "batch_size": 8, "references": (), "engine": lr.Engine(plan="sequential"), **fields}
    return lr.simulate(TASK, sites=settings.pop("sites", SITES), **settings)


def test_a_run_is_its_settings_whatever_the_order_of_sites():
    one = run(cohort=0.6, algorithm=lr.scaffold(local_lr=0.2))
    other = run(cohort=0.6, algorithm=lr.scaffold(local_lr=0.2), sites=dict(reversed(SITES.items())))
    assert one.weights_sha256 == other.weights_sha256
    assert run(cohort=0.6, algorithm=lr.scaffold(local_lr=0.2), seed=1).weights_sha256 != one.weights_sha256
    asked = [tuple(row["sites"]) for row in one.result["curve"]]
    assert {len(sites) for sites in asked} == {3}
    assert len(set(asked)) > 1
    curve = one.result["curve"][0]
    assert curve["bytes_down"] == 3 * 2 * WEIGHTS  # weights and control, to three sites
    sums = 4 * (2 + 2 + 2 + 2)  # two weights; train, valid and brier: a sum and its rows each
    assert curve["bytes_up"] == 3 * (2 * WEIGHTS + sums)
    assert one.result["bytes_up"] == 5 * curve["bytes_up"]


def test_streams_give_nearly_the_same_in_float32():
    one, two = run(), run(engine=lr.Engine(plan="streams", streams=2))
    np.testing.assert_allclose(two.metrics["train/loss"], one.metrics["train/loss"], rtol=1e-4)


def test_a_study_stops_when_it_no_longer_gets_better_and_keeps_the_best():
    found = run(rounds=30, patience=3, algorithm=lr.fedavg(local_lr=3.0), target="valid/brier")
    curve = found.metrics["valid/brier"]
    best = found.result["best_round"]
    assert len(curve) < 30
    assert best == curve.idxmin()
    assert len(curve) - 1 - best == 3  # three rounds whose models were looked at and were no better
    valid = {name: np.flatnonzero(site.split == 1) for name, site in SITES.items()}
    x = np.concatenate([SITES[name].rows["x"][rows] for name, rows in valid.items()])
    y = np.concatenate([SITES[name].rows["y"][rows] for name, rows in valid.items()])
    told = 1 / (1 + np.exp(-found.model.predict(x)))
    np.testing.assert_allclose(np.mean((told - y) ** 2), curve[best], rtol=1e-4)


@pytest.mark.parametrize(
    "cohort, sites, size", [(None, 7, 7), (3, 7, 3), (9, 7, 7), (0.5, 7, 4), (0.01, 7, 1), (1.0, 7, 7)]
)
def test_a_cohort_is_a_number_or_a_share(cohort, sites, size):
    assert cohort_size(Study(name="s", task=Spec("tasks", "readmission"), cohort=cohort), sites) == size


def test_a_plan_fits_the_machine():
    assert plan_of(Engine(), 10) == Plan(2, 1)  # the tests' process has two devices
    assert plan_of(Engine(), 1) == Plan(1, 1)
    assert plan_of(Engine(plan="sequential"), 10) == Plan(1, 1)
    assert plan_of(Engine(plan="lanes"), 10) == Plan(1, 4)
    assert plan_of(Engine(plan="lanes", lanes=8), 3) == Plan(1, 3)
    with pytest.raises(ConfigError, match=r"engine.streams: expected at most 2, the devices of this process, got 3"):
        plan_of(Engine(plan="streams", streams=3), 10)


def test_a_history_sets_figures_one_round_late_and_knows_which_way_is_up():
    study = Study(name="s", task=Spec("tasks", "given"), target="valid/brier", patience=2)
    history = History(build(study, TASK))
    said = []
    for figures in [{}, *({"valid/brier": value} for value in (0.3, 0.2, 0.25, 0.24))]:
        better = history.look(figures)  # of the round before
        assert better == (figures.get("valid/brier") in (0.3, 0.2))
        history.add({"train/loss": 1.0})
        said.append(history.said())
    assert [row.get("valid/brier") for row in history.curve] == [0.3, 0.2, 0.25, 0.24, None]
    assert (history.best_round, history.best_value) == (2, 0.2)
    assert history.over
    again = History(build(study, TASK))
    again.restore(history.to_json(), said)
    assert (again.curve, again.best_round, again.best_value) == (history.curve, 2, 0.2)
    assert "curve" not in again.to_json()  # each round is written once


def test_where_other_sites_look_from_a_round_on_the_best_is_among_the_models_that_they_look_at():
    history = History(build(Study(name="s", task=Spec("tasks", "given"), target="valid/brier", patience=2), TASK))
    for number, value in enumerate((None, 0.1, 0.2, 0.4, 0.3)):
        if number == 3:
            history.forget_best()
        history.look({} if value is None else {"valid/brier": value})
        history.add({})
    assert (history.best_round, history.best_value, history.over) == (4, 0.3, False)


def test_a_long_studys_rounds_share_the_names_that_they_are_told_with():
    history = History(build(Study(name="s", task=Spec("tasks", "given"), target="valid/brier"), TASK))
    for number in (1, 2):
        history.add({"train/a loss": 1.0}, sites=["ward 1", "ward 2"])
        history.stands(said({"round": number, "train/a loss": 0.5, "sites": ["ward 1", "ward 2"]}, {"valid/a b": 0.1}))
    one, two = history.curve
    assert one == {"round": 1, "train/a loss": 0.5, "sites": ["ward 1", "ward 2"], "valid/a b": 0.1}
    assert [a is b for a, b in zip(one, two, strict=False)] == [True] * 3
    assert [a is b for a, b in zip(one["sites"], two["sites"], strict=True)] == [True] * 2
