"""Whether told chances come true: deciles, and the intercept and slope of a logistic recalibration.

Slope b and intercept a, by maximum likelihood:

    logit P(y = 1) = a0 + b logit(told)        slope b: below 1, the told chances are too extreme
    logit P(y = 1) = a + logit(told)           intercept a: below 0, too many events were told

Reference: Van Calster et al., Calibration: the Achilles heel of predictive analytics, BMC Medicine 17 (2019).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from learner_jax.types import Array

EDGE = 1e-6  # told chances are held this far from 0 and 1 where their logit is taken
ENOUGH = 20  # rows in a bin


def calibrate(told: Array, y: Array, bins: int = 10) -> dict[str, Any]:
    """What was told against what came.

    Args:
      told: float[n], the told chance of the event, in [0, 1].
      y: [n] in {0, 1}.
      bins: bins of equal size, in the order of `told`; fewer where there are not 20 rows for each. Equal told chances
        are never parted.

    Returns:
      {"calibration": [{"told", "observed", "low", "high", "rows"}, ...] (shares in [0, 1]; Wilson's 95 % interval),
      "intercept": float | None, "slope": float | None, "intercept_se", "slope_se", "told": mean told chance}.
      Intercept and slope are None with fewer than 10 events, 10 rows without, or told chances that are all equal.
    """
    told, y = np.asarray(told, np.float64), np.asarray(y, np.float64)
    found: dict[str, Any] = {"calibration": _table(told, y, bins)}
    found["told"] = float(told.mean()) if len(told) else None
    found |= dict.fromkeys(("intercept", "slope", "intercept_se", "slope_se"))
    if min(y.sum(), len(y) - y.sum()) < 10:
        return found
    clipped = np.clip(told, EDGE, 1 - EDGE)
    logit = np.log(clipped) - np.log1p(-clipped)
    ones = np.ones((len(y), 1))
    fitted, error = _newton(ones, y, logit)
    if np.isfinite(error[0]):
        found |= {"intercept": float(fitted[0]), "intercept_se": float(error[0])}
    if np.ptp(logit) > 1e-9:
        fitted, error = _newton(np.column_stack([ones, logit]), y, np.zeros(len(y)))
        if np.isfinite(error[1]):
            found |= {"slope": float(fitted[1]), "slope_se": float(error[1])}
    return found


def _table(told: np.ndarray, y: np.ndarray, bins: int) -> list[dict[str, float]]:
    bins = max(1, min(bins, len(y) // ENOUGH))
    if len(y) == 0:
        return []
    # The last row of each bin, moved up to the end of its run of equal told chances.
    ascending = np.sort(told)
    ends = ascending[np.ceil(np.arange(1, bins + 1) * len(y) / bins).astype(int) - 1]
    place = np.searchsorted(np.unique(ends), told, side="left")
    rows = []
    for at in np.unique(place):
        mine = place == at
        n, events = int(mine.sum()), float(y[mine].sum())
        low, high = wilson(events, n)
        rows.append({"told": float(told[mine].mean()), "observed": events / n, "low": low, "high": high, "rows": n})
    return rows


def wilson(events: float, rows: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `rows`."""
    z2 = 1.959963984540054**2
    share = events / rows
    middle = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = (z2 * (share * (1 - share) / rows + z2 / (4 * rows**2))) ** 0.5 / (1 + z2 / rows)
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def _newton(x: np.ndarray, y: np.ndarray, offset: np.ndarray, steps: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression of y on x [n, k] beside an offset; coefficients and standard errors, nan if it runs away."""
    beta = np.zeros(x.shape[1])
    nothing = np.full(x.shape[1], np.nan)
    information = np.eye(x.shape[1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(x @ beta + offset, -40, 40)))
        information = (x * (p * (1 - p))[:, None]).T @ x
        if np.linalg.cond(information) > 1e12:
            return beta, nothing
        move = np.linalg.solve(information, x.T @ (y - p))
        beta = beta + np.clip(move, -5, 5)
        if np.abs(move).max() < 1e-10:
            return beta, np.sqrt(np.diag(np.linalg.inv(information)))
    return beta, nothing
