"""Federated methods: one published method a file, each a factory that takes the loss and returns an `Algorithm`."""

from __future__ import annotations

from learner_jax.algorithms.columnwise import columnwise
from learner_jax.algorithms.fedavg import fedavg
from learner_jax.algorithms.fedopt import fedadagrad, fedadam, fedavgm, fedyogi
from learner_jax.algorithms.fedprox import fedprox
from learner_jax.algorithms.look import look
from learner_jax.algorithms.newton import newton
from learner_jax.algorithms.references import local_only, pooled
from learner_jax.algorithms.ridge import ridge
from learner_jax.algorithms.scaffold import scaffold

__all__ = [
    "columnwise",
    "fedadagrad",
    "fedadam",
    "fedavg",
    "fedavgm",
    "fedprox",
    "fedyogi",
    "local_only",
    "look",
    "newton",
    "pooled",
    "ridge",
    "scaffold",
]
