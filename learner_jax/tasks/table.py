"""Any table with declared columns: who has the outcome, from numbers, categories, codes and flags.

A hospital with a table of its own writes no code: the config declares the columns, a dict each, and what is predicted.

| kind | input | how the sites agree on it |
|---|---|---|
| number | (x - mean) / deviation, cut at +- 8 | sums and sums of squares over all sites' training rows |
| flag | 0 or 1 | |
| category | one for each declared code | the list in the config |
| code | one for each of the `keep` most frequent codes | counts over a list that is the same at every site |
| id | none | |

Where there is no value, "typical" puts the mean of all sites (no code, for a category or code), "indicator" adds an
input that says so, "refuse" is an error.

Codes of an open list are counted over a list that is fixed beforehand: the declared one, where the column has `codes`
(others pass and get no input), else 4,096 places to which sha256 sends each code. So what leaves a site has one shape,
and words that somebody typed into a field do not leave it. The price: codes that meet in one place share an input (of
1,000 codes every fifth, most often with a rare one), and a report shows the place's number, not the code's name.
Declare the list where there is one. A count does not hide a code from those who can guess it.

Reference: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009 (codes by places).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import operator
import re
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from learner_jax import specs
from learner_jax.data.schema import FLAG_WORDS, Checklist, Column, conform, refuse, rows_shown
from learner_jax.data.sites import TRAIN, SiteData, deal
from learner_jax.errors import ConfigError
from learner_jax.statistics import counts, kept, mean_and_deviation, missing, missing_rate, moments
from learner_jax.types import Task

if TYPE_CHECKING:
    import pandas as pd

LIMIT = 8.0
"""Standardised numbers are cut at +- this."""
PLACES = 4096
"""Length of the list over which undeclared codes are counted."""
KEEP = 100
SPLIT = Column(name="split", kind="category", codes=("train", "test"), missing="refuse", required=False)

Metrics = tuple[Literal["auroc", "auprc", "brier", "log_loss", "accuracy"], ...]


def table(
    *,
    columns: tuple[Any, ...],
    label: str,
    positive: str | tuple[str, ...] = "",
    patient: str | None = None,
    metrics: Metrics = ("auroc", "auprc", "brier", "log_loss"),
    valid_share: float = 0.1,
    test_share: float = 0.2,
    split_seed: int = 0,
) -> Task:
    """The task: sigmoid cross-entropy on one logit a row.

    Args:
      columns: one dict a column: {"name", "kind", "unit", "low", "high", "codes", "missing", "required", "whole",
        "aliases", "about"} as in `learner_jax.data.schema.Column`, and {"absent": values that stand for none, such as
        ("0", "-9"); "keep": of a code, how many get an input (100)}. Only name and kind must be there.
      label: the column that says the outcome; each row must have one.
      positive: what counts as the outcome: the code or codes of a category, a comparison with a number (">= 7"); ""
        for the second word of a flag.
      patient: the column that says whose row it is; None where each row is another patient.
      metrics: watched each round.
      valid_share: share of the training patients on whom rounds are compared.
      test_share: share of the patients held back, where the table has no column `split`.
      split_seed: of both draws.

    Returns:
      A Task whose model is the default, an MLP 64-32.

    Raises:
      ConfigError: one line with all that is wrong in the declaration.
    """
    import optax

    from learner_jax.evaluation import metrics as of
    from learner_jax.models import mlp

    return Task(
        model=mlp(hidden=(64, 32)),
        loss=optax.sigmoid_binary_cross_entropy,
        metrics=tuple(getattr(of, name) for name in metrics),
        checklist=checklist(
            columns=columns,
            label=label,
            positive=positive,
            patient=patient,
            valid_share=valid_share,
            test_share=test_share,
            split_seed=split_seed,
        ),
    )


def checklist(
    *,
    columns: tuple[Any, ...],
    label: str,
    positive: str | tuple[str, ...] = "",
    patient: str | None = None,
    valid_share: float = 0.1,
    test_share: float = 0.2,
    split_seed: int = 0,
) -> Checklist:
    """What a site's table must hold, and its way to arrays. Arguments as in `table`."""
    asked = declared(columns, label, positive, patient)
    measured = [c for c in asked.inputs if c.kind in ("number", "flag")]
    coded = [c for c in asked.inputs if c.kind == "code"]
    centre = np.array([_centre(c) for c in measured], np.float64)

    def dealt(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        group = _rows_as_patients(rows, asked) if patient is None or patient not in rows else rows[patient].to_numpy()
        test = (rows["split"] == "test").to_numpy() if "split" in rows else None
        return group, deal(group, test, split_seed, valid_share, test_share)

    def sums(values: np.ndarray, absent: np.ndarray, places: list[np.ndarray]) -> dict[str, np.ndarray]:
        return {
            **{f"value/{name}": value for name, value in moments(values, centre).items()},
            **{f"column/{name}": value for name, value in missing(absent).items()},
            **{f"codes/{i:03d}": counts(found, _size(c)) for i, (c, found) in enumerate(zip(coded, places))},
        }

    def measure(frame: pd.DataFrame) -> dict[str, np.ndarray]:
        rows, _ = _read(frame, asked, "table")
        train = dealt(rows)[1] == TRAIN
        absent = _stacked([rows[c.name].isna().to_numpy() for c in asked.inputs], len(rows), bool)
        values = _stacked([rows[c.name].to_numpy(np.float64) for c in measured], len(rows), np.float64)
        return sums(values[train], absent[train], [_places(rows[c.name], c)[train] for c in coded])

    def zero() -> dict[str, np.ndarray]:
        none = np.zeros(0, np.int64)
        return sums(np.zeros((0, len(measured))), np.zeros((0, len(asked.inputs)), bool), [none] * len(coded))

    def fit(total: dict[str, np.ndarray]) -> dict[str, Any]:
        mean, deviation = mean_and_deviation({k: total[f"value/{k}"] for k in ("rows", "sum", "squares")}, centre)
        scale = np.where(deviation > 1e-6 * np.abs(mean - centre), deviation, 1.0)  # a constant has rounding alone
        codes = {c.name: kept(total[f"codes/{i:03d}"], asked.keep[c.name]).tolist() for i, c in enumerate(coded)}
        rates = missing_rate({"rows": total["column/rows"], "missing": total["column/missing"]})
        rows = int(total["column/rows"])
        return {
            "inputs": [name for c in asked.inputs for name in _names(c, codes.get(c.name, []))],
            "mean": {c.name: float(value) for c, value in zip(measured, mean)},
            "scale": {c.name: float(value) for c, value in zip(measured, scale)},
            "codes": codes,
            "rows": rows,
            "missing": {c.name: float(rate) if rows else 0.0 for c, rate in zip(asked.inputs, rates)},
        }

    def template(fitted: dict[str, Any]) -> dict[str, Any]:
        return {"x": np.zeros((2, len(fitted["inputs"])), np.float32), "y": np.zeros(2, np.float32)}

    def encode(frame: pd.DataFrame, fitted: dict[str, Any], labelled: bool = True) -> SiteData:
        rows, _ = _read(frame, asked, "table", labelled)
        group, split = dealt(rows)
        blocks = [_inputs(rows[c.name], c, fitted) for c in asked.inputs]
        outcome = asked.outcome(rows[label]) if labelled else np.zeros(len(rows), bool)
        return SiteData(
            rows={"x": np.concatenate(blocks, axis=1), "y": outcome.astype(np.float32)},
            split=split,
            group=group,
            cohorts={"everyone": np.ones(len(rows), bool)},
        )

    def check(frame: pd.DataFrame, where: str) -> list[str]:
        rows, warnings = _read(frame, asked, where)
        group, split = dealt(rows)
        refuse(_patients_on_both_sides(rows, group), where)
        train = split == TRAIN
        if not train.any():
            warnings.append(f"{where}: no training rows; the site can only be judged")
        elif len(np.unique(asked.outcome(rows[label])[train])) == 1:
            warnings.append(f"{where}: all training rows have the same outcome; the site adds little alone")
        return warnings

    return Checklist(asked.columns, check, zero, measure, fit, template, encode, "", label)


# ---- What the config declares ----------------------------------------------------------------------------------------


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
            keep[fields["name"]] = fields.pop("keep", KEEP)
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


def _rules(*, name: str, kind: str, codes: Any = (), low: Any = None, high: Any = None, keep: Any = None, **_: Any):
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
    if keep is not None and (kind != "code" or keep < 1):
        yield f".keep: expected at least 1, for a column of kind code, got keep={keep}, kind={kind}"


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


# ---- From a raw table to columns -------------------------------------------------------------------------------------


def _read(frame: pd.DataFrame, asked: Asked, where: str, labelled: bool = True) -> tuple[pd.DataFrame, list[str]]:
    """The declared columns in canonical form, optional ones that are not there filled with none, and warnings."""
    import pandas as pd

    columns = asked.columns if labelled else tuple(_for_prediction(c, asked) for c in asked.columns)
    rows, warnings = conform(_spelled(frame, asked), columns, where)
    whole = {str(name): rows[name] for name in rows}
    for column in asked.inputs:
        if column.name not in rows:
            none = np.full(len(rows), np.nan)
            if column.kind in ("category", "code"):
                none = pd.Categorical.from_codes(np.full(len(rows), -1), categories=list(column.codes))
            whole[column.name] = pd.Series(none, index=rows.index)
    return pd.DataFrame(whole, index=rows.index), warnings


def _for_prediction(column: Column, asked: Asked) -> Column:
    """The outcome may be absent, and who it is."""
    if column.name == asked.label:
        return dataclasses.replace(column, required=False, missing="typical")
    return dataclasses.replace(column, required=False) if column.name == asked.patient else column


def _spelled(frame: pd.DataFrame, asked: Asked) -> pd.DataFrame:
    """The table with codes spelled as declared (2.0 for "2") and none where a declared value stands for it."""
    changed = {}
    for column in asked.columns:
        codes = column.codes or (FLAG_WORDS if column.kind == "flag" else ())
        lost = asked.absent.get(column.name, ())
        for name in (column.name, *column.aliases) if codes or lost else ():
            if name in frame.columns and getattr(frame[name], "ndim", 0) == 1:
                changed[name] = _respelled(frame[name], codes, lost)
    return frame.assign(**changed)


def _respelled(series: Any, codes: tuple[str, ...], lost: tuple[str, ...]) -> Any:
    import pandas as pd

    try:
        places, distinct = pd.factorize(series, use_na_sentinel=True)
    except TypeError:  # a cell that cannot be hashed: `conform` says so
        return series
    new = np.empty(len(distinct) + 1, object)  # the last stays None
    for place, value in enumerate(distinct):
        text = value if isinstance(value, bool | np.bool_) else str(value).strip()
        whole = re.sub(r"\.0+$", "", text) if isinstance(text, str) else text
        if text not in lost and whole not in lost:
            new[place] = whole if whole in codes and text not in codes else value
    return pd.Series(new[places], index=series.index, dtype=object)


def _rows_as_patients(rows: pd.DataFrame, asked: Asked) -> np.ndarray:
    """A number for each row, int64[n], from what stands in it: the same alone, among others, in any order.

    Rows that are alike are told apart by counting them, so that each is its own.
    """
    import pandas as pd

    found = np.zeros(len(rows), np.uint64)
    for column in asked.columns:
        if column.name in rows and column.name != "split":
            series = rows[column.name]
            if column.kind in ("category", "code"):
                words = [_hash(word) for word in series.cat.categories]
                bits = np.array([*words, 0], np.uint64)[series.cat.codes.to_numpy()]
            elif column.kind == "id":
                bits = series.to_numpy(np.int64).view(np.uint64)
            else:
                values = series.to_numpy(np.float64)
                bits = np.where(np.isnan(values), np.nan, values + 0.0).view(np.uint64)  # one nan, one zero
            found = _mixed(found ^ bits)
    again = pd.Series(found).groupby(found).cumcount().to_numpy().astype(np.uint64)
    return (_mixed(found + again) >> np.uint64(1)).astype(np.int64)


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")


def _mixed(z: np.ndarray) -> np.ndarray:
    """uint64 -> uint64, one to one. Reference: the finalizer of SplitMix64, as in `sites.share_of`."""
    with np.errstate(over="ignore"):
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _patients_on_both_sides(rows: pd.DataFrame, group: np.ndarray) -> list[str]:
    if "split" not in rows:
        return []
    test = (rows["split"] == "test").to_numpy()
    both = np.isin(group, np.intersect1d(group[test], group[~test]))
    if not both.any():
        return []
    return [f"column 'split', {rows_shown(rows.index, both)}: the patient is in both train and test"]


# ---- From columns to inputs ------------------------------------------------------------------------------------------


def _centre(column: Column) -> float:
    """About what sums are taken: the middle of the range, which every site knows."""
    if column.kind == "flag":
        return 0.0
    if column.low is not None and column.high is not None:
        return (column.low + column.high) / 2.0
    return 0.0


def _size(column: Column) -> int:
    """Length of the list over which an open column's codes are counted."""
    return len(column.codes) or PLACES


def _places(series: Any, column: Column) -> np.ndarray:
    """Each row's code as a place in that list, int64[n]; -1 for none, and for one that is not declared."""
    if column.codes:
        known = {code: place for place, code in enumerate(column.codes)}
        places = [known.get(word, -1) for word in series.cat.categories]
    else:
        places = [_hash(word) % PLACES for word in series.cat.categories]
    return np.array([*places, -1], np.int64)[series.cat.codes.to_numpy()]


def _names(column: Column, kept_places: list[int]) -> list[str]:
    names = [column.name]
    if column.kind == "category":
        names = [f"{column.name} = {code}" for code in column.codes]
    elif column.kind == "code":
        names = [f"{column.name} = {column.codes[p]}" if column.codes else f"{column.name} #{p}" for p in kept_places]
    return names + ([f"{column.name} missing"] if column.missing == "indicator" else [])


def _inputs(series: Any, column: Column, fitted: dict[str, Any]) -> np.ndarray:
    """One column's inputs, float32[n, k]."""
    if column.kind in ("number", "flag"):
        mean, scale = fitted["mean"][column.name], fitted["scale"][column.name]
        values = series.to_numpy(np.float64)
        values = np.where(np.isnan(values), mean, values)
        if column.kind == "number":
            values = np.clip((values - mean) / scale, -LIMIT, LIMIT)
        block = values[:, None]
    elif column.kind == "category":
        block = series.cat.codes.to_numpy()[:, None] == np.arange(len(column.codes))
    else:
        block = _places(series, column)[:, None] == np.array(fitted["codes"][column.name], np.int64)
    if column.missing == "indicator":
        block = np.concatenate([block, series.isna().to_numpy()[:, None]], axis=1)
    return block.astype(np.float32)


def _stacked(columns: list[np.ndarray], rows: int, dtype: Any) -> np.ndarray:
    return np.stack(columns, axis=1) if columns else np.zeros((rows, 0), dtype)
