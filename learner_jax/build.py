"""From a config to what an engine runs: the only place where names become functions."""

from __future__ import annotations

from typing import Any

import optax

from learner_jax import specs
from learner_jax.algorithms.references import alone
from learner_jax.engines.parts import Parts, objective, watching
from learner_jax.errors import ConfigError
from learner_jax.federate import federate
from learner_jax.models import from_flax
from learner_jax.specs import Study
from learner_jax.types import Task


def build(study: Study, given: Task | None = None) -> Parts:
    """Builds a checked study.

    Args:
      study: the config.
      given: a task in place of the one that the config names.

    Returns:
      Its parts.

    Raises:
      ConfigError: the pieces do not fit together.
    """
    task: Task = specs.make(study.task) if given is None else given
    model = study.model if study.model is not None else task.model
    model = from_flax(specs.make(model) if isinstance(model, specs.Spec) else model)
    task = task._replace(model=model)
    watched = [f"valid/{metric.name}" for metric in task.metrics] + ["valid/loss"]
    if study.target not in watched:
        raise ConfigError(f"target: expected one of {', '.join(watched)}, got '{study.target}'")
    loss = objective(model, task.loss, study.compute)
    watch = watching(model, task.loss, task.metrics)
    return Parts(
        study=study,
        task=task,
        federated=federate(
            specs.make(study.algorithm, loss),
            specs.make(study.aggregator),
            chain(study.before),
            chain(study.after),
            watch,
            study.wire,
        ),
        references={
            name: federate(reference(study, name, loss), watch=watch)
            for name in study.references
            if name != "all_but_me"
        },
    )


def chain(transforms: tuple[specs.Spec, ...]) -> optax.GradientTransformation:
    """optax transformations, one after the other."""
    return optax.chain(optax.identity(), *(specs.make(transform) for transform in transforms))


def reference(study: Study, name: str, loss: Any) -> Any:
    """The algorithm of a reference.

    With the study's local optimizer and rate; where its method has none (Newton), the method itself, by each site alone
    or by one site that has all rows, so that a reference is trained as hard.
    """
    if not any(key.startswith("local") for key in specs.schema("algorithms", study.algorithm.name)):
        itself = specs.make(study.algorithm, loss)
        return alone(itself) if name == "local_only" else itself
    known = specs.schema("algorithms", name)
    fields = {key: value for key, value in study.algorithm.fields.items() if key in known}
    return specs.make(specs.Spec("algorithms", name, fields), loss)
