"""Genes over all sites' cells: which every site has, library sizes, log-normalised values, their mean and deviation.

Counts are raw UMI counts, scipy.sparse CSR [cells, genes] of an integer type, columns in the order of one list of
genes that the study agreed on. Each function over counts gives one site's sums; `combine` adds them. Sums of counts
are integers, so they are the same however the cells are dealt to sites; sums of log-normalised values are floats and
equal the pooled ones to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from learner_jax.errors import DataError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

TARGET = 1e4


def present(has: np.ndarray) -> dict[str, np.ndarray]:
    """One site's answer to the question which of the study's genes it has.

    A gene that is absent is not a gene of which no copy was found: the first has no column, the second is all zero.

    Args:
      has: bool[G], as `Cells.has` gives it.

    Returns:
      {"sites": int64[G], "of": int64, one for this site}. Reveals the list of genes of a site, nothing of its cells.
    """
    return {"sites": np.asarray(has, bool).astype(np.int64), "of": np.asarray(1, np.int64)}


def everywhere(total: dict[str, np.ndarray]) -> np.ndarray:
    """bool[G]: genes that every site has, from the total of `present`."""
    return total["sites"] == total["of"]


def library(counts: csr_matrix, names: Sequence[str] | None = None, where: str = "the site") -> dict[str, np.ndarray]:
    """Cells and counts of a site.

    Args:
      counts: integer CSR [n, G], raw.
      names: n barcodes, to name a cell with; its row number from 0 is told without.
      where: what to call the site in an error.

    Returns:
      {"cells": int64, "counts": int64, the total over cells and genes}.

    Raises:
      DataError: not raw counts, or a cell without a single count.
    """
    counts = raw(counts, where)
    totals = cell_totals(counts, names, where)
    return {"cells": np.asarray(len(totals), np.int64), "counts": np.asarray(totals.sum(), np.int64)}


def log_normalised(
    counts: csr_matrix, target: float = TARGET, names: Sequence[str] | None = None, where: str = "the site"
) -> csr_matrix:
    """log(1 + target * count / total of the cell): scanpy's normalize_total(target_sum=1e4) and log1p.

    Nothing of another cell or site enters, so this takes no round. The total is over the columns given: give all genes
    that the study agreed on, and choose the variable ones afterwards.

    Args:
      counts: integer CSR [n, G], raw.
      target: counts that each cell is brought to.
      names: n barcodes, to name a cell with.
      where: what to call the site in an error.

    Returns:
      float64 CSR [n, G], zero where the count is. It shares the places of its entries with `counts`: neither may be
      sorted or changed in place.

    Raises:
      DataError: not raw counts, or a cell without a single count.
    """
    from scipy.sparse import csr_matrix

    counts = raw(counts, where)
    totals = cell_totals(counts, names, where)
    values = np.log1p(counts.data * np.repeat(target / totals, np.diff(counts.indptr)))
    return csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape, copy=False)


def value_moments(values: csr_matrix, centre: np.ndarray | float = 0.0) -> dict[str, np.ndarray]:
    """Rows, sum and sum of squares about a centre, zeros included: `moments` for sparse values, never made dense.

    Two rounds lose no digits: the first with centre 0 gives each gene's mean, the second with that mean as its centre
    gives the deviation. Float sums: equal to the pooled ones to rounding, and to the bit only in the same order.

    Args:
      values: float CSR [n, G], log-normalised.
      centre: float[G] or a scalar, the same at every site.

    Returns:
      {"rows": int64[G], "sum": float64[G], "squares": float64[G]}, to be read by `mean_and_deviation`. Reveals mean
      and variance of each gene at the site; of one cell alone, its values.
    """
    rows, genes = shape(values)
    centre = np.broadcast_to(np.asarray(centre, np.float64), (genes,))
    away = values.data - centre[values.indices]
    absent = rows - np.bincount(values.indices, minlength=genes)
    return {
        "rows": np.full(genes, rows, np.int64),
        "sum": np.bincount(values.indices, away, genes) - absent * centre,
        "squares": np.bincount(values.indices, away * away, genes) + absent * centre * centre,
    }


def divisor(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """float64[G]: the deviation to divide by, 1 for a gene that is the same in all cells (to ten digits)."""
    return np.where(deviation > 1e-10 * np.maximum(1.0, np.abs(mean)), deviation, 1.0)


def raw(counts: Any, where: str = "the site") -> csr_matrix:
    """The counts themselves, seen to be raw: integer CSR, nothing below 0, each place once.

    Raises:
      DataError: anything else.
    """
    from scipy.sparse import issparse

    if not issparse(counts) or counts.format != "csr":
        raise DataError(f"expected counts of {where} as a scipy.sparse CSR matrix, got {type(counts).__name__}")
    if counts.dtype.kind not in "iu":
        raise DataError(f"expected raw counts of {where} in an integer type, got {counts.dtype}")
    if not counts.has_canonical_format:
        counts = counts.copy()
        counts.sum_duplicates()
    if counts.nnz:
        if counts.data.min() < 0:
            raise DataError(f"expected counts of {where} of 0 or more, got one below 0")
        if float(counts.data.max()) ** 2 * shape(counts)[0] >= 2.0**62:
            raise DataError(f"expected UMI counts of {where}, got one too large to be squared and summed")
    return counts


def cell_totals(counts: csr_matrix, names: Sequence[str] | None = None, where: str = "the site") -> np.ndarray:
    """Counts of each cell, int64[n].

    Raises:
      DataError: a cell without a single count: it has no size factor.
    """
    rows, genes = shape(counts)
    totals = _exact(counts) @ np.ones(genes, np.int64)
    empty = np.flatnonzero(totals == 0)
    if len(empty):
        cell = f"'{names[int(empty[0])]}'" if names is not None else f"in row {empty[0]}"
        raise DataError(
            f"expected each cell of {where} to have at least 1 count over the {genes} genes, "
            f"got none in {len(empty)} of {rows} cells, the first {cell}: leave them out"
        )
    return totals


def gene_sums(counts: csr_matrix, power: int = 1) -> np.ndarray:
    """Sum over cells of count ** power, int64[G], exact."""
    return np.ones(shape(counts)[0], np.int64) @ _exact(counts, power)


def _exact(counts: csr_matrix, power: int = 1) -> csr_matrix:
    from scipy.sparse import csr_matrix

    data = counts.data.astype(np.int64) ** power
    return csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape, copy=False)


def shape(matrix: Any) -> tuple[int, int]:
    """(cells, genes) of a sparse matrix, as two plain numbers."""
    return int(matrix.shape[0]), int(matrix.shape[1])
