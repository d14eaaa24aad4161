"""Surface proteins of a cell from its RNA: for each protein a mean and three quantiles, and for each cell its type.

The inputs are a cell's scores on a reduction that all sites share, float[B, k], or its genes as they are counted,
{"gene": int32[B, K], "value": float[B, K]} (value 0 fills up), which are spread out here, in the minibatch.

    h      = layers of width w: dropout(relu(W h + b)); the first also adds the site's own `shift`
    mean   = head h + skip x                                            one number a protein
    mid    = the same of its own;  low = mid - softplus(...),  high = mid + softplus(...)     quantiles never cross
    types  = a second head, where the study has cell types

`shift` is 0 at the start. Where it stays at home (`algorithms.columnwise(home="shift")`) it takes in what is a
laboratory's alone, and a laboratory that took no part predicts with 0: the average site. The last axis of each leaf
under `head` and `skip` is the proteins', so that a site that does not measure one can be left out of its column alone.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from learner_jax.errors import ConfigError
from learner_jax.models.flax_model import from_flax, inputs
from learner_jax.types import Model

QUANTILES = (0.1, 0.5, 0.9)
PARTS = 1 + len(QUANTILES)


class Columns(nnx.Module):
    """A dense layer to [B, parts, proteins] whose kernel's last axis is the proteins."""

    def __init__(self, width: int, parts: int, proteins: int, scale: float, rngs: nnx.Rngs):
        shape = (width, parts, proteins)
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), shape) * scale / max(width, 1) ** 0.5)
        self.bias = nnx.Param(jnp.zeros((parts, proteins)))

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.einsum("bw,wcp->bcp", x, self.kernel[...]) + self.bias[...]


class Shift(nnx.Module):
    """What is added at one site alone."""

    def __init__(self, width: int):
        self.own = nnx.Param(jnp.zeros(width))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.own[...]


class ProteinNet(nnx.Module):
    """See the module."""

    def __init__(
        self,
        width: int,
        proteins: int,
        hidden: tuple[int, ...],
        dropout: float,
        genes: int,
        types: int,
        site: bool,
        rngs: nnx.Rngs,
    ):
        self.genes = genes
        self.dense = nnx.List([nnx.Linear(i, o, rngs=rngs) for i, o in itertools.pairwise((width, *hidden))])
        self.dropout = nnx.Dropout(dropout)
        self.head = Columns((width, *hidden)[-1], PARTS, proteins, 0.3, rngs)
        self.skip = Columns(width, PARTS, proteins, 0.0, rngs) if hidden else None
        self.shift = Shift(hidden[0]) if site and hidden else None
        self.types = nnx.Linear((width, *hidden)[-1], types, rngs=rngs) if types else None

    def __call__(self, x: Any, rngs: nnx.Rngs | None = None) -> dict[str, jax.Array]:
        x = spread(x, self.genes, self.head.kernel[...].dtype) if isinstance(x, dict) else x
        h = x
        for number, layer in enumerate(self.dense):
            h = layer(h)
            h = self.shift(h) if number == 0 and self.shift is not None else h
            h = self.dropout(nnx.relu(h), rngs=rngs)
        out = self.head(h) if self.skip is None else self.head(h) + self.skip(x)
        mid = out[:, 2]
        found = {
            "mean": out[:, 0],
            "low": mid - nnx.softplus(out[:, 1]),
            "mid": mid,
            "high": mid + nnx.softplus(out[:, 3]),
        }
        return found if self.types is None else {**found, "types": self.types(h)}


def spread(x: dict[str, jax.Array], genes: int, dtype: Any) -> jax.Array:
    """Padded rows of a sparse matrix as a dense block.

    Args:
      x: {"gene": int32[B, K], places; "value": float[B, K], 0 where a row is filled up}.
      genes: G, width of the block.
      dtype: of the block.

    Returns:
      float[B, G].
    """
    rows = jnp.arange(x["gene"].shape[0])[:, None]
    return jnp.zeros((x["gene"].shape[0], genes), dtype).at[rows, x["gene"]].add(x["value"].astype(dtype))


def protein_net(
    *,
    hidden: tuple[int, ...] = (256, 128),
    dropout: float = 0.3,
    genes: int = 0,
    types: int = 0,
    site: bool = False,
) -> Model:
    """A network whose inputs and proteins are those of the data.

    Args:
      hidden: widths of the hidden layers; () for a linear model.
      dropout: share of hidden units dropped while training, in [0, 1).
      genes: how many there are, where the task hands over genes and not scores (`reduction="none"`); else 0.
      types: cell types of the second head; 0 for none.
      site: whether the first layer adds a vector that may be each site's own.

    Returns:
      A Model whose output is {"mean", "low", "mid", "high": float[B, proteins]} and, with types, "types": float[B,
      types], logits.

    Raises:
      ConfigError: while the weights are made, genes come and their number was not given.
    """

    def make(rngs: nnx.Rngs, rows: Any) -> nnx.Module:
        x, proteins = inputs(rows), rows["y"]["value"].shape[-1]
        if isinstance(x, dict) and genes < 1:
            raise ConfigError("model.genes: expected the number of genes where the task hands over genes, got none")
        width = genes if isinstance(x, dict) else x.shape[-1]
        return ProteinNet(width, proteins, hidden, dropout, genes, types, site, rngs)

    return from_flax(make)
