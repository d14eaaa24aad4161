"""What a run remembers between rounds: its curve, its best round, and when it should stop."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from learner_jax.engines.parts import Parts, better


class History:
    """The curve and the best round of one run.

    A round's model is looked at in the round after it, so that figures under "valid/" are set one round late.

    Args:
      parts: of the study.

    Attributes:
      curve: one dict a round, as in result.json.
      best_round: of the best model so far, None before the first look.
      best_value: its target's value.
      ended: no round will follow, whatever the last look says of the best one.
    """

    def __init__(self, parts: Parts):
        self.target = parts.study.target
        self.patience = parts.study.patience
        self._better = better(parts.task, self.target)
        self.curve: list[dict[str, Any]] = []
        self.best_round: int | None = None
        self.best_value: float | None = None
        self.ended = False
        self._looked: dict[str, float] = {}  # what was set last under "valid/"

    def add(self, figures: Mapping[str, float], **about: Any) -> None:
        """A round is over. Figures under "valid/" are of the round before, and left to `look`."""
        trained = {name: value for name, value in figures.items() if not name.startswith("valid/")}
        self.curve.append({"round": len(self.curve) + 1, **trained, **about})

    def stands(self, text: str) -> None:
        """What stands of the last round, where it was run before: see `said`."""
        told = _read(text)
        self.curve[-1] = told["row"]
        if len(self.curve) > 1:
            self.curve[-2].update(told["before"])

    def look(self, figures: Mapping[str, float]) -> bool:
        """The last round's model was looked at; True if it is the best so far."""
        if not self.curve:
            return False
        self._looked = {name: value for name, value in figures.items() if name.startswith("valid/")}
        self.curve[-1].update(self._looked)
        value = figures.get(self.target)
        if value is None or not self._better(value, self.best_value):
            return False
        self.best_round, self.best_value = len(self.curve), value
        return True

    def forget_best(self) -> None:
        """Other sites look at the models from now on: what was best until now was so on other rows."""
        self.best_round = self.best_value = None

    @property
    def over(self) -> bool:
        """No round will follow: it was ended, or none was better for `patience` rounds."""
        return self.ended or (
            self.patience is not None
            and self.best_round is not None
            and len(self.curve) - 1 - self.best_round >= self.patience
        )

    def said(self) -> str:
        """The last round's row, and what was found in it of the round before, as JSON: the journal's line of a round.

        So a step need not hold all rounds before it: each is written once.
        """
        return said(self.curve[-1], self._looked)

    def to_json(self) -> dict[str, Any]:
        """All but the curve."""
        return {"best_round": self.best_round, "best_value": self.best_value, "ended": self.ended}

    def restore(self, saved: Mapping[str, Any], said: Sequence[str]) -> None:
        """As it was.

        Args:
          saved: what `to_json` gave.
          said: what `said` gave, of each round.
        """
        self.curve = []
        for told in map(_read, said):
            if self.curve:
                self.curve[-1].update(told["before"])
            self.curve.append(told["row"])
        self.best_round, self.best_value = saved["best_round"], saved["best_value"]
        self.ended = saved["ended"]


def _read(text: str) -> Any:
    """A round's line; names of figures and sites are there once for all rounds, else a long study's would add up."""

    def shared(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {sys.intern(name): _shared(value) for name, value in pairs}

    return json.loads(text, object_pairs_hook=shared)


def _shared(value: Any) -> Any:
    return [sys.intern(one) if type(one) is str else one for one in value] if isinstance(value, list) else value


def said(row: Mapping[str, Any], before: Mapping[str, float]) -> str:
    """A round's line: its row of the curve, and what was found in it of the round before."""
    return json.dumps({"row": dict(row), "before": dict(before)})
