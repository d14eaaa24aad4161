"""Medicines before a prediction time as features: which groups are known in the stay, and how long ago the last.

Hospitals name medicines by classes (ATC), by ingredients or products (RxNorm, OMOP's concepts, package codes) or in
words. A group is a list of codes, and of words that a medicine's name may hold (`configs/codes/medicines.csv`): where a
code is not in the list, what its source calls it is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from learner_jax.data.code_lists import Code, a_code, lines, shipped
from learner_jax.data.doors.records import Records

_NOT_TAKEN = (
    r"//(STOP//|STOPPED|NOT(GIVEN|APPLIED|STARTED|CONFIRMED|ASSESSED|FLUSHED)|HOLDDOSE|REMOVED$)|RECONCILIATIONNOTDONE$"
)
"""Codes of MEDS that say that a medicine was stopped, held or not given."""


class Medicines(NamedTuple):
    """A group.

    Attributes:
      name: of the features.
      codes: of any vocabulary.
      words: in small letters; a name has one of which one of its words begins so ...
      without: ... and holds none of these.
    """

    name: str
    codes: tuple[Code, ...]
    words: tuple[str, ...]
    without: tuple[str, ...]


def medicines(path: Path | None = None) -> tuple[Medicines, ...]:
    """The groups of a file, in its order.

    Args:
      path: columns vocabulary, code, match and group; None takes the shipped one.

    Raises:
      ConfigError: the file is not that.
    """
    path = path or shipped("codes", ".csv")["medicines"]
    found: dict[str, Medicines] = {}
    for one in lines(path, "groups of medicines", ("vocabulary", "code", "match", "group"), _line):
        first = found.get(one.name, Medicines(one.name, (), (), ()))
        found[one.name] = Medicines(one.name, *(mine + more for mine, more in zip(first[1:], one[1:], strict=True)))
    return tuple(found.values())


def _line(row: Mapping[str, str]) -> Medicines:
    """A group of one code, or of one word."""
    if row["vocabulary"] != "WORD":
        return Medicines(row["group"], (a_code(row),), (), ())
    word = (row["code"].lower(),)
    return Medicines(row["group"], (), *(((), word) if row["match"] == "without" else (word, ())))


def names(groups: tuple[Medicines, ...]) -> tuple[str, ...]:
    """Of the features: a flag a group, then days a group."""
    flags = tuple(f"medicine_{one.name}" for one in groups)
    return (*flags, *(f"{name}_days" for name in flags))


def find(records: Records, groups: tuple[Medicines, ...], held: bool) -> tuple[str, tuple[str, ...]]:
    """What `features.find` has put into the table `known`, by group.

    Args:
      records: open ones, with the tables `stays` and `known`.
      groups: of medicines.
      held: whether the records hold medicines at all; where not, none is known to be lacking.

    Returns:
      (SQL of a row for each stay with a medicine: stay, then the features by their names; sentences).
    """
    records.sql("CREATE OR REPLACE TABLE pills (code VARCHAR, prefix BOOLEAN, name VARCHAR)")
    records.fill("pills", [(f"{c.vocabulary}//{c.code}", c.prefix, one.name) for one in groups for c in one.codes])
    records.sql("CREATE OR REPLACE TABLE spelled (words VARCHAR, without VARCHAR, name VARCHAR)")
    records.fill("spelled", [(rf"\b({_any(one.words)})", _any(one.without), one.name) for one in groups if one.words])
    records.sql(
        "CREATE OR REPLACE TABLE sorted AS WITH given AS (SELECT DISTINCT code FROM known WHERE kind = 'medicine' "
        f"AND NOT regexp_matches(code, '{_NOT_TAKEN}')), "
        "said AS (SELECT code, lower(code) AS label FROM given UNION SELECT code, lower(label) FROM labels "
        "SEMI JOIN given USING (code)) "
        "SELECT g.code, p.name FROM given g JOIN pills p ON g.code = p.code OR (p.prefix AND starts_with(g.code, "
        "p.code)) UNION SELECT s.code, w.name FROM said s JOIN spelled w ON regexp_matches(s.label, w.words) "
        "AND NOT (w.without <> '' AND regexp_matches(s.label, w.without))"
    )
    flags = [f"coalesce(bool_or(t.within) FILTER (t.name = '{one.name}'), FALSE)::INTEGER" for one in groups]
    since = "date_diff('second', max(t.last) FILTER (t.name = '{0}'), s.discharge) / 86400"
    columns = [*flags, *(since.format(one.name) for one in groups)]
    told = ", ".join(f'{column} AS "{name}"' for column, name in zip(columns, names(groups), strict=True))
    rows = (
        f"SELECT t.stay{', ' * bool(told)}{told} FROM (SELECT stay, name, bool_or(within) AS within, max(last) AS last "
        "FROM known JOIN sorted USING (code) WHERE kind = 'medicine' GROUP BY stay, name) t "
        "JOIN stays s ON s.encounter = t.stay GROUP BY t.stay, s.discharge"
    )
    return rows, _notes(records, groups, held)


def _any(words: tuple[str, ...]) -> str:
    return "|".join(re.escape(word) for word in words)


def _notes(records: Records, groups: tuple[Medicines, ...], held: bool) -> tuple[str, ...]:
    """What share of the medicines is in no group; or that there are none."""
    if not held:
        return ("these records hold no medicine before a discharge: no group of medicines is known",)
    ((count, left),) = records.sql(
        "SELECT sum(times), sum(times) FILTER (code NOT IN (SELECT code FROM sorted)) FROM known "
        f"WHERE kind = 'medicine' AND code IS NOT NULL AND NOT regexp_matches(code, '{_NOT_TAKEN}')"
    )
    if not count:
        return ("no medicine is known of these stays: it is taken that there was none",)
    share = f"{(left or 0) / count:.0%} of the medicines are in none of the {len(groups)} groups of medicines"
    return (share,) if left else ()
