"""The coordinate-wise median over the sites that report.

Reference: Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018,
Algorithm 1, option I. Weights only say who takes part: a site counts once where its weight is above 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from learner_jax import trees
from learner_jax.aggregators.mean import Weighted
from learner_jax.types import Aggregator


def median() -> Aggregator:
    """Takes each coordinate's median; with an even number of sites the mean of the middle two."""

    def one(values, weights, share):
        there = weights.reshape(weights.shape[:1] + (1,) * (values.ndim - weights.ndim) + weights.shape[1:])
        here = (there > 0) & (share > 0).reshape((-1,) + (1,) * (values.ndim - 1))
        count = jnp.sum(jnp.broadcast_to(here, values.shape), axis=0, dtype=jnp.int32)
        ordered = jnp.sort(jnp.where(here, values, jnp.inf), axis=0)
        low = jnp.take_along_axis(ordered, (jnp.maximum(count - 1, 0) // 2)[None], 0)[0]
        high = jnp.take_along_axis(ordered, (count // 2)[None], 0)[0]
        return jnp.where(count > 0, (low + high) / 2, 0)

    def reduce(terms: Weighted, share, state):
        weights = jax.tree.map(
            lambda w, part: jax.tree.map(lambda leaf: w.astype(leaf.dtype), part), terms.weight, terms.sum
        )
        middle = jax.tree.map(lambda values, w: one(values, w, share), terms.sum, weights)
        total = jax.tree.map(lambda w: jnp.tensordot(share.astype(w.dtype), w, 1), terms.weight)
        return Weighted(middle, total)

    def decode(term: Weighted, state, session):
        present = trees.spread(term.weight, term.sum)
        return jax.tree.map(lambda m, w: jnp.where(w > 0, m, 0), term.sum, present), term.weight, state

    return Aggregator(
        start=lambda zero: ((), ()),
        encode=lambda update, weight, memory, session: (Weighted(update, weight), memory),
        lift=lambda wire, zero: wire,
        reduce=reduce,
        decode=decode,
        additive=False,
    )
