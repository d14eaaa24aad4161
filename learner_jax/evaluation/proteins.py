"""How well surface proteins are told from RNA: by site, by protein, by cell type, with intervals.

`evaluate` has the held-out cells of every site (a simulation). `summarise_site` is what one laboratory computes at home
in a federation: only its figures leave, never a value of a cell, and `join_sites` puts many such summaries together.
Both give a study's evaluation:

    {"proteins": {"names": [protein, ...], "models": [model, ...], the first compared with each other,
                  "sites": [SITE, ...],
                  "all": SITE of all cells together; None in a federation, where nobody has them together,
                  "average": SITE over the sites' own figures}}

    SITE = {"name", "cells",                                 None: withheld, fewer than 10
            "measured": {protein: cells it was measured in}, of the site's panel alone
            "background": [protein whose antibody shows its background alone here, as the site found],
            "models": {model: {"r": FIGURE mean over the proteins, "rmse": FIGURE over all measured entries,
                               "coverage": FIGURE over all measured entries, of the intervals (80 % if all is well),
                               "proteins": {protein: {"r", "rmse", "coverage": FIGURE}}}},
            "gain": {"federated-pooled": FIGURE},            paired difference of the mean r, first less other
            "cell_types": {type: {"cells", "measured": {protein: mean}, "predicted": {protein: mean}}}}
    FIGURE = {"value", "low", "high", "se"} or None: fewer than 10 cells, or values that do not vary

In "average", r is the plain mean over the sites that could be judged (each laboratory counts once), a gain likewise;
RMSE, coverage and means by cell type are those of all entries together. "how" says so, "sites" over how many. An
average over sites is *not* the r of all cells together: it never compares a cell of one laboratory with one of another,
whose antibodies have another gain.

Units are those of y (log1p counts z-scored within site, or centred log-ratios): this file does not know them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from learner_jax.errors import DataError
from learner_jax.evaluation.bootstrap import generator, interval
from learner_jax.evaluation.correlation import ENOUGH, coverage, pearson, resample, rmse
from learner_jax.evaluation.join_proteins import average_sites, everywhere
from learner_jax.evaluation.join_proteins import join_sites as join_sites
from learner_jax.types import Array

Told = Mapping[str, Mapping[str, np.ndarray]]
_MOST = {"proteins": 2000, "models": 64, "cell types": 500}


def evaluate(
    predicted: Mapping[str, Mapping[str, Array]],
    y: Array,
    seen: Array,
    site: Array,
    cell_type: Array | None,
    proteins: Sequence[str],
    seed: int,
    *,
    draws: int = 1000,
    background: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Judge models on held-out cells of every site.

    Args:
      predicted: model -> {"mean": float[n, P], and "low", "high": float[n, P], ends of its 80 % intervals, if it has
        any}. For a model that differs from site to site, each cell's own site's. The first, or "federated" if it is
        there, is compared with each other.
      y: float[n, P], measured, in the same units.
      seen: bool[n, P], which entries were measured; y may hold anything elsewhere.
      site: str[n].
      cell_type: str[n], or None.
      proteins: P names.
      seed: of the bootstrap.
      draws: of the bootstrap.
      background: site -> proteins whose antibody shows its background alone there; they are judged like the others.

    Returns:
      The evaluation, as at the top of this file: JSON-able, without nan.

    Raises:
      DataError: shapes differ, or a value that counts is not finite.
    """
    told, y, seen, cell_type = _checked(predicted, y, seen, cell_type, proteins)
    site = np.asarray(site).astype(str)
    if site.shape != (len(y),):
        raise DataError(f"evaluate: expected a site for each of {len(y)} cells, got {site.shape}")
    sites = []
    for name in sorted(set(site.tolist())):
        mine = site == name
        types = None if cell_type is None else cell_type[mine]
        sites.append(_site(_take(told, mine), y[mine], seen[mine], types, proteins, seed, name, draws))
        sites[-1]["background"] = _flagged((background or {}).get(name, ()), sites[-1])
    whole = _site(told, y, seen, cell_type, proteins, seed, "all sites", draws) | {"how": "all cells together"}
    whole["background"] = everywhere(sites)
    found = {"names": list(proteins), "models": list(told), "sites": sites, "all": whole}
    return {"proteins": found | {"average": average_sites(sites)}}


def summarise_site(
    predicted: Mapping[str, Mapping[str, Array]],
    y: Array,
    seen: Array,
    cell_type: Array | None,
    proteins: Sequence[str],
    seed: int,
    *,
    name: str = "",
    draws: int = 1000,
    floor: int = ENOUGH,
    background: Sequence[str] = (),
) -> dict[str, Any]:
    """Judge models on one site's own held-out cells; what it returns may leave the site.

    Args:
      predicted, y, seen, cell_type, proteins, seed, draws: as `evaluate`, of this site.
      name: the site's.
      floor: with fewer cells than this everything is withheld; so is a protein measured in fewer, and a cell type of
        fewer, with the next larger ones until what is withheld is this many cells too.
      background: proteins whose antibody shows its background alone here.

    Returns:
      SITE, JSON-able, without nan. The figures equal those of `evaluate` for the same name and seed.

    Raises:
      DataError: as `evaluate`.
    """
    told, y, seen, cell_type = _checked(predicted, y, seen, cell_type, proteins)
    if len(y) < floor:
        return {"name": name, "cells": None, **_nothing()}
    seen = seen & (seen.sum(0) >= floor)
    found = _site(told, y, seen, cell_type, proteins, seed, name, draws, floor)
    kinds = sorted(found["cell_types"].items(), key=lambda kind: kind[1]["cells"])
    # Cells without a type are with those that are withheld: their number could be had by taking away.
    hidden = found["cells"] - sum(kind["cells"] for _, kind in kinds)
    while kinds and (kinds[0][1]["cells"] < floor or 0 < hidden < floor):
        hidden += kinds.pop(0)[1]["cells"]
    kept = {kind for kind, _ in kinds}
    found["cell_types"] = {kind: one for kind, one in found["cell_types"].items() if kind in kept}
    found["background"] = _flagged(background, found)
    return found


def _flagged(background: Sequence[str], site: Mapping[str, Any]) -> list[str]:
    return [protein for protein in site["measured"] if protein in set(background)]


def _nothing() -> dict[str, Any]:
    return {"measured": {}, "background": [], "models": {}, "gain": {}, "cell_types": {}}


# ---- one site -------------------------------------------------------------------------------------------------------


def _site(
    told: Told, y: np.ndarray, seen: np.ndarray, cell_type: np.ndarray | None, proteins: Sequence[str], seed: int,
    name: str, draws: int, least: int = ENOUGH,
) -> dict[str, Any]:  # fmt: skip
    cells = seen.sum(0)
    site: dict[str, Any] = {"name": name, "cells": len(y), **_nothing()}
    site["measured"] = {protein: int(n) for protein, n in zip(proteins, cells) if n}
    if not seen.any():
        return site
    drawn = resample(told, y, seen, generator(seed, name, "proteins"), draws)
    known = {}
    for model, one in told.items():
        r, error = pearson(y, one["mean"], seen), rmse(y, one["mean"], seen)
        inside = coverage(y, one["low"], one["high"], seen) if "low" in one else [None] * len(proteins)
        known[model] = np.array([figure is not None for figure in r])
        share = (seen & (one["low"] <= y) & (y <= one["high"])).sum() / seen.sum() if "low" in one else math.nan
        whole = math.sqrt(((y - one["mean"])[seen] ** 2).mean())
        site["models"][model] = {
            "r": _mean(r, drawn[model]["r"], known[model]),
            "rmse": interval(whole, drawn[model]["rmse"]),
            "coverage": interval(float(share), drawn[model]["coverage"]) if len(y) >= ENOUGH else None,
            "proteins": {
                protein: {"r": r[at], "rmse": error[at], "coverage": inside[at]}
                for at, protein in enumerate(proteins)
                if cells[at]
            },
        }
    first, *others = told
    for other in others:
        both = known[first] & known[other]
        if both.any():
            r = [[_value(site["models"][m]["proteins"].get(p)) for p in proteins] for m in (first, other)]
            apart = float(np.mean(np.array(r[0])[both]) - np.mean(np.array(r[1])[both]))
            draws_apart = drawn[first]["r"][:, both].mean(1) - drawn[other]["r"][:, both].mean(1)
            site["gain"][f"{first}-{other}"] = interval(apart, draws_apart)
    if cell_type is not None:
        site["cell_types"] = _by_type(told[first]["mean"], y, seen, cell_type, proteins, least)
    return site


def _mean(r: list[dict[str, float] | None], drawn: np.ndarray, known: np.ndarray) -> dict[str, float] | None:
    values = [one["value"] for one in r if one]
    return interval(float(np.mean(values)), drawn[:, known].mean(1)) if values else None


def _value(protein: Mapping[str, Any] | None) -> float:
    return protein["r"]["value"] if protein and protein["r"] else math.nan


def _by_type(
    mean: np.ndarray, y: np.ndarray, seen: np.ndarray, cell_type: np.ndarray, proteins: Sequence[str], least: int
) -> dict[str, Any]:
    """Means of the cells of each type; of one protein only where it was measured in as many of them as `least`."""
    found = {}
    for kind in sorted({one for one in cell_type.tolist() if one}):
        mine = cell_type == kind
        use = [at for at in range(len(proteins)) if seen[mine, at].sum() >= least]
        found[kind] = {
            "cells": int(mine.sum()),
            "measured": {proteins[at]: float(y[mine & seen[:, at], at].mean()) for at in use},
            "predicted": {proteins[at]: float(mean[mine & seen[:, at], at].mean()) for at in use},
        }
    return found


def _take(told: Told, mask: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    return {model: {part: array[mask] for part, array in one.items()} for model, one in told.items()}


def _checked(
    predicted: Mapping[str, Mapping[str, Array]],
    y: Array,
    seen: Array,
    cell_type: Array | None,
    proteins: Sequence[str],
) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray, np.ndarray, np.ndarray | None]:
    """The arguments as arrays, the model that others are compared with first."""
    y, seen = np.asarray(y, np.float64), np.asarray(seen, bool)
    if y.ndim != 2 or y.shape[1] != len(proteins):
        raise DataError(
            f"evaluate: expected measured values of {len(proteins)} proteins, [cells, proteins], got {y.shape}"
        )
    if len(set(proteins)) != len(proteins):
        raise DataError("evaluate: expected each protein's name once, got one twice")
    if not predicted:
        raise DataError("evaluate: expected the predictions of at least one model, got none")
    order = sorted(predicted, key=lambda model: model != "federated")
    told: dict[str, dict[str, np.ndarray]] = {}
    for model in order:
        parts = {part: np.asarray(predicted[model][part], np.float64) for part in predicted[model]}
        if "mean" not in parts or ("low" in parts) != ("high" in parts):
            raise DataError(
                f"evaluate: expected 'mean', or 'mean', 'low' and 'high', of {model!r}, got {sorted(parts)}"
            )
        told[model] = {part: parts[part] for part in ("mean", "low", "high") if part in parts}
    arrays = [("seen", seen), *((f"{m!r} {part}", x) for m, one in told.items() for part, x in one.items())]
    for what, array in arrays:
        if array.shape != y.shape:
            raise DataError(
                f"evaluate: expected {y.shape[0]} cells x {y.shape[1]} proteins in {what}, got {array.shape}"
            )
    for what, array in [("measured", y), *arrays[1:]]:
        wrong = seen & ~np.isfinite(array)
        if wrong.any():
            row, at = np.argwhere(wrong)[0]
            raise DataError(f"evaluate: expected finite values in {what}, got none for {proteins[at]} in cell {row}")
    if cell_type is not None:
        cell_type = np.asarray(["" if one is None or one != one else str(one) for one in np.asarray(cell_type, object)])
        if len(cell_type) != len(y):
            raise DataError(f"evaluate: expected a cell type for each of {len(y)} cells, got {len(cell_type)}")
    y = np.where(seen, y, 0.0)
    return told, y, seen, cell_type


# ---- a summary that came from elsewhere -----------------------------------------------------------------------------

_LARGEST = 1e9


def check_summary(found: Any, proteins: Sequence[str] | None = None) -> dict[str, Any]:
    """A site's summary, if it is as `summarise_site` makes one, so that any two of them can be joined.

    Args:
      found: what came.
      proteins: of the study; None for any.

    Returns:
      The same without fields that are not known here: what a site adds goes no further.

    Raises:
      ValueError: it is not; says where.
    """
    _known(isinstance(found, dict), "a record")
    site: dict[str, Any] = {"name": found.get("name"), "cells": found.get("cells")}
    _known(isinstance(site["name"], str) and len(site["name"]) <= 120, "a name")
    cells, most = site["cells"], site["cells"] or 0
    _known(cells is None or (type(cells) is int and ENOUGH <= cells < 2**40), "a count of cells")
    parts = [_record(found.get(part), part) for part in ("measured", "models", "gain", "cell_types")]
    measured, models, gain, types = parts
    _known(cells is not None or not any(parts), "nothing beside a count that is withheld")
    _names(measured, "proteins")
    _known(proteins is None or set(measured) <= set(proteins), "proteins of the study")
    _known(all(type(n) is int and ENOUGH <= n <= most for n in measured.values()), "cells of each protein")
    _names(models, "models")
    background = found.get("background", [])
    _known(isinstance(background, list) and len(background) <= len(measured), "a list of antibodies")
    _known(all(isinstance(one, str) and one in measured for one in background), "antibodies that were measured")
    site |= _nothing() | {"measured": dict(measured), "background": list(background)}
    for model, one in models.items():
        of = _record(_record(one, "figures of a model").get("proteins"), "proteins of a model")
        _known(set(of) == set(measured), "figures of each measured protein")
        site["models"][model] = _figures(one) | {"proteins": {p: _figures(_record(f, p)) for p, f in of.items()}}
    pairs = {f"{first}-{other}" for first in models for other in models}
    _known(set(gain) <= pairs, "gains of models that are there")
    site["gain"] = {pair: _told(figure, -2.0, 2.0) for pair, figure in gain.items()}
    _names(types, "cell types")
    for kind, one in types.items():
        n = _record(one, "a cell type").get("cells")
        _known(type(n) is int and ENOUGH <= n <= most, "cells of each type")
        means = {part: _record(one.get(part), "means of a cell type") for part in ("measured", "predicted")}
        _known(set(means["measured"]) == set(means["predicted"]) and set(means["measured"]) <= set(measured), "means")
        _known(all(_number(x) for part in means.values() for x in part.values()), "finite means")
        site["cell_types"][kind] = {"cells": n} | {part: dict(values) for part, values in means.items()}
    _known(sum(kind["cells"] for kind in site["cell_types"].values()) <= most, "no more by type than in all")
    return site


def _figures(one: Mapping[str, Any]) -> dict[str, Any]:
    bounds = {"r": (-1.0, 1.0), "rmse": (0.0, _LARGEST), "coverage": (0.0, 1.0)}
    _known(bounds.keys() <= one.keys(), "r, rmse and coverage")
    return {name: _told(one[name], *ends) for name, ends in bounds.items()}


def _told(figure: Any, least: float, most: float) -> dict[str, float] | None:
    if figure is None:
        return None
    _known(isinstance(figure, dict) and {"value", "low", "high", "se"} <= set(figure), "a figure with its interval")
    _known(all(_number(figure[key]) for key in ("value", "low", "high", "se")), "finite numbers")
    _known(
        least <= figure["value"] <= most and figure["low"] <= figure["high"] and figure["se"] >= 0, "a possible figure"
    )
    return {key: float(figure[key]) for key in ("value", "low", "high", "se")}


def _record(value: Any, what: str) -> dict[str, Any]:
    _known(isinstance(value, dict) and all(isinstance(key, str) for key in value), f"{what} as a record")
    return value


def _names(record: Mapping[str, Any], what: str) -> None:
    _known(len(record) <= _MOST[what], f"not so many {what}")
    _known(all(0 < len(name) <= 120 and name.isprintable() for name in record), f"names of {what}")


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _LARGEST  # NaN is not below anything


def _known(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"expected {what} in a site's summary of proteins, got something else")
