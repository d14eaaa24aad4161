"""The two sections of the page with most figures in them: results by site, and what each round took."""

from __future__ import annotations

from typing import Any

from learner_jax.reports import words
from learner_jax.reports.charts import Scale, line, rounds, scale
from learner_jax.reports.result import figure, gain, joint, within
from learner_jax.reports.table import FIRST, LONG, by_size
from learner_jax.reports.words import Nouns, hundred, signed

PILLS = {"gained": "ok", "better than chance": "ok", "better alone": "stop", "worse than chance": "stop"}
NAMES = {"federated": "Together", "local_only": "Alone", "pooled": "In one place"}
ABOUT = {
    "auroc": ("AUROC", "Pairs ranked correctly; 0.5 is a coin toss. More is better."),
    "auprc": ("AUPRC", "Average precision; the share with the outcome is what chance gives. More is better."),
    "brier": ("Brier score", "Mean squared error of the told chance. Less is better; a negative difference is a gain."),
}


# ---------------------------------------------------------------------------------------------- by site


def results_by_site(cohort: dict[str, Any], at: int, of: int, noun: Nouns) -> dict[str, Any]:
    """One cohort: sentence, table with its plot, and every figure one click below.

    Args:
      cohort: of the result's evaluation.
      at: its place, from 0.
      of: how many cohorts there are.
      noun: what is counted.
    """
    sites = by_size(cohort.get("sites", []))
    whole, mean = cohort.get("all") or {}, within(cohort)
    ends = [(mean, f"Average {noun.site}")] if mean is not whole else []
    ends += [(whole, words.whole_name(whole, noun).capitalize())] if whole else []
    known = [site for site in [*sites, *(end for end, _ in ends)] if figure(site, joint(site), "auroc")]
    block: dict[str, Any] = {
        "heading": f"Results by {noun.site}" + (f": {cohort['name']}" if of > 1 else ""),
        "aside": f"Measured at each {noun.site} on its own held-back {noun.rows}. Of 100 pairs, how many are ranked correctly.",
        "say": words.by_site(cohort, noun),
        "luck": words.by_luck(cohort, noun),
        "site_name": noun.site.capitalize(),
        "site_word": noun.site,
        "rows_name": noun.rows.capitalize(),
        "caption": f"Pairs ranked correctly of 100, by {noun.site}, {cohort['name']}",
        "rows": [],
        "rest": [],
        "rest_name": "",
        "remarks": _remarks(cohort, noun),
        "figures": [],
        "has_alone": any("local_only" in site.get("models", {}) for site in known),
        "has_pooled": any("pooled" in site.get("models", {}) for site in known),
    }
    if not known:
        return block
    along = _pairs(known)
    block |= {"coin": along.at(50.0), "ticks": _ticks(along)}
    alone = words.compared(cohort)
    rows = [_row(site, site["name"], along, alone) for site in sites]
    shown = len(rows) if len(rows) <= LONG else FIRST
    block["rows"] = rows[:shown] + [
        {**_row(site, name, along, alone), "all": True, **_mixed(site, cohort)} for site, name in ends
    ]
    block["rest"] = rows[shown:]
    block["rest_name"] = f"{len(rows) - shown} more {noun.sites}, by size"
    block["figures"] = [found for key in ABOUT if (found := _figures(key, sites, ends, cohort, noun))]
    return block


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
        "rows": words.count(site.get("rows")),
    }


def _remarks(cohort: dict[str, Any], noun: Nouns) -> list[str]:
    found = []
    sites = cohort.get("sites", [])
    lower = [s["name"] for s in sites if words.judge(gain(s, "local_only")) == "better alone"]
    if lower:
        named = ", ".join(lower[:5]) + (f" and {len(lower) - 5} more" if len(lower) > 5 else "")
        found.append(f"Better served by a model of their own: {named}.")
    withheld = sum(site.get("events") is None for site in sites)
    if withheld:
        found.append(
            f"{words.many(withheld, noun.site, noun.sites).capitalize()} kept small counts, and so all figures, at home; "
            "sums and averages are of the others."
        )
    return found


def _figures(
    key: str, sites: list[dict[str, Any]], ends: list[tuple[dict[str, Any], str]], cohort: dict[str, Any], noun: Nouns
) -> dict[str, Any] | None:
    """A table of one figure: every model and every paired difference, with intervals."""
    everyone = [*((site, site["name"], False) for site in sites), *((site, name, True) for site, name in ends)]
    models = list(dict.fromkeys(m for site, _, _ in everyone for m in site.get("models", {}) if figure(site, m, key)))
    if not models:
        return None
    pairs = list(dict.fromkeys(p for site, _, _ in everyone for p in site.get("gain", {})))
    title, about = ABOUT[key]

    def cell(found: dict[str, float] | None, sign: str = "") -> str:
        if not found:
            return "–"
        text = f"{found['value']:{sign}.3f} ({found['low']:{sign}.3f} to {found['high']:{sign}.3f})"
        return text.replace("-", words.MINUS)

    rows = []
    for site, name, last in everyone:
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
    less = [" less ".join(NAMES.get(part, part).lower() for part in pair.split("-", 1)).capitalize() for pair in pairs]
    head = [noun.site.capitalize(), *named, *less]
    return {
        "title": title,
        "about": about,
        "caption": f"{title} by {noun.site}, {cohort['name']}",
        "head": head,
        "rows": rows,
        "reflow": False,
    }


# ---------------------------------------------------------------------------------------------- by round


def per_round(result: dict[str, Any], noun: Nouns) -> dict[str, Any]:
    """Seconds and bytes of each round: a sentence, two small charts, a table."""
    curve = result.get("curve") or []
    found: dict[str, Any] = {"say": words.cost(result), "lost": words.lost(result)}
    found |= {"seconds": None, "bytes": None, "table": None}
    timed = [row for row in curve if row.get("seconds") is not None]
    if not timed:
        return found
    xs = [row["round"] for row in timed]
    seconds = [float(row["seconds"]) for row in timed]
    unit, factor = ("milliseconds", 1e3) if max(seconds) < 1 else ("seconds", 1.0)
    found["seconds"] = _small(xs, [factor * s for s in seconds], None, f"{unit.capitalize()} a round", unit)
    sent = [float(row.get("bytes_up") or 0) for row in timed]
    back = [float(row.get("bytes_down") or 0) for row in timed]
    if max(sent + back) > 0:
        unit, factor = ("MB", 1e-6) if max(sent + back) >= 1e6 else ("kB", 1e-3)
        name = f"{unit} a round. Line: from the {noun.sites}. Dashes: to them"
        found["bytes"] = _small(xs, [factor * b for b in sent], [factor * b for b in back], name, unit)
    found["table"] = {
        "caption": "Seconds and bytes by learning round",
        "head": [
            "Learning round",
            "Seconds",
            f"From the {noun.sites}",
            "To them",
            noun.sites.capitalize(),
            "Waited for in vain",
        ],
        "rows": [
            {
                "cells": [
                    row["round"],
                    f"{float(row['seconds']):.3g}",
                    words.size(row.get("bytes_up") or 0),
                    words.size(row.get("bytes_down") or 0),
                    len(row["sites"]) if row.get("sites") is not None else "–",
                    ", ".join(map(str, row.get("lost") or [])) or "–",
                ],
                "all": False,
            }
            for row in timed
        ],
        "reflow": False,
    }
    return found


def _small(xs: list[int], ys: list[float], second: list[float] | None, name: str, unit: str) -> dict[str, Any]:
    up = scale([0.0, *ys, *(second or [])], 3, floor=0.0)
    along = rounds(xs)
    middle = sorted(ys)[len(ys) // 2]
    return {
        "name": name + ".",
        "label": f"{name}: first {ys[0]:.3g}, middle {middle:.3g}, last {ys[-1]:.3g} {unit}. The table below has the numbers.",
        "x_ticks": [{"at": along.at(t), "text": along.label(t)} for t in along.ticks],
        "y_ticks": [{"at": round(100 - up.at(t), 2), "text": up.label(t)} for t in up.ticks],
        "x_name": "learning round",
        "refs": [],
        "band": "",
        "line": line(xs, ys, along, up),
        "second": line(xs, second, along, up) if second else "",
        "dots": []
        if len(xs) > 1
        else [
            {
                "x": 50.0,
                "y": round(100 - up.at(ys[0]), 2),
                "dx": 0,
                "dy": -12,
                "anchor": "middle",
                "text": f"{ys[0]:.3g}",
            }
        ],
    }
