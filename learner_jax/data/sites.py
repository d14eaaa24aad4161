"""One site's rows as arrays, and how patients are dealt to training, validation and test."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from learner_jax.data.once import read_once
from learner_jax.data.ways import Labels
from learner_jax.leaves import site_ids
from learner_jax.statistics import combine

if TYPE_CHECKING:
    from learner_jax.data.schema import Checklist

TRAIN, VALID, TEST = 0, 1, 2
_KEPT_ROWS = 300_000
"""Rows of all sites up to which what was read of a table is kept until the last is encoded: about a kilobyte each."""


class SiteData(NamedTuple):
    """One site's rows, encoded.

    Attributes:
      rows: pytree of arrays [n, ...]; for a table {"x": float32[n, d], "y": float32[n]}.
      split: int8[n]; 0 train, 1 valid, 2 test.
      group: int64[n], the patient: for intervals and for splits by patient.
      cohorts: name -> bool[n], on whom the model is judged.
      ways: name -> how the n rows are parted into subgroups.
      about: what else of the site is shown beside its figures, by name, as JSON holds it.
    """

    rows: dict[str, Any]
    split: np.ndarray
    group: np.ndarray
    cohorts: dict[str, np.ndarray]
    ways: Mapping[str, Labels] = MappingProxyType({})
    about: Mapping[str, Any] = MappingProxyType({})


def share_of(group: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    """A number in [0, 1) for each row that depends on nothing but its patient, the seed and the purpose.

    Args:
      group: int64[n], patients.
      seed: of the study.
      purpose: "valid", "test": draws for different purposes are independent.

    Returns:
      float64[n].

    Reference: the finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
    """
    salt = int.from_bytes(hashlib.sha256(f"{purpose}:{seed}".encode()).digest()[:8], "little")
    with np.errstate(over="ignore"):
        z = (group.astype(np.int64).view(np.uint64) ^ np.uint64(salt)) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def deal(group: np.ndarray, test: np.ndarray | None, seed: int, valid_share: float, test_share: float) -> np.ndarray:
    """Split of each row, int8[n], by patient.

    Args:
      group: int64[n], patients.
      test: bool[n] if the table says who is held back; None to draw `test_share` of the patients.
      seed: of the draw.
      valid_share: share of the patients outside the test who become validation rows.
      test_share: only used where the table does not say.
    """
    if test is None:
        test = share_of(group, seed, "test") < test_share
    valid = ~test & (share_of(group, seed, "valid") < valid_share)
    return np.where(test, TEST, np.where(valid, VALID, TRAIN)).astype(np.int8)


def fit_all(checklist: Checklist, frames: Sequence[Any]) -> dict[str, Any]:
    """What is fitted to all sites' sums, round by round.

    Args:
      checklist: of the task.
      frames: a table a site, in ascending order of site id.
    """
    fitted: dict[str, Any] = {}
    for one in checklist.statistics:
        fitted = one.fit(combine([one.measure(frame, fitted) for frame in frames]), fitted)
    return fitted


def encode_sites(
    checklist: Checklist, frames: Mapping[str, Any], note: Callable[[str], None] = lambda text: None
) -> tuple[dict[str, Any], dict[str, SiteData]]:
    """Check, measure, fit and encode all sites in one process: the same arrays as each site makes alone.

    Args:
      checklist: of the task.
      frames: a table a site.
      note: told what a site should know before the first round: what is suspect, what is far from the others.

    Returns:
      What was fitted, and the sites by name, in ascending order of site id (as everything that is summed).

    Raises:
      DataError: a table does not fit the checklist.
    """
    ids = site_ids(frames)
    names = sorted(frames, key=ids.__getitem__)
    with read_once(sum(len(frame) for frame in frames.values() if hasattr(frame, "columns")) <= _KEPT_ROWS):
        for name in names:
            for text in checklist.check(frames[name], f"site '{name}'"):
                note(text)
        fitted = fit_all(checklist, [frames[name] for name in names])
        for name in names if len(names) > 1 else ():
            for text in checklist.compare(frames[name], fitted):
                note(f"site '{name}': {text}")
        return fitted, {name: checklist.encode(frames[name], fitted) for name in names}
