"""Every call from the terminal into the rest of the house, in one place; each imports what it needs when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from learner_jax.errors import StudyError
from learner_jax.events import Observer
from learner_jax.specs import Study

Result = Mapping[str, Any]


def simulate(study: Study, workdir: Path, on_event: Observer, resume: bool) -> None:
    """Runs the study in this process."""
    module("api").simulate(study, workdir=workdir, on_event=on_event, resume=resume)


def local(study: Study, workdir: Path, on_event: Observer, sites: int | None) -> None:
    """Runs it as processes on this machine."""
    module("engines.local").local(study, workdir=workdir, sites=sites, on_event=on_event)


def coordinator(study: Study, workdir: Path, on_event: Observer, host: str, port: int) -> None:
    """Serves it to sites elsewhere."""
    module("engines.coordinator").serve(study, workdir=workdir, on_event=on_event, host=host, port=port)


def join(code: str, data: Path, workdir: Path, on_event: Observer) -> None:
    """Takes part with this site's data."""
    module("engines.worker").join(code, data=data, workdir=workdir, on_event=on_event)


def result_of(folder: Path) -> Result:
    """The result.json of a run's folder.

    Raises:
      StudyError: the run there has not finished.
      StorageError: no run is there, or its file is broken.
    """
    if (folder / "metrics.jsonl").exists() and not (folder / "result.json").exists():
        raise StudyError(f"{folder}: expected a finished run, found one that has not finished")
    return module("reports.result").load(folder)


def table(result: Result) -> str:
    """The end table and its sentences, as plain text."""
    return module("reports.table").text(result)


def page(result: Result, path: Path) -> None:
    """Writes the result as one HTML page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(module("reports.html").page(result), encoding="utf-8")


def compare(results: Sequence[Result]) -> str:
    """Runs side by side, as plain text."""
    return module("reports.compare").text(results)


def data_sets() -> list[Mapping[str, Any]]:
    """What can be fetched: name, licence, citation, ..."""
    return module("data.fetch").listed()


def fetch(name: str, into: Path | None, progress: Callable[[int, int | None], None]) -> Path:
    """Gets a public data set; progress(bytes so far, bytes in all)."""
    return module("data.fetch").fetch(name, into=into, progress=progress)


def check_table(study: Study, path: Path) -> Sequence[str]:
    """Remarks on a site's table that fits what the study asks for.

    Raises:
      DataError: all that does not fit, in one line.
    """
    from learner_jax import specs

    frame = module("data.tables").read(path)
    return specs.make(study.task).checklist.check(frame, str(path))


def versions() -> dict[str, str]:
    """Of learner, of what it stands on, and of Python; read from what is installed, nothing is imported."""
    import platform
    from importlib import metadata

    found = {}
    for name in ("learner-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "pyzmq"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return {**found, "python": platform.python_version()}


def module(name: str) -> Any:
    """A module of ours; where it is not there yet, an error in one line."""
    full = f"learner_jax.{name}"
    try:
        return importlib.import_module(full)
    except ModuleNotFoundError as error:
        if error.name and full.startswith(error.name):
            raise StudyError(f"this build of learner has no {full}") from error
        raise
