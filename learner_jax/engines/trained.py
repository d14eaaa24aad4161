"""A trained model, with what it needs to read a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from learner_jax.engines.given import array_like
from learner_jax.engines.judge import chances, predictor
from learner_jax.engines.outcome import save_model
from learner_jax.engines.parts import Parts
from learner_jax.errors import DataError
from learner_jax.types import PyTree


class TrainedModel:
    """A trained model, with what it needs to read a table.

    Args:
      parts: the study.
      weights: {"params": ..., "stats": ...}.
      fitted: by the checklist, or None where rows are arrays.
      rows: a few example rows, for their shapes.
    """

    def __init__(self, parts: Parts, weights: PyTree, fitted: Mapping[str, Any] | None, rows: PyTree):
        self.parts, self.weights, self.fitted, self.rows = parts, weights, fitted, rows

    def predict(self, table: Any) -> np.ndarray:
        """The model's predictions, in the order of the rows.

        Args:
          table: a pandas frame with the checklist's columns; or arrays float[n, ...] where the study was given arrays.

        Returns:
          Chances float64[n] of a task with one logit a row, else the model's output.

        Raises:
          DataError: the table does not fit the checklist, or the arrays not those of the training.
        """
        rows = {"x": self._encoded(table)}
        output = predictor(self.parts)(self.weights, rows)
        binary = any(metric.name == "auroc" for metric in self.parts.task.metrics)
        return chances(output) if binary and output.ndim == 1 else output

    def _encoded(self, table: Any) -> np.ndarray:
        checklist = self.parts.task.checklist
        if checklist is None or self.fitted is None:
            return array_like(table, self.rows["x"])
        if not hasattr(table, "columns"):
            raise DataError(f"expected a pandas frame with the columns of the checklist, got {type(table).__name__}")
        return checklist.encode(table, self.fitted, labelled=False).rows["x"]

    def save(self, folder: str | Path) -> None:
        """Writes weights.npz and model.json; `lr.load(folder)` reads them."""
        save_model(Path(folder), self.parts.study, self.weights, self.fitted, self.rows)
