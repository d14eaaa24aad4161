"""The page's "Is it worth acting on?": the highest few, what was expected against what came, and the decision curve."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import Any

from learner_jax.reports.charts import axes, line, scale
from learner_jax.reports.numerals import count, hundred, signed
from learner_jax.reports.result import ENOUGH, cohorts, telling
from learner_jax.reports.words import Nouns, Say

SHARE = 0.1


def acted_on(result: dict[str, Any], noun: Nouns) -> dict[str, Any] | None:
    """The section, or None where nothing of it is known."""
    judged = cohorts(result)
    cohort = telling(result, "decisions")
    found = (cohort or {}).get("decisions")
    if cohort is None or not found or not found.get("thresholds"):
        return None
    few, table = found.get("highest") or [], found["thresholds"]
    over = f"{found['events'] / found['expected']:.2f}" if found.get("expected") else "not known"
    events, rows = found["events"], found["rows"]
    enough = min(events, rows - events) >= ENOUGH
    able = [one for one in few if enough and one["share"] * rows >= ENOUGH]
    nearest = min(able, key=lambda one: abs(one["asked"] - SHARE)) if able else None
    rate = found["events"] / found["rows"]
    block: dict[str, Any] = {
        "whom": _whom(cohort, len(judged), noun),
        "say": _say(nearest, noun)
        if nearest or not few
        else Say("How many are found by acting on the highest few ", "cannot be told", f": too few {noun.rows}."),
        "expected": f"In all, the model expected {count(found['expected'])} {noun.rows} in which the patient "
        f"{noun.came}; there were {count(found['events'])} (observed over expected "
        f"{over})."
        if noun.row == "patient"
        else f"In all, the model expected {count(found['expected'])} {noun.having}; there were "
        f"{count(found['events'])} (observed over expected {over}).",
        "useful": _useful(table)
        if enough
        else f"Whether acting by it is worth it cannot be told: {count(events)} {noun.having} of {count(rows)}.",
        "table": None,
        "curve": None,
        "plot": None,
    }
    if few:
        block["table"] = {
            "caption": "The highest told chances",
            "head": [
                f"Highest of 100 {noun.rows}",
                "From a told chance of",
                f"Found, of 100 {noun.having}",
                "Of 100 acted on",
            ],
            "rows": [
                {
                    "cells": [
                        hundred(one["share"], 1),
                        f"{hundred(one['threshold'], 1)} %",
                        hundred(one["sensitivity"]),
                        f"{hundred(one['precision'])} {noun.came}",
                    ],
                    "all": False,
                }
                for one in few
            ],
        }
    block["curve"] = {
        "caption": "Net benefit",
        "head": ["Acting from", "Acted on, of 100", "Found, of 100", "Net benefit of 100", "Of acting on all"],
        "rows": [
            {
                "cells": [
                    f"{hundred(one['threshold'])} %",
                    hundred(one["called"]),
                    hundred(one["sensitivity"]),
                    signed(one["net_benefit"], plus=""),
                    signed(one["treat_all"], plus=""),
                ],
                "all": False,
            }
            for one in table
        ],
    }
    xs = [100 * one["threshold"] for one in table]
    ours, all_ = ([100 * one[key] for one in table] for key in ("net_benefit", "treat_all"))
    along = scale(xs, 5, floor=0.0)
    up = scale([0.0, 100 * rate, *ours], 5, floor=-1.0 if min(ours) < 0 else 0.0)
    kept = [k for k, value in enumerate(all_) if value >= up.low]
    label = ", ".join(
        f"{ours[k]:.1f} at {xs[k]:.0f} %, acting on all {all_[k]:.1f}" for k in range(0, len(xs), max(1, len(xs) // 4))
    )
    block["plot"] = {
        **axes(along, up, "acting from a told chance of, %"),
        "label": f"Net benefit of 100 {noun.rows}: {label}. The table has the numbers.",
        "refs": [],
        "line": line(xs, [max(value, up.low) for value in ours], along, up),
        "second": line([xs[k] for k in kept], [all_[k] for k in kept], along, up) if len(kept) > 1 else "",
        "band": "",
        "dots": [],
    }
    return block


def _whom(cohort: dict[str, Any], cohorts_: int, noun: Nouns) -> str:
    """Of which cohort, and of how many sites, where only some let their histograms leave."""
    said = f"Judged on: {cohort['name']}." if cohorts_ > 1 else ""
    sent, of = (cohort.get("together") or {}).get("sites"), len(cohort.get("sites") or [])
    return f"{said} Of {sent} of {of} {noun.sites}, which let score histograms leave.".strip() if sent else said


def _say(one: dict[str, float] | None, noun: Nouns) -> Say:
    if one is None:
        return Say("How many are found by acting on the highest few was not measured.")
    return Say(
        f"Acting on the {hundred(one['share'])} of 100 {noun.rows} with the highest chance finds ",
        f"{hundred(one['sensitivity'])} of 100",
        f" {noun.having}; of those acted on, {hundred(one['precision'])} of 100 {noun.came}.",
    )


def _useful(table: list[dict[str, float]]) -> str:
    """Between which told chances acting by the model beats acting on everyone and on nobody."""
    better = [one["net_benefit"] > max(0.0, one["treat_all"]) + 1e-4 for one in table]
    runs = [
        [one["threshold"] for _, one in run] for good, run in groupby(zip(better, table), key=itemgetter(0)) if good
    ]
    good = max(runs, key=len, default=[])
    if not good:
        return "At no chance from which one might act does it beat both acting on everyone and acting on nobody."
    if len(good) == 1:
        return f"It beats acting on everyone and on nobody where one acts from about {hundred(good[0])} %."
    between = f"{hundred(good[0])} and {hundred(good[-1])} %"
    return f"It beats acting on everyone and on nobody where one acts from a chance between {between}."
