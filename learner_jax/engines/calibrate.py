"""What is set right on the watched rows when the weights are the last word (`types.Calibrating`), for both engines.

A joint model is moved by the sum over all sites; a site's own by its own rows; the model of all others by theirs. Where
leaves stay at home, sums are of models with each site's own leaves; the model that is kept, for a site that took no
part, has none of them, and is moved by the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from learner_jax.data.sites import VALID, SiteData
from learner_jax.data.told_arrays import told as as_json
from learner_jax.engines.judge import predictor, take_rows
from learner_jax.engines.parts import Parts
from learner_jax.engines.world import World
from learner_jax.errors import DataError
from learner_jax.statistics import combine
from learner_jax.types import Calibrating, PyTree

MOVED = "moved"
"""The leaf beside a broadcast, and the key in what was fitted."""
OWN = ("local_only",)
"""Models of which each site has its own."""
OTHERS = ("all_but_me",)
"""Models of which each site has one of all sites but itself."""


def count(
    calibrating: Calibrating, predict: Callable[[PyTree, PyTree], Any], weights: PyTree, site: SiteData
) -> dict[str, np.ndarray]:
    """One site's counts of a model's output on its watched rows."""
    return _count(calibrating, predict, weights, site, np.flatnonzero(site.split == VALID))


def _count(
    calibrating: Calibrating, predict: Callable[[PyTree, PyTree], Any], weights: PyTree, site: SiteData, at: np.ndarray
) -> dict[str, np.ndarray]:
    rows = take_rows(site.rows, at)
    return calibrating.tally(predict(weights, {"x": rows["x"]}), rows)


def move_of(parts: Parts, weights: PyTree, site: SiteData, every: bool = False) -> np.ndarray:
    """What a model's outputs are moved by, as one site's watched rows tell, or all of its rows.

    Raises:
      DataError: a task that has nothing of the kind.
    """
    calibrating = calibrating_of(parts)
    if calibrating is None:
        raise DataError("expected a task whose outputs can be set right by watched rows, got another")
    at = np.arange(len(site.split)) if every else np.flatnonzero(site.split == VALID)
    return calibrating.fit(_count(calibrating, predictor(parts), weights, site, at))


def moves(
    parts: Parts, sites: Mapping[str, SiteData], world: World, models: Mapping[str, Sequence[PyTree]]
) -> dict[str, list[np.ndarray]]:
    """Of each model, what its outputs are moved by at each site; {} for a task that has nothing of the kind.

    Args:
      parts: the study.
      sites: name -> rows.
      world: its order counts for `models` and for what is returned.
      models: name -> each site's weights.
    """
    calibrating = calibrating_of(parts)
    if calibrating is None:
        return {}
    predict, found = predictor(parts), {}
    for model, weights in models.items():
        if model in OTHERS:
            found[model] = [
                calibrating.fit(
                    combine(
                        [
                            calibrating.zero(),
                            *(count(calibrating, predict, one, sites[name]) for name in world.names if name != mine),
                        ]
                    )
                )
                for mine, one in zip(world.names, weights, strict=True)
            ]
            continue
        counts = [count(calibrating, predict, weights[at], sites[name]) for at, name in enumerate(world.names)]
        if model in OWN:
            found[model] = [calibrating.fit(one) for one in counts]
        else:
            found[model] = [calibrating.fit(combine(counts))] * len(counts)
    return found


def calibrating_of(parts: Parts) -> Calibrating | None:
    """Of the study's task."""
    judging = parts.task.judging
    return None if judging is None else judging.calibrating


def kept(fitted: Mapping[str, Any] | None, by: np.ndarray) -> dict[str, Any]:
    """What was fitted, with what a model's outputs are moved by."""
    return {**(fitted or {}), MOVED: as_json(np.asarray(by, np.float64))}
