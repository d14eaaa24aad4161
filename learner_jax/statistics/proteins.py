"""Protein counts as targets: log1p z-scored within the site, or centred log-ratios per protein or per cell.

                     of a cell's protein it needs                  where a site lacks proteins
    within_site      mean and deviation of it at this site         means the same: the default
    clr_per_protein  mean of log1p of it at this site              means the same; spread differs by laboratory
    clr_per_cell     the cell's other proteins                     means another thing for each panel: do not mix

A centred log-ratio per cell takes off the mean over the proteins that were measured, so the same cell, stained with
another panel, gets other values: two sites with different panels have different targets under one name. The two others
look at one protein at a time. Laboratories differ in antibody gain, which shifts logarithms, and in background, which
squeezes them: a ratio per protein takes out the shift, a z-score the shift and the spread. What neither can carry is
composition: a site of B cells alone and one without them both have mean CD19 of 0.

All functions are of one site's cells and need no round. float64 in and out; absent proteins are columns left out
beforehand, never zeros.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from learner_jax.errors import DataError

DEFAULT = "within_site"


class Scale(NamedTuple):
    """Mean and deviation of log1p counts at one site, over the cells that it trains on; float64[P] each.

    Population deviation, as of `mean_and_deviation`; 1 for a protein that is the same in all cells.
    """

    mean: np.ndarray
    deviation: np.ndarray


def site_scale(protein: np.ndarray) -> Scale:
    """The scale of a site, from its training cells only: held-out cells must not move their own targets.

    Args:
      protein: [n, P] raw antibody counts.

    Raises:
      DataError: no cell, or a count that is not a number of 0 or more.
    """
    logs = _logs(protein)
    if not len(logs):
        raise DataError("expected at least 1 training cell to scale proteins by, got none")
    mean = logs.mean(axis=0)
    deviation = logs.std(axis=0)
    return Scale(mean, np.where(deviation > 1e-10 * np.maximum(1.0, mean), deviation, 1.0))


def within_site(protein: np.ndarray, scale: Scale) -> np.ndarray:
    """(log1p(count) - mean) / deviation, [n, P].

    Args:
      protein: [n, P] raw antibody counts, of any cells of the site.
      scale: of this site, as `site_scale` gave it.

    Raises:
      DataError: a count that is not a number of 0 or more, or a scale for another number of proteins.
    """
    logs = _logs(protein)
    _same_panel(logs, scale.mean)
    return (logs - scale.mean) / scale.deviation


def counts_within_site(scored: np.ndarray, scale: Scale) -> np.ndarray:
    """Counts that `within_site` would give these values for, [n, P]: how a prediction reads at this site."""
    _same_panel(scored, scale.mean)
    return np.expm1(np.asarray(scored, np.float64) * scale.deviation + scale.mean)


def protein_centre(protein: np.ndarray) -> np.ndarray:
    """Mean of log1p counts over cells, float64[P]: what `clr_per_protein` divides by, from the training cells."""
    logs = _logs(protein)
    if not len(logs):
        raise DataError("expected at least 1 training cell to centre proteins by, got none")
    return logs.mean(axis=0)


def clr_per_protein(protein: np.ndarray, centre: np.ndarray | None = None) -> np.ndarray:
    """log1p(count / exp(mean over cells of log1p(count))), [n, P]: Seurat's CLR across features.

    Seurat: NormalizeData(normalization.method = "CLR", margin = 1), whose matrices have features in rows. Never below
    0. The mean is over all cells, those without a count included.

    Args:
      protein: [n, P] raw antibody counts.
      centre: float64[P] from `protein_centre` of the training cells; of these very cells when None, as Seurat.

    Raises:
      DataError: a count that is not a number of 0 or more, or a centre for another number of proteins.
    """
    logs = _logs(protein)
    centre = protein_centre(protein) if centre is None else np.asarray(centre, np.float64)
    _same_panel(logs, centre)
    return np.log1p(np.asarray(protein, np.float64) / np.exp(centre))


def counts_per_protein(scored: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Counts that `clr_per_protein` with this centre would give these values for, [n, P]."""
    _same_panel(scored, centre)
    return np.expm1(np.asarray(scored, np.float64)) * np.exp(centre)


def clr_per_cell(protein: np.ndarray) -> np.ndarray:
    """log1p(count) minus its mean over the cell's proteins, [n, P]: rows sum to 0.

    Depends on the panel: meaningful only where every site measures the same proteins, given in full. (Seurat's
    margin = 2 centres by the same mean, inside the logarithm.)

    Args:
      protein: [n, P] raw antibody counts, P >= 2.

    Raises:
      DataError: a count that is not a number of 0 or more, or fewer than 2 proteins: one alone is always 0.
    """
    logs = _logs(protein)
    if logs.shape[1] < 2:
        raise DataError(f"expected at least 2 proteins for a centred log-ratio per cell, got {logs.shape[1]}")
    return logs - logs.mean(axis=1, keepdims=True)


def counts_per_cell(scored: np.ndarray, cell_mean: np.ndarray) -> np.ndarray:
    """Counts again, [n, P]; cell_mean: [n] mean of log1p counts of each cell, which the scores do not hold."""
    return np.expm1(np.asarray(scored, np.float64) + np.asarray(cell_mean, np.float64)[:, None])


def _logs(protein: np.ndarray) -> np.ndarray:
    protein = np.asarray(protein, np.float64)
    if protein.ndim != 2:
        raise DataError(f"expected protein counts as cells x proteins, got shape {list(protein.shape)}")
    wrong = np.argwhere(~(np.isfinite(protein) & (protein >= 0)))
    if len(wrong):
        cell, column = wrong[0]
        raise DataError(
            "expected protein counts of 0 or more, "
            f"got a value that is not, in row {cell} and protein number {column + 1} ({len(wrong)} in all)"
        )
    return np.log1p(protein)


def _same_panel(values: np.ndarray, of_proteins: np.ndarray) -> None:
    if values.ndim != 2 or values.shape[1] != len(of_proteins):
        raise DataError(f"expected {len(of_proteins)} proteins, as the scale was made for, got {list(values.shape)}")
