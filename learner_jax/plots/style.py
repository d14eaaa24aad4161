"""What all figures share: matplotlib when it is needed, colours that everybody can tell apart, plain axes.

Colours: Okabe and Ito, Color universal design (2008): told apart with any common colour blindness, and by lightness in
print. Amounts use cividis (Nunez, Anderton, Renslow, PLoS ONE 13, 2018), made for the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from learner_jax.errors import DataError

BLUE, ORANGE, GREEN, VERMILION, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9"
INK, SOFT, RULE = "#222222", "#5f6b6b", "#d8dede"
AMOUNTS = "cividis"
MODELS = {"local_only": "#9aa5a5", "federated": BLUE, "pooled": ORANGE}
"""A model's colour; one that is not here takes the next of OTHERS."""
OTHERS = (GREEN, VERMILION, SKY)
NAMES = {"local_only": "each site alone", "federated": "federated", "pooled": "all data in one place"}

_STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "axes.axisbelow": True,
    "axes.grid": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
}


def pyplot() -> Any:
    """matplotlib's pyplot.

    Raises:
      DataError: matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise DataError("expected the package matplotlib, got none: pip install 'learner-jax[cells]'") from None
    return plt


def styled() -> Any:
    """A context in which axes are made in this style; the user's own settings stay as they are.

    The backend is loaded first: loaded inside, what it sets would be forgotten at the end, and a notebook would
    show its first figure alone.
    """
    plt = pyplot()
    plt.draw_if_interactive()  # nothing is drawn: it loads the backend
    return plt.rc_context(_STYLE)


def axes(ax: Any, width: float, height: float) -> Any:
    """The axes given, or new ones, inches."""
    return pyplot().subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax


def across(ax: Any) -> None:
    """Faint lines across, under what is drawn; also on axes that were given, in another style."""
    ax.set_axisbelow(True)
    ax.grid(axis="y", color=RULE, linewidth=0.8)
    ax.spines[["top", "right"]].set_visible(False)


def panels(count: int, columns: int, width: float, height: float) -> tuple[Any, list[Any]]:
    """A new figure and axes for so many panels, in rows; places left over are taken away."""
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    figure, grid = pyplot().subplots(
        rows, columns, figsize=(width * columns, height * rows), layout="constrained", squeeze=False
    )
    for spare in grid.flat[count:]:
        spare.remove()
    return figure, list(grid.flat[:count])


def colour(model: str, models: Any) -> str:
    """A model's colour among those of a figure."""
    if model in MODELS:
        return MODELS[model]
    others = [one for one in models if one not in MODELS]
    return OTHERS[others.index(model) % len(OTHERS)]


def name(model: str) -> str:
    """A model in words."""
    return NAMES.get(model, model.replace("_", " "))


def done(figure: Any, save: str | Path | None, show: bool | None) -> None:
    """Write the figure if a file is named, open a window if asked."""
    if save is not None:
        figure.savefig(save)
    if show:
        pyplot().show()
