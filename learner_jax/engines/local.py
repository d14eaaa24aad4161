"""A whole federation on one machine: a coordinator in this process, and a process for each site.

Each site's process gets a folder with its own table and nothing else. It watches its standard input: when this process
is gone, however it went, the pipe ends and the site leaves; the same command brings all of it back.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from learner_jax import failpoints
from learner_jax.data.cells import to_anndata
from learner_jax.data.tables import as_named
from learner_jax.engines.coordinator import Outcome
from learner_jax.engines.parts import Parts
from learner_jax.engines.serving import serve
from learner_jax.errors import StudyError
from learner_jax.events import Event, Observer
from learner_jax.network.enrol import load_membership
from learner_jax.network.keys import write_private

_PROFILES_S = 120.0
"""How long sites that have left the study may take to write their profiles."""
_STOPPED = {130: "Ctrl-C", 143: "SIGTERM"}
"""Exit codes of a worker that somebody stopped on purpose: it is not for us to start it again."""


def run_local(
    parts: Parts,
    frames: Mapping[str, Any],
    folder: Path,
    on_event: Observer,
    environment: Mapping[str, str],
    profile: str | None = None,
) -> Outcome:
    """Runs a study as processes.

    Args:
      parts: the study.
      frames: a table for each site.
      folder: the run's; sites have theirs in sites/.
      on_event: told what happens.
      environment: variables of the sites' processes, beside this one's.
      profile: rounds that the sites profile, each in its folder.

    Raises:
      StudyError: a site's process ended before the study did.
    """
    home = folder / "sites"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    study = parts.study
    named = {name: as_named(frame, study.data.split_column) for name, frame in frames.items()}
    tables = {name: site_table(home / name, frame) for name, frame in named.items()}
    processes = Processes(environment, lambda text: on_event(Event("note", study.name, data={"text": text})), profile)

    def invited(files: Mapping[str, Path], address: str) -> None:
        for name in frames:
            _move(home / name, address)
            processes.start(name, home / name, tables[name], files.get(name))

    try:
        found = serve(
            parts, tuple(frames), folder, on_event, study.federation.host,
            study.federation.port, invited, processes.check,
        )  # fmt: skip
        if profile is not None:
            processes.wait(_PROFILES_S)
        return found
    finally:
        processes.stop()


def site_table(folder: Path, frame: Any) -> Path:
    """The site's own table, in its own folder.

    Args:
      folder: the site's.
      frame: a table, or `Cells`; written at the first call, and again until a first answer of the site has counted:
        what did not fit may have been mended. From then on the run keeps to the rows that it began with.

    Returns:
      The file, which only its owner may read.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    cells = hasattr(frame, "counts")
    path = folder / ("data.h5ad" if cells else "data.parquet")
    if not path.exists() or not (folder / "outbox" / "committed").exists():
        beside = path.with_suffix(".part")
        if cells:
            to_anndata(frame).write_h5ad(beside)
        else:
            frame.to_parquet(beside, index=False)
        beside.chmod(0o600)
        beside.replace(path)
    return path


def _move(folder: Path, address: str) -> None:
    """Tells a site that has joined where the coordinator listens now."""
    member = load_membership(folder)
    if member is not None and member.address != address:
        write_private(folder / "membership.json", member._replace(address=address)._asdict())


class _Running(NamedTuple):
    process: subprocess.Popen[bytes]
    folder: Path
    table: Path
    code: Path | None


class Processes:
    """The sites' processes.

    Args:
      environment: variables beside this process's own.
      say: told in words what happens to one.
      profile: rounds that each profiles.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        say: Callable[[str], None] = lambda text: None,
        profile: str | None = None,
    ):
        self._environment, self._say, self._profile = {**os.environ, **environment}, say, profile
        self._running: dict[str, _Running] = {}

    def start(self, name: str, folder: Path, table: Path, code: Path | None, again: bool = False) -> None:
        """Starts a site's worker; its words go to worker.log in its folder."""
        command = [
            *(sys.executable, "-m", "learner_jax", "join", f"--data={table}", f"--workdir={folder}", f"--site={name}"),
            *("--with_parent", "--release_histograms"),  # all of it is one person's, on this machine
            *([f"--join_file={code}"] if code else []),
            *([f"--profile={self._profile}"] if self._profile else []),
        ]
        log = folder / "worker.log"
        with log.open("ab") as out:
            environment = failpoints.handed_on(self._environment, name, again)
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=out, env=environment, start_new_session=True
            )
        self._running[name] = _Running(process, folder, table, code)

    def check(self) -> None:
        """Starts a worker that was killed again; raises if one gave up or was stopped.

        Raises:
          StudyError: with the last line that it said, or the signal.
        """
        for name, (process, folder, table, code) in list(self._running.items()):
            ended = process.poll()
            if ended is not None and ended < 0:
                self._say(f"the process of site '{name}' was killed by signal {-ended}; starting it again")
                self.start(name, folder, table, code, again=True)
            elif ended in _STOPPED:
                raise StudyError(f"the process of site '{name}' was stopped by {_STOPPED[ended]}; "
                                 "the same command goes on")  # fmt: skip
            elif ended:
                log = folder / "worker.log"
                said = log.read_text(errors="replace").strip().splitlines() or ["nothing"]
                words = said[-1].removeprefix("learner join: ")
                raise StudyError(f"the process of site '{name}' ended with {ended}: {words} (see {log})")

    def wait(self, seconds: float) -> None:
        """Lets those that are about to end by themselves do so."""
        until = time.monotonic() + seconds
        for process, *_ in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))

    def stop(self) -> None:
        """Ends what still runs: first by closing its input, then by force."""
        for process, *_ in self._running.values():
            if process.stdin is not None:
                process.stdin.close()
        for process, *_ in self._running.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
