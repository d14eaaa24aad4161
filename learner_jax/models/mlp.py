"""Multilayer perceptrons for tables."""

from __future__ import annotations

import itertools

import jax
from flax import nnx

from learner_jax.models.flax_model import from_flax, inputs
from learner_jax.types import Model


class MLP(nnx.Module):
    """Dense layers with ReLU between them; one output is a logit float[B], more are float[B, outputs]."""

    def __init__(self, widths: tuple[int, ...], dropout: float, rngs: nnx.Rngs):
        self.dense = nnx.List([nnx.Linear(i, o, rngs=rngs) for i, o in itertools.pairwise(widths)])
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        for layer in self.dense[:-1]:
            x = self.dropout(nnx.relu(layer(x)), rngs=rngs)
        x = self.dense[-1](x)
        return x[..., 0] if x.shape[-1] == 1 else x


def mlp(*, hidden: tuple[int, ...] = (64, 32), outputs: int = 1, dropout: float = 0.0) -> Model:
    """A multilayer perceptron; its input width is that of the data.

    Args:
      hidden: widths of the hidden layers.
      outputs: 1 for a single logit.
      dropout: share of hidden units dropped while training, in [0, 1).
    """
    return from_flax(lambda rngs, rows: MLP((inputs(rows).shape[-1], *hidden, outputs), dropout, rngs))


def logistic(*, outputs: int = 1) -> Model:
    """Logistic regression: one dense layer."""
    return mlp(hidden=(), outputs=outputs)
