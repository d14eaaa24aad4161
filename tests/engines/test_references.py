"""References stop by the study's own rule: each when it was no better for `patience` rounds, and keeps its best."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

import learner_jax as lr
from learner_jax.build import build
from learner_jax.engines import judge
from learner_jax.engines.simulator import simulate
from learner_jax.engines.world import build_world
from learner_jax.specs import Engine, Spec, Study
from tests.algorithms.studies import make_sites

ROUNDS, PATIENCE = 12, 2
TASK = lr.Task(lr.logistic(), optax.sigmoid_binary_cross_entropy, (lr.brier,))


def parts(patience):
    """Steps so large that sites are soon no better."""
    study = Study(
        name="s", task=Spec("tasks", "given"), target="valid/brier", patience=patience, rounds=ROUNDS, batch_size=8,
        algorithm=lr.fedavg(local_lr=3.0), engine=Engine(plan="sequential"),
    )  # fmt: skip
    return build(study, TASK)


def alone(patience, sites, monkeypatch):
    """(weights of each site, rounds, losses [rounds, N], states of each round)."""
    told, losses, states, keep = [], [], [], judge._keep_lower

    def spy(best, lowest, since, new, each, patience):
        with np.errstate(invalid="ignore"):
            losses.append(np.asarray(each["valid/loss"]) / np.asarray(each["valid/rows"]))
        states.append(jax.device_get(new))
        return keep(best, lowest, since, new, each, patience)

    built = parts(patience)
    with monkeypatch.context() as patched:
        patched.setattr(judge, "_keep_lower", spy)
        weights = judge.train_alone(built, build_world(sites, built.dtype), told.append)
    assert [event.round for event in told] == list(range(1, len(told) + 1))
    return weights, len(told), np.array(losses), states


def by_hand(losses):
    """(best round, last round), from 0, of one site's losses by the rule of patience."""
    best = 0
    for number, loss in enumerate(losses):
        best = number if loss < losses[best] else best
        if number - best >= PATIENCE:
            return best, number
    return best, len(losses) - 1


def test_each_site_alone_ends_by_its_own_validation_rows(monkeypatch):
    sites = make_sites((20, 17, 40, 30, 25), 10)
    _, rounds, losses, states = alone(None, sites, monkeypatch)
    assert rounds == ROUNDS
    weights, rounds, _, _ = alone(PATIENCE, sites, monkeypatch)
    found = [by_hand(column) for column in losses.T]
    assert rounds == 1 + max(last for _, last in found) < ROUNDS
    assert len({last for _, last in found}) > 1  # some ended while others went on
    assert any(np.argmin(column) > last for column, (_, last) in zip(losses.T, found, strict=True))  # and missed a best
    for place, (best, _) in enumerate(found):
        own = states[best].own[0]
        jax.tree.map(lambda x, y, s=place: np.testing.assert_array_equal(x, y[s]), weights[place], own)


def test_a_site_without_validation_rows_has_every_round(monkeypatch):
    weights, rounds, losses, states = alone(PATIENCE, make_sites((20, 17, 40), (10, 0, 10)), monkeypatch)
    assert rounds == ROUNDS
    (place,) = np.flatnonzero(np.isnan(losses[0]))
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y[place]), weights[place], states[-1].own[0])


@pytest.mark.parametrize("patience", [None, PATIENCE])
def test_pooled_ends_by_the_target(patience, monkeypatch):
    told, targets, values = [], [], judge.values
    monkeypatch.setattr(judge, "values", lambda *given: targets.append(values(*given)) or targets[-1])
    judge.train_pooled(parts(patience), make_sites((20, 17, 40), 10), told.append)
    looked = [figures["valid/brier"] for figures in targets[1:-1]]  # not the common start, nor the look after the end
    if patience is None:
        assert len(told) == ROUNDS
    else:
        best, last = by_hand(looked)
        assert last == len(looked) - 1 and last - best == PATIENCE
        assert len(told) == len(looked) + 1 < ROUNDS  # the last model is looked at when no round follows


def newton_study(**fields) -> Study:
    return Study(
        name="s", task=Spec("tasks", "given"), target="valid/brier", rounds=6, batch_size=8,
        algorithm=lr.newton(penalty=1e-2), engine=Engine(plan="sequential"), **fields,
    )  # fmt: skip


def close(found, wanted):
    """To what a weight times and over itself leaves."""
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.soak
def test_references_of_newton_are_newton():
    """A site alone is the study of that site alone, and one place the study of one site: trained as hard."""
    sites, study = make_sites((20, 17, 40), 0), newton_study()
    found = judge.train_references(build(study, TASK), sites, build_world(sites), lambda event: None)
    for place, name in enumerate(build_world(sites).names):
        trained, _ = simulate(build(study, TASK), {name: sites[name]})
        jax.tree.map(close, found["local_only"][place], trained.best.learned.weights)
    trained, _ = simulate(build(study, TASK), {"pooled": judge.merge(list(sites.values()))})
    jax.tree.map(close, found["pooled"][0], trained.best.learned.weights)


@pytest.mark.soak
def test_all_but_me_is_the_study_of_the_others():
    sites, study = make_sites((20, 17, 40), 10), newton_study(references=("all_but_me",))
    told = []
    found = judge.train_references(build(study, TASK), sites, build_world(sites), told.append)
    assert [event.round for event in told] == list(range(1, 19)) and told[0].data["name"] == "all_but_me"
    for place, name in enumerate(build_world(sites).names):
        others = {other: site for other, site in sites.items() if other != name}
        trained, _ = simulate(build(study, TASK), others)
        jax.tree.map(np.testing.assert_array_equal, found["all_but_me"][place], trained.best.learned.weights)


def test_all_but_me_of_a_single_site_is_the_start():
    sites, study = make_sites((20,), 10), newton_study(references=("all_but_me",))
    parts_ = build(study, TASK)
    world = build_world(sites)
    (found,) = judge.train_references(parts_, sites, world, lambda event: None)["all_but_me"]
    jax.tree.map(np.testing.assert_array_equal, found, parts_.init_weights({"x": world.rows["x"][:2]}))
