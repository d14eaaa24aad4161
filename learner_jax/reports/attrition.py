"""A cohort in words, for a terminal: what each step left, what came of the index stays, why there are none."""

from __future__ import annotations

from learner_jax.data.cohorts import DIED, LOST, NOT_READMITTED, READMITTED, Cohort
from learner_jax.errors import DataError
from learner_jax.reports.table import grid


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
