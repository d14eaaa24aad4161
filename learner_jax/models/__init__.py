"""Networks: Flax modules at the edge, `Model(init, apply)` inside."""

from __future__ import annotations

from learner_jax.models.flax_model import from_flax
from learner_jax.models.mlp import logistic, mlp

__all__ = ["from_flax", "logistic", "mlp"]
