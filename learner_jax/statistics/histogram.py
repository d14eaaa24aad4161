"""Quantiles from counts in bins whose edges are agreed beforehand: off by at most one bin."""

from __future__ import annotations

import numpy as np


def histogram(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Counts of one site, int64[bins + 2]: below the first edge, each bin [low, high), at or above the last edge.

    Args:
      values: float[n]; nan is left out.
      edges: float[bins + 1], ascending.
    """
    place = np.searchsorted(edges, values[~np.isnan(values)], side="right")
    return np.bincount(place, minlength=len(edges) + 1).astype(np.int64)


def quantile(total: np.ndarray, edges: np.ndarray, share: float) -> float:
    """The bin edge at or above which the `share`-quantile lies no further than one bin; nan without rows.

    Args:
      total: int64[bins + 2], the summed histograms.
      edges: float[bins + 1].
      share: in [0, 1].

    Returns:
      The lower edge of the bin that holds the smallest value with at least `share` of all values at or below it;
      the first edge for those below it, the last for those above.
    """
    rows = int(total.sum())
    if rows == 0:
        return float("nan")
    wanted = max(int(np.ceil(share * rows)), 1)
    place = int(np.searchsorted(np.cumsum(total), wanted))
    return float(edges[min(max(place - 1, 0), len(edges) - 1)])
