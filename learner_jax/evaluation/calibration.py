"""Whether told chances come true: deciles, and the intercept and slope of a logistic recalibration.

Slope b and intercept a, by maximum likelihood:

    logit P(y = 1) = a0 + b logit(told)        slope b: below 1, the told chances are too extreme
    logit P(y = 1) = a + logit(told)           intercept a: below 0, too many events were told

Reference: Van Calster et al., Calibration: the Achilles heel of predictive analytics, BMC Medicine 17 (2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from learner_jax.errors import DataError
from learner_jax.types import Array

EDGE = 1e-6  # told chances are held this far from 0 and 1 where their logit is taken
ENOUGH = 20  # rows in a bin
FOR_A_SLOPE = 100  # events, and rows without: with fewer the slope says more of chance than of the model


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
      The intercept is None with fewer than 10 events or 10 rows without, the slope with fewer than 100 of either, or
      where all told chances are equal.
    """
    told, y = np.asarray(told, np.float64), np.asarray(y, np.float64)
    found: dict[str, Any] = {"calibration": _table(told, y, bins)}
    found["told"] = float(told.mean()) if len(told) else None
    found |= dict.fromkeys(("intercept", "slope", "intercept_se", "slope_se"))
    if min(y.sum(), len(y) - y.sum()) < 10:
        return found
    fitted, error = newton(lambda at: slopes(told, y, at), 1)
    if np.isfinite(error[0]):
        found |= {"intercept": float(fitted[0]), "intercept_se": float(error[0])}
    if min(y.sum(), len(y) - y.sum()) >= FOR_A_SLOPE and np.ptp(_logit(told)) > 1e-9:
        fitted, error = newton(lambda at: slopes(told, y, at), 2)
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


class Slopes(NamedTuple):
    """Sums over rows around some coefficients; they add over sites.

    Attributes:
      gradient: float64[k], of the log-likelihood.
      information: float64[k, k].
    """

    gradient: np.ndarray
    information: np.ndarray


def slopes(told: Array, y: Array, at: np.ndarray) -> Slopes:
    """A site's sums for one Newton step of the recalibration.

    Args:
      told: float[n], chances.
      y: [n] in {0, 1}.
      at: float64[1], the intercept beside logit(told); or float64[2], intercept and slope.
    """
    logit = _logit(told)
    x = np.ones((len(logit), 1)) if len(at) == 1 else np.column_stack([np.ones(len(logit)), logit])
    log_odds = x @ at + (logit if len(at) == 1 else 0.0)
    p = 1 / (1 + np.exp(-np.clip(log_odds, -40, 40)))
    return Slopes(x.T @ (np.asarray(y, np.float64) - p), (x * (p * (1 - p))[:, None]).T @ x)


def newton(ask: Callable[[np.ndarray], Slopes], size: int, steps: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """The recalibration of all rows that `ask` sums over.

    Args:
      ask: coefficients -> the summed slopes there; over sites, one exchange a step, and about six are enough.
      size: 1 for the intercept alone, 2 for intercept and slope.
      steps: at most.

    Returns:
      (coefficients, standard errors), float64[size] each; nan if it runs away, as where all outcomes are alike.
    """
    beta, nothing = np.zeros(size), np.full(size, np.nan)
    for _ in range(steps):
        gradient, information = ask(beta)
        if not np.isfinite(information).all() or np.linalg.cond(information) > 1e12:
            return beta, nothing
        move = np.linalg.solve(information, gradient)
        beta = beta + np.clip(move, -5, 5)
        if np.abs(move).max() < 1e-10:
            return beta, np.sqrt(np.diag(np.linalg.inv(information)))
    return beta, nothing


class Recalibration(NamedTuple):
    """How told chances are moved: logit(new) = intercept + slope * logit(told).

    Attributes:
      intercept, slope: slope 1 where there were too few to find one.
      intercept_se, slope_se: standard errors; that of a slope that was not found is None.
      rows, events: that it was found by.
      told, observed: mean told chance before, and share with the event.
      needed: chance of outcomes at least so far from what was told, were that right (score test of intercept 0 and
        slope 1).
    """

    intercept: float
    slope: float
    intercept_se: float
    slope_se: float | None
    rows: int
    events: int
    told: float
    observed: float
    needed: float

    def move(self, told: Array) -> np.ndarray:
        """Chances float64[n] after it."""
        return 1 / (1 + np.exp(-(self.intercept + self.slope * _logit(told))))


def recalibrate(told: Array, y: Array, group: Array | None = None) -> Recalibration:
    """The recalibration of a model to new rows; errors by patient.

    Args:
      told: float[n], chances.
      y: [n] in {0, 1}; with fewer than 100 patients who have the event, or who have not, the intercept alone is moved.
      group: int[n], the patient of each row; None if each row is another.

    Raises:
      DataError: fewer than 10 patients of either, or higher told chances do not mean more events here.

    References: Steyerberg, Clinical Prediction Models, chapter 20 (2019); Vergouwe et al., Statistics in Medicine
    36:4529 (2017), on how much may be moved by how many; Liang and Zeger, Biometrika 73:13 (1986), the errors.
    """
    told, y = np.asarray(told, np.float64), np.asarray(y, np.float64)
    group = np.arange(len(y)) if group is None else np.unique(np.asarray(group), return_inverse=True)[1].ravel()
    events, rest = (len(np.unique(group[y == one])) for one in (1, 0))
    if min(events, rest) < 10:
        raise DataError(
            f"recalibrate: expected at least 10 patients with the outcome and 10 without, got {events} and {rest}: "
            "with so few, the model's own chances are the better guess"
        )
    size = 2 if min(events, rest) >= FOR_A_SLOPE and np.ptp(_logit(told)) > 1e-9 else 1
    fitted, error = newton(lambda at: slopes(told, y, at), size)
    if not np.isfinite(error).all():
        raise DataError("recalibrate: expected told chances and outcomes that a line fits, got others")
    slope = float(fitted[1]) if size == 2 else 1.0
    if slope <= 0:
        raise DataError(
            f"recalibrate: expected higher told chances to mean more events, got a slope of {slope:.2f}: the model "
            "does not rank these rows, and no recalibration mends that"
        )
    inverse = np.linalg.inv(slopes(told, y, fitted).information)
    error = np.sqrt(np.diag(inverse @ _between(told, y, group, fitted) @ inverse))
    return Recalibration(
        intercept=float(fitted[0]),
        slope=slope,
        intercept_se=float(error[0]),
        slope_se=float(error[1]) if size == 2 else None,
        rows=len(y),
        events=int(y.sum()),
        told=float(told.mean()),
        observed=float(y.mean()),
        needed=_unlikely(told, y, group, size),
    )


def _between(told: np.ndarray, y: np.ndarray, group: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Sum over patients of the outer product of their gradients, float64[k, k]."""
    logit = _logit(told)
    x = np.ones((len(logit), 1)) if len(at) == 1 else np.column_stack([np.ones(len(logit)), logit])
    log_odds = x @ at + (logit if len(at) == 1 else 0.0)
    each = x * (y - 1 / (1 + np.exp(-np.clip(log_odds, -40, 40))))[:, None]
    of = np.stack([np.bincount(group, column) for column in each.T], axis=1)
    return of.T @ of


def _unlikely(told: np.ndarray, y: np.ndarray, group: np.ndarray, size: int) -> float:
    """p of the score test that intercept 0 (and slope 1) hold; chi squared with one or two degrees of freedom."""
    right = np.array([0.0, 1.0])[:size]
    gradient = slopes(told, y, right).gradient
    statistic = float(gradient @ np.linalg.solve(_between(told, y, group, right), gradient))
    return float(np.exp(-statistic / 2)) if size == 2 else math.erfc(math.sqrt(statistic / 2))


def _logit(told: Array) -> np.ndarray:
    clipped = np.clip(np.asarray(told, np.float64), EDGE, 1 - EDGE)
    return np.log(clipped) - np.log1p(-clipped)
