"""Cells for the tests of genes: random negative binomial counts, the shipped sample, and the whole file where it is."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "learner_jax" / "samples" / "pbmc10k_cite_2000.h5ad"
WHOLE = "pbmc10k_protein_v3.h5ad"


def random_cells(cells: int, genes: int, seed: int) -> Any:
    """int32 CSR; genes of many means and dispersions, each cell with at least one count."""
    rng = np.random.default_rng(seed)
    mean = np.exp(rng.normal(-0.5, 1.5, genes)) * rng.lognormal(0, 0.5, (cells, 1))
    size = rng.uniform(0.3, 5.0, genes)
    counts = rng.negative_binomial(size, size / (size + mean)).astype(np.int32)
    counts[np.arange(cells), rng.integers(0, genes, cells)] += 1
    return sparse.csr_matrix(counts)


def deal(cells: int, seed: int, sites: int = 4) -> list[np.ndarray]:
    """Places of cells at each site: uneven, some sites empty."""
    rng = np.random.default_rng(seed)
    dealt = rng.choice(sites, cells, p=rng.dirichlet(np.full(sites, 0.5)))
    return [np.flatnonzero(dealt == site) for site in range(sites)]


def anndata_of(counts: Any, names: list[str]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import anndata
        import pandas as pd

        return anndata.AnnData(counts.copy(), var=pd.DataFrame(index=pd.Index(names)))


def read(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import anndata

        return anndata.read_h5ad(path)


def whole_file() -> Any:
    """pbmc10k in full: 6,855 cells, 4,000 genes."""
    folder = os.environ.get("LEARNER_DATA")
    path = Path(folder, "singlecell", WHOLE) if folder else None
    if path is None or not path.is_file():
        pytest.skip(f"no {WHOLE} in the folder singlecell of LEARNER_DATA")
    return read(path)


def scanpy() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import scanpy

        return scanpy


def quietly(function: Any, *args: Any, **kwargs: Any) -> Any:
    """A call into a library whose warnings are none of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)
