"""Watched in each round of a study of proteins: correlation, error and coverage, from sums over cells that add.

    n, y, p, yy, pp, yp  a protein: cells in which it was measured, sums of measured and predicted values, their
                         squares and their products.  r_c = (n yp - y p) / sqrt((n yy - y^2)(n pp - p^2))
    pearson              the mean of r_c over proteins
    rmse                 root of the mean squared difference over all measured values
    coverage             the share of measured values within the interval that is told for them

The sums are of all sites' validation cells together. Where targets are standardised within each site they are of one
scale; where they are not, a difference between laboratories counts as a correlation too.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from learner_jax.types import Array, Metric

ENOUGH = 10
"""Cells below which a protein's correlation is not told."""


def _float() -> Any:
    return jax.dtypes.canonicalize_dtype(float)


def _seen(target: Any, mask: Array) -> Array:
    return ((target["seen"] > 0) & mask[:, None]).astype(_float())


def _finite(output: Array) -> Array:
    """What is not a number counts as 0, so that sums stay finite."""
    return jnp.nan_to_num(output.astype(_float()), posinf=0, neginf=0)


def pearson(proteins: int) -> Metric:
    """Mean over proteins of the correlation of measured and predicted values.

    Args:
      proteins: of the panel.
    """

    def step(carry, output, target, mask):
        seen, y, p = _seen(target, mask), _finite(target["value"]), _finite(output["mean"])
        return carry + jnp.stack([jnp.sum(seen * one, axis=0) for one in (jnp.ones_like(y), y, p, y * y, p * p, y * p)])

    def value(sums) -> float:
        found = correlations(np.asarray(sums, np.float64))
        found = found[~np.isnan(found)]
        return float(found.mean()) if len(found) else float("nan")

    return Metric("pearson", lambda: jnp.zeros((6, proteins), _float()), step, lambda carry: carry, value)


def correlations(sums: np.ndarray) -> np.ndarray:
    """r of each protein, float64[P], from float64[6, P]; nan with fewer than 10 cells or where nothing varies."""
    n, y, p, yy, pp, yp = sums
    spread = (n * yy - y * y) * (n * pp - p * p)
    known = (n >= ENOUGH) & (spread > 1e-9 * (n * n) ** 2)
    return np.where(known, (n * yp - y * p) / np.sqrt(np.where(known, spread, 1.0)), np.nan)


def _mean(name: str, each: Any, value: Any, higher_is_better: bool) -> Metric:
    def zero():
        return {"sum": jnp.zeros((), _float()), "values": jnp.zeros((), _float())}

    def step(carry, output, target, mask):
        seen = _seen(target, mask)
        return {"sum": carry["sum"] + jnp.sum(seen * each(output, target)), "values": carry["values"] + jnp.sum(seen)}

    def of(sums) -> float:
        values = float(sums["values"])
        return value(float(sums["sum"]) / values) if values > 0 else float("nan")

    return Metric(name, zero, step, lambda carry: carry, of, higher_is_better)


def _inside(output: Any, target: Any) -> Array:
    return ((target["value"] >= output["low"]) & (target["value"] <= output["high"])).astype(_float())


rmse = _mean(
    "rmse",
    lambda output, target: (_finite(output["mean"]) - _finite(target["value"])) ** 2,
    lambda mean: mean**0.5,
    False,
)
"""Root of the mean squared difference between measured and predicted values."""

coverage = _mean("coverage", _inside, lambda mean: mean, True)
"""Share of the measured values within the interval that is told for them."""
