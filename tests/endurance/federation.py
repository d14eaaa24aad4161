"""The federation that has to endure: a broker, a coordinator and five sites, each process with a line of its own."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from learner_jax.network.keys import parse_join_code, write_secret
from learner_jax.protocol.rows import Accepted, Closed, Committed
from learner_jax.specs import Checkpoint, Data, Federation, Study
from learner_jax.storage.journal import rows_in
from tests.endurance.relay import Relay
from tests.federation.hospitals import Apart, Process, small

SITES = {"h00": 120, "h01": 90, "h03": 70, "h07": 60, "h08": 110}
DISK_MB = 192


def study_of(source: Path, rounds: int, quorum: int = len(SITES), deadline_s: float = 1e6) -> Study:
    """SCAFFOLD, whose sites keep a state. As a rule every site counts in every round, however long one is away; with a
    smaller quorum a round goes on without them at its deadline."""
    return small(
        source, "scaffold", rounds=rounds, data=Data(source=str(source), site_column=None, sites=tuple(SITES)),
        federation=Federation(quorum=quorum, deadline_s=deadline_s), checkpoint=Checkpoint(every=10),
    )  # fmt: skip


class Enduring(Apart):
    """Processes by name, each with a clock that can jump, a line that can be cut and, where it may be, a small disk.

    Args:
      study: the config.
      folder: of all of it.
      disks: whether each folder is to be a disk of its own.

    Attributes:
      processes: "broker", "coordinator" and the sites, as started last.
      lines: the relay of everyone who dials the broker.
    """

    def __init__(self, study: Study, folder: Path, disks: bool):
        super().__init__(study, folder)
        self.processes: dict[str, Process] = {}
        self.lines: dict[str, Relay] = {}
        self.disks = {name: self._home(name) for name in ("coordinator", *SITES)} if disks else {}
        for place in self.disks.values():
            place.mkdir(parents=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", place], check=True)
        try:
            for name in ("broker", "coordinator", *SITES):
                self.begin(name)
        except BaseException:
            self.__exit__()
            raise

    def _home(self, name: str) -> Path:
        return self.run if name == "coordinator" else self.folder / "sites" / name

    def begin(self, name: str) -> Process:
        """Starts a process, or goes on with it, by the same command each time."""
        if name == "broker":
            process = self.broker()
        elif name == "coordinator":
            self._through(name, self.folder / "broker" / "join" / f"{self.study.name}.code")
            process = self.coordinator()
        else:
            self._through(name, self.run / "join" / f"{name}.code")
            process = self.site(name)
        self.processes[name] = process
        return process

    def _through(self, name: str, code: Path) -> None:
        """The first time: waits for a join code, and puts the relay's address into it."""
        if name in self.lines:
            return
        while not code.exists():
            self.all_alive()
            time.sleep(0.02)
        self.lines[name] = Relay(self._port)
        found = parse_join_code(code.read_text())
        write_secret(code, found._replace(address=f"tcp://127.0.0.1:{self.lines[name].port}").text().encode())

    def _start(self, program: str, arguments: Sequence[str]) -> Process:
        return super()._start("tests.endurance.clock", [program, *arguments])

    def __enter__(self) -> Enduring:
        return self

    def __exit__(self, *given: object) -> None:
        super().__exit__(*given)
        for relay in self.lines.values():
            relay.close()
        for place in self.disks.values():
            subprocess.run(["umount", "--lazy", place], check=True)

    def all_alive(self) -> None:
        """Raises if a process ended that nobody has killed."""
        for name, process in self.processes.items():
            if process.poll() not in (None, 0):
                raise Violation(f"the process of {name} ended with {process.returncode}: {process.said[-1500:]}")

    def committed(self) -> int:
        """The newest round of which the journal knows the result."""
        try:
            base = sqlite3.connect(f"file:{self.run / 'journal.sqlite'}?mode=ro", uri=True, timeout=30)
        except sqlite3.OperationalError:
            return 0
        try:
            found = base.execute("SELECT max(round) FROM rows WHERE kind = 'committed'").fetchone()
        except sqlite3.OperationalError:  # it is being made
            return 0
        finally:
            base.close()
        return found[0] or 0

    def account(self) -> Account:
        """What the journal says."""
        return account_of(self.run, int(self.study.federation.quorum or 0))

    @property
    def patient(self) -> bool:
        """Whether each round waits for every site."""
        return self.study.federation.quorum == len(SITES)

    @property
    def over(self) -> bool:
        """Whether the study has ended."""
        return self.processes["coordinator"].poll() == 0


class Violation(Exception):
    """What may never happen has happened."""


class Account(NamedTuple):
    """The result of each learning round by number, in words what of a journal may not be, and who counted in each."""

    digests: dict[int, str]
    wrong: list[str]
    counted: dict[int, list[str]]


def account_of(run: Path, quorum: int = len(SITES)) -> Account:
    """Reads a journal, also beside its coordinator: each site counts once, and so many in every round."""
    base = sqlite3.connect(f"file:{run / 'journal.sqlite'}?mode=ro", uri=True, timeout=30)
    try:
        found = rows_in(base)
    finally:
        base.close()
    accepted = Counter((row.round, row.phase, row.site) for row in found if isinstance(row, Accepted))
    closed = [row for row in found if isinstance(row, Closed)]
    wrong = [f"{place} was accepted {count} times" for place, count in accepted.items() if count > 1]
    wrong += [
        f"round {row.round}, {row.phase}: closed with {[site for site, _ in row.accepted]}, without {row.lost}"
        for row in closed
        if sorted([*(site for site, _ in row.accepted), *row.lost]) != sorted(SITES) or len(row.accepted) < quorum
    ]
    places = Counter((row.round, row.phase) for row in closed)
    wrong += [f"{place} was closed {count} times" for place, count in places.items() if count > 1]
    digests = {row.round: row.digest for row in found if isinstance(row, Committed)}
    committed = Counter(row.round for row in found if isinstance(row, Committed))
    wrong += [f"round {number} was committed {count} times" for number, count in committed.items() if count > 1]
    counted = {row.round: [site for site, _ in row.accepted] for row in closed if row.phase == "train"}
    return Account(digests, wrong, counted)


def fill(place: Path) -> Path:
    """Leaves no room on a disk; the file to remove."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return filler
