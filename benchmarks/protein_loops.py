"""Plain JAX loops that federated training on cells is measured against; they share no code with the package.

The network of `models.protein_net` as one writes it by hand: weights are {"layers": ((kernel, bias), ...), "head":
(kernel [w, 4, P], bias [4, P]), "skip": (kernel [d, 4, P], bias [4, P])}; the four are a mean, the middle quantile and
what is below and above it. All cells have all proteins. `scan` is one model through all batches: nothing that does the
same batches can be expected to be faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

Weights = dict[str, Any]
PINBALL = 0.5


def forward(weights: Weights, x: Any, key: Any, dropout: float) -> tuple[Any, ...]:
    """(mean, low, mid, high), each float[B, P]."""
    h = x
    for number, (kernel, bias) in enumerate(weights["layers"]):
        h = jax.nn.relu(h @ kernel + bias)
        if dropout:
            kept = jax.random.bernoulli(jax.random.fold_in(key, number), 1 - dropout, h.shape)
            h = jnp.where(kept, h / (1 - dropout), 0)
    (head, head_bias), (skip, skip_bias) = weights["head"], weights["skip"]
    out = jnp.einsum("bw,wcp->bcp", h, head) + head_bias + jnp.einsum("bd,dcp->bcp", x, skip) + skip_bias
    mean, below, mid, above = (out[:, part] for part in range(4))
    return mean, mid - jax.nn.softplus(below), mid, mid + jax.nn.softplus(above)


def loss(weights: Weights, x: Any, y: Any, mask: Any, key: Any, dropout: float) -> Any:
    """Squared error of the mean and half of the pinball losses, the mean over proteins and unmasked cells."""
    mean, *quantiles = forward(weights, x, key, dropout)
    each = (mean - y) ** 2
    for share, told in zip((0.1, 0.5, 0.9), quantiles, strict=True):
        each = each + PINBALL * jnp.maximum(share * (y - told), (share - 1) * (y - told))
    return jnp.sum(jnp.where(mask, jnp.mean(each, axis=1), 0)) / jnp.maximum(jnp.sum(mask), 1)


def stepping(lr: float, dropout: float) -> Callable[..., Any]:
    """((weights, Adam's state, key), x [M, d], y [M, P], batch int32[B]) -> the next of the first."""
    adam = optax.adam(lr)

    def step(carry, x, y, batch):
        weights, state, key = carry
        key, mine = jax.random.split(key)
        rows, told = jnp.take(x, batch, axis=0, mode="clip"), jnp.take(y, batch, axis=0, mode="clip")
        grads = jax.grad(loss)(weights, rows, told, batch >= 0, mine, dropout)
        moves, state = adam.update(grads, state)
        return optax.apply_updates(weights, moves), state, key

    return step


def scan(lr: float, dropout: float) -> Callable[..., Weights]:
    """(weights, x, y, index int32[T, B]) -> weights: one `lax.scan` in one jit, with one Adam throughout."""
    step, adam = stepping(lr, dropout), optax.adam(lr)

    def run(weights, x, y, index):
        start = (weights, adam.init(weights), jax.random.key(0))
        return jax.lax.scan(lambda carry, batch: (step(carry, x, y, batch), None), start, index)[0][0]

    return jax.jit(run)


def averaged(weights: Weights, x: Any, y: Any, index: np.ndarray, first: Any, steps: Any, lr: float) -> list[Any]:
    """A federated round by hand, without dropout: each site alone from the same start, averaged by rows in float64.

    Args:
      weights: the start.
      x, y: all rows.
      index: int32[T, B]; -1 is padding.
      first, steps: int32[S], where a site's batches begin and how many they are.
      lr: of each site's own Adam.

    Returns:
      The averaged leaves.
    """
    step, adam = jax.jit(stepping(lr, 0.0)), optax.adam(lr)
    total, seen = [np.zeros(np.shape(leaf)) for leaf in jax.tree.leaves(weights)], 0
    for at, count in zip(first, steps, strict=True):
        carry = (weights, adam.init(weights), jax.random.key(0))
        for batch in index[at : at + count]:
            carry = step(carry, x, y, batch)
        rows = int(np.sum(index[at : at + count] >= 0))
        for sum_, leaf in zip(total, jax.tree.leaves(carry[0]), strict=True):
            sum_ += rows * np.asarray(leaf, np.float64)
        seen += rows
    return [sum_ / seen for sum_ in total]
