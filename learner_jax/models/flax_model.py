"""A Flax module, NNX or Linen, as the two pure functions that the rest of the code sees.

Weights are plain dicts of arrays; statistics of batch norm are kept apart as `stats`. An NNX module's random streams
never enter the tree: they are made anew from each batch's key. NNX modules are split once; each call merges a copy,
since `nnx.merge` would otherwise hand out the caller's own arrays.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx

from learner_jax.errors import ConfigError
from learner_jax.models.products import by_products
from learner_jax.types import Model, PyTree


def from_flax(module: Any) -> Model:
    """A Model of a Flax Linen module, an NNX module, or `(rngs, rows) -> NNX module`.

    Args:
      module: a linen.Module (initialised on the first rows), an nnx.Module (its present values are the start; every
        seed then starts alike), or a function that makes an NNX module from `(nnx.Rngs, rows)`.

    Returns:
      A Model; the module is called with rows["x"], or with rows where there is no "x". While it trains, a `mask`
      that its call names (default None) is bool[B], False for rows that only fill up a batch: hand it to batch norm.

    Raises:
      ConfigError: it is none of these, such as a class of modules.
    """
    if isinstance(module, Model):
        return module
    if isinstance(module, nnx.Module):
        # the caller's own is neither traced nor set to eval
        return _by_products(_from_nnx(lambda rngs, rows: nnx.clone(module)))
    if inspect.isclass(module):
        named = module.__name__
        raise ConfigError(f"expected model: a Flax module, got the class {named}: make one of it, {named}(...)")
    if hasattr(module, "init") and hasattr(module, "apply"):
        return _by_products(_from_linen(module))
    if callable(module):
        return _by_products(_from_nnx(cast(Callable[[nnx.Rngs, PyTree], nnx.Module], module)))
    raise ConfigError(
        f"expected model: a Flax module, a Model or a function that makes one, got {type(module).__name__}"
    )


def _by_products(model: Model) -> Model:
    """The model, its convolutions as products on a CPU."""

    def of(train):
        return by_products(lambda params, stats, rows, key: model.apply(params, stats, rows, key, train))

    by = {train: of(train) for train in (True, False)}
    return model._replace(apply=lambda params, stats, rows, key, train: by[bool(train)](params, stats, rows, key))


def inputs(rows: PyTree) -> PyTree:
    """What the network is called with."""
    return rows["x"] if isinstance(rows, dict) and "x" in rows else rows


def _takes(call: Callable, name: str) -> bool:
    parameters = inspect.signature(call).parameters.values()
    return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)


def _mask(call: Callable, rows: PyTree) -> dict[str, Any]:
    """The keyword `mask`, where the module names it and the rows have it: for the statistics of batch norm."""
    named = "mask" in inspect.signature(call).parameters
    return {"mask": rows["mask"]} if named and isinstance(rows, dict) and "mask" in rows else {}


def _from_nnx(make: Callable[[nnx.Rngs, PyTree], nnx.Module]) -> Model:
    graphs: dict[bool, Any] = {}  # train -> graph definition, filled by the first init or apply that needs them
    streams: dict[str, Any] = {}  # shapes of the module's random streams: keyed anew by each batch, never kept

    def split(key, rows):
        module = make(nnx.Rngs(key), rows)
        for train in (True, False):
            module.train() if train else module.eval()
            graphs[train], weights, stats, random, rest = nnx.split(module, nnx.Param, nnx.BatchStat, nnx.RngState, ...)
            if jax.tree.leaves(rest):
                kinds = sorted({type(variable).__name__ for _, variable in nnx.to_flat_state(rest)})
                raise ConfigError(f"expected model: variables of kind Param and BatchStat, got {', '.join(kinds)}")
            streams.update(jax.eval_shape(lambda random=random: nnx.to_pure_dict(random)))
        return nnx.to_pure_dict(weights), nnx.to_pure_dict(stats)

    def init(key, rows):
        return split(key, rows)

    def apply(params, stats, rows, key, train):
        if not graphs:
            jax.eval_shape(split, jax.random.key(0), rows)
        random = nnx.State(_fresh(streams, jax.random.key(0) if key is None else key))
        module = nnx.merge(graphs[train], nnx.State(params), nnx.State(stats), random, copy=True)
        extra = {"rngs": nnx.Rngs(key)} if train and _takes(module.__call__, "rngs") else {}
        output = module(inputs(rows), **extra, **_mask(module.__call__, rows))
        return output, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))

    return Model(init, apply)


def _fresh(streams: PyTree, key: jax.Array) -> PyTree:
    """Random streams of these shapes, as if they had just been made from a batch's key."""
    leaves, structure = jax.tree.flatten(streams)

    def one(number, leaf):
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.zeros(leaf.shape, leaf.dtype)  # how often a stream was drawn from
        mine = jax.random.fold_in(key, number)
        return jax.random.split(mine, leaf.shape) if leaf.shape else mine

    return jax.tree.unflatten(structure, [one(number, leaf) for number, leaf in enumerate(leaves)])


def _from_linen(module: Any) -> Model:
    mode = {"train": lambda train: {"train": train}, "deterministic": lambda train: {"deterministic": not train}}
    given = next((flag for name, flag in mode.items() if _takes(module.__call__, name)), lambda train: {})

    def init(key, rows):
        variables = dict(module.init({"params": key, "dropout": key}, inputs(rows), **given(False)))
        return variables.pop("params", {}), variables

    def apply(params, stats, rows, key, train):
        if not train:
            return module.apply({"params": params, **stats}, inputs(rows), **given(False)), stats
        output, renewed = module.apply(
            {"params": params, **stats}, inputs(rows), **given(True), **_mask(module.__call__, rows),
            rngs={"dropout": key}, mutable=list(stats),
        )  # fmt: skip
        return output, dict(renewed)

    return Model(init, apply)
