"""How a learning step computes: in bfloat16, with less memory, in parts of a batch. What is learned stays what it was.

`light` turns a model's forward pass, as it is while it learns; `in_parts` a loss over a batch into the same loss over
its parts, one after the other, of which each keeps only what its own backward pass needs.

References: Micikevicius et al., "Mixed precision training", ICLR 2018 (parameters and their updates in float32); Chen
et al., "Training deep nets with sublinear memory cost", arXiv:1604.06174 (rematerialisation).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from learner_jax.errors import ConfigError, StudyError
from learner_jax.specs import Compute
from learner_jax.types import Batch, Model, PyTree

Apply = Callable[..., tuple[PyTree, PyTree]]


def _to(dtype: Any, tree: PyTree) -> PyTree:
    """Floating leaves in another dtype; all others as they are."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x, tree)


def _lower(x: PyTree) -> PyTree:
    """Inputs in bfloat16; days, which would be rounded to weeks, as they are."""
    if isinstance(x, dict) and "days" in x:
        return {**_to(jnp.bfloat16, x), "days": x["days"]}
    return _to(jnp.bfloat16, x)


def light(model: Model, compute: Compute) -> Apply:
    """The model's `apply` as a learning step calls it.

    Args:
      model: of which outputs and statistics keep the dtypes that they have without this.
      compute: dtype "bfloat16" computes forward and backward of float32 weights and inputs in it; remat computes the
        forward pass again in the backward pass in place of keeping it.
    """

    def apply(params: PyTree, stats: PyTree, rows: PyTree, key: Any, train: bool) -> tuple[PyTree, PyTree]:
        if compute.dtype == "full":
            return model.apply(params, stats, rows, key, train)
        wide = jnp.result_type(float)
        x = {**rows, "x": _lower(rows["x"])} if isinstance(rows, dict) and "x" in rows else rows
        output, new = model.apply(_to(jnp.bfloat16, params), stats, x, key, train)
        return _to(wide, output), jax.tree.map(lambda old, leaf: leaf.astype(old.dtype), stats, new)

    return jax.checkpoint(apply, static_argnums=(4,)) if compute.remat else apply


def in_parts(
    summed: Callable[[PyTree, Batch], tuple[Any, PyTree]], parts: int
) -> Callable[[PyTree, Batch], tuple[Any, PyTree]]:
    """The same sum over a batch's rows, so many parts of the batch one after the other.

    Its gradient is the sum of the parts' gradients: they are accumulated in the backward pass.

    Args:
      summed: (weights, batch) -> (sum over the unmasked rows, the model's new statistics).
      parts: 1 leaves it as it is.

    Raises:
      ConfigError: while tracing, the batch cannot be cut into so many equal parts.
      StudyError: while tracing, the model has statistics, which would be of parts and not of batches.
    """
    if parts == 1:
        return summed

    def of(weights: PyTree, batch: Batch) -> tuple[Any, PyTree]:
        size = batch.mask.shape[0]
        if size % parts:
            raise ConfigError(f"compute.microbatches: expected a divisor of batch_size {size}, got {parts}")
        if jax.tree.leaves(weights["stats"]):
            raise StudyError(
                "compute.microbatches: expected a model without batch statistics, whose are those of a whole batch"
            )
        cut = jax.tree.map(lambda x: x.reshape(parts, size // parts, *x.shape[1:]), (batch.rows, batch.mask))

        @jax.checkpoint
        def one(weights: PyTree, rows: PyTree, mask: Any, number: Any) -> Any:
            part = batch._replace(rows=rows, mask=mask, key=jax.random.fold_in(batch.key, number))
            return summed(weights, part)[0]

        def turn(total: Any, part: tuple[Any, Any]) -> tuple[Any, None]:
            number, (rows, mask) = part
            return total + one(weights, rows, mask, number), None

        zero = jnp.zeros((), jnp.result_type(float))
        return jax.lax.scan(turn, zero, (jnp.arange(parts, dtype=jnp.int32), cut))[0], {}

    return of
