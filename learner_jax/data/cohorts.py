"""A cohort from a rule in a file: which stays in a hospital are index stays, and what came of each.

A rule (`configs/cohorts/*.yaml`) names an index event, code lists (`configs/codes/*.csv`), whom it leaves out, an
outcome with its window, and what is done with deaths and with patients who are lost. Each step is counted, so that an
empty cohort says where it became empty.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from learner_jax.data.code_lists import Code, read_codes, shipped
from learner_jax.data.doors.records import Records
from learner_jax.errors import ConfigError, DataError
from learner_jax.specs.words import near

READMITTED, NOT_READMITTED, DIED, LOST = "1", "0", "died", "lost"
"""What came of an index stay, as it stands in cohort.csv."""

AS_ONE = "are taken as one"
"""How the step that merges stays ends in words."""

DISPOSITIONS = {
    "died": ("died", "expired", "exp", "20", "40", "41", "42", "419099009", "371828006", "4216643"),
    "hospice": ("hospice", "hosp", "50", "51", "428371000124100", "428361000124107", "8546"),
    "transfer": ("acute hospital", "transfer", "other-hcf", "02", "2", "8717", "19712007", "306703003"),
    "against advice": ("against advice", "aadvice", "ama", "07", "7", "225928004", "4021968"),
}
"""How hospitals say to where a patient went: UB-04 statuses, HL7 discharge-disposition, SNOMED, OMOP, words."""
_WORDS = (
    ("died|expired|dead|death|deceased", "died"), ("hospice", "hospice"), ("against.*advice", "against advice"),
)  # fmt: skip
"""Words within longer ones."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """A cohort's rule.

    Attributes:
      name, title: what it is called.
      diagnoses: names of code lists; an index stay has a diagnosis of one of them. None: every stay is one.
      position: "any", or "primary" where the records tell which diagnosis that is.
      age_min: years at admission.
      discharged_not_to: of "died", "hospice", "transfer", "against advice".
      repeat_within_days: a stay that begins so soon after an index discharge is no new index; None: it is one.
      gap_hours: stays of a patient with at most this between them are one, as after a transfer; None: each is its own.
      window_days: within which an admission counts as a readmission.
      count: "clock", by hours from the discharge, or "dates", by the calendar.
      planned: names of code lists: a stay with such a diagnosis or procedure is no readmission.
      death, lost: "own_row", or "not_told": as if the patient had not been readmitted.
    """

    name: str
    title: str = ""
    diagnoses: tuple[str, ...] | None = None
    position: str = "any"
    age_min: float | None = None
    discharged_not_to: tuple[str, ...] = ()
    repeat_within_days: float | None = None
    gap_hours: float | None = None
    window_days: float = 30.0
    count: str = "dates"
    planned: tuple[str, ...] = ()
    death: str = "own_row"
    lost: str = "own_row"

    @property
    def lists(self) -> tuple[str, ...]:
        """Names of all code lists that it needs."""
        return (*(self.diagnoses or ()), *self.planned)


class Index(NamedTuple):
    """An index stay. patient, encounter: as the hospital calls them; the ids: their keys in the source."""

    patient: str
    encounter: str
    admit: datetime
    discharge: datetime
    outcome: str
    patient_id: str
    encounter_id: str


class Step(NamedTuple):
    """A line of the attrition table: what is left, in stays and patients."""

    words: str
    stays: int
    patients: int


class Cohort(NamedTuple):
    """Index stays in order of patient and admission, and how they were come to."""

    rule: Rule
    stays: tuple[Index, ...]
    attrition: tuple[Step, ...]
    notes: tuple[str, ...]

    @property
    def outcomes(self) -> dict[str, int]:
        """Outcome -> how many stays."""
        kinds = (READMITTED, NOT_READMITTED, DIED, LOST)
        return {kind: sum(row.outcome == kind for row in self.stays) for kind in kinds}


# ---- the files -------------------------------------------------------------------------------------------------------

_SECTIONS = {
    "index": ("diagnoses", "position", "age_min", "discharged_not_to", "repeat_within_days"),
    "merge": ("gap_hours",),
    "outcome": ("window_days", "count", "planned"),
    "censoring": ("death", "lost"),
}
_CHOICES = {
    "position": ("any", "primary"),
    "count": ("clock", "dates"),
    "death": ("own_row", "not_told"),
    "lost": ("own_row", "not_told"),
}
_LISTS = ("diagnoses", "planned", "discharged_not_to")


def read_rule(path: Path) -> Rule:
    """A rule from its file.

    Raises:
      ConfigError: not YAML, or fields that are not known or of another kind: all of them at once.
    """
    import yaml

    try:
        told = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: expected a cohort's file, got: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected YAML, got: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(told, dict) or not isinstance(told.get("name"), str):
        raise ConfigError(f"{path}: expected a cohort (name, {', '.join(_SECTIONS)}), got something else")
    wrong: list[str] = []
    fields: dict[str, Any] = {"name": told.pop("name"), "title": str(told.pop("title", ""))}
    for section, values in told.items():
        if section not in _SECTIONS or not isinstance(values, dict):
            wrong.append(f"no section '{section}'{near(str(section), _SECTIONS)}")
            continue
        for name, value in values.items():
            if name not in _SECTIONS[section]:
                wrong.append(f"no field '{section}.{name}'{near(str(name), _SECTIONS[section])}")
            elif value is not None:
                fields[name] = _field(f"{section}.{name}", name, value, wrong)
    if wrong:
        raise ConfigError(f"{path}: {'; '.join(wrong)}")
    return Rule(**fields)


def load(named: str) -> tuple[Rule, dict[str, tuple[Code, ...]]]:
    """A rule and its code lists.

    Args:
      named: a file, or the name of a shipped one. Its code lists are files beside it, or shipped.

    Raises:
      ConfigError: there is none, or it is none.
    """
    ours, path = shipped("cohorts", ".yaml"), Path(named)
    if not path.is_file():
        if named not in ours:
            raise ConfigError(
                f"no file or shipped cohort {named!r}{near(named, ours) or f' (shipped: {listed(ours)})'}"
            )
        path = ours[named]
    rule, known = read_rule(path), shipped("codes", ".csv")
    lists = {}
    for name in rule.lists:
        file = path.parent / f"{name}.csv"
        if not file.is_file() and name not in known:
            raise ConfigError(f"{path}: no code list {name!r}{near(name, known) or f' (shipped: {listed(known)})'}")
        lists[name] = read_codes(file if file.is_file() else known[name])
    return rule, lists


def listed(names: Iterable[str]) -> str:
    """Names in a row."""
    return ", ".join(names) or "none"


def _field(where: str, name: str, value: Any, wrong: list[str]) -> Any:
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            wrong.append(f"{where}: expected {' or '.join(_CHOICES[name])}, got {value!r}")
        return value
    if name in _LISTS:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            wrong.append(f"{where}: expected a list of names, got {value!r}")
            return ()
        unknown = [one for one in value if name == "discharged_not_to" and one not in DISPOSITIONS]
        wrong += [f"{where}: no '{one}'{near(one, DISPOSITIONS)}" for one in unknown]
        return tuple(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        wrong.append(f"{where}: expected a number from 0 up, got {value!r}")
    return value


# ---- the cohort ------------------------------------------------------------------------------------------------------


def find(records: Records, rule: Rule, codes: Mapping[str, Sequence[Code]]) -> Cohort:
    """The index stays of a hospital's records.

    Args:
      records: open ones.
      rule: of the cohort.
      codes: name -> code list, of all that the rule names.

    Raises:
      DataError: the records cannot answer what the rule asks.
    """
    chosen = _Choosing(records)
    notes = list(records.notes)
    chosen.count("hospital stays")
    chosen.keep("whose patient, beginning and end are known", "patient + epoch(admit) + epoch(discharge) IS NOT NULL")
    chosen.keep("that end after they begin", "discharge >= admit")
    _remark(records, chosen, notes)
    if rule.gap_hours is not None:
        chosen.merge(rule.gap_hours)
        chosen.count(f"after stays with at most {rule.gap_hours:g} hours between them {AS_ONE}")
    records.sql("CREATE OR REPLACE TABLE every AS SELECT * FROM stays")  # a readmission may be of any cause
    if rule.diagnoses is not None:
        named = " or ".join(name.replace("_", " ") for name in rule.diagnoses)
        asked = [code for name in rule.diagnoses for code in codes[name]]
        _mark(records, "marked", asked, "e.kind = 'diagnosis'" + _position(records, rule))
        primary = "a primary diagnosis" if rule.position == "primary" else "a diagnosis"
        chosen.keep(f"with {primary} of {named}", "encounter IN (SELECT encounter FROM marked)")
    if rule.age_min is not None:
        unknown = records.one("SELECT count(*) FROM stays WHERE birth IS NULL")
        if unknown:
            notes.append(f"{unknown} stays are of patients whose birth is not known; they are left out")
        chosen.keep(f"at {rule.age_min:g} years or more", f"date_sub('month', birth, admit) >= {12 * rule.age_min}")
    for place in rule.discharged_not_to:
        words = "that did not end in death" if place == "died" else f"not discharged to {place}"
        words = "not discharged against advice" if place == "against advice" else words
        chosen.keep(words, f"went IS DISTINCT FROM '{place}'")
    if rule.repeat_within_days is not None:
        chosen.space(rule.repeat_within_days)
        chosen.count(f"not within {rule.repeat_within_days:g} days of an index discharge")
    return Cohort(rule, tuple(_outcomes(records, rule, codes)), tuple(chosen.steps), tuple(notes))


def _remark(records: Records, chosen: _Choosing, notes: list[str]) -> None:
    """What is amiss in the stays: before their patient's birth, after the death, or there twice."""
    born = "birth IS NULL OR admit >= birth - INTERVAL 1 DAY"
    if early := records.one(f"SELECT count(*) FROM stays WHERE NOT ({born})"):
        notes.append(
            f"{early} stays begin before their patient's birth and are left out: dates, or patients, are mixed up. "
            "Have those who made these files look at the births"
        )
        chosen.keep("that begin after the patient's birth", born)
    if late := records.one("SELECT count(*) FROM stays WHERE admit > death + INTERVAL 1 DAY"):
        notes.append(f"{late} stays begin after their patient's death: dates, or patients, are mixed up")
    copies = records.one("SELECT count(*) - count(DISTINCT (patient, admit, discharge)) FROM stays")
    if copies:
        notes.append(
            f"{copies} stays have patient, beginning and end of another: if rows are there twice, leave the copies "
            "out; where stays are merged, they count once"
        )


class _Choosing:
    """The table `stays`, which becomes smaller, and what was left after each step."""

    def __init__(self, records: Records):
        self._records, self.steps = records, list[Step]()
        records.sql("CREATE OR REPLACE TABLE went (said VARCHAR, place VARCHAR)")
        records.fill("went", [(word, place) for place, words in DISPOSITIONS.items() for word in words])
        said = "lower(trim(e.discharged_to))"
        within = " ".join(rf"WHEN regexp_matches({said}, '\b({words})\b') THEN '{place}'" for words, place in _WORDS)
        records.sql(
            "CREATE OR REPLACE TABLE stays AS SELECT e.encounter, e.patient, e.id, e.number, e.admit, e.discharge, "
            "p.birth, p.death, p.id AS patient_id, p.number AS patient_number, "
            f"coalesce(w.place, CASE {within} END) AS went FROM encounters e LEFT JOIN patients p USING (patient) "
            f"LEFT JOIN went w ON w.said = {said} WHERE e.kind = 'stay'"
        )
        records.sql("CREATE OR REPLACE TABLE parts AS SELECT encounter AS part, encounter FROM stays")

    def count(self, words: str) -> None:
        """Tells what is left."""
        ((stays, patients),) = self._records.sql("SELECT count(*), count(DISTINCT patient) FROM stays")
        self.steps.append(Step(words, stays, patients))

    def keep(self, words: str, which: str) -> None:
        """Those for which a condition holds."""
        self._records.sql(f"DELETE FROM stays WHERE NOT coalesce({which}, FALSE)")
        self.count(words)

    def merge(self, gap_hours: float) -> None:
        """Stays that follow each other, or overlap, become one: it begins as the first and ends as the last to end."""
        order = "PARTITION BY patient ORDER BY admit, discharge, encounter"
        before = f"max(discharge) OVER ({order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
        self._records.sql(
            f"CREATE OR REPLACE TABLE runs AS SELECT *, sum(new) OVER ({order}) AS run FROM (SELECT *, "
            f"CASE WHEN admit <= {before} + to_seconds({3600 * gap_hours}) THEN 0 ELSE 1 END AS new FROM stays)"
        )
        first = "(admit, discharge, encounter)"
        self._records.sql(
            "CREATE OR REPLACE TABLE parts AS SELECT encounter AS part, first_value(encounter) OVER "
            "(PARTITION BY patient, run ORDER BY admit, discharge, encounter) AS encounter FROM runs"
        )
        self._records.sql(
            f"CREATE OR REPLACE TABLE stays AS SELECT arg_min(encounter, {first}) AS encounter, patient, "
            f"arg_min(id, {first}) AS id, arg_min(number, {first}) AS number, min(admit) AS admit, "
            "max(discharge) AS discharge, any_value(birth) AS birth, any_value(death) AS death, "
            "any_value(patient_id) AS patient_id, any_value(patient_number) AS patient_number, "
            # where the last part went, though that may be none of the places that count: arg_max passes over NULL
            "arg_max_null(went, (discharge, admit, encounter)) AS went FROM runs GROUP BY patient, run"
        )

    def space(self, days: float) -> None:
        """Leaves out a stay that begins soon after the discharge of one that is kept, from each patient's first on."""
        kept: list[tuple[int]] = []
        last: dict[int, datetime] = {}
        asked = "SELECT encounter, patient, admit, discharge FROM stays ORDER BY patient, admit, encounter"
        for encounter, patient, admit, discharge in self._records.sql(asked):
            if patient not in last or admit - last[patient] > timedelta(days=days):
                kept.append((encounter,))
                last[patient] = discharge
        self._records.sql("CREATE OR REPLACE TABLE spaced (encounter BIGINT)")
        self._records.fill("spaced", kept)
        self._records.sql("DELETE FROM stays WHERE encounter NOT IN (SELECT encounter FROM spaced)")


def _position(records: Records, rule: Rule) -> str:
    if rule.position == "any":
        return ""
    if not records.one("SELECT count(*) FROM events WHERE rank = 1"):
        raise DataError(
            f"{records.source}: cohort {rule.name} asks for the primary diagnosis, and nothing in these records tells "
            "which one that is; a cohort with index.position 'any' can be found here"
        )
    return " AND e.rank = 1"


def _mark(records: Records, table: str, codes: Iterable[Code], which: str) -> None:
    """Stays with an event of a code list, by its own code or by its standard concept."""
    codes = tuple(codes)
    exact = [f"{one.vocabulary}//{one.code}" for one in codes if not one.prefix and one.vocabulary != "OMOP"]
    begin = [f"{one.vocabulary}//{one.code}" for one in codes if one.prefix]
    concepts = [int(one.code) for one in codes if one.vocabulary == "OMOP"]
    records.sql(
        f"CREATE OR REPLACE TABLE {table} AS SELECT DISTINCT p.encounter FROM events e JOIN parts p ON p.part = "
        f"e.encounter WHERE {which} AND (e.code IN (SELECT unnest(?::VARCHAR[])) OR e.concept IN (SELECT "
        "unnest(?::BIGINT[])) OR list_bool_or(list_transform(?::VARCHAR[], lambda word: starts_with(e.code, word))))",
        exact, concepts, begin,
    )  # fmt: skip


def _outcomes(records: Records, rule: Rule, codes: Mapping[str, Sequence[Code]]) -> Iterable[Index]:
    planned = [code for name in rule.planned for code in codes[name]]
    _mark(records, "planned", planned, "e.kind IN ('diagnosis', 'procedure')")
    soon = f"n.admit <= s.discharge + to_seconds({86400 * rule.window_days})"
    if rule.count == "dates":
        soon = f"date_diff('day', s.discharge::DATE, n.admit::DATE) <= {rule.window_days}"
    found = records.sql(
        "SELECT s.patient_number, s.number, s.admit, s.discharge, s.patient_id, s.id, s.death, "
        "EXISTS (SELECT 1 FROM every n WHERE n.patient = s.patient AND n.encounter <> s.encounter "
        f"AND n.admit >= s.discharge AND {soon} AND n.encounter NOT IN (SELECT encounter FROM planned)), "
        "(SELECT max(greatest(coalesce(discharge, admit), admit)) FROM encounters) "
        "FROM stays s ORDER BY s.patient, s.admit, s.encounter"
    )
    for patient, number, admit, discharge, patient_id, key, death, back, until in found:
        end = discharge + timedelta(days=rule.window_days)
        outcome = READMITTED if back else NOT_READMITTED
        if not back and rule.death == "own_row" and death is not None and death <= end:
            outcome = DIED
        elif not back and rule.lost == "own_row" and until < end:
            outcome = LOST
        yield Index(patient, number, admit, discharge, outcome, patient_id, key)


def as_csv(cohort: Cohort) -> str:
    """patient, encounter, admit, discharge, outcome and the source's keys, a row an index stay."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(Index._fields)
    for row in cohort.stays:
        times = (when.isoformat(sep=" ", timespec="seconds") for when in (row.admit, row.discharge))
        writer.writerow([*row[:2], *times, *row[4:]])
    return lines.getvalue()
