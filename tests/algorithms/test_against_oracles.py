"""Every method in float64 against a NumPy loop over the same batches: skewed sites, short batches, changing cohorts."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from learner_jax import aggregators, algorithms
from learner_jax.federate import federate
from tests.algorithms.studies import LOCAL, LOSS, batches, cohorts, flat, furthest, learned, rounds_of, start
from tests.oracles import methods as loops

ROUNDS, LR = 20, 0.15

# name -> (ours, the loop over (weights, x, y, rounds))
CASES = {
    "fedavg": (lambda: federate(algorithms.fedavg(LOSS, local_lr=LR)), lambda *data: loops.fedavg(*data, lr=LR)),
    "fedavg, adam at the sites": (
        lambda: federate(algorithms.fedavg(LOSS, local_lr=0.02, local="adam")),
        lambda *data: loops.fedavg(*data, lr=0.02, local=loops.local_adam),
    ),
    "fedavg, median": (
        lambda: federate(algorithms.fedavg(LOSS, local_lr=LR), aggregators.median()),
        lambda *data: loops.fedavg(*data, lr=LR, meet=loops.coordinate_median),
    ),
    "fedadam": (
        lambda: federate(algorithms.fedadam(LOSS, local_lr=LR, server_lr=0.03)),
        lambda *data: loops.fedavg(*data, lr=LR, server=loops.adam(0.03)),
    ),
    "fedyogi": (
        lambda: federate(algorithms.fedyogi(LOSS, local_lr=LR, server_lr=0.03)),
        lambda *data: loops.fedavg(*data, lr=LR, server=loops.yogi(0.03)),
    ),
    "fedadagrad": (
        lambda: federate(algorithms.fedadagrad(LOSS, local_lr=LR, server_lr=0.1)),
        lambda *data: loops.fedavg(*data, lr=LR, server=loops.adagrad(0.1)),
    ),
    "fedavgm": (
        lambda: federate(algorithms.fedavgm(LOSS, local_lr=LR, momentum=0.7)),
        lambda *data: loops.fedavg(*data, lr=LR, server=loops.heavy_ball(1.0, 0.7)),
    ),
    "fedavg, averaged": (
        lambda: federate(algorithms.fedavg(LOSS, local_lr=LR, average=0.8)),
        lambda *data: loops.fedavg(*data, lr=LR, share=0.8),
    ),
    "fedadam, averaged": (
        lambda: federate(algorithms.fedadam(LOSS, local_lr=LR, server_lr=0.03, average=0.9)),
        lambda *data: loops.fedavg(*data, lr=LR, server=loops.adam(0.03), share=0.9),
    ),
    "fedprox": (
        lambda: federate(algorithms.fedprox(LOSS, local_lr=LR, mu=0.4)),
        lambda *data: loops.fedprox(*data, lr=LR, mu=0.4),
    ),
}


def run(federated):
    """(study, rows x, rows y, batches, last outcome) of 20 rounds with cohorts of 1 to 7 sites."""
    study = start(federated)
    asked = cohorts(study.world, ROUNDS)
    assert len({len(cohort) for cohort in asked}) > 3
    *_, last = rounds_of(study, asked)
    x, y = (np.asarray(study.world.rows[part]) for part in "xy")
    return study, x, y, batches(study.world, LOCAL, asked), last


@pytest.mark.parametrize("name", CASES)
def test_a_method_is_its_papers_loop(name):
    ours, loop = CASES[name]
    with jax.enable_x64(True):
        study, x, y, rounds, last = run(ours())
        got = learned(study, last.server)
    begun = flat(study.weights)
    assert furthest(got, begun) > 0.05  # it did learn
    assert furthest(got, loop(begun, x, y, rounds)) < 1e-12


def test_scaffold_is_its_papers_loop_with_the_controls_of_all_sites():
    with jax.enable_x64(True):
        study, x, y, rounds, last = run(federate(algorithms.scaffold(LOSS, local_lr=LR, server_lr=0.8)))
        got = learned(study, last.server)
    wanted, kept = loops.scaffold(flat(study.weights), x, y, rounds, LR, enrolled=len(study.world.names), server_lr=0.8)
    assert furthest(got, wanted) < 1e-12
    assert furthest(flat(last.server.learned.control), kept["c"]) < 1e-12
    assert len(kept["sites"]) == 6  # the seventh has no row to train on
    for place in range(len(study.world.names)):
        mine = flat(jax.tree.map(lambda leaf, s=place: leaf[s], last.states.own))
        assert furthest(mine, kept["sites"].get(place, loops.zeros(mine))) < 1e-12
