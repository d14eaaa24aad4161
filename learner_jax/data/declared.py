"""A table's declaration in a config: a dict for each column, what is predicted, and every mistake in it at once."""

from __future__ import annotations

import dataclasses
import functools
import operator
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from learner_jax import specs
from learner_jax.data.schema import FLAG_WORDS, Column
from learner_jax.data.told_events import LATEST
from learner_jax.errors import ConfigError

KEEP = 100
"""How many codes of an open list get an input, unless the column says."""
SPLIT = Column(name="split", kind="category", codes=("train", "test"), missing="refuse", required=False)


class Asked(NamedTuple):
    """A declaration that was read.

    Attributes:
      columns: all that are read from a table, `split` among them.
      inputs: those that the model sees, in the order declared.
      absent: by column, values that stand for none.
      keep: by column, how many codes get an input.
      outcome: a canonical label column -> bool[n].
      label, patient: names of columns.
    """

    columns: tuple[Column, ...]
    inputs: tuple[Column, ...]
    absent: dict[str, tuple[str, ...]]
    keep: dict[str, int]
    outcome: Callable[[Any], np.ndarray]
    label: str
    patient: str | None


def declared(columns: tuple[Any, ...], label: str, positive: str | tuple[str, ...], patient: str | None) -> Asked:
    """Reads a declaration.

    Raises:
      ConfigError: one line with all that is wrong.
    """
    problems: list[str] = []
    found: list[Column] = []
    absent: dict[str, tuple[str, ...]] = {}
    keep: dict[str, int] = {}
    for place, one in enumerate(columns):
        fields = _fields(one, f"task.columns.{place}", problems)
        if fields:
            absent[fields["name"]] = fields.pop("absent", ())
            keep[fields["name"]] = fields.pop("keep", LATEST if fields["kind"] == "events" else KEEP)
            found.append(Column(**fields))
    names = [column.name for column in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    problems += [f"task.columns: '{name}' is declared twice" for name in twice]
    if "split" in names:
        problems.append("task.columns: 'split' is the name of who is held back (data.split_column), expected another")
    by_name = {column.name: column for column in found}
    outcome: Callable[[Any], np.ndarray] = np.zeros_like
    if label in by_name:
        outcome = _outcome(by_name[label], positive, problems)
        by_name[label] = dataclasses.replace(by_name[label], missing="refuse", required=True)
    elif not problems:
        problems.append(f"task.label: no column {label!r} is declared{specs.near(label, names)}")
    if patient is not None:
        whose = by_name.get(patient, Column(name=patient, kind="id"))
        if whose.kind != "id":
            problems.append(f"task.patient: expected a column of kind id, got '{patient}' of kind {whose.kind}")
        by_name[patient] = dataclasses.replace(whose, missing="refuse", required=True)
    inputs = tuple(c for c in by_name.values() if c.kind != "id" and c.name != label)
    if sum(c.kind == "events" for c in inputs) > 1:
        problems.append("task.columns: expected at most one column of kind events, got more")
    if not inputs and not problems:
        problems.append("task.columns: expected at least one column beside label and ids, got none")
    if problems:
        raise ConfigError("; ".join(problems))
    return Asked((*by_name.values(), SPLIT), inputs, absent, keep, outcome, label, patient)


@functools.cache
def _hints() -> dict[str, Any]:
    return {**typing.get_type_hints(Column), "absent": tuple[str, ...], "keep": int}


def _fields(one: Any, where: str, problems: list[str]) -> dict[str, Any]:
    """A column's fields, each fitted to its type; {} where something is wrong, which is told."""
    if not isinstance(one, Mapping):
        problems.append(f"{where}: expected a dict with name and kind, got {type(one).__name__}")
        return {}
    wrong: list[str] = []
    where += f" ({one['name']!r})" if type(one.get("name")) is str else ""
    hints = _hints()
    wrong += [f"{where}: {specs.no_field('a column', name, hints)}" for name in one if name not in hints]
    wrong += [f"{where}: expected the field '{name}', got none" for name in ("name", "kind") if name not in one]
    fields = {k: specs.fit(specs.freeze(v), hints[k], f"{where}.{k}", wrong) for k, v in one.items() if k in hints}
    if not wrong:
        wrong += [f"{where}{rule}" for rule in _rules(**fields)]
    problems += wrong
    return {} if wrong else fields


def _rules(
    *,
    name: str,
    kind: str,
    codes: Any = (),
    low: Any = None,
    high: Any = None,
    keep: Any = None,
    missing: str = "typical",
    **_: Any,
):
    """What types do not say."""
    if not name.strip():
        yield ".name: expected text, got none"
    if low is not None and high is not None and low > high:
        yield f": expected low <= high, got low={low:g}, high={high:g}"
    if kind != "number" and (low is not None or high is not None):
        yield f": a range is for numbers, got kind={kind}"
    if len(set(codes)) < len(codes):
        yield ".codes: a code is there twice"
    if kind == "category" and len(codes) < 2:
        yield f".codes: expected the codes of the category, at least two, got {len(codes)}"
    if kind == "flag" and len(codes) not in (0, 2):
        yield f".codes: expected two words, no and yes, got {len(codes)}"
    if kind in ("number", "id") and codes:
        yield f".codes: expected none for kind={kind}, got {len(codes)}"
    if keep is not None and (kind not in ("code", "events") or keep < 1):
        yield f".keep: expected at least 1, for a column of kind code or events, got keep={keep}, kind={kind}"
    if kind == "events" and missing not in ("typical", "refuse"):
        yield f".missing: expected typical (no events) or refuse for kind=events, got {missing}"


_COMPARISON = re.compile(r"\s*(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?)\s*")
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def _outcome(label: Column, positive: str | tuple[str, ...], problems: list[str]) -> Callable[[Any], np.ndarray]:
    """From a canonical label column to who has the outcome."""
    chosen = tuple(one for one in ((positive,) if isinstance(positive, str) else positive) if one)
    if label.kind == "number":
        found = _COMPARISON.fullmatch(chosen[0]) if len(chosen) == 1 else None
        if found is None:
            problems.append(f"task.positive: expected a comparison such as '>= 1' for the number '{label.name}', "
                            f"got {positive!r}")  # fmt: skip
            return np.zeros_like
        compare, bound = _COMPARE[found[1]], float(found[2])
        return lambda column: compare(column.to_numpy(np.float64), bound)
    if label.kind not in ("flag", "category"):
        problems.append(f"task.label: expected a flag, a category or a number, got '{label.name}' of kind {label.kind}")
        return np.zeros_like
    codes = label.codes or FLAG_WORDS
    if label.kind == "flag" and not chosen:
        chosen = codes[1:]
    unknown = [one for one in chosen if one not in codes]
    if unknown or not 0 < len(set(chosen)) < len(codes):
        listed = ", ".join(map(repr, codes))
        problems.append(f"task.positive: expected some, but not all, of {listed}, got {positive!r}")
        return np.zeros_like
    if label.kind == "flag":
        return lambda column: column.to_numpy(np.float64) == codes.index(chosen[0])
    return lambda column: column.isin(chosen).to_numpy()
