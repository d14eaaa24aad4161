"""The page's "Who is in it": by which rule each table's rows were chosen, what each step left, what came of the stays.

From cohort files beside the tables (`learner_jax.data.cohort_file`). Of a federation they stay at the hospitals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from learner_jax.data.cohorts import AS_ONE
from learner_jax.data.described import FEWEST
from learner_jax.reports.numerals import many, spelled
from learner_jax.reports.table import FIRST, LONG
from learner_jax.reports.words import Nouns, Say

DOORS = {"omop": "OMOP", "meds": "MEDS", "fhir": "FHIR", "table": "plain tables"}
_OUTCOMES = (("1", "Readmitted"), ("0", "Not"), ("died", "Died before"), ("lost", "Not followed"))
_PLACES = {"died": "that ended in death", "hospice": "to hospice", "transfer": "to another hospital"}


def included(result: dict[str, Any], noun: Nouns) -> dict[str, Any] | None:
    """The section; None where nothing is known of it."""
    if result.get("kind") == "federation":
        apart = (
            f"Each {noun.site} keeps how it chose its rows: its rule, what each step left and what came of the rest."
        )
        return {"say": Say(apart), "remarks": ["No count of it left a site."], "groups": [], "problems": []}
    chosen = (result.get("data") or {}).get("chosen") or []
    return section([one for one in chosen if isinstance(one, Mapping)], noun) if chosen else None


def section(chosen: Sequence[Mapping[str, Any]], noun: Nouns) -> dict[str, Any]:
    """Of these tables, as `cohort_file.of_table` tells of each; those of one rule stand together."""
    found = [one for one in chosen if "problem" not in one]
    of = [one["rule"] for one in found]
    rules = [rule for at, rule in enumerate(of) if rule not in of[:at]]
    groups = [_group([one for one in found if one["rule"] == rule], len(rules), noun) for rule in rules]
    stays = sum(index_stays(one) for one in found)
    few = any(0 < count < FEWEST for one in found for count in one["outcomes"].values())
    say = Say(f"From the records of {many(len(found), noun.site, noun.sites)}, ", f"{stays:,} index stays", ".")
    return {
        "say": say if found else Say("How the rows were chosen is not known."),
        "remarks": [
            *(["A patient of two of them counts at each."] if len(found) > 1 else []),
            *(["Counts of fewer than ten are told as they are: think of it before this page goes on."] if few else []),
        ],
        "groups": groups,
        "problems": [f"Left out: {one['problem']}." for one in chosen if "problem" in one],
    }


def door(one: Mapping[str, Any]) -> str:
    """Which kind of records a table was made from."""
    return DOORS.get(str(one["door"]), str(one["door"]))


def index_stays(one: Mapping[str, Any]) -> int:
    """How many index stays a table's records hold, with or without a row in it."""
    return sum(one["outcomes"].values())


def merged(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[tuple[int, int]]]]:
    """The steps of all tables in one order, each with (stays, patients) left at every table.

    A step that a table did not need left it what the step before did.
    """
    order: list[str] = []
    for one in found:
        at = 0
        for step in one["attrition"]:
            if step["words"] not in order:
                order.insert(at, step["words"])
            at = order.index(step["words"]) + 1
    columns = []
    for one in found:
        own = {step["words"]: (step["stays"], step["patients"]) for step in one["attrition"]}
        left, column = next(iter(own.values()), (0, 0)), []
        for words in order:
            left = own.get(words, left)
            column.append(left)
        columns.append(column)
    return [(words, [column[at] for column in columns]) for at, words in enumerate(order)]


def _group(found: Sequence[Mapping[str, Any]], of: int, noun: Nouns) -> dict[str, Any]:
    """The tables of one rule: the rule in words, and three tables."""
    rule, steps = found[0]["rule"], merged(found)
    name = rule.get("title") or rule["name"]
    sums = [tuple(sum(part) for part in zip(*left, strict=True)) for _, left in steps]
    rows = [
        [f"{at}. {words}", f"{stays:,}", f"{patients:,}", _fewer(words, before[0] - stays) if at > 1 else ""]
        for at, ((words, _), (stays, patients), before) in enumerate(zip(steps, sums, [(0, 0), *sums]), 1)
    ]
    by_site = [[one["name"], *(f"{left[at][0]:,}" for _, left in steps)] for at, one in enumerate(found)]
    kinds = [(key, word) for key, word in _OUTCOMES if key in "10" or any(one["outcomes"].get(key) for one in found)]
    came = [
        [one["name"], door(one), f"{index_stays(one):,}",
         *(f"{one['outcomes'].get(key, 0):,}" for key, _ in kinds)]
        for one in found
    ]  # fmt: skip
    if len(found) > 1:
        whole = [sum(one["outcomes"].get(key, 0) for one in found) for key, _ in kinds]
        by_site.append(["All", *(f"{stays:,}" for stays, _ in sums)])
        came.append(["All", "", f"{sum(map(index_stays, found)):,}", *(f"{count:,}" for count in whole)])
    numbers = [str(at) for at in range(1, len(steps) + 1)]
    window = f"within {rule.get('window_days', 0):g} days"
    return {
        "heading": name if of > 1 else "",
        "rule": [("Rule", f"{name} ({rule['name']})"), *in_words(rule)],
        "steps": _sheet("What each step left, in sum", ["Step", "Stays", "Patients", "Left out"], rows, False),
        "by_site": {**_sheet(f"Stays left after each step, by {noun.site}",
                               [noun.site.capitalize(), *numbers], by_site),
                    "labels": [noun.site.capitalize(), *(f"Step {at}" for at in numbers)]},
        "came": _sheet(f"What came of the index stays {window}, by {noun.site}",
                       [noun.site.capitalize(), "Read as", "Index stays", *(word for _, word in kinds)], came),
        "fold": len(found) > LONG,
        "fold_name": f"{many(len(found), noun.site, noun.sites).capitalize()}, one by one",
        "notes": _notes(found),
    }  # fmt: skip


def _fewer(words: str, stays: int) -> str:
    """By how many stays a step made the table shorter; those that it took together are not left out."""
    return f"{stays:,}{' merged' if words.endswith(AS_ONE) else ''}"


def _notes(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What must be known of the records: a sentence once, with those of whom it is said."""
    of: dict[str, list[str]] = {}
    for one in found:
        for note in one["notes"]:
            of.setdefault(note, []).append(one["name"])
    return [f"{_named(names, len(found))}{note}." for note, names in of.items()]


def _named(names: list[str], of: int) -> str:
    if len(names) == of:
        return "All: " if of > 1 else ""
    more = f" and {len(names) - FIRST} more" if len(names) > FIRST else ""
    return f"{', '.join(names[:FIRST])}{more}: "


def in_words(rule: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A rule's fields as one would say them; fields that say nothing are left out."""
    lists = rule.get("diagnoses")
    primary = "primary diagnosis" if rule.get("position") == "primary" else "diagnosis, in any position,"
    index = "every hospital stay" if lists is None else f"a stay with a {primary} of {_or(lists)}"
    found = [("Index stay", index)]
    if rule.get("age_min") is not None:
        found.append(("Age", f"{rule['age_min']:g} years or more at admission"))
    if rule.get("discharged_not_to"):
        went = [_PLACES.get(str(place), str(place)) for place in rule["discharged_not_to"]]
        found.append(("Left out", f"stays {_or(went)}"))
    if rule.get("gap_hours") is not None:
        found.append(("Transfers", f"stays with at most {rule['gap_hours']:g} hours between them are one"))
    if rule.get("repeat_within_days") is not None:
        days = f"{rule['repeat_within_days']:g} days"
        found.append(("Repeats", f"a stay within {days} of an index discharge is no new index stay"))
    return [*found, ("Outcome", outcome(rule)), *_censored(rule)]


def outcome(rule: Mapping[str, Any]) -> str:
    """What counts as a readmission."""
    counted = "by dates" if rule.get("count") == "dates" else "by the clock"
    planned = f"; a stay with a code of {_or(rule['planned'])} is none" if rule.get("planned") else ""
    days = f"{rule.get('window_days', 0):g} days"
    return f"a stay of any cause that begins within {days} of the discharge, counted {counted}{planned}"


def _censored(rule: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for key, label, who in (("death", "Deaths", "who died"), ("lost", "Follow-up", "who was not followed so long")):
        own = f"{who} within the window, not readmitted, has no row" if key == "death" else f"{who} has no row"
        apart = rule.get(key) == "own_row"
        found.append((label, own if apart else f"{who} without a readmission counts as not readmitted"))
    return found


def _or(names: Sequence[str]) -> str:
    words = [str(name).replace("_", " ") for name in names]
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words) or "nothing"


def _sheet(caption: str, head: list[str], rows: list[list[str]], last: bool = True) -> dict[str, Any]:
    """A table as the page draws it; `last`: the row "All" is set apart."""
    cells = [{"cells": row, "all": last and at + 1 == len(rows) and row[0] == "All"} for at, row in enumerate(rows)]
    return {"caption": caption, "shown": True, "head": head, "rows": cells}


def summary(found: Sequence[Mapping[str, Any]]) -> str:
    """Index stays and outcomes of all tables in one sentence."""
    whole = {key: sum(one["outcomes"].get(key, 0) for one in found) for key, _ in _OUTCOMES}
    parts = [f"{whole['1']:,} readmitted", f"{whole['0']:,} not"]
    parts += [f"{whole['died']:,} died before"] if whole["died"] else []
    parts += [f"{whole['lost']:,} not followed so long"] if whole["lost"] else []
    tables = "one table" if len(found) == 1 else f"{spelled(len(found))} tables"
    return f"{sum(map(index_stays, found)):,} index stays in {tables}: {', '.join(parts)}."
