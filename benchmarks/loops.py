"""Plain JAX loops that a simulated round is measured against; they share no code with the package.

`scan` and `per_step` run one model over every batch of the round, one after the other: nothing that does the same
batches can be expected to be faster. `padded_vmap` is what one writes first for many sites: all abreast, each padded to
the longest. A network is a function of weights and rows, written out here: a perceptron, where none is named.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Weights = Any
Network = Callable[[Weights, Any], Any]


def perceptron(weights: Weights, x: Any) -> Any:
    """Dense layers with ReLU between them: float[B, outputs].

    Args:
      weights: ((kernel [i, o], bias [o]), ...).
      x: float[B, i].
    """
    for kernel, bias in weights[:-1]:
        x = jnp.maximum(x @ kernel + bias, 0)
    kernel, bias = weights[-1]
    return x @ kernel + bias


def convolutions(weights: Weights, x: Any) -> Any:
    """Two convolutions with ReLU, the largest of each four neighbours, two dense layers: float[B, classes].

    Convolutions are products of columns, and neighbours stand side by side: within a loop XLA's own take twenty times
    as long on a CPU.

    Args:
      weights: ((kernel [3, 3, i, o], bias [o]) twice, (kernel [i, o], bias [o]) twice).
      x: float[B, height, width, channels].
    """
    rows, height, width = x.shape[:3]
    for kernel, bias in weights[:2]:
        height, width = height - 2, width - 2
        columns = jnp.concatenate([x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], -1)
        x = columns.reshape(rows * height * width, -1) @ kernel.reshape(-1, kernel.shape[-1])
        x = jnp.maximum(x + bias, 0).reshape(rows, height, width, -1)
    x = x.reshape(rows, height // 2, 2, width // 2, 2, -1).max((2, 4))
    return perceptron(weights[2:], x.reshape(rows, -1))


def transformer(weights: Weights, x: Any, width: int = 64) -> Any:
    """Blocks of attention and a perceptron, each of what is normalised and added: float[B, classes].

    Classes are told from the mean over places.

    Reference: Vaswani et al., NeurIPS 2017; Xiong et al., ICML 2020 (normalised before, not after).

    Args:
      weights: (words [W, D], places [T, D]), then for each block six pairs (scale or kernel, bias), in the order of
        their use, then (scale, bias) and (kernel, bias).
      x: int32[B, T].
      width: of a head.
    """
    (words, places), blocks, (last, out) = weights

    def normal(pair, x):
        x = x - jnp.mean(x, -1, keepdims=True)
        return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * pair[0] + pair[1]

    def dense(pair, x):
        return x @ pair[0] + pair[1]

    def gelu(x):
        return 0.5 * x * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    rows, length = x.shape  # [B * T, D] between the blocks: products of three axes have gradients that take longer
    x = (words[x] + places).reshape(rows * length, -1)
    for before, asked, told, after, up, down in blocks:
        heads = dense(asked, normal(before, x)).reshape(rows, length, 3, -1, width)
        query, key, value = heads[:, :, 0], heads[:, :, 1], heads[:, :, 2]
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(width)
        shares = jnp.exp(scores - jnp.max(scores, -1, keepdims=True))
        shares = shares / jnp.sum(shares, -1, keepdims=True)
        x = x + dense(told, jnp.einsum("bhqk,bkhd->bqhd", shares, value).reshape(x.shape))
        x = x + dense(down, gelu(dense(up, normal(after, x))))
    return dense(out, jnp.mean(normal(last, x).reshape(rows, length, -1), 1))


def loss(weights: Weights, x: Any, y: Any, mask: Any, network: Network = perceptron) -> Any:
    """Mean cross-entropy over the unmasked rows, of classes, or with one output of yes and no; 0 where there are none.

    Args:
      weights, x: of the network.
      y: int32[B]; float[B] of 0 and 1 with one output.
      mask: bool[B].
      network: gives float[B, outputs].
    """
    logits = network(weights, x)
    if logits.shape[-1] == 1:
        z = logits[:, 0]
        each = jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z)))
        return jnp.sum(jnp.where(mask, each, 0)) / jnp.maximum(jnp.sum(mask), 1)
    logits = logits - jax.lax.stop_gradient(jnp.max(logits, -1, keepdims=True))
    told = jnp.sum(jnp.where(y[:, None] == jnp.arange(logits.shape[-1]), logits, 0), -1)
    each = jnp.log(jnp.sum(jnp.exp(logits), -1)) - told
    return jnp.sum(jnp.where(mask, each, 0)) / jnp.maximum(jnp.sum(mask), 1)


class Rule(NamedTuple):
    """An optimizer.

    Attributes:
      begin: (weights) -> what it remembers.
      move: (weights, grads, memory) -> weights, memory.
    """

    begin: Callable[[Weights], Any]
    move: Callable[[Weights, Weights, Any], tuple[Weights, Any]]


def sgd(lr: float) -> Rule:
    """Plain gradient descent."""

    def move(weights, grads, memory):
        return jax.tree.map(lambda w, g: w - lr * g, weights, grads), memory

    return Rule(lambda weights: (), move)


def controlled(lr: float) -> Rule:
    """Gradient descent with two control variates, which are zero: Karimireddy et al., ICML 2020, algorithm 1."""

    def begin(weights):  # times zero, and no constant: the compiler may not leave them out
        return jax.tree.map(lambda w: w * 0.0, weights), jax.tree.map(lambda w: w * 0.0, weights)

    def move(weights, grads, memory):
        own, all_ = memory
        return jax.tree.map(lambda w, g, i, c: w - lr * (g - i + c), weights, grads, own, all_), memory

    return Rule(begin, move)


def adam(lr: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Rule:
    """Kingma and Ba, ICLR 2015, algorithm 1."""

    def begin(weights):
        return jax.tree.map(jnp.zeros_like, weights), jax.tree.map(jnp.zeros_like, weights), jnp.int32(0)

    def move(weights, grads, memory):
        first, second, count = memory
        count = count + 1
        first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, first, grads)
        second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, second, grads)
        # 1 - b ** count: in float32 the difference would lose four of seven digits at the first steps
        c1, c2 = (-jnp.expm1(count.astype(jnp.float32) * float(np.log(b))) for b in (b1, b2))
        weights = jax.tree.map(lambda w, m, v: w - lr * (m / c1) / (jnp.sqrt(v / c2) + eps), weights, first, second)
        return weights, (first, second, count)

    return Rule(begin, move)


def descend(
    rule: Rule, state: tuple[Weights, Any], x: Any, y: Any, mask: Any, network: Network = perceptron
) -> tuple[Weights, Any]:
    """One step: (weights, memory) before and after."""
    weights, memory = state
    return rule.move(weights, jax.grad(loss)(weights, x, y, mask, network), memory)


def rows(x: Any, y: Any, index: Any) -> tuple[Any, Any, Any]:
    """The rows of one batch, and which of them are there."""
    return jnp.take(x, index, axis=0, mode="clip"), jnp.take(y, index, axis=0, mode="clip"), index >= 0


def scan(rule: Rule, unroll: int = 1, network: Network = perceptron) -> Callable[..., Weights]:
    """(weights, x [M, ...], y [M], index int32[T, B]) -> weights: one `lax.scan` in one jit."""

    def run(weights, x, y, index):
        def step(state, batch):
            return descend(rule, state, *rows(x, y, batch), network), None

        return jax.lax.scan(step, (weights, rule.begin(weights)), index, unroll=unroll)[0][0]

    return jax.jit(run)


def gathered_scan(rule: Rule, network: Network = perceptron) -> Callable[..., Weights]:
    """(weights, x [T, B, ...], y [T, B], mask [T, B]) -> weights: the batches lie in memory one after the other."""

    def run(weights, x, y, mask):
        start = weights, rule.begin(weights)
        return jax.lax.scan(lambda state, batch: (descend(rule, state, *batch, network), None), start, (x, y, mask))[0][
            0
        ]

    return jax.jit(run)


def per_step(rule: Rule, network: Network = perceptron) -> Callable[..., Weights]:
    """(weights, x, y, index) -> weights: one call of a donating jit for each batch; `weights` is kept."""

    def step(state, x, y, batch):
        return descend(rule, state, *rows(x, y, batch), network)

    jitted = jax.jit(step, donate_argnums=(0,))

    def run(weights, x, y, index):
        state = jax.tree.map(jnp.copy, weights), rule.begin(weights)
        for batch in index:
            state = jitted(state, x, y, batch)
        return state[0]

    return run


def padded_vmap(rule: Rule, network: Network = perceptron) -> Callable[..., Weights]:
    """(weights, x, y, index int32[S, T, B]) -> weights: FedAvg of S sites abreast, all-padding batches included."""

    def site(weights, x, y, index):
        def step(state, batch):
            new = descend(rule, state, *rows(x, y, batch), network)
            if state[1]:  # what is remembered would move it on batches that are all padding
                new = jax.tree.map(lambda now, before: jnp.where(batch[0] >= 0, now, before), new, state)
            return new, None

        return jax.lax.scan(step, (weights, rule.begin(weights)), index)[0][0]

    def run(weights, x, y, index):
        each = jax.vmap(site, (None, None, None, 0))(weights, x, y, index)
        count = jnp.sum(index >= 0, (1, 2)).astype(jnp.float32)
        return jax.tree.map(lambda w: jnp.tensordot(count / jnp.sum(count), w, 1), each)

    return jax.jit(run)


def pad(index: np.ndarray, first: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Batches in a row, int32[T, B], as int32[S, longest, B]; -1 is padding."""
    out = np.full((len(steps), int(steps.max()), index.shape[1]), -1, np.int32)
    for s, (at, count) in enumerate(zip(first, steps, strict=True)):
        out[s, :count] = index[at : at + count]
    return out


def averaged(
    run: Callable[..., Weights], weights: Weights, x: Any, y: Any, index: np.ndarray, first: Any, steps: Any
) -> list[np.ndarray]:
    """FedAvg by hand: each site alone from the same start by `run`, averaged by rows in float64.

    Args:
      run: as `per_step` gives it.
      weights: the start.
      x, y: all rows.
      index: int32[T, B].
      first, steps: int32[S], where a site's batches begin and how many they are.

    Returns:
      The averaged leaves.
    """
    total, seen = [np.zeros(np.shape(leaf)) for leaf in jax.tree.leaves(weights)], 0
    for at, count in zip(first, steps, strict=True):
        mine = index[at : at + count]
        count = int(np.sum(mine >= 0))
        for sum_, leaf in zip(total, jax.tree.leaves(run(weights, x, y, mine)), strict=True):
            sum_ += count * np.asarray(leaf, np.float64)
        seen += count
    return [sum_ / seen for sum_ in total]
