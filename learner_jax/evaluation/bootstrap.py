"""Intervals by a bootstrap over patients: whole patients are drawn, with all their rows.

One patient's stays resemble each other; drawing rows one by one would make the intervals too narrow. A draw is a
count for each patient, and so a weight for each row: the rows are sorted once and a block of draws goes through
`exact.ranked` together. The same draws serve every model, so that a difference of two models is paired.

Reference: Field and Welsh, Bootstrapping clustered data, J. R. Statist. Soc. B 69 (2007).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np

from learner_jax.evaluation.exact import rank, ranked
from learner_jax.types import Array

CELLS = 1 << 19  # weights held at once, 2 MiB in float32: a block of draws stays in the cache


def generator(seed: int, *names: str) -> np.random.Generator:
    """A Philox stream of its own for each (seed, names), the same on every machine."""
    digest = hashlib.sha256("\0".join([str(int(seed)), *names]).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def patient_counts(patients: int, rows: int, rng: np.random.Generator, draws: int) -> Iterator[np.ndarray]:
    """How often each patient is drawn, block by block.

    Args:
      patients: how many; each draw takes as many, with replacement.
      rows: how many rows they have, for the size of a block.
      rng: stream of random numbers; used up in order, so the size of a block does not change the draws.
      draws: how many in all.

    Yields:
      int64[patients, some draws].
    """
    block = max(1, min(draws, CELLS // max(1, rows)))
    for start in range(0, draws, block):
        some = min(block, draws - start)
        drawn = rng.integers(0, patients, size=(some, patients)) + np.arange(some)[:, None] * patients
        yield np.bincount(drawn.ravel(), minlength=some * patients).reshape(some, patients).T


def resample(
    scores: Mapping[str, Array], y: Array, group: Array, rng: np.random.Generator, draws: int = 1000
) -> dict[str, dict[str, np.ndarray]]:
    """AUROC, average precision and Brier score of every model in every draw.

    Args:
      scores: model -> float[n], the told chance of the event in [0, 1]; n > 0.
      y: [n] in {0, 1}.
      group: int[n], the patient of each row.
      rng: stream of random numbers.
      draws: how many.

    Returns:
      model -> {"auroc", "auprc", "brier"} -> float64[draws]; nan in a draw that cannot be judged. Draw k is the same
      patients for every model.
    """
    y = np.asarray(y, np.float64)
    patients, member = np.unique(np.asarray(group), return_inverse=True)
    rows = np.bincount(member).astype(np.float64)
    kind = np.float32 if len(y) < 1 << 20 else np.float64
    rankings = {model: rank(y, score) for model, score in scores.items()}
    errors = {model: np.bincount(member, (np.asarray(score, np.float64) - y) ** 2) for model, score in scores.items()}
    found = {model: {name: np.empty(draws) for name in ("auroc", "auprc", "brier")} for model in scores}
    at = 0
    for drawn in patient_counts(len(patients), len(y), rng, draws):
        now = slice(at, at := at + drawn.shape[1])
        counts, narrow = drawn.astype(np.float64), np.ascontiguousarray(drawn, kind)
        size = rows @ counts
        for model, ranking in rankings.items():
            figures = ranked(ranking, narrow[member[ranking.order]])
            found[model]["auroc"][now], found[model]["auprc"][now] = figures["auroc"], figures["auprc"]
            found[model]["brier"][now] = (errors[model] @ counts) / size
    return found


def interval(value: float, drawn: Array) -> dict[str, float] | None:
    """A figure with its 95 % percentile interval.

    Args:
      value: the figure of the rows as they are.
      drawn: float[draws]; nan where a draw could not be judged.

    Returns:
      {"value", "low", "high", "se"}, or None where nothing can be said.
    """
    drawn = np.asarray(drawn)[np.isfinite(drawn)]
    if not np.isfinite(value) or len(drawn) < 2:
        return None
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"value": float(value), "low": float(low), "high": float(high), "se": float(drawn.std(ddof=1))}
