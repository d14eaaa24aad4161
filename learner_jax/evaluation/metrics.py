"""Metrics watched in each round: folds over a site's rows, of which only sums leave the site.

Each is a `types.Metric`. `zero`, `step` and `release` are JAX and run inside jit, vmap and while loops, in whichever
float is the default (float64 under x64); `value` is NumPy. Counts are int32 in the carry and floats once released.

A ranking figure cannot be added over sites from rows, and a histogram of scores must not leave one. So `auroc` and
`auprc` keep a histogram *at* the site and release one weighted number; the sum over sites is an average:

    auroc   sum(A_s / var_s) / sum(1 / var_s)       var_s of Hanley and McNeil: an average over sites, not of all rows
    auprc   sum(events_s * P_s) / sum(events_s)

A site with fewer than 10 events, or fewer than 10 rows without, releases zeros: too few to judge.
A logit that is not a number counts as wrong (`brier` 1, `log_loss` 100 a row) or as a tie in the middle (`auroc`,
`auprc`), so that a diverged model looks bad and the sums stay finite.

Reference: Hanley and McNeil, The meaning and use of the area under a ROC curve, Radiology 143 (1982), equations 1-3.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from learner_jax.types import Array, Metric

BINS = 512
LIMIT = 8.0  # histogram of logits in [-8, 8]; what lies outside falls into the first or last bin
ENOUGH = 10  # events, and rows without the event, below which a site's ranking is not told
WORST = 100.0  # the largest log loss of one row, nats


def _float() -> Any:
    return jax.dtypes.canonicalize_dtype(float)


def _logits(output: Array) -> Array:
    """float[B] or float[B, 1] to the working float, [B]."""
    output = jnp.asarray(output).astype(_float())
    return output.reshape(output.shape[:1]) if output.ndim == 2 and output.shape[1] == 1 else output


# ---------------------------------------------------------------------------------------------- ranking


def _histogram() -> Array:
    """int32[2, BINS]: rows without the event, rows with it."""
    return jnp.zeros((2, BINS), jnp.int32)


def _count(carry: Array, output: Array, target: Array, mask: Array) -> Array:
    logits = jnp.nan_to_num(_logits(output), nan=0.0)
    place = jnp.floor((jnp.clip(logits, -LIMIT, LIMIT) + LIMIT) * (BINS / (2 * LIMIT))).astype(jnp.int32)
    event = (target > 0.5).astype(jnp.int32).reshape(place.shape)
    return carry.at[event, jnp.minimum(place, BINS - 1)].add(mask.astype(jnp.int32))


def _released(figure: Array, weight: Array, events: Array, others: Array) -> dict[str, Array]:
    enough = (events >= ENOUGH) & (others >= ENOUGH)
    weight = jnp.where(enough, weight, jnp.zeros_like(weight))
    return {"weighted": jnp.where(enough, figure * weight, jnp.zeros_like(weight)), "weight": weight}


def _release_auroc(carry: Array) -> dict[str, Array]:
    others, events = carry.astype(_float())
    m, n = others.sum(), events.sum()
    below = jnp.cumsum(others) - others / 2
    area = jnp.sum(events * below) / jnp.maximum(m * n, 1)
    # Drawn half a pair towards 1/2 for the variance only: a site that ranks perfectly by luck is not infinitely sure.
    fewer = jnp.minimum(m, n)
    drawn = (area * fewer + 0.5) / (fewer + 1)
    q1, q2 = drawn / (2 - drawn), 2 * drawn**2 / (1 + drawn)
    spread = drawn * (1 - drawn) + (n - 1) * (q1 - drawn**2) + (m - 1) * (q2 - drawn**2)
    judged = (m >= ENOUGH) & (n >= ENOUGH)
    weight = m * n / jnp.where(judged, spread, jnp.ones_like(spread))
    return _released(area, weight, n, m)


def _release_auprc(carry: Array) -> dict[str, Array]:
    others, events = carry.astype(_float())[:, ::-1]  # from the highest score down
    m, n = others.sum(), events.sum()
    hits, calls = jnp.cumsum(events), jnp.cumsum(events + others)
    precision = jnp.sum(events * hits / jnp.maximum(calls, 1)) / jnp.maximum(n, 1)
    return _released(precision, n, n, m)


def _average(sums: dict[str, Any]) -> float:
    weight = float(np.asarray(sums["weight"], np.float64))
    return float(np.asarray(sums["weighted"], np.float64)) / weight if weight > 0 else float("nan")


def standard_error(sums: dict[str, Any]) -> float:
    """Standard error of the `auroc` that these sums give.

    Args:
      sums: what `auroc.release` gave, added over sites.

    Returns:
      1 / sqrt(sum of weights), the sites being independent; nan where no site could be judged.
    """
    weight = float(np.asarray(sums["weight"], np.float64))
    return weight**-0.5 if weight > 0 else float("nan")


# ---------------------------------------------------------------------------------------------- means over rows


def _nothing() -> dict[str, Array]:
    return {"sum": jnp.zeros((), _float()), "rows": jnp.zeros((), jnp.int32)}


def _add(carry: dict[str, Array], each: Array, mask: Array) -> dict[str, Array]:
    """Add one figure a row, float[B]; masked rows add nothing, whatever they hold."""
    each = jnp.where(mask, each, jnp.zeros_like(each)).astype(_float())
    return {"sum": carry["sum"] + each.sum(), "rows": carry["rows"] + mask.sum(dtype=jnp.int32)}


def _step_brier(carry: dict[str, Array], output: Array, target: Array, mask: Array) -> dict[str, Array]:
    each = jnp.square(jax.nn.sigmoid(_logits(output)) - target.astype(_float()))
    return _add(carry, jnp.where(jnp.isnan(each), jnp.ones_like(each), each), mask)


def _step_log_loss(carry: dict[str, Array], output: Array, target: Array, mask: Array) -> dict[str, Array]:
    logits = _logits(output)
    if logits.ndim > target.ndim:  # classes: float[B, C] against int[B]
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), target.astype(jnp.int32)[..., None], axis=-1)
        each = -chosen[..., 0]
    else:
        logits = jnp.clip(logits, -WORST, WORST)
        each = jax.nn.softplus(logits) - logits * target.astype(_float())
    return _add(carry, jnp.where(each <= WORST, each, jnp.full_like(each, WORST)), mask)


def _step_accuracy(carry: dict[str, Array], output: Array, target: Array, mask: Array) -> dict[str, Array]:
    logits = _logits(output)
    if logits.ndim > target.ndim:
        right = (jnp.argmax(logits, axis=-1) == target) & ~jnp.isnan(logits).any(axis=-1)
    else:
        right = ((logits > 0) == (target > 0.5)) & ~jnp.isnan(logits)
    return _add(carry, right.astype(_float()), mask)


def _step_mse(carry: dict[str, Array], output: Array, target: Array, mask: Array) -> dict[str, Array]:
    error = jnp.square(_logits(output) - target.astype(_float()))
    largest = jnp.finfo(error.dtype).max ** 0.5  # a diverged row; a sum of these stays finite
    each = jnp.where(error <= largest, error, jnp.full_like(error, largest))
    return _add(carry, each.reshape(each.shape[0], -1).mean(axis=-1), mask)


def _release_mean(carry: dict[str, Array]) -> dict[str, Array]:
    return {"sum": carry["sum"], "rows": carry["rows"].astype(_float())}


def _mean(sums: dict[str, Any]) -> float:
    rows = float(np.asarray(sums["rows"], np.float64))
    return float(np.asarray(sums["sum"], np.float64)) / rows if rows > 0 else float("nan")


# ---------------------------------------------------------------------------------------------- the metrics

auroc = Metric("auroc", _histogram, _count, _release_auroc, _average)
"""Area under the ROC curve of logits float[B] against {0, 1}[B]: an average over sites, weighted by 1 / variance."""

auprc = Metric("auprc", _histogram, _count, _release_auprc, _average)
"""Average precision of logits float[B] against {0, 1}[B]: an average over sites, weighted by events."""

brier = Metric("brier", _nothing, _step_brier, _release_mean, _mean, higher_is_better=False)
"""Mean squared error of the told chance, sigmoid(logits float[B]), against {0, 1}[B]."""

log_loss = Metric("log_loss", _nothing, _step_log_loss, _release_mean, _mean, higher_is_better=False)
"""Mean negative log-likelihood, nats: logits float[B] against {0, 1}[B], or float[B, C] against int[B]."""

accuracy = Metric("accuracy", _nothing, _step_accuracy, _release_mean, _mean)
"""Share of rows whose likelier answer is right: logits float[B] against {0, 1}[B], or float[B, C] against int[B]."""

mse = Metric("mse", _nothing, _step_mse, _release_mean, _mean, higher_is_better=False)
"""Mean squared error of float[B] (or float[B, ...], averaged within a row) against targets of the same shape."""
