"""Small AnnData made by hand, whose counts are known."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

GENES = ("CD3E", "MS4A1", "NKX2-1", "MT-ND1", "HLA-DRB1", "AL645608.8")
PROTEINS = ("CD3_TotalSeqB", "CD8a_TotalSeqB", "PD1", "IgG1_control_TotalSeqB")


def counts(cells: int = 7, genes: int = len(GENES), seed: int = 0) -> np.ndarray:
    """int64[cells, genes], a third of them 0, no cell without any."""
    found = np.random.default_rng(seed).integers(0, 9, (cells, genes)) * (
        np.random.default_rng(seed + 1).random((cells, genes)) < 0.7
    )
    found[:, 0] += 1
    return found


def proteins(cells: int = 7, seed: int = 3) -> np.ndarray:
    """int64[cells, 4]."""
    return np.random.default_rng(seed).integers(0, 300, (cells, len(PROTEINS)))


def by_hand(
    x: object = None, *, genes=GENES, cells: int = 7, protein: object = ..., **parts: object
) -> anndata.AnnData:
    """AnnData of 7 cells and 6 genes; `protein` None for RNA only; `parts` as AnnData takes them."""
    obs = pd.DataFrame(
        {"site": [f"s{place % 2}" for place in range(cells)]},
        index=pd.Index([f"AAAC{place}-1" for place in range(cells)]),
    )
    matrix = sparse.csr_matrix(counts(cells, len(genes)).astype(np.float32)) if x is None else x
    parts = {"obs": obs, "var": pd.DataFrame(index=pd.Index(list(genes))), **parts}
    found = anndata.AnnData(X=matrix, **parts)  # pyright: ignore[reportArgumentType]
    if protein is ...:
        protein = pd.DataFrame(proteins(cells), index=found.obs_names, columns=pd.Index(PROTEINS))
    if protein is not None:
        found.obsm["protein_expression"] = protein  # pyright: ignore[reportArgumentType]
    return found
