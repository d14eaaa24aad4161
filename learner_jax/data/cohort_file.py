"""How a table's rows were chosen, as a small file beside the table: `north.csv` has `north.cohort.json`.

It holds the rule, the attrition, what came of the index stays and the notes: counts and words, no row. It names its
table by sha256, so that it is not told of another one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learner_jax.data.cohorts import Cohort

ENDING = ".cohort.json"
_FORMAT = 1
_LARGEST = 2**20


def beside(table: Path) -> Path:
    """Where the file of a table is."""
    return table.with_name(table.stem + ENDING)


def about(cohort: Cohort, door: str, notes: Sequence[str], table: bytes) -> dict[str, Any]:
    """What the file holds.

    Args:
      cohort: as found.
      door: by which the records were read: "omop", ...
      notes: what else must be known, as of the features.
      table: the bytes of the table beside it.
    """
    return {
        "format": _FORMAT,
        "rule": {name: list(value) if isinstance(value, tuple) else value
                 for name, value in dataclasses.asdict(cohort.rule).items()},
        "door": door,
        "attrition": [step._asdict() for step in cohort.attrition],
        "outcomes": cohort.outcomes,
        "notes": [*cohort.notes, *notes],
        "table": hashlib.sha256(table).hexdigest(),
    }  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    """What a cohort file holds.

    Raises:
      ValueError: it cannot be read as one; says why, in a few words.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("is too large for one")
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(str(error) if str(error).startswith("is too") else "is no JSON") from None
    if not _is_one(found):
        raise ValueError("is not as `learner data cohort` writes one")
    return found


def of_table(table: Path) -> dict[str, Any] | None:
    """What is known of a table's rows, under the table's name; None where there is no file beside it.

    Returns:
      {"name", ...} as `about`, or {"name", "problem"} where the file is no such file, or is of another table.
    """
    path = beside(table)
    if not path.is_file():
        return None
    try:
        found = read(path)
        with table.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == found["table"]
        if not same:
            raise ValueError(f"is of another table than the {table.name} that is there now")
    except (OSError, ValueError) as error:
        return {"name": table.stem, "problem": f"{path.name} {error}"}
    return {"name": table.stem, **found}


def _is_one(found: Any) -> bool:
    """Whether JSON is laid out as `about` does it."""
    if not isinstance(found, Mapping) or found.get("format") != _FORMAT:
        return False
    rule, outcomes = found.get("rule"), found.get("outcomes")
    notes = found.get("notes")
    texts = (found.get("door"), found.get("table"), *(notes if isinstance(notes, list) else [None]))
    steps = found.get("attrition")
    return (
        isinstance(rule, Mapping)
        and _is_rule(rule)
        and isinstance(outcomes, Mapping)
        and all(_count(one) for one in outcomes.values())
        and all(isinstance(one, str) for one in texts)
        and isinstance(steps, list)
        and all(
            isinstance(one, Mapping) and isinstance(one.get("words"), str)
            and _count(one.get("stays")) and _count(one.get("patients"))
            for one in steps
        )
    )  # fmt: skip


def _is_rule(rule: Mapping[str, Any]) -> bool:
    """Whether its fields are what one would say in words."""
    numbers = [rule.get(name) for name in ("age_min", "repeat_within_days", "gap_hours")]
    lists = [rule.get(name) or [] for name in ("diagnoses", "discharged_not_to", "planned")]
    return (
        isinstance(rule.get("name"), str)
        and isinstance(rule.get("title", ""), str)
        and all(_finite(one) for one in (rule.get("window_days"), *(n for n in numbers if n is not None)))
        and all(isinstance(one, list) and all(isinstance(name, str) for name in one) for one in lists)
    )


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0
