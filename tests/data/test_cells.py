"""AnnData to cells: whatever form the same counts come in, the cells are the same."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from learner_jax.data.cells import Cells, from_anndata, matched
from learner_jax.data.samples import sample_path
from tests.data.cells_by_hand import GENES, PROTEINS, by_hand, counts, proteins

FORMS = {
    "dense float32": lambda x: x.astype(np.float32),
    "dense int64": lambda x: x,
    "csr float32": lambda x: sparse.csr_matrix(x.astype(np.float32)),
    "csr int64": sparse.csr_matrix,
    "csc uint16": lambda x: sparse.csc_matrix(x.astype(np.uint16)),
    "csr_array float64": lambda x: sparse.csr_array(x.astype(np.float64)),
}
TABLES = hnp.arrays(np.int64, st.tuples(st.integers(1, 9), st.integers(1, 6)), elements=st.integers(0, 60_000))


def same(left: Cells, right: Cells) -> None:
    np.testing.assert_array_equal(left.counts.toarray(), right.counts.toarray())
    assert list(left.genes) == list(right.genes)
    np.testing.assert_array_equal(left.protein, right.protein)
    assert left.proteins == right.proteins and list(left.obs.index) == list(right.obs.index)


@given(TABLES, st.sampled_from(sorted(FORMS)))
def test_counts_are_the_matrix_whatever_its_form(table, form):
    table = np.hstack([table + 1, table])
    genes = [f"G{place}A" for place in range(table.shape[1])]
    got = from_anndata(by_hand(FORMS[form](table), genes=genes, cells=len(table)))
    np.testing.assert_array_equal(got.counts.toarray(), table)
    assert got.counts.dtype == np.int32 and got.counts.has_canonical_format and (got.counts.data > 0).all()
    assert list(got.genes) == genes and got.protein.dtype == np.float32


def test_blocks_of_rows_make_no_difference(monkeypatch):
    whole = from_anndata(by_hand())
    for rows in (1, 2, 3, 100):
        monkeypatch.setattr("learner_jax.data.count_matrices.blocks_of.__defaults__", (rows,))
        same(from_anndata(by_hand()), whole)


def test_the_anndata_is_not_changed():
    data = by_hand()
    before = data.copy()
    from_anndata(data)
    assert (data.X != before.X).nnz == 0 and data.X.dtype == before.X.dtype  # pyright: ignore
    pd.testing.assert_frame_equal(data.obs, before.obs)
    pd.testing.assert_frame_equal(data.obsm["protein_expression"], before.obsm["protein_expression"])  # pyright: ignore


@given(st.lists(st.sampled_from([*GENES, "NONE1", "NONE2"]), unique=True, max_size=8))
def test_on_genes_is_a_reindexed_table(wanted):
    """Oracle: pandas."""
    cells = from_anndata(by_hand())
    expected = pd.DataFrame(counts(), columns=pd.Index(GENES)).reindex(columns=wanted, fill_value=0)
    got = cells.on_genes(wanted)
    np.testing.assert_array_equal(got.toarray(), expected.to_numpy(np.int64).reshape(len(cells), len(wanted)))
    assert got.dtype == np.int32 and cells.has(wanted).tolist() == [name in GENES for name in wanted]
    told = matched(cells, wanted)
    assert told.matched == tuple(n for n in wanted if n in GENES) and set(told.missing) == set(wanted) - set(GENES)


def test_the_panel_is_explicit():
    cells = from_anndata(by_hand())
    assert cells.proteins == ("CD3", "CD8", "PD-1")
    values, measured = cells.panel(["CD279", "TIGIT", "CD8a"])
    assert measured.tolist() == [True, False, True]
    np.testing.assert_array_equal(values, np.column_stack([proteins()[:, 2], np.zeros(7), proteins()[:, 1]]))


@given(st.lists(st.integers(0, 6)))
def test_cells_are_taken_as_rows(which):
    cells = from_anndata(by_hand())
    got = cells.take(np.array(which, np.int64))
    np.testing.assert_array_equal(got.counts.toarray(), counts()[which])
    np.testing.assert_array_equal(got.protein, cells.protein[which])
    assert list(got.obs.index) == [cells.obs.index[place] for place in which] and len(got) == len(which)


def test_a_mask_and_a_head():
    cells = from_anndata(by_hand())
    same(cells.take((cells.obs["site"] == "s0").to_numpy()), cells.take([0, 2, 4, 6]))
    same(cells.head(3), cells.take([0, 1, 2]))
    assert len(cells.head(99)) == len(cells) == 7


# ---- where the counts are


def logged(x: np.ndarray, total: float = 1e4) -> sparse.csr_matrix:
    return sparse.csr_matrix(np.log1p(total * x / x.sum(1, keepdims=True)).astype(np.float32))


def test_counts_in_a_layer_or_in_raw_are_taken_and_said():
    plain = from_anndata(by_hand())
    x = sparse.csr_matrix(counts().astype(np.float32))
    in_layer = by_hand(logged(counts()), layers={"counts": x})
    same(from_anndata(in_layer), plain)
    assert (
        from_anndata(in_layer)
        .notes[0]
        .endswith("log1p of counts normalised to 10,000 a cell): layers['counts'] is taken")
    )
    in_raw = by_hand(x)
    in_raw.raw = in_raw.copy()
    in_raw.X = logged(counts())
    chosen = in_raw[:, ["MS4A1", "CD3E"]].copy()
    same(from_anndata(chosen), plain)
    assert "raw.X is taken" in from_anndata(chosen).notes[0]
    named = by_hand(logged(counts()), layers={"umis": x})
    same(from_anndata(named, layer="umis"), plain)


def test_counts_in_x_are_taken_before_any_layer():
    other = sparse.csr_matrix(counts().astype(np.float32) + 1)
    got = from_anndata(by_hand(layers={"counts": other}))
    same(got, from_anndata(by_hand()))
    assert not [note for note in got.notes if "taken" in note and "antibod" not in note]


# ---- where the proteins are


def test_proteins_in_any_form_are_the_same():
    table, plain = proteins(), from_anndata(by_hand())
    for form in (table, table.astype(np.float64), sparse.csr_matrix(table)):
        for key in ("protein_names", "protein_expression_names"):
            same(from_anndata(by_hand(protein=form, uns={key: np.array(PROTEINS)})), plain)
    both = by_hand(np.hstack([counts(), table]), genes=[*GENES, *PROTEINS], protein=None)
    both.var["feature_types"] = pd.Categorical(["Gene Expression"] * 6 + ["Antibody Capture"] * 4)
    got = from_anndata(both)
    same(got, plain)
    assert "proteins are the 4 features of the type 'Antibody Capture' in var" in got.notes


def test_without_proteins_only_rna_is_used_and_said():
    got = from_anndata(by_hand(protein=None))
    assert got.protein.shape == (7, 0) and got.proteins == ()
    assert got.notes == ("no proteins: obsm has no 'protein_expression', only RNA is used",)
    data = by_hand()
    data.obsm["protein_expresion"] = data.obsm.pop("protein_expression")
    assert "(near: protein_expresion)" in from_anndata(data).notes[0]


def test_features_of_other_types_are_left_out():
    data = by_hand(np.hstack([counts(), counts(seed=5)[:, :2]]), genes=[*GENES, "guide1", "guide2"])
    data.var["feature_types"] = ["Gene Expression"] * 6 + ["CRISPR Guide Capture"] * 2
    got = from_anndata(data)
    assert list(got.genes) == list(GENES) and "2 features of the type 'CRISPR Guide Capture' are left out" in got.notes


def test_a_gene_that_is_there_twice_is_summed():
    data = by_hand(genes=["TBCE", "CD4", "TBCE-1", "NKX2-1", "CD3E", "CD19"])
    data.var["gene_ids"] = [f"ENSG0000000000{place}.1" for place in range(6)]
    got = from_anndata(data)
    x = counts()
    assert list(got.genes) == ["TBCE", "CD4", "NKX2-1", "CD3E", "CD19"] and got.duplicates == ("TBCE",)
    np.testing.assert_array_equal(got.counts.toarray(), np.column_stack([x[:, 0] + x[:, 2], x[:, [1, 3, 4, 5]]]))
    assert got.ids is not None and list(got.ids) == [f"ENSG0000000000{place}" for place in (0, 1, 3, 4, 5)]
    told = str(matched(got, ["TBCE", "ENSG00000000001", "ZZZ3"]))
    assert told == ("2 of 3 genes are there; 1 are missing (ZZZ3); 1 were there more than once and are summed (TBCE)")


def test_the_sample_as_anndata_reads_it():
    data = anndata.read_h5ad(sample_path("pbmc10k"))
    got = from_anndata(data)
    assert (got.counts != data.X).nnz == 0 and list(got.genes) == list(data.var_names)  # pyright: ignore
    np.testing.assert_array_equal(got.protein, data.obsm["protein_expression"].to_numpy())  # pyright: ignore
    assert list(got.proteins) == list(data.obsm["protein_expression"].columns) and got.notes == ()  # pyright: ignore
