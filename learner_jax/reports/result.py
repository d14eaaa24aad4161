"""result.json: everything that a finished run knows about itself, as one plain dict."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from learner_jax.errors import CorruptError, StorageError

Result = dict[str, Any]  # laid out as ResultFields; a dict, since it comes from JSON


class Figure(TypedDict):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float
    se: NotRequired[float]


class Site(TypedDict):
    """One row of the results; see `learner_jax.evaluation.summary`. None: withheld."""

    name: str
    rows: int | None
    patients: int | None
    events: int | None
    models: dict[str, dict[str, Any]]
    gain: dict[str, dict[str, Figure | None]]
    how: NotRequired[str]


class Cohort(TypedDict):
    """Whom the models were judged on."""

    name: str
    sites: list[Site]
    all: Site
    average: NotRequired[Site]
    calibration: list[dict[str, float]]
    intercept: float | None
    slope: float | None


class ResultFields(TypedDict):
    """The fields of result.json.

    `curve` has one dict a round: "round", metrics by name ("train/loss", "valid/auroc"; "valid/auroc/se" where a
    standard error is known), "seconds", "bytes_up", "bytes_down", "sites", "lost". `words` may name what is counted:
    see `learner_jax.reports.words.Nouns`. `machine` is that of the process that wrote the result, of a federation the
    coordinator's: see `learner_jax.engines.outcome.machine`. `forecast` is what a federation was told to take and,
    under "was", what it took: see `learner_jax.engines.forecast`.

    `data` is what is known of the rows: "inputs", as `learner_jax.data.described.described`, from the sums that sites
    let leave; in a simulation also "source" (the name alone), "dealt" (rows, patients and events of "train", "valid"
    and "test") and "chosen" (of each table with a cohort file, see `learner_jax.data.cohort_file`). Of a federation
    those three stay at the sites.
    """

    study: dict[str, Any]
    kind: str
    started: str
    seconds: float
    rounds: int
    best_round: int | None
    weights_sha256: str
    bytes_up: int
    bytes_down: int
    curve: list[dict[str, Any]]
    evaluation: dict[str, Any]
    versions: dict[str, str]
    device: str
    machine: NotRequired[dict[str, Any]]
    command: str
    notes: list[str]
    words: NotRequired[dict[str, str]]
    forecast: NotRequired[dict[str, Any]]
    data: NotRequired[dict[str, Any]]


ENOUGH = 10
"""Rows with the outcome, and without, below which nothing is said of them."""
NEEDED = ("study", "kind", "rounds", "curve")


def save(result: Result, path: str | os.PathLike[str]) -> None:
    """Write result.json whole or not at all; nan and infinities become null.

    Args:
      result: laid out as ResultFields.
      path: the file.

    Raises:
      StorageError: it cannot be written.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(json.dumps(_plain(result), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: expected to write the result, got {error.strerror or error}") from None


def load(path: str | os.PathLike[str]) -> Result:
    """Read a result.json, or that of a run's folder.

    Args:
      path: the file, or the folder that it lies in.

    Raises:
      StorageError: there is none.
      CorruptError: it is not one.
    """
    path = Path(path)
    path = path / "result.json" if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = ""
        if (path.parent / "model.json").exists():
            hint = "; this is a model alone, its report is in the folder of the run that it came from"
        raise StorageError(f"{path}: expected the result of a finished run, found no such file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{path}: expected the result of a run, got {error}") from None
    try:
        result = json.loads(text)
    except json.JSONDecodeError as error:
        raise CorruptError(
            f"{path}: expected a run's folder, its result.json or a cohort file, got no JSON ({error.msg}, line "
            f"{error.lineno})"
        ) from None
    missing = [name for name in NEEDED if not isinstance(result, dict) or name not in result]
    if missing:
        raise CorruptError(f"{path}: expected the result of a run, got JSON without {', '.join(missing)}")
    return result


def _plain(value: Any) -> Any:
    """As JSON knows it: NumPy scalars and arrays unpacked, nan and infinities as None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# ---------------------------------------------------------------------------------------------- looking things up


def cohorts(result: Result) -> list[dict[str, Any]]:
    """Whom the models were judged on, the first being what the study is about; [] if nothing was judged."""
    return list((result.get("evaluation") or {}).get("cohorts") or [])


def telling(result: Result, name: str) -> dict[str, Any] | None:
    """The first cohort of which `name` ("calibration", "decisions") is known, else the first; None: nothing was judged.

    In a federation it is known of one cohort alone: that whose histogram sites let leave.
    """
    judged = cohorts(result)
    return next((cohort for cohort in judged if cohort.get(name)), judged[0] if judged else None)


def figure(site: dict[str, Any] | None, model: str, name: str) -> dict[str, float] | None:
    """A model's figure at a site, or None."""
    return ((site or {}).get("models") or {}).get(model, {}).get(name) or None


def gain(site: dict[str, Any] | None, other: str, name: str = "auroc") -> dict[str, float] | None:
    """The joint model's gain over `other` at a site, or None."""
    return ((site or {}).get("gain") or {}).get(f"{joint(site)}-{other}", {}).get(name) or None


def joint(site: dict[str, Any] | None) -> str:
    """Which model is the study's own: "federated", or the first."""
    models = (site or {}).get("models") or {}
    return "federated" if "federated" in models or not models else next(iter(models))


def kept_at_sites(result: Result) -> bool:
    """Whether sites judged the model and none told a figure: each had too few events to let one leave."""
    judged = cohorts(result)
    told = any(site.get("models") for cohort in judged for site in [*cohort.get("sites", []), cohort.get("all") or {}])
    return bool(judged) and not told and any((cohort.get("all") or {}).get("withheld") for cohort in judged)


def has_intervals(result: Result) -> bool:
    """Whether any figure of the evaluation has its interval."""
    everyone = [
        site
        for cohort in cohorts(result)
        for site in [*cohort.get("sites", []), cohort.get("all") or {}, cohort.get("average") or {}]
    ]
    models = [model for site in everyone for model in (site.get("models") or {}).values()]
    return any(isinstance(one, Mapping) and "low" in one for model in models for one in model.values())


def watching(result: Result) -> tuple[int, int] | None:
    """(rows, events) set aside for watching, all sites together; None where not known, as in a federation."""
    found = ((result.get("data") or {}).get("dealt") or {}).get("valid") or {}
    return (found["rows"], found["events"]) if "events" in found else None


def few_watching(result: Result) -> bool:
    """Whether too few rows, or too few with or without the outcome, are watched to say how a model fares on them."""
    found = watching(result)
    return found is not None and min(found[1], found[0] - found[1]) < ENOUGH


def asked_ways(result: Result) -> list[str]:
    """Names of the subgroups that the config asks for."""
    task = (result.get("study") or {}).get("task") or {}
    asked = (task.get("fields") or {}).get("subgroups") or [] if isinstance(task, dict) else []
    return [str(way["name"] if isinstance(way, Mapping) else way).replace("_", " ") for way in asked]


def rounds_seconds(result: Result) -> float | None:
    """What the learning rounds took by themselves; None where no round was timed."""
    took = [float(row["seconds"]) for row in result.get("curve") or [] if row.get("seconds") is not None]
    return sum(took) if took else None


def within(cohort: dict[str, Any]) -> dict[str, Any]:
    """The SITE that compares patients within each site only: the average over sites, else all rows together."""
    return cohort.get("average") or cohort.get("all") or {}
