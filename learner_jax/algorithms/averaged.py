"""The average of a method's weights over its last rounds as its model, beside those that the rounds go on from.

A round's weights lie around where the method is heading, off by what the last batches were; their average lies closer.

    server:  m_{t+1} = m_t + a_t (w_{t+1} - m_t),   a_t = max(1 - share, 1 / (t + 1))
    sites are sent w_t, to train from, and m_t, to predict with: twice the bytes down

Reference: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 30
(1992); Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from learner_jax import trees
from learner_jax.types import Algorithm, Pass, PyTree


class AveragedServer(NamedTuple):
    """The method's own server, the average of its weights, and how many rounds are in it (int32)."""

    learned: PyTree
    mean: PyTree
    rounds: Any


class Averaged(NamedTuple):
    """What sites are sent: the method's own broadcast, and the average."""

    own: PyTree
    mean: PyTree


def into(mean: PyTree, weights: PyTree, rounds: Any, share: float) -> PyTree:
    """The average with one round more.

    Args:
      mean: of `rounds` rounds before.
      weights: of this round.
      rounds: int32.
      share: in [0, 1): how much of the average is kept; the last 1 / (1 - share) rounds or so are in it.
    """

    def one(m, w):
        part = jnp.maximum(1 - share, 1 / (rounds + 1).astype(m.dtype)).astype(m.dtype)
        return m + part * (w - m)

    return jax.tree.map(one, mean, weights)


def averaged(algorithm: Algorithm, share: float) -> Algorithm:
    """A method whose model is the average over rounds; itself where share is 0.

    Args:
      algorithm: one whose model is the same at each site.
      share: in [0, 1): how much of the average is kept each round.
    """
    if not share:
        return algorithm

    def at_home(p: Pass) -> Pass:
        return p._replace(
            begin=lambda broadcast, site, found: p.begin(broadcast.own, site, found),
            step=lambda broadcast, site, carry, batch: p.step(broadcast.own, site, carry, batch),
        )

    def init(weights, key):
        return AveragedServer(algorithm.init(weights, key), weights, jnp.int32(0))

    def apply(server: AveragedServer, update, total, round):
        learned = algorithm.apply(server.learned, update, total, round)
        weights = algorithm.model(algorithm.send(learned), ())
        fresh = AveragedServer(learned, into(server.mean, weights, server.rounds, share), server.rounds + 1)
        return trees.where(trees.any_present(total), fresh, server)

    return algorithm._replace(
        init=init,
        send=lambda server: Averaged(algorithm.send(server.learned), server.mean),
        passes=tuple(map(at_home, algorithm.passes)),
        finish=lambda broadcast, site, carry: algorithm.finish(broadcast.own, site, carry),
        apply=apply,
        model=lambda broadcast, site: broadcast.mean,
    )
