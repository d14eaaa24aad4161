"""A trained model, with what it needs to read a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from learner_jax.engines.given import array_like
from learner_jax.engines.judge import chances, predictor, slopes_along
from learner_jax.engines.outcome import save_model
from learner_jax.engines.parts import Parts
from learner_jax.errors import DataError
from learner_jax.types import PyTree

if TYPE_CHECKING:
    import pandas as pd


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

    def contributions(self, table: Any, steps: int = 64) -> pd.DataFrame:
        """How much each input moves each row's logit away from that of the typical row, by integrated gradients.

        A row's contributions add up to its logit less that of the typical one (all inputs 0: numbers at their mean over
        all sites), to what the midpoint rule leaves. They say what the model does, not what makes patients ill.

        Args:
          table: as in `predict`.
          steps: of the way from the typical row to each.

        Returns:
          A frame float64[n, inputs], its columns named like the inputs, its index that of the table.

        Raises:
          DataError: as `predict`; or the model gives more than one logit a row, or rows are not [n, inputs].

        Reference: Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", ICML 2017.
        """
        import pandas as pd

        x: Any = self._encoded(table)
        if getattr(x, "ndim", 0) != 2:
            got = list(x.shape) if hasattr(x, "shape") else "events in time"
            raise DataError(f"contributions: expected rows of numbers, [n, inputs], got {got}")
        names = (self.fitted or {}).get("inputs") or [f"input {at}" for at in range(x.shape[1])]
        found = slopes_along(self.parts, self.weights, x, steps) * np.nan_to_num(x)
        index = table.index if hasattr(table, "index") and len(getattr(table, "index", ())) == len(x) else None
        return pd.DataFrame(found.astype(np.float64), columns=pd.Index(names), index=index)

    def importance(self, table: Any, *, draws: int = 5, seed: int = 0) -> pd.DataFrame:
        """How much worse the ranking becomes where a column's values are dealt anew among the rows.

        Args:
          table: a pandas frame with the checklist's columns and the outcome; rows that were not trained on.
          draws: how often each column is dealt anew.
          seed: of the draws.

        Returns:
          A frame by column, the most important first: "auroc" (mean loss of AUROC), "sd" over the draws. A column that
          another tells loses little, though both may matter.

        Raises:
          DataError: the task has no checklist, no AUROC or too few rows to rank.

        Reference: Breiman, "Random forests", Machine Learning 45 (2001); Fisher, Rudin and Dominici, JMLR 20 (2019).
        """
        import pandas as pd

        from learner_jax.evaluation.bootstrap import generator
        from learner_jax.evaluation.exact import auroc

        checklist = self.parts.task.checklist
        if checklist is None or self.fitted is None or not hasattr(table, "columns"):
            raise DataError("importance: expected a task with a checklist and a pandas frame of its columns")
        fitted, predict = dict(self.fitted), predictor(self.parts)

        def judged(frame: Any) -> float:
            rows = checklist.encode(frame, fitted).rows
            return auroc(rows["y"], predict(self.weights, rows))

        whole = judged(table)
        if not np.isfinite(whole):
            raise DataError("importance: expected rows with the outcome and without, got one of the two alone")
        spelled = {name: column for column in checklist.columns for name in (column.name, *column.aliases)}
        kept = ("id", checklist.label, "split", "order")
        lost = {}
        for name in table.columns:
            column = spelled.get(name)
            if column is None or column.kind == "id" or column.name in kept:
                continue
            draw, values = generator(seed, "importance", str(name)), table[name].to_numpy()
            lost[name] = [whole - judged(table.assign(**{name: draw.permutation(values)})) for _ in range(draws)]
        found = pd.DataFrame(
            {"auroc": {k: np.mean(v) for k, v in lost.items()}, "sd": {k: np.std(v) for k, v in lost.items()}}
        )
        return found.sort_values("auroc", ascending=False, kind="stable")

    def _encoded(self, table: Any) -> PyTree:
        checklist = self.parts.task.checklist
        if checklist is None or self.fitted is None:
            return array_like(table, self.rows["x"])
        if not hasattr(table, "columns"):
            raise DataError(f"expected a pandas frame with the columns of the checklist, got {type(table).__name__}")
        return checklist.encode(table, self.fitted, labelled=False).rows["x"]

    def save(self, folder: str | Path) -> None:
        """Writes weights.npz and model.json; `lr.load(folder)` reads them."""
        save_model(Path(folder), self.parts.study, self.weights, self.fitted, self.rows)
