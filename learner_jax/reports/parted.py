"""The page's "For whom does it work?": the study's model among the young and the old, women and men."""

from __future__ import annotations

from typing import Any

from learner_jax.reports.numerals import count, hundred
from learner_jax.reports.result import asked_ways, cohorts
from learner_jax.reports.words import Nouns, Say

_FEW = 10
_FAR = 3.0
"""Standard errors from which on a group is said to be off: many are looked at, and a patient may be in several rows."""


def parted(result: dict[str, Any], noun: Nouns) -> dict[str, Any] | None:
    """The section; None where no subgroups were asked for, or none can be told of those that nobody named."""
    judged, asked = cohorts(result), asked_ways(result)
    cohort = next((one for one in judged if one.get("subgroups")), None) or {}
    ways = [way for way in cohort.get("subgroups", []) if any("rows" in level for level in way["levels"])]
    if not ways:
        none = Say(f"Asked for: {', '.join(asked)}; ", "too few", " to tell any.")
        return {"whom": "", "say": none, "tables": [], "notes": [], "rows": ""} if judged and asked else None
    lacking = [name for name in asked if name not in {way["name"].replace("_", " ") for way in ways}]
    each = any("sites" in level for way in ways for level in way["levels"])
    withheld = any("rows" not in level or level.get("withheld") for way in ways for level in way["levels"])
    rows = (cohort.get("all") or {}).get("rows")
    notes = [
        "That a model ranks one group less well may lie in the group (the more alike its patients are, the harder they "
        "are to rank), in how it is recorded, or in the model. Told against observed shows whom it promises too much "
        "or too little.",
    ]
    if each:
        notes.append(f"Each is put together from the {noun.sites}’ own figures.")
    if withheld:
        notes.append(
            f"“Withheld”: too few {noun.rows} to be told without pointing at somebody, or to be had from the rest."
        )
    if lacking:
        notes.append(f"Asked for too, with too few {noun.rows} to tell any: {', '.join(lacking)}.")
    return {
        "whom": f"Judged on: {cohort['name']}." if len(judged) > 1 else "",
        "say": _say(ways, noun),
        "tables": [_table(way, each, noun) for way in ways],
        "notes": notes,
        "rows": count(rows),
    }


def _say(ways: list[dict[str, Any]], noun: Nouns) -> Say:
    """The group whose told chances are furthest from what came, measured by how far chance alone would take it."""
    known = [
        (_beyond(level), way["name"], level)
        for way in ways
        for level in way["levels"]
        if level.get("rows", 0) >= 100 and level["events"] >= _FEW
    ]
    if not known:
        return Say("The groups are too small to say for whom it works.")
    far, way, level = max(known, key=lambda one: one[0])
    if far < _FAR:
        return Say("What it told fits what came in ", "each group", " that is large enough to tell, within chance.")
    return Say(
        f"Furthest off: {way.replace('_', ' ')}, {level['name']}. Of 100 such {noun.rows} the model expected ",
        hundred(level["told"], 1),
        f", and {hundred(level['events'] / level['rows'], 1)} {noun.came}.",
    )


def _beyond(level: dict[str, Any]) -> float:
    """How many standard errors of a share lie between what was told and what came."""
    told = min(max(level["told"], 1e-9), 1 - 1e-9)
    return abs(told - level["events"] / level["rows"]) / (told * (1 - told) / level["rows"]) ** 0.5


def _table(way: dict[str, Any], each: bool, noun: Nouns) -> dict[str, Any]:
    name = way["name"].replace("_", " ").capitalize()
    head = [name, noun.rows.capitalize(), "Pairs of 100", "Told, of 100", "Observed, of 100"]
    rows = [_row(level, each) for level in way["levels"] if level.get("rows", 1)]
    if each:
        head.append(f"{noun.sites.capitalize()} that told")
    return {"caption": head[0], "head": head, "rows": rows}


def _row(level: dict[str, Any], each: bool) -> dict[str, Any]:
    if "rows" not in level:
        return {"cells": [level["name"], "withheld", "", "", "", *([""] if each else [])], "all": False}
    figure = level.get("auroc")
    pairs = (
        (hundred(figure["value"], 1), f"{hundred(figure['low'])} to {hundred(figure['high'])}") if figure else "too few"
    )
    cells = [
        level["name"],
        count(level["rows"]),
        pairs,
        hundred(level["told"], 1),
        hundred(level["events"] / level["rows"], 1),
    ]
    if each:
        cells.append(f"{level['sites']} of {level['sites'] + level['withheld']}")
    return {"cells": cells, "all": False}
