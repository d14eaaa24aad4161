"""What a model is good for at the bedside: whom to act on, how many are found, and whether acting on all were better.

From counts (`histograms.Counts`), so of one site or of all sites' sum alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from learner_jax.errors import DataError
from learner_jax.evaluation import histograms
from learner_jax.evaluation.histograms import Counts
from learner_jax.types import Array

THRESHOLDS = tuple(round(0.01 * k, 2) for k in (*range(1, 10), *range(10, 30, 2), *range(30, 61, 5)))
"""Chances from which one might act, as edges of every histogram."""
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3)
"""Of all rows, for how many there may be room."""


def decisions(total: Counts) -> dict[str, Any]:
    """The decision curve, the highest few, and observed against expected.

    Args:
      total: counts with THRESHOLDS among their edges.

    Returns:
      {"thresholds": [{"threshold", "net_benefit", "treat_all", "called", "sensitivity", "precision"}, ...] up to twice
      the share with the outcome, or the third threshold; "highest": [{"share", "sensitivity", "precision",
      "called_for_one"}, ...]; "events"; "expected": the sum of told chances; "rows"}. {} without rows of both kinds.
    """
    events, others = float(total.events.sum()), float(total.others.sum())
    if not events or not others:
        return {}
    until = max(THRESHOLDS[2], 2.5 * events / (events + others))
    table = [{"threshold": t, **histograms.at_threshold(total, t)} for t in THRESHOLDS if t <= until]
    few = []
    for share in SHARES:
        try:
            few.append({"asked": share, **histograms.highest(total, share)})
        except DataError:
            break
    return {
        "thresholds": table,
        "highest": few,
        "events": events,
        "expected": float(total.told.sum()),
        "rows": events + others,
    }


def decide(told: Array, y: Array) -> dict[str, Any]:
    """`decisions` of given rows, exactly: each score has a bin of its own.

    Args:
      told: float[n], chances.
      y: [n] in {0, 1}.
    """
    edges = np.unique(np.concatenate([np.asarray(told, np.float64), np.asarray(THRESHOLDS)]))
    return decisions(histograms.count(told, y, edges))
