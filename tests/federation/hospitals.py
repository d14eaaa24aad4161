"""Small federations: a few hundred stays a site, a tiny model; as threads of one process, or as real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np
import pandas as pd

from learner_jax.build import build
from learner_jax.data import plans
from learner_jax.data.samples import sample_path
from learner_jax.data.sites import encode_sites
from learner_jax.data.tables import files_of, read_table
from learner_jax.engines import simulator, worker
from learner_jax.engines.coordinator import Outcome
from learner_jax.engines.parts import Parts
from learner_jax.engines.serving import serve
from learner_jax.engines.sources import frames_of
from learner_jax.events import Event, Observer
from learner_jax.leaves import site_ids
from learner_jax.network.tunnel import Proxy
from learner_jax.specs import Data, Engine, Federation, Spec, Study, cache_folder, check

ROOT = Path(__file__).resolve().parents[2]
PATIENTS = {"h00": 260, "h01": 180, "h08": 220}
ADAM = Spec("optimizers", "adam", {"learning_rate": 3e-3})
METHODS = {
    "fedavg": Spec("algorithms", "fedavg", {"local": ADAM}),
    "fedadam": Spec("algorithms", "fedadam", {"local_lr": 0.05, "server_lr": 0.01}),
    "scaffold": Spec("algorithms", "scaffold", {"local_lr": 0.05}),
}
RULES = ("mean", "median")


def write_tables(folder: Path, patients: Mapping[str, int] = PATIENTS) -> Path:
    """One CSV file a site, of the sample's first patients there."""
    folder.mkdir(parents=True, exist_ok=True)
    sample = pd.read_parquet(sample_path("diabetes130"))
    for site, count in patients.items():
        stays = sample.loc[sample["site"] == site].drop(columns=["site", "weight"])
        first = list(dict.fromkeys(stays["patient"]))[:count]
        stays.loc[stays["patient"].isin(first)].to_csv(folder / f"{site}.csv", index=False)
    return folder


def small(source: Path | str, method: str = "scaffold", rule: str = "mean", **fields: Any) -> Study:
    """The readmission study on small tables: 8 diagnoses, 8 hidden units, batches of 32, 20 rounds, one stream."""
    return check(
        Study(
            **{
                "name": "small",
                "task": Spec("tasks", "readmission", {"codes": 8, "valid_share": 0.4}),
                "model": Spec("models", "mlp", {"hidden": (8,)}),
                "algorithm": METHODS[method],
                "aggregator": Spec("aggregators", rule),
                "rounds": 20,
                "batch_size": 32,
                "references": (),
                "data": Data(source=str(source), site_column=None, split_column="split"),
                "engine": Engine(plan="sequential"),
                "federation": Federation(deadline_s=120.0),
                **fields,
            }
        )
    )


# ---- in one process --------------------------------------------------------------------------------------------------


def _built(study: Study) -> Parts:
    """A study's parts; compiled programs are kept for the tests after this one."""
    jax.config.update("jax_compilation_cache_dir", str(cache_folder(study.engine)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return build(study)


def simulated(study: Study) -> simulator.Trained:
    """The study's rounds, all sites in this thread."""
    parts = _built(study)
    checklist = parts.task.checklist
    assert checklist is not None
    return simulator.simulate(parts, encode_sites(checklist, frames_of(study))[1])[0]


def replayed(study: Study, curve: Sequence[Mapping[str, Any]]) -> simulator.Trained:
    """The study's rounds in this thread, each with the sites that took part in a federation.

    Args:
      study: the config.
      curve: of the federation's result; a row's "sites" are those whose updates counted in its "round".
    """
    took_part = {row["round"]: np.fromiter(site_ids(row["sites"]).values(), np.uint32) for row in curve}
    with mock.patch.object(plans, "cohort", lambda seed, number, ids, size: took_part[number]):
        return simulated(study)


class Site(threading.Thread):
    """A site's worker as a thread: what `take_part` does in a process. Its end: `result`, or `error`."""

    def __init__(self, name: str, table: Path, folder: Path, code: str | None, on_event: Observer):
        super().__init__(name=f"site {name}", daemon=True)
        self.site, self.table, self.folder, self.code, self._tell = name, table, folder, code, on_event
        self.proxy: Proxy | None = None
        self.result: dict[str, Any] | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            frame = read_table(self.table)
            self.result = worker.take_part(
                self.code, self.site, frame, self.folder, self._tell, _built, proxy=self.proxy
            )
        except BaseException as error:
            self.error = error


class Ended(NamedTuple):
    """What a federation of threads ended with. events: all that was told, by whom: "coordinator" or a site's name."""

    outcome: Outcome
    sites: dict[str, Site]
    events: list[tuple[str, Event]]

    @property
    def sha256(self) -> str:
        return self.outcome.result["weights_sha256"]


def tables_of(study: Study) -> dict[str, Path]:
    """A file a site, of the sites that the study names."""
    files = {path.stem: path for path in files_of(study.data.source)}
    return {name: files[name] for name in study.data.sites or files}


def federated(
    study: Study,
    folder: Path,
    tables: Mapping[str, Path] | None = None,
    begin: Callable[[dict[str, Site]], None] | None = None,
    check: Callable[[dict[str, Site], list[tuple[str, Event]]], None] = lambda sites, events: None,
) -> Ended:
    """A coordinator in this thread and a worker thread a site, over CURVE on the loopback.

    Args:
      study: the config.
      folder: the coordinator's in run/, each site's in sites/.
      tables: a file a site; those of the study's folder if None.
      begin: starts the sites; None starts all.
      check: called now and then; may raise.
    """
    tables = tables_of(study) if tables is None else tables
    events: list[tuple[str, Event]] = []
    sites: dict[str, Site] = {}

    def invited(files: Mapping[str, Path], address: str) -> None:
        for name, table in tables.items():
            code = files[name].read_text().strip() if name in files else None
            tell = _teller(name, events)
            sites[name] = Site(name, table, folder / "sites" / name, code, tell)
        if begin is None:
            for site in sites.values():
                site.start()
        else:
            begin(sites)

    tell = _teller("coordinator", events)
    outcome = serve(
        _built(study), tuple(tables), folder / "run", tell, "127.0.0.1", 0, invited, lambda: check(sites, events)
    )
    for site in sites.values():
        if site.ident is not None:
            site.join(20)
    return Ended(outcome, sites, events)


def _teller(who: str, events: list[tuple[str, Event]]) -> Observer:
    return lambda event: events.append((who, event))


# ---- as processes ----------------------------------------------------------------------------------------------------


class Process(subprocess.Popen):
    """`python -m launch.NAME ...` as typed at the top of the repository; its words go to files beside the run."""

    def __init__(self, program: str, arguments: Sequence[str], log: Path, env: Mapping[str, str] = {}, **more: Any):
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.with_suffix(".out").open("ab") as out, log.with_suffix(".err").open("ab") as err:
            command = [sys.executable, "-m", program, *arguments]
            # a test run in the background ignores Ctrl-C, and what it starts would too
            before = signal.signal(signal.SIGINT, signal.default_int_handler)
            super().__init__(command, cwd=ROOT, stdout=out, stderr=err, env={**os.environ, **env}, **more)
            signal.signal(signal.SIGINT, before)

    @property
    def said(self) -> str:
        """All that it said, of both kinds."""
        return self.log.with_suffix(".out").read_text() + self.log.with_suffix(".err").read_text()

    def last_line(self, seconds: float = 280) -> dict[str, Any]:
        """Waits for its end; the JSON object that ends its stdout."""
        code = self.wait(seconds)
        assert code == 0, f"ended with {code}: {self.said[-2000:]}"
        return json.loads(self.log.with_suffix(".out").read_text().splitlines()[-1])


def flags(study: Study, workdir: Path) -> list[str]:
    """A config file of the study beside its folder, and the flags that name both."""
    path = workdir.with_suffix(".config.py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"from learner_jax.specs import Study\n\n\ndef study():\n    return Study.from_json({study.to_json()!r})\n"
    )
    return [f"--config={path}", f"--workdir={workdir}", "--json"]


class Apart:
    """A `learner coordinator`, and a `learner join` for each site: processes that nobody starts again.

    Args:
      study: the config, with a folder of one file a site.
      folder: the coordinator's is run/ in it, each site's in sites/.
    """

    def __init__(self, study: Study, folder: Path):
        self.study, self.folder, self.run = study, folder, folder / "run"
        self._started: list[Process] = []
        self._port = 0

    def coordinator(self) -> Process:
        """Starts the coordinator, or goes on with it."""
        code = self.folder / "broker" / "join" / f"{self.study.name}.code"
        through = [f"--broker_file={code}"] if code.parent.exists() else []
        given = [*flags(self.study, self.run), f"--sites={','.join(self._tables())}", *through]
        return self._start("launch.coordinator", given)

    def broker(self) -> Process:
        """Starts a broker, or goes on with it; who is started after it goes through it."""
        folder = self.folder / "broker"
        given = ["broker", f"--coordinators={self.study.name}", f"--workdir={folder}", f"--port={self._port}"]
        process = self._start("learner_jax.cli.main", given)
        while "listening" not in process.said:
            assert process.poll() is None, process.said
            time.sleep(0.02)
        self._port = int(process.said.split("listening at ")[1].split()[0].rpartition(":")[2])
        return process

    def site(self, name: str, program: str = "sites.worker", table: Path | None = None) -> Process:
        """Starts a site's worker, with the same command each time; the first time it waits for the join code.

        table: its data, where the study does not name this site.
        """
        table = self._tables()[name] if table is None else table
        folder, code = self.folder / "sites" / name, self.run / "join" / f"{name}.code"
        given = [f"--join_file={code}", f"--data={table}", f"--workdir={folder}", "--json"]
        if not (folder / "membership.json").exists():
            while not code.exists():
                assert self._started[0].poll() is None, self._started[0].said
                time.sleep(0.02)
        return self._start(program, given)

    def _tables(self) -> dict[str, Path]:
        return tables_of(self.study)

    def _start(self, program: str, arguments: Sequence[str]) -> Process:
        self._started.append(Process(program, arguments, self.folder / "words" / f"{len(self._started)}-{program}"))
        return self._started[-1]

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            process.kill()
            process.wait(20)
