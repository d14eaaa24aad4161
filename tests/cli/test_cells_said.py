"""What goes wrong with files of cells is one clear line that names the site, from the command line and from Python."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import learner_jax as lr
from learner_jax.cli.main import main
from learner_jax.errors import LearnerError
from tests.statistics import pooled_cells as pooled

PANEL = "('CD3','CD4','CD14')"
BAD = "mended.h5ad"


def sample(begin: int, cells: int = 160, genes: int = 80) -> Any:
    """A small laboratory; no column says which part a cell belongs to."""
    adata = pooled.read(pooled.SAMPLE)
    most = np.sort(np.argsort(-np.asarray(adata.X.sum(axis=0)).ravel(), kind="stable")[:genes])
    cut = adata[begin : begin + cells, most].copy()
    cut.obs = cut.obs[[]].copy()
    return cut


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    sample(0).write_h5ad(folder / "fine.h5ad")
    return folder


def normalised(adata):
    adata.X = np.log1p(adata.X.toarray() / 3)
    return adata


def species(adata):
    adata.var_names = [f"{('hg19_', 'mm10_')[place % 2]}{name}" for place, name in enumerate(adata.var_names)]
    return adata


def other_genes(adata):
    adata.var_names = [f"LOCUS{place}" for place in range(adata.n_vars)]
    return adata


def _numbered(names):
    return {name: f"CD2{place:02d}" for place, name in enumerate(names)}


def other_proteins(adata):
    counts = adata.obsm["protein_expression"]
    adata.obsm["protein_expression"] = counts.rename(
        columns={name: f"CD2{place:02d}" for place, name in enumerate(counts)}
    )
    return adata


def twice(adata):
    adata.obs_names = [adata.obs_names[0], *adata.obs_names[1:-1], adata.obs_names[0]]
    return adata


def missing(adata):
    counts = adata.obsm["protein_expression"].astype(float)
    counts.iloc[4, 2] = np.nan
    adata.obsm["protein_expression"] = counts
    return adata


def empty_cell(adata):
    counts = adata.X.toarray()
    counts[7] = 0
    adata.X = counts
    return adata


def antibodies_among_genes(adata):
    adata.var_names = [*adata.var_names[:-2], "CD3_TotalSeqB", "CD19_TotalSeqB"]
    return adata


def lacking(adata):
    adata.obsm["protein_expression"] = adata.obsm["protein_expression"].drop(columns=["CD4"])
    return adata


def few(adata):
    return adata[:50].copy()


def newer(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["X"].attrs["encoding-version"] = "9.0.0"


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_file(path: Path) -> None:
    path.write_bytes(b"cells,genes\n1,2\n")


SITE = r"(site 'mended'|\S*mended\.h5ad)"
FEW = rf"{SITE}: expected at least 100 cells to train on, .* got \d\d of the 50 that are there$"
NO_PROTEIN = rf"{SITE}: expected proteins of the study \(CD3, CD4, CD14\), got none of them \(CD200, "
PANEL_CLR = rf"{SITE}: expected all proteins of the panel, .* got none of CD4; choose target='within_site'$"
# what is changed in the cells, in the file, of the task; what is said
CASES: dict[str, tuple[Callable[[Any], Any] | None, Callable[[Path], None] | None, dict[str, str], str]] = {
    "normalised": (
        normalised,
        None,
        {},
        rf"{SITE}: X: expected raw counts .* as logarithms of normalised counts have$",
    ),
    "two species": (species, None, {}, rf"{SITE}: expected genes of one genome, got names with 'hg19_' and 'mm10_'"),
    "no shared gene": (
        other_genes,
        None,
        {},
        r"expected genes that all 2 sites have, got none: are all of one species",
    ),
    "none of the listed genes": (
        other_genes,
        None,
        {"genes": "listed"},
        rf"{SITE}: expected genes of the study .* got no",
    ),
    "no shared protein": (other_proteins, None, {}, NO_PROTEIN),
    "a barcode twice": (twice, None, {}, rf"{SITE}: expected each barcode once in obs_names, got 1 more .*'c0200'"),
    "nan": (missing, None, {}, rf"{SITE}: protein 'CD15' of cell 'c0204': expected a count, got NaN or infinity"),
    "an empty cell": (empty_cell, None, {}, rf"{SITE}: expected a count in each cell, got 1 without any \('c0207'\)"),
    "proteins in X": (antibodies_among_genes, None, {}, rf"{SITE}: expected genes alone in X, got 2 antibodies \(CD3_"),
    "newer format": (None, newer, {}, rf"{SITE}: 'X' is of a format 9\.0\.0 .*written by a newer anndata"),
    "cut short": (None, cut_short, {}, rf"{SITE}: expected [\d,]+ bytes, got [\d,]+: the file is cut short"),
    "no such file": (None, no_file, {}, rf"{SITE}: expected an HDF5 file, got something else$"),
    "50 cells": (few, None, {}, FEW),
    "panel named wrongly": (
        None,
        None,
        {"panel": "('CD3','TIGTI')"},
        r"expected .* got none for TIGTI \(near: TIGIT\)$",
    ),
    "another panel, clr": (lacking, None, {"target": "clr_per_cell"}, PANEL_CLR),
}


def made(case: str, good: Path, folder: Path) -> dict[str, str]:
    """The two files, one of them with this fault; further fields of the task."""
    change, damage, fields, _ = CASES[case]
    folder.mkdir()
    shutil.copy(good / "fine.h5ad", folder / "fine.h5ad")
    adata = sample(200)
    adata = adata if change is None else change(adata)
    adata.write_h5ad(folder / BAD)
    if damage is not None:
        damage(folder / BAD)
    if fields.get("genes") == "listed":
        fields = {**fields, "genes": str(tuple(sample(0).var_names))}
    return {"panel": PANEL, "target": "within_site", "components": "5", **fields}


def flags(fields: dict[str, str]) -> list[str]:
    return ["--config=proteins", *(f"--config.task.{name}={value}" for name, value in fields.items())]


@pytest.mark.parametrize("case", CASES)
def test_a_simulation_ends_in_one_line(case, good, tmp_path, capsys):
    fields = made(case, good, tmp_path / "cells")
    where = [f"--config.data.source={tmp_path / 'cells'}", "--config.data.site_column=None"]
    code = main(["simulate", *flags(fields), *where, f"--workdir={tmp_path / 'run'}", "--config.rounds=1"])
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    print(said[-1])
    assert code == 1 and len(said) == 1, said
    assert re.match(f"learner simulate: ({CASES[case][3]})", said[0]), said[0]
    assert len(said[0]) < 400


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("no shared gene", "panel named wrongly")])
def test_a_check_at_the_site_says_the_same(case, good, tmp_path, capsys):
    fields = made(case, good, tmp_path / "cells")
    code = main(
        ["data", "check", *flags(fields), f"--data={tmp_path / 'cells' / BAD}", "--config.data.site_column=None"]
    )
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert code == 1 and len(said) == 1, said
    assert re.match(f"learner data: ({CASES[case][3]})", said[0]), said[0]


def test_a_wrong_name_of_a_protein_is_a_remark_of_the_check(good, tmp_path, capsys):
    fields = made("panel named wrongly", good, tmp_path / "cells")
    assert main(["data", "check", *flags(fields), f"--data={tmp_path / 'cells' / BAD}"]) == 0
    assert "not measured here, and not taken for 0: TIGTI (near: TIGIT)" in capsys.readouterr().out


PYTHON = {"normalised", "two species", "no shared gene", "no shared protein", "a barcode twice", "nan", "an empty cell",
          "proteins in X", "50 cells", "another panel, clr"}  # fmt: skip


@pytest.mark.parametrize("case", sorted(PYTHON))
def test_from_python_it_is_one_line_too(case):
    change, _, fields, _ = CASES[case]
    assert change is not None
    labs, asked = {"fine": sample(0), "mended": change(sample(200))}, {"components": 5}
    with pytest.raises(LearnerError) as error:
        lr.protein.setup_anndata(labs["fine"])
        lr.protein.train(labs, panel=("CD3", "CD4", "CD14"), target=fields.get("target"), rounds=1, task=asked)
    print(error.value)
    pattern = CASES[case][3].replace(SITE, "(site 'mended')")
    assert re.match(pattern, str(error.value)), error.value
