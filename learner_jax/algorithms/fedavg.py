"""Federated averaging, and its generalisation to any server optimizer.

Reference: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
Algorithm 1; Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 1 (FedOpt).

    server:  w_{t+1} = ServerOpt(w_t, -D_t),   D_t = sum_k n_k (w_k - w_t) / sum_k n_k
    site k:  w_k = w_t, then for each batch b of its rows:  w_k = ClientOpt(w_k, grad loss(w_k; b))
"""

from __future__ import annotations

from typing import Any, NamedTuple

from learner_jax import trees
from learner_jax.algorithms.averaged import averaged
from learner_jax.algorithms.local import Local, Loss, begin, descend, optimizer, server_step
from learner_jax.specs import Optimizer
from learner_jax.types import Algorithm, Pass, PyTree, Report


class FedAvgServer(NamedTuple):
    """weights w_t and the server optimizer's state."""

    weights: PyTree
    optimizer: PyTree


def fedavg(
    loss: Loss,
    *,
    local_lr: float = 0.1,
    local: Optimizer = "sgd",
    server_lr: float = 1.0,
    server: Optimizer = "sgd",
    average: float = 0.0,
) -> Algorithm:
    """FedAvg: sites descend from the common weights, the server steps along their average, weighted by rows.

    Args:
      loss: (weights, batch) -> (mean loss, kept).
      local_lr: the sites' learning rate, where `local` does not say its own; a study that says both is refused.
      local: the sites' optimizer; its state starts afresh each round.
      server_lr: the server's learning rate; 1.0 with "sgd" is plain averaging.
      server: the server's optimizer.
      average: share of the average over rounds that is kept each round, and is the model; 0: the model is the last
        round's (`learner_jax.algorithms.averaged`).
    """
    client_opt, server_opt = optimizer(local, local_lr), optimizer(server, server_lr)

    def step(broadcast, site, carry, batch):
        return descend(loss, client_opt, carry, batch)

    def finish(broadcast, site, carry: Local):
        update = trees.subtract(carry.weights, broadcast)
        return Report(update, carry.rows.astype(carry.loss.dtype), carry.metrics()), site

    def apply(server: FedAvgServer, update, total, round: Any):
        return FedAvgServer(*server_step(server_opt, server.weights, server.optimizer, update, total))

    method = Algorithm(
        init=lambda weights, key: FedAvgServer(weights, server_opt.init(weights)),
        enrol=lambda weights: (),
        zero=trees.zeros_like,
        send=lambda server: server.weights,
        passes=(Pass(lambda broadcast, site, found: begin(client_opt, broadcast), step),),
        finish=finish,
        apply=apply,
        model=lambda broadcast, site: broadcast,
    )
    return averaged(method, average)
