"""The page's "What the data looked like": the inputs of all sites together, as the study's own sums tell of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from learner_jax.reports.numerals import count, hundred, many
from learner_jax.reports.table import FIRST, LONG
from learner_jax.reports.words import Nouns, Say

KINDS = {"number": "number", "flag": "yes or no", "category": "category", "code": "code", "input": ""}


def looked_like(result: dict[str, Any], noun: Nouns) -> dict[str, Any] | None:
    """The section; None where no inputs are known."""
    data = result.get("data") or {}
    known = data.get("inputs") or {}
    tables = [table for table in known.get("tables") or [] if table.get("inputs")]
    if not tables:
        return None
    inputs = sum(len(table["inputs"]) for table in tables[:1])
    rows = f"{count(known['rows'])} {noun.rows}"
    return {
        "say": Say(f"{many(inputs, 'column', 'columns').capitalize()}, of ", rows, " to learn from."),
        "aside": f"The {noun.rows} to learn from, all {noun.sites} together. From sums: no {noun.site}’s own figures.",
        "parts": _parts(data.get("dealt") or {}, noun),
        "tables": [_table(table, at, noun) for at, table in enumerate(tables)],
        "notes": [
            *([known["note"]] if known.get("note") else []),
            *(["“A few” are fewer than ten rows, of which no figure is told."] if _any_few(tables) else []),
        ],
    }


def _any_few(tables: list[Mapping[str, Any]]) -> bool:
    return any(one.get("few") for table in tables for one in table["inputs"])


def _table(table: Mapping[str, Any], at: int, noun: Nouns) -> dict[str, Any]:
    """One table in two parts: what is shown, and the rest one click below (all of it, under an earlier one)."""
    inputs = [_row(one) for one in table["inputs"]]
    shown = 0 if at else len(inputs) if len(inputs) <= LONG else FIRST
    title = table.get("title") or "Inputs"
    rest = len(inputs) - shown
    return {
        "title": title,
        "caption": f"{title}: {noun.rows} to learn from",
        "rows": inputs[:shown],
        "rest": inputs[shown:],
        "rest_name": f"{rest:,} more" if shown else f"{title} ({rest:,})",
        "has_missing": any(one["missing"] for one in inputs),
        "has_kind": any(one["kind"] for one in inputs),
        "has_mean": any(one["mean"] or one["deviation"] for one in inputs),
    }


def _row(one: Mapping[str, Any]) -> dict[str, str]:
    share = one["kind"] == "flag"
    mean: str = one.get("few") or ""
    if one.get("mean") is not None:
        mean = f"{hundred(one['mean'], 1)} %" if share else rounded(one["mean"])
    if one.get("codes"):
        mean = ", ".join(f"{code} {hundred(part, 1)} %" for code, part in one["codes"])
    return {
        "name": one["name"],
        "about": ", ".join(part for part in (one.get("unit") or "", one.get("about") or "") if part),
        "kind": KINDS.get(str(one["kind"]), str(one["kind"])),
        "missing": absent(one.get("missing")),
        "mean": mean,
        "deviation": "" if one.get("deviation") is None else rounded(one["deviation"]),
    }


def absent(share: float | None) -> str:
    """A share of rows without a value: "none", "under 1 %", "12 %"."""
    if share is None:
        return ""
    if share == 0:
        return "none"
    return "all" if share == 1 else "under 1 %" if share < 0.01 else f"{hundred(share)} %"


def rounded(number: float) -> str:
    """Three digits that say something: 66.0, 7.38, 0.0171, 1,234."""
    if abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{number:#.3g}".rstrip(".")


def _parts(dealt: Mapping[str, Mapping[str, int]], noun: Nouns) -> dict[str, Any] | None:
    """How the rows were dealt, where that is known."""
    if not dealt:
        return None
    words = {"train": "to learn from", "valid": "set aside for watching", "test": "held back to judge on"}
    events = all("events" in part for part in dealt.values())
    head = [noun.rows.capitalize(), "Number", "Patients", *([noun.having.capitalize()] if events else [])]
    rows = [
        [word, *(f"{dealt[key][what]:,}" for what in ("rows", "patients", *(["events"] if events else [])))]
        for key, word in words.items()
        if key in dealt
    ]
    caption = f"How the {noun.rows} of all {noun.sites} were dealt"
    return {"caption": caption, "shown": True, "head": head, "rows": [{"cells": row, "all": False} for row in rows]}
