"""Stays to predict for: which of a hospital's records, and what is known of each at its discharge, or now.

A model learned from what was known at a discharge. So a stay that is over is predicted as of its discharge, and nothing
later enters. A stay that has not ended is predicted as if it ended now: at the moment that is asked for, else at the
last time that stands in its patient's records (a publisher may have shifted each patient's dates by themselves, and an
export is older than the clock on the wall). What its records hold until then is known, its diagnoses too.

No rule of a cohort is needed: any stay of the records is one. Where a rule is named, its transfers are taken as one
stay, and stays that it would leave out are told.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from learner_jax.data import cohorts, features, histories
from learner_jax.data.doors.records import Records
from learner_jax.data.schema import Column, near
from learner_jax.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

GAP_HOURS = 24.0
"""Stays with at most this between them are one, where no rule says otherwise."""
WHO = ("patient", "encounter", "admit", "until")


class Stays(NamedTuple):
    """Stays and what is known of them.

    Attributes:
      table: a row a stay, in order of patient and admission: patient, encounter (as the hospital calls them), admit,
        until (its discharge, or now), then the features and LACE, float64, nan where not known.
      notes: what must be known of them, in sentences.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]


def find(
    records: Records,
    *,
    patient: str | None = None,
    encounter: str | None = None,
    every: bool = False,
    at: datetime | None = None,
    cohort: str | None = None,
) -> Stays:
    """The last stay of each patient, or those that are asked for. What the records hold of later is changed or lost.

    Args:
      records: open ones.
      patient: only this one, as the hospital calls the patient, or by the source's key.
      encounter: only this stay, likewise.
      every: all stays of each patient.
      at: the moment that counts as now: what came later is not known. None: the last time in a patient's records.
      cohort: a rule (its name or file) of which it is told who would not be in it.

    Raises:
      DataError: no stay is left; why is told.
      ConfigError: no such rule.
    """
    rule, codes = (None, {}) if cohort is None else cohorts.load(cohort)
    if at is not None:
        as_of(records, at)
    followed = _end_what_is_open(records, at)
    gap = GAP_HOURS if rule is None else rule.gap_hours
    reasons, notes = _steps(records, rule, codes)
    base = cohorts.find(records, cohorts.Rule("stays", gap_hours=gap, death="not_told", lost="not_told"), {})
    notes = [*base.notes, *notes]
    found = base.attrition[0].stays
    odd = found - base.attrition[2].stays - followed
    lost = [f"{_stays(odd)} without a patient, a beginning or an end that fits"] if odd > 0 else []
    lost += [f"{_stays(followed)} of which nobody says the end, though another follows"] if followed else []
    _only(records, patient, encounter, every)
    if died := records.one(f"SELECT count(*) FROM stays WHERE {_DIED}"):
        if encounter is not None:
            raise DataError(f"{records.source}: stay {encounter} ended in death: there is nothing to predict")
        records.sql(f"DELETE FROM stays WHERE {_DIED}")
        lost.append(f"{_stays(died)} that ended in death")
    notes += [f"left out: {', '.join(lost)}"] if lost and encounter is None else []
    who = records.sql("SELECT encounter, patient_number, number, admit, discharge FROM stays " + _ORDER)
    if not who:
        why = f" (left out: {', '.join(lost)})" if lost else ""
        if died and not every:
            why += "; for earlier stays of the patient give --every, or --encounter=NUMBER"
        raise DataError(f"{records.source}: expected a stay in a hospital, got none{why}")
    notes += _told_of_open(records, {key: until for key, *_, until in who}, at)
    notes += _told_of_reasons(reasons, [key for key, *_ in who], cohort)
    known = features.find(records, features.charlson())
    notes += [note for note in known.notes if not re.search("LACE|HOSPITAL score", note)]
    return Stays(_frame(who, known).assign(history=list(histories.find(records))), tuple(notes))


def as_of(records: Records, at: datetime) -> None:
    """Takes out of the records what was not known at a moment: later events and stays, ends, deaths, later codes."""
    records.sql(
        "DELETE FROM events WHERE rowid IN (SELECT e.rowid FROM events e LEFT JOIN encounters c USING (encounter) "
        f"WHERE e.time > ? OR {features.KNOWN_AT} > ?)", at, at,
    )  # fmt: skip
    records.sql("DELETE FROM encounters WHERE admit > ?", at)
    records.sql("UPDATE encounters SET discharge = NULL, discharged_to = NULL WHERE discharge > ?", at)
    records.sql("UPDATE patients SET death = NULL WHERE death > ?", at)


def fitting(table: pd.DataFrame, columns: Sequence[Column]) -> tuple[np.ndarray, dict[str, int]]:
    """Which rows a study takes, bool[n], and how many it does not, by column: out of range, or not known.

    Args:
      table: of features.
      columns: that the study asks for.

    Raises:
      DataError: a column that is no feature.
    """
    lacking = [c for c in columns if c.required and c.name not in table and not set(c.aliases) & set(table.columns)]
    if lacking:
        alike = near(lacking[0].name, table.columns)
        hint = f" (near: {', '.join(alike)})" if alike else ""
        more = f", and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise DataError(
            f"the study asks for column '{lacking[0].name}'{more}, which is no feature of health records{hint}: "
            "predict from a table or a form"
        )
    takes, counted = np.ones(len(table), bool), {}
    for column in columns:
        if column.kind not in ("number", "flag") or column.name not in table:
            continue
        values = table[column.name].to_numpy(np.float64)
        wrong = np.isnan(values) if column.missing == "refuse" else np.zeros(len(values), bool)
        low, high = (-np.inf if column.low is None else column.low), (np.inf if column.high is None else column.high)
        wrong |= (values < low) | (values > high) | (column.whole & (values != np.floor(values)) & ~np.isnan(values))
        if wrong.any():
            counted[column.name] = int(wrong.sum())
        takes &= ~wrong
    return takes, counted


_ORDER = "ORDER BY patient, admit, encounter"
_DIED = "coalesce(went = 'died', FALSE) OR coalesce(death <= discharge, FALSE)"


def _end_what_is_open(records: Records, at: datetime | None) -> int:
    """A patient's last stay that has not ended ends now (table `opened`); returns how many others have no end."""
    records.sql(
        "CREATE OR REPLACE TABLE opened AS SELECT encounter, patient, admit, NOT EXISTS (SELECT 1 FROM encounters o "
        "WHERE o.patient = e.patient AND o.kind = 'stay' AND (o.admit > e.admit OR (o.admit = e.admit AND "
        "o.encounter > e.encounter))) AS last, "
        "NULL::TIMESTAMP AS now FROM encounters e WHERE kind = 'stay' AND discharge IS NULL AND admit IS NOT NULL "
        "AND patient IS NOT NULL"
    )
    followed = records.one("SELECT count(*) FROM opened WHERE NOT last")
    records.sql("DELETE FROM opened WHERE NOT last")
    if at is not None:
        records.sql("UPDATE opened SET now = ?", at)
    else:
        records.sql(
            "UPDATE opened SET now = t.time FROM (SELECT patient, max(time) AS time FROM (SELECT patient, time FROM "
            "events UNION ALL SELECT patient, greatest(admit, discharge) FROM encounters) GROUP BY patient) t "
            "WHERE t.patient = opened.patient"
        )
    records.sql("UPDATE encounters SET discharge = o.now FROM opened o WHERE o.encounter = encounters.encounter")
    return int(followed)


def _only(records: Records, patient: str | None, encounter: str | None, every: bool) -> None:
    """Leaves in the table `stays` those that are asked for."""
    called = "number = ? OR id = ?"
    if patient is not None:
        found = [key for (key,) in records.sql(f"SELECT patient FROM patients WHERE {called}", patient, patient)]
        if len(found) != 1:
            raise DataError(f"{records.source}: expected one patient {patient!r}, got {len(found) or 'none'}")
        records.sql("DELETE FROM stays WHERE patient <> ?", found[0])
    if encounter is not None:
        asked = f"SELECT encounter, kind FROM encounters WHERE {called}"
        found = records.sql(asked, encounter, encounter)
        if len(found) != 1:
            raise DataError(f"{records.source}: expected one stay {encounter!r}, got {len(found) or 'none'}")
        ((key, kind),) = found
        records.sql("DELETE FROM stays WHERE encounter NOT IN (SELECT encounter FROM parts WHERE part = ?)", key)
        if not records.one("SELECT count(*) FROM stays"):
            why = "has no beginning or end that fits, or is another patient's"
            why = why if kind == "stay" else "is no stay in a hospital"
            raise DataError(f"{records.source}: encounter {encounter} {why}")
    elif not every:
        last = "SELECT arg_max(encounter, (admit, discharge, encounter)) FROM stays GROUP BY patient"
        records.sql(f"DELETE FROM stays WHERE encounter NOT IN ({last})")


def _steps(
    records: Records, rule: cohorts.Rule | None, codes: Mapping[str, Sequence[cohorts.Code]]
) -> tuple[list[tuple[str, set[int]]], list[str]]:
    """What a rule asks for, step by step, each with the stays that are left; and why that cannot be said."""
    if rule is None:
        return [], []
    asked = (
        {"diagnoses": rule.diagnoses, "position": rule.position}, {"age_min": rule.age_min},
        {"discharged_not_to": rule.discharged_not_to}, {"repeat_within_days": rule.repeat_within_days},
    )  # fmt: skip
    found: list[tuple[str, set[int]]] = []
    now, before = cohorts.Rule(rule.name, gap_hours=rule.gap_hours), 0
    try:
        for fields in ({}, *asked):
            now = dataclasses.replace(now, **fields)
            steps = cohorts.find(records, now, codes).attrition
            words = " and ".join(step.words for step in steps[before:]) or "all"
            before = len(steps)
            found.append((words, {key for (key,) in records.sql("SELECT encounter FROM stays")}))
    except DataError as error:
        return [], [f"whether it would be in the cohort {rule.name} cannot be said: {error}"]
    return found[1:], []


def _told_of_reasons(reasons: Sequence[tuple[str, set[int]]], keys: Sequence[int], cohort: str | None) -> list[str]:
    """How many stays the rule would leave out, by the first step that does."""
    left, told = set(keys), []
    for words, kept in reasons:
        out, left = left - kept, left & kept
        many = f"{len(out):,} of {len(keys):,} " if len(keys) > 1 else ""
        told += [f"{many}({words}: no)"] if out else []
    if not told:
        return []
    return [f"not in the cohort {cohort}: {', '.join(told)}; the model may have seen no such stays"]


def _told_of_open(records: Records, until: Mapping[int, datetime], at: datetime | None) -> list[str]:
    """That stays have not ended, and what is taken for now."""
    open_ = {key for (key,) in records.sql("SELECT p.encounter FROM opened o JOIN parts p ON p.part = o.encounter")}
    mine = sorted(open_ & set(until))
    if not mine:
        return []
    moment = f"{until[mine[0]]:%Y-%m-%d %H:%M}"
    where = "the moment asked for" if at is not None else "the last time in the patient's records"
    each = f"now, {moment}, {where}" if len(mine) == 1 or at is not None else f"now, {where}"
    what = "has" if len(mine) == 1 else "have"
    return [f"{_stays(len(mine))} {what} not ended: predicted as if discharged {each}"]


def _stays(count: int) -> str:
    return f"{count:,} stay{'' if count == 1 else 's'}"


def _frame(who: Sequence[tuple], known: features.Features) -> pd.DataFrame:
    """Values as `features.as_csv` writes them, so that both give a model the same bits."""
    import pandas as pd

    def told(value: Any) -> float:
        return np.nan if value is None else float(f"{value:.10g}")

    names = dict(zip(WHO, zip(*(one[1:] for one in who), strict=True), strict=True))
    columns: dict[str, Any] = {name: list(values) for name, values in names.items()}
    for name, values in zip(known.names, zip(*known.rows, strict=True), strict=True):
        columns[name] = np.array([told(value) for value in values], np.float64)
    columns["lace"] = np.array(known.lace, np.float64)
    return pd.DataFrame(columns)
