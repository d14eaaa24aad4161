"""Convolutions as matrix products, for CPUs: within a compiled loop XLA's CPU backend takes some twenty times as long
for a convolution as in a call of its own, and a round's steps are such a loop.

A convolution is the sum, over the places of its kernel, of the rows there times the kernel's matrix: as many products
as the kernel has places. Gradients are products then, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from learner_jax.types import PyTree

_CONVOLUTION = "conv_general_dilated"


def by_products(f: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """The same function of pytrees of arrays; on a CPU its convolutions are products.

    Grouped and transposed convolutions stay as they are. A function that has none is left as it is, once that is known.
    """
    has: list[bool] = []

    def applied(*arguments):
        if jax.default_backend() != "cpu" or has == [False]:
            return f(*arguments)
        closed, shape = jax.make_jaxpr(f, return_shape=True)(*arguments)
        has[:] = [_has_convolutions(closed.jaxpr)]
        if not has[0]:
            return f(*arguments)
        flat = _evaluated(closed.jaxpr, closed.consts, jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shape), flat)

    return applied


def convolution(
    x: Any, kernel: Any, strides: Any, padding: Any, dilation: Any, numbers: Any, precision: Any = None,
    dtype: Any = None,
) -> jax.Array:  # fmt: skip
    """What `jax.lax.conv_general_dilated` gives, but for rounding.

    Args:
      x, kernel: its operands, of any number of axes in space.
      strides, padding, dilation: of each such axis; padding as (low, high), below zero where it cuts; dilation is the
        kernel's.
      numbers: `jax.lax.ConvDimensionNumbers`.
      precision, dtype: of the products.
    """
    x = jnp.transpose(x, (numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1]))  # rows, space, channels
    kernel = jnp.transpose(kernel, (*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0]))
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)])
    sides = [
        (size - wide * (places - 1) - 1) // stride + 1
        for size, places, stride, wide in zip(x.shape[1:-1], kernel.shape[:-2], strides, dilation, strict=True)
    ]
    total = None
    for place in itertools.product(*map(range, kernel.shape[:-2])):
        starts = [at * wide for at, wide in zip(place, dilation, strict=True)]
        ends = [start + (side - 1) * step + 1 for start, side, step in zip(starts, sides, strides, strict=True)]
        there = jax.lax.slice(x, (0, *starts, 0), (x.shape[0], *ends, x.shape[-1]), (1, *strides, 1))
        part = jax.lax.dot(
            there.reshape(-1, x.shape[-1]), kernel[place], precision=precision, preferred_element_type=dtype
        )
        total = part if total is None else total + part
    assert total is not None
    out = total.reshape(x.shape[0], *sides, kernel.shape[-1])
    order = (numbers.out_spec[0], *numbers.out_spec[2:], numbers.out_spec[1])
    return jnp.transpose(out, [order.index(axis) for axis in range(out.ndim)])


def _is_plain(line: Any) -> bool:
    """Whether an equation is a convolution that `convolution` knows."""
    given = line.params
    return (
        line.primitive.name == _CONVOLUTION
        and given["feature_group_count"] == given["batch_group_count"] == 1
        and all(wide == 1 for wide in given["lhs_dilation"])
        and 0 not in line.outvars[0].aval.shape
        and 0 not in line.invars[1].aval.shape
    )


def _inner(line: Any) -> Any:
    """The program of a call without rules of its own, or None."""
    inside = line.params.get("jaxpr") if line.primitive.name in ("pjit", "jit") else None
    return inside if isinstance(inside, core.ClosedJaxpr) else None


def _has_convolutions(program: Any) -> bool:
    return any(
        _is_plain(line) or ((inside := _inner(line)) is not None and _has_convolutions(inside.jaxpr))
        for line in program.eqns
    )


def _evaluated(program: Any, consts: Any, arguments: Any) -> list[Any]:
    """The program's outputs, convolutions as products."""
    inputs = getattr(program, "all_invars", None) or (*program.constvars, *program.invars)
    known = dict(zip(inputs, (*consts, *arguments), strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for line in program.eqns:
        given = [value(atom) for atom in line.invars]
        inside = _inner(line)
        if _is_plain(line):
            names = ("window_strides", "padding", "rhs_dilation", "dimension_numbers", "precision")
            options = (line.params[name] for name in (*names, "preferred_element_type"))
            out = [convolution(*given, *options)]
        elif inside is not None and _has_convolutions(inside.jaxpr):
            out = _evaluated(inside.jaxpr, inside.consts, given)
        else:
            bound = line.primitive.get_bind_params(line.params)
            more, named = bound if isinstance(bound, tuple) else ((), bound)  # as earlier versions of jax have it
            out = line.primitive.bind(*more, *given, **named)
            out = out if line.primitive.multiple_results else [out]
        known.update(zip(line.outvars, out, strict=True))
    return [value(atom) for atom in program.outvars]
