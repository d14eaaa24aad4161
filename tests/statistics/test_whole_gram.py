"""The Gram matrix in whole numbers: exact, and the same bits however the cells are dealt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.decomposition import PCA

from learner_jax.errors import DataError
from learner_jax.statistics import combine, genes
from learner_jax.statistics.whole_gram import BITS, mean_of, principal_of, whole_gram
from tests.statistics import pooled_cells as pooled


def values_of(cells, size, seed):
    return genes.log_normalised(pooled.random_cells(cells, size, seed))


def whole_of(values):
    """Values in units of 2^-16 as Python's own whole numbers."""
    return np.rint(np.asarray(values.todense()) * 2.0**BITS).astype(np.int64).astype(object)


def packed(matrix):
    return np.array([matrix[i][j] for i in range(len(matrix)) for j in range(i, len(matrix))], np.int64)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 12), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_any_deal_of_cells_gives_the_same_bits_and_they_are_exact(seed, cells, size, sites):
    values = values_of(cells, size, seed)
    parts = [values[at] for at in pooled.deal(cells, seed, sites)]
    total = combine([whole_gram(part, fewest=0) for part in parts])
    x = whole_of(values)
    assert int(total["rows"]) == cells
    np.testing.assert_array_equal(total["sum"], x.sum(axis=0).astype(np.int64))
    np.testing.assert_array_equal(total["gram"], packed(x.T @ x))
    assert {total[name].dtype for name in total} == {np.dtype(np.int64)}


def test_the_largest_values_in_more_than_a_block_are_exact_too():
    """4,096 products of almost 2^40: just below where float64 leaves whole numbers out."""
    largest = 16 - 2.0**-15
    rng = np.random.default_rng(0)
    dense = np.full((9000, 3), largest)
    dense[:, 1] -= rng.integers(0, 2**12, 9000) * 2.0**-16
    values = sparse.csr_matrix(dense)
    total = whole_gram(values)
    x = whole_of(values)
    np.testing.assert_array_equal(total["gram"], packed(x.T @ x))


def test_its_directions_are_sklearns_pca():
    adata = pooled.read(pooled.SAMPLE)
    counts = adata.X.tocsr()
    columns = np.sort(np.argsort(-np.asarray(counts.sum(axis=0)).ravel(), kind="stable")[:300])
    values = genes.log_normalised(counts)[:, columns]
    total = whole_gram(values)
    found = principal_of(total, 20)
    dense = np.rint(values.toarray() * 2.0**BITS) / 2.0**BITS
    oracle = PCA(20, svd_solver="full").fit(dense)
    np.testing.assert_allclose(found.components, np.asarray(oracle.components_).T, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.variance, oracle.explained_variance_ * (len(dense) - 1) / len(dense), rtol=1e-9)
    np.testing.assert_allclose(mean_of(total), dense.mean(axis=0), rtol=1e-13)


def test_what_cannot_be_is_said():
    values = values_of(99, 5, 0)
    with pytest.raises(DataError, match=r"expected at least 100 cells of site 'a' .* got 99"):
        whole_gram(values, where="site 'a'")
    with pytest.raises(DataError, match=r"expected log-normalised values below 16 of the site, got 40"):
        whole_gram(sparse.csr_matrix(np.full((2, 2), 40.0)), fewest=0)
    total = whole_gram(values, fewest=0)
    for k in (0, 6):
        with pytest.raises(DataError, match=f"expected 1 to 5 components of at least one cell, got k={k}"):
            principal_of(total, k)
