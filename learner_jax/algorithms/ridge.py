"""Exact federated ridge regression of many targets: one round of sums gives what all rows in one place would.

For a linear `models.protein_net(hidden=())` on scores; each target over the rows in which it was seen:

    site k:  G_c = sum x x', m_c = sum x y_c, s_c = sum y_c^2, n_c over its rows with target c;  x begins with a 1
    server:  w_c = (sum G_c + penalty D)^-1 sum m_c,     D = 0 for the intercept, else 1
             sd_c = sqrt((s_c - 2 w_c' m_c + w_c' G_c w_c) / n_c);  the interval is w_c' x +- 1.2816 sd_c

It is the reference for methods that send weights. A G of d inputs says more about few rows than a gradient does: see
that no site is small.

Reference: Hoerl and Kennard, "Ridge regression", Technometrics 12 (1970); sums: any least squares.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from learner_jax import trees
from learner_jax.algorithms.local import Loss
from learner_jax.errors import StudyError
from learner_jax.types import Algorithm, Pass, PyTree, Report

NORMAL_90 = 1.2815515655446004
"""The 0.9 quantile of a standard normal."""


class Squares(NamedTuple):
    """Sums over rows, for C targets and d inputs with the 1.

    Attributes:
      gram: [C, d, d].
      moment: [C, d].
      square: [C].
      seen: [C], rows in which the target was seen.
    """

    gram: Any
    moment: Any
    square: Any
    seen: Any


class Summed(NamedTuple):
    """The carry."""

    squares: Squares
    rows: Any


def ridge(loss: Loss, *, penalty: float = 1.0) -> Algorithm:
    """Ridge regression from summed squares; one round finds it, and more change nothing.

    Args:
      loss: not used: the loss is the squared error.
      penalty: added to the diagonal of the summed squares: scikit-learn's `alpha`.

    Raises:
      StudyError: while it is built, the model is not linear, or the inputs are genes and not scores.
    """

    def sizes(weights: PyTree) -> tuple[int, int, Any]:
        params = weights["params"]
        if set(params) != {"head"} or set(params["head"]) != {"kernel", "bias"}:
            raise StudyError("ridge: expected a linear model, protein_net(hidden=()), got one with more layers")
        width, _, targets = params["head"]["kernel"].shape
        return width + 1, targets, params["head"]["kernel"].dtype

    def zero(weights: PyTree) -> Squares:
        d, c, kind = sizes(weights)
        return Squares(jnp.zeros((c, d, d), kind), jnp.zeros((c, d), kind), jnp.zeros(c, kind), jnp.zeros(c, kind))

    def step(broadcast, site, carry: Summed, batch):
        x, y = batch.rows["x"], batch.rows["y"]["value"]
        if isinstance(x, dict):
            raise StudyError("ridge: expected scores of a reduction, got genes: set task.reduction='gram'")
        seen = ((batch.rows["y"]["seen"] > 0) & batch.mask[:, None]).astype(y.dtype)
        x = jnp.concatenate([jnp.ones_like(x[:, :1]), x], axis=1)
        precise = jax.lax.Precision.HIGHEST
        found = Squares(
            jnp.einsum("bc,bi,bj->cij", seen, x, x, precision=precise),
            jnp.einsum("bc,bi->ci", seen * y, x, precision=precise),
            jnp.sum(seen * y * y, axis=0),
            jnp.sum(seen, axis=0),
        )
        return Summed(trees.add(carry.squares, found), carry.rows + jnp.sum(batch.mask, dtype=jnp.int32))

    def finish(broadcast, site, carry: Summed):
        rows = carry.rows.astype(carry.squares.seen.dtype)
        metrics = {"train/loss": jnp.zeros_like(rows), "train/rows": rows}
        return Report(trees.scale(1 / jnp.maximum(rows, 1), carry.squares), rows, metrics), site

    def apply(weights: PyTree, update: Squares, total: Any, round: Any):
        d, _, kind = sizes(weights)
        shrunk = jnp.diag(jnp.ones(d, kind).at[0].set(0)) * penalty / jnp.maximum(total, 1).astype(kind)
        least = jnp.finfo(kind).eps * jnp.eye(d, dtype=kind)  # a target that nobody measured: weights of 0
        # One target after the other: a batch of solves asks for a thread of the pool in which two host devices wait for
        # each other, and never returned (jax 0.10.2, CPU).
        w = jax.lax.map(lambda one: jnp.linalg.solve(*one), (update.gram + shrunk + least, update.moment))
        left = update.square - 2 * jnp.sum(w * update.moment, 1) + jnp.einsum("ci,cij,cj->c", w, update.gram, w)
        deviation = jnp.sqrt(jnp.maximum(left, 0) / jnp.maximum(update.seen, jnp.finfo(kind).tiny))
        half = jnp.maximum(NORMAL_90 * deviation, 1e-6)
        raw = half + jnp.log(-jnp.expm1(-half))  # softplus of it is `half`
        kernel, bias = weights["params"]["head"]["kernel"], weights["params"]["head"]["bias"]
        kernel = jnp.zeros_like(kernel).at[:, 0].set(w[:, 1:].T).at[:, 2].set(w[:, 1:].T)
        bias = jnp.stack([w[:, 0], raw, w[:, 0], raw]).astype(bias.dtype)
        found = {**weights, "params": {"head": {"kernel": kernel, "bias": bias}}}
        return trees.where(total > 0, found, weights)

    def begin(broadcast, site, found):
        return Summed(zero(broadcast), jnp.int32(0))

    return Algorithm(
        init=lambda weights, key: weights,
        enrol=lambda weights: (),
        zero=zero,
        send=lambda server: server,
        passes=(Pass(begin, step, "look"),),
        finish=finish,
        apply=apply,
        model=lambda broadcast, site: broadcast,
    )
