"""The page's "Results by site": a sentence, a table with its plot, and every figure one click below."""

from __future__ import annotations

from typing import Any

from learner_jax.reports import words
from learner_jax.reports.charts import Scale, scale
from learner_jax.reports.numerals import MINUS, count, hundred, many, signed
from learner_jax.reports.plain import by_size
from learner_jax.reports.result import figure, gain, joint, within
from learner_jax.reports.table import FIRST, LONG
from learner_jax.reports.words import Nouns

PILLS = {"gained": "ok", "better than chance": "ok", "better alone": "stop", "worse than chance": "stop"}
NAMES = {"federated": "Together", "local_only": "Alone", "pooled": "In one place", "all_but_me": "Of the others"}
RANKING = ("auroc", "auprc")
ABOUT = {
    "auroc": ("AUROC", "Pairs ranked correctly; 0.5 is a coin toss. More is better."),
    "auprc": ("AUPRC", "Average precision; the share with the outcome is what chance gives. More is better."),
    "brier": ("Brier score", "Mean squared error of the told chance. Less is better; a negative difference is a gain."),
}


def results_by_site(cohort: dict[str, Any], at: int, of: int, noun: Nouns) -> dict[str, Any]:
    """One cohort: sentence, table with its plot, and every figure one click below.

    Args:
      cohort: of the result's evaluation.
      at: its place, from 0.
      of: how many cohorts there are.
      noun: what is counted.
    """
    sites = by_size(cohort.get("sites", []))
    whole, mean, over = cohort.get("all") or {}, within(cohort), words.averaged(cohort)
    ends = [(mean, _first_large(words.average_name(cohort, noun)))] if mean is not whole and over.judged else []
    ends += [(whole, _first_large(words.whole_name(whole, cohort, noun)))] if whole else []
    known = [site for site in [*sites, *(end for end, _ in ends)] if figure(site, joint(site), "auroc")]
    block: dict[str, Any] = {
        "heading": f"Results by {noun.site}" + (f": {cohort['name']}" if of > 1 else ""),
        "aside": f"Measured at each {noun.site} on its own held-back {noun.rows}. "
        "Of 100 pairs, how many are ranked correctly.",
        "say": words.by_site(cohort, noun),
        "luck": words.by_luck(cohort, noun),
        "site_name": noun.site.capitalize(),
        "site_word": noun.site,
        "rows_name": noun.rows.capitalize(),
        "caption": f"Pairs ranked correctly of 100, by {noun.site}, {cohort['name']}",
        "rows": [],
        "rest": None,
        "rest_name": "",
        "remarks": _remarks(cohort, noun),
        "figures": [],
        "has_alone": any("local_only" in site.get("models", {}) for site in known),
        "has_pooled": any("pooled" in site.get("models", {}) for site in known),
    }
    if not known:
        return block
    alone = words.compared(cohort)
    shown = sites if len(sites) <= LONG else sites[:FIRST]
    along = _pairs([*shown, *(end for end, _ in ends)])
    last = [
        {**_row(site, name, along, alone), "all": True, **_mixed(site, cohort), **_over(site, over)}
        for site, name in ends
    ]
    block |= {"coin": along.at(50.0), "ticks": _ticks(along)}
    block["rows"] = [_row(site, site["name"], along, alone) for site in shown] + last
    if len(shown) < len(sites):
        others = sites[len(shown) :]
        along = _pairs(others)
        block["rest"] = {**block, "coin": along.at(50.0), "ticks": _ticks(along)}
        block["rest"]["rows"] = [_row(site, site["name"], along, alone) for site in others]
        block["rest_name"] = f"{len(others):,} more {noun.sites}, by size"
    block["figures"] = [found for key in ABOUT if (found := _figures(key, sites, ends, cohort, noun))]
    return block


def _first_large(text: str) -> str:
    return text[:1].upper() + text[1:]


def _over(site: dict[str, Any], over: words.Averaged) -> dict[str, Any]:
    """An average is of the rows of those sites alone that it is taken over."""
    return {"rows": count(over.rows)} if words.is_average(site) else {}


def _mixed(site: dict[str, Any], cohort: dict[str, Any]) -> dict[str, Any]:
    """All rows together have no model "alone": each row would be ranked by its own site's, against others'."""
    if site is within(cohort):
        return {}
    word = words.chance(figure(site, joint(site), "auroc"))
    return {
        "alone": None,
        "alone_text": "–",
        "gain": "–",
        "gain_span": "",
        "word": word.capitalize(),
        "pill": PILLS.get(word, ""),
    }


def _pairs(sites: list[dict[str, Any]]) -> Scale:
    values = [50.0]
    for site in sites:
        own = figure(site, joint(site), "auroc")
        values += [100 * own["low"], 100 * own["high"]] if own else []
        values += [
            100 * other["value"] for model in ("local_only", "pooled") if (other := figure(site, model, "auroc"))
        ]
    return scale(values, 6, floor=0.0, ceiling=100.0)


def _ticks(along: Scale) -> list[dict[str, Any]]:
    """The two ends and the coin, where they do not run into each other."""
    marks = [along.low, *([50.0] if 20 < along.at(50.0) < 80 else []), along.high]
    anchors = {along.low: "start", along.high: "end"}
    return [{"at": along.at(mark), "text": f"{mark:.0f}", "anchor": anchors.get(mark, "middle")} for mark in marks]


def _row(site: dict[str, Any], name: str, along: Scale, against_alone: bool) -> dict[str, Any]:
    own, alone, one = (figure(site, model, "auroc") for model in (joint(site), "local_only", "pooled"))
    apart = gain(site, "local_only")
    word = words.verdict(site, against_alone)
    return {
        "name": name,
        "all": False,
        "bar": (along.at(100 * own["low"]), along.at(100 * own["high"])) if own else None,
        "dot": along.at(100 * own["value"]) if own else None,
        "alone": along.at(100 * alone["value"]) if alone else None,
        "one": along.at(100 * one["value"]) if one else None,
        "value": hundred(own["value"]) if own else "–",
        "span": f"{hundred(own['low'])} to {hundred(own['high'])}" if own else "",
        "alone_text": hundred(alone["value"]) if alone else "–",
        "one_text": hundred(one["value"]) if one else "–",
        "gain": signed(apart["value"]) if apart else "–",
        "gain_span": f"{signed(apart['low'], plus='')} to {signed(apart['high'], plus='')}" if apart else "",
        "word": word.capitalize(),
        "pill": PILLS.get(word, ""),
        "rows": count(site.get("rows")),
    }


def _remarks(cohort: dict[str, Any], noun: Nouns) -> list[str]:
    found = []
    sites = cohort.get("sites", [])
    lower = [s["name"] for s in sites if words.judge(gain(s, "local_only")) == "better alone"]
    if lower:
        named = ", ".join(lower[:5]) + (f" and {len(lower) - 5} more" if len(lower) > 5 else "")
        found.append(f"Better served by a model of their own: {named}.")
    together = cohort.get("together")
    if together:
        area = together["auroc"]
        found.append(
            f"All {noun.rows} of {many(together['sites'], noun.site, noun.sites)} together, from histograms that they "
            f"let leave: {hundred(area['value'], 1)} pairs of 100, to within {hundred(area['bound'], 2)}, however the "
            "patients of a bin are ranked."
        )
    withheld = sum(site.get("events") is None for site in sites)
    if withheld:
        found.append(
            f"{many(withheld, noun.site, noun.sites).capitalize()} kept small counts, and so all figures, at home; "
            "sums and averages are of the others."
        )
    return found


def _figures(
    key: str, sites: list[dict[str, Any]], ends: list[tuple[dict[str, Any], str]], cohort: dict[str, Any], noun: Nouns
) -> dict[str, Any] | None:
    """A table of one figure: every model and every paired difference, with intervals."""
    everyone = [*((site, site["name"], False) for site in sites), *((site, name, True) for site, name in ends)]
    if key not in RANKING:  # its average is of every site's rows
        everyone = [(s, f"Average {noun.site}" if words.is_average(s) else name, last) for s, name, last in everyone]
    models = list(dict.fromkeys(m for site, _, _ in everyone for m in site.get("models", {}) if figure(site, m, key)))
    if not models:
        return None
    pairs = list(dict.fromkeys(p for site, _, _ in everyone for p in site.get("gain", {})))
    title, about = ABOUT[key]

    def cell(found: dict[str, float] | None, sign: str = "") -> str | tuple[str, str]:
        if not found:
            return "–"
        value, low, high = (f"{found[k]:{sign}.3f}".replace("-", MINUS) for k in ("value", "low", "high"))
        return value, f"{low} to {high}"

    rows = []
    for site, name, last in everyone:
        if not last and not figure(site, joint(site), "auroc"):
            rows.append({"cells": [name, *["–"] * (len(models) + len(pairs))], "all": False})  # see Limits: not judged
            continue
        mixed = last and site is not within(cohort)  # see _mixed
        cells = [
            name,
            *("–" if mixed and m == "local_only" and key != "brier" else cell(figure(site, m, key)) for m in models),
        ]
        for pair in pairs:
            hidden = mixed and pair.endswith("-local_only") and key != "brier"
            cells.append("–" if hidden else cell((site.get("gain") or {}).get(pair, {}).get(key), "+"))
        rows.append({"cells": cells, "all": last})
    named = [NAMES.get(model, model) for model in models]
    less = [
        " less ".join(str(NAMES.get(part, part)).lower() for part in pair.split("-", 1)).capitalize() for pair in pairs
    ]
    head = [noun.site.capitalize(), *named, *less]
    return {
        "title": title,
        "about": about,
        "caption": f"{title} by {noun.site}, {cohort['name']}",
        "head": head,
        "rows": rows,
    }
