"""Figures of cells: each protein as it was measured beside how it was predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from learner_jax.errors import DataError
from learner_jax.evaluation.correlation import pearson
from learner_jax.plots import style
from learner_jax.plots.measured import pairs


def measured_against_predicted(
    data: Any,
    predicted: Any = None,
    *,
    proteins: Sequence[str] | None = None,
    target: str | None = None,
    site_key: str = "site",
    columns: int = 5,
    gridsize: int = 36,
    ax: Any = None,
    save: str | Path | None = None,
    show: bool | None = None,
) -> Any:
    """Each protein's measured values against the predicted ones, hexagons by how many cells, with r in the title.

    Args:
      data: AnnData, or measured values float[n, P], as `measured.pairs`.
      predicted: float[n, P], where `data` is an array.
      proteins: which, in order; None for all.
      target: units of the measured values, as `measured.pairs`.
      site_key: column of `obs`.
      columns: panels in a row.
      gridsize: hexagons across a panel.
      ax: where to draw a single protein; None for a new figure.
      save: file to write.
      show: True to open a window.

    Returns:
      Array of matplotlib Axes, one a protein; the dashed line is where both are equal.

    Raises:
      DataError: something is not there, or does not fit; matplotlib is not installed.
    """
    found = pairs(data, predicted, proteins, target=target, site_key=site_key)
    if ax is not None and len(found.names) != 1:
        raise DataError(f"expected one protein to draw on the axes given, got {len(found.names)}: proteins=['...']")
    seen = np.isfinite(found.y)
    figures = pearson(found.y, found.told, seen)
    with style.styled():
        if ax is None:
            figure, grid = style.panels(len(found.names), columns, 2.15, 2.3)
        else:
            figure, grid = ax.figure, [ax]
        drawn = []
        for at, (place, name, r) in enumerate(zip(grid, found.names, figures)):
            rows = seen[:, at]
            x, y = found.told[rows, at], found.y[rows, at]
            place.set_title(
                f"{name}   r = {r['value']:.2f}" if r else f"{name}   not judged", loc="left", color=style.INK
            )
            if not len(x):
                continue
            ends = np.concatenate([np.percentile(x, [0.1, 99.9]), np.percentile(y, [0.1, 99.9])])
            low, high = float(ends.min()), float(ends.max())
            pad = 0.04 * (high - low or 1.0)
            low, high = low - pad, high + pad
            drawn.append(
                place.hexbin(
                    x, y, gridsize=gridsize, extent=(low, high, low, high), mincnt=1, cmap=style.AMOUNTS, lw=0.1
                )
            )
            place.plot([low, high], [low, high], color=style.INK, lw=0.9, ls=(0, (4, 3)))
            place.set(xlim=(low, high), ylim=(low, high), aspect="equal")
            place.spines[["top", "right"]].set_visible(False)
            place.set_xticks([tick for tick in place.get_yticks() if low <= tick <= high])
        _same_colours(figure, grid, drawn)
        if ax is None:
            figure.supxlabel("predicted", fontsize=10, color=style.INK)
            figure.supylabel(f"measured ({found.units})", fontsize=10, color=style.INK)
        else:
            ax.set(xlabel="predicted", ylabel=f"measured\n({found.units})")
        style.done(figure, save, show)
    return np.array(grid, object)


def _same_colours(figure: Any, grid: list[Any], drawn: list[Any]) -> None:
    """One scale of cells a hexagon for all panels, logarithmic."""
    from matplotlib.colors import LogNorm

    most = max((float(one.get_array().max()) for one in drawn), default=0.0)
    if not most:
        return
    for one in drawn:
        one.set_norm(LogNorm(1, max(most, 2.0)))
    bar = figure.colorbar(drawn[0], ax=grid, shrink=0.6, aspect=30, pad=0.01)
    ticks = [one for one in (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000) if one <= most]
    bar.set_ticks(ticks, labels=[f"{one:,}" for one in ticks])
    bar.minorticks_off()
    bar.set_label("cells in a hexagon")
    bar.outline.set_visible(False)


def umap_pairs(
    adata: Any,
    proteins: Sequence[str] | None = None,
    *,
    target: str | None = None,
    site_key: str = "site",
    columns: int = 4,
    size: float | None = None,
    save: str | Path | None = None,
    show: bool | None = None,
) -> Any:
    """Cells by their RNA, coloured by each protein: measured above, predicted below, on the same scale.

    Args:
      adata: as `measured.pairs`, with `obsm["X_umap"]`. Without, it is computed by scanpy, if that is installed, from
        raw counts in X (1e4 a cell, log1p, 50 components, neighbours, umap; seed 0), and written there.
      proteins: which, in order; None for the four with the highest r.
      target, site_key: as `measured.pairs`.
      columns: proteins in a row.
      size: of a point, in points squared; None by the number of cells.
      save: file to write.
      show: True to open a window.

    Returns:
      Array [2, P] of matplotlib Axes: measured, predicted. Grey: not measured at the cell's site.

    Raises:
      DataError: there is no UMAP and none can be computed; else as `measured_against_predicted`.
    """
    found = pairs(adata, proteins=proteins, target=target, site_key=site_key)
    figures = pearson(found.y, found.told, np.isfinite(found.y))
    use = list(range(len(found.names)))
    if proteins is None:
        use = sorted(use, key=lambda at: -(figures[at] or {"value": -2.0})["value"])[:4]
    at_map = _umap(adata)
    columns = max(1, min(columns, len(use)))
    bands = -(-len(use) // columns)
    columns = -(-len(use) // bands)
    with style.styled():
        plt = style.pyplot()
        figure, grid = plt.subplots(
            2 * bands, columns, figsize=(2.3 * columns + 0.8, 4.5 * bands), layout="constrained", squeeze=False
        )
        top, bottom, last = [], [], None
        for k in range(bands * columns):
            pair = [grid[2 * (k // columns) + part, k % columns] for part in (0, 1)]
            if k >= len(use):
                for spare in pair:
                    spare.remove()
                continue
            at = use[k]
            y, told = found.y[:, at], found.told[:, at]
            known = np.concatenate([y[np.isfinite(y)], told])
            low, high = np.percentile(known, [1, 99])
            for place, values, word in zip(pair, (y, told), ("measured", "predicted")):
                shade = np.where(np.isfinite(values), (np.clip(values, low, high) - low) / (high - low or 1.0), np.nan)
                last = _scatter(place, at_map, shade, size) or last
                if k % columns == 0:
                    place.set_ylabel(word)
            r = figures[at]
            pair[0].set_title(found.names[at] + (f"   r = {r['value']:.2f}" if r else ""), loc="left", color=style.INK)
            top.append(pair[0])
            bottom.append(pair[1])
        if last is not None:
            bar = figure.colorbar(last, ax=[*top, *bottom], shrink=0.5 / bands, aspect=30, pad=0.01, ticks=[0, 1])
            bar.ax.set_yticklabels(["low", "high"])
            bar.outline.set_visible(False)
        figure.supxlabel("UMAP of the RNA; one scale for both pictures of a protein", fontsize=9, color=style.SOFT)
        style.done(figure, save, show)
    return np.array([top, bottom], object)


def _scatter(place: Any, at_map: np.ndarray, shade: np.ndarray, size: float | None) -> Any:
    points = min(30.0, max(0.3, 9000 / len(shade))) if size is None else size
    known = np.isfinite(shade)
    if not known.all():
        place.scatter(*at_map[~known].T, s=points, c=style.RULE, lw=0, rasterized=True)
    order = np.flatnonzero(known)[np.argsort(shade[known], kind="stable")]  # what is there lies over what is not
    place.set(xticks=[], yticks=[])
    for side in place.spines.values():
        side.set(visible=True, color=style.RULE)
    if not len(order):
        return None
    return place.scatter(
        *at_map[order].T, c=shade[order], s=points, cmap=style.AMOUNTS, vmin=0, vmax=1, lw=0, rasterized=True
    )


def _umap(adata: Any) -> np.ndarray:
    if "X_umap" not in adata.obsm:
        try:
            import scanpy as sc
        except ImportError:
            raise DataError(
                "expected obsm['X_umap'], or scanpy to compute it, got neither: pip install scanpy"
            ) from None
        import anndata

        copy = anndata.AnnData(X=adata.X.astype(np.float32), obs=adata.obs[[]].copy())
        sc.pp.normalize_total(copy, target_sum=1e4)
        sc.pp.log1p(copy)
        sc.pp.pca(copy, n_comps=min(50, min(copy.shape) - 1), random_state=0)
        sc.pp.neighbors(copy, random_state=0)
        sc.tl.umap(copy, random_state=0)
        adata.obsm["X_umap"] = copy.obsm["X_umap"]
    return np.asarray(adata.obsm["X_umap"])[:, :2]


def by_cell_type(
    adata: Any,
    *,
    cell_type: str = "cell_type",
    proteins: Sequence[str] | None = None,
    target: str | None = None,
    site_key: str = "site",
    least: int = 10,
    save: str | Path | None = None,
    show: bool | None = None,
) -> Any:
    """Each cell type's mean of each protein, measured beside predicted, as a dot plot.

    Colour: the mean, from the protein's least type (0) to its most (1), on one scale for both. Size: the share of the
    type's cells that are positive. A cell is positive above the value that best parts the protein's measured cells in
    two groups (Otsu 1979); the same value parts the predicted ones. An antibody that shows its background alone has no
    two groups: its sizes tell nothing.

    Args:
      adata: as `measured.pairs`.
      cell_type: column of `obs`; cells without one are left out.
      proteins: which, in order; None for all.
      target, site_key: as `measured.pairs`.
      least: types of fewer cells are left out.
      save: file to write.
      show: True to open a window.

    Returns:
      Array of two matplotlib Axes: measured, predicted.

    Raises:
      DataError: no such column, no type of enough cells; else as `measured_against_predicted`.
    """
    found = pairs(adata, proteins=proteins, target=target, site_key=site_key)
    if cell_type not in adata.obs:
        raise DataError(
            f"expected a column '{cell_type}' in obs, got {', '.join(map(str, adata.obs.columns)) or 'none'}"
        )
    kinds = adata.obs[cell_type].astype(object).to_numpy()
    kinds = np.array(["" if one is None or one != one else str(one) for one in kinds])
    names = [kind for kind in sorted(set(kinds.tolist())) if kind and (kinds == kind).sum() >= least]
    if not names:
        raise DataError(f"expected a cell type with at least {least} cells in obs['{cell_type}'], got none")
    seen = np.isfinite(found.y)
    parted = [otsu(found.y[seen[:, at], at]) for at in range(len(found.names))]
    tables = []
    for values in (found.y, np.where(seen, found.told, np.nan)):
        mean, share = np.full((2, len(names), len(found.names)), np.nan)
        for row, kind in enumerate(names):
            for at in range(len(found.names)):
                of = values[(kinds == kind) & seen[:, at], at]
                if len(of) >= least:
                    mean[row, at], share[row, at] = of.mean(), (of > parted[at]).mean()
        tables.append((mean, share))
    with np.errstate(invalid="ignore"):
        both = np.concatenate([mean for mean, _ in tables])
        low = np.min(np.where(np.isfinite(both), both, np.inf), axis=0)
        high = np.max(np.where(np.isfinite(both), both, -np.inf), axis=0)
    with style.styled():
        wide, tall = 0.36 * len(found.names), 0.34 * len(names)
        plt = style.pyplot()
        figure, grid = plt.subplots(1, 2, figsize=(2 * wide + 3.6, tall + 1.6), layout="constrained", sharey=True)
        dots = None
        for place, (mean, share), word in zip(grid, tables, ("measured", "predicted")):
            rows, cols = np.nonzero(np.isfinite(mean))
            scaled = (mean[rows, cols] - low[cols]) / np.where(high > low, high - low, 1.0)[cols]
            dots = place.scatter(
                cols, rows, s=4 + 150 * share[rows, cols], c=scaled, cmap=style.AMOUNTS + "_r", vmin=0, vmax=1,
                edgecolors=style.SOFT, linewidths=0.5,
            )  # fmt: skip
            place.set_title(word, loc="left", color=style.INK)
            place.set_xticks(range(len(found.names)), found.names, rotation=90)
            place.set_xlim(-0.6, len(found.names) - 0.4)
            place.set_ylim(len(names) - 0.4, -0.6)
            place.tick_params(length=0)
            for side in place.spines.values():
                side.set_visible(False)
        grid[0].set_yticks(range(len(names)), [f"{kind} ({(kinds == kind).sum():,})" for kind in names])
        bar = figure.colorbar(dots, ax=list(grid), shrink=0.8, aspect=18, pad=0.01, ticks=[0, 1])
        bar.ax.set_yticklabels(["least\ntype", "most\ntype"])
        bar.set_label("mean of the type", labelpad=-12)
        bar.outline.set_visible(False)
        marks = [grid[0].scatter([], [], s=4 + 150 * one, c="white", edgecolors=style.SOFT) for one in (0.1, 0.5, 1.0)]
        figure.legend(marks, ["10 %", "50 %", "100 % of cells positive"], loc="outside lower center", ncols=3)
        style.done(figure, save, show)
    return np.array(list(grid), object)


def otsu(values: np.ndarray, bins: int = 256) -> float:
    """The value that parts these in two groups with the least spread within them.

    Args:
      values: float[n], finite.
      bins: of the histogram that is searched.

    Returns:
      A value between them; nan of none.

    Reference: Otsu, A threshold selection method from gray-level histograms, IEEE Trans. SMC 9 (1979), equation 18.
    """
    if not len(values):
        return float("nan")
    counts, edges = np.histogram(values, bins)
    middle = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    sums = np.cumsum(counts * middle)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below / below[-1] - sums) ** 2 / (below * above)
    best = np.flatnonzero(between == np.nanmax(between[:-1])) if bins > 1 else np.array([0])
    return float(edges[1:][best].mean())
