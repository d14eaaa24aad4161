"""Cells against a study: what does not fit is refused, what is odd is told, and background is told from signal."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from learner_jax.data.cells import Cells, from_anndata
from learner_jax.data.cells_check import background, check_cells
from learner_jax.data.cells_files import read_cells
from learner_jax.data.samples import find, not_there, sample_path
from learner_jax.errors import DataError
from tests.data.cells_by_hand import GENES, by_hand


def with_protein(values: np.ndarray, names: tuple[str, ...]) -> Cells:
    """Cells of one gene with these proteins, [n, P]."""
    n = len(values)
    obs = pd.DataFrame(index=pd.Index([f"c{place}" for place in range(n)]))
    one = sparse.csr_matrix(np.ones((n, 1), np.int32))
    return Cells(one, np.array(["CD3E"], object), None, values.astype(np.float32), names, obs)


def test_cells_that_fit_are_told_nothing_but_notes():
    cells = with_protein(np.tile([[5], [500]], (50, 1)), ("CD3",))
    cells.counts.data[0] = 2
    assert check_cells(cells, ["CD3E"], ["CD3"], "site 'a'") == []


def test_no_shared_gene_and_no_shared_protein():
    cells = from_anndata(by_hand())
    with pytest.raises(DataError) as told:
        check_cells(cells, ["Cd4", "GAPDH"], ["CD3"], "site 'a'")
    assert str(told.value) == (
        "site 'a': expected genes of the study ('Cd4', 'GAPDH'), got none of them ('CD3E', 'MS4A1', 'NKX2-1' and "
        "3 more)"
    )
    with pytest.raises(DataError) as told:
        check_cells(cells, GENES, ["CD4", "TIGIT"], "site 'a'")
    assert str(told.value) == (
        "site 'a': expected proteins of the study (CD4, TIGIT), got none of them (CD3, CD8, PD-1)"
    )


def test_genes_of_mice_are_named_so():
    cells = from_anndata(by_hand(genes=["Cd3e", "Ms4a1", "Cd4", "Cd8a", "Ptprc", "Actb"]))
    with pytest.raises(DataError, match=r"got none of them \(.*\): these look like genes of mice$"):
        check_cells(cells, ["CD3E", "MS4A1"], [], "site 'a'")


def test_ids_without_symbols_are_named_so():
    cells = from_anndata(by_hand(genes=[f"ENSG0000000000{place}" for place in range(6)]))
    with pytest.raises(DataError, match=r"name them by symbols in var, in a column such as 'gene_name'$"):
        check_cells(cells, ["CD3E", "MS4A1"], [], "site 'a'")
    told = check_cells(cells, [f"ENSG0000000000{place}.7" for place in range(6)], [], "site 'a'")
    assert told == [f"site 'a': {note}" for note in cells.notes]


def test_a_cell_without_any_of_the_genes():
    x = np.zeros((7, 6))
    x[:, 0], x[:, 1] = 1, 3
    x[[1, 4], 0] = 0
    cells = from_anndata(by_hand(x))
    told = check_cells(cells, ["CD3E", "NKX2-1"], [], "site 'a'")
    assert "site 'a': 2 cells have no count of the study's 2 genes and are left out ('AAAC1-1', 'AAAC4-1')" in told
    with pytest.raises(DataError) as error:
        check_cells(cells.take([1, 4]), ["CD3E", "NKX2-1"], [], "site 'a'")
    assert str(error.value) == "site 'a': expected a count of the study's 2 genes in a cell, got none in any"
    check_cells(cells, ["CD3E", "MS4A1"], [], "site 'a'")


def test_what_is_missing_is_never_zero():
    cells = from_anndata(by_hand())
    told = check_cells(cells, [*GENES, "ZZZ3"], ["CD8a", "TIGIT", "CD56"], "site 'a'")
    assert "site 'a': 6 of 7 genes are there; 1 are missing (ZZZ3)" in told
    assert "site 'a': not measured here, and not taken for 0: TIGIT, CD56" in told
    told = check_cells(cells, ["CD3E", "Z1", "Z2", "Z3"], [], "site 'a'")
    assert any("less than half, so predictions will be worse" in line for line in told)


def test_a_protein_that_is_zero_in_all_cells_is_suspicious():
    cells = from_anndata(by_hand())
    zero = dataclasses.replace(cells, protein=cells.protein * np.array([1, 0, 1], np.float32))
    told = check_cells(zero, GENES, ["CD3", "CD8"], "site 'a'")
    assert "site 'a': 0 in all 7 cells: CD8; if not measured, leave its column out of the file" in told
    assert not any("background" in line and "CD8" in line for line in told)
    assert not any("0 in all" in line for line in check_cells(zero, GENES, ["CD3"], "site 'a'")), "it was not asked for"


def test_odd_counts_are_told():
    cells = from_anndata(by_hand(np.ones((7, 6)), protein=None))
    told = check_cells(cells, GENES, ["CD3"], "site 'a'")
    assert "site 'a': all counts are 0 or 1: were they made binary?" in told
    assert "site 'a': no proteins are measured here: the site can be predicted for, not learned from" in told


# ---- background only


def drawn(seed: int, cells: int, share: float, low: float, fold: float) -> np.ndarray:
    """Negative binomial counts: background of mean `low`, and foreground `fold` times as high in a share of cells."""
    rng = np.random.default_rng(seed)
    mean = np.where(rng.random(cells) < share, low * fold, low)
    return rng.poisson(rng.gamma(4.0, mean / 4.0))


@pytest.mark.parametrize("low", [1, 4, 20, 150])
@pytest.mark.parametrize("seed", range(5))
def test_background_alone_is_flagged(low, seed):
    assert background(with_protein(drawn(seed, 1500, 0, low, 1)[:, None], ("CD3",))) == {"CD3": True}


@pytest.mark.parametrize("low, fold", [(2, 40), (10, 20), (50, 20), (150, 15)])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("seed", range(3))
def test_a_second_component_is_found(low, fold, share, seed):
    assert background(with_protein(drawn(seed, 1500, share, low, fold)[:, None], ("CD3",))) == {"CD3": False}


def test_zero_and_constant_columns_are_background():
    values = np.column_stack([np.zeros(60), np.full(60, 40), np.arange(60) % 2])
    assert background(with_protein(values, ("CD3", "CD4", "CD8"))) == {"CD3": True, "CD4": True, "CD8": True}


def test_the_order_of_cells_makes_no_difference():
    values = np.column_stack([drawn(1, 900, 0.1, 5, 30), drawn(2, 900, 0, 5, 1)])
    flipped = background(with_protein(values[::-1], ("CD3", "CD4")))
    assert background(with_protein(values, ("CD3", "CD4"))) == flipped == {"CD3": False, "CD4": True}


def test_the_sample_has_signal_everywhere_but_in_cd15():
    flagged = background(read_cells(sample_path("pbmc10k")))
    assert [name for name, only in flagged.items() if only] == ["CD15"]


@pytest.mark.parametrize(
    "name, only, signal",
    [
        ("pbmc10k_protein_v3", "CD15", "CD127 CD14 CD16 CD19 CD25 CD3 CD45RA CD45RO CD4 CD56 CD8 PD-1 TIGIT"),
        ("pbmc_pitt_inhouse", "", "CD4 CD56 CD3 CD19 CD14 CD11c CD8 CD16 CD127"),
        ("pbmc_eccite_control", "CD3 CD16 CD45RA CD45RO CD56 CD127 CD138 CD34", "CD4 CD8 CD14 CD19 CD11b CD2 HLA-DR"),
    ],
)
def test_what_three_laboratories_show(name, only, signal):
    """ECCITE's CD3 has median 4 and 95th percentile 14: background. The same antibody is bright in the other two."""
    path = find(f"singlecell/{name}.h5ad")
    if path is None:
        pytest.skip(not_there(f"singlecell/{name}.h5ad"))
    flagged = background(read_cells(path))
    assert all(flagged[protein] for protein in only.split())
    assert not any(flagged[protein] for protein in signal.split())
