"""The form carries top-k with error feedback: what a site did not send, it remembers.

Reference: Stich et al., "Sparsified SGD with Memory", NeurIPS 2018, Algorithm 1.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from learner_jax import aggregators, algorithms, trees
from learner_jax.aggregators.mean import Weighted
from learner_jax.federate import federate
from tests.algorithms.studies import LOCAL, LOSS, batches, cohorts, flat, furthest, learned, rounds_of, start
from tests.oracles.methods import combine, sgd, zeros

K, LR = 5, 0.15


def top_k(k):
    def encode(update, weight, memory, session):
        vector, rebuild = ravel_pytree(trees.add(update, memory))
        index = jax.lax.top_k(jnp.abs(vector), k)[1].astype(jnp.int32)
        sent = rebuild(jnp.zeros_like(vector).at[index].set(vector[index]))
        left = trees.subtract(trees.add(update, memory), sent)
        return (weight * vector[index], index, weight), trees.where(weight > 0, left, memory)

    def lift(wire, zero):
        vector, rebuild = ravel_pytree(zero)
        return Weighted(rebuild(vector.at[wire[1]].set(wire[0])), wire[2])

    return aggregators.mean()._replace(start=lambda zero: (zero, ()), encode=encode, lift=lift)


def test_top_k_with_error_feedback():
    with jax.enable_x64(True):
        study = start(federate(algorithms.fedavg(LOSS, local_lr=LR), top_k(K)))
        asked = cohorts(study.world, 15)
        *_, last = rounds_of(study, asked)
        got = learned(study, last.server)
    x, y = (np.asarray(study.world.rows[part]) for part in "xy")
    weights, memory = flat(study.weights), {}
    for plans in batches(study.world, LOCAL, asked):
        total, over = zeros(weights), 0
        for place, plan in plans.items():
            w, _, rows = sgd(weights, x, y, plan, LR)
            if not rows:
                continue
            whole = combine(combine(w, weights, -1), memory.get(place, zeros(weights)))
            smallest = np.sort(np.concatenate([np.abs(leaf).ravel() for leaf in whole.values()]))[-K]
            sent = {name: np.where(np.abs(leaf) >= smallest, leaf, 0.0) for name, leaf in whole.items()}
            memory[place] = combine(whole, sent, -1)
            total, over = combine(total, sent, rows), over + rows
        weights = combine(weights, total, 1 / over) if over else weights
    assert furthest(got, weights) < 1e-12
    for place, left in memory.items():
        assert furthest(flat(jax.tree.map(lambda leaf, s=place: leaf[s], last.states.memory)), left) < 1e-12
