"""`learner predict`: a trained model's chances, for a table, for health records, or for one patient by a form."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from learner_jax.cli import doors, environment
from learner_jax.cli.flags import Parsed
from learner_jax.errors import ConfigError, DataError

_OF_RECORDS = ("patient", "encounter", "every", "at", "cohort", "door", "schema")
_MOVERS = 10
"""So many contributions are printed; --json has all."""


def predict(parsed: Parsed) -> int:
    """Says what the model of a run says."""
    values = parsed.values
    if len(parsed.words) != 1:
        raise ConfigError(f"expected one run's folder, got {len(parsed.words)}: learner predict RUN --records=PATH")
    given = [name for name in ("records", "data", "form", "value") if values[name]]
    if len(given) != 1:
        got = " and ".join(f"--{name}" for name in given) or "none"
        raise ConfigError(f"expected one of --records, --data, --form and --value, got {got}")
    foreign = [name for name in _OF_RECORDS if values[name] and given != ["records"]]
    if foreign:
        raise ConfigError(f"--{foreign[0]} goes with --records, got --{given[0]}")
    if values["form"] and not sys.stdin.isatty():
        raise ConfigError("--form: expected a terminal to ask at; give --value=NAME=VALUE in its place")
    if values["out"] and given[0] in ("form", "value"):
        raise ConfigError(f"--out goes with --records and --data, got --{given[0]}")
    at, said = _moment(values["at"]), _pairs(values["value"] or ())
    environment.apply(environment.for_one_site())
    model = doors.trained(Path(parsed.words[0]))
    if given == ["records"]:
        return _of_records(model, values, at)
    if given == ["data"]:
        return _of_table(model, values)
    return _of_one(model, _asked(model) if values["form"] else said, values["json"])


def _of_records(model: Any, values: dict[str, Any], at: datetime | None) -> int:
    asked = {name: values[name] or None for name in _OF_RECORDS} | {"every": values["every"], "at": at}
    found = model.predict_records(values["records"], **asked)
    rows = [(row.patient, row.encounter, row.chance) for row in found.table.itertuples()]
    if values["json"]:
        told = [dict(zip(("patient", "encounter", "chance"), row, strict=True)) for row in rows]
        print(json.dumps({"stays": told, "notes": list(found.notes)}))
    if values["out"]:
        doors.write(Path(values["out"]), _csv(("patient", "encounter", "chance"), rows))
    if values["json"]:
        return 0
    if len(rows) == 1:
        ((patient, encounter, chance),) = rows
        until = f"{found.table['until'].iloc[0]:%Y-%m-%d %H:%M}"
        print(f"patient {patient}, stay {encounter}, as of {until}: chance {chance:.3f}")
        with contextlib.suppress(DataError):  # events in time have no list of inputs
            _print_movers(model.contributions(found.features).iloc[0])
    elif not values["out"]:
        print(_csv(("patient", "encounter", "chance"), rows), end="")
    people = sys.stdout if len(rows) == 1 or values["out"] else sys.stderr
    if values["out"]:
        print(f"{values['out']}: chances of {len(rows):,} stays", file=people)
    _print_notes(found.notes, people)
    return 0


def _of_table(model: Any, values: dict[str, Any]) -> int:
    frame = doors.read_table(Path(values["data"]))
    told = model.predict(frame)
    if isinstance(told, dict):
        return _of_cells(model, frame, told, values)
    chances = [_plain(chance) for chance in told]
    kept = [name for name in ("patient", "encounter") if name in frame.columns]
    rows = [
        (*(str(one) for one in who), chance) for *who, chance in zip(*(frame[k] for k in kept), chances, strict=True)
    ]
    if not kept:
        kept, rows = ["row"], list(zip(frame.index, chances, strict=True))
    if values["out"]:
        doors.write(Path(values["out"]), _csv((*kept, "chance"), rows))
    if values["json"]:
        print(json.dumps({"rows": [dict(zip((*kept, "chance"), row, strict=True)) for row in rows]}))
    elif values["out"]:
        print(f"{values['out']}: chances of {len(rows):,} rows")
    else:
        print(_csv((*kept, "chance"), rows), end="")
    return 0


def _of_cells(model: Any, cells: Any, told: dict[str, Any], values: dict[str, Any]) -> int:
    """Each cell's proteins: what is expected of each, the ends of its interval, and its type where that is learned."""
    task = model.parts.study.task.fields
    header, columns = ["cell"], [list(cells.obs.index)]
    for at, name in enumerate(task["panel"]):
        for part, after in (("mean", ""), ("low", "_low"), ("high", "_high")):
            header.append(f"{name}{after}")
            columns.append(told[part][:, at].tolist())
    if "types" in told:
        header.append("cell_type")
        columns.append([task["types"][place] for place in told["types"].argmax(axis=1)])
    rows = list(zip(*columns, strict=True))
    out = values["out"]
    if out and Path(out).suffix.lower() == ".h5ad":
        doors.write_cells(Path(out), cells, tuple(task["panel"]), told, dict(zip(header, columns, strict=True)))
    elif out:
        doors.write(Path(out), _csv(header, rows))
    if values["json"]:
        print(json.dumps({"cells": [dict(zip(header, row, strict=True)) for row in rows]}))
    elif out:
        print(f"{out}: {len(task['panel'])} proteins of {len(rows):,} cells")
    else:
        print(_csv(header, rows), end="")
    return 0


def _of_one(model: Any, said: dict[str, str], machine: bool) -> int:
    found = model.predict_one(said)
    chance = _plain(found.chance)
    if machine:
        moved = None if found.contributions is None else found.contributions.to_dict()
        print(json.dumps({"chance": chance, "contributions": moved, "notes": list(found.notes)}))
        return 0
    print(f"chance {chance:.3f}" if isinstance(chance, float) else f"output {chance}")
    if found.contributions is not None:
        _print_movers(found.contributions, found.given)
    _print_notes(found.notes, sys.stdout)
    return 0


def _asked(model: Any) -> dict[str, str]:
    """The answers of who sits at the terminal; an answer that does not fit is asked for again."""
    forms, checklist = doors.forms(), model.parts.task.checklist
    if checklist is None or model.fitted is None:
        raise DataError("--form: expected a study with a checklist, whose columns have names; this one has arrays")
    print("Enter where it is not known; Ctrl-C to stop.")
    said: dict[str, str] = {}
    for column in forms.questions(checklist):
        about = f"; {column.about}" if column.about else ""
        while True:
            try:
                answer = input(f"{column.name} ({column.expected()}{about}): ").strip()
            except EOFError:
                raise DataError("--form: the answers ended before the last question") from None
            wrong = forms.problem(checklist, model.fitted, {**said, column.name: answer}, column.name)
            if wrong is None:
                break
            print(f"  {wrong}")
        if answer:
            said[column.name] = answer
    return said


def _pairs(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in given:
        name, equals, value = (part.strip() for part in one.partition("="))
        if not (name and equals):
            raise ConfigError(f"--value: expected NAME=VALUE, got {one!r}")
        if name in found:
            raise ConfigError(f"--value: {name} is given twice")
        found[name] = value
    return found


def _moment(text: str | None) -> datetime | None:
    """Hospitals' clocks have no zone."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--at: expected a time such as 2026-03-01T12:00, got {text!r}") from None
    if found.tzinfo is not None:
        raise ConfigError(f"--at: expected the hospital's own clock, without a zone, got {text!r}")
    return found


def _plain(chance: Any) -> Any:
    """A number, or the list of them that a model with several outputs gives."""
    return float(chance) if getattr(chance, "ndim", 0) == 0 else chance.tolist()


def _print_movers(moved: Any, given: Sequence[str] | None = None) -> None:
    """The largest contributions; of a form, of what was given first.

    Args:
      moved: by input.
      given: columns of which a value was given; None where all were looked up.
    """
    ranked = list(moved.reindex(moved.abs().sort_values(ascending=False, kind="stable").index).items())
    print("What moves it, in log odds, from where numbers are at their mean and flags at 0:")
    said = [one for one in ranked if given is None or _column_of(one[0], given)]
    for name, value in said[:_MOVERS]:
        print(f"  {value:+.3f}  {name}")
    rest = [one for one in ranked if one not in said and abs(one[1]) > 0]
    if rest:
        print("What was not given moves it too, by what is taken in its place:")
        for name, value in rest[: _MOVERS // 2]:
            print(f"  {value:+.3f}  {name}")


def _column_of(name: str, given: Sequence[str]) -> bool:
    """Whether an input is of one of these columns: itself, a code of it, or that it is missing."""
    return any(name == one or name.startswith((f"{one} = ", f"{one} #", f"{one} missing")) for one in given)


def _print_notes(notes: Iterable[str], people: Any) -> None:
    for note in notes:
        print(f"Note: {note}.", file=people)


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerows([header, *rows])
    return lines.getvalue()
