"""One row from a form: what is asked, what was said, and what is taken where nothing was."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from learner_jax.data.described import FEWEST
from learner_jax.data.schema import ABSENT, Checklist, Column
from learner_jax.errors import DataError
from learner_jax.specs import near

if TYPE_CHECKING:
    import pandas as pd


def questions(checklist: Checklist) -> tuple[Column, ...]:
    """The columns that a form asks for: not who or which it is, not what is predicted, not who is held back."""
    aside = (checklist.label, "split")
    which = ("order", "refuse")  # of a patient's rows; a table to predict for needs none
    return tuple(
        c for c in checklist.columns if c.kind != "id" and c.name not in aside and (c.name, c.missing) != which
    )


def row(checklist: Checklist, values: Mapping[str, Any]) -> tuple[pd.DataFrame, tuple[Column, ...]]:
    """A table of one row, and the columns of which nothing is known.

    Raises:
      DataError: names that are not asked for (near ones are named), one that is there twice, or the outcome.
    """
    import pandas as pd

    asked = questions(checklist)
    spelled = {name: c.name for c in asked for name in (*c.aliases, c.name)}
    known: dict[str, Any] = {}
    wrong = []
    for name, value in values.items():
        column = spelled.get(name)
        if name == checklist.label:
            wrong.append(f"'{name}' is what is predicted")
        elif column is None:
            wrong.append(f"no column {name!r}{near(str(name), spelled)}")
        elif column in known:
            wrong.append(f"column '{column}' is given twice")
        else:
            known[column] = None if _is_absent(value) else value
    if wrong:
        raise DataError(f"form: {'; '.join(wrong)}")
    absent = tuple(c for c in asked if known.get(c.name) is None)
    cells = {c.name: pd.Series([known.get(c.name)], dtype=object) for c in asked}
    return pd.DataFrame(cells), absent


def instead(absent: tuple[Column, ...], fitted: Mapping[str, Any]) -> tuple[str, ...]:
    """What is taken where nothing was given, in sentences."""
    mean = fitted.get("mean")
    means = mean if isinstance(mean, Mapping) else {}
    never, few = _known_of(fitted, 0), _known_of(fitted, FEWEST - 1)

    def told(column: Column) -> str:
        unit = f" {column.unit}" if column.unit else ""
        return column.name if column.name in few else f"{column.name} ({means[column.name]:.4g}{unit})"

    masked = [c.name for c in absent if c.missing == "masked"]
    by_mean = [told(c) for c in absent if c.name in means and c.name not in (*never, *masked)]
    unheard = [c.name for c in absent if c.name in means and c.name in never and c.name not in masked]
    rest = [c.name for c in absent if c.name not in means and c.name not in masked]
    taken = "no code is taken" if means else "it is taken as the study takes what is missing"
    notes = [f"not given: {', '.join(by_mean)}; the mean of all sites is taken"] if by_mean else []
    notes += [f"not given, and no site had it: {', '.join(unheard)}; nothing was learned of it"] if unheard else []
    notes += [f"not given: {', '.join(masked)}; taken as not known, as in training"] if masked else []
    return (*notes, *([f"not given: {', '.join(rest)}; {taken}"] if rest else []))


def unlearned(given: Iterable[str], fitted: Mapping[str, Any]) -> tuple[str, ...]:
    """That a value was given of which no site had any: it is not used (`tasks.table`)."""
    named = sorted(set(given) & _known_of(fitted, 0))
    told = f"no site had a value of {', '.join(named)} to learn from: the model does not use it"
    return (told,) if named else ()


def _known_of(fitted: Mapping[str, Any], most: int) -> set[str]:
    """Columns of which at most so many rows to learn from had a value."""
    rows = fitted.get("rows")
    return (
        {name for name, rate in fitted.get("missing", {}).items() if round(rows * (1 - rate)) <= most}
        if rows
        else set()
    )


def problem(checklist: Checklist, fitted: Mapping[str, Any], values: Mapping[str, Any], name: str) -> str | None:
    """What is wrong with one answer of a form that is not yet filled, in words; None where it fits."""
    frame, _ = row(checklist, values)
    try:
        with told_of_one_row():
            checklist.encode(frame, dict(fitted), labelled=False)
    except DataError as error:
        mine = [part for part in str(error).removeprefix("form: ").split("; ") if part.startswith(f"column '{name}':")]
        return mine[0] if mine else None
    return None


@contextlib.contextmanager
def told_of_one_row() -> Iterator[None]:
    """A complaint about a table of one row as one about a form."""
    try:
        yield
    except DataError as error:
        said = str(error).replace("table: ", "form: ", 1).replace(", row 1: ", ": ").replace(" in 100 of 100 rows", "")
        raise DataError(said) from None


def _is_absent(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip() in ABSENT
    return value is None or (isinstance(value, float) and math.isnan(value))
