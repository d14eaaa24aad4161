"""Two small laboratories of real cells, each with a file of its own kind, and a study of them."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from learner_jax.data.cells import Cells, to_anndata
from learner_jax.data.samples import sample_path
from learner_jax.data.tables import read_sites
from learner_jax.specs import Data, Engine, Federation, Spec, Study, check

PANEL = ("CD3", "CD4", "CD14", "CD19", "CD8")
LACKING = "CD19"
"""What the second laboratory does not measure."""


def write_cells(folder: Path, zarr: bool = False) -> Path:
    """One file a laboratory, of the sample's first cells there: a.h5ad, b.h5mu, and with `zarr` c.zarr.

    Each has genes that the others lack, in an order of its own; b has no CD19; who is held back is drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = read_sites(sample_path("pbmc10k"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        to_anndata(_cut(found["s1"], 260, slice(0, 140))).write_h5ad(folder / "a.h5ad")
        import anndata
        import mudata

        second = _cut(found["s3"], 220, slice(159, 19, -1))
        whole: Any = to_anndata(second)
        kept = [name for name in second.proteins if name != LACKING]
        protein = anndata.AnnData(whole.obsm["protein_expression"][kept])
        rna = anndata.AnnData(whole.X, obs=whole.obs, var=whole.var)
        mudata.MuData({"rna": rna, "prot": protein}).write(folder / "b.h5mu")
        if zarr:
            to_anndata(_cut(found["s2"], 200, slice(10, 150))).write_zarr(folder / "c.zarr")
    return folder


def _cut(cells: Cells, most: int, genes: slice) -> Cells:
    """The first cells, with some of the 160 genes that have most counts."""
    cells = dataclasses.replace(cells, obs=cells.obs.drop(columns=["site", "split"])).head(most)
    top = np.sort(np.argsort(-np.asarray(cells.counts.sum(axis=0)).ravel(), kind="stable")[:160])[genes]
    kept = cells.counts[:, top]
    seen = np.flatnonzero(np.diff(kept.indptr))
    ids = None if cells.ids is None else cells.ids[top]
    held_out = np.where(np.arange(len(cells)) % 4 == 1, "test", "train")
    obs = cells.obs.assign(held_out=held_out)  # a laboratory's own words, for a study that goes by them
    cut = dataclasses.replace(cells, counts=kept, genes=cells.genes[top], ids=ids, obs=obs)
    return cut.take(seen)


def study_of_cells(source: Path, task: dict[str, Any], **fields: Any) -> Study:
    """The study of proteins on small files, in float64, one stream: 10 directions, 12 hidden units, 4 rounds."""
    adam = Spec("optimizers", "adam", {"learning_rate": 3e-3})
    return check(
        Study(
            **{
                "name": "cells",
                "task": Spec("tasks", "proteins", {"panel": PANEL, "components": 10, "valid_share": 0.2, **task}),
                "model": Spec("models", "protein_net", {"hidden": (12,), "dropout": 0.2}),
                "algorithm": Spec("algorithms", "columnwise", {"local": adam}),
                "rounds": 4,
                "batch_size": 64,
                "precision": "float64",
                "target": "valid/pearson",
                "references": (),
                "data": Data(source=str(source), site_column=None),
                "engine": Engine(plan="sequential"),
                "federation": Federation(deadline_s=120.0),
                **fields,
            }
        )
    )
