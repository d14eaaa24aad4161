"""The form carries FedRep: two passes, and a head that stays at home.

Reference: Collins et al., "Exploiting Shared Representations for Personalized Federated Learning", ICML 2021,
Algorithm 1: an epoch on the head, then one on the body; only the body is averaged.
"""

import jax

from learner_jax import algorithms, trees
from learner_jax.algorithms.local import begin, descend, optimizer
from learner_jax.types import Pass, Report
from tests.algorithms.studies import LOSS, flat, furthest
from tests.engines.form import play
from tests.oracles import methods as oracles

LR = 0.15


def layer(weights, k):
    return {k: weights["params"]["dense"][k]}


def joined(body, head):
    return {"params": {"dense": {**body, **head}}, "stats": {}}


def fedrep(loss, local_lr):
    opt, base = optimizer("sgd", local_lr), algorithms.fedavg(loss)

    def on_head(body, head, carry, batch):
        return descend(lambda w, b: loss(joined(body, w), b), opt, carry, batch)

    def on_body(body, head, carry, batch):
        return descend(lambda w, b: loss(joined(w, carry[1]), b), opt, carry[0], batch), carry[1]

    def finish(body, head, carry):
        local, head = carry
        return Report(trees.subtract(local.weights, body), local.rows.astype(float), local.metrics()), head

    return base._replace(
        init=lambda weights, key: base.init(layer(weights, 0), key),
        enrol=lambda weights: layer(weights, 1),
        zero=lambda weights: trees.zeros_like(layer(weights, 0)),
        passes=(Pass(lambda body, head, found: begin(opt, head), on_head),
                Pass(lambda body, head, found: (begin(opt, body), found.weights), on_body)),
        finish=finish,
        model=joined,
    )  # fmt: skip


def test_fedrep():
    got = play(fedrep(LOSS, LR), rounds=12)
    body, heads = oracles.fedrep(flat(got.study.weights), got.x, got.y, (got.plan(1), got.plan(2)), LR)
    assert heads
    for place, head in heads.items():
        site = jax.tree.map(lambda leaf, s=place: leaf[s], got.states)
        assert furthest(flat(got.study.federated.model(got.server.weights, site)), body | head) < 1e-12
