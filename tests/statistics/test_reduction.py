"""The shared reduction from sums over sites is the pooled decomposition: of scikit-learn, and by hand."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.linalg import subspace_angles

from learner_jax.errors import DataError
from learner_jax.statistics import combine, genes, mean_and_deviation, moments, reduction
from tests.statistics import pooled_cells as pooled


def moments_of(parts):
    mean, _ = mean_and_deviation(combine([genes.value_moments(part) for part in parts]))
    mean, deviation = mean_and_deviation(combine([genes.value_moments(part, mean) for part in parts]), mean)
    return mean, genes.divisor(mean, deviation)


@functools.cache
def sample():
    """The shipped sample by site, its 400 genes of most counts, log-normalised; then mean and divisor."""
    adata = pooled.read(pooled.SAMPLE)
    counts = adata.X.tocsr()
    columns = np.sort(np.argsort(-np.asarray(counts.sum(axis=0)).ravel(), kind="stable")[:400])
    values = genes.log_normalised(counts)[:, columns]
    sites = adata.obs["site"].to_numpy().astype(str)
    parts = [values[sites == site] for site in sorted(set(sites))]
    return parts, *moments_of(parts)


def summed(parts, centre, scale):
    return lambda basis: combine([reduction.power(part, basis, centre, scale, fewest=0) for part in parts])


def by_gram(parts, centre, scale, k, **options):
    return reduction.principal(combine([reduction.gram(p, centre, scale, fewest=0) for p in parts]), k, **options)


def test_gram_of_standardised_genes_is_sklearns_pca():
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    parts, mean, scale = sample()
    dense = np.vstack([part.toarray() for part in parts])
    oracle = PCA(50, svd_solver="full").fit(StandardScaler().fit_transform(dense))
    found = by_gram(parts, mean, scale, 50)
    # scikit-learn turns a component the same way: its largest entry is positive
    np.testing.assert_allclose(found.components, np.asarray(oracle.components_).T, rtol=0, atol=1e-8)
    rows = len(dense)
    np.testing.assert_allclose(found.variance, oracle.explained_variance_ * (rows - 1) / rows, rtol=1e-10)
    ours = np.vstack([reduction.scores(part, mean, found.components / scale[:, None]) for part in parts])
    theirs = oracle.transform(StandardScaler().fit_transform(dense))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-8 * np.abs(theirs).max())
    scored = [reduction.scores(part, mean, found.components / scale[:, None]) for part in parts]
    _, deviation = mean_and_deviation(combine([moments(part) for part in scored]))
    np.testing.assert_allclose(deviation**2, found.variance, rtol=1e-9)


def test_gram_without_a_centre_is_sklearns_truncated_svd():
    from sklearn.decomposition import TruncatedSVD

    parts, _, _ = sample()
    zeros, ones = np.zeros(400), np.ones(400)
    oracle = TruncatedSVD(20, algorithm="arpack", random_state=0).fit(sparse.vstack(parts))
    found = by_gram(parts, zeros, ones, 20)
    np.testing.assert_allclose(found.components, reduction.signed(np.asarray(oracle.components_).T), rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.variance * sum(p.shape[0] for p in parts), oracle.singular_values_**2, rtol=1e-10)


def test_a_mean_taken_off_afterwards_is_the_same():
    parts, mean, _ = sample()
    before = by_gram(parts, mean, np.ones(400), 10)
    after = by_gram(parts, np.zeros(400), np.ones(400), 10, centred=True)
    np.testing.assert_allclose(before.components, after.components, atol=1e-9)
    np.testing.assert_allclose(before.variance, after.variance, rtol=1e-9)


def test_blocks_of_cells_do_not_show(monkeypatch):
    parts, mean, scale = sample()
    whole = by_gram(parts, mean, scale, 10)
    basis = reduction.start(400, 12, 0)
    product = summed(parts, mean, scale)(basis)["product"]
    monkeypatch.setattr(reduction, "_BLOCK", 400 * 13)
    np.testing.assert_allclose(whole.components, by_gram(parts, mean, scale, 10).components, atol=1e-9)
    np.testing.assert_allclose(product, summed(parts, mean, scale)(basis)["product"], rtol=1e-9, atol=1e-9)


COUNTS = pooled.random_cells(150, 30, 4)
VALUES = genes.log_normalised(COUNTS)
CENTRE, SCALE = moments_of([VALUES])


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_any_deal_of_cells_to_sites_gives_the_pooled_sums(seed):
    parts = [VALUES[rows] for rows in pooled.deal(150, seed)]
    basis = reduction.start(30, 7, seed)
    # about the pooled mean some terms of the sum are zero over all sites: a centre beside it shows them
    for centre in (CENTRE, CENTRE + 0.25):
        dense = (VALUES.toarray() - centre) / SCALE
        total = combine([reduction.gram(part, centre, SCALE, fewest=0) for part in parts])
        np.testing.assert_allclose(total["gram"], (dense.T @ dense)[np.triu_indices(30)], rtol=0, atol=1e-9)
        np.testing.assert_allclose(total["sum"], dense.sum(axis=0), rtol=0, atol=1e-10)
        total = summed(parts, centre, SCALE)(basis)
        np.testing.assert_allclose(total["product"], dense.T @ (dense @ basis), rtol=0, atol=1e-9)
        assert int(total["rows"]) == 150


def test_a_sketch_finds_the_gram_matrixs_directions():
    """On real cells: 20 directions of 400 genes in 8 rounds; subspace iteration is there, and behind."""
    parts, mean, scale = sample()
    true = by_gram(parts, mean, scale, 20)

    def lost(krylov):
        found = reduction.sketch(summed(parts, mean, scale), 400, 20, rounds=8, krylov=krylov)
        return 1 - found.variance.sum() / true.variance.sum(), found.components

    near, components = lost(krylov=True)
    assert abs(near) < 1e-5
    assert subspace_angles(components[:, :5], true.components[:, :5]).max() < 1e-6
    far, _ = lost(krylov=False)
    assert 100 * near < far < 0.05


@pytest.mark.parametrize("krylov", [True, False])
def test_a_sketch_goes_to_the_truth(krylov):
    true = by_gram([VALUES], CENTRE, SCALE, 5)
    rounds = 4 if krylov else 250
    found = reduction.sketch(summed([VALUES], CENTRE, SCALE), 30, 5, rounds=rounds, oversample=5, krylov=krylov)
    np.testing.assert_allclose(found.components, true.components, atol=1e-8)
    np.testing.assert_allclose(found.variance, true.variance, rtol=1e-10)


def test_subspace_iteration_is_halkos_algorithm():
    """Algorithm 4.4 by hand on the dense matrix: the same span, round by round."""
    dense = (VALUES.toarray() - CENTRE) / SCALE
    basis = reduction.start(30, 6, 3)
    ours = basis
    hand = np.linalg.qr(np.random.Generator(np.random.Philox(3)).standard_normal((30, 6)))[0]
    for _ in range(4):
        ours = reduction.orthonormal(summed([VALUES], CENTRE, SCALE)(ours)["product"])
        hand = np.linalg.qr(dense.T @ np.linalg.qr(dense @ hand)[0])[0]
        assert subspace_angles(ours, hand).max() < 1e-9


def test_a_basis_stays_orthonormal_when_nothing_new_is_left():
    """Six cells span six directions: a second block of four has but two to find."""
    few = VALUES[:6]
    bases = np.zeros((30, 0))
    basis = reduction.start(30, 4, 0)
    for _ in range(4):
        bases = np.hstack([bases, basis])
        basis = reduction.orthonormal(summed([few], 0 * CENTRE, SCALE)(basis)["product"], against=bases)
    np.testing.assert_allclose(bases.T @ bases, np.eye(16), atol=1e-12)


def test_the_largest_entry_of_a_direction_is_positive():
    turned = reduction.signed(np.array([[0.6, -0.7, 0.0], [-0.8, 0.7, 0.0]]))
    assert turned.tolist() == [[-0.6, 0.7, 0.0], [0.8, -0.7, 0.0]]


BASIS = reduction.start(30, 4, 0)


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: reduction.gram(VALUES[:99], CENTRE, SCALE, where="s2"), "at least 100 cells at s2 .* got 99"),
        (lambda: reduction.power(VALUES[:99], BASIS, CENTRE, SCALE, where="s2"), "at least 100 cells at s2 .* got 99"),
        (lambda: reduction.gram(VALUES, CENTRE[1:], SCALE), "for 30 genes, got"),
        (lambda: reduction.gram(VALUES, CENTRE, 0 * SCALE), "above 0, got 0.0 for gene number 1"),
        (lambda: reduction.power(VALUES, BASIS[1:], CENTRE, SCALE), "basis for 30 genes"),
        (lambda: by_gram([VALUES], CENTRE, SCALE, 31), "k=31"),
        (lambda: by_gram([VALUES[:0]], CENTRE, SCALE, 3), "at least 1 cell"),
        (lambda: reduction.ritz(BASIS, BASIS, 5, 10), "1 to 4 components of this sketch, got k=5"),
        (lambda: reduction.start(30, 31, 0), "1 to 30 columns"),
        (lambda: reduction.sketch(summed([VALUES], CENTRE, SCALE), 30, 3, rounds=0), "rounds=0"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(call, said):
    with pytest.raises(DataError, match=said) as refused:
        call()
    assert "\n" not in str(refused.value)
