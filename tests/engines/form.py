"""What the tests of the form share: a method's rounds in float64, and what a NumPy loop needs to run the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from learner_jax.engines.world import Local
from learner_jax.federate import federate
from learner_jax.types import Algorithm
from tests.algorithms.studies import LOCAL, Study, batches, cohorts, learned, rounds_of, start


class Played(NamedTuple):
    """A method after its rounds.

    Attributes:
      study: the program at its start.
      server, states: after the last round; states [N, ...].
      learned: the weights learned, by the oracles' names.
      x, y: every row.
      plan: (pass number) -> the batches of each round and site.
    """

    study: Study
    server: Any
    states: Any
    learned: dict[str, np.ndarray]
    x: np.ndarray
    y: np.ndarray
    plan: Callable[[int], list[dict[int, np.ndarray]]]


def play(algorithm: Algorithm, rounds: int, local: Local = LOCAL) -> Played:
    """Runs so many rounds in float64, each with a cohort of its own."""
    with jax.enable_x64(True):
        study = start(federate(algorithm), local=local)
        asked = cohorts(study.world, rounds)
        *_, last = rounds_of(study, asked)
        weights = learned(study, last.server)
    x, y = (np.asarray(study.world.rows[part]) for part in "xy")
    plan = lambda number: batches(study.world, local, asked, number)  # noqa: E731
    return Played(study, last.server.learned, last.states, weights, x, y, plan)
