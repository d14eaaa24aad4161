"""LEARNER: hospitals and laboratories train one model together, and their data stay at home.

    import learner_jax as lr

    run = lr.simulate("readmission", rounds=50, algorithm=lr.scaffold(local_lr=0.05))
    run.report("out.html")

Public names are lazy: importing this package loads no jax.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

# name -> the module that has it
_PUBLIC = {
    **dict.fromkeys(
        (
            "Run",
            "columnwise",
            "coordinate",
            "fedadagrad",
            "fedadam",
            "fedavg",
            "fedavgm",
            "fedprox",
            "fedyogi",
            "join",
            "load",
            "local",
            "logistic",
            "mean",
            "median",
            "mlp",
            "newton",
            "optimizer",
            "parquet",
            "protein_net",
            "proteins",
            "readmission",
            "ridge",
            "scaffold",
            "simulate",
            "table",
            "transform",
        ),
        "learner_jax.api",
    ),
    **dict.fromkeys(
        ("Checkpoint", "Compute", "Data", "Engine", "Federation", "Release", "Spec", "Study"), "learner_jax.specs"
    ),
    **dict.fromkeys(
        (
            "Aggregator",
            "Algorithm",
            "Batch",
            "Metric",
            "Model",
            "Pass",
            "Report",
            "Round",
            "Session",
            "Task",
        ),
        "learner_jax.types",
    ),
    "Event": "learner_jax.events",
    "pl": "learner_jax.plots",
    "protein": "learner_jax.protein",
    "LearnerError": "learner_jax.errors",
    **dict.fromkeys(("accuracy", "auprc", "auroc", "brier", "log_loss"), "learner_jax.evaluation.metrics"),
}

_MODULES = ("pl", "protein")

__all__ = [
    "Aggregator",
    "Algorithm",
    "Batch",
    "Checkpoint",
    "Compute",
    "Data",
    "Engine",
    "Event",
    "Federation",
    "LearnerError",
    "Metric",
    "Model",
    "Pass",
    "Release",
    "Report",
    "Round",
    "Run",
    "Session",
    "Spec",
    "Study",
    "Task",
    "accuracy",
    "auprc",
    "auroc",
    "brier",
    "columnwise",
    "coordinate",
    "fedadagrad",
    "fedadam",
    "fedavg",
    "fedavgm",
    "fedprox",
    "fedyogi",
    "join",
    "load",
    "local",
    "log_loss",
    "logistic",
    "mean",
    "median",
    "mlp",
    "newton",
    "optimizer",
    "parquet",
    "pl",
    "protein",
    "protein_net",
    "proteins",
    "readmission",
    "ridge",
    "scaffold",
    "simulate",
    "table",
    "transform",
]

if TYPE_CHECKING:
    from learner_jax import plots as pl
    from learner_jax import protein as protein
    from learner_jax.api import (
        Run,
        columnwise,
        coordinate,
        fedadagrad,
        fedadam,
        fedavg,
        fedavgm,
        fedprox,
        fedyogi,
        join,
        load,
        local,
        logistic,
        mean,
        median,
        mlp,
        newton,
        optimizer,
        parquet,
        protein_net,
        proteins,
        readmission,
        ridge,
        scaffold,
        simulate,
        table,
        transform,
    )
    from learner_jax.errors import LearnerError
    from learner_jax.evaluation.metrics import accuracy, auprc, auroc, brier, log_loss
    from learner_jax.events import Event
    from learner_jax.specs import Checkpoint, Compute, Data, Engine, Federation, Release, Spec, Study
    from learner_jax.types import Aggregator, Algorithm, Batch, Metric, Model, Pass, Report, Round, Session, Task


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        import difflib

        near = difflib.get_close_matches(name, _PUBLIC, 3)
        hint = f"; near: {', '.join(near)}" if near else ""
        raise AttributeError(f"learner_jax has no '{name}'{hint}")
    import importlib

    home = importlib.import_module(_PUBLIC[name])
    value = home if name in _MODULES else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
