"""The weighted mean: sum of weight x update over sum of weight.

Reference: McMahan et al., AISTATS 2017, Algorithm 1, last line of the server's loop.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from learner_jax import trees
from learner_jax.types import Aggregator, PyTree


class Weighted(NamedTuple):
    """A wire or term.

    Attributes:
      sum: weight x update, like an update.
      weight: a prefix of sum.
    """

    sum: PyTree
    weight: PyTree


def mean() -> Aggregator:
    """Averages updates by weight; where the total weight is 0 the update is 0."""

    def reduce(terms, share, state):
        return jax.tree.map(lambda rows: jnp.tensordot(share.astype(rows.dtype), rows, 1), terms)

    def encode(update, weight, memory, session):
        return Weighted(trees.weigh(weight, update), weight), memory

    def decode(term: Weighted, state, session):
        return trees.divide(term.sum, term.weight), term.weight, state

    return Aggregator(
        start=lambda zero: ((), ()),
        encode=encode,
        lift=lambda wire, zero: wire,
        reduce=reduce,
        decode=decode,
        additive=True,
    )
