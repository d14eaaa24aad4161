"""The form carries DiLoCo: AdamW inside, whose state each worker keeps, and Nesterov momentum outside.

Reference: Douillard et al., "DiLoCo: Distributed Low-Communication Training of Language Models", 2023, Algorithm 1.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learner_jax import algorithms, trees
from learner_jax.algorithms.local import begin, descend
from learner_jax.engines.world import Local
from learner_jax.federate import federate
from learner_jax.specs import Spec
from learner_jax.types import Pass, Report
from tests.algorithms.studies import LOSS, batches, cohorts, flat, furthest, learned, rounds_of, start
from tests.oracles.methods import combine, nesterov, weighted_mean, zeros
from tests.oracles.networks import gradient

H = Local(batch_size=8, epochs=1, steps=4, seed=2)
INNER, DECAY = 0.02, 0.1
OUTER = Spec("optimizers", "sgd", {"learning_rate": 0.7, "momentum": 0.9, "nesterov": True})


def diloco(loss):
    inner = optax.adamw(INNER, weight_decay=DECAY)

    def finish(broadcast, state, carry):
        moved = trees.subtract(carry.weights, broadcast)
        return Report(moved, jnp.where(carry.steps > 0, 1.0, 0.0), carry.metrics()), carry.optimizer

    return algorithms.fedavg(loss, server=OUTER)._replace(
        enrol=inner.init,
        passes=(Pass(lambda broadcast, state, found: begin(inner, broadcast)._replace(optimizer=state),
                     lambda broadcast, state, carry, batch: descend(loss, inner, carry, batch)),),
        finish=finish,
    )  # fmt: skip


def test_diloco():
    with jax.enable_x64(True):
        study = start(federate(diloco(LOSS)), local=H)
        asked = cohorts(study.world, 15)
        *_, last = rounds_of(study, asked)
        got = learned(study, last.server)
    x, y = (np.asarray(study.world.rows[part]) for part in "xy")
    weights, outer, kept = flat(study.weights), nesterov(0.7, 0.9), {}
    for plans in batches(study.world, H, asked):
        moves = []
        for place, plan in plans.items():
            m, v, t = kept.get(place, (zeros(weights), zeros(weights), 0))
            w = weights
            for batch in plan:
                g, t = gradient(w, x[batch[batch >= 0]], y[batch[batch >= 0]])[1], t + 1
                m, v = ({n: b * a[n] + (1 - b) * g[n] ** p for n in g} for a, b, p in ((m, 0.9, 1), (v, 0.999, 2)))
                step = {n: m[n] / (1 - 0.9**t) / (np.sqrt(v[n] / (1 - 0.999**t)) + 1e-8) + DECAY * w[n] for n in g}
                w = combine(w, step, -INNER)
            kept[place] = m, v, t
            moves += [combine(w, weights, -1)] if len(plan) else []
        weights = outer(weights, weighted_mean(moves, [1] * len(moves))) if moves else weights
    assert furthest(got, weights) < 1e-12
