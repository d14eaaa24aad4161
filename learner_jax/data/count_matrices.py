"""A matrix of counts, from memory or from disk, to one canonical CSR matrix of int32; whatever is no count is refused.

It is read in blocks of rows, so that a file's matrix (float32 values, int64 places, other layers) is never in memory as
a whole beside the one that is made of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from scipy import sparse

ROWS = 4096
MOST = np.iinfo(np.int32).max


class NotCounts(Exception):
    """A matrix that holds something else than counts; its text says what it looks like."""


def read_counts(matrix: Any) -> sparse.csr_matrix:
    """Raw counts as CSR, int32, indices sorted, no explicit zero and no place twice.

    Args:
      matrix: [n, G]; NumPy array, SciPy sparse matrix, a dataset of h5py or zarr, a sparse dataset of anndata.

    Raises:
      NotCounts: a value is NaN, negative, no whole number, or beyond int32.
    """
    from scipy import sparse

    parts = []
    for block in blocks_of(matrix):
        wrong = what_else(block)
        if wrong:
            raise NotCounts(wrong)
        block.data = np.asarray(block.data).astype(np.int32)
        block.eliminate_zeros()
        parts.append(block)
    if not parts:
        return sparse.csr_matrix(tuple(matrix.shape), dtype=np.int32)
    found = sparse.csr_matrix(sparse.vstack(parts, format="csr", dtype=np.int32))
    found.sort_indices()
    return found


def are_counts(matrix: Any) -> bool:
    """Whether all values are whole numbers from 0 on."""
    return all(not what_else(block) for block in blocks_of(matrix))


def blocks_of(matrix: Any, rows: int = ROWS) -> Iterator[sparse.csr_matrix]:
    """The matrix in blocks of rows, each a CSR matrix of its own without doubled places."""
    from scipy import sparse

    if _by_columns(matrix):
        matrix = matrix.to_memory() if hasattr(matrix, "to_memory") else matrix
        matrix = sparse.csr_matrix(matrix)
    elif sparse.issparse(matrix) and matrix.format != "csr":
        matrix = sparse.csr_matrix(matrix)
    for first in range(0, matrix.shape[0], rows):
        part = matrix[first : first + rows]
        part = part.compute() if hasattr(part, "compute") else part
        block = sparse.csr_matrix(part, copy=True)
        block.sum_duplicates()
        yield block


def what_else(block: sparse.csr_matrix) -> str:
    """What a block of a matrix holds if not counts, in words; "" for counts."""
    values = np.asarray(block.data)
    if values.dtype.kind in "bu" or not values.size:
        return "" if not values.size or int(values.max()) <= MOST else f"a count above {MOST}"
    if values.dtype.kind not in "if":
        return f"values of type {values.dtype}"
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return "NaN or infinity"
    if values.min() < 0:
        return "negative values, as scaled or centred data have"
    if values.dtype.kind == "f":
        broken = values != np.floor(values)
        if broken.any():
            return f"values with fractions ({broken.mean():.0%} of those that are not 0), {_looks_like(block)}"
    return "" if values.max() <= MOST else f"a count above {MOST}"


def _looks_like(block: sparse.csr_matrix) -> str:
    """What was done to the counts of a block with fractions."""
    plain = _same_total(block)
    if plain:
        return f"each cell summing to {plain}: normalised"
    from scipy import sparse

    top = float(np.max(block.data))
    if top < 50:
        back = sparse.csr_matrix((np.expm1(block.data.astype(np.float64)), block.indices, block.indptr), block.shape)
        total = _same_total(back)
        if total:
            return f"log1p of counts normalised to {total} a cell"
        return "as logarithms of normalised counts have"
    return "as normalised or estimated counts have"


def _same_total(block: sparse.csr_matrix) -> str:
    """The total that all cells share within 1 in 1,000, as text; "" if they do not."""
    totals = np.asarray(block.sum(axis=1), np.float64).ravel()
    totals = totals[totals > 0]
    if len(totals) < 2 or np.ptp(totals) > 1e-3 * totals.mean():
        return ""
    return f"{totals.mean():,.0f}"


def _by_columns(matrix: Any) -> bool:
    """Whether it is stored by columns, so that a block of rows would cost a pass over all of it."""
    return getattr(matrix, "format", None) == "csc"
