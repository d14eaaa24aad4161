"""Simulated CITE-seq: does what was drawn look as the model says, and is a site the same whatever stands beside it?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from learner_jax.data import simulated_cells as made
from learner_jax.data.cells_files import read_cells
from learner_jax.data.simulated_cells import BLOCK, simulated_blocks, simulated_cells, to_anndata
from learner_jax.errors import DataError


def same(a, b) -> bool:
    """Whether two sites, or parts of them, are alike in every array."""
    truths = ("latent", "library", "foreground", "expected", "gain", "offset", "shares")
    return (
        a.counts.shape == b.counts.shape
        and (a.counts != b.counts).nnz == 0
        and np.array_equal(a.protein, b.protein)
        and a.proteins == b.proteins
        and a.obs.equals(b.obs)
        and all(np.array_equal(getattr(a.truth, name), getattr(b.truth, name)) for name in truths)
    )


def gene_means(cells):
    truth = cells.truth
    rate = np.exp(truth.base + truth.latent.astype(float) @ truth.loading)
    return truth.library[:, None] * rate / rate.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def study():
    return simulated_cells(3, 3000, 200, 10, 4)


def test_as_a_laboratory_has_it(study):
    for name, cells in study.items():
        assert cells.counts.format == "csr"
        assert cells.counts.dtype == np.int32
        assert cells.counts.has_canonical_format
        assert cells.protein.dtype == np.float32
        assert (cells.protein >= 0).all() and (cells.protein == np.round(cells.protein)).all()
        assert len(cells) == cells.counts.shape[0] == len(cells.protein) == len(cells.truth.latent) == 3000
        assert cells.obs.index.is_unique
        assert set(cells.obs["site"]) == {name}
        assert 0.15 < (cells.obs["split"] == "test").mean() < 0.25
        assert np.asarray(cells.counts.sum(1)).min() > 0
    barcodes = [barcode for cells in study.values() for barcode in cells.obs.index]
    assert len(set(barcodes)) == 9000


def test_they_are_cells_as_any_other(study):
    cells = study["s00"]
    assert (cells.on_genes(list(cells.genes[::-1])) != cells.counts[:, ::-1]).nnz == 0
    counts, measured = cells.panel(["SYNP03", "CD3"])
    assert np.array_equal(counts[:, 0], cells.protein[:, 3])
    assert list(measured) == [True, False]
    odd = np.arange(3000) % 2 == 1
    some = cells.take(odd)
    assert np.array_equal(some.truth.latent, cells.truth.latent[odd])
    assert np.array_equal(some.protein, cells.protein[odd])
    assert list(some.obs.index) == list(cells.obs.index[odd])


def test_genes_are_negative_binomial(study):
    """Squared distances from the true mean are mean + mean^2 / theta: not Poisson's, not twice that."""
    for cells in study.values():
        mean, counts = gene_means(cells), cells.counts.toarray()
        theta = cells.truth.dispersion
        apart = (counts - mean) ** 2
        assert (counts.sum(0) / mean.sum(0))[mean.mean(0) > 0.5] == pytest.approx(1, abs=0.15)
        assert (apart / (mean + mean**2 / theta)).mean() == pytest.approx(1, abs=0.05)
        many = mean.mean(0) > 5
        assert (apart / mean)[:, many].mean() > 3  # what a Poisson draw would have as 1


def test_proteins_have_a_background_and_a_foreground(study):
    for cells in study.values():
        assert cells.protein.sum(0) / cells.truth.expected.sum(0) == pytest.approx(1, abs=0.15)
        for at in range(10):
            found = cells.truth.foreground[:, at]
            if 50 < found.sum() < 2950:
                assert np.median(cells.protein[found, at]) > 3 * np.median(cells.protein[~found, at])


def test_proteins_can_be_told_from_genes():
    """They share the latent: a ridge on the genes finds the proteins of cells that it has not seen."""
    from sklearn.linear_model import Ridge

    cells = simulated_cells(1, 3000, 300, 8, 1, alpha=5.0)["s00"]
    x = cells.counts.toarray().astype(float)
    x = np.log1p(1e4 * x / x.sum(1, keepdims=True))
    y, test = np.log1p(cells.protein), (cells.obs["split"] == "test").to_numpy()
    told = Ridge(100.0).fit(x[~test], y[~test]).predict(x[test])
    r = [np.corrcoef(told[:, p], y[test, p])[0, 1] for p in range(8)]
    assert np.mean(r) > 0.6
    shuffled = np.random.default_rng(0).permutation(x[~test])
    by_luck = Ridge(100.0).fit(shuffled, y[~test]).predict(x[test])
    assert np.mean([np.corrcoef(by_luck[:, p], y[test, p])[0, 1] for p in range(8)]) < 0.15


def test_cell_types_come_in_the_shares_of_their_site(study):
    for cells in study.values():
        counted = cells.obs["cell_type"].value_counts(normalize=True, sort=False)
        assert list(counted.index) == [f"type {t}" for t in range(8)]
        assert counted.to_numpy() == pytest.approx(cells.truth.shares, abs=0.03)
    skewed = [c.truth.shares.max() for c in simulated_cells(30, 1, 5, 2, alpha=0.1).values()]
    even = [c.truth.shares.max() for c in simulated_cells(30, 1, 5, 2, alpha=100.0).values()]
    assert np.mean(skewed) > 0.6 > 0.25 > np.mean(even)


def test_depth_of_each_site_is_as_asked():
    found = simulated_cells(2, 2000, 100, 2, depth=[500.0, 4000.0])
    for name, depth in (("s00", 500), ("s01", 4000)):
        assert np.median(np.asarray(found[name].counts.sum(1))) == pytest.approx(depth, rel=0.1)


def test_gains_differ_by_site_and_a_gain_of_none_does_not(study):
    gains = np.log([cells.truth.gain for cells in study.values()])
    assert 0.25 < gains.std() < 0.8
    level = simulated_cells(2, 1, 5, 3, gain=0.0)
    assert all((cells.truth.gain == 1).all() and (cells.truth.offset == 1).all() for cells in level.values())


def test_a_failed_antibody_shows_its_background_alone():
    failed = {"s01": ["SYNP00", "SYNP03"]}
    whole, broken = simulated_cells(2, 1000, 50, 5), simulated_cells(2, 1000, 50, 5, failed=failed)
    assert same(whole["s00"], broken["s00"])
    assert broken["s01"].truth.failed == ("SYNP00", "SYNP03")
    assert not broken["s01"].truth.foreground[:, [0, 3]].any()
    assert broken["s01"].truth.foreground[:, [1, 2, 4]].any(0).all()
    for at in (0, 3):
        assert broken["s01"].protein[:, at].mean() < 0.5 * whole["s01"].protein[:, at].mean()
    assert all(cells.truth.failed == cells.proteins for cells in simulated_cells(2, 9, 5, 3, failed=1.0).values())


def test_a_panel_takes_columns_away_and_changes_no_other():
    whole = simulated_cells(3, 1500, 50, 6)
    lacking = simulated_cells(3, 1500, 50, 6, panel=2)
    assert {cells.proteins for cells in lacking.values()} != {lacking["s00"].proteins}
    for name, cells in lacking.items():
        assert len(cells.proteins) == cells.protein.shape[1] == cells.truth.foreground.shape[1] == 4
        at = [whole[name].proteins.index(protein) for protein in cells.proteins]
        assert np.array_equal(cells.protein, whole[name].protein[:, at])
        assert np.array_equal(cells.truth.gain, whole[name].truth.gain[at])
        assert abs(cells.counts - whole[name].counts).sum() == 0
    named = simulated_cells(2, 10, 5, 3, panel={"s01": ["SYNP02"]})
    assert named["s00"].proteins == ("SYNP00", "SYNP01", "SYNP02")
    assert named["s01"].proteins == ("SYNP02",)


@settings(max_examples=12)
@example(0, 10, BLOCK + 6)
@given(st.integers(0, 2**40), st.integers(0, 1300), st.integers(0, 1300))
def test_the_first_cells_are_the_same_however_many_follow(seed, few, more):
    few, more = sorted((few, more))
    a, b = (simulated_cells(1, n, 20, 3, seed)["s00"] for n in (few, more))
    assert same(a, b.head(few))


@settings(max_examples=8)
@given(st.integers(0, 2**40), st.integers(1, 4), st.integers(1, 4))
def test_a_site_is_the_same_whatever_other_sites_there_are(seed, few, more):
    a, b = simulated_cells(few, 30, 20, 3, seed), simulated_cells(more, 30, 20, 3, seed)
    assert all(same(a[name], b[name]) for name in a.keys() & b.keys())
    last = f"s{few - 1:02d}"
    alone = simulated_cells(few, 30, 20, 3, seed, only=[last])
    assert list(alone) == [last]
    assert same(alone[last], a[last])


def test_sites_and_seeds_differ():
    a, b = simulated_cells(2, 300, 20, 3, 0), simulated_cells(2, 300, 20, 3, 1)
    assert not np.array_equal(a["s00"].protein, a["s01"].protein)
    depth = [cells.truth.library / cells.truth.depth for cells in a.values()]  # what no gain or share hides
    assert abs(np.corrcoef(np.log(depth))[0, 1]) < 0.3
    assert not np.array_equal(a["s00"].protein, b["s00"].protein)
    assert not np.array_equal(a["s00"].truth.loading, b["s00"].truth.loading)


def test_blocks_are_the_site_and_hold_few_cells():
    whole = simulated_cells(2, 2 * BLOCK + 7, 20, 3, 5, panel=1)["s01"]
    blocks = list(simulated_blocks("s01", 2, 2 * BLOCK + 7, 20, 3, 5, panel=1))
    assert [len(block) for block in blocks] == [BLOCK, BLOCK, 7]
    assert same(made._joined(blocks), whole)
    assert len(next(iter(simulated_blocks("s00", 1, 10**9, 20, 3)))) == BLOCK  # the rest is never made


def test_they_say_that_they_are_synthetic(study):
    for cells in study.values():
        assert any("synthetic" in note for note in cells.notes)
        assert cells.obs["synthetic"].all()
        assert all(gene.startswith("SYN") for gene in cells.genes)
        assert all(protein.startswith("SYN") for protein in cells.proteins)


def test_anndata_in_scverse_conventions(study, tmp_path):
    import anndata

    cells = study["s01"]
    to_anndata(cells).write_h5ad(tmp_path / "s01.h5ad")
    read: Any = anndata.read_h5ad(tmp_path / "s01.h5ad")
    assert "synthetic" in read.uns["synthetic"]
    assert any("synthetic" in note for note in read.uns["notes"])
    assert read.X.dtype == np.int32
    assert (cells.counts != read.X).nnz == 0
    assert list(read.var_names) == list(cells.genes)
    assert list(read.obs_names) == list(cells.obs.index)
    assert list(read.obsm["protein_expression"].columns) == list(cells.proteins)
    assert np.array_equal(read.obsm["protein_expression"].to_numpy(), cells.protein)
    assert list(read.obs["cell_type"]) == list(cells.obs["cell_type"])
    again = read_cells(tmp_path / "s01.h5ad")
    assert (again.counts != cells.counts).nnz == 0
    assert again.proteins == cells.proteins
    assert np.array_equal(again.protein, cells.protein)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"sites": 0}, "at least 1 of sites, got sites=0"),
        ({"cells": [5]}, "cells of 4 sites, got 1"),
        ({"cells": -1}, "cells=-1"),
        ({"alpha": 0.0}, "alpha=0"),
        ({"depth": [1.0, 2.0, 3.0, 0.0]}, "depth=0"),
        ({"gain": float("nan")}, "gain=nan"),
        ({"failed": 1.5}, "failed=1.5"),
        ({"failed": {"s09": []}}, "failed of a site among s00 to s03, got 's09'"),
        ({"panel": {"s01": ["CD3"]}}, "panel of site s01 among SYNP00 to SYNP13, got 'CD3'"),
        ({"panel": 14}, "lack from 0 to 13 proteins, got panel=14"),
        ({"only": ["s04"]}, "among s00 to s03, got 's04'"),
    ],
)
def test_what_cannot_be_simulated_is_refused_in_one_line(wrong, said):
    with pytest.raises(DataError, match="expected") as found:
        simulated_cells(**wrong)
    assert said in str(found.value)
    assert "\n" not in str(found.value)
