"""Figures of many sites' rows together, from score histograms that add: exact at the edges, bounded between them.

Each site counts its rows with and without the outcome in bins whose edges all know; the counts are added, and from
their sum come AUROC and AUPRC with a bound that no arrangement of the rows within the bins can leave, and, exactly,
whatever is asked at an edge: sensitivity, precision, net benefit.

    pairs in different bins      ranked rightly or wrongly, known
    pairs within one bin         between all right and all wrong: so +- half of them

A histogram of few rows tells nearly each row's outcome. It leaves a site only where the study says so
(`release.histograms = "plain"`) and the site has agreed.

Reference for net benefit: Vickers and Elkin, Decision curve analysis, Medical Decision Making 26 (2006).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from learner_jax.errors import DataError
from learner_jax.types import Array

EDGES = 200
"""Edges at quantiles of the scores."""


class Counts(NamedTuple):
    """Rows of a site, or of many, by their told chance.

    Attributes:
      edges: float64[k], ascending, distinct, in [0, 1]; a row lies in the bin below the first edge that is above it.
      events: [k + 1], rows with the outcome (int64; float64 where rows are weighted).
      others: [k + 1], rows without.
      told: float64[k + 1], sums of the told chances.
    """

    edges: np.ndarray
    events: np.ndarray
    others: np.ndarray
    told: np.ndarray


class Bounded(NamedTuple):
    """A figure that lies in [value - bound, value + bound], whatever the rows within the bins."""

    value: float
    bound: float


def edges_of(told: Array, thresholds: Sequence[float] = (), edges: int = EDGES) -> np.ndarray:
    """Edges at quantiles of told chances and at the thresholds of decisions, float64[k], ascending and distinct.

    Args:
      told: float[n], chances: of the training rows, or of any that resemble those to be judged.
      thresholds: edges as they are.
      edges: how many at quantiles, at most.
    """
    told = np.asarray(told, np.float64)
    shares = np.arange(1, edges + 1) / (edges + 1)
    at = np.quantile(told, shares, method="inverted_cdf") if len(told) else np.zeros(0)
    return np.unique(np.concatenate([at, np.asarray(thresholds, np.float64)]))


def count(told: Array, y: Array, edges: Array, weight: Array | None = None) -> Counts:
    """One site's rows in the bins.

    Args:
      told: float[n], chances in [0, 1].
      y: [n] in {0, 1}.
      edges: float64[k], ascending.
      weight: float[n], of each row (a draw of a bootstrap); None for one each.
    """
    told, y, edges = np.asarray(told, np.float64), np.asarray(y, bool), np.asarray(edges, np.float64)
    place, size = np.searchsorted(edges, told, side="right"), len(edges) + 1
    if weight is None:
        events, others = (np.bincount(place[rows], minlength=size).astype(np.int64) for rows in (y, ~y))
        return Counts(edges, events, others, np.bincount(place, told, minlength=size))
    weight = np.asarray(weight, np.float64)
    events, others = (np.bincount(place[rows], weight[rows], minlength=size) for rows in (y, ~y))
    return Counts(edges, events, others, np.bincount(place, told * weight, minlength=size))


def add(sites: Sequence[Counts]) -> Counts:
    """The sum of sites' counts.

    Raises:
      DataError: there is none, or their edges differ.
    """
    if not sites:
        raise DataError("expected the histograms of at least one site, got none")
    first = sites[0]
    for site in sites[1:]:
        if not np.array_equal(site.edges, first.edges):
            raise DataError(f"expected the same {len(first.edges)} edges at each site, got others at one")
    events, others, told = (np.sum([site[part] for site in sites], axis=0) for part in (1, 2, 3))
    return Counts(first.edges, events, others, told)


def auroc(total: Counts) -> Bounded:
    """Area under the ROC curve; nan without rows of both kinds."""
    events, others = total.events.astype(np.float64), total.others.astype(np.float64)
    pairs = events.sum() * others.sum()
    if pairs == 0:
        return Bounded(float("nan"), float("nan"))
    under = np.cumsum(others) - others
    within = float(events @ others)
    return Bounded(float(events @ under + within / 2) / pairs, within / 2 / pairs)


def auprc(total: Counts) -> Bounded:
    """Average precision; nan without events. Its bound counts ties too.

    Within a bin the events lie lowest in precision if all others come first, each event by itself, and highest if the
    events come first and are tied.
    """
    events, others = (part[::-1].astype(np.float64) for part in (total.events, total.others))
    n = events.sum()
    if n == 0:
        return Bounded(float("nan"), float("nan"))
    hits, calls = np.cumsum(events) - events, np.cumsum(events + others) - events - others
    low = high = 0.0
    for e, o, h, c in zip(events, others, hits, calls, strict=True):
        if e:
            high += e * (h + e) / (c + e)
            low += e - (c + o - h) * (_digamma(c + o + e + 1) - _digamma(c + o + 1))  # sum of (h + j) / (c + o + j)
    return Bounded((low + high) / 2 / n, (high - low) / 2 / n)


def _digamma(x: float) -> float:
    """psi(x), x >= 1, to about 1e-12: psi(n + 1) - psi(m + 1) is the sum of 1 / j for j from m + 1 to n.

    Reference: Abramowitz and Stegun, 6.3.5 and 6.3.18. By it a claim of 2^40 rows costs no more than one of ten.
    """
    less = 0.0
    while x < 12:
        less, x = less + 1 / x, x + 1
    square = 1 / (x * x)
    series = square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square * (1 / 240 - square / 132))))
    return float(np.log(x) - 0.5 / x - series - less)


def at_threshold(total: Counts, threshold: float) -> dict[str, float | None]:
    """What comes of acting on all whose told chance is at least `threshold`, exactly.

    Args:
      total: counts, one of whose edges is the threshold.
      threshold: in (0, 1).

    Returns:
      {"called": share of all rows, "sensitivity", "specificity", "precision": None where none is called,
      "net_benefit", "treat_all": net benefit of acting on everyone} (of acting on nobody it is 0).

    Raises:
      DataError: it is no edge, or there are no rows.
    """
    at = int(np.searchsorted(total.edges, threshold))
    if at == len(total.edges) or total.edges[at] != threshold:
        raise DataError(f"expected a threshold that is an edge of the histogram, got {threshold:g}")
    true, false = float(total.events[at + 1 :].sum()), float(total.others[at + 1 :].sum())
    n, m = float(total.events.sum()), float(total.others.sum())
    if n + m == 0:
        raise DataError("expected rows in the histogram, got none")
    odds = threshold / (1 - threshold)
    return {
        "called": (true + false) / (n + m),
        "sensitivity": true / n if n else None,
        "specificity": 1 - false / m if m else None,
        "precision": true / (true + false) if true + false else None,
        "net_benefit": (true - odds * false) / (n + m),
        "treat_all": (n - odds * m) / (n + m),
    }


def highest(total: Counts, share: float) -> dict[str, float | None]:
    """Acting on the rows with the highest told chances, as many as there is room for (the 20 highest a week).

    The edge nearest to the share is taken, and its own share told.

    Args:
      total: counts.
      share: of all rows, in (0, 1].

    Returns:
      {"share", "threshold", "sensitivity", "precision", "called_for_one": rows to act on for one with the outcome, None
      where none is found}.
    """
    events, others = total.events.astype(np.float64), total.others.astype(np.float64)
    above = np.concatenate([np.cumsum((events + others)[::-1])[::-1], [0.0]])
    rows = above[0]
    if rows == 0 or events.sum() == 0:
        raise DataError("expected rows with and without the outcome in the histogram, got none")
    called = above[: len(total.edges) + 1] / rows
    at = int(np.argmin(np.abs(called - share) + (called == 0)))
    true = float(events[at:].sum())
    return {
        "share": float(called[at]),
        "threshold": float(total.edges[at - 1]) if at else 0.0,
        "sensitivity": true / float(events.sum()),
        "precision": true / float(above[at]),
        "called_for_one": float(above[at]) / true if true else None,
    }


def curve(total: Counts, bins: int = 10) -> list[dict[str, float]]:
    """The calibration curve: neighbouring bins put together until each has its share of the rows.

    Returns:
      [{"told": mean told chance, "observed": share with the outcome, "rows"}, ...], ascending.
    """
    rows = (total.events + total.others).astype(np.float64)
    whole = rows.sum()
    if whole == 0:
        return []
    wanted = np.minimum((np.cumsum(rows) - rows / 2) / whole * bins, bins - 1).astype(int)
    found = []
    for at in np.unique(wanted[rows > 0]):
        mine = wanted == at
        n = float(rows[mine].sum())
        found.append(
            {"told": float(total.told[mine].sum()) / n, "observed": float(total.events[mine].sum()) / n, "rows": n}
        )
    return found


def to_plain(counts: Counts) -> dict[str, list[float]]:
    """What leaves a site: edges and counts. Sums of told chances do not: where a bin holds one row they are its own."""
    return {name: np.asarray(getattr(counts, name)).tolist() for name in ("edges", "events", "others")}


def from_plain(found: Mapping[str, Sequence[float]]) -> Counts:
    """What `to_plain` made; the told chances of a bin are taken to be its middle.

    Raises:
      DataError: lengths do not fit, a count is negative, or an edge is not above the one before.
    """
    edges = np.asarray(found["edges"], np.float64)
    events, others = (np.asarray(found[name]) for name in ("events", "others"))
    fine = bool(np.isfinite(edges).all() and np.all(np.diff(edges) > 0))
    if not (fine and all(part.shape == (len(edges) + 1,) for part in (events, others))):
        raise DataError("expected ascending edges and a count for each bin of a histogram, got something else")
    if not all(np.isfinite(part).all() and (part >= 0).all() for part in (events, others)):
        raise DataError("expected counts of at least 0 in a histogram, got something else")
    middle = (np.concatenate([[0.0], edges]) + np.concatenate([edges, [1.0]])) / 2
    return Counts(edges, events, others, middle * (events + others))
