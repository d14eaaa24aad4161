"""Networks: Flax modules at the edge, `Model(init, apply)` inside."""

from __future__ import annotations

from learner_jax.models.flax_model import from_flax
from learner_jax.models.masked import masked_mlp
from learner_jax.models.mlp import logistic, mlp
from learner_jax.models.protein_net import protein_net
from learner_jax.models.transformer import transformer

__all__ = ["from_flax", "logistic", "masked_mlp", "mlp", "protein_net", "transformer"]
