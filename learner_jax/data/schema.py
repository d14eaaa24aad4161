"""What a site's table must hold: columns with type, unit, range and codes, and the check that tells what is wrong.

`conform` turns a raw table (text from CSV, types from Parquet, a frame of one's own) into one canonical form, whatever
door it came through, and lists every mistake in one line. Messages name column, row, and what was expected and what
*kind* of thing came, never a value: they travel in logs, values must not.

Rows count from 1, without the header.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from learner_jax.data import told_events
from learner_jax.data.once import once
from learner_jax.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from learner_jax.data.sites import SiteData

Kind = Literal["number", "category", "code", "flag", "id", "events"]
Missing = Literal["typical", "indicator", "masked", "refuse"]

ABSENT = ("", "?", "NA", "N/A", "NaN", "nan", "null")
MOST_PROBLEMS = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """One column that a study asks for.

    Attributes:
      name: as in the header.
      kind: "number" (float64), "category" (one of `codes`), "code" (text of an open list, such as a diagnosis),
        "flag" (no/yes: float64 0 or 1; `codes` holds the two words), "id" (a whole number, or text, which is hashed),
        "events" (codes with time in one cell, as `learner_jax.data.told_events` writes them).
      unit: "days", "mmol/L"; shown with the range.
      low: smallest number that the unit allows, None for any.
      high: largest.
      codes: the closed list of a category; (no, yes) of a flag.
      missing: what is done where there is no value: "typical" (the mean of all sites; no code), "indicator" (that,
        and an input that says so), "masked" (nan, for a model that takes it), "refuse" (an error).
      required: the table must have the column.
      whole: numbers must be whole.
      aliases: other names under which the column is taken where there is none of its own name.
      about: one sentence for the person who maps the hospital's table.
    """

    name: str
    kind: Kind
    unit: str = ""
    low: float | None = None
    high: float | None = None
    codes: tuple[str, ...] = ()
    missing: Missing = "typical"
    required: bool = True
    whole: bool = False
    aliases: tuple[str, ...] = ()
    about: str = ""

    def expected(self) -> str:
        """In words: "a whole number, 1 to 14 days"."""
        if self.kind == "number":
            words = "a whole number" if self.whole else "a number"
            if self.low is not None and self.high is not None:
                words += f", {self.low:g} to {self.high:g}"
            elif self.low is not None:
                words += f", {self.low:g} or more"
            elif self.high is not None:
                words += f", at most {self.high:g}"
            return f"{words} {self.unit}".rstrip()
        if self.kind in ("category", "flag"):
            shown = ", ".join(repr(code) for code in (self.codes or FLAG_WORDS)[:6])
            more = len(self.codes) - 6
            return f"one of {shown}" + (f" and {more} more" if more > 0 else "")
        if self.kind == "events":
            return "events as days:code, parted by blanks, days before the prediction"
        return "a whole number or text" if self.kind == "id" else "a code in text"


FLAG_WORDS = ("0", "1")

ONE_CLASS = (
    "all training rows have the same outcome; the site adds little alone. If both occur here, look at how the outcome "
    "is coded"
)
UNIT = 0.1
"""Where such a share of rows is out of range, it is more likely the unit than the rows."""


class Statistic(NamedTuple):
    """A further round of sums, which stands on what the rounds before it have found.

    Attributes:
      zero: (found) -> the sums of no rows: the schema of what `measure` lets leave.
      measure: (frame, found) -> the site's sums, by name: all that leaves the site.
      fit: (total, found) -> what is known from then on: a dict that JSON can hold.
    """

    zero: Callable[[dict[str, Any]], dict[str, np.ndarray]]
    measure: Callable[[Any, dict[str, Any]], dict[str, np.ndarray]]
    fit: Callable[[dict[str, np.ndarray], dict[str, Any]], dict[str, Any]]


class Checklist(NamedTuple):
    """What a site's table must hold and how it becomes arrays: pure functions, each over one site's table.

    Measure at each site, add up, fit, then encode at each site:

        for one in checklist.statistics:                                     # most have one; in the order of site ids
            fitted = one.fit(combine([one.measure(frame, fitted) for frame in frames]), fitted)
        sites = {name: checklist.encode(frame, fitted) for name, frame in ...}

    Attributes:
      columns: what is asked for.
      check: (frame, where) -> warnings in words; raises DataError with all that is wrong, in one line.
      zero: () -> the sums of no rows: the schema of what `measure` lets leave, and where a total begins.
      measure: (frame) -> the site's sums, int64 and float64 arrays by name: all that leaves the site.
      fit: (total) -> a dict that JSON can hold: means, scales, kept codes, names of the inputs.
      template: (fitted) -> two rows of zeros, for the shapes of what `encode` makes.
      encode: (frame, fitted, labelled=True) -> SiteData. labelled=False: for prediction; keeps every row, needs no
        label and no split.
      sample: the shipped sample that fits, "" if none.
      label: the column that holds what is predicted.
      compare: (frame, fitted) -> in words, where the table is far from the other sites'.
      describe: (fitted) -> what the inputs looked like, as `data.described.described`; {} if it does not say.
      more: further rounds of sums after the first, each of which may ask by what was found before; what the last one
        finds is what `encode` gets.
      frame: (what a user hands over, where) -> a table as the others take it, where that is no pandas frame; raises
        DataError.
    """

    columns: tuple[Column, ...]
    check: Callable[[Any, str], list[str]]
    zero: Callable[[], dict[str, np.ndarray]]
    measure: Callable[[Any], dict[str, np.ndarray]]
    fit: Callable[[dict[str, np.ndarray]], dict[str, Any]]
    template: Callable[[dict[str, Any]], dict[str, Any]]
    encode: Callable[..., SiteData]
    sample: str = ""
    label: str = ""
    compare: Callable[[Any, dict[str, Any]], list[str]] = lambda frame, fitted: []
    describe: Callable[[dict[str, Any]], dict[str, Any]] = lambda fitted: {}
    more: tuple[Statistic, ...] = ()
    frame: Callable[[Any, str], Any] | None = None

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """All rounds of sums, the first with the others."""
        first = Statistic(
            lambda found: self.zero(), lambda frame, found: self.measure(frame), lambda total, found: self.fit(total)
        )
        return (first, *self.more)


def near(name: str, names: Iterable[str]) -> list[str]:
    """Up to three of `names` that `name` may have been meant for."""
    folded = {other.casefold(): other for other in names}
    found = difflib.get_close_matches(name.casefold(), list(folded), n=3, cutoff=0.7)
    return [folded[other] for other in found]


def conform(frame: pd.DataFrame, columns: Iterable[Column], where: str) -> tuple[pd.DataFrame, list[str]]:
    """The table's declared columns in canonical form, and warnings.

    Args:
      frame: a raw table; if its index is named "row", that is the row number shown, else rows count from 1.
      columns: what is asked for.
      where: "site 'h03'" or a file's name, for the message.

    Returns:
      A frame of the declared columns that were found (numbers and flags float64 with nan where missing, categories and
      codes pandas categories of str, ids int64), with the index of `frame`; and a list of warnings.

    Raises:
      DataError: an empty table, a missing, doubled or misspelt column, a value of the wrong type, range or code.
    """
    if len(frame) == 0:
        raise DataError(f"{where}: expected at least one row, got an empty table")
    table, problems, warnings = _conformed(frame, tuple(columns))
    refuse(list(problems), where)
    return table, [f"{where}: {warning}" for warning in warnings]


@once
def _conformed(
    frame: pd.DataFrame, columns: tuple[Column, ...]
) -> tuple[pd.DataFrame, tuple[str, ...], tuple[str, ...]]:
    """(the declared columns in canonical form, problems, warnings)."""
    import pandas as pd

    known = {alias: c.name for c in columns if c.name not in frame.columns for alias in c.aliases[::-1]}
    frame = frame.rename(columns={alias: known[alias] for alias in known if alias in frame.columns})
    problems, warnings = names_that_differ([str(name) for name in frame.columns], columns)
    done = {}
    for column in columns:
        if column.name in frame.columns and not isinstance(frame[column.name], pd.DataFrame):
            done[column.name], wrong = _canonical(frame[column.name], column)
            problems += wrong
    return pd.DataFrame({} if problems else done, index=frame.index), tuple(problems), tuple(warnings)


def refuse(problems: list[str], where: str) -> None:
    """Raise one DataError of one line that lists the problems, if there are any."""
    if problems:
        shown = "; ".join(problems[:MOST_PROBLEMS])
        more = len(problems) - MOST_PROBLEMS
        raise DataError(f"{where}: {shown}" + (f"; and {more} more" if more > 0 else ""))


def names_that_differ(have: list[str], columns: tuple[Column, ...]) -> tuple[list[str], list[str]]:
    """Problems and warnings in the names of a table's columns."""
    problems, warnings = [], []
    asked = {column.name for column in columns}
    problems += [f"column '{name}' is there twice" for name in sorted({n for n in have if have.count(n) > 1})]
    unknown = [name for name in have if name not in asked]
    taken = set()
    for column in columns:
        if column.name in have:
            continue
        similar = near(column.name, unknown)
        taken.update(similar)
        hint = f" (near: {', '.join(repr(name) for name in similar)})" if similar else ""
        if column.required:
            problems.append(f"expected a column '{column.name}', got none{hint}")
        elif similar:
            problems.append(f"unknown column '{similar[0]}': is it '{column.name}', which is optional and not there?")
    left = [repr(name) for name in unknown if name not in taken]
    if len(left) == 1:
        warnings.append(f"column {left[0]} is not asked for and is not read")
    elif left:
        more = f" and {len(left) - MOST_PROBLEMS} more" if len(left) > MOST_PROBLEMS else ""
        listed = ", ".join(left[:MOST_PROBLEMS])
        warnings.append(f"{len(left)} columns are not asked for and are not read: {listed}{more}")
    return problems, warnings


# ---- One column ------------------------------------------------------------------------------------------------------


def rows_shown(index: pd.Index, bad: np.ndarray) -> str:
    """ "row 17" or "row 17 and 3 more", counting from 1."""
    places = np.flatnonzero(bad)
    first = index[places[0]] if index.name == "row" else places[0] + 1
    return f"row {first}" + (f" and {len(places) - 1} more" if len(places) > 1 else "")


def _canonical(series: Any, column: Column) -> tuple[Any, list[str]]:
    """One column in canonical form and what is wrong with it; each distinct value is looked at once."""
    import pandas as pd

    typed = isinstance(series.dtype, np.dtype) and series.dtype.kind in {"number": "iuf", "id": "iu"}.get(
        column.kind, ""
    )
    if typed:  # as it is: faster than value by value
        codes, values = np.arange(len(series)), list(series) if column.kind == "id" else series.to_numpy(np.float64)
        kinds = [""] * len(series)
    else:
        try:
            codes, distinct = pd.factorize(series, use_na_sentinel=True)
        except TypeError:  # a cell that cannot be hashed: a list, an array
            nested = np.array([not isinstance(value, Hashable) for value in series])
            where = f"column '{column.name}', {rows_shown(series.index, nested)}"
            return series, [f"{where}: expected {column.expected()}, got a list of values"]
        read = _READ[column.kind]
        values, kinds = [], []
        for value in distinct:
            good, kind = read(value, column)
            values.append(good)
            kinds.append(kind)
    kinds = np.array([*kinds, "missing"], dtype=object)
    if column.kind == "number":
        values = np.array(values, dtype=np.float64)
        _judge(values, kinds, column)
    problems = _problems(series, column, kinds[codes])

    if column.kind in ("number", "flag"):
        table = np.array([*values, np.nan], dtype=np.float64)[codes]
    elif column.kind == "id":
        table = np.array([*values, 0], dtype=np.int64)[codes]
    else:
        words = column.codes if column.kind == "category" else tuple(sorted({v for v in values if v is not None}))
        place = {word: number for number, word in enumerate(words)}
        table = pd.Categorical.from_codes(
            np.array([*(place.get(v, -1) for v in values), -1], dtype=np.int64)[codes], categories=list(words)
        )
    return pd.Series(table, index=series.index, name=column.name), problems


def _problems(series: Any, column: Column, kind_of_row: np.ndarray) -> list[str]:
    refused = sorted(set(kind_of_row.tolist()) - {"", "missing"})
    if column.missing == "refuse" or column.kind == "id":
        refused += ["missing"] if "missing" in kind_of_row else []
    problems = []
    for kind in refused:
        where = f"column '{column.name}', {rows_shown(series.index, kind_of_row == kind)}"
        got = "no value" if kind == "missing" else kind
        if kind.endswith("the range") and column.unit and (kind_of_row == kind).mean() > UNIT:
            got += (
                f" in {100 * (kind_of_row == kind).mean():.0f} of 100 rows: is it in another unit than {column.unit}?"
            )
        problems.append(f"{where}: expected {column.expected()}, got {got}")
    return problems


def _judge(numbers: np.ndarray, kinds: np.ndarray, column: Column) -> None:
    """Says of each number what is wrong with it, in `kinds`; numbers float64[n], kinds object[n + 1]."""
    kinds = kinds[:-1]
    unread = kinds != ""
    tests = [("a fraction", numbers != np.floor(numbers))] if column.whole else []
    if column.low is not None:
        tests.append(("a number below the range", numbers < column.low))
    if column.high is not None:
        tests.append(("a number above the range", numbers > column.high))
    for kind, failed in [*tests, ("an infinite number", np.isinf(numbers)), ("missing", np.isnan(numbers))]:
        kinds[failed & ~unread] = kind


def _text(value: Any) -> str:
    """A cell as text: whole floats and NumPy numbers lose their ".0"."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def _number(value: Any, column: Column) -> tuple[float, str]:
    if isinstance(value, (bool, np.bool_)):
        return np.nan, "true or false"
    if isinstance(value, (int, float, np.integer, np.floating)):
        number = float(value)
    else:
        text = _text(value)
        if text in ABSENT:
            return np.nan, "missing"
        if "_" in text:  # float() would take 1_000
            return np.nan, "text"
        try:
            number = float(text)
        except ValueError:
            return np.nan, "text" if isinstance(value, str) else f"a {type(value).__name__.lower()}"
    return number, ""


def _flag(value: Any, column: Column) -> tuple[float, str]:
    no, yes = column.codes or FLAG_WORDS
    text = str(int(value)) if isinstance(value, (bool, np.bool_)) else _text(value)
    if text in (no, yes):
        return float(text == yes), ""
    if text.casefold() in ("0", "false", "1", "true"):
        return float(text.casefold() in ("1", "true")), ""
    return (np.nan, "missing") if text in ABSENT else (np.nan, "something else")


def _word(value: Any, column: Column) -> tuple[str | None, str]:
    text = _text(value)
    if text in column.codes:
        return text, ""
    if text in ABSENT:
        return None, "missing"
    return (None, "something else") if column.kind == "category" else (text, "")


def _identity(value: Any, column: Column) -> tuple[int, str]:
    """Whole numbers stand for themselves, other text for 63 bits of its sha256: the same alone or among others."""
    if isinstance(value, (int, np.integer)) and -(2**63) <= value < 2**63:
        return int(value), ""
    text = _text(value)
    if text in ABSENT:
        return 0, "missing"
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) <= 18:
        return int(text), ""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1, ""


def _events(value: Any, column: Column) -> tuple[str | None, str]:
    text = _text(value)
    if text in ABSENT:
        return None, "missing"
    try:
        told_events.read(text)
    except ValueError:
        return None, "something else"
    return text, ""


_READ = {"number": _number, "flag": _flag, "category": _word, "code": _word, "id": _identity, "events": _events}
