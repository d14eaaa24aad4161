"""Groups of all diagnoses, by the first three characters of their codes: what kinds of illness a patient has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from learner_jax.data.code_lists import lines, shipped
from learner_jax.data.doors.records import Records
from learner_jax.errors import ConfigError


class Range(NamedTuple):
    """Codes of a vocabulary whose first three characters lie between two, both counted, are in a group."""

    vocabulary: str
    first: str
    last: str
    group: str


def families(path: Path | None = None) -> tuple[Range, ...]:
    """The ranges of a file, in its order.

    Args:
      path: columns vocabulary, first, last and group; None takes the shipped one.

    Raises:
      ConfigError: the file is not that.
    """
    path = path or shipped("codes", ".csv")["diagnosis_groups"]
    found = lines(path, "groups of diagnoses", Range._fields, _range)
    for one in found:
        if not (len(one.first) == len(one.last) == 3 and one.first <= one.last):
            raise ConfigError(f"{path}: expected ranges of three characters, got '{one.first}' to '{one.last}'")
    return tuple(found)


def _range(row: Mapping[str, str]) -> Range:
    return Range(row["vocabulary"], row["first"].strip().upper(), row["last"].strip().upper(), row["group"])


def names(ranges: tuple[Range, ...]) -> tuple[str, ...]:
    """Of the features."""
    return tuple(dict.fromkeys(f"group_{one.group}" for one in ranges))


def find(records: Records, ranges: tuple[Range, ...]) -> dict[int, frozenset[str]]:
    """Stay -> features that are set; of the diagnoses in the table `known`, which `features.find` makes."""
    records.sql("CREATE OR REPLACE TABLE families (vocabulary VARCHAR, first VARCHAR, last VARCHAR, name VARCHAR)")
    records.fill("families", [(one.vocabulary, one.first, one.last, f"group_{one.group}") for one in ranges])
    records.sql(
        "CREATE OR REPLACE TABLE familiar AS SELECT d.code, f.name FROM (SELECT DISTINCT code, "
        "split_part(code, '//', 1) AS vocabulary, substr(split_part(code, '//', 2), 1, 3) AS start FROM known "
        "WHERE kind = 'diagnosis') d "
        "JOIN families f ON f.vocabulary = d.vocabulary AND length(d.start) = 3 AND d.start BETWEEN f.first AND f.last"
    )
    asked = (
        "SELECT stay, list(DISTINCT name) FROM known JOIN familiar USING (code) WHERE kind = 'diagnosis' GROUP BY stay"
    )
    return {stay: frozenset(found) for stay, found in records.sql(asked)}
