"""The form carries centred clipping: a rule that is no sum, and that remembers its last centre.

Reference: Karimireddy et al., "Learning from History for Byzantine Robust Optimization", ICML 2021, Algorithm 2.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learner_jax import aggregators, algorithms, trees
from learner_jax.aggregators.mean import Weighted
from learner_jax.federate import federate
from tests.algorithms.studies import LOCAL, LOSS, batches, cohorts, flat, furthest, learned, rounds_of, start
from tests.oracles.methods import combine, sgd, zeros

TAU, LOOPS, LR = 0.05, 3, 0.15


def centred_clipping(tau, loops):
    def reduce(terms, share, centre):
        there = ((terms.weight > 0) & (share > 0)).astype(terms.weight.dtype)
        count = jnp.sum(there)

        def pull(update, here, centre):
            away = trees.subtract(update, centre)
            return trees.scale(here * jnp.minimum(1, tau / (optax.tree.norm(away) + 1e-30)), away)

        for _ in range(loops):
            pulls = jax.vmap(pull, (0, 0, None))(terms.sum, there, centre)
            mean = jax.tree.map(lambda rows: jnp.sum(rows, 0) / jnp.maximum(count, 1), pulls)
            centre = trees.add(centre, mean)
        return Weighted(centre, count)

    def decode(term, centre, session):
        moved = trees.where(term.weight > 0, term.sum, trees.zeros_like(centre))
        return moved, term.weight, trees.where(term.weight > 0, term.sum, centre)

    return aggregators.median()._replace(start=lambda zero: ((), zero), reduce=reduce, decode=decode)


def test_centred_clipping():
    with jax.enable_x64(True):
        study = start(federate(algorithms.fedavg(LOSS, local_lr=LR), centred_clipping(TAU, LOOPS)))
        asked = cohorts(study.world, 15)
        *_, last = rounds_of(study, asked)
        got = learned(study, last.server)
    x, y = (np.asarray(study.world.rows[part]) for part in "xy")
    weights, centre = flat(study.weights), zeros(flat(study.weights))
    for plans in batches(study.world, LOCAL, asked):
        updates = [combine(sgd(weights, x, y, plan, LR)[0], weights, -1) for plan in plans.values() if len(plan)]
        for _ in range(LOOPS if updates else 0):
            away = [combine(update, centre, -1) for update in updates]
            norms = [np.sqrt(sum(np.sum(leaf**2) for leaf in one.values())) for one in away]
            for one, norm in zip(away, norms, strict=True):
                centre = combine(centre, one, min(1, TAU / norm) / len(updates))
        weights = combine(weights, centre) if updates else weights
    assert furthest(got, weights) < 1e-12
    assert furthest(flat(last.server.state), centre) < 1e-12
