"""Intervals that hold what they promise, from counts alone: conformalised quantile regression over sites.

Quantiles that a network learned fit the cells that it learned from better than others. What is off is seen on cells
that it did not learn from, and put right by one number a column:

    E_i = max(low_i - y_i, y_i - high_i)     how far outside its interval a watched cell is; below 0: inside
    q   = the ceil(0.8 (n + 1))-th smallest of the n E_i
    [low - q, high + q]                      holds 80 % of cells of the same kind, whatever the network is

Sites count their E_i in steps of a tenth of a standard deviation, which may be summed, and q is read from the sum by a
straight line within its step: near the promise where values vary within a step, and short of it where they do not (a
column of few distinct values whose intervals are all alike, as of an antibody that shows its background alone). The
promise is for cells drawn like the watched ones: those of the sites that took part, in the shares that they have. The
cells also chose the round that is kept, a choice among few.

What is revealed: of each watched cell of a column, how far it is outside its interval, to a tenth of a deviation, but
not which cell, and not whether above or below. A column with fewer than `LEAST` watched cells at a site counts nothing.

References: Romano, Patterson and Candes, "Conformalized quantile regression", NeurIPS 2019, theorem 1; over sites, Lu
et al., "Federated conformal predictors", ICML 2023.
"""

from __future__ import annotations

import numpy as np

from learner_jax.errors import DataError
from learner_jax.types import Array

SHARE = 0.8
LEAST = 20
"""Cells of a column that a site counts at all, and from which intervals are moved."""
FIRST, STEP, STEPS = -6.0, 0.1, 180
"""Where the steps begin, how wide one is, and how many there are: to 12."""


def outside(y: Array, low: Array, high: Array, seen: Array, least: int = LEAST) -> np.ndarray:
    """Counts of how far cells are outside their intervals.

    Args:
      y: float[n, C], measured; each column in units of its standard deviation.
      low, high: float[n, C], ends of the intervals.
      seen: bool[n, C], which were measured.
      least: a column that fewer cells have counts nothing.

    Returns:
      int64[C, STEPS]; what is beyond the ends is in the first and the last step.

    Raises:
      DataError: an interval that is not finite.
    """
    seen = np.asarray(seen, bool)
    if not (np.isfinite(low) & np.isfinite(high))[seen].all():
        raise DataError("expected finite intervals on the watched cells, got others: a lower learning rate?")
    far = np.maximum(np.asarray(low, np.float64) - y, y - np.asarray(high, np.float64))
    far = np.where(seen, far, 0.0)
    place = np.clip(np.floor((far - FIRST) / STEP), 0, STEPS - 1).astype(np.int64)
    found = np.zeros((seen.shape[1], STEPS), np.int64)
    for column in np.flatnonzero(seen.sum(axis=0) >= least):
        found[column] = np.bincount(place[seen[:, column], column], minlength=STEPS)
    return found


def widening(counts: Array, share: float = SHARE) -> np.ndarray:
    """q of each column.

    Args:
      counts: int[C, STEPS], summed over sites.
      share: that the intervals shall hold.

    Returns:
      float64[C]; below 0: the intervals become narrower. 0 for a column with too few cells to tell.
    """
    counts = np.asarray(counts, np.int64)
    found = np.zeros(len(counts))
    for column, steps in enumerate(counts):
        n = int(steps.sum())
        rank = int(np.ceil(share * (n + 1) - 1e-9))
        if n < LEAST or rank > n:
            continue
        until = np.cumsum(steps)
        at = int(np.searchsorted(until, rank))
        found[column] = FIRST + STEP * (at + (rank - (until[at] - steps[at])) / steps[at])
    return found


def widened(low: Array, high: Array, by: Array) -> tuple[np.ndarray, np.ndarray]:
    """The intervals, moved.

    Args:
      low, high: float[n, C].
      by: float[C], q of each column.

    Returns:
      (low, high), float[n, C]; where both ends would pass each other, both in the middle.
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    middle = (low + high) / 2
    return np.minimum(low - by, middle), np.maximum(high + by, middle)
