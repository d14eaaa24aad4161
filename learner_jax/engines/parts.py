"""What an engine is handed: a study's config turned into functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from learner_jax import trees
from learner_jax.algorithms.local import Loss
from learner_jax.algorithms.look import look
from learner_jax.data.told_events import PLACES
from learner_jax.engines.compute import in_parts, light
from learner_jax.engines.world import Local
from learner_jax.errors import DataError, StudyError
from learner_jax.federate import Federated, Watch
from learner_jax.leaves import site_id
from learner_jax.specs import Compute, Study
from learner_jax.types import Metric, Model, PyTree, Task


class Parts(NamedTuple):
    """A study, built.

    Attributes:
      study: its config, checked.
      task: with its model as a Model.
      federated: what the engines run.
      references: name -> what is trained beside it, to compare with.
    """

    study: Study
    task: Task
    federated: Federated
    references: Mapping[str, Federated]

    @property
    def model(self) -> Model:
        return self.task.model

    @property
    def number(self) -> int:
        """uint32 of the study, from its name."""
        return site_id(self.study.name)

    @property
    def local(self) -> Local:
        study = self.study
        return Local(study.batch_size, study.epochs, study.steps, study.seed, study.loader == "lasting")

    @property
    def dtype(self) -> Any:
        return jnp.dtype(self.study.precision)

    def init_weights(self, rows: PyTree) -> PyTree:
        """The common start: {"params": ..., "stats": ...}, the same wherever it is made.

        Args:
          rows: one example batch, for its shapes.
        """
        params, stats = self.model.init(jax.random.key(self.study.seed), rows)
        return jax.tree.map(self._cast, {"params": params, "stats": stats})

    def check_buffer(self, weights: PyTree) -> None:
        """Refuses a buffer for a method whose sites keep a state.

        Args:
          weights: of the model, or their shapes.

        Raises:
          StudyError: that is it.
        """
        buffer = self.study.federation.buffer
        if buffer is not None and jax.tree.leaves(jax.eval_shape(self.federated.enrol, weights).own):
            raise StudyError(
                "federation.buffer: expected a method without a state at the sites, got "
                f"{self.study.algorithm.name}, whose state is of one common round; drop the buffer, or choose fedavg, "
                "fedprox or a FedOpt method"
            )

    def check_genes(self, rows: PyTree) -> None:
        """Refuses a network with fewer inputs than there are genes, which would drop some without a word.

        Args:
          rows: the checklist's template, whose cells have the last gene.

        Raises:
          StudyError: that is it.
        """
        x, model = rows["x"], self.study.model
        if model is None or not isinstance(x, dict) or "gene" not in x:
            return
        genes, given = int(np.max(x["gene"])) + 1, model.fields.get("genes", 0)
        if 0 < given < genes:
            raise StudyError(f"model.genes: expected at least {genes:,}, the genes that all agreed on, got {given:,}")

    def check_inputs(self, weights: PyTree, rows: PyTree) -> None:
        """Refuses a model that does not take nan where the task leaves it, or not each place of an event's code.

        Args:
          weights: of the model.
          rows: an example batch, for its shapes.

        Raises:
          StudyError: that is it.
        """
        columns = getattr(self.task.checklist, "columns", ())
        timed = next((column for column in columns if column.kind == "events"), None)
        if timed is not None and isinstance(rows["x"], dict):
            places = len(timed.codes) or PLACES
            last = {**rows, "x": {**rows["x"], "code": jnp.full_like(rows["x"]["code"], places)}}
            output, _ = self.model.apply(weights["params"], weights["stats"], last, None, False)
            if not bool(jnp.isfinite(output).all()):
                raise StudyError(
                    f"model.codes: expected at least {places}, the places of column '{timed.name}', got fewer"
                )
        gaps = [column.name for column in columns if column.missing == "masked"]
        if not gaps:
            return

        x = rows["x"]
        unknown = (
            {**x, "table": jnp.full_like(x["table"], jnp.nan)} if isinstance(x, dict) else jnp.full_like(x, jnp.nan)
        )
        hidden = {**rows, "x": unknown}
        output, _ = self.model.apply(weights["params"], weights["stats"], hidden, None, False)
        if not bool(jnp.isfinite(output).all()):
            raise StudyError(
                f"task.columns: '{gaps[0]}' is declared with missing='masked', and this model cannot be told what is "
                "not known; choose model masked_mlp or transformer, or missing='indicator'"
            )

    def _cast(self, leaf: Any) -> jax.Array:
        leaf = jnp.asarray(leaf)
        return leaf.astype(self.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def target(rows: PyTree) -> PyTree:
    """What is predicted."""
    return rows["y"]


def objective(model: Model, loss: Callable[[PyTree, PyTree], Any], compute: Compute = Compute()) -> Loss:
    """The loss that algorithms take, from a model and a loss per row; the mean over unmasked rows.

    Args:
      model: with statistics, if any, renewed in each step; beside "x" it finds "mask", bool[B]: rows that are there.
      loss: (output, target) -> float[B].
      compute: how it computes.

    Raises:
      DataError: while tracing, where the loss gives anything but one number a row.
    """
    apply = light(model, compute)

    def summed(weights, batch):
        rows = batch.rows
        if isinstance(rows, dict) and "x" in rows and "mask" not in rows:
            rows = {**rows, "mask": batch.mask}
        output, stats = apply(weights["params"], weights["stats"], rows, batch.key, True)
        each = loss(output, target(batch.rows))
        if jnp.shape(each) != batch.mask.shape:
            raise DataError(f"expected loss: one number a row, float{list(batch.mask.shape)}, got {jnp.shape(each)}")
        return jnp.sum(jnp.where(batch.mask, each, 0)), stats

    whole = in_parts(summed, compute.microbatches)

    def of(weights, batch):
        value, stats = whole(weights, batch)
        count = jnp.maximum(jnp.sum(batch.mask, dtype=jnp.int32), 1)
        return value / count.astype(value.dtype), ({"stats": stats} if jax.tree.leaves(stats) else {})

    return of


def watching(model: Model, loss: Callable[[PyTree, PyTree], Any], metrics: tuple[Metric, ...]) -> Watch:
    """The look at validation rows: the mean loss and each metric, under "valid/"."""

    def zero(broadcast):
        none = jnp.zeros((), jnp.result_type(float))
        return {"loss": none, "rows": none, **{metric.name: metric.zero() for metric in metrics}}

    def make(model_of):
        def step(broadcast, site, carry, batch):
            weights = model_of(broadcast, site)
            output, _ = model.apply(weights["params"], weights["stats"], batch.rows, batch.key, False)
            each = jnp.where(batch.mask, loss(output, target(batch.rows)), 0)
            new = {m.name: m.step(carry[m.name], output, target(batch.rows), batch.mask) for m in metrics}
            float_ = carry["loss"].dtype
            return {
                "loss": carry["loss"] + jnp.sum(each).astype(float_),
                "rows": carry["rows"] + jnp.sum(batch.mask, dtype=jnp.int32).astype(float_),
                **new,
            }

        return look(zero, lambda broadcast, site, batch: (), "valid")._replace(step=step)

    def release(carry):
        sums = {f"valid/{metric.name}": metric.release(carry[metric.name]) for metric in metrics}
        return {"valid/loss": carry["loss"], "valid/rows": carry["rows"], **sums}

    return Watch(make, release)


def values(sums: Mapping[str, Any], metrics: tuple[Metric, ...]) -> dict[str, float]:
    """Figures from summed metrics: {"train/loss": ..., "valid/auroc": ..., "valid/auroc/se": ...}; no NaN in it."""
    from learner_jax.evaluation.metrics import standard_error

    sums = jax.device_get(dict(sums))
    out: dict[str, float] = {}
    for part in ("train", "valid"):
        rows = float(sums.get(f"{part}/rows", 0))
        if f"{part}/loss" in sums and rows > 0:
            out[f"{part}/loss"] = float(sums[f"{part}/loss"]) / rows
    for metric in metrics:
        found = sums.get(f"valid/{metric.name}")
        if found is not None:
            out[f"valid/{metric.name}"] = float(metric.value(found))
            if isinstance(found, dict) and set(found) == {"weighted", "weight"} and metric.name == "auroc":
                out[f"valid/{metric.name}/se"] = float(standard_error(found))
    return {name: value for name, value in out.items() if value == value}


def better(task: Task, name: str) -> Callable[[float, float | None], bool]:
    """(value, best so far) -> whether it is better, by the metric's own direction."""
    rising = {f"valid/{metric.name}": metric.higher_is_better for metric in task.metrics}.get(name, False)
    return lambda value, best: best is None or (value > best if rising else value < best)


def describe(tree: PyTree) -> int:
    """Bytes of a tree on the wire."""
    from learner_jax.leaves import schema_bytes

    return schema_bytes(trees.schema(tree))
