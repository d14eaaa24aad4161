"""Many sites' figures into one row, without a row of anybody's data.

    AUROC   sum(w_s A_s) / sum(w_s), w_s = 1 / SE_s^2 of the first model, the same weights for every model, so that the
            average gain is the difference of the average figures
    AUPRC   weighted by events
    Brier   weighted by rows: equal to that of all rows together

The standard error is sqrt(sum(w_s^2 SE_s^2)) / sum(w_s), the sites being independent; the interval is +- 1.96 of it.
An average over sites is *not* the AUROC of all rows together: it never compares a patient of one hospital with one of
another. It is labelled "how": "average over sites".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from learner_jax.evaluation import histograms, subgroups
from learner_jax.evaluation.calibration import wilson
from learner_jax.evaluation.decisions import decisions

AVERAGE = "average over sites"


def join_sites(summaries: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Put the summaries of a federation's sites together.

    Args:
      summaries: of each site what `summary.summarise_site` gave: cohort -> SITE.

    Returns:
      {"cohorts": [{"name", "sites": [SITE, ...] by name, "all": SITE with "how": "average over sites",
      "calibration": [], "intercept", "slope"}, ...]}, cohorts in the order in which they first appear. Told and
      observed deciles are missing: they are histograms of scores, which stay at the sites; "subgroups" are there where
      sites sent any (`subgroups.join`). Where sites sent theirs,
      they are there, beside "decisions" and "together": {"sites", "rows", "auroc": {"value", "bound"}, "auprc"}.
    """
    found = []
    for cohort in dict.fromkeys(name for summary in summaries for name in summary):
        sites = sorted((dict(s[cohort]) for s in summaries if cohort in s), key=lambda site: site["name"])
        joint = average_sites(sites)
        first = next(iter(joint["models"].values()), {})
        expected = [_expected(site) for site in sites if "histogram" in site]
        parted = [site.pop("subgroups") for site in sites if "subgroups" in site]
        sent = [histograms.from_plain(site.pop("histogram")) for site in sites if "histogram" in site]
        found.append(
            {
                "name": cohort,
                "sites": sites,
                "all": joint,
                "calibration": [],
                "intercept": first.get("intercept"),
                "slope": first.get("slope"),
                **({"subgroups": subgroups.join(parted)} if parted else {}),
                **(_together(sent, expected) if sent else {}),
            }
        )
    return {"cohorts": found}


def _expected(site: Mapping[str, Any]) -> float:
    """Events that the first model expects at a site: its mean told chance times its rows."""
    return float(next(iter(site["models"].values()))["told"] * site["rows"])


def _together(sent: Sequence[histograms.Counts], expected: Sequence[float]) -> dict[str, Any]:
    """What the sum of sites' histograms tells of all their rows together."""
    total = histograms.add(sent)
    area, precision = histograms.auroc(total), histograms.auprc(total)
    table = []
    for one in histograms.curve(total):
        low, high = wilson(one["observed"] * one["rows"], int(one["rows"]))
        table.append({**one, "low": low, "high": high, "rows": int(one["rows"])})
    return {
        "together": {
            "sites": len(sent),
            "rows": int(total.events.sum() + total.others.sum()),
            "auroc": area._asdict(),
            "auprc": precision._asdict(),
        },
        "calibration": table,
        "decisions": {**decisions(total), "expected": sum(expected)},
    }


def average_sites(sites: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One SITE from many: counts added, figures averaged.

    Args:
      sites: SITE records of one cohort.

    Returns:
      A SITE named "all sites" with "how": "average over sites", "judged": how many sites the AUROC is averaged over,
      and "withheld": how many sites kept a count to themselves, which is then missing in the sums.
    """
    joint: dict[str, Any] = {"name": "all sites", "how": AVERAGE}
    for count in ("rows", "patients", "events"):
        joint[count] = sum(int(site[count]) for site in sites if site[count] is not None)
    joint["withheld"] = sum(any(site[count] is None for count in ("rows", "patients", "events")) for site in sites)
    models = list(dict.fromkeys(model for site in sites for model in site["models"]))
    pairs = list(dict.fromkeys(pair for site in sites for pair in site["gain"]))
    first = models[0] if models else ""

    def certainty(site: Mapping[str, Any]) -> float:
        figure = site["models"].get(first, {}).get("auroc")
        if not figure:
            return 0.0
        fewer = min(site["events"], site["rows"] - site["events"])
        return max(figure["se"], 0.5 / fewer) ** -2  # a site that ranks perfectly by luck is not infinitely sure

    weights: dict[str, Callable[[Mapping[str, Any]], float]] = {
        "auroc": certainty,
        "auprc": lambda site: float(site["events"] or 0),
        "brier": lambda site: float(site["rows"] or 0),
    }
    joint["judged"] = sum(certainty(site) > 0 for site in sites)
    joint["models"] = {model: _row(sites, "models", model, weights) | _told(sites, model) for model in models}
    joint["gain"] = {pair: _row(sites, "gain", pair, weights) for pair in pairs}
    return joint


def _row(sites: Sequence[Mapping[str, Any]], part: str, key: str, weights: Mapping[str, Any]) -> dict[str, Any]:
    row = {}
    for figure, weight in weights.items():
        found = [(site[part].get(key, {}).get(figure), weight(site)) for site in sites]
        known = [(value["value"], value["se"], w) for value, w in found if value and w > 0]
        if known:
            row[figure] = _average(known)
    return row


def _average(known: Sequence[tuple[float, float, float]]) -> dict[str, float]:
    """Of (value, standard error, weight)."""
    total = sum(w for _, _, w in known)
    value = sum(v * w for v, _, w in known) / total
    se = sum((w * e) ** 2 for _, e, w in known) ** 0.5 / total
    return {"value": value, "low": value - 1.959964 * se, "high": value + 1.959964 * se, "se": se}


def _told(sites: Sequence[Mapping[str, Any]], model: str) -> dict[str, Any]:
    """Mean told chance by rows; intercept and slope by 1 / SE^2."""
    mine = [(site["models"][model], site["rows"]) for site in sites if model in site["models"] and site["rows"]]
    rows = sum(n for _, n in mine)
    found: dict[str, Any] = {"told": sum(row["told"] * n for row, n in mine) / rows if rows else None}
    for name in ("intercept", "slope"):
        known = [(r[name], r[f"{name}_se"], r[f"{name}_se"] ** -2) for r, _ in mine if r.get(f"{name}_se")]
        found[name] = _average(known)["value"] if known else None
        found[f"{name}_se"] = _average(known)["se"] if known else None
    return found
