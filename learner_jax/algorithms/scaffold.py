"""SCAFFOLD: control variates that take the drift of skewed sites out of their steps.

Reference: Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020,
Algorithm 1 with option II.

    site i:  y_i = x, then for each batch b:  y_i = y_i - lr_l (g_i(y_i; b) - c_i + c)
             c_i+ = c_i - c + (x - y_i) / (K lr_l)
             sends dy_i = y_i - x  and  dc_i = c_i+ - c_i, and keeps c_i+
    server:  x = x + lr_g / |S| sum_S dy_i,   c = c + 1 / N sum_S dc_i
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from learner_jax import trees
from learner_jax.algorithms.local import Local, Loss, begin, descend
from learner_jax.types import Algorithm, Pass, PyTree, Report


class Controlled(NamedTuple):
    """Weights with their control variate; as server (x, c), broadcast (x, c) and update (dy, dc)."""

    weights: PyTree
    control: PyTree


def scaffold(loss: Loss, *, local_lr: float = 0.1, server_lr: float = 1.0, by_rows: bool = False) -> Algorithm:
    """SCAFFOLD with option II; the local optimizer is plain SGD, as its control variates ask.

    Args:
      loss: (weights, batch) -> (mean loss, kept).
      local_lr: lr_l.
      server_lr: lr_g.
      by_rows: weigh dy_i by the site's rows, as FedAvg does, in place of the paper's equal weights.
    """
    client_opt = optax.sgd(local_lr)

    def step(broadcast: Controlled, control, carry, batch):
        def correct(grads, weights):
            return jax.tree.map(lambda g, c_i, c: g - c_i + c, grads, control, broadcast.control)

        return descend(loss, client_opt, carry, batch, correct)

    def finish(broadcast: Controlled, control, carry: Local):
        moved = trees.subtract(carry.weights, broadcast.weights)
        per_step = 1 / (local_lr * jnp.maximum(carry.steps, 1))
        drift = trees.subtract(trees.scale(-per_step, moved), broadcast.control)
        trained = carry.steps > 0
        drift = trees.where(trained, drift, trees.zeros_like(drift))
        there = trained.astype(carry.loss.dtype)
        weight = Controlled(carry.rows.astype(carry.loss.dtype) if by_rows else there, there)
        return Report(Controlled(moved, drift), weight, carry.metrics()), trees.add(control, drift)

    def apply(server: Controlled, update: Controlled, total: Controlled, round: Any):
        share = total.control / round.enrolled
        return Controlled(
            trees.add(server.weights, trees.scale(server_lr, update.weights)),
            trees.add(server.control, trees.scale(share, update.control)),
        )

    return Algorithm(
        init=lambda weights, key: Controlled(weights, trees.zeros_like(weights)),
        enrol=trees.zeros_like,
        zero=lambda weights: Controlled(trees.zeros_like(weights), trees.zeros_like(weights)),
        send=lambda server: server,
        passes=(Pass(lambda broadcast, control, found: begin(client_opt, broadcast.weights), step),),
        finish=finish,
        apply=apply,
        model=lambda broadcast, control: broadcast.weights,
    )
