"""FHIR R4: bulk exports (NDJSON, gzipped or not) and bundles.

A resource is known by its `resourceType`, not by its file's name. A stay in a hospital is an Encounter of an inpatient
class, or one that says from where the patient was admitted and on which ward or service: some publishers know no class
IMP. An Encounter that is part of another (intensive care) is not counted beside it; an emergency visit that is part of
the stay that it led to is a visit still, and of which stay is kept. A Condition needs neither a date nor a status; its
time is then the end of its encounter. References may be relative, absolute, a `urn:uuid:`, or conditional. A
MedicationRequest names its medicine itself, or by a Medication elsewhere or within it (by the ingredients of that,
where it has no code of its own), or in words alone.

Reference: HL7 FHIR R4 (4.0.1): Encounter, Condition; Bulk Data Access IG.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import NamedTuple

from learner_jax.data.doors import codes
from learner_jax.data.doors.records import Records, quoted
from learner_jax.errors import DataError

INPATIENT = ("IMP", "ACUTE", "NONAC", "OBSENC", "SS")
"""Classes of stays (HL7 v3 ActCode): inpatient, acute, non-acute, observation, short stay."""
_IS_STAY = f"(coalesce({{0}}.class, '') IN {INPATIENT} OR ({{0}}.admitted_from IS NOT NULL AND {{0}}.placed))"
_SUFFIXES = (".ndjson", ".ndjson.gz", ".jsonl", ".jsonl.gz", ".json", ".json.gz")
_LARGEST_LINE, _LARGEST_BUNDLE = 16 * 2**20, 256 * 2**20
_HEAD = 2**16


class _Clinical(NamedTuple):
    """A resource of clinical events: where its code and its times are, and what it is."""

    type: str
    code: str
    times: tuple[str, ...]
    kind: str


_CLINICAL = (
    _Clinical("Condition", "code", ("recordedDate", "onsetDateTime", "onsetPeriod.start"), "diagnosis"),
    _Clinical("Procedure", "code", ("performedDateTime", "performedPeriod.start"), "procedure"),
    _Clinical("MedicationRequest", "medicationCodeableConcept", ("authoredOn",), "medicine"),
    _Clinical("Observation", "code", ("effectiveDateTime", "effectivePeriod.start", "issued"), "measurement"),
)


def files_in(source: Path) -> list[Path]:
    """Files that may hold resources."""
    if source.is_file():
        return [source]
    found = (path for path in source.rglob("*") if path.name.lower().endswith(_SUFFIXES))
    return sorted(path for path in found if not path.name.startswith("."))


def is_here(source: Path) -> bool:
    """Whether one of the first files begins with a resource or a bundle."""
    return any(_head(path) for path in files_in(source)[:20])


def _head(path: Path) -> str:
    """The type of a file's first resource, "Bundle" for one that spans lines; "" where it is none."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            start = file.read(_HEAD).decode("utf-8", "replace")
    except (OSError, EOFError):
        return ""
    try:
        found = json.loads(start.split("\n", 1)[0])
        return str(found.get("resourceType") or "") if isinstance(found, dict) else ""
    except ValueError:
        return "Bundle" if '"resourceType"' in start and '"Bundle"' in start else ""


def read(source: Path, records: Records) -> None:
    """Fills the tables.

    Raises:
      DataError: no resources, or none of patients or encounters.
    """
    heads = {path: head for path in files_in(source) if (head := _head(path))}
    if not heads:
        raise DataError(f"{source}: expected FHIR resources (.ndjson, .ndjson.gz) or bundles (.json), got none")
    records.sql("CREATE TABLE resources (type VARCHAR, json JSON)")
    for path, head in heads.items():
        if head == "Bundle":
            told = f"read_json_objects({quoted([path])}, format='auto', maximum_object_size={_LARGEST_BUNDLE})"
            told = f"(SELECT unnest((json->'$.entry[*].resource')) AS json FROM {told})"
        else:
            told = f"read_ndjson_objects({quoted([path])}, maximum_object_size={_LARGEST_LINE})"
        records.sql(f"INSERT INTO resources SELECT json->>'$.resourceType', json FROM {told}")
    there = dict(records.sql("SELECT type, count(*) FROM resources GROUP BY type"))
    lacking = [name for name in ("Patient", "Encounter") if not there.get(name)]
    if lacking:
        raise DataError(f"{source}: expected FHIR resources Patient and Encounter, got no {', no '.join(lacking)}")
    records.sql(
        "CREATE MACRO target(reference) AS "
        "regexp_extract(reference, '(?:identifier=(?:.*\\|)?|^urn:uuid:|.*/|^)([^/|]+)$', 1)"
    )
    _patients(records)
    _encounters(records)
    records.sql(
        "CREATE TABLE ranked AS SELECT target(d->>'$.condition.reference') AS id, 1 AS rank FROM (SELECT "
        "unnest((json->'$.diagnosis[*]')) AS d FROM resources WHERE type = 'Encounter') "
        "WHERE (d->>'$.rank') = '1' GROUP BY 1"
    )
    _medications(records)
    for about in _CLINICAL:
        if there.get(about.type):
            _events(records, about)


def _at(*paths: str) -> str:
    """SQL: the first of these paths that says something."""
    return "coalesce(" + ", ".join(f"json->>'$.{path}'" for path in paths) + ")"


def _patients(records: Records) -> None:
    records.sql(
        f"INSERT INTO patients SELECT row_number() OVER (ORDER BY {_at('id')}), {_at('id')}, "
        f"{_at('identifier[0].value', 'id')}, wall({_at('birthDate')}), lower({_at('gender')}), "
        f"wall({_at('deceasedDateTime')}) FROM resources WHERE type = 'Patient'"
    )


def _encounters(records: Records) -> None:
    came = ("hospitalization.admitSource.coding[0].code", "hospitalization.admitSource.text")
    went = ("hospitalization.dischargeDisposition.coding[0].code", "hospitalization.dischargeDisposition.text")
    records.sql(
        f"CREATE TABLE visits AS SELECT row_number() OVER (ORDER BY {_at('id')}) AS encounter, {_at('id')} AS id, "
        f"{_at('identifier[0].value', 'id')} AS number, target({_at('subject.reference')}) AS subject, "
        f"target({_at('partOf.reference')}) AS whole, upper({_at('class.code')}) AS class, "
        f"wall({_at('period.start')}) AS admit, wall({_at('period.end')}) AS discharge, "
        f"{_at(*came)} AS admitted_from, {_at(*went)} AS discharged_to, "
        "(json->'$.location') IS NOT NULL OR (json->'$.serviceType') IS NOT NULL AS placed "
        "FROM resources WHERE type = 'Encounter' "
        f"AND coalesce({_at('status')}, '') NOT IN ('cancelled', 'entered-in-error', 'planned')"
    )
    records.sql(
        "INSERT INTO encounters SELECT v.encounter, p.patient, v.id, v.number, "
        "CASE WHEN whole.encounter IS NOT NULL THEN CASE WHEN v.class = 'EMER' AND "
        f"({_IS_STAY.format('whole')} OR whole.class IS DISTINCT FROM 'EMER') THEN 'emergency' ELSE 'other' END "
        f"WHEN {_IS_STAY.format('v')} THEN 'stay' "
        "WHEN v.class = 'EMER' THEN 'emergency' ELSE 'other' END, v.admit, v.discharge, v.admitted_from, "
        "v.discharged_to FROM visits v LEFT JOIN patients p ON p.id = v.subject "
        "LEFT JOIN visits whole ON whole.id = v.whole"
    )
    records.sql(
        "INSERT INTO led SELECT v.encounter, whole.encounter FROM visits v JOIN visits whole ON whole.id = v.whole "
        "JOIN encounters e ON e.encounter = v.encounter AND e.kind = 'emergency'"
    )
    odd = records.one(
        "SELECT count(*) FROM encounters JOIN visits v USING (encounter) "
        f"WHERE kind = 'stay' AND v.class NOT IN {INPATIENT}"
    )
    if odd:
        told = (
            "encounters count as stays that have no inpatient class: they say from where, and on which ward or service"
        )
        records.notes.append(f"{odd} {told}")


_ORDERED = (
    "(SELECT *, (json->'$.medicationCodeableConcept.coding[*]') AS own, CASE WHEN starts_with(reference, '#') "
    "THEN (json->>'$.id') || reference ELSE target(reference) END AS medicine FROM (SELECT *, "
    "json->>'$.medicationReference.reference' AS reference, concat_ws(' ', "
    "json->>'$.medicationCodeableConcept.text', json->>'$.medicationReference.display') AS said FROM resources "
    "WHERE type = 'MedicationRequest')) LEFT JOIN medications m ON m.id = medicine"
)
"""Requests, and the Medication that each names; one that lies within its request ("#x") is known by both keys."""
_MEDICINES = (
    "unnest(CASE WHEN len(own) > 0 THEN list_transform(own, lambda one: {'coding': one, 'words': said}) "
    "WHEN len(m.parts) > 0 THEN m.parts "
    "WHEN said <> '' THEN [{'coding': json_object('code', said), 'words': said}] END, recursive := true)"
)
"""The codings of a request, each with the words for it: its own, its Medication's, or its words alone."""


def _medications(records: Records) -> None:
    """A row for each Medication: its codings, else those of its ingredients, each with the words for it.

    The words are its text and its identifiers, for some publishers put the name there.
    """
    records.sql(
        "CREATE TABLE substances AS SELECT json->>'$.id' AS id, json FROM resources WHERE type = 'Medication' "
        "UNION ALL SELECT within || '#' || (json->>'$.id'), json FROM (SELECT json->>'$.id' AS within, "
        "unnest((json->'$.contained[*]')) AS json FROM resources WHERE type = 'MedicationRequest') "
        "WHERE (json->>'$.resourceType') = 'Medication'"
    )
    records.sql(
        "CREATE TABLE medications AS WITH parts AS (SELECT id, unnest((json->'$.ingredient[*]')) AS part FROM "
        "substances WHERE coalesce(json_array_length(json, '$.code.coding'), 0) = 0), "
        "named AS (SELECT id, json->'$.code' AS concept, json FROM substances "
        "UNION ALL SELECT id, part->'$.itemCodeableConcept', NULL FROM parts "
        "UNION ALL SELECT p.id, s.json->'$.code', s.json FROM parts p JOIN substances s "
        "ON s.id = target(p.part->>'$.itemReference.reference')) "
        "SELECT id, list({'coding': coding, 'words': words}) AS parts FROM (SELECT id, "
        "unnest((concept->'$.coding[*]')) AS coding, concat_ws(' ', concept->>'$.text', "
        "array_to_string((json->>'$.identifier[*].value'), ' ')) AS words FROM named) GROUP BY id"
    )


_NEVER_DONE = "('entered-in-error', 'cancelled', 'draft', 'not-done', 'preparation', 'registered')"
_NO_ORDER = "('proposal', 'plan', 'option')"


def _events(records: Records, about: _Clinical) -> None:
    """An event for each coding of a resource; what was refuted, entered in error or never done is none.

    An order that was stopped later stays: its status is that of the day of the export.
    """
    system, code = codes.vocabulary("coding->>'$.system'"), "coding->>'$.code'"
    shape = codes.by_shape(code) if about.kind == "diagnosis" else "NULL"
    codings, of = f"unnest((json->'$.{about.code}.coding[*]')) AS coding", "resources"
    if about.kind == "medicine":
        codings, of = _MEDICINES, _ORDERED
    rows = (
        f"(SELECT {_at('id')} AS id, target({_at('subject.reference')}) AS subject, "
        f"target({_at('encounter.reference')}) AS visit, "
        f"wall({_at(*about.times)}) AS time, try_cast({_at('valueQuantity.value')} AS DOUBLE) AS value, "
        f"{_at('valueQuantity.code', 'valueQuantity.unit')} AS unit, {codings} "
        f"FROM {of} WHERE type = '{about.type}' "
        f"AND coalesce({_at('verificationStatus.coding[0].code')}, '') NOT IN ('refuted', 'entered-in-error') "
        f"AND coalesce({_at('status')}, '') NOT IN {_NEVER_DONE} "
        f"AND coalesce({_at('doNotPerform')}, '') <> 'true' "
        f"AND ({_at('intent')} IS NULL OR {_at('intent')} NOT IN {_NO_ORDER}))"
    )
    coded = f"coded(coalesce({system}, {shape}, 'UNKNOWN'), {code})"
    if about.kind == "medicine":
        records.sql(f"CREATE TABLE ordered AS SELECT * FROM {rows}")
        rows, label = "ordered", f"unnest([words, coding->>'$.display', {code}]) AS label"
        records.sql(
            f"INSERT INTO labels SELECT DISTINCT code, trim(label) FROM (SELECT {coded} AS code, {label} FROM ordered) "
            "WHERE trim(label) <> ''"
        )
    records.sql(
        f"INSERT INTO events SELECT p.patient, coalesce(r.time, e.discharge, e.admit), {coded}, r.value, r.unit, "
        f"e.encounter, '{about.kind}', NULL, f.rank FROM {rows} r LEFT JOIN patients p ON p.id = r.subject "
        "LEFT JOIN encounters e ON e.id = r.visit LEFT JOIN ranked f ON f.id = r.id"
    )
