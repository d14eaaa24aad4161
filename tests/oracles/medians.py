"""Means and medians over sites, coordinate by coordinate, in plain loops: float64, NumPy only."""

from __future__ import annotations

import numpy as np


def spread(weight: np.ndarray, values: np.ndarray) -> np.ndarray:
    """One weight for each number of values [S, ...]; a site's weight fits its trailing axes."""
    return np.stack([np.broadcast_to(w, v.shape) for w, v in zip(weight, values, strict=True)])


def median(values: np.ndarray, weight: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Of those who are there (share > 0) and call the coordinate theirs (weight > 0); 0 where nobody does."""
    weights, out = spread(weight, values), np.zeros(values.shape[1:])
    for place in np.ndindex(*values.shape[1:]):
        mine = [float(values[(s, *place)]) for s in range(len(values)) if share[s] > 0 and weights[(s, *place)] > 0]
        mine.sort()
        if mine:
            out[place] = (mine[(len(mine) - 1) // 2] + mine[len(mine) // 2]) / 2
    return out


def mean(values: np.ndarray, weight: np.ndarray, share: np.ndarray) -> np.ndarray:
    """sum share weight value / sum share weight; 0 where nothing weighs."""
    weights, out = spread(weight, values), np.zeros(values.shape[1:])
    for place in np.ndindex(*values.shape[1:]):
        over = sum(float(share[s]) * weights[(s, *place)] for s in range(len(values)))
        if over > 0:
            out[place] = (
                sum(float(share[s]) * weights[(s, *place)] * values[(s, *place)] for s in range(len(values))) / over
            )
    return out
