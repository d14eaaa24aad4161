"""How well continuous values are told, column by column: Pearson's r, root mean squared error, coverage of intervals.

Of n cells and P proteins, where `seen` says which entries were measured; the others are never read, and may hold
anything. Over the cells c of protein p that were measured:

    r_p = sum (y_c - mean y)(t_c - mean t) / sqrt(sum (y_c - mean y)^2 sum (t_c - mean t)^2)

with Fisher's interval tanh(atanh r +- 1.96 / sqrt(n - 3)), as if y and t were jointly normal. Figures over all proteins
have intervals by a bootstrap over cells (`resample`): the same draws for every model, so that differences are paired.

Reference: Fisher, On the probable error of a coefficient of correlation, Metron 1 (1921). Wilson, Probable inference,
J. Am. Statist. Assoc. 22 (1927), for shares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from learner_jax.evaluation.bootstrap import patient_counts
from learner_jax.evaluation.calibration import wilson

ENOUGH = 10
"""Cells that a correlation needs."""
Z = 1.959963984540054
Figure = dict[str, float]


def pearson(y: np.ndarray, told: np.ndarray, seen: np.ndarray) -> list[Figure | None]:
    """Pearson's r of each protein.

    Args:
      y: float[n, P], measured.
      told: float[n, P], predicted.
      seen: bool[n, P], where y was measured.

    Returns:
      Of each protein {"value", "low", "high", "se"}: 95 % interval by Fisher's z, and the standard error of r that goes
      with it, (1 - r^2) / sqrt(n - 3). None with fewer than 10 cells, or where y or told is the same in all of them.
    """
    n = seen.sum(0)
    (a, va), (b, vb) = _standard(y, seen), _standard(told, seen)
    found: list[Figure | None] = []
    for at in range(seen.shape[1]):
        if n[at] < ENOUGH or not (va[at] and vb[at]):
            found.append(None)
            continue
        r = float(min(1.0, max(-1.0, np.dot(a[:, at], b[:, at]) / n[at])))
        z, half = math.atanh(min(1 - 1e-12, max(-1 + 1e-12, r))), Z / math.sqrt(n[at] - 3)
        low, high = min(r, math.tanh(z - half)), max(r, math.tanh(z + half))
        found.append({"value": r, "low": low, "high": high, "se": (1 - r * r) / math.sqrt(n[at] - 3)})
    return found


def rmse(y: np.ndarray, told: np.ndarray, seen: np.ndarray) -> list[Figure | None]:
    """Root mean squared error of each protein, in the units of y.

    Args:
      y, told, seen: as `pearson`.

    Returns:
      Of each protein {"value", "low", "high", "se"}: se and 95 % interval by the delta method, from the spread of the
      squared errors. None with fewer than 2 cells.
    """
    found: list[Figure | None] = []
    for at in range(seen.shape[1]):
        square = (y[seen[:, at], at] - told[seen[:, at], at]) ** 2
        if len(square) < 2:
            found.append(None)
            continue
        value = math.sqrt(square.mean())
        se = float(square.std(ddof=1)) / math.sqrt(len(square)) / (2 * value) if value > 0 else 0.0
        found.append({"value": value, "low": max(0.0, value - Z * se), "high": value + Z * se, "se": se})
    return found


def coverage(y: np.ndarray, low: np.ndarray, high: np.ndarray, seen: np.ndarray) -> list[Figure | None]:
    """Share of each protein's cells whose value lies in its interval, ends included.

    Args:
      y: float[n, P], measured.
      low, high: float[n, P], ends of the predicted intervals.
      seen: bool[n, P].

    Returns:
      Of each protein {"value", "low", "high", "se"}, Wilson's 95 % interval; None with fewer than 10 cells.
    """
    found: list[Figure | None] = []
    for at in range(seen.shape[1]):
        rows = seen[:, at]
        n = int(rows.sum())
        if n < ENOUGH:
            found.append(None)
            continue
        inside = int(((low[rows, at] <= y[rows, at]) & (y[rows, at] <= high[rows, at])).sum())
        ends = wilson(inside, n)
        share = inside / n
        found.append({"value": share, "low": ends[0], "high": ends[1], "se": math.sqrt(share * (1 - share) / n)})
    return found


def resample(
    told: Mapping[str, Mapping[str, np.ndarray]],
    y: np.ndarray,
    seen: np.ndarray,
    rng: np.random.Generator,
    draws: int = 1000,
) -> dict[str, dict[str, np.ndarray]]:
    """The figures in each of many draws of the cells, with replacement.

    Args:
      told: model -> {"mean": float[n, P], and perhaps "low", "high"}.
      y: float[n, P].
      seen: bool[n, P].
      rng: stream of random numbers.
      draws: how many.

    Returns:
      model -> {"r": float64[draws, P], "rmse": float64[draws] over all measured entries, "coverage": float64[draws]};
      nan where a draw cannot be judged. Draw k is the same cells for every model. A cell's proteins are drawn together.
    """
    n, count = seen.shape
    a, _ = _standard(y, seen)
    # Everything that a draw sums over its cells, one row each: a draw is then one column of a matrix product.
    sums = [seen.T, seen.sum(1)[None], a.T, (a**2).T]
    for one in told.values():
        b, _ = _standard(one["mean"], seen)
        hit = seen & (one["low"] <= y) & (y <= one["high"]) if "low" in one else np.zeros_like(seen)
        error = np.where(seen, (one["mean"] - y) ** 2, 0.0)
        sums += [b.T, (b**2).T, (a * b).T, error.sum(1)[None], hit.sum(1)[None]]
    rows = np.ascontiguousarray(np.concatenate(sums), np.float64)
    drawn = np.concatenate([rows @ w.astype(np.float64) for w in patient_counts(n, n, rng, draws)], axis=1)
    ends = np.cumsum([len(part) for part in sums])[:-1]
    cells, (entries,), sum_a, square_a, *each = np.split(drawn, ends)
    found = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_a = sum_a / cells
        spread_a = square_a / cells - mean_a**2
        for at, (model, one) in enumerate(told.items()):
            sum_b, square_b, product, (error,), (hit,) = each[5 * at : 5 * at + 5]
            mean_b = sum_b / cells
            spread_b = square_b / cells - mean_b**2
            usable = (spread_a > 1e-9) & (spread_b > 1e-9)
            r = np.where(usable, (product / cells - mean_a * mean_b) / np.sqrt(spread_a * spread_b), np.nan)
            inside = hit / entries if "low" in one else np.full(draws, np.nan)
            found[model] = {"r": r.T, "rmse": np.sqrt(error / entries), "coverage": inside}
    return found


def _standard(x: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float64[n, P] of mean 0 and variance 1 over the measured cells, 0 elsewhere; bool[P] whether it varies at all."""
    x = np.where(seen, x, 0.0).astype(np.float64)
    n = np.maximum(seen.sum(0), 1)
    centred = np.where(seen, x - x.sum(0) / n, 0.0)
    scale = np.sqrt((centred**2).sum(0) / n)
    varies = np.where(seen, x, -np.inf).max(0, initial=-np.inf) > np.where(seen, x, np.inf).min(0, initial=np.inf)
    varies &= scale > 0
    return centred / np.where(varies, scale, 1.0) * varies, varies
