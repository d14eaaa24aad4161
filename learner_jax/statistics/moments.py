"""Mean and standard deviation from sums: rows, sum and sum of squares about a fixed centre.

For values x, a centre c that is part of the checklist (so the same at every site), and n rows:

    mean = c + sum(x - c) / n          variance = sum((x - c)^2) / n - (sum(x - c) / n)^2

A centre near the mean keeps the subtraction harmless: with c = 0, a column around 1e8 loses all its digits.
"""

from __future__ import annotations

import numpy as np


def moments(values: np.ndarray, centre: np.ndarray | float = 0.0) -> dict[str, np.ndarray]:
    """Sums of one site; missing values (nan) are left out.

    Args:
      values: float[n, d].
      centre: float[d] or a scalar, agreed beforehand.

    Returns:
      {"rows": int64[d] values that are present, "sum": float64[d], "squares": float64[d]}.
    """
    present = ~np.isnan(values)
    away = np.where(present, values.astype(np.float64) - centre, 0.0)
    return {
        "rows": present.sum(axis=0, dtype=np.int64),
        "sum": away.sum(axis=0, dtype=np.float64),
        "squares": (away * away).sum(axis=0, dtype=np.float64),
    }


def mean_and_deviation(total: dict[str, np.ndarray], centre: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation, float64[d] each; (centre, 0) where no row was present."""
    rows = np.maximum(total["rows"], 1)
    shift = total["sum"] / rows
    variance = np.maximum(total["squares"] / rows - shift * shift, 0.0)
    return centre + shift, np.sqrt(variance)
