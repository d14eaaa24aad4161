"""Which subgroup each row is in: levels of a category, words of a flag, bands of a number; "not known" for the rest."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from learner_jax.data.schema import Column, near

UNKNOWN = "not known"
MOST = 32
"""Levels of a subgroup, at most."""
MOST_IN_ALL = 64
"""Of all subgroups together: a site's summary has a size that is fixed beforehand."""


class Labels(NamedTuple):
    """One way to part the rows.

    Attributes:
      levels: names, the same at every site; the last is "not known".
      of: int8[n], the level of each row.
    """

    levels: tuple[str, ...]
    of: np.ndarray


class Parting(NamedTuple):
    """A declared way: a column, and for a number where its bands begin."""

    column: Column
    edges: tuple[float, ...]


def declared(asked: Sequence[Any], columns: Mapping[str, Column]) -> tuple[tuple[Parting, ...], list[str]]:
    """Reads {"name": ..., "edges": ...} entries.

    Args:
      asked: entries of the task's `subgroups`.
      columns: those of the table, by name.

    Returns:
      What was read, and what is wrong in words.
    """
    found, problems = [], []
    for place, one in enumerate(asked):
        where = f"task.subgroups.{place}"
        one = {"name": one} if isinstance(one, str) else one
        if not isinstance(one, Mapping) or not isinstance(one.get("name"), str) or set(one) - {"name", "edges"}:
            problems.append(f"{where}: expected a column's name, or name and edges, got something else")
            continue
        name, edges = one["name"], one.get("edges", ())
        column = columns.get(name)
        if column is None or column.kind not in ("number", "category", "flag"):
            close = near(name, columns) if column is None else []
            hint = f" (near: {', '.join(map(repr, close))})" if close else ""
            kind = "which is none" if column is None else f"of kind {column.kind}"
            problems.append(
                f"{where}: expected a number, category or flag among the columns, got '{name}', {kind}{hint}"
            )
        elif column.kind == "number" and not _rising(edges):
            problems.append(f"{where} ('{name}'): expected edges, rising numbers at which bands begin, got {edges!r}")
        elif column.kind != "number" and edges:
            problems.append(f"{where} ('{name}'): edges are for numbers, got kind={column.kind}")
        elif len(column.codes) >= MOST or len(edges) >= MOST - 1:
            problems.append(f"{where} ('{name}'): expected at most {MOST - 1} levels, got more")
        else:
            found.append(Parting(column, tuple(float(edge) for edge in edges)))
    levels = sum(
        len(one.edges) + 2 if one.column.kind == "number" else max(2, len(one.column.codes)) + 1 for one in found
    )
    if levels > MOST_IN_ALL:
        problems.append(
            f'task.subgroups: expected at most {MOST_IN_ALL} levels in all, "not known" among them, got {levels}'
        )
    names = [one.column.name for one in found]
    problems += [
        f"task.subgroups: '{name}' is there twice" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    return tuple(found), problems


def _rising(edges: Any) -> bool:
    numbers = isinstance(edges, (tuple, list))
    numbers = numbers and all(type(edge) in (int, float) and math.isfinite(edge) for edge in edges)
    return numbers and len(edges) > 0 and all(a < b for a, b in itertools.pairwise(edges))


def label(series: Any, parting: Parting) -> Labels:
    """The level of each row of a canonical column."""
    column, edges = parting
    if column.kind == "category":
        levels, places = column.codes, series.cat.codes.to_numpy().astype(np.int8)
    else:
        values = series.to_numpy(np.float64)
        known = ~np.isnan(values)
        if column.kind == "flag":
            levels, places = column.codes or ("no", "yes"), np.where(known, values, 0).astype(np.int8)
        else:
            levels, places = bands(edges, column.unit), np.searchsorted(edges, values, side="right").astype(np.int8)
        places = np.where(known, places, np.int8(-1))
    return Labels((*levels, UNKNOWN), np.where(places < 0, np.int8(len(levels)), places).astype(np.int8))


def bands(edges: Sequence[float], unit: str = "") -> tuple[str, ...]:
    """Names of the bands between edges.

    >>> bands((65, 80), "years")
    ('under 65 years', '65 to under 80 years', '80 years or more')
    """
    unit = f" {unit}" if unit else ""
    between = (f"{low:g} to under {high:g}{unit}" for low, high in itertools.pairwise(edges))
    return (f"under {edges[0]:g}{unit}", *between, f"{edges[-1]:g}{unit} or more")
