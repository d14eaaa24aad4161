"""What the methods share at a site: the gradient step, and what it counts.

A loss is `loss(weights, batch) -> (value, kept)`. value: the mean over the batch's unmasked rows. kept: a dict of
top-level entries of weights that the forward pass itself renews (statistics of batch norm); {} where there are none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from learner_jax import specs, trees
from learner_jax.specs import Optimizer
from learner_jax.types import Batch, PyTree

Loss = Callable[[PyTree, Batch], tuple[Any, PyTree]]


class Local(NamedTuple):
    """The carry of local training.

    Attributes:
      weights: where the site stands.
      optimizer: its optax state.
      steps: int32, steps made.
      rows: int32, rows seen.
      loss: sum over rows of the batch-mean loss met on the way.
    """

    weights: PyTree
    optimizer: PyTree
    steps: Any
    rows: Any
    loss: Any

    def metrics(self) -> dict[str, Any]:
        """Sums for a Report: they add over sites."""
        return {"train/loss": self.loss, "train/rows": self.rows.astype(self.loss.dtype)}


def optimizer(
    which: Optimizer | optax.GradientTransformation, learning_rate: float, **fields: Any
) -> optax.GradientTransformation:
    """An optax optimizer from its name and learning rate; one that is made already is returned as it is.

    Args:
      which: "sgd", "adam", ..., a Spec of kind "optimizers", or an optax.GradientTransformation.
      learning_rate: taken unless `which` says its own.
      **fields: further keywords of the optax function.
    """
    if isinstance(which, optax.GradientTransformation):
        return which
    return specs.make(which, learning_rate=learning_rate, **fields)


def begin(local: optax.GradientTransformation, weights: PyTree) -> Local:
    """The carry with which local training starts."""
    return Local(weights, local.init(weights), jnp.int32(0), jnp.int32(0), jnp.zeros((), jnp.result_type(float)))


def descend(
    loss: Loss,
    local: optax.GradientTransformation,
    carry: Local,
    batch: Batch,
    turn: Callable[[PyTree, PyTree], PyTree] = lambda grads, weights: grads,
) -> Local:
    """One step of local training.

    Args:
      loss: the site's loss.
      local: its optimizer.
      carry: where it stands.
      batch: the step's rows.
      turn: (grads, weights) -> grads; FedProx's pull, SCAFFOLD's correction.
    """
    (value, kept), grads = jax.value_and_grad(loss, has_aux=True)(carry.weights, batch)
    moves, state = local.update(turn(grads, carry.weights), carry.optimizer, carry.weights)
    weights: Any = optax.apply_updates(carry.weights, moves)
    weights = {**weights, **kept} if kept else weights
    rows = jnp.sum(batch.mask, dtype=jnp.int32)
    total = carry.loss + value.astype(carry.loss.dtype) * rows.astype(carry.loss.dtype)
    return Local(weights, state, carry.steps + 1, carry.rows + rows, total)


def server_step(
    server_optimizer: optax.GradientTransformation, weights: PyTree, state: PyTree, update: PyTree, total: Any
) -> tuple[PyTree, PyTree]:
    """One step of the server's optimizer along an averaged update.

    The optimizer is handed -update as its gradient (Reddi et al. 2021, Algorithm 1); where no site had weight nothing
    moves, the optimizer's own state included.
    """
    moves, moved = server_optimizer.update(trees.negate(update), state, weights)
    present = total > 0
    return trees.where(present, optax.apply_updates(weights, moves), weights), trees.where(present, moved, state)
