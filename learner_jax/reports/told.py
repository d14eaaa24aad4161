"""The page's "Can its percentages be trusted?": what was told against what came."""

from __future__ import annotations

from typing import Any

from learner_jax.reports import words
from learner_jax.reports.charts import axes, scale
from learner_jax.reports.numerals import count, hundred, spelled
from learner_jax.reports.result import cohorts, telling
from learner_jax.reports.words import Nouns


def told_and_observed(result: dict[str, Any], noun: Nouns) -> dict[str, Any] | None:
    judged = cohorts(result)
    cohort = telling(result, "calibration")
    if cohort is None or not (cohort.get("all") or {}).get("models"):
        return None
    table = cohort.get("calibration") or []
    say, note = words.calibrated(cohort, noun)
    terms = ""
    if cohort.get("slope") is not None:
        terms = (
            f"The usual name for this is calibration. Slope {cohort['slope']:.2f}: 1 is right, below 1 the percentages "
            "are too extreme."
        )
    if cohort.get("intercept") is not None:
        terms += f" Intercept {cohort['intercept']:+.2f}: below 0, too much is told."
    found: dict[str, Any] = {"say": say, "note": note, "terms": terms, "came": noun.came, "rows_word": noun.rows}
    found["groups"] = spelled(len(table))
    found |= {"whom": f"Judged on: {cohort['name']}." if len(judged) > 1 else "", "table": None, "plot": None}
    if not table:
        return found
    found["table"] = {
        "caption": "Told and observed",
        "head": ["Told", f"{noun.came.capitalize()} of 100", "Uncertainty", noun.rows.capitalize()],
        "rows": [
            {
                "cells": [
                    f"about {hundred(row['told'])} %",
                    hundred(row["observed"]),
                    f"{hundred(row['low'])} – {hundred(row['high'])}" if "low" in row else "–",
                    count(row["rows"]),
                ],
                "all": False,
            }
            for row in table
        ],
    }
    both = scale(
        [0.0, *(100 * max(row["told"], row["observed"], row.get("high", 0)) for row in table)],
        5,
        floor=0.0,
        ceiling=100.0,
    )
    points = [
        {
            "x": both.at(100 * row["told"]),
            "y": round(100 - both.at(100 * row["observed"]), 2),
            "low": round(100 - both.at(100 * row["low"]), 2) if "low" in row else None,
            "high": round(100 - both.at(100 * row["high"]), 2) if "high" in row else None,
        }
        for row in table
    ]
    label = ", ".join(f"told {hundred(row['told'])} %, {hundred(row['observed'])} {noun.came}" for row in table)
    found["plot"] = {
        **axes(both, both, "told, %"),
        "points": points,
        "label": f"Of 100: {label}. The table has the numbers.",
    }
    return found
