"""The form carries IFCA: k models, and each site trains the one that fits its rows best.

Reference: Ghosh et al., "An Efficient Framework for Clustered Federated Learning", NeurIPS 2020, Algorithm 1.
"""

import jax
import jax.numpy as jnp

from learner_jax import algorithms, trees
from learner_jax.algorithms.local import begin, descend, optimizer
from learner_jax.types import Algorithm, Pass, Report
from tests.algorithms.studies import LOSS, flat, furthest
from tests.engines.form import play
from tests.oracles import methods as oracles

LR = 0.15


def ifca(loss, k, local_lr):
    opt = optimizer("sgd", local_lr)

    def losses(broadcast, site, batch):
        return jnp.stack([loss(weights, batch)[0] for weights in broadcast]) * jnp.sum(batch.mask)

    def model(broadcast, best):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves)[best], *broadcast)

    def choose(broadcast, site, found):
        best = jnp.argmin(found).astype(jnp.int32)
        return best, begin(opt, model(broadcast, best))

    def finish(broadcast, site, carry):
        best, local = carry
        rows = tuple(jnp.where(best == j, local.rows, 0).astype(float) for j in range(k))
        return Report(tuple(trees.subtract(local.weights, w) for w in broadcast), rows, local.metrics()), best

    return Algorithm(
        init=lambda weights, key: tuple(trees.scale(1 - 0.7 * j, weights) for j in range(k)),  # started apart
        enrol=lambda weights: jnp.int32(0),
        zero=lambda weights: (trees.zeros_like(weights),) * k,
        send=lambda server: server,
        passes=(algorithms.look(lambda broadcast: jnp.zeros(k), losses),
                Pass(choose, lambda broadcast, site, carry, batch: (carry[0], descend(loss, opt, carry[1], batch)))),
        finish=finish,
        apply=lambda server, update, total, round: tuple(map(trees.add, server, update)),
        model=model,
    )  # fmt: skip


def test_ifca():
    got = play(ifca(LOSS, 2, LR), rounds=12)
    start = [flat(weights) for weights in got.study.server.learned]
    clusters, chosen = oracles.ifca(start, got.x, got.y, got.plan(2), got.study.world.train, LR)
    assert chosen == {0, 1}
    assert max(furthest(flat(w), c) for w, c in zip(got.server, clusters, strict=True)) < 1e-12
