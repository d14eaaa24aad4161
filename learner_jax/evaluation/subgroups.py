"""How a model does among the young and the old, women and men: one site's figures, and many sites' put together.

A subgroup's counts may leave a site only where nobody can be singled out by them, and the site's own totals leave
beside them. So of each way to part the rows, levels are withheld whose patients, with the event or without, are fewer
than the floor, and then more of them, the smallest first, until those that are withheld cannot be had by taking the
others from the total either (complementary suppression: Cox, "Suppression methodology and statistical disclosure
control", JASA 75:377, 1980).

    WAY    {"name": "sex", "levels": [LEVEL, ...]}
    LEVEL  {"name": "women", "rows", "events", "told": mean told chance, "auroc": FIGURE or None}; of one that is
           withheld {"name"} alone
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from learner_jax.data.ways import Labels
from learner_jax.evaluation.bootstrap import generator, interval, resample
from learner_jax.evaluation.exact import auroc

FEWEST = 10
SMALLEST = 1e-9
"""A standard error below this is none."""
MOST_LEVELS = 64
"""Of all ways together, so that a site's summary stays small."""


def summarise(
    score: np.ndarray,
    y: np.ndarray,
    group: np.ndarray,
    ways: Mapping[str, Labels],
    seed: int,
    *,
    name: str,
    draws: int = 1000,
    floor: int = FEWEST,
) -> list[dict[str, Any]]:
    """Of one site's rows.

    Args:
      score: float[n], told chances of one model.
      y: [n] in {0, 1}.
      group: int[n], the patient of each row.
      ways: name -> how the n rows are parted.
      seed, name, draws: of the bootstrap.
      floor: a level with fewer patients, patients with the event or patients without is withheld.

    Returns:
      WAYs, those with at least one level that is told; levels without a row are left out where none is withheld.
    """
    found = []
    for way, labels in ways.items():
        masks = [labels.of == at for at in range(len(labels.levels))]
        counts = np.array([_counts(y[mask], group[mask]) for mask in masks])
        kept = told(counts, floor)
        hidden = bool((~kept & (counts[:, 0] > 0)).any())
        levels: list[dict[str, Any]] = []
        for level, mask, tells in zip(labels.levels, masks, kept, strict=True):
            if not mask.any() and not hidden:
                continue  # that it is empty, the others and the total say
            levels.append({"name": level})
            if tells:
                levels[-1] |= _level(score[mask], y[mask], group[mask], generator(seed, name, way, level), draws)
        if any(kept):
            found.append({"name": way, "levels": levels})
    return found


def _counts(y: np.ndarray, group: np.ndarray) -> tuple[int, int, int, int]:
    """Rows, and different patients: all, with the event in a row, without it in one."""
    return len(y), len(np.unique(group)), len(np.unique(group[y == 1])), len(np.unique(group[y == 0]))


def _level(score: np.ndarray, y: np.ndarray, group: np.ndarray, draw: Any, draws: int) -> dict[str, Any]:
    events = int(y.sum())
    figure = None
    if min(events, len(y) - events) >= FEWEST:
        drawn = resample({"m": score}, y, group, draw, draws)["m"]["auroc"]
        figure = interval(auroc(y, score), drawn)
        if figure is not None and figure["se"] < SMALLEST:  # one patient, or no overlap: the draws differ by rounding
            figure["se"] = 0.0
    return {"rows": len(y), "events": events, "told": float(score.mean()) if len(y) else None, "auroc": figure}


def told(counts: np.ndarray, floor: int) -> np.ndarray:
    """Which levels may be told, bool[k].

    Args:
      counts: int[k, c], rows first, then whatever must not be few; they add over levels (a patient who is in two
        levels counts in each).
      floor: the fewest.
    """
    kept = np.asarray((counts >= floor).all(axis=1))
    smallest = sorted(range(len(counts)), key=lambda at: (counts[at].min(), at))
    for at in smallest:
        # What is withheld can be had from the total: so it must be nothing, or large in each count and of two levels.
        hidden = ~kept & (counts[:, 0] > 0)
        if not hidden.any() or (hidden.sum() > 1 and (counts[hidden].sum(axis=0) >= floor).all()):
            break
        kept[at] = False
    return kept


# ---- many sites ------------------------------------------------------------------------------------------------------


def join(sites: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Many sites' WAYs into one list.

    Returns:
      WAYs whose LEVELs have also "sites", how many told it, and "withheld", how many did not though they part their
      rows this way. "auroc" is the average over sites, weighted by 1 / SE^2; levels that no site told are left out.
    """
    found = []
    for way in dict.fromkeys(one["name"] for site in sites for one in site):
        mine = [one for site in sites for one in site if one["name"] == way]
        levels = []
        for level in dict.fromkeys(one["name"] for part in mine for one in part["levels"]):
            of = [one for part in mine for one in part["levels"] if one["name"] == level]
            open_ = [one for one in of if "rows" in one]
            if open_:
                levels.append({"name": level, **_sum(open_), "sites": len(open_), "withheld": len(of) - len(open_)})
        if levels:
            found.append({"name": way, "levels": levels})
    return found


def _sum(levels: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = sum(one["rows"] for one in levels)
    known = [one["auroc"] for one in levels if one["auroc"] and one["auroc"]["se"] > 0]
    figure = None
    if known:
        weights = [one["se"] ** -2 for one in known]
        value = sum(w * one["value"] for w, one in zip(weights, known, strict=True)) / sum(weights)
        se = sum(weights) ** -0.5
        figure = {"value": value, "low": value - 1.959964 * se, "high": value + 1.959964 * se, "se": se}
    return {
        "rows": rows,
        "events": sum(one["events"] for one in levels),
        "told": sum(one["told"] * one["rows"] for one in levels if one["rows"]) / rows if rows else None,
        "auroc": figure,
    }


# ---- what came from elsewhere ----------------------------------------------------------------------------------------


def check(found: Any) -> list[dict[str, Any]]:
    """WAYs that a site sent, without fields that are not known here.

    Raises:
      ValueError: they are not such.
    """
    _known(isinstance(found, list) and len(found) <= MOST_LEVELS)
    ways = []
    for way in found:
        _known(isinstance(way, dict) and _text(way.get("name")) and isinstance(way.get("levels"), list))
        _known(len(way["levels"]) <= 33)
        levels = []
        for level in way["levels"]:
            _known(isinstance(level, dict) and _text(level.get("name")))
            kept: dict[str, Any] = {"name": level["name"]}
            if "rows" in level:
                rows, events = level["rows"], level.get("events")
                _known(type(rows) is int and type(events) is int and 0 < rows < 2**40 and 0 <= events <= rows)
                _known(type(level.get("told")) in (int, float) and 0 <= level["told"] <= 1)
                kept |= {"rows": rows, "events": events, "told": level["told"], "auroc": _figure(level.get("auroc"))}
            levels.append(kept)
        ways.append({"name": way["name"], "levels": levels})
    return ways


def _figure(figure: Any) -> dict[str, float] | None:
    if figure is None:
        return None
    names = ("value", "low", "high", "se")
    _known(isinstance(figure, dict) and all(type(figure.get(name)) in (int, float) for name in names))
    _known(all(0 <= figure[name] <= 1 for name in names) and (figure["se"] == 0 or figure["se"] >= SMALLEST))
    return {name: figure[name] for name in names}


def _text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 120 and value.isprintable()


def _known(holds: bool) -> None:
    if not holds:
        raise ValueError("expected subgroups in a site's summary, got something else")
