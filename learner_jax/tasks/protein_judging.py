"""How models of proteins are judged: correlation, error and coverage by protein (`learner_jax.evaluation.proteins`).

Figures are in the target's own units: log1p counts z-scored within the site, or centred log-ratios.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from learner_jax.data.told_arrays import array
from learner_jax.evaluation import proteins as judged
from learner_jax.evaluation.conformal import STEPS, outside, widened, widening
from learner_jax.types import Calibrating, Judging

DRAWS = 1000


def judging(panel: tuple[str, ...], types: tuple[str, ...]) -> Judging:
    """Of a panel and cell types, as the task names them."""

    def evaluate(
        told: Mapping[str, Sequence[Any]], rows: Any, abouts: Mapping[str, Any], fitted: Any, seed: int
    ) -> Any:
        y, seen = (np.concatenate([np.asarray(one["y"][part]) for one in rows]) for part in ("value", "seen"))
        whole = {
            model: _own_units({part: np.concatenate([one[part] for one in outputs]) for part in _PARTS}, fitted)
            for model, outputs in told.items()
        }
        site = np.concatenate([np.repeat(name, len(one["y"]["value"])) for name, one in zip(abouts, rows, strict=True)])
        kinds = np.concatenate([_kinds(one["y"], types) for one in rows]) if types else None
        y = _own_units({"mean": y}, fitted)["mean"]
        flagged = {name: about.get("background", ()) for name, about in abouts.items()}
        found = judged.evaluate(whole, y, seen > 0, site, kinds, panel, seed, draws=DRAWS, background=flagged)
        return {"cohorts": [], **found}

    def summarise(told: Mapping[str, Any], rows: Any, name: str, about: Any, fitted: Any, seed: int) -> dict[str, Any]:
        whole = {model: _own_units({part: output[part] for part in _PARTS}, fitted) for model, output in told.items()}
        y, kinds = _own_units({"mean": rows["y"]["value"]}, fitted)["mean"], _kinds(rows["y"], types) if types else None
        flagged = about.get("background", ())
        return judged.summarise_site(
            whole, y, rows["y"]["seen"] > 0, kinds, panel, seed, name=name, draws=DRAWS, background=flagged
        )

    def check(found: Any, peer: str) -> dict[str, Any]:
        site = judged.check_summary(found, panel)
        if site["name"] != peer or not set(site["cell_types"]) <= set(types):
            raise ValueError("expected figures of its own name, and of the study's cell types")
        return site

    def join(found: list[dict[str, Any]]) -> dict[str, Any]:
        return {"cohorts": [], **judged.join_sites(found, panel)} if found else {"cohorts": []}

    def told(output: Mapping[str, np.ndarray], fitted: Mapping[str, Any]) -> dict[str, np.ndarray]:
        output = move(output, array(fitted["moved"])) if "moved" in fitted else output
        own = _own_units({part: value for part, value in output.items() if part != "types"}, fitted)
        return {**own, "types": np.asarray(output["types"])} if "types" in output else own

    def zero() -> dict[str, np.ndarray]:
        return {"outside": np.zeros((len(panel), STEPS), np.int64)}

    def tally(output: Mapping[str, np.ndarray], rows: Any) -> dict[str, np.ndarray]:
        y = rows["y"]
        return {"outside": outside(y["value"], output["low"], output["high"], y["seen"] > 0)}

    def fit(sums: Mapping[str, Any]) -> np.ndarray:
        return widening(sums["outside"])

    def move(output: Mapping[str, np.ndarray], by: Any) -> dict[str, np.ndarray]:
        low, high = widened(output["low"], output["high"], by)
        return {**output, "low": low, "high": high}

    return Judging(evaluate, summarise, check, join, told, Calibrating(zero, tally, fit, move))


_PARTS = ("mean", "low", "high")


def _own_units(told: Mapping[str, np.ndarray], fitted: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """From what the network learns, whose proteins all have deviation 1, to the target's own units."""
    if "target_scale" not in fitted:
        return {part: np.asarray(value, np.float64) for part, value in told.items()}
    mean, scale = array(fitted["target_mean"]), array(fitted["target_scale"])
    return {part: np.asarray(value, np.float64) * scale + mean for part, value in told.items()}


def _kinds(y: Mapping[str, Any], types: tuple[str, ...]) -> np.ndarray:
    """Names of cell types, None where unknown."""
    return np.array([*types, None], object)[np.asarray(y["type"])]
