"""How updates meet: one rule a file, each a factory of an `Aggregator`."""

from __future__ import annotations

from learner_jax.aggregators.mean import mean
from learner_jax.aggregators.median import median

__all__ = ["mean", "median"]
