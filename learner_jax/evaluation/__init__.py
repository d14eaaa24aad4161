"""How good a model is, and how sure that is: metrics folded over rows, exact figures, intervals, calibration.

`metrics` runs inside a compiled round (JAX); everything else here is NumPy, in float64, and loads no jax:
`exact` (AUROC, AUPRC, Brier of given rows), `bootstrap` (intervals by patient), `calibration`, `summary` (a study's
"evaluation", or one site's share of it) and `join` (many sites' shares into one, from figures alone).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learner_jax.evaluation.calibration import calibrate as calibrate
    from learner_jax.evaluation.join import join_sites as join_sites
    from learner_jax.evaluation.metrics import accuracy as accuracy
    from learner_jax.evaluation.metrics import auprc as auprc
    from learner_jax.evaluation.metrics import auroc as auroc
    from learner_jax.evaluation.metrics import brier as brier
    from learner_jax.evaluation.metrics import log_loss as log_loss
    from learner_jax.evaluation.metrics import mse as mse
    from learner_jax.evaluation.metrics import standard_error as standard_error
    from learner_jax.evaluation.summary import evaluate as evaluate
    from learner_jax.evaluation.summary import summarise_site as summarise_site

_HOME = {
    "accuracy": "metrics",
    "auprc": "metrics",
    "auroc": "metrics",
    "brier": "metrics",
    "calibrate": "calibration",
    "evaluate": "summary",
    "join_sites": "join",
    "log_loss": "metrics",
    "mse": "metrics",
    "standard_error": "metrics",
    "summarise_site": "summary",
}
__all__ = tuple(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
