"""A trained model, with what it needs to read a table."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from learner_jax.data import stays as stays_
from learner_jax.data.doors import open_records
from learner_jax.data.doors.records import Records
from learner_jax.engines import forms
from learner_jax.engines.given import array_like
from learner_jax.engines.judge import chances, predictor, slopes_along
from learner_jax.engines.outcome import save_model
from learner_jax.engines.parts import Parts
from learner_jax.errors import DataError
from learner_jax.evaluation.calibration import Recalibration, recalibrate
from learner_jax.types import PyTree

if TYPE_CHECKING:
    import pandas as pd


class One(NamedTuple):
    """What the model says of one row.

    Attributes:
      chance: of the outcome; where the task has not one logit a row, the model's output.
      contributions: of each input to the logit, the largest first; None where the model has no such.
      notes: what was not given, and what is taken instead.
      given: columns of which a value was given.
    """

    chance: Any
    contributions: pd.Series | None
    notes: tuple[str, ...]
    given: tuple[str, ...] = ()


class OfRecords(NamedTuple):
    """What the model says of stays in a hospital's records.

    Attributes:
      table: a row a stay: patient, encounter, admit, until (its discharge, or now), chance.
      features: the same rows as the model takes them, for `contributions`.
      notes: what must be known of them, in sentences.
    """

    table: pd.DataFrame
    features: pd.DataFrame
    notes: tuple[str, ...]


class TrainedModel:
    """A trained model, with what it needs to read a table.

    Args:
      parts: the study.
      weights: {"params": ..., "stats": ...}.
      fitted: by the checklist, or None where rows are arrays.
      rows: a few example rows, for their shapes.
      moved: how its chances are moved to those of one site, or None.
    """

    def __init__(
        self,
        parts: Parts,
        weights: PyTree,
        fitted: Mapping[str, Any] | None,
        rows: PyTree,
        moved: Recalibration | None = None,
    ):
        self.parts, self.weights, self.fitted, self.rows, self.moved = parts, weights, fitted, rows, moved

    @functools.cached_property
    def _predictor(self) -> Callable[[PyTree, PyTree], np.ndarray]:
        return predictor(self.parts)  # compiled once, for one row and for a million

    def predict(self, table: Any) -> Any:
        """The model's predictions, in the order of the rows.

        Args:
          table: a pandas frame with the checklist's columns; or arrays float[n, ...] where the study was given arrays.

        Returns:
          Chances float64[n] of a task with one logit a row, else the model's output; of a task that is judged in units
          of its own (`Task.judging`), the output in these.

        Raises:
          DataError: the table does not fit the checklist, or the arrays not those of the training.
        """
        rows = {"x": self._encoded(table)}
        output = self._predictor(self.weights, rows)
        if self.parts.task.judging is not None:
            return self.parts.task.judging.told(output, self.fitted or {})
        if not (self._tells_chances and output.ndim == 1):
            return output
        return chances(output) if self.moved is None else self.moved.move(chances(output))

    @property
    def _tells_chances(self) -> bool:
        return any(metric.name == "auroc" for metric in self.parts.task.metrics)

    def recalibrated(self, table: Any, y: Any = None) -> TrainedModel:
        """The same model, its chances moved to what comes at one site: `moved` of what it returns says how.

        The ranking stays; nothing is trained. Rows that the model learned from make it look better calibrated than it
        is: take others.

        Args:
          table: a pandas frame with the checklist's columns and the outcome; or arrays, as for `predict`.
          y: [n] in {0, 1}, the outcomes, where the study was given arrays.

        Raises:
          DataError: the table does not fit, its rows are too few, or the model does not rank them.
        """
        if not self._tells_chances:
            raise DataError("recalibrated: expected a model that tells chances, whose task is judged by AUROC")
        checklist = self.parts.task.checklist
        if checklist is None or self.fitted is None:
            rows, group = {"x": self._encoded(table), "y": np.asarray(y)}, None
            if y is None or rows["y"].shape != (len(rows["x"]),) or not np.isin(rows["y"], (0, 1)).all():
                raise DataError(f"recalibrated: expected y, an outcome of 0 or 1 for each of {len(rows['x'])} rows")
        elif hasattr(table, "columns"):
            site = checklist.encode(table, dict(self.fitted))
            rows, group = site.rows, site.group
        else:
            raise DataError(f"recalibrated: expected a pandas frame, got {type(table).__name__}")
        told = chances(self._predictor(self.weights, {"x": rows["x"]}))
        return TrainedModel(self.parts, self.weights, self.fitted, self.rows, recalibrate(told, rows["y"], group))

    def predict_one(self, values: Mapping[str, Any]) -> One:
        """The model's prediction of one row, from a form: the bits that a table with this row gives.

        Args:
          values: column -> value; None, or left out, where it is not known.

        Raises:
          DataError: a name or a value that does not fit the checklist, or a value that must be known and is not.
        """
        checklist, fitted = self._asked("predict_one")
        frame, absent = forms.row(checklist, values)
        with forms.told_of_one_row():
            chance = self.predict(frame)[0]
        moved = None
        with contextlib.suppress(DataError):  # not one logit a row, or rows that are no list of numbers
            moved = self.contributions(frame).iloc[0]
            moved = moved.reindex(moved.abs().sort_values(ascending=False, kind="stable").index)
        unknown = {column.name for column in absent}
        given = tuple(str(name) for name in frame.columns if name not in unknown)
        return One(chance, moved, (*forms.unlearned(given, fitted), *forms.instead(absent, fitted)), given)

    def predict_records(
        self,
        source: str | os.PathLike[str] | Records,
        *,
        patient: str | None = None,
        encounter: str | None = None,
        every: bool = False,
        at: datetime | None = None,
        cohort: str | None = None,
        door: str | None = None,
        schema: str | None = None,
    ) -> OfRecords:
        """Predictions from a hospital's records: of the last stay of each patient, or of those that are asked for.

        A stay is predicted as of its discharge; one that has not ended, as if it were discharged now. Stays that ended
        in death, and those that do not fit what the study asks for, are left out, which is told.

        Args:
          source: a folder, a file (such as one patient's FHIR bundle) or a data base; open records lose what is later.
          patient, encounter: only these, as the hospital calls them.
          every: all stays of each patient.
          at: the moment that counts as now; None: the last time in the patient's records.
          cohort: a rule of which it is told who would not be in it.
          door, schema: as in `learner_jax.data.doors.open_records`.

        Raises:
          DataError: no stay is left, the records cannot be read, or the study asks for more than features of records.
        """
        checklist, fitted = self._asked("predict_records")
        asked = {"patient": patient, "encounter": encounter, "every": every, "at": at, "cohort": cohort}
        with contextlib.ExitStack() as stack:
            opened = source if isinstance(source, Records) else stack.enter_context(open_records(source, door, schema))
            where, found = opened.source, stays_.find(opened, **asked)
        takes, wrong = stays_.fitting(found.table, forms.questions(checklist))
        notes = list(found.notes)
        if wrong:
            told = ", ".join(f"{name} of {count:,}" for name, count in wrong.items())
            told = f"{len(takes) - takes.sum():,} of {len(takes):,} stays do not fit what the study asks for ({told})"
            if not takes.any():
                raise DataError(f"{where}: {told}")
            notes.append(f"left out: {told}")
        rows = found.table.loc[takes].reset_index(drop=True)
        notes += forms.unlearned([name for name in rows.columns if rows[name].notna().any()], fitted)
        table = rows[list(stays_.WHO)].assign(chance=self.predict(rows))
        return OfRecords(table, rows, tuple(notes))

    def _asked(self, where: str) -> tuple[Any, Mapping[str, Any]]:
        checklist = self.parts.task.checklist
        if checklist is None or self.fitted is None:
            raise DataError(
                f"{where}: expected a study with a checklist, whose columns have names; this one has arrays"
            )
        return checklist, self.fitted

    def contributions(self, table: Any, steps: int = 64) -> pd.DataFrame:
        """How much each input moves each row's logit away from that of the typical row, by integrated gradients.

        A row's contributions add up to its logit less that of the typical one (all inputs 0: numbers at their mean over
        all sites), to what the midpoint rule leaves; of a recalibrated model, as its chances are told. What a column
        with missing="masked" adds by not being known is found by forgetting one after the other. They say what the
        model does, not what makes patients ill.

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
        filled = np.nan_to_num(x)
        found = slopes_along(self.parts, self.weights, filled, steps) * filled + self._of_gaps(x, filled)
        found = found if self.moved is None else found * self.moved.slope
        index = table.index if hasattr(table, "index") and len(getattr(table, "index", ())) == len(x) else None
        return pd.DataFrame(found.astype(np.float64), columns=pd.Index(names), index=index)

    def _of_gaps(self, x: np.ndarray, filled: np.ndarray) -> np.ndarray:
        """What each unknown value adds to the logit, float[n, inputs], when they are forgotten from the first on."""
        found, now = np.zeros(x.shape), filled.copy()
        gaps = np.isnan(x)
        before = self._predictor(self.weights, {"x": now}) if gaps.any() else np.zeros(len(x))
        for at in np.flatnonzero(gaps.any(axis=0)):
            now[gaps[:, at], at] = np.nan
            after = self._predictor(self.weights, {"x": now})
            found[:, at], before = after - before, after
        return found

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
        fitted, predict = dict(self.fitted), self._predictor

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
        if checklist.frame is not None:
            return checklist.encode(checklist.frame(table, "the cells"), self.fitted, labelled=False).rows["x"]
        if not hasattr(table, "columns"):
            hint = "; predict_one takes one row" if isinstance(table, Mapping) else ""
            got = type(table).__name__
            raise DataError(f"expected a pandas frame with the columns of the checklist, got {got}{hint}")
        return checklist.encode(table, self.fitted, labelled=False).rows["x"]

    def save(self, folder: str | Path) -> None:
        """Writes weights.npz and model.json; `lr.load(folder)` reads them."""
        save_model(Path(folder), self.parts.study, self.weights, self.fitted, self.rows, self.moved)
