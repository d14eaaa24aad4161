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
      matrix: [n, G]; NumPy array, SciPy sparse matrix, a dataset of h5py or zarr, a group of them that
        holds a sparse matrix, a sparse dataset of anndata.

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
        return sparse.csr_matrix(shape_of(matrix), dtype=np.int32)
    found = sparse.csr_matrix(sparse.vstack(parts, format="csr", dtype=np.int32))
    found.sort_indices()
    return found


def are_counts(matrix: Any) -> bool:
    """Whether all values are whole numbers from 0 on."""
    return all(not what_else(block) for block in blocks_of(matrix))


def blocks_of(matrix: Any, rows: int = ROWS) -> Iterator[sparse.csr_matrix]:
    """The matrix in blocks of rows, each a CSR matrix of its own without doubled places.

    A sparse matrix that lies on disk by rows is read here from its three arrays, by h5py or zarr: anndata 0.12's own
    way to index it fails with SciPy >= 1.17. One that lies there by columns is read as a whole.
    """
    from scipy import sparse

    stored = getattr(matrix, "group", matrix)
    if is_stored(stored):
        yield from _stored_blocks(stored, rows)
        return
    if sparse.issparse(matrix) and matrix.format != "csr":
        matrix = sparse.csr_matrix(matrix)
    for first in range(0, matrix.shape[0], rows):
        part = matrix[first : first + rows]
        part = part.compute() if hasattr(part, "compute") else part
        block = sparse.csr_matrix(part, copy=True)
        block.sum_duplicates()
        yield block


def is_stored(matrix: Any) -> bool:
    """Whether it is a group of h5py or zarr that holds a sparse matrix as anndata stores it."""
    return hasattr(matrix, "attrs") and hasattr(matrix, "keys") and "indptr" in matrix


def shape_of(matrix: Any) -> tuple[int, int]:
    """(rows, columns) of a matrix that `blocks_of` reads."""
    stored = getattr(matrix, "group", matrix)
    if is_stored(stored):
        shape = stored.attrs["shape"] if "shape" in stored.attrs else stored.attrs["h5sparse_shape"]
        return int(shape[0]), int(shape[1])
    return int(matrix.shape[0]), int(matrix.shape[1])


def _stored_blocks(group: Any, rows: int) -> Iterator[sparse.csr_matrix]:
    from scipy import sparse

    count, columns = shape_of(group)
    kind = str(group.attrs.get("encoding-type", group.attrs.get("h5sparse_format", "csr")))
    starts = np.asarray(group["indptr"][:], np.int64)
    expected = (columns if kind.startswith("csc") else count) + 1
    sizes = {group["data"].shape[0], group["indices"].shape[0], int(starts[-1]) if len(starts) else -1}
    if len(starts) != expected or len(sizes) > 1:
        raise OSError("a sparse matrix whose arrays do not fit each other")
    if kind.startswith("csc"):
        by_column = (group["data"][:], group["indices"][:], starts)
        whole = sparse.csr_matrix(sparse.csc_matrix(by_column, shape=(count, columns)))
        yield from blocks_of(whole, rows)
        return
    for first in range(0, count, rows):
        last = min(first + rows, count)
        at, end = int(starts[first]), int(starts[last])
        indices = np.asarray(group["indices"][at:end])
        if len(indices) and (int(indices.min()) < 0 or int(indices.max()) >= columns):
            raise OSError("a sparse matrix with a place beyond its columns")
        values = np.asarray(group["data"][at:end])
        block = sparse.csr_matrix((values, indices, starts[first : last + 1] - at), shape=(last - first, columns))
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
