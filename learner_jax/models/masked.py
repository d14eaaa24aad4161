"""A multilayer perceptron that is told which of its inputs are known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from learner_jax.errors import ConfigError
from learner_jax.models.flax_model import from_flax, inputs
from learner_jax.models.mlp import MLP
from learner_jax.types import Model


class MaskedMLP(nnx.Module):
    """An MLP over the known values and over which are known; x float[B, inputs], nan where a value is not known.

    What stands in for an unknown value is learned with the rest: the weight of "known" takes it up. While it trains, a
    share of the known values is hidden, whole rows alike, so that it can do without what another hospital never
    measures.
    """

    def __init__(self, widths: tuple[int, ...], dropout: float, hide: float, rngs: nnx.Rngs):
        self.mlp = MLP((2 * widths[0], *widths[1:]), dropout, rngs)
        self.hide = hide

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        known = ~jnp.isnan(x)
        if rngs is not None and self.hide > 0:
            known &= jax.random.bernoulli(rngs.dropout(), 1.0 - self.hide, x.shape)
        return self.mlp(jnp.concatenate([jnp.where(known, x, 0), known.astype(x.dtype)], axis=-1), rngs=rngs)


def masked_mlp(
    *, hidden: tuple[int, ...] = (64, 32), outputs: int = 1, dropout: float = 0.0, hide: float = 0.1
) -> Model:
    """A multilayer perceptron for tables with gaps: of columns declared with missing="masked".

    Args:
      hidden: widths of the hidden layers.
      outputs: 1 for a single logit.
      dropout: share of hidden units dropped while training, in [0, 1).
      hide: share of the known values hidden while training, in [0, 1).

    Raises:
      ConfigError: a share out of range.
    """
    for name, value in (("dropout", dropout), ("hide", hide)):
        if not 0 <= value < 1:
            raise ConfigError(f"model.{name}: expected a share from 0 to under 1, got {value:g}")
    return from_flax(lambda rngs, rows: MaskedMLP((inputs(rows).shape[-1], *hidden, outputs), dropout, hide, rngs))
