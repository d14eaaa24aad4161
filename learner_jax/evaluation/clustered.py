"""The standard error of an AUROC whose rows come in clusters: several stays of one patient.

Obuchowski's estimate: as DeLong's, but the placements of a patient's rows are summed before they are squared, so that
rows of one patient may resemble each other. From two passes of sums it is that of all sites' rows together:

1. how the scores lie (histograms of both kinds of rows, or at one site the scores themselves);
2. each site's sums over its patients, given the area.

A patient is at one site only; with one row a patient it is DeLong's estimate, up to M / (M - 1).

Reference: Obuchowski, Nonparametric analysis of clustered ROC curve data, Biometrics 53 (1997), equations 2 to 4.

    V10(x) = share of rows without the outcome that score below x (ties one half), V01(y) = share of events above y
    S10 = I10 / ((I10 - 1) M)  sum over patients (V10 summed - m_i A)^2         m_i events of patient i, M of all
    S01 = I01 / ((I01 - 1) N)  sum over patients (V01 summed - n_i A)^2         n_i others, N of all
    S11 = I / (I - 1)          sum over patients (V10 summed - m_i A)(V01 summed - n_i A)
    var = S10 / M + S01 / N + 2 S11 / (M N)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from learner_jax.evaluation.histograms import Counts, add, auroc, count
from learner_jax.types import Array


class Placed(NamedTuple):
    """A site's sums of the second pass; they add over sites.

    Attributes:
      squares10, squares01, products: float, of S10, S01 and S11 over the site's patients.
      with_events, with_others, patients: int, patients with a row of the kind, and all.
      events, others: int, rows.
    """

    squares10: float
    squares01: float
    products: float
    with_events: int
    with_others: int
    patients: int
    events: int
    others: int


def placements(told: Array, total: Counts) -> tuple[np.ndarray, np.ndarray]:
    """(V10, V01) of each row among the rows of all sites, float64[n] each; within a bin one half.

    Args:
      told: float[n], chances.
      total: all sites' counts.
    """
    place = np.searchsorted(total.edges, np.asarray(told, np.float64), side="right")
    events, others = total.events.astype(np.float64), total.others.astype(np.float64)
    below = (np.cumsum(others) - others / 2) / max(others.sum(), 1.0)
    above = 1 - (np.cumsum(events) - events / 2) / max(events.sum(), 1.0)
    return below[place], above[place]


def sums(told: Array, y: Array, group: Array, total: Counts) -> Placed:
    """A site's second pass.

    Args:
      told: float[n], chances.
      y: [n] in {0, 1}.
      group: int[n], the patient of each row.
      total: all sites' counts.
    """
    y, area = np.asarray(y, bool), auroc(total).value
    v10, v01 = placements(told, total)
    _, member = np.unique(np.asarray(group), return_inverse=True)
    m, n = np.bincount(member, y), np.bincount(member, ~y)
    first = np.bincount(member, np.where(y, v10, 0.0)) - m * area
    second = np.bincount(member, np.where(y, 0.0, v01)) - n * area
    return Placed(
        float(first @ first),
        float(second @ second),
        float(first @ second),
        int((m > 0).sum()),
        int((n > 0).sum()),
        len(m),
        int(m.sum()),
        int(n.sum()),
    )


def standard_error(sites: Sequence[Placed]) -> float:
    """Of the AUROC of all sites' rows together; nan with fewer than two patients of a kind."""
    t = Placed(*(sum(parts) for parts in zip(*sites, strict=True)))
    if min(t.with_events, t.with_others) < 2:
        return float("nan")
    s10 = t.with_events / ((t.with_events - 1) * t.events) * t.squares10
    s01 = t.with_others / ((t.with_others - 1) * t.others) * t.squares01
    s11 = t.patients / (t.patients - 1) * t.products
    variance = s10 / t.events + s01 / t.others + 2 * s11 / (t.events * t.others)
    return float(np.sqrt(max(variance, 0.0)))


def exact(told: Array, y: Array, group: Array) -> tuple[float, float]:
    """(AUROC, standard error) of rows in one place, without bins."""
    told = np.asarray(told, np.float64)
    total = count(told, y, np.unique(told))  # an edge at each score: a bin holds one score
    return auroc(add([total])).value, standard_error([sums(told, y, group, total)])


def poisson_weights(group: Array, seed: int, draws: int) -> np.ndarray:
    """How often each row's patient is drawn, int64[n, draws]: 0, 1, 2, ... with mean 1, from nothing but the patient.

    So sites draw at the same time without telling each other who is theirs, and a patient seen at two sites counts
    equally often at both. For many patients it is the bootstrap that draws as many as there are.

    Args:
      group: int[n], the patient.
      seed: of the study.
      draws: how many.

    Reference: Chamandy et al., Estimating uncertainty for massive data streams, Google (2012).
    """
    from learner_jax.data.sites import share_of

    patients, member = np.unique(np.asarray(group, np.int64), return_inverse=True)
    steps = np.cumsum(1 / np.cumprod(np.concatenate([[1.0], np.arange(1, 20)]))) / np.e  # P(count <= k)
    drawn = np.stack(
        [np.searchsorted(steps, share_of(patients, seed, f"draw {k}"), side="right") for k in range(draws)]
    )
    return drawn.T[member].astype(np.int64)
