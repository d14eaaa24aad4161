"""What a call hands over, looked at before anything runs: a task, sites by name, rows that the model takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from learner_jax.data.columns import is_on_disk, mapped
from learner_jax.data.sites import SiteData
from learner_jax.engines.parts import Parts
from learner_jax.errors import ConfigError, DataError
from learner_jax.types import Metric, Task

ROWS = 3  # of a batch that is traced and not run; no more than tells rows from columns


def checked_task(task: Task) -> Task:
    """The task, its metrics as a tuple.

    Raises:
      ConfigError: its loss is no function, or its metrics are not Metrics.
    """
    metrics: Any = task.metrics
    if isinstance(metrics, Metric):
        raise ConfigError(f"Task.metrics: expected a tuple, got {metrics.name} alone: write metrics=({metrics.name},)")
    if not isinstance(metrics, tuple | list) or not all(isinstance(one, Metric) for one in metrics):
        raise ConfigError(f"Task.metrics: expected a tuple of metrics, such as (lr.auroc,), got {_short(metrics)}")
    if not callable(task.loss):
        raise ConfigError(f"Task.loss: expected a function (output, target) -> float[B], got {_short(task.loss)}")
    return task._replace(metrics=tuple(metrics))


def named_sites(given: Any) -> Mapping[str, Any]:
    """The sites that a call hands over.

    Raises:
      DataError: not a dict, none, or a name that is not text.
    """
    if not isinstance(given, Mapping):
        raise DataError(f"sites: expected a dict, name -> (x, y), got {type(given).__name__}")
    if not given:
        raise DataError("sites: expected at least one site, got none")
    for name in given:
        if not isinstance(name, str) or not name:
            raise DataError(f"sites: expected names in text, got {_short(name)}")
    return given


def check_fit(parts: Parts, data: Mapping[str, SiteData]) -> None:
    """Traces the model over a few rows of the first site.

    Raises:
      DataError: the model does not take such rows.
    """
    first = next(iter(data.values()))
    rows = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((ROWS, *np.shape(leaf)[1:]), leaf.dtype), first.rows)
    output = _traced(parts, rows)
    if hasattr(output, "shape") and output.shape[:1] != (ROWS,):
        got = f"an output of shape {list(output.shape)} for {ROWS} rows"
        raise DataError(f"model: expected an output for each row of {_rows(rows)}, got {got}")


def array_like(table: Any, example: Any) -> np.ndarray:
    """Rows to predict for, as an array.

    Args:
      table: what was handed over.
      example: [n, ...], rows that the model was trained on.

    Raises:
      DataError: no numbers, or rows of another shape.
    """
    x = as_array(np.asarray(mapped(table)) if is_on_disk(table) else table, "predict", "its rows")
    if x.ndim == 0 or x.shape[1:] != example.shape[1:]:
        wanted = ", ".join(map(str, ("n", *example.shape[1:])))
        raise DataError(f"predict: expected rows like those it was trained on, [{wanted}], got {list(x.shape)}")
    return x


def as_array(values: Any, where: str, part: str) -> Any:
    """Numbers as an array; those on the disk as they are.

    Args:
      values: what was handed over.
      where, part: "site 'a'", "y": for messages.

    Raises:
      DataError: they are none, or their rows differ in length.
    """
    try:
        array = values if is_on_disk(values) else np.asarray(values)
    except ValueError:
        raise DataError(f"{where}: expected rows of one length in {part}, got several") from None
    if np.dtype(array.dtype).kind not in "fiub":
        raise DataError(f"{where}: expected numbers in {part}, got {array.dtype}")
    return array


def _traced(parts: Parts, rows: Any) -> Any:
    """The shape of what the model gives."""

    def forward(rows):
        params, stats = parts.model.init(jax.random.key(0), rows)
        return parts.model.apply(params, stats, rows, None, False)[0]

    # int64 rows are int32 to jax, which says so with each of them
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype)), rows)
    try:
        return jax.eval_shape(forward, shapes)
    except (TypeError, ValueError) as error:
        words = " ".join(str(error).split())
        words = words if len(words) <= 200 else f"{words[:197]}..."
        raise DataError(f"model: expected one that takes rows of {_rows(rows)}, but it says: {words}") from error


def _rows(rows: Any) -> str:
    """ "x float32[n, 5]": what the model is called with."""
    x = rows.get("x") if isinstance(rows, dict) else None
    return "these sites" if x is None else f"x {x.dtype}[{', '.join(map(str, ('n', *x.shape[1:])))}]"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{type(value).__name__} {text[:50]}..."
