"""How often a column is missing, over all sites, from each site's counts."""

from __future__ import annotations

import numpy as np


def missing(absent: np.ndarray) -> dict[str, np.ndarray]:
    """Counts of one site.

    Args:
      absent: bool[n, d], True where a value is missing.

    Returns:
      {"rows": int64[], "missing": int64[d]}.
    """
    return {"rows": np.array(len(absent), np.int64), "missing": absent.sum(axis=0, dtype=np.int64)}


def missing_rate(total: dict[str, np.ndarray]) -> np.ndarray:
    """Share of rows in which each column is missing, float64[d]; nan without rows."""
    rows = int(total["rows"])
    return total["missing"] / rows if rows else np.full(np.shape(total["missing"]), np.nan)
