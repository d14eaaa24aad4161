"""Pytrees: names of leaves, weights that broadcast by prefix, and a digest both engines compute alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from learner_jax.errors import DataError, StudyError
from learner_jax.leaves import LeafSpec, Schema

PyTree = Any

_BLOCK = 1 << 18
"""Elements of a leaf that `digest` mixes at a time: a megabyte of float32, which stays in a core's cache."""


def names(tree: PyTree) -> list[str]:
    """Path of each leaf, "dense/kernel", in the tree's own leaf order.

    Raises:
      DataError: two leaves share a path.
    """
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/") or "value"
        for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise DataError(f"expected leaves with paths of their own, but '{twice}' is there twice")
    return paths


def named_leaves(tree: PyTree) -> dict[str, np.ndarray]:
    """The tree's leaves on the host, by path."""
    return dict(zip(names(tree), map(np.asarray, jax.device_get(jax.tree.leaves(tree))), strict=True))


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """A tree of dicts from path -> leaf.

    >>> nested({"x/table": 1, "x/code": 2, "y": 3})
    {'x': {'table': 1, 'code': 2}, 'y': 3}
    """
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *folders, last = name.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = leaf
    return tree


def rebuild(like: PyTree, leaves: Mapping[str, Any]) -> PyTree:
    """The tree with `like`'s structure and the given leaves.

    Args:
      like: a tree of arrays or shapes.
      leaves: path -> array, as `named_leaves` gave them.
    """
    return jax.tree.unflatten(jax.tree.structure(like), [leaves[name] for name in names(like)])


def schema(tree: PyTree) -> Schema:
    """The wire schema of a tree of arrays or shapes, in path order."""
    specs = [
        LeafSpec(name, str(np.dtype(leaf.dtype)), tuple(int(n) for n in leaf.shape))
        for name, leaf in zip(names(tree), jax.tree.leaves(tree), strict=True)
    ]
    return tuple(sorted(specs))


def zeros_like(tree: PyTree) -> PyTree:
    """Zeros of the tree's shapes and dtypes; `tree` may hold shapes only."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)


def shapes(tree: PyTree) -> PyTree:
    """The tree with each array replaced by its shape and dtype."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def add(a: PyTree, b: PyTree) -> PyTree:
    """a + b, leaf by leaf."""
    return jax.tree.map(jnp.add, a, b)


def subtract(a: PyTree, b: PyTree) -> PyTree:
    """a - b, leaf by leaf."""
    return jax.tree.map(jnp.subtract, a, b)


def scale(factor: Any, tree: PyTree) -> PyTree:
    """factor * tree, in each leaf's own dtype."""
    return jax.tree.map(lambda leaf: jnp.asarray(factor, leaf.dtype) * leaf, tree)


def negate(tree: PyTree) -> PyTree:
    """-tree."""
    return jax.tree.map(jnp.negative, tree)


def any_present(total: PyTree) -> Any:
    """Whether any leaf of a total of weights is above 0: bool[]; True of a tree without leaves."""
    leaves = [jnp.any(leaf > 0) for leaf in jax.tree.leaves(total)]
    return jnp.any(jnp.stack(leaves)) if leaves else jnp.bool_(True)


def where(condition: Any, a: PyTree, b: PyTree) -> PyTree:
    """a where a scalar condition holds, else b; for states that must not move."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def spread(weight: PyTree, tree: PyTree) -> PyTree:
    """A weight for each leaf of `tree` from a prefix of it, in the leaf's dtype.

    Args:
      weight: prefix of tree; each leaf broadcasts (trailing axes) into the leaves under it.
      tree: an update.
    """
    return jax.tree.map(lambda w, part: jax.tree.map(lambda leaf: jnp.asarray(w, leaf.dtype), part), weight, tree)


def weigh(weight: PyTree, tree: PyTree) -> PyTree:
    """weight * tree, weight being a prefix of tree."""
    return jax.tree.map(jnp.multiply, spread(weight, tree), tree)


def divide(weighted_sum: PyTree, total: PyTree) -> PyTree:
    """weighted_sum / total, total being a prefix; 0 where total is 0."""

    def one(leaf, weight):
        present = weight > 0
        return jnp.where(present, leaf / jnp.where(present, weight, 1), 0)

    return jax.tree.map(one, weighted_sum, spread(total, weighted_sum))


def strong(tree: PyTree) -> PyTree:
    """The tree with no weakly typed leaf, so that a loop's carry keeps its type."""
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(jnp.asarray(leaf), jnp.asarray(leaf).dtype), tree)


def expect_like(like: PyTree, tree: PyTree, what: str, why: str) -> None:
    """Holds a tree against the one whose place it takes, while a program is traced: nothing is computed.

    Args:
      like: what it should be like, leaf by leaf: arrays, tracers or shapes.
      tree: what came.
      what: function and part for the message, "pass 0 step: expected carry".
      why: "as begin made it".

    Raises:
      StudyError: another structure, shape or dtype; names the first leaf that differs.
    """
    wanted, came = _described(like), _described(tree)
    for path in dict.fromkeys([*wanted, *came]):
        if wanted.get(path) != came.get(path):
            raise StudyError(f"{what} '{path}' {wanted.get(path, 'nothing')}, {why}, got {came.get(path, 'nothing')}")
    if jax.tree.structure(like) != jax.tree.structure(tree):
        raise StudyError(f"{what} in the same tuples, lists and dicts, {why}, got the same leaves in others")


def _described(tree: PyTree) -> dict[str, str]:
    """Path of each leaf -> "float32[4,6]"."""
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "value"
        dtype = leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
        found[name] = f"{dtype}[{','.join(map(str, jnp.shape(leaf)))}]"
    return found


def digest(tree: PyTree) -> jax.Array:
    """128 bits that change when any bit of any leaf does: uint32[4].

    Integer arithmetic only, so that both engines and every device give the same; it tells two states apart, it is no
    signature (sha256 is used for files and for the final weights).
    """
    total = jnp.zeros(4, jnp.uint32)
    for number, leaf in enumerate(jax.tree.leaves(tree)):
        flat = jnp.asarray(leaf).reshape(-1)
        blocks, rest = divmod(flat.size, _BLOCK)  # block by block: what is mixed is as large as what it is made of
        if blocks:

            def turn(i, total, flat=flat, number=number):
                block = jax.lax.dynamic_slice_in_dim(flat, i * _BLOCK, _BLOCK)
                return total + _mixed(block, i * _BLOCK, number)

            total = jax.lax.fori_loop(0, blocks, turn, total)
        if rest or not blocks:
            total = total + _mixed(flat[blocks * _BLOCK :], blocks * _BLOCK, number)
        total = _mix(total + jnp.uint32(number + 1))
    return total


def _mixed(block: jax.Array, first: Any, number: int) -> jax.Array:
    """The sums of a leaf's words, each mixed with its place, in four ways: uint32[4].

    Args:
      block: [n], some of the leaf's elements.
      first: the place of the first of them.
      number: of the leaf.
    """
    words = _words(block)
    begin = jnp.asarray(first, jnp.uint32) * np.uint32(words.size // max(1, block.size))
    place = (begin + jnp.arange(words.size, dtype=jnp.uint32)) * jnp.uint32(0x9E3779B9)
    salts = [np.uint32((0x85EBCA6B * (4 * number + lane + 1)) & 0xFFFFFFFF) for lane in range(4)]
    return jnp.stack([jnp.sum(_mix(_mix(words ^ salt) + place), dtype=jnp.uint32) for salt in salts])


def digest_hex(words: Any) -> str:
    """`digest`'s four words as 32 hexadecimal digits."""
    return "".join(f"{int(word):08x}" for word in np.asarray(words))


def _words(leaf: jax.Array) -> jax.Array:
    """A leaf's bits as a flat uint32 array."""
    leaf = jnp.asarray(leaf)
    if leaf.dtype == jnp.bool_:
        return leaf.reshape(-1).astype(jnp.uint32)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[leaf.dtype.itemsize]
    return jax.lax.bitcast_convert_type(leaf, unsigned).reshape(-1).astype(jnp.uint32)


def _mix(x: jax.Array) -> jax.Array:
    """The 32-bit finaliser of MurmurHash3 (Appleby): a bijection that spreads each bit over the word."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
