"""Whether a site's cells fit a study: its genes, its panel of proteins; and which antibodies show background only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from learner_jax.data.anndata_parts import some
from learner_jax.data.cells import Cells, matched
from learner_jax.data.gene_names import is_gene_id, looks_like_mouse
from learner_jax.data.protein_names import canonical, near_proteins
from learner_jax.errors import DataError

FEW_GENES = 0.5
MOST_CELLS = 5_000
FOREGROUND, FOLD, SHARE, DISTANCE, TAILS = 10.0, 3.0, 0.02, 2.0, 3.0
NORMAL_95 = 1.6448536269514722
"""95th percentile of the standard normal distribution."""


def check_cells(cells: Cells, genes: Sequence[str], panel: Sequence[str], where: str) -> list[str]:
    """Remarks on a site's cells that fit what a study asks for.

    A protein that the study asks for and the site has no column of is not measured: it is said, and never taken for 0.

    Args:
      cells: of the site.
      genes: of the study, symbols or Ensembl ids.
      panel: proteins of the study, by any alias.
      where: for messages: the site, its file.

    Returns:
      what the site should know, a line each: notes of the reading, missing and doubled genes, proteins that are not
      measured, all zero, or background only.

    Raises:
      DataError: no gene or no protein of the study is here, or no cell has a count of any of its genes.
    """
    found = matched(cells, genes)
    if len(genes) and not found.matched:
        here = some([f"'{name}'" for name in cells.genes], 3)
        asked = some([f"'{name}'" for name in genes], 3)
        why = ": these look like genes of mice" if looks_like_mouse(list(cells.genes)) else ""
        if is_gene_id(cells.genes[0]) and not is_gene_id(genes[0]):
            why = ": name them by symbols in var, in a column such as 'gene_name'"
        raise DataError(f"{where}: expected genes of the study ({asked}), got none of them ({here}){why}")
    told = list(cells.notes)
    if not len(genes) and looks_like_mouse(list(cells.genes)):
        told.append("the genes look like those of mice: only sites of one species have genes in common")
    elif not len(genes) and is_gene_id(cells.genes[0]):
        told.append("genes are named by ids alone; if other sites use symbols, put them in var as 'gene_name'")
    if found.missing:
        few = len(found.matched) < FEW_GENES * len(genes)
        told.append(f"{found}{': less than half, so predictions will be worse' if few else ''}")
    elif found.duplicate:
        told.append(str(found))
    empty = np.flatnonzero(np.diff(cells.on_genes(found.matched).indptr) == 0) if len(genes) else np.zeros(0, int)
    if len(empty):
        which = some([f"'{name}'" for name in cells.obs.index[empty]])
        if len(empty) == len(cells):
            raise DataError(f"{where}: expected a count of the study's {len(genes):,} genes in a cell, got none in any")
        told.append(
            f"{len(empty):,} cells have no count of the study's {len(genes):,} genes and are left out ({which})"
        )
    if cells.counts.nnz and cells.counts.data.max() == 1:
        told.append("all counts are 0 or 1: were they made binary?")
    return [f"{where}: {text}" for text in [*told, *_of_proteins(cells, panel, where)]]


def background(cells: Cells) -> dict[str, bool]:
    """Which antibodies show background only: True where no cells stand out from the rest.

    The rule, on log1p of the raw counts. Cells stand out if one of these holds:

    1. two normal components, fitted by expectation maximisation, are apart: Ashman's D >= 2, the upper one holds at
       least 2 % of the cells, its mean is at least 10 counts and 3 times that of the lower one;
    2. the upper tail is long: from the median to the 95th percentile, which is at least 10 counts, it is 3 times as
       far, in standard deviations of the lower half, as the median of a normal distribution is from itself plus one;
    3. the lower tail is long in the same way, and the median is at least 10 counts: most cells have the protein.

    A protein that all cells have alike (CD44 on leucocytes) looks like background to any rule that sees one antibody
    alone; so a flag is a reason to look, and nothing is left out for it.

    Args:
      cells: of one site. Of more than 5,000, at most 5,000 at even distances are looked at.

    Returns:
      protein -> bool, in the order of the columns.

    Reference: two components on the logarithm, of which the lower is background: Mule, Martins, Tsang, Nature
      Communications 2022 (dsb). Distance of components: Ashman, Bird, Zepf, Astronomical Journal 1994. The other bounds
      were set on three laboratories' data (10x, Pittsburgh, ECCITE).
    """
    step = max(1, -(-len(cells) // MOST_CELLS))
    values = np.log1p(cells.protein[::step].astype(np.float64))
    return {name: not _stand_out(values[:, place]) for place, name in enumerate(cells.proteins)}


def _stand_out(y: np.ndarray) -> bool:
    """Whether some cells have more of a protein than others; y: float64[n], log1p of counts."""
    low, middle, high = np.quantile(y, (0.05, 0.5, 0.95))
    enough = np.log1p(FOREGROUND)
    below, above = max(middle - low, _noise(middle) * NORMAL_95), max(high - middle, _noise(middle) * NORMAL_95)
    if high >= enough and high - middle >= TAILS / NORMAL_95 * below:
        return True
    if middle >= enough and middle - low >= TAILS / NORMAL_95 * above:
        return True
    if y.max() < enough:
        return False
    mean, deviation, share = _two_components(y)
    apart = np.sqrt(2) * (mean[1] - mean[0]) / np.sqrt((deviation**2).sum()) >= DISTANCE
    fold = np.expm1(mean[1]) >= max(FOREGROUND, FOLD * np.expm1(mean[0]))
    return bool(apart and fold and share >= SHARE)


def _two_components(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Two normal distributions fitted to y: means and standard deviations, lower first, and the upper one's share.

    Of three starts (the upper mean at the 75th, 95th and 99th percentile) the most likely end.
    """
    ends = [_climb(y, *np.quantile(y, (0.25, top))) for top in (0.75, 0.95, 0.99)]
    _, mean, deviation, share = max(ends, key=lambda end: end[0])
    order = np.argsort(mean)
    return mean[order], deviation[order], float(share[order[1]])


def _climb(
    y: np.ndarray, low: float, high: float, rounds: int = 200
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Expectation maximisation from two means: log-likelihood, means, standard deviations, shares."""
    mean, share = np.array([low, max(high, low + 0.5)]), np.array([0.8, 0.2])
    deviation = np.full(2, max(float(y.std()) / 2, 0.2))
    likelihood = -np.inf
    for _ in range(rounds):
        logs = np.log(share) - np.log(deviation) - 0.5 * ((y[:, None] - mean) / deviation) ** 2
        top = logs.max(axis=1, keepdims=True)
        belongs = np.exp(logs - top)
        total = belongs.sum(axis=1, keepdims=True)
        belongs /= total
        cells = belongs.sum(axis=0) + 1e-9
        share, mean = cells / cells.sum(), (belongs * y[:, None]).sum(axis=0) / cells
        spread = (belongs * (y[:, None] - mean) ** 2).sum(axis=0) / cells
        deviation = np.sqrt(np.maximum(spread, _noise(mean) ** 2))
        before, likelihood = likelihood, float((np.log(total) + top).sum())
        if abs(likelihood - before) < 1e-9 * abs(likelihood):
            break
    return likelihood, mean, deviation, share


def _noise(level: Any) -> Any:
    """Standard deviation that counting alone gives log1p of a count whose log1p is `level`, at least 0.2."""
    count = np.maximum(np.expm1(level), 0.0)
    return np.maximum(np.sqrt(count + 0.25) / (1.0 + count), 0.2)


def _of_proteins(cells: Cells, panel: Sequence[str], where: str) -> list[str]:
    """Remarks on the panel; refuses a site with none of it."""
    if not len(panel) or not cells.proteins:
        return ["no proteins are measured here: the site can be predicted for, not learned from"] if len(panel) else []
    _, measured = cells.panel(panel)
    if not measured.any():
        raise DataError(
            f"{where}: expected proteins of the study ({some(list(panel))}), got none of them ({some(cells.proteins)})"
        )
    told = []
    lacking = [f"{canonical(name)}{near_proteins(name)}" for name, there in zip(panel, measured) if not there]
    if lacking:
        told.append(f"not measured here, and not taken for 0: {', '.join(lacking)}")
    asked = {canonical(name) for name in panel}
    here = [(place, name) for place, name in enumerate(cells.proteins) if name in asked]
    zero = [name for place, name in here if not cells.protein[:, place].any()]
    if zero:
        told.append(
            f"0 in all {len(cells):,} cells: {', '.join(zero)}; if not measured, leave its column out of the file"
        )
    asked_here = dataclasses.replace(
        cells, protein=cells.protein[:, [place for place, _ in here]], proteins=tuple(name for _, name in here)
    )
    dark = [name for name, only in background(asked_here).items() if only and name not in zero]
    if dark:
        told.append(f"background only, or alike on all cells: {', '.join(dark)}")
    unstained = int((~cells.protein.any(axis=1)).sum())
    if unstained:
        told.append(f"{unstained:,} cells have no count of any protein")
    return told
