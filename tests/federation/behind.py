"""A hospital in a network namespace of its own, whose only way out is a CONNECT proxy: run under `unshare -rn`.

    here: 10.9.0.1 the coordinator      10.0.0.1 the proxy  ----- veth -----  10.0.0.2 the hospital, without a route

`python -m tests.federation.behind SOURCE FOLDER` runs a study of two sites, h01 in the hospital, kills h01's worker and
starts it again, and says in one line of JSON how all of it went.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from learner_jax.specs import Data, Study
from tests.federation.hospitals import Apart, Process, flags, small, tables_of
from tests.federation.kills import events
from tests.network.proxies import ConnectProxy

COORDINATOR, PROXY, HOSPITAL = "10.9.0.1", "10.0.0.1", "10.0.0.2"
PASSWORD = "a password"
_NEW_NET = 0x40000000


def study_of(source: Path) -> Study:
    """The study that is run."""
    return small(source, "scaffold", rounds=12, data=Data(source=str(source), site_column=None, sites=("h00", "h01")))


@contextlib.contextmanager
def hospital() -> Iterator[int]:
    """The namespace: a process that lives in it."""
    holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
    here = Path("/proc/self/ns/net").readlink()
    while (there := Path(f"/proc/{holder.pid}/ns/net").readlink()) == here:
        time.sleep(0.01)
    try:
        assert there != here
        inside = ["nsenter", "-t", str(holder.pid), "-n"]
        for line in (
            "ip link set lo up",
            f"ip address add {COORDINATOR}/32 dev lo",
            f"ip link add out type veth peer name in netns {holder.pid}",
            f"ip address add {PROXY}/30 dev out",
            "ip link set out up",
        ):
            subprocess.run(line.split(), check=True)
        for line in ("ip link set lo up", f"ip address add {HOSPITAL}/30 dev in", "ip link set in up"):
            subprocess.run([*inside, *line.split()], check=True)
        yield holder.pid
    finally:
        holder.kill()
        holder.wait()


class Behind(Apart):
    """A coordinator and h00 here, h01 behind the proxy."""

    def __init__(self, study: Study, folder: Path, pid: int, proxy: ConnectProxy):
        super().__init__(study, folder)
        self._net = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "password").write_text(PASSWORD)
        url = proxy.url.replace("//", "//nurse@")
        self.through = [f"--proxy={url}", f"--proxy_password_file={folder / 'password'}"]

    def coordinator(self) -> Process:
        given = [*flags(self.study, self.run), "--sites=h00,h01", f"--host={COORDINATOR}"]
        return self._start("launch.coordinator", given)

    def inside(self, program: str, *arguments: str) -> Process:
        """Starts a program in the hospital."""
        log = self.folder / "words" / f"{len(self._started)}-{program}"
        self._started.append(Process(program, arguments, log, preexec_fn=self._enter))
        return self._started[-1]

    def _enter(self) -> None:
        if ctypes.CDLL(None, use_errno=True).setns(self._net, _NEW_NET):
            raise OSError(ctypes.get_errno(), "setns")

    def behind(self) -> Process:
        """h01's worker, with the same command each time."""
        return self.inside("sites.worker", *self.about_h01(), *self.through, "--json")

    def about_h01(self) -> list[str]:
        folder, code = self.folder / "sites" / "h01", self.run / "join" / "h01.code"
        while not (code.exists() or (folder / "membership.json").exists()):
            assert self._started[0].poll() is None, self._started[0].said
            time.sleep(0.02)
        return [f"--join_file={code}", f"--data={tables_of(self.study)['h01']}", f"--workdir={folder}"]


def closed(there: Behind, number: int, *processes: Process) -> None:
    """Waits until a round is closed."""
    while not any(line["event"] == "round_closed" and line["round"] >= number for line in events(there.run)):
        for process in processes:
            assert process.poll() is None, process.said
        time.sleep(0.01)


def run(there: Behind, proxy: ConnectProxy) -> dict:
    """The study, with two doctors before it and a kill in the middle."""
    coordinator, h00 = there.coordinator(), there.site("h00")
    about = there.about_h01()
    doctors = [there.inside("learner_jax.cli.main", "doctor", *about, *more) for more in ([], there.through)]
    found = [(doctor.wait(120), doctor.said) for doctor in doctors]
    asked = len(proxy.asked)
    h01 = there.behind()
    closed(there, 4, coordinator, h00, h01)
    h01.kill()
    killed, opened = h01.wait(20), [line["round"] for line in events(there.run) if line["event"] == "round_open"]
    h01 = there.behind()
    return {
        "ended": [process.last_line()["weights_sha256"] for process in (coordinator, h00, h01)],
        "killed": killed,
        "round": max(opened),
        "asked": [head.split()[1] for head in proxy.asked[asked:]],
        "carried": len(proxy.carried),
        "doctor": found,
    }


def main(source: Path, folder: Path) -> None:
    """One line of JSON."""
    with hospital() as pid, ConnectProxy(f"nurse:{PASSWORD}", host=PROXY) as proxy:
        there = Behind(study_of(source), folder, pid, proxy)
        with there:
            print(json.dumps(run(there, proxy)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
