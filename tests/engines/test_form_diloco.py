"""The form carries DiLoCo: AdamW inside, whose state each worker keeps, and Nesterov momentum outside.

Reference: Douillard et al., "DiLoCo: Distributed Low-Communication Training of Language Models", 2023, Algorithm 1.
"""

import jax.numpy as jnp
import optax

from learner_jax import algorithms, trees
from learner_jax.algorithms.local import begin, descend
from learner_jax.engines.world import Local
from learner_jax.specs import Spec
from learner_jax.types import Pass, Report
from tests.algorithms.studies import LOSS, flat, furthest
from tests.engines.form import play
from tests.oracles import methods as oracles

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
    got = play(diloco(LOSS), rounds=15, local=H)
    start, outer = flat(got.study.weights), oracles.nesterov(0.7, 0.9)
    assert furthest(got.learned, oracles.diloco(start, got.x, got.y, got.plan(1), INNER, DECAY, outer)) < 1e-12
