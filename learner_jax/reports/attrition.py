"""A cohort in words, for a terminal: what each step left, what came of the index stays, why there are none."""

from __future__ import annotations

import re

import numpy as np

from learner_jax.data.cohorts import DIED, LOST, NOT_READMITTED, READMITTED, Cohort
from learner_jax.data.features import Features
from learner_jax.errors import DataError
from learner_jax.evaluation.exact import auroc
from learner_jax.reports.plain import grid

ENOUGH = 10
"""Stays with a readmission, and without, from which on it is said how well a score tells them apart."""


def text(cohort: Cohort) -> str:
    """The attrition table, the outcomes and what must be known of them, for a terminal."""
    rows = [(step.words, f"{step.stays:,}", f"{step.patients:,}") for step in cohort.attrition]
    parts = [f"{cohort.rule.name}: {cohort.rule.title}", grid(("", "stays", "patients"), rows)]
    if cohort.stays:
        found, days = cohort.outcomes, f"{cohort.rule.window_days:g} days"
        told = [f"{found[READMITTED]:,} readmitted within {days}", f"{found[NOT_READMITTED]:,} not"]
        told += [f"{found[DIED]:,} died before that"] if found[DIED] else []
        told += [f"{found[LOST]:,} not followed so long"] if found[LOST] else []
        parts.append(f"{len(cohort.stays):,} index stays: {', '.join(told)}.")
    else:
        parts.append(emptied(cohort))
    return "\n\n".join([*parts, *(["\n".join(f"Note: {note}." for note in cohort.notes)] if cohort.notes else [])])


def known(cohort: Cohort, features: Features) -> str:
    """What is known of the stays, and how well LACE alone tells who is readmitted."""
    told = [f"{len(features.names)} features of {len(features.rows):,} stays, as known at discharge."]
    left = sum(stay.outcome not in (READMITTED, NOT_READMITTED) for stay in cohort.stays)
    told += [f"{left:,} who died or were lost have no outcome and no row in the file."] if left else []
    missing = _missing(features)
    told += [f"Not known: {missing}."] if missing else []
    pairs = [(stay.outcome == READMITTED, score) for stay, score in zip(cohort.stays, features.lace, strict=True)
             if stay.outcome in (READMITTED, NOT_READMITTED)]  # fmt: skip
    events = sum(label for label, _ in pairs)
    if pairs:
        mean = sum(score for _, score in pairs) / len(pairs)
        told.append(f"LACE: mean {mean:.1f} of 19; " + _by_lace(pairs, events))
    return " ".join(told) + "\n" + "\n".join(f"Note: {note}." for note in features.notes)


def _missing(features: Features) -> str:
    """How many stays lack what: "days_since_stay of 9; albumin, bnp of all 35"."""
    lacking: dict[int, list[str]] = {}
    for name, column in zip(features.names, zip(*features.rows, strict=True), strict=False):
        count, short = sum(value is None for value in column), re.sub(r"_(last|lowest|highest)$", "", name)
        if count and short not in lacking.setdefault(count, []):
            lacking[count].append(short)
    all_ = len(features.rows)
    parts = [
        f"{_first(names)} of {'all ' if count == all_ else ''}{count:,}" for count, names in sorted(lacking.items())
    ]
    return "; ".join(parts)


def _first(names: list[str], most: int = 12) -> str:
    """Names in a row, so many of them."""
    more = f" and {len(names) - most} more" if len(names) > most + 1 else ""
    return ", ".join(names[:most] if more else names) + more


def _by_lace(pairs: list[tuple[bool, int]], events: int) -> str:
    if min(events, len(pairs) - events) < ENOUGH:
        return f"{events:,} of {len(pairs):,} were readmitted: too few of one kind to tell how well it ranks."
    labels, scores = np.array([label for label, _ in pairs], float), np.array([score for _, score in pairs], float)
    return f"AUROC {float(auroc(labels, scores)):.3f} ({events:,} of {len(pairs):,} readmitted)."


def emptied(cohort: Cohort) -> str:
    """Why a cohort is empty, in a sentence with the counts that led to it."""
    before = None
    for step in cohort.attrition:
        if step.stays:
            before = step
            continue
        if before is None:
            return "The cohort is empty: there are no hospital stays in these records."
        left = f"{before.stays:,} stays of {before.patients:,} patients"
        return f"The cohort is empty: of {left}, none is left {step.words}."
    raise DataError("expected an empty cohort, got one with stays")
