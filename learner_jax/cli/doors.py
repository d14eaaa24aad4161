"""Every call from the terminal into the rest of the house, in one place; each imports what it needs when it is used."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learner_jax.errors import DataError, StorageError, StudyError
from learner_jax.events import Observer
from learner_jax.specs import Study

if TYPE_CHECKING:
    from learner_jax.network.tunnel import Proxy

Result = Mapping[str, Any]
COHORT = ".cohort.json"
"""How the name of a table's cohort file ends."""


def simulate(study: Study, workdir: Path, on_event: Observer, resume: bool, profile: str | None = None) -> None:
    """Runs the study in this process."""
    module("api").simulate(study, workdir=workdir, on_event=on_event, resume=resume, profile=profile)


def joined(where: str) -> bool:
    """Joins this process to the others that simulate the same study; True if it is the first."""
    machines = module("engines.machines")
    machines.join(where)
    return machines.first()


def local(
    study: Study, workdir: Path, on_event: Observer, resume: bool, sites: int | None, profile: str | None = None
) -> None:
    """Runs it as processes on this machine."""
    module("api").local(study, workdir=workdir, sites=sites, on_event=on_event, resume=resume, profile=profile)


def coordinator(
    study: Study,
    workdir: Path,
    on_event: Observer,
    resume: bool,
    sites: Sequence[str],
    host: str | None,
    port: int | None,
    address: str | None,
    broker: str | None = None,
    profile: str | None = None,
) -> None:
    """Serves it to sites elsewhere."""
    where = {"host": host, "port": port, "address": address, "broker": broker, "profile": profile}
    module("api").coordinate(study, workdir=workdir, sites=sites, on_event=on_event, resume=resume, **where)


def rotate(folder: Path, proxy: Proxy | None) -> str:
    """Gives a site new keys; returns its name."""
    return module("engines.rotate").rotate(folder, proxy).site


def revoke(folder: Path, site: str, reason: str) -> bool:
    """Takes a site off a coordinator's roster; whether a running coordinator did it at once."""
    return module("engines.requests").ask_to_revoke(folder, site, reason)


def invite(folder: Path, site: str) -> Path | None:
    """Has a coordinator make one more join code; None if none runs."""
    return module("engines.requests").ask_to_invite(folder, site)


def broker(
    names: Sequence[str],
    folder: Path,
    on_event: Observer,
    host: str,
    port: int,
    address: str | None,
    opened: Callable[[str, Mapping[str, Path]], None],
) -> None:
    """Serves as a broker until stopped."""
    module("engines.broker").run_broker(names, folder, on_event, host, port, address, opened)


def join(
    code: str | None,
    data: Path,
    workdir: Path,
    site: str | None,
    proxy: Proxy | None,
    on_event: Observer,
    release_histograms: bool,
    profile: str | None = None,
) -> None:
    """Takes part with this site's data."""
    module("api").join(
        code,
        data=data,
        workdir=workdir,
        site=site,
        proxy=proxy,
        on_event=on_event,
        release_histograms=release_histograms,
        profile=profile,
    )


def forecast(study: Study, sites: Sequence[str] | None) -> tuple[Mapping[str, Any], bool]:
    """What it will take, and whether the sites' tables were seen; nothing is started."""
    return module("engines.expected").beforehand(module("api").built(study), sites)


def has_joined(workdir: Path) -> bool:
    """Whether a site's folder has joined a study already."""
    return (workdir / "membership.json").exists()


def result_of(folder: Path) -> Result:
    """The result.json of a run's folder.

    Raises:
      StudyError: the run there has not finished.
      StorageError: no run is there, or its file is broken.
    """
    if (folder / "metrics.jsonl").exists() and not (folder / "result.json").exists():
        raise StudyError(f"{folder}: expected a finished run, found one that has not finished")
    return module("reports.result").load(folder)


def backup(run: Path, out: Path) -> Result:
    """A coordinator's state as one file; what it holds, by name."""
    return module("storage.backup").backup(run, out)._asdict()


def restore(file: Path, workdir: Path) -> Result:
    """A coordinator's state out of such a file; what it holds, by name."""
    backup = module("storage.backup")
    return backup.restore(file, workdir)._asdict() | {"lets_in": backup.lets_in(workdir)}


def table(result: Result) -> str:
    """The end table and its sentences, as plain text."""
    return module("reports.table").text(result)


def profile_table(folder: Path, rounds: str) -> str | None:
    """Where the time of a run's profiled rounds went, as plain text; None where it has no profile of these."""
    found = module("engines.profiler").load(folder)
    asked = module("spans").rounds_of(rounds)
    if found is None or not set(found["rounds"]) <= set(asked):
        return None
    return module("reports.profile").text(found)


def page(result: Result, path: Path) -> None:
    """Writes the result as one HTML page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(module("reports.html").page(result), encoding="utf-8")


def cohort_page(file: Path, path: Path) -> str:
    """Writes how a table's rows were chosen as one HTML page, and says it in a sentence.

    Raises:
      DataError: the file is no cohort file.
    """
    try:
        found = module("data.cohort_file").read(file)
    except ValueError as error:
        raise DataError(f"{file}: expected a cohort file, but it {error}") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    page = module("reports.html").cohort_page({"name": file.name.removesuffix(COHORT), **found})
    module("storage.atomic").write_bytes(path, page.encode(), mode=0o600)
    return module("reports.included").summary([found])


def trained(folder: Path) -> Any:
    """The model of a run, of a folder that a model was saved in.

    Raises:
      StorageError, CorruptError: none is there, or it cannot be read.
    """
    inner = folder / "model"
    return module("api").load(inner if inner.is_dir() else folder)


def read_table(path: Path) -> Any:
    """A raw table.

    Raises:
      DataError: it cannot be read.
    """
    tables = module("data.tables")
    (file,) = tables.files_of(path) if not path.is_dir() else (path,)
    return tables.read_table(file)


def forms() -> Any:
    """What is asked in a form, and what is wrong with an answer."""
    return module("engines.forms")


def write(path: Path, text: str) -> None:
    """A file for this user alone."""
    module("storage.atomic").write_bytes(path, text.encode(), mode=0o600)


def write_cells(
    path: Path, cells: Any, panel: Sequence[str], told: Mapping[str, Any], columns: Mapping[str, Any]
) -> None:
    """A .h5ad of the cells' obs and what is predicted, under the names of `lr.protein`; counts are not in it."""
    import anndata
    import pandas as pd

    made = anndata.AnnData(obs=cells.obs.copy())
    made.obsm["protein_predicted"] = pd.DataFrame(told["mean"], index=cells.obs.index, columns=pd.Index(panel))
    ends = {name: columns[name] for one in panel for name in (f"{one}_low", f"{one}_high")}
    made.obsm["protein_interval"] = pd.DataFrame(ends, index=cells.obs.index)
    if "cell_type" in columns:
        made.obs["cell_type_predicted"] = pd.Categorical(columns["cell_type"])
    part = path.with_suffix(".part")
    try:
        made.write_h5ad(part)
        part.chmod(0o600)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StorageError(f"expected to write {path}, got: {error.strerror or error}") from None


def compare(results: Sequence[Result]) -> str:
    """Runs side by side, as plain text."""
    return module("reports.compare").text(results)


def profiles_compared(folders: Sequence[Path]) -> str | None:
    """The runs' profiles side by side, as plain text; None where one of them has none."""
    found = [module("engines.profiler").load(folder) for folder in folders]
    return None if None in found else module("reports.profile").compared(found)


def compare_page(results: Sequence[Result], folders: Sequence[str], path: Path) -> None:
    """Writes runs side by side as one HTML page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(module("reports.compare").page(results, folders), encoding="utf-8")


def data_sets() -> list[Mapping[str, Any]]:
    """What can be fetched: name, title, licence, citation, page, url, file, sha256 ("" if pinned at first use)."""
    return [one._asdict() for one in module("data.fetch").SETS.values()]


def fetch(name: str, into: Path | None, progress: Callable[[int, int | None], None]) -> Any:
    """Gets a public data set; progress(bytes so far, bytes in all). Returns its path, sha256 and a notice to show."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = into or Path(os.environ.get("LEARNER_DATA") or Path(home).expanduser() / "learner" / "data")
    return module("data.fetch").fetch(name, folder, progress)


def check_table(study: Study, path: Path) -> list[str]:
    """Remarks on a table (or a folder of them) that fits what the study asks for.

    Raises:
      DataError: all that does not fit, in one line.
    """
    from learner_jax import specs

    checklist = specs.make(study.task).checklist
    columns = {"site_column": study.data.site_column, "split_column": study.data.split_column}
    tables = module("data.tables").read_sites(path, **columns)
    remarks, wrong = [], []
    for site, frame in tables.items():
        try:
            remarks += checklist.check(frame, str(path) if len(tables) == 1 else f"{path}, site {site}")
        except DataError as error:
            wrong.append(str(error))
    if wrong:
        raise DataError("; ".join(wrong))
    return [*remarks, *_why_empty(path, remarks)]


def _why_empty(table: Path, remarks: Sequence[str]) -> list[str]:
    """What the cohort file beside a table says of columns without a value, if there is one."""
    if not table.is_file() or not any("no row has a value" in remark for remark in remarks):
        return []
    told = module("data.cohort_file").of_table(table) or {}
    notes = [note for note in told.get("notes", ()) if "these records hold no " in note or "group is known" in note]
    return [f"{table}: its cohort file says: {'; '.join(notes)}"] if notes else []


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


def bench_tables(results: Path, page: Path | None) -> str:
    """The tables of a folder of results, or a line that says that they are in a page now."""
    bench, atomic = module("reports.bench"), module("storage.atomic")
    found = bench.tables(bench.read(results))
    if page is None:
        return found
    try:
        text = page.read_text()
    except OSError as error:
        raise DataError(f"expected a page at {page}, got: {error.strerror}") from None
    atomic.write_bytes(page, bench.put(text, found).encode())
    return f"The tables are in {page}."


def module(name: str) -> Any:
    """A module of ours; where it is not there yet, an error in one line."""
    full = f"learner_jax.{name}"
    try:
        return importlib.import_module(full)
    except ModuleNotFoundError as error:
        if error.name and full.startswith(error.name):
            raise StudyError(f"this build of learner has no {full}") from error
        raise


def cohorts(
    source: str,
    named: str | None,
    door: str | None,
    schema: str | None,
    out: Path | None,
    features: Path | None,
    events: bool = False,
) -> dict[str, Any]:
    """The cohorts of a hospital's records: {"words": paragraphs, "json": for machines}; the rows of one go to `out`,
    and what is known of each at its discharge to `features`, with a cohort file beside it, and with the coded events if
    those are asked for."""
    rules = module("data.cohorts")
    words, told = [], {}
    with module("data.doors").open_records(source, door, schema) as records:
        words.append(f"{records.source}: read as {records.door.upper()}.")
        for name in [named] if named else rules.shipped("cohorts", ".yaml"):
            rule, codes = rules.load(name)
            try:
                found = rules.find(records, rule, codes)
            except DataError as error:
                if named:
                    raise
                words.append(f"{rule.name}: {rule.title}\n{error}")
                continue
            words.append(module("reports.attrition").text(found))
            attrition = [step._asdict() for step in found.attrition]
            told[rule.name] = {"attrition": attrition, "outcomes": found.outcomes, "notes": list(found.notes)}
            if out is not None:
                module("storage.atomic").write_bytes(out, rules.as_csv(found).encode(), mode=0o600)
                words.append(str(out))
            if features is not None and not found.stays:
                words.append(f"No stay, no features: {features} was not written.")
            elif features is not None:
                known = module("data.features")
                rows, about = known.find(records, known.charlson()), module("data.cohort_file")
                words.append(module("reports.attrition").known(found, rows))
                history = module("data.histories").find(records) if events else None
                if history is not None:
                    words += [f"Note: {note}." for note in module("data.histories").notes(history)]
                table, beside = known.as_csv(found, rows, history).encode(), about.beside(features)
                module("storage.atomic").write_bytes(features, table, mode=0o600)
                facts = about.about(found, records.door, rows.notes, table)
                module("storage.atomic").write_json(beside, facts, mode=0o600)
                words.append(f"{features}, and how its rows were chosen: {beside.name}")
        return {"words": words, "json": {"source": str(records.source), "door": records.door, "cohorts": told}}
