"""Averaging by column in float64 against a NumPy loop: differing panels, and what stays at home."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from learner_jax import algorithms, models, trees
from learner_jax.algorithms.columnwise import joined, parted, width
from learner_jax.data.sites import SiteData
from learner_jax.engines.parts import objective
from learner_jax.errors import StudyError
from learner_jax.federate import federate
from learner_jax.tasks.proteins import _loss
from tests.algorithms.studies import LOCAL, SIZES, batches, cohorts, furthest, rounds_of, start
from tests.oracles import proteins as loops

ROUNDS, LR, PINBALL = 20, 0.1, 0.5
PANELS = ("1110", "0110", "1000", "1010", "1110", "0000", "1110")  # nobody measures the last
COLUMNS, INPUTS = 4, 5
PLAIN = models.protein_net(hidden=(6,), dropout=0.0)
SHIFTED = models.protein_net(hidden=(6,), dropout=0.0, site=True)


def sites(panels=PANELS):
    """Seven sites that differ from one another; a cell may lack a protein that its site measures."""
    draw, found = np.random.default_rng(0), {}
    truth = draw.normal(size=(INPUTS, COLUMNS))
    for k, (rows, panel) in enumerate(zip(SIZES, panels, strict=True)):
        n = rows + 2
        x = draw.normal(loc=0.3 * k, size=(n, INPUTS))
        seen = (np.array([c == "1" for c in panel]) & (draw.random((n, COLUMNS)) < 0.9)).astype(np.float64)
        y = np.where(seen > 0, x @ truth + draw.normal(size=(n, COLUMNS)), 99.0)
        split = np.r_[np.zeros(rows), np.ones(2)].astype(np.int8)[draw.permutation(n)]
        found[f"site-{k}"] = SiteData({"x": x, "y": {"value": y, "seen": seen}}, split, np.arange(n), {})
    return found


def named(weights):
    return {name.removeprefix("params/"): np.asarray(leaf) for name, leaf in trees.named_leaves(weights).items()}


def run(model, panels=PANELS, **fields):
    """(weights at the start, ours, the study, its last outcome, what the loop is given)."""
    loss = objective(model, _loss(PINBALL))
    study = start(federate(algorithms.columnwise(loss, local_lr=LR, **fields)), sites=sites(panels), model=model)
    asked = cohorts(study.world, ROUNDS)
    *_, last = rounds_of(study, asked)
    sent = study.federated.send(last.server)
    ours = study.federated.model(sent, study.federated.enrol(study.weights))
    rows = study.world.rows
    given = (np.asarray(rows["x"]), np.asarray(rows["y"]["value"]), np.asarray(rows["y"]["seen"]))
    return named(study.weights), named(ours), study, last, (*given, batches(study.world, LOCAL, asked))


def test_the_loops_gradient_is_the_slope():
    draw = np.random.default_rng(1)
    shapes = {
        "dense/0/kernel": (3, 5), "dense/0/bias": (5,), "shift/own": (5,), "head/kernel": (5, 4, 2),
        "head/bias": (4, 2), "skip/kernel": (3, 4, 2), "skip/bias": (4, 2),
    }  # fmt: skip
    weights = {name: draw.normal(size=shape) for name, shape in shapes.items()}
    x, y, seen = draw.normal(size=(6, 3)), draw.normal(size=(6, 2)), (draw.random((6, 2)) < 0.7).astype(float)
    _, grads = loops.gradient(weights, x, y, seen, 0.5)
    for name, leaf in weights.items():
        for place in np.ndindex(*leaf.shape):
            up, down = ({**weights, name: leaf.copy()} for _ in range(2))
            up[name][place] += 1e-6
            down[name][place] -= 1e-6
            slope = (loops.gradient(up, x, y, seen, 0.5)[0] - loops.gradient(down, x, y, seen, 0.5)[0]) / 2e-6
            assert abs(slope - grads[name][place]) < 1e-8


@pytest.mark.parametrize(("share", "mu"), [(0.0, 0.0), (0.8, 0.0), (0.0, 0.7)])
def test_it_is_the_loop_with_a_weight_for_each_column(share, mu):
    with jax.enable_x64(True):
        begun, ours, _, _, given = run(PLAIN, average=share, mu=mu)
    wanted, _ = loops.columnwise(begun, *given, lr=LR, weight=PINBALL, share=share, mu=mu)
    assert furthest(ours, begun) > 0.05  # it did learn
    assert furthest(ours, wanted) < 1e-12
    for name in ("head/kernel", "head/bias", "skip/kernel"):
        assert (ours[name][..., 3] == begun[name][..., 3]).all()  # nobody measures it: it stays
        assert np.abs(ours[name][..., 0] - begun[name][..., 0]).max() > 0.01


def test_what_stays_at_home_is_each_sites_own_and_never_sent():
    with jax.enable_x64(True):
        begun, ours, study, last, given = run(SHIFTED, home="shift", mu=0.7)
        sent = trees.names(study.federated.send(last.server))
    wanted, own = loops.columnwise(begun, *given, lr=LR, weight=PINBALL, home=True, mu=0.7)
    assert furthest(ours, wanted) < 1e-12
    assert not [name for name in sent if "shift" in name] and any("head" in name for name in sent)
    assert (ours["shift/own"] == 0).all()  # a laboratory that took no part: the average site
    kept = {name: np.asarray(leaf) for name, leaf in trees.named_leaves(last.states.own).items()}
    (shifts,) = [leaf for name, leaf in kept.items() if name.endswith("shift/own")]
    for place in range(len(PANELS)):
        np.testing.assert_allclose(shifts[place], own.get(place, np.zeros(6)), rtol=0, atol=1e-12)
    assert len({shift.tobytes() for shift in shifts}) >= 6


def test_where_all_sites_measure_all_columns_it_is_fedavg():
    with jax.enable_x64(True):
        data = sites(["1111"] * len(PANELS))
        for site in data.values():
            site.rows["y"]["seen"][:] = 1
        loss = objective(PLAIN, _loss(PINBALL))
        ends = []
        for method in (algorithms.columnwise(loss, local_lr=LR), algorithms.fedavg(loss, local_lr=LR)):
            study = start(federate(method), sites=data, model=PLAIN)
            *_, last = rounds_of(study, cohorts(study.world, 5))
            ends.append(
                named(study.federated.model(study.federated.send(last.server), study.federated.enrol(study.weights)))
            )
    assert furthest(*ends) < 1e-14


def test_parts_are_put_together_again():
    tree = {"a": {"shift": {"own": 1}, "b": 2}, "c": [3, 4], "shift": 5}
    shared, kept = parted(tree, "shift")
    assert shared == {"a": {"b": 2}, "c": [3, 4]} and kept == {"a": {"shift": {"own": 1}}, "shift": 5}
    assert joined(shared, kept) == tree


def test_what_cannot_be_is_said():
    weights = {"params": {"dense": [{"kernel": np.zeros((2, 3))}], "head": {"kernel": np.zeros((3, 4, 5))}}}
    assert width(weights, ("head", "skip")) == 5
    with pytest.raises(StudyError, match=r"expected leaves of one last axis under tail, got axes \[\]"):
        width(weights, ("tail",))
    with pytest.raises(StudyError, match=r"got axes \[3, 5\]"):
        width(weights, ("dense", "head"))
    with pytest.raises(StudyError, match=r"algorithm.home: expected a part .* got 'shift'"):
        parted(weights, "shift")
    with pytest.raises(StudyError, match=r"algorithm.average: expected 0 beside home"):
        algorithms.columnwise(objective(PLAIN, _loss(PINBALL)), home="shift", average=0.9)
