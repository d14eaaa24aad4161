"""A study's "evaluation": each site and all of them, each cohort, each model, with intervals by patient.

`evaluate` has the rows of every site (a simulation). `summarise_site` is what one hospital computes at home in a
federation: only its figures leave, and `join.join_sites` puts many such summaries together.

A SITE, the record of one row of the report:

    {"name", "rows", "patients", "events",                       None: withheld, being under the site's floor
     "models": {model: {"auroc": FIGURE, "auprc": FIGURE, "brier": FIGURE,
                        "told": mean told chance, "intercept": float, "slope": float, + "_se" of both}},
     "gain": {"federated-local_only": {"auroc": FIGURE, ...}}}   paired differences, the first model less the other
    FIGURE = {"value", "low", "high", "se"} or None: with fewer than 10 events or 10 rows without, too few to judge
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from learner_jax.data.ways import Labels
from learner_jax.errors import DataError
from learner_jax.evaluation import histograms, subgroups
from learner_jax.evaluation.bootstrap import generator, interval, resample
from learner_jax.evaluation.calibration import calibrate
from learner_jax.evaluation.decisions import THRESHOLDS, decide
from learner_jax.evaluation.exact import FIGURES
from learner_jax.evaluation.join import average_sites
from learner_jax.types import Array

ENOUGH = 10
EDGES = np.unique(np.round(np.concatenate([THRESHOLDS, 1 / (1 + np.exp(-np.linspace(-7, 3, histograms.EDGES)))]), 9))
"""Of histograms that leave a site: the thresholds of decisions, and 200 even steps of log-odds, which all sites know.

Rounded: another machine's exponential may end in another bit."""
RANKING = ("auroc", "auprc")


def evaluate(
    scores: Mapping[str, Array],
    y: Array,
    group: Array | None,
    site: Array,
    cohorts: Mapping[str, Array] | None,
    seed: int,
    *,
    draws: int = 1000,
    ways: Mapping[str, Labels] | None = None,
) -> dict[str, Any]:
    """Judge models on held-back rows of every site.

    Args:
      scores: model -> float[n], the told *chance* of the event in [0, 1] (not a logit). For a model that differs from
        site to site, each row's own site's. The first, or "federated" if it is there, is compared with each other.
      y: [n] in {0, 1}.
      group: int[n], the patient of each row; None if each row is another patient.
      site: [n], the name of each row's site.
      cohorts: name -> bool[n]; None for {"everyone": all}.
      seed: of the bootstrap.
      draws: of the bootstrap.
      ways: name -> how the n rows are parted into subgroups, which the first model is judged in: of the largest cohort.

    Returns:
      {"cohorts": [{"name", "sites": [SITE, ...], "all": SITE of all rows together, "average": SITE averaged over the
      sites' own figures, "calibration": [...], "decisions": as `decisions.decisions`, "intercept", "slope"}, ...]}:
      JSON-able, without nan. "subgroups" (`subgroups.summarise`), of one cohort, is there where `ways` are.

    Raises:
      DataError: lengths differ, an outcome is not 0 or 1, or a score is no chance.
    """
    scores, y, group, cohorts = _checked(scores, y, group, cohorts)
    site = np.asarray(site)
    if len(site) != len(y):
        raise DataError(f"evaluate: expected a site for each of {len(y)} rows, got {len(site)}")
    names, member = np.unique(site.astype(str), return_inverse=True)
    everyone = np.unique(np.column_stack([member, group]), axis=0, return_inverse=True)[1].ravel()
    first = next(iter(scores))
    found = []
    for cohort, mask in cohorts.items():
        sites = []
        for at, name in enumerate(names):
            mine = mask & (member == at)
            sites.append(_summary(_take(scores, mine), y[mine], group[mine], seed, str(name), cohort, draws))
        whole = _summary(_take(scores, mask), y[mask], everyone[mask], seed, "all sites", cohort, draws)
        told = calibrate(scores[first][mask], y[mask])
        found.append(
            {
                "name": cohort,
                "sites": sites,
                "all": {**whole, "how": "all rows together"},
                "average": average_sites(sites),
                "calibration": told["calibration"],
                "decisions": decide(scores[first][mask], y[mask]),
                "intercept": told["intercept"],
                "slope": told["slope"],
            }
        )
    if ways:
        largest = _largest(cohorts)
        mask = cohorts[largest]
        of = _parted(ways, mask)
        parts = subgroups.summarise(
            scores[first][mask], y[mask], everyone[mask], of, seed, name="all sites", draws=draws
        )
        next(one for one in found if one["name"] == largest)["subgroups"] = parts
    return {"cohorts": found}


def _largest(cohorts: Mapping[str, np.ndarray]) -> str:
    return max(cohorts, key=lambda cohort: int(cohorts[cohort].sum()))


def _parted(ways: Mapping[str, Labels], mask: np.ndarray) -> dict[str, Labels]:
    return {name: Labels(way.levels, np.asarray(way.of)[mask]) for name, way in ways.items()}


def summarise_site(
    scores: Mapping[str, Array],
    y: Array,
    group: Array | None,
    cohorts: Mapping[str, Array] | None,
    seed: int,
    *,
    name: str = "",
    draws: int = 1000,
    floor: int = ENOUGH,
    release: bool = False,
    ways: Mapping[str, Labels] | None = None,
) -> dict[str, dict[str, Any]]:
    """Judge models on one site's own held-back rows; what it returns may leave the site.

    Args:
      scores: model -> float[n], the told *chance* of the event in [0, 1].
      y: [n] in {0, 1}.
      group: int[n], the patient of each row; None if each row is another patient.
      cohorts: name -> bool[n]; None for {"everyone": all}.
      seed: of the bootstrap.
      name: the site's.
      draws: of the bootstrap.
      floor: with fewer patients than this, rows and patients are withheld (None); with fewer patients who have the
        event, or who have a row without it, events and every figure are.
      release: the first model's counts by told chance leave too, under "histogram": of the largest cohort alone, and
        where nothing is withheld.
      ways: name -> how the n rows are parted into subgroups; the first model's figures in each leave under "subgroups",
        of the largest cohort alone, where nothing of it is withheld, and as `subgroups.summarise` suppresses them.

    Returns:
      cohort -> SITE, JSON-able, without nan. The figures equal those of `evaluate` for the same name and seed.

    Raises:
      DataError: as `evaluate`.
    """
    scores, y, group, cohorts = _checked(scores, y, group, cohorts)
    found = {}
    for cohort, mask in cohorts.items():
        mine = _summary(_take(scores, mask), y[mask], group[mask], seed, name, cohort, draws)
        found[cohort] = _withhold(mine, y[mask], group[mask], floor)
    # One histogram: two of cohorts that lie in each other would tell of the few who are in one of them.
    largest = _largest(cohorts)
    if ways and found[largest]["models"]:
        first, mask = next(iter(scores.values())), cohorts[largest]
        found[largest]["subgroups"] = subgroups.summarise(
            first[mask], y[mask], group[mask], _parted(ways, mask), seed, name=name, draws=draws, floor=floor
        )
    if release and found[largest]["models"]:
        first, mask = next(iter(scores.values())), cohorts[largest]
        found[largest]["histogram"] = histograms.to_plain(histograms.count(first[mask], y[mask], EDGES))
    return found


def _withhold(site: dict[str, Any], y: np.ndarray, group: np.ndarray, floor: int) -> dict[str, Any]:
    if min(len(np.unique(group[y == 1])), len(np.unique(group[y == 0]))) < floor:
        site |= {"events": None, "models": {}, "gain": {}}
    if site["patients"] < floor:
        site |= {"rows": None, "patients": None}
    return site


def _summary(
    scores: dict[str, np.ndarray], y: np.ndarray, group: np.ndarray, seed: int, name: str, cohort: str, draws: int
) -> dict[str, Any]:
    rows, events = len(y), int(y.sum())
    site: dict[str, Any] = {"name": name, "rows": rows, "patients": len(np.unique(group)), "events": events}
    site |= {"models": {}, "gain": {}}
    if rows == 0:
        return site
    judged = min(events, rows - events) >= ENOUGH
    figures = {name: figure for name, figure in FIGURES.items() if judged or name not in RANKING}
    drawn = resample(scores, y, group, generator(seed, name, cohort), draws)
    exact = {model: {key: figure(y, score) for key, figure in figures.items()} for model, score in scores.items()}
    for model, score in scores.items():
        told = calibrate(score, y)
        del told["calibration"]
        site["models"][model] = {key: interval(exact[model][key], drawn[model][key]) for key in figures} | told
    first, *others = scores
    for other in others:
        site["gain"][f"{first}-{other}"] = {
            key: interval(exact[first][key] - exact[other][key], drawn[first][key] - drawn[other][key])
            for key in figures
        }
    return site


def _take(scores: Mapping[str, np.ndarray], mask: np.ndarray) -> dict[str, np.ndarray]:
    return {model: score[mask] for model, score in scores.items()}


def _checked(
    scores: Mapping[str, Array], y: Array, group: Array | None, cohorts: Mapping[str, Array] | None
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """The arguments as arrays, the model that others are compared with first."""
    y = np.asarray(y, np.float64).ravel()
    if not np.isin(y, (0.0, 1.0)).all():
        raise DataError(f"evaluate: expected outcomes 0 or 1, got {y[~np.isin(y, (0.0, 1.0))][0]:g}")
    if not scores:
        raise DataError("evaluate: expected the scores of at least one model, got none")
    order = sorted(scores, key=lambda model: model != "federated")
    told = {model: np.asarray(scores[model], np.float64).ravel() for model in order}
    group = np.arange(len(y)) if group is None else np.unique(np.asarray(group), return_inverse=True)[1].ravel()
    masks = {"everyone": np.ones(len(y), bool)} if cohorts is None else cohorts
    masks = {name: np.asarray(mask, bool).ravel() for name, mask in masks.items()}
    for name, array in [*told.items(), ("group", group), *masks.items()]:
        if len(array) != len(y):
            raise DataError(f"evaluate: expected {len(y)} rows in {name!r}, as there are outcomes, got {len(array)}")
    for model, score in told.items():
        wrong = ~((score >= 0) & (score <= 1))
        if wrong.any():
            raise DataError(
                f"evaluate: expected the told chances of {model!r} in [0, 1] (a sigmoid makes them of logits), "
                f"got {float(score[wrong][0])!r} in row {int(np.flatnonzero(wrong)[0])}"
            )
    return told, y, group, masks


# ---- a summary that came from elsewhere -----------------------------------------------------------------------------

_LARGEST, _SMALLEST_SE = 1e12, 1e-9


_FIELDS = ("name", "rows", "patients", "events", "models", "gain")


def check_summary(found: Any, release: bool = False) -> dict[str, dict[str, Any]]:
    """A site's summary, if it is as `summarise_site` makes one, so that any two of them can be joined.

    Args:
      found: what came.
      release: the study lets histograms leave; else one that came goes no further.

    Returns:
      The same without fields that are not known here: what a site adds goes no further.

    Raises:
      ValueError: it is not; says where.
    """
    _known(isinstance(found, dict) and len(found) <= 64, "a few cohorts")
    for cohort, site in found.items():
        _known(isinstance(cohort, str) and isinstance(site, dict), "a summary for each cohort")
        _known(set(_FIELDS) <= set(site), "a summary's fields")
        counts = [site[name] for name in ("rows", "patients", "events")]
        _known(all(one is None or (type(one) is int and 0 <= one < 2**40) for one in counts), "counts")
        rows, _, events = counts
        _known(rows is None or events is None or events <= rows, "no more events than rows")
        _known(isinstance(site["models"], dict) and isinstance(site["gain"], dict), "models and gains")
        _known(len(site["models"]) <= 64 and len(site["gain"]) <= 64, "a few models")
        for name, model in site["models"].items():
            _known(isinstance(name, str) and isinstance(model, dict), "figures of each model")
            told = {key: value for key, value in model.items() if key not in FIGURES}
            _figures({key: value for key, value in model.items() if key in FIGURES})
            _known(_number(told.get("told")), "a mean chance")
            _known(all(value is None or _number(value) for value in told.values()), "numbers")
            for name in ("intercept", "slope"):
                se = told.get(f"{name}_se")
                _known(not se or (se >= _SMALLEST_SE and told.get(name) is not None), f"a standard error of the {name}")
            if model.get("auroc"):
                _known(rows is not None and events is not None and 0 < events < rows, "events and rows with an AUROC")
        for pair, gain in site["gain"].items():
            _known(isinstance(pair, str) and isinstance(gain, dict) and gain.keys() <= FIGURES.keys(), "gains")
            _figures(gain)
        if release and "histogram" in site:
            _counted(site)
        if "subgroups" in site:
            site["subgroups"] = subgroups.check(site["subgroups"])
    kept = (*_FIELDS, "subgroups", "histogram") if release else (*_FIELDS, "subgroups")
    return {cohort: {name: site[name] for name in kept if name in site} for cohort, site in found.items()}


def _counted(site: Mapping[str, Any]) -> None:
    """Whether a histogram is of the agreed edges, and of as many rows as are told."""
    try:
        counts = histograms.from_plain(site["histogram"])
    except (DataError, KeyError, TypeError, ValueError):
        raise ValueError("expected a histogram in a site's summary, got something else") from None
    _known(np.array_equal(counts.edges, EDGES), "the agreed edges of a histogram")
    _known(bool(site["models"]), "figures beside a histogram")
    _known(type(site["events"]) is int and type(site["rows"]) is int, "events and rows beside a histogram")
    _known(0 < site["events"] < site["rows"], "events and rows without in a histogram")
    whole = all(np.array_equal(part, np.floor(part)) for part in (counts.events, counts.others))
    _known(whole and bool(counts.events.sum() == site["events"]), "a histogram of as many events as are told")
    _known(bool(counts.events.sum() + counts.others.sum() == site["rows"]), "a histogram of as many rows as are told")


def _figures(figures: Mapping[str, Any]) -> None:
    for figure in filter(None, figures.values()):
        _known(isinstance(figure, dict) and {"value", "low", "high", "se"} <= set(figure), "a figure with its interval")
        _known(all(_number(value) for value in figure.values()) and figure["se"] >= 0, "finite numbers")


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _LARGEST  # NaN is not below anything


def _known(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"expected {what} in a site's summary, got something else")
