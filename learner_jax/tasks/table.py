"""Any table with declared columns: who has the outcome, from numbers, categories, codes and flags.

A hospital with a table of its own writes no code: the config declares the columns, a dict each, and what is predicted.

| kind | input | how the sites agree on it |
|---|---|---|
| number | (x - mean) / deviation, cut at +- 8 | sums and sums of squares over all sites' training rows |
| flag | 0 or 1 | |
| category | one for each declared code | the list in the config |
| code | one for each of the `keep` most frequent codes | counts over a list that is the same at every site |
| events | beside the others, for a sequence model: the `keep` latest | the same list |
| id | none | |

Where there is no value, "typical" puts the mean of all sites (no code, for a category or code), "indicator" adds an
input that says so, "masked" leaves nan for a model that takes it (`models.masked_mlp`), "refuse" is an error.

Codes of an open list are counted over a list that is fixed beforehand: the declared one, where the column has `codes`
(others pass and get no input), else 4,096 places to which sha256 sends each code. So what leaves a site has one shape,
and words that somebody typed into a field do not leave it. The price: codes that meet in one place share an input (of
1,000 codes every fifth, most often with a rare one), and a report shows the place's number, not the code's name.
Declare the list where there is one. A count does not hide a code from those who can guess it.

Reference: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009 (codes by places).
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from learner_jax.data import told_events, ways
from learner_jax.data.declared import Asked, declared
from learner_jax.data.described import described, of_column
from learner_jax.data.once import once
from learner_jax.data.schema import FLAG_WORDS, ONE_CLASS, Checklist, Column, conform, refuse, rows_shown
from learner_jax.data.sites import TRAIN, SiteData, deal
from learner_jax.data.suspect import FEWEST, Sums, drift, suspicions
from learner_jax.errors import ConfigError
from learner_jax.statistics import counts, kept, mean_and_deviation, missing, missing_rate, moments
from learner_jax.types import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

LIMIT = 8.0
"""Standardised numbers are cut at +- this."""
PLACES = told_events.PLACES
"""Length of the list over which undeclared codes are counted."""

Metrics = tuple[Literal["auroc", "auprc", "brier", "log_loss", "accuracy"], ...]


def table(
    *,
    columns: tuple[Any, ...],
    label: str,
    positive: str | tuple[str, ...] = "",
    patient: str | None = None,
    subgroups: tuple[Any, ...] = (),
    metrics: Metrics = ("auroc", "auprc", "brier", "log_loss"),
    valid_share: float = 0.1,
    test_share: float = 0.2,
    split_seed: int = 0,
) -> Task:
    """The task: sigmoid cross-entropy on one logit a row.

    Args:
      columns: one dict a column: {"name", "kind", "unit", "low", "high", "codes", "missing", "required", "whole",
        "aliases", "about"} as in `learner_jax.data.schema.Column`, and {"absent": values that stand for none, such as
        ("0", "-9"); "keep": of a code, how many get an input (100); of events, how many of the latest are read (128)}.
        Only name and kind must be there. With a column of kind events a row's x is {"table": float32[k], "code":
        int32[keep], "days": float32[keep]}, else float32[k].
      label: the column that says the outcome; each row must have one.
      positive: what counts as the outcome: the code or codes of a category, a comparison with a number (">= 7"); ""
        for the second word of a flag.
      patient: the column that says whose row it is; None where each row is another patient.
      subgroups: in whom the model is judged apart: names of categories and flags, and of numbers {"name": "age",
        "edges": (65, 80)}, where bands begin.
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
            subgroups=subgroups,
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
    subgroups: tuple[Any, ...] = (),
    valid_share: float = 0.1,
    test_share: float = 0.2,
    split_seed: int = 0,
) -> Checklist:
    """What a site's table must hold, and its way to arrays. Arguments as in `table`."""
    asked = declared(columns, label, positive, patient)
    parted, problems = ways.declared(subgroups, {c.name: c for c in asked.columns if c.name != label})
    if problems:
        raise ConfigError("; ".join(problems))
    measured = [c for c in asked.inputs if c.kind in ("number", "flag")]
    coded = [c for c in asked.inputs if c.kind == "code"]
    plain = [c for c in asked.inputs if c.kind != "events"]
    timed = next((c for c in asked.inputs if c.kind == "events"), None)
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
        seen = {c.name: total[f"codes/{i:03d}"][codes[c.name]].tolist() for i, c in enumerate(coded)}
        return {
            "seen": seen,
            "inputs": [name for c in plain for name in _names(c, codes.get(c.name, []))],
            "mean": {c.name: float(value) for c, value in zip(measured, mean)},
            "scale": {c.name: float(value) for c, value in zip(measured, scale)},
            "codes": codes,
            "rows": rows,
            "missing": {c.name: float(rate) if rows else 0.0 for c, rate in zip(asked.inputs, rates)},
        }

    def template(fitted: dict[str, Any]) -> dict[str, Any]:
        x: Any = np.zeros((2, len(fitted["inputs"])), np.float32)
        if timed is not None:
            latest = asked.keep[timed.name]
            x = {"table": x, "code": np.zeros((2, latest), np.int32), "days": np.zeros((2, latest), np.float32)}
        return {"x": x, "y": np.zeros(2, np.float32)}

    def encode(frame: pd.DataFrame, fitted: dict[str, Any], labelled: bool = True) -> SiteData:
        rows, _ = _read(frame, asked, "table", labelled)
        group, split = dealt(rows)
        blocks = [_inputs(rows[c.name], c, fitted) for c in plain]
        x: Any = np.concatenate(blocks, axis=1) if blocks else np.zeros((len(rows), 0), np.float32)
        if timed is not None:
            code, days = told_events.sequences(rows[timed.name], _placed(timed), asked.keep[timed.name])
            x = {"table": x, "code": code, "days": days}
        outcome = asked.outcome(rows[label]) if labelled else np.zeros(len(rows), bool)
        return SiteData(
            rows={"x": x, "y": outcome.astype(np.float32)},
            split=split,
            group=group,
            cohorts={"everyone": np.ones(len(rows), bool)},
            ways={one.column.name: ways.label(rows[one.column.name], one) for one in parted},
        )

    def check(frame: pd.DataFrame, where: str) -> list[str]:
        rows, warnings = _read(frame, asked, where)
        group, split = dealt(rows)
        refuse(_patients_on_both_sides(rows, group), where)
        train = split == TRAIN
        outcome = asked.outcome(rows[label])
        if not train.any():
            warnings.append(f"{where}: no training rows; the site can only be judged")
        elif len(np.unique(outcome[train])) == 1:
            warnings.append(f"{where}: {ONE_CLASS}")
        return warnings + suspicions(rows, asked.inputs, outcome, where)

    def compare(frame: pd.DataFrame, fitted: dict[str, Any]) -> list[str]:
        rows, _ = _read(frame, asked, "table")
        rows = rows.loc[dealt(rows)[1] == TRAIN]
        everyone, mine, n = {}, {}, fitted["rows"]
        for c in measured:
            values = rows[c.name].to_numpy(np.float64)
            values = values[~np.isnan(values)]
            known = n * (1 - fitted["missing"][c.name])
            everyone[c.name] = Sums(n, known, fitted["mean"][c.name], fitted["scale"][c.name])
            mine[c.name] = Sums(
                len(rows), len(values), *(map(float, (values.mean(), values.std())) if len(values) else (0.0, 0.0))
            )
        return drift({c.name: c for c in measured}, everyone, mine) + _other_codes(rows, fitted)

    def _other_codes(rows: pd.DataFrame, fitted: dict[str, Any]) -> list[str]:
        """Open codes of which hardly any is used at another site."""
        found = []
        for c in coded:
            places = _places(rows[c.name], c)
            mine = counts(places, _size(c))[fitted["codes"][c.name]]
            elsewhere = np.array(fitted.get("seen", {}).get(c.name, mine)) - mine
            shared = int(mine[elsewhere > 0].sum())
            if mine.sum() >= FEWEST and elsewhere.sum() >= FEWEST and shared < mine.sum() / 3:
                found.append(
                    f"column '{c.name}': {100 * shared / mine.sum():.0f} of 100 frequent codes here are used at "
                    "another site too. Is another code system in use here?"
                )
        return found

    def describe(fitted: dict[str, Any]) -> dict[str, Any]:
        def often(name: str, c: Column) -> list[tuple[str, int]]:
            places = fitted["codes"].get(name, [])
            words = [c.codes[place] if c.codes else f"#{place}" for place in places]
            return list(zip(words, fitted.get("seen", {}).get(name, []), strict=False))

        def deviation(name: str) -> float | None:
            scale = fitted["scale"].get(name)
            return None if scale == 1.0 else scale  # or a constant: see `fit`

        inputs = [
            of_column(c, fitted["rows"], fitted["missing"][c.name], fitted["mean"].get(c.name), deviation(c.name),
                   often(c.name, c))
            for c in asked.inputs
        ]  # fmt: skip
        hashed = any(c.kind == "code" and not c.codes for c in asked.inputs)
        note = "A code of an open list is told by its place in the list that all sites share, #0 to #4095."
        return described(fitted["rows"], [("", inputs)], note if hashed else "")

    return Checklist(asked.columns, check, zero, measure, fit, template, encode, "", label, compare, describe)


# ---- What the config declares ----------------------------------------------------------------------------------------


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
            if column.kind in ("category", "code", "events"):
                words = [] if column.kind == "events" else list(column.codes)
                none = pd.Categorical.from_codes(np.full(len(rows), -1), categories=words)
            whole[column.name] = pd.Series(none, index=rows.index)
    return pd.DataFrame(whole, index=rows.index), warnings


def _for_prediction(column: Column, asked: Asked) -> Column:
    """The outcome may be absent, and who it is."""
    if column.name == asked.label:
        return dataclasses.replace(column, required=False, missing="typical")
    return dataclasses.replace(column, required=False) if column.name == asked.patient else column


def _spelled(frame: pd.DataFrame, asked: Asked) -> pd.DataFrame:
    """The table with codes spelled as declared (2.0 for "2") and none where a declared value stands for it."""
    return _spelled_by(frame, asked.columns, tuple(asked.absent.items()))


@once
def _spelled_by(
    frame: pd.DataFrame, columns: tuple[Column, ...], absent: tuple[tuple[str, tuple[str, ...]], ...]
) -> pd.DataFrame:
    changed, lost_of = {}, dict(absent)
    for column in columns:
        closed = () if column.kind == "events" else column.codes
        codes = closed or (FLAG_WORDS if column.kind == "flag" else ())
        lost = lost_of.get(column.name, ())
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
            if column.kind in ("category", "code", "events"):
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
    place = _placed(column)
    return np.array([*map(place, series.cat.categories), -1], np.int64)[series.cat.codes.to_numpy()]


def _placed(column: Column) -> Callable[[str], int]:
    """code -> its place in that list, -1 for one that is not declared."""
    if not column.codes:
        return lambda word: _hash(word) % PLACES
    known = {code: place for place, code in enumerate(column.codes)}
    return lambda word: known.get(word, -1)


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
        if fitted.get("missing", {}).get(column.name) == 1:  # nobody had one to learn from: it is not used
            series = series * np.nan
        mean, scale = fitted["mean"][column.name], fitted["scale"][column.name]
        values = series.to_numpy(np.float64)
        values = values if column.missing == "masked" else np.where(np.isnan(values), mean, values)
        if column.kind == "number":
            values = np.clip((values - mean) / scale, -LIMIT, LIMIT)
        block = values[:, None]
    elif column.kind == "category":
        block = series.cat.codes.to_numpy()[:, None] == np.arange(len(column.codes))
    else:
        block = _places(series, column)[:, None] == np.array(fitted["codes"][column.name], np.int64)
    if column.missing == "indicator":
        block = np.concatenate([block, series.isna().to_numpy()[:, None]], axis=1)
    block = block.astype(np.float32)
    if column.missing == "masked":
        block[series.isna().to_numpy()] = np.nan
    return block


def _stacked(columns: list[np.ndarray], rows: int, dtype: Any) -> np.ndarray:
    return np.stack(columns, axis=1) if columns else np.zeros((rows, 0), dtype)
