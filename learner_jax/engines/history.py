"""What a run remembers between rounds: its curve, its best round, and when it should stop."""

from __future__ import annotations

from collections.abc import Mapping
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

    def add(self, figures: Mapping[str, float], **about: Any) -> None:
        """A round is over. Figures under "valid/" are of the round before, and left to `look`."""
        trained = {name: value for name, value in figures.items() if not name.startswith("valid/")}
        self.curve.append({"round": len(self.curve) + 1, **trained, **about})

    def look(self, figures: Mapping[str, float]) -> bool:
        """The last round's model was looked at; True if it is the best so far."""
        if not self.curve:
            return False
        self.curve[-1].update({name: value for name, value in figures.items() if name.startswith("valid/")})
        value = figures.get(self.target)
        if value is None or not self._better(value, self.best_value):
            return False
        self.best_round, self.best_value = len(self.curve), value
        return True

    @property
    def over(self) -> bool:
        """No round will follow: it was ended, or none was better for `patience` rounds."""
        return self.ended or (
            self.patience is not None
            and self.best_round is not None
            and len(self.curve) - 1 - self.best_round >= self.patience
        )

    def to_json(self) -> dict[str, Any]:
        curve = [dict(row) for row in self.curve]  # a copy: it is written while rounds go on
        return {"curve": curve, "best_round": self.best_round, "best_value": self.best_value, "ended": self.ended}

    def restore(self, saved: Mapping[str, Any]) -> None:
        self.curve = [dict(row) for row in saved["curve"]]
        self.best_round, self.best_value = saved["best_round"], saved["best_value"]
        self.ended = saved["ended"]
