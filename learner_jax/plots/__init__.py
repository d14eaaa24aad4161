"""Figures of predicted surface proteins, in scanpy's manner: `pl.correlation_bars(result)`.

Two kinds. Of cells, from an AnnData with `obsm["protein_expression"]` (antibody counts), `obsm["protein_predicted"]`
and perhaps `obsm["protein_interval"]`: `measured_against_predicted`, `umap_pairs`, `by_cell_type`. Of a result, which
holds figures alone (`learner_jax.evaluation.proteins`): `correlation_bars`, `coverage`, `compared`, `round_curve`.

Each returns what it drew on (an Axes, or an array of them), and takes `save` (a file) and `show` (True to open a window
now; a notebook shows a figure by itself). matplotlib is loaded when the first figure is drawn.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learner_jax.plots.cells import by_cell_type as by_cell_type
    from learner_jax.plots.cells import measured_against_predicted as measured_against_predicted
    from learner_jax.plots.cells import umap_pairs as umap_pairs
    from learner_jax.plots.results import compared as compared
    from learner_jax.plots.results import correlation_bars as correlation_bars
    from learner_jax.plots.results import coverage as coverage
    from learner_jax.plots.results import round_curve as round_curve

_HOME = {
    "by_cell_type": "cells",
    "compared": "results",
    "correlation_bars": "results",
    "coverage": "results",
    "measured_against_predicted": "cells",
    "round_curve": "results",
    "umap_pairs": "cells",
}
__all__ = tuple(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
