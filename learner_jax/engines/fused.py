"""Several rounds in one compiled call, where nobody looks in between: for thousands of quick ones.

What a round has of its own (a call, its plan's way to the device, the wait for its figures) is had once for all of
them. The call hands out every round's new server state, figures and digest, so the curve, the best round, patience and
the journal are those of rounds one by one (one stream and lane: to the bit); the sites' states it hands out after the
last alone, and so a step that is due is saved there. What is stopped between is run again, and must give the digests
that the journal has.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import numpy as np

from learner_jax import spans
from learner_jax.engines import machines
from learner_jax.engines.program import Outcome, Program
from learner_jax.engines.shelved import Shelved
from learner_jax.engines.streamed import Streamed
from learner_jax.specs import Study
from learner_jax.types import PyTree

_HELD = 2**28
"""Bytes of plans that a call may be given, and of server states that it may hand out."""


def how_many(study: Study, program: Program, server: PyTree, states: PyTree) -> int:
    """Rounds that may be run in one call: what the study asks for, or 1 where somebody looks in between."""
    stopped = study.patience is not None and bool(jax.tree.leaves(states))  # their states then are in no one's hands
    looked_at = study.checkpoint.wait or spans.heard() or machines.several()
    looked_at = looked_at or isinstance(program, Streamed | Shelved)
    if stopped or looked_at:
        return 1
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(server)) + program.plan_bytes()
    return max(1, min(study.engine.fused, study.rounds, _HELD // max(1, size)))


class Rounds:
    """A program's rounds in order.

    Args:
      program: whose rounds they are.
      cohort: number -> int32, places of the sites asked, ascending.
      last: the last round's number.
      many: in one call; 1 is one by one.

    Attributes:
      seconds: of the last round, its share of the call.
    """

    def __init__(self, program: Program, cohort: Callable[[int], np.ndarray], last: int, many: int):
        self._program, self._drawn, self._last, self._many = program, cohort, last, many
        self._cohorts: dict[int, np.ndarray] = {}
        self._done: list[Outcome] = []
        self._begun = self.seconds = 0.0

    def cohort(self, number: int) -> np.ndarray:
        """Of a round; drawn once."""
        if number not in self._cohorts:
            self._cohorts = {one: asked for one, asked in self._cohorts.items() if one >= number - self._many}
            self._cohorts[number] = self._drawn(number)
        return self._cohorts[number]

    def round(self, server: PyTree, states: PyTree, number: int) -> Outcome:
        """The outcome of round `number`, its states None within a call. Arguments as of `Program.round`."""
        if self._many == 1:
            self._begun = time.perf_counter()
            return self._program.round(server, states, number, self.cohort(number))
        if not self._done:
            begun = time.perf_counter()
            asked = self._asked(number)
            self._done = self._program.several(server, states, number, asked, self._many)
            self.seconds = (time.perf_counter() - begun) / len(asked)
        return self._done.pop(0)

    def prepare(self, number: int) -> None:
        """Makes the plan of round `number`, if there is one, while the one before runs."""
        if self._many == 1 and number <= self._last:
            self._program.prepare(number, self.cohort(number))

    def over(self) -> float:
        """Says that a round's figures are there; the seconds that it took."""
        if self._many == 1:
            self.seconds = time.perf_counter() - self._begun
        return self.seconds

    def _asked(self, number: int) -> list[np.ndarray]:
        return [self.cohort(one) for one in range(number, min(number + self._many, self._last + 1))]
