"""Highly variable genes over all sites' cells in two rounds of sums, by seurat_v3 or by Pearson residuals.

Round 1, for both: cells n, and of each gene the sum and the sum of squares of its counts.

seurat_v3 (Stuart, Butler, et al., Cell 2019, STAR Methods; scanpy's flavor of that name): a loess curve of log10
variance on log10 mean gives each gene's expected standard deviation s_g; counts are clipped at

    c_g = mean_g + s_g * sqrt(n)

and round 2 sums them. Genes are ranked by the variance of the clipped, standardised counts,

    v_g = sum_i (min(x_ig, c_g) - mean_g)^2 / ((n - 1) s_g^2)

Pearson residuals (Lause, Berens and Kobak, Genome Biology 2021): with cell totals t_i and gene sums m_g,

    mu_ig = t_i m_g / sum(m)       r_ig = clip((x_ig - mu_ig) / sqrt(mu_ig + mu_ig^2 / theta), -sqrt(n), sqrt(n))

and genes are ranked by the variance of r over cells; round 2 sums r and r^2 over all cells, zeros included.

What is exact. All sums are integers, so any deal of the cells to sites gives the same total, the same statistics to
the bit and the same genes. For seurat_v3 they are sums of counts: the few counts above c_g are not added but counted.
Pearson residuals are rounded, each cell's, to 2^-38 (4e-12) before they are added; their formula uses operations that
IEEE 754 rounds correctly, so it gives the same on every machine. The loess curve is fitted by the coordinator alone.

Ties. Genes are ranked by their variance, the highest first; of equal variance, by their mean, the highest first; of
equal mean too, by name in order of code points. scanpy's order among equals is that of an unstable sort.

What is revealed: mean and variance of each gene at the site, and the variance of clipped or residual counts. Sums of
one cell are that cell: a site of fewer than 10 cells should not send them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from learner_jax.errors import DataError
from learner_jax.statistics.genes import cell_totals, gene_sums, raw, shape

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

THETA = 100.0
SPAN = 0.3
_UNIT = 38  # residuals are summed as integers of 2^-38
_BLOCK = 2**17  # entries of a dense block: 1 MB in float64, which stays in a core's cache


class Expected(NamedTuple):
    """What the first round says of each gene, by seurat_v3.

    Attributes:
      cells: n, over all sites.
      sum: int64[G] of the counts.
      mean: float64[G] of the counts.
      variance: float64[G], with n - 1 below.
      deviation: float64[G] that loess expects at that mean; 1 for a gene that does not vary.
      clip: float64[G] counts above it are taken as it; broadcast for the second round.
    """

    cells: int
    sum: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    deviation: np.ndarray
    clip: np.ndarray


class Variable(NamedTuple):
    """Highly variable genes.

    Attributes:
      places: int64[top], the most variable first.
      tied: int64[t] places of all genes as variable as the last one chosen, if not all of them could be chosen: the
        rule for ties decided among them. Empty where it did not have to.
    """

    places: np.ndarray
    tied: np.ndarray


def count_moments(counts: csr_matrix, where: str = "the site") -> dict[str, np.ndarray]:
    """Round 1 of one site.

    Args:
      counts: integer CSR [n, G], raw.
      where: what to call the site in an error.

    Returns:
      {"cells": int64, "sum": int64[G], "squares": int64[G]}, exact.

    Raises:
      DataError: not raw counts.
    """
    counts = raw(counts, where)
    return {
        "cells": np.asarray(shape(counts)[0], np.int64),
        "sum": gene_sums(counts),
        "squares": gene_sums(counts, 2),
    }


def mean_and_variance(total: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased variance of the counts, float64[G] each, rounded once from the exact fraction.

    Raises:
      DataError: fewer than 2 cells in all.
    """
    cells, sums, squares = _cells(total), _whole(total["sum"]), _whole(total["squares"])
    return _float(sums / cells), _float((cells * squares - sums * sums) / (cells * (cells - 1)))


def expected(total: dict[str, np.ndarray], span: float = SPAN) -> Expected:
    """The loess curve of seurat_v3 through all genes that vary, from the total of `count_moments`.

    Args:
      total: of all sites.
      span: share of the genes that each point of the curve looks at.

    Returns:
      What each gene is expected to be; its `clip` goes to the sites.

    Raises:
      DataError: fewer than 2 cells, or genes too few or too alike for a curve.
    """
    try:
        from skmisc.loess import loess
    except ImportError as error:
        raise DataError("seurat_v3 needs scikit-misc for its curve: pip install 'learner-jax[cells]'") from error
    cells = _cells(total)
    mean, variance = mean_and_variance(total)
    varies = variance > 0
    if not varies.any():
        raise DataError(f"expected genes that vary over the {cells} cells, got none of {len(mean)}")
    if not 0 < span <= 1 or int(span * varies.sum()) < 3:  # loess ends the whole process when it looks at no point
        raise _no_curve(varies, span)
    fitted = np.zeros(len(mean))
    try:
        curve = loess(np.log10(mean[varies]), np.log10(variance[varies]), span=span, degree=2)
        curve.fit()
        fitted[varies] = curve.outputs.fitted_values
    except ValueError as error:
        raise _no_curve(varies, span) from error
    if not np.isfinite(fitted).all():
        raise _no_curve(varies, span)
    deviation = np.sqrt(10**fitted)
    return Expected(cells, total["sum"], mean, variance, deviation, deviation * np.sqrt(cells) + mean)


def clipped(counts: csr_matrix, clip: np.ndarray, where: str = "the site") -> dict[str, np.ndarray]:
    """Round 2 of one site, seurat_v3: counts up to the clip are added, those above are counted.

    Args:
      counts: integer CSR [n, G], raw, the same cells as in round 1.
      clip: float64[G] as `expected` gave it.
      where: what to call the site in an error.

    Returns:
      {"cells": int64, "sum": int64[G], "squares": int64[G], "above": int64[G] counts above the clip}, exact.

    Raises:
      DataError: not raw counts, or a clip for another number of genes.
    """
    counts = raw(counts, where)
    _same_genes(counts, clip, "a clip")
    kept = counts.copy()
    above = kept.data > clip[kept.indices]
    kept.data[above] = 0
    return {
        "cells": np.asarray(shape(counts)[0], np.int64),
        "sum": gene_sums(kept),
        "squares": gene_sums(kept, 2),
        "above": np.bincount(counts.indices[above], minlength=len(clip)).astype(np.int64),
    }


def normalised_variance(curve: Expected, total: dict[str, np.ndarray]) -> np.ndarray:
    """v_g of seurat_v3, float64[G].

    The squares about the mean are an exact fraction of integers, so nothing cancels; a clipped count is n s_g^2 away
    from the mean, squared.

    Args:
      curve: as `expected` gave it.
      total: of `clipped` over all sites.

    Raises:
      DataError: other cells than those of the first round.
    """
    cells = curve.cells
    if int(total["cells"]) != cells:
        raise DataError(f"expected the {cells} cells of the first round in the second, got {int(total['cells'])}")
    first = _whole(curve.sum)
    sums, squares, above = _whole(total["sum"]), _whole(total["squares"]), _whole(total["above"])
    below = _float(
        (cells * cells * squares - 2 * cells * first * sums + (cells - above) * first * first) / (cells * cells)
    )
    return (below / curve.deviation**2 + total["above"] * float(cells)) / (cells - 1)


def residuals(
    counts: csr_matrix,
    first: dict[str, np.ndarray],
    theta: float = THETA,
    clip: float | None = None,
    names: Sequence[str] | None = None,
    where: str = "the site",
) -> dict[str, np.ndarray]:
    """Round 2 of one site, Pearson residuals, in dense blocks of 10 MB or so (2 s for 10^8 entries, a core).

    Args:
      counts: integer CSR [n, G], raw, the same cells as in round 1.
      first: total of `count_moments` over all sites.
      theta: dispersion of the negative binomial, shared by all genes; infinite for Poisson.
      clip: residuals are cut at -clip and clip; the square root of the number of cells when None.
      names: n barcodes, to name a cell with.
      where: what to call the site in an error.

    Returns:
      {"cells": int64, "sum", "sum_rest", "squares", "squares_rest": int64[G]}: the sums are their whole part plus
      rest * 2^-38. A gene without any count anywhere has residual 0.

    Raises:
      DataError: not raw counts, other genes than in the first round, a cell without a single count, theta or clip out
        of range, or 2^24 cells and more in all (16 million: the rests would run over).
    """
    counts = raw(counts, where)
    genes, cells = _whole_floats(first["sum"]), _cells(first)
    _same_genes(counts, genes, "first-round sums")
    if not theta > 0:
        raise DataError(f"expected theta above 0, got theta={theta}")
    bound = float(np.sqrt(cells)) if clip is None else clip
    if not 0 <= bound <= 2**16:
        raise DataError(f"expected clip from 0 to 65,536, got clip={clip}")
    if cells >= 2**24:
        raise DataError(f"expected fewer than 16,777,216 cells, got {cells}")
    totals, all_counts = cell_totals(counts, names, where).astype(np.float64), genes.sum()
    found = {name: np.zeros(len(genes), np.int64) for name in ("sum", "sum_rest", "squares", "squares_rest")}
    step = max(1, _BLOCK // max(1, len(genes)))
    for start in range(0, len(totals), step):
        mean = genes * totals[start : start + step, None] / all_counts
        away = np.asarray(counts[start : start + step].todense(), np.float64) - mean
        spread = np.sqrt(mean + mean * mean / theta)
        residual = np.divide(away, spread, out=np.zeros_like(away), where=spread > 0)
        np.clip(residual, -bound, bound, out=residual)
        for name, block in (("sum", residual), ("squares", residual * residual)):
            whole = np.floor(block)
            found[name] += whole.sum(axis=0).astype(np.int64)
            found[f"{name}_rest"] += np.rint((block - whole) * 2.0**_UNIT).astype(np.int64).sum(axis=0)
    return {"cells": np.asarray(len(totals), np.int64), **found}


def residual_variance(total: dict[str, np.ndarray]) -> np.ndarray:
    """Variance of the Pearson residuals over all cells (n below, as scanpy), float64[G], from the total of `residuals`.

    Rounding the residuals moves it by less than 1e-11.
    """
    cells = _cells(total)
    sums = _whole(total["sum"]) * 2**_UNIT + _whole(total["sum_rest"])
    squares = _whole(total["squares"]) * 2**_UNIT + _whole(total["squares_rest"])
    return np.maximum(_float((cells * squares * 2**_UNIT - sums * sums) / (cells * cells * 4**_UNIT)), 0.0)


def ranked(variance: np.ndarray, mean: np.ndarray, names: Sequence[str] | np.ndarray) -> np.ndarray:
    """Places of all genes, int64[G]: highest variance first, then highest mean, then name in code point order."""
    return np.lexsort((np.asarray(names, dtype=str), -np.asarray(mean), -np.asarray(variance))).astype(np.int64)


def most_variable(variance: np.ndarray, mean: np.ndarray, names: Sequence[str] | np.ndarray, top: int) -> Variable:
    """The `top` most variable genes by the rule for ties above.

    Args:
      variance: float64[G], from `normalised_variance` or `residual_variance`.
      mean: float64[G] of the counts.
      names: G different gene names.
      top: how many; all genes where there are fewer.

    Raises:
      DataError: top below 1, or a name that is there twice.
    """
    if top < 1:
        raise DataError(f"expected at least 1 highly variable gene to be asked for, got top={top}")
    if len(set(np.asarray(names, dtype=str).tolist())) < len(names):
        raise DataError("expected each gene name once, got one of them twice: ties could not be broken by it")
    order = ranked(variance, mean, names)
    places = order[:top]
    equal = order[variance[order] == variance[places[-1]]]
    undecided = len(np.setdiff1d(equal, places)) > 0
    return Variable(places, equal if undecided else equal[:0])


def _cells(total: dict[str, np.ndarray]) -> int:
    cells = int(total["cells"])
    if cells < 2:
        raise DataError(f"expected at least 2 cells over all sites, got {cells}")
    return cells


def _same_genes(counts: csr_matrix, of_genes: np.ndarray, what: str) -> None:
    if shape(counts)[1] != len(of_genes):
        raise DataError(f"expected {what} for {shape(counts)[1]} genes, got {len(of_genes)}")


def _no_curve(varies: np.ndarray, span: float) -> DataError:
    return DataError(
        f"expected genes of enough different means for a loess curve with span {span}, got {int(varies.sum())} genes "
        "that vary: use Pearson residuals, or a wider span"
    )


def _whole(values: np.ndarray) -> np.ndarray:
    """As Python integers, which do not run over and whose quotient is rounded once."""
    return np.asarray(values).astype(np.int64).astype(object)


def _whole_floats(values: np.ndarray) -> np.ndarray:
    return np.asarray(values).astype(np.float64)


def _float(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64)
