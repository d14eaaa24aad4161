"""A transformer over coded events with time, beside a table's other columns.

A row is a patient at the time of prediction: x["code"] int32[B, L], places of the events' codes, 0 where there is no
event; x["days"] float[B, L], how long before; x["table"] float[B, k], the rest, nan where it is not known. One token
more, made of the table, looks at all events and is what the output is read from. Nothing tells the order but the time.

It is built to grow: the layers are one stack of weights that a scan goes through, so that the time to compile does not
grow with their number; attention is `jax.nn.dot_product_attention`; `remat` trades time for memory.

References: Vaswani et al., "Attention is all you need", NeurIPS 2017; Xiong et al., "On layer normalization in the
transformer architecture", ICML 2020 (norms before the sublayers); Li et al., "BEHRT", Scientific Reports 10:7155, 2020
(coded events of a patient as tokens).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from learner_jax.errors import ConfigError, DataError
from learner_jax.models.flax_model import from_flax, inputs
from learner_jax.types import Model

CODES = 4096
"""Places of a table's events (`learner_jax.tasks.table.PLACES`)."""
_FREQUENCIES = np.geomspace(0.25, 16.0, 16)
"""Of log(1 + days): from turns of decades to some that tell yesterday from today."""


class Block(nnx.Module):
    """Attention and a perceptron, each after a norm and added to what came in; [B, T, width] -> the same."""

    def __init__(self, width: int, heads: int, dropout: float, rngs: nnx.Rngs):
        self.heads, self.rate = heads, dropout
        self.before, self.between = nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)
        self.qkv, self.out = nnx.Linear(width, 3 * width, rngs=rngs), nnx.Linear(width, width, rngs=rngs)
        self.up, self.down = nnx.Linear(width, 4 * width, rngs=rngs), nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array, there: jax.Array, key: jax.Array | None) -> jax.Array:
        keys = (None, None) if key is None else jax.random.split(key)
        q, k, v = jnp.split(self.qkv(self.before(x)), 3, axis=-1)
        q, k, v = (part.reshape(*part.shape[:-1], self.heads, -1) for part in (q, k, v))
        seen = jax.nn.dot_product_attention(q, k, v, mask=there[:, None, None, :])
        x = x + _dropped(self.out(seen.reshape(x.shape)), self.rate, keys[0])
        return x + _dropped(self.down(nnx.gelu(self.up(self.between(x)))), self.rate, keys[1])


def _dropped(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    if key is None or rate == 0:
        return x
    return jnp.where(jax.random.bernoulli(key, 1.0 - rate, x.shape), x / (1.0 - rate), 0)


class Transformer(nnx.Module):
    """See the module; one output is a logit float[B], more are float[B, outputs]."""

    def __init__(
        self,
        table: int,
        *,
        outputs: int,
        width: int,
        layers: int,
        heads: int,
        dropout: float,
        codes: int,
        remat: bool,
        rngs: nnx.Rngs,
    ):
        self.layers, self.rate, self.remat = layers, dropout, remat
        self.code = nnx.Embed(codes + 1, width, rngs=rngs)
        self.time = nnx.Linear(2 * len(_FREQUENCIES), width, rngs=rngs)
        self.table = nnx.Linear(2 * table, width, rngs=rngs)

        @nnx.split_rngs(splits=layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stack(rngs: nnx.Rngs) -> Block:
            return Block(width, heads, dropout, rngs)

        self.blocks = stack(rngs)
        self.norm, self.head = nnx.LayerNorm(width, rngs=rngs), nnx.Linear(width, outputs, rngs=rngs)

    def __call__(self, x: Any, rngs: nnx.Rngs | None = None) -> jax.Array:
        table, code = x["table"], x["code"]
        angles = jnp.log1p(x["days"])[..., None] * _FREQUENCIES.astype(table.dtype)
        events = self.code(code) + self.time(jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1))
        known = ~jnp.isnan(table)
        table = jnp.concatenate([jnp.where(known, table, 0), known.astype(table.dtype)], axis=-1)
        tokens = jnp.concatenate([self.table(table)[:, None], events], axis=1)
        there = jnp.concatenate([jnp.ones((len(code), 1), bool), code > 0], axis=1)
        keys = None if rngs is None else jax.random.split(rngs.dropout(), self.layers)
        graph, weights = nnx.split(self.blocks)

        def layer(tokens: jax.Array, of: Any) -> tuple[jax.Array, None]:
            weights, key = of
            return nnx.merge(graph, weights)(tokens, there, key), None

        tokens, _ = jax.lax.scan(jax.checkpoint(layer) if self.remat else layer, tokens, (weights, keys))
        found = self.head(self.norm(tokens[:, 0]))
        return found[..., 0] if found.shape[-1] == 1 else found


def transformer(
    *,
    outputs: int = 1,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    dropout: float = 0.1,
    codes: int = CODES,
    remat: bool = False,
) -> Model:
    """A transformer over the events of a table that has a column of kind "events".

    Args:
      outputs: 1 for a single logit.
      width: of a token; `heads` must divide it.
      layers: blocks of attention and perceptron.
      heads: of the attention.
      dropout: share of a sublayer's output dropped while training, in [0, 1).
      codes: the largest place of a code.
      remat: compute a layer's inside again on the way back, in place of keeping it.

    Raises:
      ConfigError: heads do not divide the width, or a field is out of range.
      DataError: the rows hold no events.
    """
    for name, value in (("width", width), ("layers", layers), ("heads", heads), ("codes", codes)):
        if value < 1:
            raise ConfigError(f"model.{name}: expected at least 1, got {value}")
    if not 0 <= dropout < 1:
        raise ConfigError(f"model.dropout: expected a share from 0 to under 1, got {dropout:g}")
    if width % heads:
        raise ConfigError(f"model.width: expected a multiple of heads={heads}, got {width}")

    def make(rngs: nnx.Rngs, rows: Any) -> Transformer:
        x = inputs(rows)
        if not (isinstance(x, dict) and {"table", "code", "days"} <= set(x)):
            raise DataError(
                "model transformer: expected rows with events (a column of kind 'events' among task.columns), got none"
            )
        return Transformer(
            x["table"].shape[-1], outputs=outputs, width=width, layers=layers, heads=heads, dropout=dropout,
            codes=codes, remat=remat, rngs=rngs,
        )  # fmt: skip

    return from_flax(make)
