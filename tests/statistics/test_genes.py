"""Log-normalised values and their moments over sites equal scanpy's and scikit-learn's on the pooled cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from learner_jax.errors import DataError
from learner_jax.statistics import combine, genes, mean_and_deviation
from tests.statistics import pooled_cells as pooled

COUNTS = pooled.random_cells(130, 40, 2)


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=5))
def test_genes_that_every_site_has(has):
    total = combine([genes.present(np.array(site)) for site in has])
    assert genes.everywhere(total).tolist() == np.all(has, axis=0).tolist()
    assert total["sites"].tolist() == np.sum(has, axis=0).tolist()


def test_library_sizes_add_up():
    parts = [COUNTS[rows] for rows in pooled.deal(130, 0)]
    total = combine([genes.library(part) for part in parts])
    assert (int(total["cells"]), int(total["counts"])) == (130, int(COUNTS.sum()))


@pytest.mark.parametrize("target", [1e4, 1.0])
def test_log_normalised_is_scanpys(target):
    adata = pooled.anndata_of(COUNTS.astype(np.float64), [f"g{i}" for i in range(40)])
    sc = pooled.scanpy()
    pooled.quietly(sc.pp.normalize_total, adata, target_sum=target)
    pooled.quietly(sc.pp.log1p, adata)
    ours = genes.log_normalised(COUNTS, target)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours.toarray(), adata.X.toarray(), rtol=1e-14, atol=0)


def test_the_shipped_sample_in_small_integers_is_log_normalised_like_its_wide_copy():
    counts = pooled.read(pooled.SAMPLE).X.tocsr()
    assert counts.dtype == np.uint16
    wide = genes.log_normalised(counts.astype(np.int64))
    assert genes.log_normalised(counts).data.tobytes() == wide.data.tobytes()
    back = np.expm1(wide.toarray()).sum(axis=1)
    np.testing.assert_allclose(back, 1e4, rtol=1e-12)


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_moments_in_two_rounds_equal_the_pooled_ones(seed):
    """Oracle: scikit-learn's StandardScaler on the pooled, dense values."""
    from sklearn.preprocessing import StandardScaler

    values = genes.log_normalised(COUNTS)
    parts = [values[rows] for rows in pooled.deal(130, seed)]
    mean, _ = mean_and_deviation(combine([genes.value_moments(part) for part in parts]))
    total = combine([genes.value_moments(part, mean) for part in parts])
    mean, deviation = mean_and_deviation(total, mean)
    oracle = StandardScaler().fit(values.toarray())
    assert total["rows"].tolist() == [130] * 40
    np.testing.assert_allclose(mean, np.asarray(oracle.mean_, float), rtol=1e-13)
    np.testing.assert_allclose(deviation, np.asarray(oracle.scale_, float), rtol=1e-12)


def test_the_second_round_keeps_digits_that_the_first_loses():
    """A gene that hardly varies about a large mean."""
    rng = np.random.default_rng(0)
    values = sparse.csr_matrix(1e6 + rng.normal(size=(500, 1)))
    mean, blunt = mean_and_deviation(genes.value_moments(values))
    _, sharp = mean_and_deviation(genes.value_moments(values, mean), mean)
    true = values.toarray().std()
    assert abs(sharp[0] / true - 1) < 1e-9 < abs(blunt[0] / true - 1)


def test_a_gene_that_does_not_vary_is_divided_by_one():
    values = sparse.csr_matrix(np.array([[0.0, 0.1], [0.0, 0.1], [0.0, 0.1]]))
    mean, _ = mean_and_deviation(genes.value_moments(values))
    mean, deviation = mean_and_deviation(genes.value_moments(values, mean), mean)
    assert genes.divisor(mean, deviation).tolist() == [1.0, 1.0]
    assert genes.divisor(np.array([5.0]), np.array([1e-3])).tolist() == [1e-3]


@pytest.mark.parametrize("names, cell", [(None, "in row 1"), (["AAA", "CCC", "GGG"], "'CCC'")])
@pytest.mark.parametrize("function", [genes.library, genes.log_normalised])
def test_a_cell_without_a_count_is_refused_by_name(function, names, cell):
    counts = sparse.csr_matrix(np.array([[1, 0], [0, 0], [2, 1]], np.int32))
    with pytest.raises(DataError, match=f"of s1 to have .* none in 1 of 3 cells, the first {cell}"):
        function(counts, names=names, where="s1")
