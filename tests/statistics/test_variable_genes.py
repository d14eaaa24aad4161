"""Highly variable genes from sums over sites are scanpy's on the pooled cells, however the cells are dealt."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from learner_jax.errors import DataError
from learner_jax.statistics import combine
from learner_jax.statistics import variable_genes as vg
from tests.statistics import pooled_cells as pooled


def seurat(parts, span=vg.SPAN):
    curve = vg.expected(combine([vg.count_moments(part) for part in parts]), span)
    return curve, vg.normalised_variance(curve, combine([vg.clipped(part, curve.clip) for part in parts]))


def pearson(parts, theta=vg.THETA):
    first = combine([vg.count_moments(part) for part in parts])
    second = combine([vg.residuals(part, first, theta) for part in parts])
    return vg.mean_and_variance(first)[0], vg.residual_variance(second)


def named(genes: int) -> list[str]:
    return [f"G{gene:05d}" for gene in range(genes)]


def by_obs(adata, column):
    sites = adata.obs[column].to_numpy().astype(str)
    counts = adata.X.tocsr()
    return [counts[sites == site] for site in sorted(set(sites))]


def random_parts():
    counts = pooled.random_cells(700, 900, 3).toarray()
    counts[np.arange(100), np.arange(0, 900, 9)] = 400  # a hundred genes with one cell far out
    counts = sparse.csr_matrix(counts)
    return pooled.anndata_of(counts, named(900)), [counts[rows] for rows in pooled.deal(700, 0)]


def sample_parts():
    adata = pooled.read(pooled.SAMPLE)
    return adata, by_obs(adata, "site")


def whole_parts():
    adata = pooled.whole_file()
    dealt = pooled.deal(adata.n_obs, 1)
    return adata, [adata.X.tocsr()[rows] for rows in dealt]


CASES = pytest.mark.parametrize("cells", [random_parts, sample_parts, whole_parts])


def assert_scanpys(ours: vg.Variable, theirs: np.ndarray) -> None:
    """The same genes, but for those that the rule for ties decided among."""
    differ = np.setxor1d(ours.places, np.flatnonzero(theirs))
    assert np.setdiff1d(differ, ours.tied).tolist() == []


@CASES
@pytest.mark.parametrize("top", [50, 300])
def test_seurat_v3_is_scanpys_on_the_pooled_cells(cells, top):
    adata, parts = cells()
    adata.X = adata.X.astype(np.int32)
    oracle = pooled.quietly(
        pooled.scanpy().pp.highly_variable_genes, adata, flavor="seurat_v3", n_top_genes=top, inplace=False
    )
    curve, variance = seurat(parts)
    np.testing.assert_allclose(curve.mean, oracle["means"], rtol=1e-12, atol=0)
    np.testing.assert_allclose(curve.variance, oracle["variances"], rtol=1e-12, atol=0)
    np.testing.assert_allclose(variance, oracle["variances_norm"], rtol=1e-12, atol=0)
    chosen = vg.most_variable(variance, curve.mean, adata.var_names.to_numpy(), top)
    assert len(chosen.places) == top
    assert_scanpys(chosen, oracle["highly_variable"].to_numpy())
    if not len(chosen.tied):
        assert set(chosen.places) == set(np.flatnonzero(oracle["highly_variable"]))


@CASES
def test_pearson_residuals_are_scanpys_on_the_pooled_cells(cells):
    adata, parts = cells()
    adata.X = adata.X.astype(np.int32)
    oracle = pooled.quietly(
        pooled.scanpy().experimental.pp.highly_variable_genes, adata, n_top_genes=200, inplace=False
    )
    mean, variance = pearson(parts)
    np.testing.assert_allclose(mean, oracle["means"], rtol=1e-12, atol=0)
    np.testing.assert_allclose(variance, oracle["residual_variances"], rtol=1e-11, atol=0)
    assert_scanpys(
        vg.most_variable(variance, mean, adata.var_names.to_numpy(), 200), oracle["highly_variable"].to_numpy()
    )


def test_clipping_is_at_work_in_these_cells():
    """Were no count above its clip, equality with scanpy would say nothing of the second round."""
    for cells, fewest in ((random_parts, 50), (sample_parts, 5)):
        _, parts = cells()
        curve, _ = seurat(parts)
        above = combine([vg.clipped(part, curve.clip) for part in parts])["above"]
        assert (above > 0).sum() >= fewest


COUNTS = pooled.random_cells(120, 150, 8)
POOLED = (*seurat([COUNTS]), *pearson([COUNTS]))


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 9))
def test_any_deal_of_cells_to_sites_gives_the_same_bits(seed, sites):
    """Cells shuffled and dealt, some sites empty: curve, variances and genes to the bit, by both methods."""
    order = np.random.default_rng(seed).permutation(COUNTS.shape[0])
    parts = [COUNTS[order[rows]] for rows in pooled.deal(len(order), seed, sites)]
    curve, variance = seurat(parts)
    mean, of_residuals = pearson(parts)
    for ours, theirs in zip((*curve[1:], variance, mean, of_residuals), (*POOLED[0][1:], *POOLED[1:]), strict=True):
        assert ours.tobytes() == theirs.tobytes()
    ours = vg.most_variable(of_residuals, mean, named(150), 30)
    assert ours.places.tolist() == vg.most_variable(POOLED[3], POOLED[2], named(150), 30).places.tolist()


def test_blocks_of_cells_do_not_show(monkeypatch):
    monkeypatch.setattr(vg, "_BLOCK", 7 * 150)
    assert pearson([COUNTS])[1].tobytes() == POOLED[3].tobytes()


# ---- ties


def twins() -> tuple[Any, list[str], int]:
    """Cells whose most variable gene is there five times under five names; columns in no order."""
    counts, names = pooled.random_cells(150, 120, 5), named(120)
    _, variance = seurat([counts])
    best = int(np.argmax(variance))
    column = counts[:, [best]]
    more = sparse.hstack([counts, column, column, column, column]).tocsr().astype(np.int32)
    return more, [*names, "zz", "aa", "mm", "A"], best


def test_ties_at_the_cut_are_broken_by_name_and_listed():
    counts, names, best = twins()
    equal = {names[best], "zz", "aa", "mm", "A"}
    for mean, variance in ((seurat([counts])[0].mean, seurat([counts])[1]), pearson([counts])):
        assert len({variance[names.index(name)] for name in equal}) == 1
        first = int((variance > variance[best]).sum())
        chosen = vg.most_variable(variance, mean, names, first + 3)
        assert [names[place] for place in chosen.places[first:]] == sorted(equal)[:3]
        assert {names[place] for place in chosen.tied} == equal
        assert vg.most_variable(variance, mean, names, first + 5).tied.tolist() == []  # all five fit: none decided


def test_scanpy_chooses_among_the_same_ties():
    counts, names, _ = twins()
    adata = pooled.anndata_of(counts, names)
    for top in (1, 2, 3, 4, 5, 6):
        oracle = pooled.quietly(
            pooled.scanpy().pp.highly_variable_genes, adata, flavor="seurat_v3", n_top_genes=top, inplace=False
        )
        curve, variance = seurat([counts])
        assert_scanpys(vg.most_variable(variance, curve.mean, names, top), oracle["highly_variable"].to_numpy())


def test_the_order_of_columns_chooses_nothing():
    counts, names, best = twins()
    turned = np.random.default_rng(0).permutation(len(names))
    mean, variance = pearson([counts])
    mean_too, variance_too = pearson([counts[:, turned]])
    assert variance[turned].tobytes() == variance_too.tobytes()
    for top in range(1, 12):
        here = [names[place] for place in vg.most_variable(variance, mean, names, top).places]
        names_too = [names[place] for place in turned]
        assert here == [names_too[place] for place in vg.most_variable(variance_too, mean_too, names_too, top).places]


def test_equal_variances_go_by_mean_then_by_name():
    variance, mean = np.array([1.0, 2.0, 2.0, 2.0, 3.0]), np.array([9.0, 1.0, 4.0, 4.0, 0.0])
    assert vg.ranked(variance, mean, ["e", "d", "b", "C", "a"]).tolist() == [4, 3, 2, 1, 0]


# ---- by hand


def test_mean_and_variance_are_the_exact_fraction_rounded_once():
    """Counts near 2^30, where sums of squares have lost every digit of the variance in float64."""
    column = [2**30, 2**30 + 1, 2**30 + 5]
    mean, variance = vg.mean_and_variance(vg.count_moments(sparse.csr_matrix(np.array([column]).T)))
    exact = Fraction(sum(column), 3)
    assert mean[0] == float(exact)
    assert variance[0] == float(sum((value - exact) ** 2 for value in column) / 2)


def test_counts_above_the_clip_are_counted_not_added():
    counts = sparse.csr_matrix(np.array([[0, 3], [4, 0], [5, 7], [90, 1]], np.int32))
    found = vg.clipped(counts, np.array([4.5, 100.0]))
    assert {name: value.tolist() for name, value in found.items()} == {
        "cells": 4,
        "sum": [4, 11],
        "squares": [16, 59],
        "above": [2, 0],
    }


def test_the_variance_of_clipped_counts_is_that_of_the_papers_loop():
    curve, variance = seurat([COUNTS])
    dense = COUNTS.toarray().astype(float)
    cut = np.minimum((dense - curve.mean) / curve.deviation, np.sqrt(len(dense)))
    np.testing.assert_allclose(variance, (cut**2).sum(axis=0) / (len(dense) - 1), rtol=1e-12)


@pytest.mark.parametrize("theta, clip", [(100.0, None), (7.0, 2.5), (np.inf, None)])
def test_residuals_are_those_of_the_formula(theta, clip):
    dense = COUNTS.toarray().astype(float)
    mu = np.outer(dense.sum(axis=1), dense.sum(axis=0)) / dense.sum()
    bound = np.sqrt(len(dense)) if clip is None else clip
    residual = np.clip((dense - mu) / np.sqrt(mu + mu**2 / theta), -bound, bound)
    total = vg.residuals(COUNTS, vg.count_moments(COUNTS), theta, clip)
    np.testing.assert_allclose(vg.residual_variance(total), residual.var(axis=0), rtol=0, atol=1e-11)


def test_a_gene_without_a_count_has_no_variance():
    counts = sparse.hstack([COUNTS, sparse.csr_matrix((COUNTS.shape[0], 1), dtype=np.int32)]).tocsr()
    assert pearson([counts])[1][-1] == 0.0
    assert seurat([counts])[1][-1] == 0.0
    assert pearson([counts])[1][:-1].tobytes() == POOLED[3].tobytes()


# ---- refused

TWO: Any = sparse.csr_matrix(np.array([[1, 2], [3, 0]], np.int32))


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: vg.count_moments(TWO.astype(float)), "raw counts of the site in an integer type, got float64"),
        (lambda: vg.count_moments(-TWO), "0 or more"),
        (lambda: vg.count_moments(cast(Any, np.ones((2, 2), int))), "CSR matrix, got ndarray"),
        (lambda: vg.count_moments(TWO.tocsc()), "CSR matrix"),
        (lambda: vg.count_moments(TWO.astype(np.int64) * 2**40), "too large"),
        (lambda: vg.mean_and_variance(vg.count_moments(TWO[:1])), "at least 2 cells over all sites, got 1"),
        (lambda: vg.expected(vg.count_moments(sparse.csr_matrix(np.ones((3, 2), int)))), "genes that vary"),
        (lambda: vg.expected(vg.count_moments(TWO)), "loess curve with span 0.3, got 2 genes"),
        (lambda: vg.clipped(TWO, np.ones(3)), "a clip for 2 genes, got 3"),
        (lambda: vg.normalised_variance(POOLED[0], vg.clipped(COUNTS[1:], POOLED[0].clip)), "120 cells .* got 119"),
        (lambda: vg.residuals(TWO, vg.count_moments(TWO), theta=0.0), "theta=0.0"),
        (lambda: vg.residuals(TWO, vg.count_moments(TWO), clip=-1.0), "clip=-1.0"),
        (lambda: vg.residuals(TWO, vg.count_moments(COUNTS)), "sums for 2 genes, got 150"),
        (lambda: vg.most_variable(np.ones(2), np.ones(2), ["a", "a"], 1), "twice"),
        (lambda: vg.most_variable(np.ones(2), np.ones(2), ["a", "b"], 0), "top=0"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(call, said):
    with pytest.raises(DataError, match=said) as refused:
        call()
    assert "\n" not in str(refused.value)


def test_counts_given_in_two_parts_are_one_count():
    """A CSR matrix may hold a place twice; its square is that of the sum."""
    twice = sparse.csr_matrix((np.array([2, 3], np.int32), np.array([0, 0]), np.array([0, 2])), shape=(1, 2))
    assert vg.count_moments(twice)["squares"].tolist() == [25, 0]
    assert twice.nnz == 2  # the caller's matrix is left as it was
