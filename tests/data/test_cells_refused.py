"""Every AnnData that is wrong is refused in one line, which says what, where and why, and shows no one's values."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from learner_jax.data.cells import from_anndata
from learner_jax.errors import DataError
from tests.data.cells_by_hand import GENES, PROTEINS, by_hand, counts, proteins

RAW = "x: X: expected raw counts (whole numbers), got "


def csr(x: np.ndarray) -> sparse.csr_matrix:
    return sparse.csr_matrix(x.astype(np.float32))


def normalised(x: np.ndarray) -> np.ndarray:
    return 1e4 * x / x.sum(1, keepdims=True)


def with_proteins(place: tuple[int, int], value: float) -> anndata.AnnData:
    table = proteins().astype(np.float64)
    table[place] = value
    data = by_hand()
    return by_hand(protein=pd.DataFrame(table, index=data.obs_names, columns=pd.Index(PROTEINS)))


def with_genes(genes: list[str]) -> anndata.AnnData:
    return by_hand(genes=genes)


def twice() -> anndata.AnnData:
    data = by_hand(protein=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.obs_names = ["AAAC-1", "AAAC-1", *data.obs_names[2:]]
    return data


def put(at: tuple[int, int], value: float) -> np.ndarray:
    x = counts().astype(np.float64)
    x[at] = value
    return x


def names_lost() -> anndata.AnnData:
    return by_hand(protein=proteins())


def short_names() -> anndata.AnnData:
    return by_hand(protein=proteins(), uns={"protein_names": np.array(["CD3", "CD4"])})


def empty_cell() -> anndata.AnnData:
    x = counts()
    x[[2, 5]] = 0
    return by_hand(csr(x))


WRONG = {
    "log1p": (lambda: by_hand(csr(np.log1p(normalised(counts())))), f"{RAW}values with fractions (100% of those that "),
    "log1p says the total": (
        lambda: by_hand(csr(np.log1p(normalised(counts())))),
        "are not 0), log1p of counts normalised to 10,000 a cell",
    ),
    "normalised": (lambda: by_hand(csr(normalised(counts()))), "each cell summing to 10,000: normalised"),
    "log of another kind": (lambda: by_hand(csr(np.log1p(0.7 * counts()))), "as logarithms of normalised counts have"),
    "estimated": (lambda: by_hand(csr(60.3 * counts())), "as normalised or estimated counts have"),
    "scaled": (lambda: by_hand(counts() - 3.5), f"{RAW}negative values, as scaled or centred data have"),
    "negative": (lambda: by_hand(put((1, 1), -1)), f"{RAW}negative values"),
    "NaN": (lambda: by_hand(put((1, 1), np.nan)), f"{RAW}NaN or infinity"),
    "infinity": (lambda: by_hand(put((1, 1), np.inf)), f"{RAW}NaN or infinity"),
    "too large": (lambda: by_hand(put((1, 1), 3e9)), f"{RAW}a count above 2147483647"),
    "another layer has them": (
        lambda: by_hand(csr(np.log1p(counts())), layers={"umis": csr(counts())}),
        "; layer 'umis' holds whole numbers: layer='umis'",
    ),
    "layers['counts'] neither": (
        lambda: by_hand(csr(np.log1p(counts())), layers={"counts": csr(np.log1p(counts()))}),
        "have, and layers['counts'] likewise",
    ),
    "barcodes": (
        twice,
        "x: expected each barcode once in obs_names, got 1 more than once ('AAAC-1'): several samples in one file? Put "
        "the sample's name before the barcode",
    ),
    "no cell": (lambda: by_hand()[:0].copy(), "x: expected at least one cell, got none"),
    "all-zero cells": (
        empty_cell,
        "x: expected a count in each cell, got 2 without any ('AAAC2-1', 'AAAC5-1'): filter them out",
    ),
    "two species": (
        lambda: with_genes(["hg19_CD3E", "hg19_CD4", "mm10_Cd3e", "mm10_Cd4", "hg19_CD19", "hg19_CD14"]),
        "x: expected genes of one genome, got names with 'hg19_' and 'mm10_': keep cells and genes of one species",
    ),
    "antibodies among genes": (
        lambda: with_genes(["CD3E", "CD4", "MS4A1", "CD19", "CD3_TotalSeqB", "CD45RA"]),
        "x: expected genes alone in X, got 2 antibodies (CD3_TotalSeqB, CD45RA): put them into "
        "obsm['protein_expression'], or say so by 'Antibody Capture' in var['feature_types']",
    ),
    "protein NaN": (
        lambda: with_proteins((4, 1), np.nan),
        "x: protein 'CD8a_TotalSeqB' of cell 'AAAC4-1': expected a count, got NaN or infinity: a protein that was not "
        "measured has no column",
    ),
    "protein negative": (
        lambda: with_proteins((4, 2), -1),
        "x: protein 'PD1' of cell 'AAAC4-1': expected a count, got a",
    ),
    "protein normalised": (
        lambda: with_proteins((0, 0), 1.5),
        "x: protein 'CD3_TotalSeqB' of cell 'AAAC0-1': expected a count, got a fraction: take raw counts",
    ),
    "proteins without names": (
        names_lost,
        "x: obsm['protein_expression']: expected names of proteins, got an array without: make it a DataFrame, or put "
        "them into uns['protein_names']",
    ),
    "other number of names": (
        short_names,
        "x: uns['protein_names']: expected 4 names as in obsm['protein_expression'], got 2",
    ),
}


@pytest.mark.parametrize("make, line", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_one_line(make, line):
    with pytest.raises(DataError) as told:
        from_anndata(make(), where="x")
    assert line in str(told.value) and str(told.value).startswith("x: ") and "\n" not in str(told.value)


def test_a_layer_asked_for_is_the_one_that_is_looked_at():
    data = by_hand(layers={"logs": csr(np.log1p(counts()))})
    with pytest.raises(
        DataError, match=r"x: layer 'logs': expected raw counts \(whole numbers\), got values with frac"
    ):
        from_anndata(data, layer="logs", where="x")
    with pytest.raises(DataError, match=r"x: expected a layer 'counts', got none of that name \(there: logs\)"):
        from_anndata(data, layer="counts", where="x")


def test_proteins_of_other_cells_are_refused():
    """AnnData itself keeps rows in step; a file or a look-alike may not."""
    from types import SimpleNamespace

    data = by_hand()
    parts = {name: getattr(data, name) for name in ("X", "obs", "var", "layers", "uns", "raw")}
    table = data.obsm["protein_expression"]
    for wrong, line in (
        (table.iloc[:-1], "x: obsm['protein_expression']: expected 7 rows, one a cell, got 6"),  # pyright: ignore
        (table.iloc[::-1], "x: obsm['protein_expression']: expected the cells of obs in their order, got others"),  # pyright: ignore
    ):
        with pytest.raises(DataError) as told:
            from_anndata(SimpleNamespace(obsm={"protein_expression": wrong}, **parts), where="x")
        assert str(told.value) == line


def test_only_the_first_rows_that_are_wrong_are_needed_to_say_so():
    """A fraction in the last row of many is found too."""
    x = np.ones((9000, len(GENES)))
    x[-1, -1] = 0.5
    with pytest.raises(DataError, match="values with fractions"):
        from_anndata(by_hand(csr(x), cells=9000, protein=None), where="x")
