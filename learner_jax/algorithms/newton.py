"""Exact federated regression: Newton steps from summed gradients and Hessians.

For a model of few weights with a convex loss (logistic regression) it finds what all rows in one place would: sites
send the sums that one Newton step needs, and the step is the same. So it is the reference against which methods that
send weights are held, and for a hospital's own logistic model it needs five rounds in place of fifty.

Reference: Wu et al., "Grid Binary LOgistic REgression (GLORE)", J Am Med Inform Assoc 19:758 (2012), equations 4 to 6.

    site k:  g_k = grad loss_k(w_t), H_k = hessian loss_k(w_t), means over all its training rows; n_k rows
    server:  w_{t+1} = w_t - (sum n_k H_k / n + p D)^-1 (sum n_k g_k / n + p D w_t)

D has ones for the weights of matrices and zeros for intercepts. Where the loss came out larger than before the step,
the next round tries half of it (Nocedal and Wright, "Numerical Optimization", 2006, section 3.1), so that a start from
which the plain steps would fly off converges too. A Hessian of d weights has d^2 numbers and says more about few rows
than a gradient does: see that no site is small.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from learner_jax import trees
from learner_jax.algorithms.local import Loss
from learner_jax.errors import StudyError
from learner_jax.types import Algorithm, Pass, PyTree, Report

TOLERANCE, HALVINGS = 1e-6, 8
"""How much more, as a share, is no step back; after so many halvings the weights are taken as they are: other sites
were asked than before."""
MOST = 2048
"""Weights that a model may have: their Hessian is of 32 MiB in float64."""


class Curvature(NamedTuple):
    """A loss around some weights, [d] of them.

    Attributes:
      loss: the mean over rows.
      gradient: [d], in the order of `ravel_pytree`.
      hessian: [d, d].
    """

    loss: Any
    gradient: Any
    hessian: Any


class Summed(NamedTuple):
    """The carry: sums over rows, and how many rows they are of."""

    curvature: Curvature
    rows: Any


class NewtonServer(NamedTuple):
    """Where the search is.

    Attributes:
      weights: those that are tried.
      base: [d], the last ones that were no step back.
      move: [d], from there to those that are tried.
      loss: at the base, with its penalty; inf before the first.
      halved: int32, how often this move was halved.
    """

    weights: PyTree
    base: Any
    move: Any
    loss: Any
    halved: Any


def newton(loss: Loss, *, penalty: float = 1e-4) -> Algorithm:
    """Newton's method on the mean loss over all sites' rows; each round is a step, and five to ten are enough.

    Args:
      loss: (weights, batch) -> (mean loss, kept), convex in the weights; it draws nothing at random.
      penalty: p, times half the squared weights of matrices (not of intercepts), is added to the mean loss: C of
        scikit-learn is 1 / (p n) with n training rows. Above 0 where inputs can be constant or tell each other.

    Raises:
      StudyError: a model of more than 2,048 weights.
    """

    def flat_loss(flat, back, batch):
        return loss(back(flat), batch)[0]

    def zero(weights: PyTree) -> Curvature:
        size = sum(leaf.size for leaf in jax.tree.leaves(weights))
        if size > MOST:
            raise StudyError(f"newton: expected a model of at most {MOST} weights, got {size:,}: take logistic")
        kind = jnp.result_type(*(leaf.dtype for leaf in jax.tree.leaves(weights)))
        return Curvature(jnp.zeros((), kind), jnp.zeros(size, kind), jnp.zeros((size, size), kind))

    def init(weights: PyTree, key: Any) -> NewtonServer:
        flat, _ = ravel_pytree(weights)
        return NewtonServer(weights, flat, jnp.zeros_like(flat), jnp.full((), jnp.inf, flat.dtype), jnp.int32(0))

    def step(broadcast, site, carry: Summed, batch):
        flat, back = ravel_pytree(broadcast)
        value, gradient = jax.value_and_grad(flat_loss)(flat, back, batch)
        curvature = Curvature(value.astype(flat.dtype), gradient, jax.hessian(flat_loss)(flat, back, batch))
        rows = jnp.sum(batch.mask, dtype=jnp.int32)
        return Summed(trees.add(carry.curvature, trees.scale(rows, curvature)), carry.rows + rows)

    def finish(broadcast, site, carry: Summed):
        rows = carry.rows.astype(carry.curvature.loss.dtype)
        update = trees.scale(1 / jnp.maximum(rows, 1), carry.curvature)
        return Report(update, rows, {"train/loss": carry.curvature.loss, "train/rows": rows}), site

    def apply(server: NewtonServer, update: Curvature, total: Any, round: Any):
        flat, back = ravel_pytree(server.weights)
        slopes = jax.tree.map(lambda leaf: jnp.full(leaf.shape, leaf.ndim > 1, leaf.dtype), server.weights)
        shrunk = penalty * ravel_pytree(slopes)[0]
        loss = update.loss + jnp.sum(shrunk * flat**2) / 2
        fine = (loss <= server.loss + TOLERANCE * jnp.abs(server.loss)) | (server.halved >= HALVINGS)
        slope = update.gradient + shrunk * flat
        move = -jnp.linalg.solve(update.hessian + jnp.diag(shrunk), slope)
        move = jnp.where(jnp.all(jnp.isfinite(move)), move, -slope)
        forward = NewtonServer(back(flat + move), flat, move, loss, jnp.zeros_like(server.halved))
        half = server.move / 2
        halfway = server._replace(weights=back(server.base + half), move=half, halved=server.halved + 1)
        return trees.where(total > 0, trees.where(fine, forward, halfway), server)

    return Algorithm(
        init=init,
        enrol=lambda weights: (),
        zero=zero,
        send=lambda server: server.weights,
        passes=(Pass(lambda broadcast, site, found: Summed(zero(broadcast), jnp.int32(0)), step, "look"),),
        finish=finish,
        apply=apply,
        model=lambda broadcast, site: broadcast,
    )
