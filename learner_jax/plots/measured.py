"""What an AnnData says of measured and predicted proteins, as arrays in the same units.

Antibody counts are brought to the units of the predictions before they are drawn beside them (`target`):

    within_site    log1p(count), z-scored over the cells of each site: the default, whatever the panel
    clr_per_cell   log1p(count) less its mean over the cell's proteins: only where all sites have one panel
    log1p          log1p(count)
    none           the values are in the units of the predictions already

Which one is in `uns["protein_target"]` where a model wrote it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from learner_jax.data.protein_names import canonical
from learner_jax.errors import DataError
from learner_jax.evaluation.proteins import evaluate
from learner_jax.statistics.proteins import clr_per_protein, site_scale, within_site

MEASURED, PREDICTED, INTERVAL = "protein_expression", "protein_predicted", "protein_interval"
UNITS = {
    "within_site": "log counts, z-scored within site",
    "clr_per_cell": "log-ratio to the cell's mean",
    "clr_within_site": "log-ratio to the cell's mean, z-scored within site",
    "clr_per_protein": "log-ratio to the protein's mean at the site",
    "log1p": "log counts",
    "none": "as given",
}


class Pairs(NamedTuple):
    """Measured and predicted values of the same cells.

    Attributes:
      names: P proteins that were both measured and predicted.
      y: float64[n, P], measured, in the units of `told`; nan where it was not.
      told: float64[n, P], predicted.
      low, high: float64[n, P], ends of the predicted intervals; None without.
      site: str[n].
      units: in words.
    """

    names: tuple[str, ...]
    y: np.ndarray
    told: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    site: np.ndarray
    units: str


def pairs(
    data: Any,
    predicted: Any = None,
    proteins: Sequence[str] | None = None,
    *,
    target: str | None = None,
    site_key: str = "site",
) -> Pairs:
    """Values to draw.

    Args:
      data: AnnData with `obsm["protein_expression"]` (counts; nan where a site did not measure) and
        `obsm["protein_predicted"]`, data frames with a column for each protein; or float[n, P], measured, in the units
        of `predicted`.
      predicted: float[n, P], where `data` is an array.
      proteins: which of the AnnData's, in order; or names of the columns of the arrays.
      target: see the top of this file.
      site_key: column of `obs`; without it all cells are of one site.

    Raises:
      DataError: something is not there, or does not fit.
    """
    if not hasattr(data, "obsm"):
        return _of_arrays(data, predicted, proteins)
    said = dict(data.uns.get("learner_protein", {}))  # as `lr.protein.setup_anndata` left it
    measured, told = _frame(data, str(said.get("protein", MEASURED))), _frame(data, PREDICTED)
    measured = measured.rename(columns={name: canonical(str(name)) for name in measured.columns})
    measured = measured[[name for name in measured.columns if name in set(told.columns)]]  # the model's panel
    site_key = str(said.get("batch", site_key)) if site_key == "site" else site_key
    both = [name for name in told.columns if name in measured.columns]
    if not both:
        raise DataError(f"expected a protein both in obsm['{MEASURED}'] and obsm['{PREDICTED}'], got none")
    names = list(both if proteins is None else proteins)
    for name in names:
        if name not in both:
            raise DataError(f"expected proteins that were measured and predicted ({', '.join(both)}), got '{name}'")
    target = target or str(data.uns.get("protein_target", "within_site"))
    if target not in UNITS:
        raise DataError(f"expected a target among {', '.join(UNITS)}, got '{target}'")
    site = np.full(data.n_obs, "all") if site_key not in data.obs else data.obs[site_key].astype(str).to_numpy()
    values = _transformed(measured.to_numpy(np.float64), target, site)
    at, to = ([list(frame.columns).index(name) for name in names] for frame in (measured, told))
    low, high = _interval(data, list(told.columns), to)
    return Pairs(tuple(names), values[:, at], told.to_numpy(np.float64)[:, to], low, high, site, UNITS[target])


def judged(
    adata: Any, *, target: str | None = None, site_key: str = "site", cell_type: str = "cell_type"
) -> dict[str, Any]:
    """The evaluation of an AnnData's own predictions, as `learner_jax.evaluation.proteins.evaluate` gives it.

    Args:
      adata: as `pairs`; with `obsm["protein_interval"]`, float[n, P, 2] or columns "CD3_low", "CD3_high", coverage too.
      target, site_key: as `pairs`.
      cell_type: column of `obs`, if it is there.
    """
    found = pairs(adata, target=target, site_key=site_key)
    told = {"mean": found.told} | ({} if found.low is None else {"low": found.low, "high": found.high})
    kinds = adata.obs[cell_type].astype(object).to_numpy() if cell_type in adata.obs else None
    return evaluate({"predicted": told}, found.y, np.isfinite(found.y), found.site, kinds, found.names, 0, draws=200)


def _of_arrays(data: Any, predicted: Any, proteins: Sequence[str] | None) -> Pairs:
    y = np.asarray(data, np.float64)
    if predicted is None or y.ndim != 2 or np.shape(predicted) != y.shape:
        raise DataError(
            f"expected an AnnData, or measured and predicted values of one shape [cells, proteins], "
            f"got {y.shape} and {None if predicted is None else np.shape(predicted)}"
        )
    columns = getattr(data, "columns", None)
    names = proteins if proteins is not None else columns if columns is not None else range(1, y.shape[1] + 1)
    if len(names) != y.shape[1]:
        raise DataError(f"expected names of {y.shape[1]} proteins, got {len(names)}")
    said = tuple(str(name) for name in names)
    return Pairs(said, y, np.asarray(predicted, np.float64), None, None, np.full(len(y), "all"), UNITS["none"])


def _frame(adata: Any, key: str) -> Any:
    import pandas as pd

    if key not in adata.obsm:
        raise DataError(f"expected obsm['{key}'] in the AnnData, got {', '.join(adata.obsm.keys()) or 'no obsm'}")
    frame = adata.obsm[key]
    if isinstance(frame, pd.DataFrame):
        return frame
    names = adata.uns.get("protein_names")
    if names is None or len(names) != frame.shape[1]:
        raise DataError(f"expected obsm['{key}'] with names: a DataFrame, or uns['protein_names'] beside it")
    return pd.DataFrame(np.asarray(frame), index=adata.obs_names, columns=pd.Index([str(name) for name in names]))


def _transformed(counts: np.ndarray, target: str, site: np.ndarray) -> np.ndarray:
    if target == "none":
        return counts
    if (counts < 0).any():
        raise DataError(
            f"expected antibody counts in obsm['{MEASURED}'], got one below 0: target='none' if they are transformed"
        )
    logs = np.log1p(counts)
    if target == "log1p":
        return logs
    if target in ("clr_per_cell", "clr_within_site"):
        logs = logs - np.nanmean(logs, axis=1, keepdims=True)
        if target == "clr_per_cell":
            return logs
    found = np.full_like(logs, np.nan)
    for name in set(site.tolist()):
        for at in range(counts.shape[1]):
            rows = np.flatnonzero((site == name) & np.isfinite(counts[:, at]))
            if not len(rows):
                continue
            part = counts[rows, at][:, None]
            if target == "clr_per_protein":
                found[rows, at] = clr_per_protein(part)[:, 0]
            elif target == "clr_within_site":
                away = logs[rows, at] - logs[rows, at].mean()
                found[rows, at] = away / (away.std() or 1.0)
            else:
                found[rows, at] = within_site(part, site_scale(part))[:, 0]
    return found


def _interval(adata: Any, names: list[str], to: list[int]) -> tuple[np.ndarray | None, np.ndarray | None]:
    if INTERVAL not in adata.obsm:
        return None, None
    both = adata.obsm[INTERVAL]
    if hasattr(both, "columns"):
        wanted = [[f"{names[at]}_{end}" for at in to] for end in ("low", "high")]
        lacking = [name for part in wanted for name in part if name not in both.columns]
        if lacking:
            raise DataError(
                f"expected obsm['{INTERVAL}'] with columns such as CD3_low and CD3_high, got no '{lacking[0]}'"
            )
        low, high = (both[part].to_numpy(np.float64) for part in wanted)
        return low, high
    both = np.asarray(both, np.float64)
    if both.shape != (adata.n_obs, len(names), 2):
        raise DataError(f"expected obsm['{INTERVAL}'] as {(adata.n_obs, len(names), 2)}, ends last, got {both.shape}")
    return both[:, to, 0], both[:, to, 1]
