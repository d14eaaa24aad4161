"""FedAvg with a proximal term that ties each site to where the round began.

Reference: Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, Algorithm 2, equation 2.

    site k:  minimises  loss(w) + mu/2 ||w - w_t||^2,  so its gradient is  grad loss(w) + mu (w - w_t)
"""

from __future__ import annotations

import jax

from learner_jax.algorithms.averaged import averaged
from learner_jax.algorithms.fedavg import fedavg
from learner_jax.algorithms.local import Loss, descend, optimizer
from learner_jax.specs import Optimizer
from learner_jax.types import Algorithm


def fedprox(
    loss: Loss,
    *,
    mu: float = 0.01,
    local_lr: float = 0.1,
    local: Optimizer = "sgd",
    server_lr: float = 1.0,
    server: Optimizer = "sgd",
    average: float = 0.0,
) -> Algorithm:
    """FedProx.

    Args:
      loss: (weights, batch) -> (mean loss, kept).
      mu: weight of the proximal term; 0 is FedAvg.
      local_lr, local, server_lr, server, average: as in `fedavg`.
    """
    client_opt = optimizer(local, local_lr)

    def step(broadcast, site, carry, batch):
        def pull(grads, weights):
            return jax.tree.map(lambda g, w, w_t: g + mu * (w - w_t), grads, weights, broadcast)

        return descend(loss, client_opt, carry, batch, pull)

    base = fedavg(loss, local_lr=local_lr, local=local, server_lr=server_lr, server=server)
    return averaged(base._replace(passes=(base.passes[0]._replace(step=step),)), average)
