"""Arithmetic that rounds where it says so, however the compiler fuses it and wherever its result is written.

LLVM may contract a product and a sum into one fused multiply-add with one rounding in place of two. Whether it does
depends on how a loop is vectorised, and so on the machine, on what else is in the loop, and even on whether the result
takes the place of an argument (a donated buffer). Two programs of the same function could then differ in a last bit.
What stands here hands a value's bits on as an integer that the compiler cannot see through: no contraction crosses it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from learner_jax.types import PyTree

_PRODUCTS = frozenset({"mul", "div", "square", "integer_pow"})
"""Primitives that may be compiled to a multiplication: a division by one number for all of a leaf is."""
_INLINE = frozenset({"jit", "custom_jvp_call", "custom_vjp_call", "remat2"})
"""Calls whose body is part of their caller once it is compiled. Loops and branches are compiled apart."""


def rounded(tree: PyTree, zero: Any) -> PyTree:
    """The tree, bit for bit; what is done with it next cannot be contracted with the arithmetic that made it.

    Args:
      tree: floating leaves are taken as integers, changed nowhere, and taken back.
      zero: int32 0 that the compiler does not know.
    """

    def one(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        bits = jnp.dtype(f"int{8 * leaf.dtype.itemsize}")
        same = jax.lax.bitcast_convert_type(leaf, bits) | jnp.asarray(zero, bits)  # done twice, it does not cancel out
        return jax.lax.bitcast_convert_type(same, leaf.dtype)

    return jax.tree.map(one, tree)


def uncontracted(f: Callable[..., PyTree], zero: Any) -> Callable[..., PyTree]:
    """f, each of whose products is rounded before anything is added to it; loops and branches within are as they were.

    Args:
      f: a function of pytrees of arrays, which jax can trace.
      zero: as in `rounded`.
    """

    def same(*arguments):
        program, shape = jax.make_jaxpr(f, return_shape=True)(*arguments)
        found = _run(program.jaxpr, program.consts, jax.tree.leaves(arguments), zero)
        return jax.tree.unflatten(jax.tree.structure(shape), found)

    return same


def _run(program: Any, consts: Any, arguments: Any, zero: Any) -> list[Any]:
    """A jaxpr's outputs, operation by operation."""
    known: dict[Any, Any] = {}

    def read(atom):
        return atom.val if hasattr(atom, "val") else known[atom]

    known.update(zip(program.constvars, consts, strict=True))
    known.update(zip(program.invars, arguments, strict=True))
    for line in program.eqns:
        given, name = [read(atom) for atom in line.invars], line.primitive.name
        body = line.params.get("jaxpr") or line.params.get("call_jaxpr") if name in _INLINE else None
        if body is not None:
            found = _run(getattr(body, "jaxpr", body), getattr(body, "consts", ()), given, zero)
        else:
            found = line.primitive.bind(*given, **line.primitive.get_bind_params(line.params))
            found = list(found) if line.primitive.multiple_results else [found]
        known.update(zip(line.outvars, rounded(found, zero) if name in _PRODUCTS else found, strict=True))
    return [read(atom) for atom in program.outvars]
