"""What is known of an index stay at its discharge, as numbers in a row.

Nothing later enters: an event counts if its time is not after the discharge; one without a time, and a coded diagnosis
or procedure, if its encounter ended by then; an earlier stay counts if it ended before this one began.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from learner_jax.data import families, measured, medicines
from learner_jax.data.code_lists import Code, a_code, lines, shipped
from learner_jax.data.cohorts import NOT_READMITTED, READMITTED, Cohort
from learner_jax.data.doors.records import Records

LOOKBACK_DAYS = 365
"""So long before the admission diagnoses, stays and medicines are looked for."""
WINDOWS = (30, 90, 365)
"""Days before the discharge in which codes are counted."""

_INSTEAD = {
    "diabetes": "diabetes_complicated",
    "mild_liver": "severe_liver",
    "malignancy": "metastatic",
    "elixhauser_diabetes": "elixhauser_diabetes_complicated",
    "elixhauser_hypertension": "elixhauser_hypertension_complicated",
    "elixhauser_solid_tumour": "elixhauser_metastatic",
}
"""Of two groups of one disease the graver counts."""
_EMERGENCY = r"\bemerg|\bemd\b|\ber\b|^(7|9203|8870|581381)$"
"""How hospitals say that a patient came by the emergency department: words, HL7's and UB-04's codes, OMOP concepts."""


KNOWN_AT = (
    "CASE WHEN e.kind NOT IN ('diagnosis', 'procedure') THEN coalesce(e.time, c.discharge) "
    "WHEN c.kind IN ('stay', 'emergency') AND c.discharge IS NULL THEN NULL ELSE greatest(e.time, c.discharge) END"
)
"""When an event was known: a code of a stay when that ends, however early (or by the day alone) it is stamped; never,
where nobody says when it ended."""
_ENDS = "coalesce(u.discharge, u.admit)"
_OWN = (
    "CASE WHEN u.led IS NOT NULL THEN u.led = s.encounter "
    f"ELSE {_ENDS} >= s.admit - to_hours(12) OR {_ENDS}::DATE = s.admit::DATE END"
)
"""Whether an emergency visit is the one that led to the stay: the source says so, or, where it names no stay, the visit
ends within half a day before, or on that day."""
_VISITS = (
    "(SELECT e.*, p.encounter AS led FROM encounters e LEFT JOIN led l ON l.encounter = e.encounter "
    "LEFT JOIN parts p ON p.part = l.stay WHERE e.kind = 'emergency')"
)


class Group(NamedTuple):
    """Diagnoses that are taken together. points: in the group's own index; lace: in LACE."""

    name: str
    codes: tuple[Code, ...]
    points: int
    lace: int = 0


class Features(NamedTuple):
    """Index stays and what is known of each, in the cohort's order.

    Attributes:
      names: of the columns.
      rows: a number a column; None where it is not known.
      lace: LACE index of each stay, 0 to 19.
      notes: what must be known of them, in sentences.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[float | None, ...], ...]
    lace: tuple[int, ...]
    notes: tuple[str, ...]


def charlson(path: Path | None = None) -> tuple[Group, ...]:
    """The groups of the Charlson index, in the file's order.

    Args:
      path: columns vocabulary, code, match, group, charlson and lace; None takes the shipped one.

    Raises:
      ConfigError: the file is not that.
    """
    return _read(path or shipped("codes", ".csv")["charlson"], "charlson", "lace")


def elixhauser(path: Path | None = None) -> tuple[Group, ...]:
    """The groups of the Elixhauser index, in the file's order; their names begin with "elixhauser_".

    Args:
      path: columns vocabulary, code, match, group and walraven; None takes the shipped one.

    Raises:
      ConfigError: the file is not that.
    """
    found = _read(path or shipped("codes", ".csv")["elixhauser"], "walraven")
    return tuple(group._replace(name=f"elixhauser_{group.name}") for group in found)


def _read(path: Path, *points: str) -> tuple[Group, ...]:
    """points: the columns of those in the index and, if it counts there, in LACE."""

    def one(row: Mapping[str, str]) -> Group:
        return Group(row["group"], (a_code(row),), *(int(row[name]) for name in points))

    found: dict[str, Group] = {}
    for group in lines(path, "groups of diagnoses", ("vocabulary", "code", "match", "group", *points), one):
        first = found.get(group.name)
        found[group.name] = group if first is None else first._replace(codes=(*first.codes, *group.codes))
    return tuple(found.values())


def find(
    records: Records,
    groups: Sequence[Group],
    lookback_days: int = LOOKBACK_DAYS,
    quantities: tuple[measured.Measurement, ...] | None = None,
    also: Sequence[Group] | None = None,
    drugs: tuple[medicines.Medicines, ...] | None = None,
) -> Features:
    """What is known of the index stays that `cohorts.find` has just found in these records.

    Args:
      records: open ones.
      groups: of diagnoses, by Charlson.
      lookback_days: before the admission.
      quantities: of the laboratory and at the bedside; None takes the shipped ones.
      also: groups of diagnoses by Elixhauser; None takes the shipped ones.
      drugs: groups of medicines; None takes the shipped ones.

    Raises:
      DataError: no cohort was looked for yet.
    """
    also, drugs = elixhauser() if also is None else also, medicines.medicines() if drugs is None else drugs
    _known(records, lookback_days)
    ranges = families.families()
    of_families, kinds = families.names(ranges), families.find(records, ranges)
    quantities = measured.measurements() if quantities is None else quantities
    results, remarks = measured.find(records, quantities)
    # what is not in one patient's file says nothing of what the hospital records: there it is taken not to have been
    alone, seen = records.one("SELECT count(DISTINCT patient) = 1 FROM encounters"), _held(records, *_VISIT)
    dosed, visited = alone or _held(records, *_MEDICINE), alone or seen
    there, readable = _groups(records, (*groups, *also)), _readable(records, (*groups, *also), ranges, alone)
    earlier = f"count(u.encounter) FILTER (NOT {_OWN})" if visited else "NULL"
    taken, told = medicines.find(records, drugs, dosed)
    of_drugs, of_results = medicines.names(drugs), measured.names(quantities)
    none = (*_COUNTS, *(of_drugs[: len(drugs)] if dosed else ()))
    coded = ", ".join(f'coalesce("{one}", 0)' if one in none else f'"{one}"' for one in (*_COUNTS, *_SINCE, *of_drugs))
    history = (
        "SELECT s.encounter, count(x.encounter) FILTER (x.discharge >= s.admit - to_days(180)), "
        f"count(x.encounter) FILTER (x.discharge >= s.admit - to_days({lookback_days})), "
        "date_diff('second', max(x.discharge), s.admit) / 86400, "
        "coalesce(sum(date_diff('second', x.admit, x.discharge)) FILTER "
        f"(x.discharge >= s.admit - to_days({lookback_days})), 0) / 86400 "
        "FROM stays s LEFT JOIN every x ON x.patient = s.patient AND x.encounter <> s.encounter "
        "AND x.discharge <= s.admit GROUP BY s.encounter, s.admit"
    )
    urgent = (
        f"SELECT s.encounter, {earlier}, coalesce(bool_or({_OWN}), FALSE) AS own "
        f"FROM stays s LEFT JOIN {_VISITS} u ON u.patient = s.patient AND u.admit >= s.admit - to_days(180) "
        "AND (u.admit <= s.admit OR (u.led = s.encounter AND u.admit::DATE = s.admit::DATE)) GROUP BY s.encounter"
    )
    asked = (
        "SELECT s.encounter, date_sub('year', p.birth, s.admit), "
        "CASE upper(left(p.sex, 1)) WHEN 'F' THEN 1 WHEN 'M' THEN 0 END, "
        "date_diff('second', s.admit, s.discharge) / 86400, "
        f"CASE WHEN u.own THEN 1 WHEN c.admitted_from IS NULL THEN {0 if seen else 'NULL'} "
        f"ELSE regexp_matches(lower(trim(c.admitted_from)), '{_EMERGENCY}')::INTEGER END, "
        f"h.* EXCLUDE (encounter), u.* EXCLUDE (encounter, own), {coded} "
        f"FROM stays s LEFT JOIN patients p USING (patient) LEFT JOIN encounters c ON c.encounter = s.encounter "
        f"JOIN ({history}) h ON h.encounter = s.encounter JOIN ({urgent}) u ON u.encounter = s.encounter "
        f"LEFT JOIN ({_COUNTED}) k ON k.stay = s.encounter LEFT JOIN ({taken}) t ON t.stay = s.encounter "
        "ORDER BY s.patient, s.admit, s.encounter"
    )
    names = (*_PLAIN, *_COUNTS, *_SINCE, *of_drugs, *(group.name for group in groups), "charlson")
    names = (*names, *(group.name for group in also), "elixhauser", *of_families, *of_results)
    rows, scores = [], []
    for stay, *plain in records.sql(asked):
        flags = there.get(stay, frozenset())
        graver = {name for name in flags if _INSTEAD.get(name) not in flags}
        mine, row = results.get(stay, {}), list(plain)
        for index in (groups, also):
            row += [group.name in flags if stay in readable else None for group in index]
            points = sum(group.points for group in index if group.name in graver)
            row.append(points if stay in readable else None)
        row += [name in kinds.get(stay, ()) if stay in readable else None for name in of_families]
        row += [mine.get(name) for name in of_results]
        rows.append(tuple(None if one is None else _number(one) for one in row))
        values, of = dict(zip(_PLAIN, plain, strict=False)), sum(group.lace for group in groups if group.name in graver)
        scores.append(lace(values["stay_days"], values["emergency"], of, values["emergency_180"]))
    unknown = sum(row[names.index("emergency")] is None for row in rows)
    about = _notes(records, len(rows), unknown, len(rows) - len(readable), visited)
    return Features(names, tuple(rows), tuple(scores), (*about, *told, *remarks))


_PLAIN = (
    "age", "female", "stay_days", "emergency", "stays_180", "stays_365", "days_since_stay", "days_in_stays_365",
    "emergency_180",
)  # fmt: skip
_KINDS = ("diagnosis", "procedure", "medicine", "measurement")
_COUNTS = (
    *(f"count_{kind}" for kind in _KINDS),
    *(f"count_{kind}_{days}" for kind in _KINDS for days in WINDOWS),
)
_SINCE = tuple(f"days_since_{kind}" for kind in _KINDS)
_WITHIN = "count(k.code) FILTER (k.kind = '{0}' AND k.last >= s.discharge - to_days({1})) AS count_{0}_{1}"
_COUNTED = (
    "SELECT k.stay, "
    + "".join(f"count(k.code) FILTER (k.here AND k.kind = '{kind}') AS count_{kind}, " for kind in _KINDS)
    + "".join(f"{_WITHIN.format(kind, days)}, " for kind in _KINDS for days in WINDOWS)
    + ", ".join(
        f"date_diff('second', max(k.before) FILTER (k.kind = '{kind}'), s.admit) / 86400 AS days_since_{kind}"
        for kind in _KINDS
    )
    + " FROM known k JOIN stays s ON s.encounter = k.stay GROUP BY k.stay, s.admit, s.discharge"
)
"""Of a stay: different codes in it, and in the windows before its discharge; days since the last code before it."""
_BY_THE_DAY = "moment = date_trunc('day', admit)"
"""Whether an event is stamped by the day of the admission alone: nobody says that it was before."""
_FLOATS = tuple(float(n) for n in range(256))
"""Small numbers, which most features are: each once in memory."""


def _number(value: float) -> float:
    return _FLOATS[value] if isinstance(value, int) and 0 <= value < len(_FLOATS) else float(value)


def _known(records: Records, lookback_days: int) -> None:
    """A row for each code of a stay that was known at its discharge: how often, when last, whether in the stay."""
    records.sql(
        "CREATE OR REPLACE TABLE known AS SELECT stay, kind, code, count(*) AS times, max(moment) AS last, "
        f"bool_or(here) AS here, bool_or(here OR moment >= admit OR {_BY_THE_DAY}) AS within, "
        f"max(moment) FILTER (NOT here AND moment < admit AND NOT {_BY_THE_DAY}) AS before FROM "
        f"(SELECT s.encounter AS stay, s.admit, e.kind, e.code, {KNOWN_AT} AS moment, p.encounter IS NOT NULL AS here "
        "FROM stays s JOIN events e ON e.patient = s.patient LEFT JOIN encounters c ON c.encounter = e.encounter "
        "LEFT JOIN parts p ON p.part = e.encounter AND p.encounter = s.encounter "
        f"WHERE {KNOWN_AT} <= s.discharge AND {KNOWN_AT} >= s.admit - to_days({lookback_days})) "
        "GROUP BY stay, kind, code"
    )


_MEDICINE = ("events", "x.kind = 'medicine' AND coalesce(x.time, last) <= last")
_VISIT = ("encounters", "x.kind = 'emergency' AND x.admit <= last")


def _held(records: Records, table: str, which: str) -> bool:
    """Whether the records hold such a thing at all, of anybody, before the end of a patient's last stay."""
    last = "(SELECT patient, max(discharge) AS last FROM encounters WHERE kind = 'stay' GROUP BY patient)"
    return bool(records.one(f"SELECT EXISTS (SELECT 1 FROM {table} x JOIN {last} USING (patient) WHERE {which})"))


def _readable(
    records: Records, groups: Sequence[Group], ranges: Sequence[families.Range], alone: bool
) -> frozenset[int]:
    """The index stays of which it can be said which groups of diagnoses a patient is in.

    Those with a known diagnosis of a vocabulary that the groups have. A stay without any diagnosis is one where the
    records use such a vocabulary: there an illness would have had a code; so is one of a patient alone, whose records
    hold no diagnosis at all. Codes of others alone, as SNOMED's, say nothing.
    """
    vocabularies = {code.vocabulary for group in groups for code in group.codes} | {one.vocabulary for one in ranges}
    ours = "split_part(x.code, '//', 1) IN (" + ", ".join(f"'{name}'" for name in sorted(vocabularies)) + ")"
    ever = "x.kind = 'diagnosis' AND coalesce(x.time, last) <= last"
    used = _held(records, "events", f"{ever} AND {ours}") or (alone and not _held(records, "events", ever))
    asked = (
        "SELECT s.encounter FROM stays s LEFT JOIN known x ON x.stay = s.encounter AND x.kind = 'diagnosis' "
        f"GROUP BY s.encounter HAVING coalesce(bool_or({ours}), FALSE) OR (count(x.stay) = 0 AND {used})"
    )
    return frozenset(stay for (stay,) in records.sql(asked))


def lace(days: float, emergency: float | None, comorbidity: int, visits: int | None) -> int:
    """The LACE index: length of stay, acuity, comorbidity, emergency visits; 0 to 19.

    Args:
      days: in hospital.
      emergency: whether the patient came by the emergency department; unknown counts as not.
      comorbidity: points of the diagnoses.
      visits: to an emergency department within six months before; unknown counts as none.

    Reference: van Walraven et al., CMAJ 182:551 (2010), table 3.
    """
    length = int(days)
    stay = length if length < 4 else 4 if length < 7 else 5 if length < 14 else 7
    return stay + 3 * bool(emergency) + (comorbidity if comorbidity < 4 else 5) + min(visits or 0, 4)


def _groups(records: Records, groups: Sequence[Group]) -> Mapping[int, frozenset[str]]:
    """Stay -> names of the groups of which a diagnosis is known."""
    records.sql("CREATE OR REPLACE TABLE grouped (code VARCHAR, prefix BOOLEAN, name VARCHAR)")
    lines = [(f"{one.vocabulary}//{one.code}", one.prefix, group.name) for group in groups for one in group.codes]
    records.fill("grouped", lines)
    records.sql(
        "CREATE OR REPLACE TABLE named AS SELECT DISTINCT d.code, g.name FROM (SELECT DISTINCT code FROM known WHERE "
        "kind = 'diagnosis') d JOIN grouped g ON d.code = g.code OR (g.prefix AND starts_with(d.code, g.code))"
    )
    asked = "SELECT stay, list(DISTINCT name) FROM known JOIN named USING (code) WHERE kind = 'diagnosis' GROUP BY stay"
    return {stay: frozenset(names) for stay, names in records.sql(asked)}


def _notes(records: Records, stays: int, emergency: int, illnesses: int, visited: bool) -> tuple[str, ...]:
    """What LACE and the groups lack in these records; and that HOSPITAL is not told.

    Args:
      records: open ones, with the table `known`.
      stays: how many.
      emergency: stays of which it is not known how the patient came.
      illnesses: stays of which no group of diagnoses is known.
      visited: whether the records hold emergency visits.
    """
    notes, of = [], f"of {stays:,} stays"
    if not visited:
        notes.append("these records hold no emergency visits before a discharge: how many there were is not known")
    if emergency:
        notes.append(f"in {emergency:,} {of} it is not known whether the patient came by the emergency department")
    if illnesses:
        notes.append(
            f"in {illnesses:,} {of} no diagnosis has a code of ICD-9-CM or ICD-10: no comorbidity group is known"
        )
    lacks = [(not visited, "emergency visits"), (emergency, "ways in"), (illnesses, "diagnoses")]
    if lacking := " and ".join(what for lack, what in lacks if lack):
        notes.append(f"LACE counts the {lacking} that are not known as none")
    ((coded, diagnoses),) = records.sql(
        "SELECT coalesce(sum(times) FILTER (regexp_matches(code, '^ICD(9|10)CM//')), 0), coalesce(sum(times), 0) "
        "FROM known WHERE kind = 'diagnosis'"
    )
    if coded < diagnoses:
        share = (diagnoses - coded) / diagnoses
        notes.append(f"{share:.0%} of the diagnoses have no code of ICD-9-CM or ICD-10 and are in no comorbidity group")
    notes.append("the HOSPITAL score is not told: it needs the ward's specialty, and which stays were planned")
    return tuple(notes)


def as_csv(cohort: Cohort, found: Features, histories: Sequence[str | None] | None = None) -> str:
    """patient, encounter, outcome, then a column a feature and LACE, and "history"; an unknown value is empty.

    Who died or was lost has no outcome to learn from, and no row: a rule whose `censoring` is "not_told" counts them as
    not readmitted.
    """
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    more = ([] if histories is None else [one or ""] for one in histories or [None] * len(found.rows))
    writer.writerow(
        ["patient", "encounter", "outcome", *found.names, "lace", *([] if histories is None else ["history"])]
    )
    for stay, row, score, history in zip(cohort.stays, found.rows, found.lace, more, strict=True):
        if stay.outcome not in (READMITTED, NOT_READMITTED):
            continue
        told = ["" if value is None else f"{value:.10g}" for value in row]
        writer.writerow([stay.patient, stay.encounter, stay.outcome, *told, score, *history])
    return lines.getvalue()
