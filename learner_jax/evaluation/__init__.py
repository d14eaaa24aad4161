"""How good a model is, and how sure that is: metrics folded over rows, exact figures, intervals, calibration.

`metrics` runs inside a compiled round (JAX); everything else here is NumPy, in float64, and loads no jax.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learner_jax.evaluation.bootstrap import bootstrap as bootstrap
    from learner_jax.evaluation.calibration import calibrate as calibrate
    from learner_jax.evaluation.evaluate import evaluate as evaluate
    from learner_jax.evaluation.evaluate import summarise_site as summarise_site
    from learner_jax.evaluation.join import join_sites as join_sites
    from learner_jax.evaluation.metrics import accuracy as accuracy
    from learner_jax.evaluation.metrics import auprc as auprc
    from learner_jax.evaluation.metrics import auroc as auroc
    from learner_jax.evaluation.metrics import brier as brier
    from learner_jax.evaluation.metrics import log_loss as log_loss
    from learner_jax.evaluation.metrics import mse as mse
    from learner_jax.evaluation.metrics import standard_error as standard_error

_HOME = {
    "accuracy": "metrics",
    "auprc": "metrics",
    "auroc": "metrics",
    "brier": "metrics",
    "log_loss": "metrics",
    "mse": "metrics",
    "standard_error": "metrics",
    "bootstrap": "bootstrap",
    "calibrate": "calibration",
    "evaluate": "evaluate",
    "join_sites": "join",
    "summarise_site": "evaluate",
}
__all__ = tuple(sorted(_HOME))  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
