"""FedAvg with an adaptive or momentum server optimizer: one line each.

Reference: Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2 (FedAdagrad, FedYogi, FedAdam);
Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification", 2019
(FedAvgM). The server optimizers are optax's: unlike Algorithm 2 of Reddi et al., Adam and Yogi correct the bias of
their averages, which only changes the size of the first steps, Yogi's averages start at 1e-6, and Adagrad has no
momentum (the paper's beta1 = 0) and divides by sqrt(v + tau^2) in place of sqrt(v) + tau. `average` is as in `fedavg`.
"""

from __future__ import annotations

from learner_jax.algorithms.fedavg import fedavg
from learner_jax.algorithms.local import Loss
from learner_jax.specs import Optimizer, Spec
from learner_jax.types import Algorithm


def _server(name: str, learning_rate: float, **fields: float) -> Spec:
    return Spec("optimizers", name, {"learning_rate": learning_rate, **fields})


def fedadam(
    loss: Loss,
    *,
    local_lr: float = 0.1,
    local: Optimizer = "sgd",
    server_lr: float = 0.01,
    b1: float = 0.9,
    b2: float = 0.99,
    tau: float = 1e-3,
    average: float = 0.0,
) -> Algorithm:
    """FedAdam: Adam at the server. tau: the degree of adaptivity, Adam's epsilon."""
    return fedavg(
        loss, local_lr=local_lr, local=local, average=average, server=_server("adam", server_lr, b1=b1, b2=b2, eps=tau)
    )


def fedyogi(
    loss: Loss,
    *,
    local_lr: float = 0.1,
    local: Optimizer = "sgd",
    server_lr: float = 0.01,
    b1: float = 0.9,
    b2: float = 0.99,
    tau: float = 1e-3,
    average: float = 0.0,
) -> Algorithm:
    """FedYogi: Yogi at the server. tau: the degree of adaptivity."""
    return fedavg(
        loss, local_lr=local_lr, local=local, average=average, server=_server("yogi", server_lr, b1=b1, b2=b2, eps=tau)
    )


def fedadagrad(
    loss: Loss,
    *,
    local_lr: float = 0.1,
    local: Optimizer = "sgd",
    server_lr: float = 0.01,
    initial: float = 1e-6,
    tau: float = 1e-3,
    average: float = 0.0,
) -> Algorithm:
    """FedAdagrad: Adagrad at the server. initial: the accumulator's start; tau: the degree of adaptivity."""
    server = _server("adagrad", server_lr, initial_accumulator_value=initial, eps=tau**2)
    return fedavg(loss, local_lr=local_lr, local=local, average=average, server=server)


def fedavgm(
    loss: Loss,
    *,
    local_lr: float = 0.1,
    local: Optimizer = "sgd",
    server_lr: float = 1.0,
    momentum: float = 0.9,
    average: float = 0.0,
) -> Algorithm:
    """FedAvgM: heavy-ball momentum at the server."""
    return fedavg(
        loss, local_lr=local_lr, local=local, average=average, server=_server("sgd", server_lr, momentum=momentum)
    )
