"""The form carries FedRep: two passes, and a head that stays at home.

Reference: Collins et al., "Exploiting Shared Representations for Personalized Federated Learning", ICML 2021,
Algorithm 1: an epoch on the head, then one on the body; only the body is averaged.
"""

import jax
import numpy as np

from learner_jax import algorithms, trees
from learner_jax.algorithms.local import begin, descend, optimizer
from learner_jax.federate import federate
from learner_jax.types import Pass, Report
from tests.algorithms.studies import LOCAL, LOSS, batches, cohorts, flat, furthest, rounds_of, start
from tests.oracles import methods as loops

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
    with jax.enable_x64(True):
        study = start(federate(fedrep(LOSS, LR)))
        asked = cohorts(study.world, 12)
        *_, last = rounds_of(study, asked)
    x, y = (np.asarray(study.world.rows[part]) for part in "xy")
    body, heads = {n: v for n, v in flat(study.weights).items() if n[0] == "0"}, {}
    for plans in zip(*(batches(study.world, LOCAL, asked, number) for number in (1, 2)), strict=True):
        updates, rows = [], []
        for place in plans[0]:
            w, seen = {**flat(study.weights), **heads.get(place, {}), **body}, 0
            for part, plan in zip("10", (plans[0][place], plans[1][place]), strict=True):  # head, then body
                w, _, seen = loops.sgd(w, x, y, plan, LR, lambda g, w, p=part: {n: g[n] * (n[0] == p) for n in g})
            heads[place] = {n: v for n, v in w.items() if n[0] == "1"}
            updates, rows = [*updates, {n: w[n] - body[n] for n in body}], [*rows, seen]
        body = loops.combine(body, loops.weighted_mean(updates, rows)) if sum(rows) else body
    for place, head in heads.items():
        site = jax.tree.map(lambda leaf, s=place: leaf[s], last.states)
        assert furthest(flat(study.federated.model(last.server.learned.weights, site)), body | head) < 1e-12
