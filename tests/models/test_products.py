"""Convolutions as products: those of XLA for any strides, padding, dilation and order of axes, gradients too."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from learner_jax.models.flax_model import from_flax
from learner_jax.models.products import by_products

ORDERS = {1: ("NHC", "HIO", "NHC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NHWDC", "HWDIO", "NHWDC")}
OTHERS = {1: ("NCH", "OIH", "NCH"), 2: ("NCHW", "OIHW", "NHWC"), 3: ("NCHWD", "OIHWD", "NCHWD")}


def drawn(shape: Any, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def placed(order: str, sizes: dict[str, int]) -> tuple[int, ...]:
    return tuple(sizes[axis] for axis in order)


@settings(max_examples=15)
@given(st.integers(1, 3), st.booleans(), st.integers(0, 10_000))
def test_it_is_xlas_convolution_with_its_gradients(rank, others, seed):
    pick = np.random.default_rng(seed)
    letters = "HWD"[:rank]
    orders = (OTHERS if others else ORDERS)[rank]
    size, places = (
        {a: int(n) for a, n in zip(letters, pick.integers(*b, rank), strict=True)} for b in ((5, 9), (1, 4))
    )
    options: dict[str, Any] = {
        "window_strides": tuple(map(int, pick.integers(1, 4, rank))),
        "padding": [tuple(map(int, pair)) for pair in pick.integers(-1, 3, (rank, 2))],
        "rhs_dilation": tuple(map(int, pick.integers(1, 3, rank))),
        "dimension_numbers": orders,
    }
    with jax.enable_x64(True):
        x, kernel = (
            drawn(placed(orders[0], {"N": 2, "C": 3, **size}), seed),
            drawn(placed(orders[1], {"I": 3, "O": 4, **places}), seed + 1),
        )

        def plain(x, kernel):
            return jax.lax.conv_general_dilated(x, kernel, **options)

        expected = plain(x, kernel)
        found = by_products(plain)(x, kernel)
        assert found.shape == expected.shape and found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, atol=1e-12)
        if expected.size:
            weights = drawn(expected.shape, seed + 2)
            mine, xlas = (
                jax.grad(lambda *given, f=f: jnp.sum(f(*given) * weights), (0, 1))(x, kernel)
                for f in (by_products(plain), plain)
            )
            for one, other in zip(mine, xlas, strict=True):
                np.testing.assert_allclose(one, other, atol=1e-11)


class Pictures(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.second = nnx.Conv(4, 6, (2, 2), strides=2, padding="VALID", rngs=rngs)
        self.out = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.first(x)))
        return self.out(jax.jit(lambda x: jnp.mean(jax.nn.relu(self.second(x)), (1, 2)))(x))


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(3)(jnp.mean(linen.relu(linen.Conv(4, (3, 3))(x)), (1, 2)))


@pytest.mark.parametrize("module", [lambda rngs, rows: Pictures(rngs), Linen()], ids=["nnx", "linen"])
@pytest.mark.parametrize("train", [False, True])
def test_a_flax_network_has_products_on_a_cpu_and_gives_the_same(module, train, monkeypatch):
    x = drawn((5, 8, 8, 1), 3).astype(np.float32)
    model = from_flax(module)
    params, stats = model.init(jax.random.key(0), {"x": x})

    def loss(params):
        output, renewed = model.apply(params, stats, {"x": x}, jax.random.key(1), train)
        return jnp.sum(output**2), (output, renewed)

    def has() -> bool:
        return "conv_general_dilated" in str(jax.make_jaxpr(lambda params: loss(params))(params))

    mine = jax.grad(loss, has_aux=True)(params)
    assert not has()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert has()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=2e-5), mine,
                 jax.grad(loss, has_aux=True)(params))  # fmt: skip


def test_grouped_and_transposed_ones_stay_and_who_has_none_is_traced_once():
    x, calls = drawn((2, 8, 8, 4), 0).astype(np.float32), []

    def grouped(x):
        kernel = jnp.ones((3, 3, 2, 6))
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
        )

    np.testing.assert_array_equal(by_products(grouped)(x), grouped(x))

    def none(x):
        calls.append(1)
        return jnp.sum(x)

    once = by_products(none)
    assert float(once(x)) == float(once(x)) == pytest.approx(float(x.sum()), abs=1e-3) and len(calls) == 3
