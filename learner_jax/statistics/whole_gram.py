"""The Gram matrix of log-normalised genes in whole numbers, so that any deal of cells to sites gives the same bits.

Values are rounded to 2^-16 (8e-6, of values up to about 9). A product of two is below 2^40, and a block of at most
4,096 cells below 2^53, so that float64 matrix products are exact whatever the order in which they are added; blocks
and sites add as int64. Means are taken off at the coordinator, where they cost no round.

Source and what is revealed: see `learner_jax.statistics.reduction`, whose `gram` takes any centre and scale, in floats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from learner_jax.errors import DataError
from learner_jax.statistics.genes import shape
from learner_jax.statistics.reduction import FEWEST_CELLS, Reduction, signed

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

BITS = 16
_BLOCK, _LARGEST = 4096, 2.0**20
Sums = dict[str, np.ndarray]


def whole_gram(values: csr_matrix, fewest: int = FEWEST_CELLS, where: str = "the site") -> Sums:
    """Sums of one site.

    Args:
      values: float CSR [n, G], log-normalised, below 16.
      fewest: a site of fewer cells is refused.
      where: what to call the site in an error.

    Returns:
      {"rows": int64, "sum": int64[G] in units of 2^-16, "gram": int64[G (G + 1) / 2] in units of 2^-32, row after row}.

    Raises:
      DataError: too few cells, or a value of 16 or more.
    """
    rows, size = shape(values)
    if rows < fewest:
        raise DataError(f"expected at least {fewest} cells of {where} for a shared reduction, got {rows}")
    whole = _whole(values)
    if len(whole.data) and np.abs(whole.data).max() >= _LARGEST:
        raise DataError(f"expected log-normalised values below 16 of {where}, got {np.abs(values.data).max():.3g}")
    sums, full = np.zeros(size, np.int64), np.zeros((size, size), np.int64)
    for begin in range(0, rows, _BLOCK):
        dense = np.asarray(whole[begin : begin + _BLOCK].todense(), np.float64)
        sums += dense.sum(axis=0).astype(np.int64)
        full += (dense.T @ dense).astype(np.int64)
    return {"rows": np.asarray(rows, np.int64), "sum": sums, "gram": full[np.triu_indices(size)]}


def _whole(values: csr_matrix) -> csr_matrix:
    """Whole numbers, in units of 2^-16."""
    whole = values.copy()
    whole.data = np.rint(values.data * 2.0**BITS)
    return whole


def whole_moments(values: csr_matrix) -> Sums:
    """{"rows": int64, "sum": int64[G] in units of 2^-16, "squares": int64[G] in units of 2^-32}, of one site."""
    whole = _whole(values)
    sums = np.asarray(whole.sum(axis=0)).ravel().astype(np.int64)  # below 2^53: exact
    squares = np.zeros(shape(values)[1], np.int64)
    np.add.at(squares, whole.indices, whole.data.astype(np.int64) ** 2)
    return {"rows": np.asarray(shape(values)[0], np.int64), "sum": sums, "squares": squares}


def deviation_of(total: Sums) -> np.ndarray:
    """Standard deviation of each gene over all cells, float64[G], from `whole_gram` or `whole_moments`; 1 for a gene
    that does not vary."""
    rows, size = max(float(total["rows"]), 1.0), len(total["sum"])
    if "squares" in total:
        squares = total["squares"]
    else:  # the diagonal of the triangle
        squares = total["gram"][np.concatenate([[0], np.cumsum(np.arange(size, 1, -1))]).astype(np.int64)]
    variance = squares * 2.0 ** (-2 * BITS) / rows - (total["sum"] / (rows * 2.0**BITS)) ** 2
    return np.sqrt(np.where(variance > 1e-12, variance, 1.0))


def mean_of(total: Sums) -> np.ndarray:
    """Mean of each gene over all cells, float64[G]."""
    return total["sum"] / (float(total["rows"]) * 2.0**BITS)


def principal_of(total: Sums, k: int, scale: np.ndarray | None = None) -> Reduction:
    """The k leading principal directions, the mean taken off.

    Args:
      total: over all sites.
      k: from 1 to G.
      scale: float64[G], by which genes are divided first (their deviations: standardised genes); None for none.

    Raises:
      DataError: k out of range, or no cells.
    """
    from scipy.linalg import eigh

    rows, size = int(total["rows"]), len(total["sum"])
    if rows < 1 or not 1 <= k <= size:
        raise DataError(f"expected 1 to {size} components of at least one cell, got k={k} of {rows} cells")
    upper = np.zeros((size, size))
    upper[np.triu_indices(size)] = total["gram"] * 2.0 ** (-2 * BITS)
    mean = mean_of(total)
    upper -= np.triu(np.outer(mean, mean) * rows)
    if scale is not None:
        upper /= np.outer(scale, scale)
    values, vectors = eigh(upper, lower=False, subset_by_index=[size - k, size - 1], overwrite_a=True)
    return Reduction(signed(vectors[:, ::-1]), np.maximum(values[::-1], 0.0) / rows)
