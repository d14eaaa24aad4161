"""Cells made by hand for the tests of tasks: random counts under names that are given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from learner_jax.data.cells import Cells
from tests.statistics.pooled_cells import random_cells


def cells_of(
    genes: Sequence[str], n: int = 150, proteins: Sequence[str] = ("CD3", "CD4", "CD8"), seed: int = 0, **columns
) -> Cells:
    """n cells, cell 0 of seed s named "s-0"; proteins go with the first genes."""
    counts = random_cells(n, len(genes), seed)
    rng = np.random.default_rng([seed, 1])
    dense = np.asarray(counts[:, : len(proteins)].todense(), np.float64)
    protein = rng.poisson(20 + 15 * dense[:, : len(proteins)]).astype(np.float32)
    obs = pd.DataFrame(columns, index=pd.Index([f"{seed}-{place}" for place in range(n)]))
    return Cells(counts, np.array(genes, object), None, protein, tuple(proteins), obs)
