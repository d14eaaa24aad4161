"""A sum over a site's rows at a fixed point, as a Pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from learner_jax import trees
from learner_jax.types import Batch, Pass, PyTree


def look(zero: Callable[[PyTree], PyTree], f: Callable[[PyTree, PyTree, Batch], PyTree], batches: str = "look") -> Pass:
    """Sums f over batches while nothing changes: IFCA's losses, MIME's gradient, an evaluation.

    Args:
      zero: (broadcast) -> pytree, the start of the sum.
      f: (broadcast, site, batch) -> pytree like zero's; must heed batch.mask.
      batches: "look" is every training row once; "valid" every validation row once.
    """

    def step(broadcast: PyTree, site: PyTree, carry: PyTree, batch: Batch) -> Any:
        return trees.add(carry, f(broadcast, site, batch))

    return Pass(lambda broadcast, site, found: zero(broadcast), step, batches)
