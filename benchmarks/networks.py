"""The networks of `benchmarks.simulator`, as Flax modules for our engines; `loops` has them written out by hand.

Each kind has its widths:

    perceptron      inputs, hidden ..., outputs
    convolutions    height, width, channels, channels of two 3x3 convolutions, hidden, classes
    transformer     words, places, width, blocks, heads, classes
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from learner_jax.models import mlp
from learner_jax.models.flax_model import from_flax
from learner_jax.types import Model

Widths = tuple[int, ...]


class Convolutions(nnx.Module):
    """Two convolutions with ReLU, the largest of each four neighbours, two dense layers."""

    def __init__(self, widths: Widths, rngs: nnx.Rngs):
        height, width, channels, first, second, hidden, classes = widths
        self.first = nnx.Conv(channels, first, (3, 3), padding="VALID", rngs=rngs)
        self.second = nnx.Conv(first, second, (3, 3), padding="VALID", rngs=rngs)
        self.hidden = nnx.Linear((height - 4) // 2 * ((width - 4) // 2) * second, hidden, rngs=rngs)
        self.out = nnx.Linear(hidden, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.second(nnx.relu(self.first(x))))
        rows, height, width, channels = x.shape
        x = x.reshape(rows, height // 2, 2, width // 2, 2, channels).max((2, 4))
        return self.out(nnx.relu(self.hidden(x.reshape(rows, -1))))


class Block(nnx.Module):
    """Attention and a perceptron, each of what is normalised and added to what came."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs):
        self.heads = heads
        self.before, self.after = nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)
        self.asked, self.told = nnx.Linear(width, 3 * width, rngs=rngs), nnx.Linear(width, width, rngs=rngs)
        self.up, self.down = nnx.Linear(width, 4 * width, rngs=rngs), nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array, length: int) -> jax.Array:
        parts = self.asked(self.before(x)).reshape(-1, length, 3, self.heads, x.shape[1] // self.heads)
        query, key, value = (parts[:, :, k] for k in range(3))
        x = x + self.told(nnx.dot_product_attention(query, key, value).reshape(x.shape))
        return x + self.down(nnx.gelu(self.up(self.after(x))))


class Transformer(nnx.Module):
    """Words and places, blocks, the mean over places, classes."""

    def __init__(self, widths: Widths, rngs: nnx.Rngs):
        words, places, width, blocks, heads, classes = widths
        self.words = nnx.Embed(words, width, rngs=rngs)
        self.places = nnx.Embed(places, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs) for _ in range(blocks)])
        self.last, self.out = nnx.LayerNorm(width, rngs=rngs), nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        rows, length = x.shape
        x = (self.words(x) + self.places(jnp.arange(length))).reshape(rows * length, -1)
        for block in self.blocks:
            x = block(x, length)
        return self.out(jnp.mean(self.last(x).reshape(rows, length, -1), 1))


def model(kind: str, widths: Widths) -> Model:
    """The network for our engines."""
    if kind == "perceptron":
        return mlp(hidden=widths[1:-1], outputs=widths[-1])
    made = {"convolutions": Convolutions, "transformer": Transformer}[kind]
    return from_flax(lambda rngs, rows: made(widths, rngs))


def inputs(kind: str, widths: Widths, rows: int, draw: np.random.Generator) -> np.ndarray:
    """Made-up rows, uniform: float32[rows, inputs], float32[rows, height, width, channels], int32[rows, places]."""
    if kind == "transformer":
        return draw.integers(0, widths[0], (rows, widths[1]), np.int32)
    return draw.random((rows, *(widths[:3] if kind == "convolutions" else widths[:1])), np.float32)


def by_hand(kind: str, params: Any) -> Any:
    """The parameters as `loops` has them: pairs, of kernel and bias or of scale and bias, in the order of their use."""

    def pair(layer: Any) -> tuple[Any, Any]:
        return (layer["kernel"] if "kernel" in layer else layer["scale"]), layer["bias"]

    if kind == "perceptron":
        dense = params["dense"]
        return tuple(pair(dense[key]) for key in sorted(dense, key=int))
    if kind == "convolutions":
        return tuple(pair(params[name]) for name in ("first", "second", "hidden", "out"))
    blocks = params["blocks"]
    names = ("before", "asked", "told", "after", "up", "down")
    return (
        (params["words"]["embedding"], params["places"]["embedding"]),
        tuple(tuple(pair(blocks[key][name]) for name in names) for key in sorted(blocks, key=int)),
        (pair(params["last"]), pair(params["out"])),
    )
