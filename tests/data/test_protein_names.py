"""Names of proteins: aliases are one protein, and what only looks alike stays apart."""

from __future__ import annotations

import numpy as np
import pytest

from learner_jax.data.protein_names import aliases, canonical, is_antibody, is_control, key, panel_of
from learner_jax.errors import ConfigError

SAMPLE = "CD127 CD14 CD15 CD16 CD19 CD25 CD3 CD45RA CD45RO CD4 CD56 CD8 PD-1 TIGIT".split()


@pytest.mark.parametrize(
    "name, protein",
    [
        *((f"{name}{suffix}", name) for name in SAMPLE for suffix in ("", "_TotalSeqB", "-TotalSeq-A", "_ADT", "-1")),
        *((f"{prefix}{name}", name) for name in SAMPLE for prefix in ("ADT_", "anti-human ", "Hu.", "A0123-")),
        ("CD8a_TotalSeqB", "CD8"),
        ("CD8A", "CD8"),
        ("CD8-beta", "CD8b"),
        ("IL7Ra", "CD127"),
        ("IL7Ralpha (CD127)", "CD127"),
        ("CD127 (IL-7Rα)", "CD127"),
        ("PD1 (CD279)", "PD-1"),
        ("CD279_(PD-1)", "PD-1"),
        ("CD154-GCTAGATAGATGCAA", "CD154"),
        ("B220 (CD45R)", "CD45R"),
        ("MHCII (HLA-DR)", "HLA-DR"),
        ("HLA.DR", "HLA-DR"),
        ("HLA-A,B,C", "HLA-ABC"),
        ("CD223 (lag3)", "LAG-3"),
        ("CD3-1", "CD3"),
        ("CD3-2", "CD3"),
        ("CD31", "CD31"),
        ("CD4.1", "CD4"),
        ("CD41", "CD41"),
        ("CD4_RPA-T4", "CD4"),
        ("Hu.CD3_UCHT1", "CD3"),
        ("HuMs.CD44", "CD44"),
        ("TCR α/β", "TCRab"),
        ("TCR-ab", "TCRab"),
        ("4-1BB", "CD137"),
        ("IgA", "IgA"),
        ("CD999x", "CD999x"),
        ("Nectin-9_TotalSeqC", "Nectin-9"),
    ],
)
def test_an_alias_is_its_protein(name, protein):
    assert canonical(name) == protein


def test_the_shipped_list_is_sound():
    """Each name is its own alias, no alias is two proteins, and spellings of one key are not listed twice."""
    from learner_jax.data.code_lists import lines, shipped

    rows = lines(shipped("codes", ".csv")["protein_names"], "names", ("alias", "protein"), dict)
    keys = [key(row["alias"]) for row in rows]
    assert len(set(keys)) == len(keys)
    found = aliases()
    proteins = {row["protein"] for row in rows}
    assert len(proteins) >= 150 and all(found[key(name)] == name for name in proteins)
    assert all(canonical(row["alias"]) == row["protein"] for row in rows)
    assert not any(is_control(name) for name in proteins)


def test_a_list_that_is_none_is_refused(tmp_path):
    path = tmp_path / "names.csv"
    path.write_text("name,other\nCD8a,CD8\n")
    with pytest.raises(ConfigError, match="expected columns alias and protein, got others"):
        aliases(path)


@pytest.mark.parametrize(
    "name", ["IgG1_control_TotalSeqB", "IgG2a", "Mouse IgG2a, κ isotype Ctrl", "Rat-IgG1-1", "mouse-IgG2b", "rat IgG1κ"]
)
def test_isotype_controls_are_known(name):
    assert is_control(name)


@pytest.mark.parametrize("name", ["IgD", "IgM", "IgA", "IgG Fc", "Ig light chain κ", "CD79a"])
def test_immunoglobulins_of_b_cells_are_no_controls(name):
    assert not is_control(name)


def test_controls_and_tags_are_left_out_and_the_brighter_of_two_clones_is_taken():
    names = ["CD3_TotalSeqB", "PD-1 (CD279)", "PD1 (CD279)", "IgG1_control_TotalSeqB", "Hashtag_1"]
    got = panel_of(names, np.array([5.0, 7.0, 9.0, 99.0, 99.0]))
    assert got.names == ("CD3", "PD-1") and got.columns.tolist() == [0, 2]
    assert got.notes == (
        "isotype controls are left out of the proteins: IgG1_control_TotalSeqB",
        "tags of samples are left out of the proteins: Hashtag_1",
        "PD-1 was measured by 2 antibodies: 'PD1 (CD279)', which counts more, is taken, 'PD-1 (CD279)' left out",
    )


def test_antibodies_are_told_from_genes():
    assert all(is_antibody(name) for name in ("CD3_TotalSeqB", "ADT_CD4", "CD4-GAGGTTAGTGATGGA", "CD45RA", "PD-1"))
    assert not any(is_antibody(name) for name in ("CD4", "CD14", "CD19", "TIGIT", "PDCD1", "IL7R", "HLA-DRA", "CD3E"))
