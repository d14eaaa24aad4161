"""Local only and pooled, against loops; and the watch that looks at validation rows."""

from __future__ import annotations

import jax
import numpy as np
import optax

from learner_jax import algorithms
from learner_jax.engines.judge import merge
from learner_jax.engines.parts import watching
from learner_jax.evaluation.metrics import brier
from learner_jax.federate import federate
from tests.algorithms.studies import LOCAL, LOSS, MODEL, batches, cohorts, flat, furthest, make_sites, rounds_of, start
from tests.oracles import methods as loops
from tests.oracles.networks import gradient

LR = 0.15
WATCH = watching(MODEL, optax.sigmoid_binary_cross_entropy, (brier,))


def test_local_only_is_each_site_by_itself_and_the_watch_looks_at_what_it_had_before():
    with jax.enable_x64(True):
        study = start(federate(algorithms.local_only(LOSS, local_lr=LR), watch=WATCH))
        asked = cohorts(study.world, 8)
        found = [jax.device_get(outcome) for outcome in rounds_of(study, asked)]
    x, y = (np.asarray(study.world.rows[part]) for part in "xy")
    begun, own = flat(study.weights), {}
    for cohort, plans, outcome in zip(asked, batches(study.world, LOCAL, asked), found, strict=True):
        loss = rows = 0.0
        for place in map(int, cohort):
            mine = study.world.valid[place]
            loss += gradient(own.get(place, begun), x[mine], y[mine])[0] * len(mine)
            rows += len(mine)
        np.testing.assert_allclose(outcome.metrics["valid/loss"], loss, rtol=1e-12)
        assert outcome.metrics["valid/rows"] == rows == outcome.metrics["valid/brier"]["rows"]
        for place, plan in plans.items():
            own[place] = loops.sgd(own.get(place, begun), x, y, plan, LR)[0]
    assert furthest(flat(found[-1].server.learned), begun) == 0  # nothing is averaged
    for place in range(len(study.world.names)):
        mine = flat(jax.tree.map(lambda leaf, s=place: leaf[s], found[-1].states.own[0]))
        assert furthest(mine, own.get(place, begun)) < 1e-12


def test_pooled_is_one_long_descent_over_all_rows():
    everyone = merge(list(make_sites().values()))
    with jax.enable_x64(True):
        pooled = algorithms.pooled(LOSS, local_lr=0.02, local="adam")
        study = start(federate(pooled), {"pooled": everyone})
        asked = [np.zeros(1, np.int32)] * 5
        *_, last = rounds_of(study, asked)
    x, y = (np.asarray(study.world.rows[part]) for part in "xy")
    whole = np.concatenate([plans[0] for plans in batches(study.world, LOCAL, asked)])
    wanted, _, _ = loops.local_adam(flat(study.weights), x, y, whole, 0.02)  # Adam's state lasts from round to round
    assert furthest(flat(last.server.learned.weights), wanted) < 1e-12


def test_the_model_of_a_site_alone_may_be_the_average_over_its_rounds():
    with jax.enable_x64(True):
        study = start(federate(algorithms.local_only(LOSS, local_lr=LR, average=0.7)))
        asked = cohorts(study.world, 8)
        *_, last = rounds_of(study, asked)
    x, y = (np.asarray(study.world.rows[part]) for part in "xy")
    for place in range(len(study.world.names)):
        weights = mean = flat(study.weights)
        counted = 0
        for plans in batches(study.world, LOCAL, asked):
            if len(plans.get(place, ())):
                weights = loops.sgd(weights, x, y, plans[place], LR)[0]
                part = max(0.3, 1 / (counted + 1))
                mean, counted = loops.combine(mean, loops.combine(weights, mean, -1), part), counted + 1
        assert furthest(flat(jax.tree.map(lambda leaf, s=place: leaf[s], last.states.own[2])), mean) < 1e-12


def test_pooled_averages_as_fedavg_of_one_site_would():
    everyone = merge(list(make_sites().values()))
    with jax.enable_x64(True):
        study = start(federate(algorithms.pooled(LOSS, local_lr=LR, average=0.8)), {"pooled": everyone})
        asked = [np.zeros(1, np.int32)] * 6
        *_, last = rounds_of(study, asked)
    x, y = (np.asarray(study.world.rows[part]) for part in "xy")
    wanted = loops.fedavg(flat(study.weights), x, y, batches(study.world, LOCAL, asked), LR, share=0.8)
    assert furthest(flat(last.server.learned.mean), wanted) < 1e-12
