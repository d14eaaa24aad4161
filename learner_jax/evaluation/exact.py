"""AUROC, average precision and Brier score of given rows, exact, in NumPy.

Each takes an optional weight a row, and many sets of weights at once: a bootstrap draw is a set of counts, so a
thousand draws share one sort. Figures are float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from learner_jax.types import Array


class Ranking(NamedTuple):
    """Rows in the order of their scores.

    Attributes:
      order: int[n], rows by ascending score.
      starts: int[k], where each of k distinct scores begins in that order.
      y: float64[n], outcomes in that order.
      hit: int[.], which of the k distinct scores have an event; the others add nothing to a figure.
    """

    order: np.ndarray
    starts: np.ndarray
    y: np.ndarray
    hit: np.ndarray


def rank(y: Array, score: Array) -> Ranking:
    """Sort rows once, for all weights.

    Args:
      y: [n], 1 for the event and 0 for none; n > 0.
      score: float[n], higher for likelier.
    """
    score = np.asarray(score)
    order = np.argsort(score, kind="stable")
    ascending = score[order]
    starts = np.flatnonzero(np.r_[True, ascending[1:] != ascending[:-1]])
    y = np.asarray(y, np.float64)[order]
    return Ranking(order, starts, y, np.flatnonzero(np.add.reduceat(y, starts)))


def ranked(ranking: Ranking, weight: np.ndarray) -> dict[str, np.ndarray]:
    """AUROC and average precision for many sets of weights.

    Args:
      ranking: of the rows.
      weight: float[n, draws], *in the order of the ranking*. float32 is enough for counts whose sum is under 2^22:
        the running sums are then exact.

    Returns:
      {"auroc": float64[draws], "auprc": float64[draws]}; nan where there is no event, or (auroc) nothing else.
    """
    events = weight * ranking.y.astype(weight.dtype)[:, None]
    both = weight
    if len(ranking.starts) < len(weight):
        events, both = np.add.reduceat(events, ranking.starts, axis=0), np.add.reduceat(both, ranking.starts, axis=0)
    others = both - events
    under = np.cumsum(others, axis=0)  # without the event, up to and with this score
    total = under[-1].astype(np.float64)
    found, tied = events[ranking.hit].astype(np.float64), others[ranking.hit].astype(np.float64)
    under = under[ranking.hit].astype(np.float64)
    n = found.sum(axis=0)
    hits = np.cumsum(found[::-1], axis=0)[::-1]  # events at this score and above
    calls = hits + total - under + tied
    precision = np.divide(hits, calls, out=np.zeros_like(hits), where=calls > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = np.einsum("id,id->d", found, under - tied / 2) / (n * total)
        return {"auroc": area, "auprc": np.einsum("id,id->d", found, precision) / n}


def _figure(name: str, y: Array, score: Array, weight: Array | None) -> Array:
    many = weight is not None and np.ndim(weight) > 1
    weight = np.ones((1, len(y))) if weight is None else np.atleast_2d(np.asarray(weight, np.float64))
    if len(y) == 0:
        return np.full(len(weight), np.nan) if many else float("nan")
    ranking = rank(y, score)
    found = ranked(ranking, weight.T[ranking.order])[name]
    return found if many else float(found[0])


def auroc(y: Array, score: Array, weight: Array | None = None) -> Array:
    """Area under the ROC curve: the share of pairs that are ranked correctly, a tie counting one half.

    Args:
      y: [n], 1 for the event and 0 for none.
      score: float[n], higher for likelier.
      weight: float[n] or float[draws, n], not negative; None for one each.

    Returns:
      float, or float[draws]; nan where there is no event or nothing but events.
    """
    return _figure("auroc", y, score, weight)


def auprc(y: Array, score: Array, weight: Array | None = None) -> Array:
    """Average precision: the precision at each distinct score, weighted by the events found there.

    Args:
      y: [n], 1 for the event and 0 for none.
      score: float[n], higher for likelier.
      weight: float[n] or float[draws, n], not negative; None for one each.

    Returns:
      float, or float[draws]; nan where there is no event.
    """
    return _figure("auprc", y, score, weight)


def brier(y: Array, told: Array, weight: Array | None = None) -> Array:
    """Mean squared difference of the told chance and what came.

    Args:
      y: [n], 1 for the event and 0 for none.
      told: float[n], the told chance of the event, in [0, 1].
      weight: float[n] or float[draws, n], not negative; None for one each.

    Returns:
      float, or float[draws]; nan without rows.
    """
    error = (np.asarray(told, np.float64) - np.asarray(y, np.float64)) ** 2
    w = np.ones(len(error)) if weight is None else np.asarray(weight, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (w @ error) / w.sum(-1)
    return value if np.ndim(w) > 1 else float(value)


FIGURES = {"auroc": auroc, "auprc": auprc, "brier": brier}
