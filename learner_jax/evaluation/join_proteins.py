"""Many laboratories' figures of predicted proteins into one SITE, without a value of any cell.

    r, gain          plain mean over the sites that could be judged: each laboratory counts once
    RMSE             root of the mean square over all entries: equal to that of all cells together
    coverage, means  over all entries, likewise; means by cell type weighted by the cells of the type

The sites are independent, so that the standard error of a weighted mean is sqrt(sum w_s^2 SE_s^2) / sum w_s; the
interval is +- 1.96 of it. The record is told at the top of `proteins`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from learner_jax.evaluation.correlation import Z
from learner_jax.evaluation.join import AVERAGE


def join_sites(summaries: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None) -> dict[str, Any]:
    """Put the summaries of a federation's sites together.

    Args:
      summaries: of each site what `summarise_site` gave, through `check_summary` if it came from elsewhere.
      names: of the study's proteins, in order; None for those that appear, in the order in which they do.

    Returns:
      The evaluation, as at the top of this file, with "all": None.
    """
    sites = sorted((dict(one) for one in summaries), key=lambda one: one["name"])
    seen = list(names) if names is not None else list(dict.fromkeys(p for one in sites for p in one["measured"]))
    models = list(dict.fromkeys(model for one in sites for model in one["models"]))
    return {"proteins": {"names": seen, "models": models, "sites": sites, "all": None, "average": average_sites(sites)}}


def average_sites(sites: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One SITE from many, named "all sites": see the top of this file.

    Args:
      sites: SITE records.
    """
    open_ = [site for site in sites if site["cells"] is not None]
    joint: dict[str, Any] = {"name": "all sites", "how": AVERAGE, "sites": len(open_)}
    joint |= {"withheld": len(sites) - len(open_), "cells": sum(site["cells"] for site in open_)}
    names = list(dict.fromkeys(protein for site in open_ for protein in site["measured"]))
    joint["measured"] = {p: sum(site["measured"].get(p, 0) for site in open_) for p in names}
    joint["background"] = everywhere(open_)
    joint["models"] = {}
    for model in dict.fromkeys(model for site in open_ for model in site["models"]):
        mine = [(site, site["models"][model]) for site in open_ if model in site["models"]]
        entries = [float(sum(site["measured"].values())) for site, _ in mine]
        whole = {
            "r": _plain([one["r"] for _, one in mine]),
            "rmse": _root([one["rmse"] for _, one in mine], entries),
            "coverage": _weighted([one["coverage"] for _, one in mine], entries),
        }
        of = {}
        for protein in names:
            parts = [
                (s["measured"][protein], one["proteins"][protein]) for s, one in mine if protein in one["proteins"]
            ]
            weights = [float(n) for n, _ in parts]
            of[protein] = {
                "r": _plain([one["r"] for _, one in parts]),
                "rmse": _root([one["rmse"] for _, one in parts], weights),
                "coverage": _weighted([one["coverage"] for _, one in parts], weights),
            }
        joint["models"][model] = whole | {"proteins": of}
    pairs = dict.fromkeys(pair for site in open_ for pair in site["gain"])
    joint["gain"] = {pair: _plain([site["gain"].get(pair) for site in open_]) for pair in pairs}
    joint["cell_types"] = _types_together(open_)
    return joint


def everywhere(sites: Sequence[Mapping[str, Any]]) -> list[str]:
    """Proteins whose antibody shows its background alone at every site that measured them."""
    names = dict.fromkeys(protein for site in sites for protein in site["background"])
    return [p for p in names if all(p in site["background"] for site in sites if p in site["measured"])]


def _types_together(sites: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = {}
    for kind in sorted({kind for site in sites for kind in site["cell_types"]}):
        mine = [site["cell_types"][kind] for site in sites if kind in site["cell_types"]]
        found[kind] = {"cells": sum(one["cells"] for one in mine)}
        for part in ("measured", "predicted"):
            names = dict.fromkeys(protein for one in mine for protein in one[part])
            having = {protein: [one for one in mine if protein in one[part]] for protein in names}
            found[kind][part] = {
                protein: sum(one["cells"] * one[part][protein] for one in some) / sum(one["cells"] for one in some)
                for protein, some in having.items()
            }
    return found


def _figure(value: float, se: float, floor: float = -math.inf) -> dict[str, float]:
    return {"value": value, "low": max(floor, value - Z * se), "high": value + Z * se, "se": se}


def _plain(figures: Sequence[Mapping[str, float] | None]) -> dict[str, float] | None:
    known = [one for one in figures if one]
    if not known:
        return None
    value = sum(one["value"] for one in known) / len(known)
    return _figure(value, math.sqrt(sum(one["se"] ** 2 for one in known)) / len(known))


def _weighted(figures: Sequence[Mapping[str, float] | None], weights: Sequence[float]) -> dict[str, float] | None:
    known = [(one, w) for one, w in zip(figures, weights, strict=True) if one and w > 0]
    total = sum(w for _, w in known)
    if not known:
        return None
    value = sum(w * one["value"] for one, w in known) / total
    return _figure(value, math.sqrt(sum((w * one["se"]) ** 2 for one, w in known)) / total)


def _root(figures: Sequence[Mapping[str, float] | None], weights: Sequence[float]) -> dict[str, float] | None:
    """Root of the weighted mean of squares; its standard error by the delta method."""
    squares = [one and {"value": one["value"] ** 2, "se": 2 * one["value"] * one["se"]} for one in figures]
    mean = _weighted(squares, weights)
    if mean is None:
        return None
    value = math.sqrt(mean["value"])
    return _figure(value, mean["se"] / (2 * value) if value > 0 else 0.0, floor=0.0)
