"""Names of genes: what comes off, what stays, and which of two columns are one gene."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner_jax.data.gene_names import gene_names, joined, places, plain_gene
from learner_jax.errors import DataError

CD3E, MS4A1, TBCE = "ENSG00000198851", "ENSG00000156738", "ENSG00000284770"
STAY = ("NKX2-1", "HLA-DRB1", "HLA-A", "MT-ND1", "AL645608.8", "RP11-34P13.7", "H1-0", "KRTAP5-1", "hg19x", "H3-3A")


@pytest.mark.parametrize(
    "written, plain",
    [
        ("hg19_CD3E", "CD3E"),
        ("GRCh38_CD3E", "CD3E"),
        ("GRCh38______CD3E", "CD3E"),
        ("mm10___Cd3e", "Cd3e"),
        ("GRCh38-2020-A_CD3E", "CD3E"),
        ("HUMAN_CD3E", "CD3E"),
        (f"{CD3E}.12", CD3E),
        (f"GRCh38_{CD3E}.12", CD3E),
        ("ENSG00000182378.14_PAR_Y", "ENSG00000182378"),
        ("ENSMUSG00000032093.8", "ENSMUSG00000032093"),
        *((name, name) for name in STAY),
    ],
)
def test_prefix_and_version_come_off_and_nothing_else(written, plain):
    assert plain_gene(written) == plain


@pytest.mark.parametrize("column", ["gene_ids", "gene_id", "ensembl_id", "feature_id"])
def test_symbols_with_ids_beside(column):
    var = pd.DataFrame({column: [f"{CD3E}.5", MS4A1]}, index=pd.Index(["CD3E", "MS4A1"]))
    got = gene_names(var, "x")
    assert list(got.symbols) == ["CD3E", "MS4A1"] and got.ids is not None and list(got.ids) == [CD3E, MS4A1]


@pytest.mark.parametrize("column", ["feature_name", "gene_symbols", "gene_name", "symbol"])
def test_ids_with_symbols_beside(column):
    """CELLxGENE's files: ids as names, symbols as categories, and the id behind a symbol that is there twice."""
    symbols = pd.Categorical(["CD3E", f"TBCE_{TBCE}", "nan"])
    got = gene_names(pd.DataFrame({column: symbols}, index=pd.Index([f"{CD3E}.5", TBCE, MS4A1])), "x")
    assert list(got.symbols) == ["CD3E", "TBCE", MS4A1] and got.ids is not None
    assert list(got.ids) == [CD3E, TBCE, MS4A1]


def test_ids_alone_and_ids_with_symbols_in_one_name():
    alone = gene_names(pd.DataFrame(index=pd.Index([f"{CD3E}.1", MS4A1])), "x")
    assert list(alone.symbols) == [CD3E, MS4A1] and "no column of symbols" in alone.notes[0]
    for names in ([f"{CD3E}.1_CD3E", f"{MS4A1}_MS4A1"], [f"CD3E_{CD3E}.1", f"MS4A1_{MS4A1}"]):
        got = gene_names(pd.DataFrame(index=pd.Index(names)), "x")
        assert list(got.symbols) == ["CD3E", "MS4A1"] and got.ids is not None and list(got.ids) == [CD3E, MS4A1]


@pytest.mark.parametrize(
    "names, line",
    [
        (["hg19_CD3E", "mm10_Cd3e"], "x: expected genes of one genome, got names with 'hg19_' and 'mm10_'"),
        (["GRCh38______CD3E", "CD4", "mm10___Cd3e"], "got names with 'GRCh38_' and 'mm10_'"),
        ([CD3E, "ENSMUSG00000032093"], "got names with 'ENSG' and 'ENSMUSG'"),
        (["CD3E", " "], "x: expected a name for each gene in var_names, got none at place 1"),
        (["0", "1"], "x: expected gene symbols or Ensembl ids in var_names, got numbers ('0', ...)"),
    ],
)
def test_names_that_are_wrong_are_one_line(names, line):
    with pytest.raises(DataError) as told:
        gene_names(pd.DataFrame(index=pd.Index(names)), "x")
    assert line in str(told.value) and "\n" not in str(told.value)


def test_ids_of_two_species_beside_symbols_are_refused():
    var = pd.DataFrame({"gene_ids": [CD3E, "ENSMUSG00000032093"]}, index=pd.Index(["CD3E", "Cd3e"]))
    with pytest.raises(DataError, match="'ENSG' and 'ENSMUSG'"):
        gene_names(var, "x")


def test_what_make_unique_renamed_is_one_gene_and_other_numbers_stay():
    names = ["TBCE", "CD4", "TBCE-1", "TBCE-2", "NKX2-1", "IGF2", "IGF2-2", "MATR3", "MATR3"]
    at, genes, doubled = joined(names)
    assert genes == ["TBCE", "CD4", "NKX2-1", "IGF2", "IGF2-2", "MATR3"]
    assert [genes[place] for place in at] == ["TBCE", "CD4", "TBCE", "TBCE", "NKX2-1", "IGF2", "IGF2-2"] + ["MATR3"] * 2
    assert doubled == ("TBCE", "MATR3")


@given(st.lists(st.sampled_from(["TBCE", "CD4", "NKX2-1", "HLA-A", "MT-ND1"]), min_size=1, max_size=9))
def test_make_unique_is_undone(names):
    """Oracle: anndata's own renaming of the same names."""
    from anndata.utils import make_index_unique

    at, genes, doubled = joined(list(make_index_unique(pd.Index(names))))
    assert [genes[place] for place in at] == names
    assert doubled == tuple(name for name in dict.fromkeys(names) if names.count(name) > 1)


@given(st.permutations(["CD3E", f"{MS4A1}.3", "hg19_MT-ND1", "NONE1"]))
def test_a_gene_is_found_by_symbol_or_id(wanted):
    there = {"CD3E": 0, f"{MS4A1}.3": 1, "hg19_MT-ND1": 2, "NONE1": -1}
    found = places(wanted, ["CD3E", "MS4A1", "MT-ND1"], [CD3E, MS4A1, ""])
    assert found.tolist() == [there[name] for name in wanted]
