"""Nothing but updates leaves a site: every row carries a canary, and none is found anywhere outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from learner_jax.engines import worker
from learner_jax.engines.site_study import SUMMARY, SUMMARY_BYTES, SiteStudy
from learner_jax.leaves import pack, schema_of, unpack
from learner_jax.specs import Data
from learner_jax.tasks.readmission import checklist
from tests.federation.canaries import CANARY, PATIENTS, search_files, write_marked
from tests.federation.hospitals import ROOT, Process, federated, flags, small

NOBODY = 65534


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that another user may pass through, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="learner-canary-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _other_user() -> tuple[dict, dict[str, str], str]:
    """How a process is started as somebody else: (arguments of Popen, variables, ""), or why that cannot be."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return {}, {}, "only root may start a process as another user"
    packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    variables = {"PYTHONPATH": os.pathsep.join([str(ROOT), *sorted(packages)])}
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        other = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "executable": python}
        command = [python, "-c", "import zmq, pandas, learner_jax.api"]
        try:
            subprocess.run(command, cwd=ROOT, env=os.environ | variables, check=True, capture_output=True, **other)
        except (OSError, subprocess.CalledProcessError):
            continue
        return other, variables, ""
    return {}, {}, "another user may read neither this Python nor this checkout"


@pytest.mark.slow
def test_no_canary_outside_the_sites(place, tmp_path):
    home, taps = place / "coordinator", place / "taps"
    home.mkdir()
    taps.mkdir(mode=0o777)
    taps.chmod(0o777)
    other, variables, why = _other_user()
    if other:
        os.chown(home, NOBODY, NOBODY)
    tables = write_marked(place / "hospitals")
    for path in (tables, *tables.iterdir()):
        path.chmod(0o700 if path.is_dir() else 0o600)

    study = small("", rounds=5, references=("local_only",), data=Data(), target="valid/loss")
    run = home / "run"
    arguments = [*flags(study, place / "study" / "run")[:1], f"--workdir={run}", "--json", "--sites=h00,h01"]
    private = {"LEARNER_TAP": str(taps), "XDG_CACHE_HOME": str(home / "cache"), "HOME": str(home), **variables}
    mine = {"LEARNER_TAP": str(taps)}
    processes = [Process("launch.coordinator", arguments, place / "words" / "coordinator", private, **other)]
    try:
        for name in ("h00", "h01"):
            code = run / "join" / f"{name}.code"
            while not code.exists():
                assert processes[0].poll() is None, processes[0].said
                time.sleep(0.05)
            given = [f"--join_file={code}", f"--data={tables / name}.csv", f"--workdir={tables / name}", "--json"]
            processes.append(Process("sites.worker", given, place / "words" / name, mine))
        if other:
            _cannot_open(tables / "h00.csv", processes[0], other)
        ended = [process.last_line() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait(20)
    assert ended[0]["rounds"] == 5 and ended[0]["weights_sha256"]
    result = json.loads((run / "result.json").read_text())
    assert result["evaluation"]["cohorts"], "the sites' figures were sent too"
    assert set(result["data"]) == {"inputs"} and result["data"]["inputs"]["rows"] > 100

    found, files, size = search_files([home, run, taps, place / "words"])
    frames = {path.name.split("-")[0]: path.stat().st_size for path in taps.iterdir()}
    print(f"\nsearched {files} files and leaves, {size} bytes, of them before encryption {frames}; found {found}")
    assert not found
    assert min(frames[who] for who in ("coordinator", "h00", "h01")) > 100_000, "the taps were not on"
    assert search_files([tables])[0], "the canaries are not even at the sites"
    if not other:
        pytest.skip(f"the search found nothing; not run: the coordinator as another user, since {why}")


def _cannot_open(table: Path, process: Process, other: dict) -> None:
    """The coordinator's user is who we say, and gets no byte of the site's table."""
    uids = Path(f"/proc/{process.pid}/status")
    if uids.exists():
        line = next(line for line in uids.read_text().splitlines() if line.startswith("Uid:"))
        assert set(line.split()[1:]) == {str(NOBODY)}
    other = {name: value for name, value in other.items() if name != "executable"}
    read = subprocess.run(["cat", str(table)], capture_output=True, **other)
    assert read.returncode != 0 and not read.stdout and b"denied" in read.stderr.lower(), read.stderr
    print(f"\nuser {NOBODY}, who ran the coordinator, opens {table.name}: {read.stderr.decode().strip()[-17:]}")
    table.parent.chmod(0o755)  # a planted fault: a steward who lets everyone in
    table.chmod(0o644)
    assert subprocess.run(["cat", str(table)], capture_output=True, **other).returncode == 0
    table.chmod(0o600)
    table.parent.chmod(0o700)


class Leaking(SiteStudy):
    """A worker gone wrong, in three places: a patient in the sums, one in an update, the string in the figures."""

    def work(self, asked, data, committed):
        answer = super().work(asked, data, committed)
        if asked.phase == "statistics":
            schema = schema_of(checklist(codes=8).zero())
            leaves = {name: leaf.copy() for name, leaf in unpack(answer.data, schema).items()}
            leaves["input/sum"][0] = PATIENTS[3]
            return answer._replace(data=pack(leaves))
        if asked.phase == "train":
            whole = bytearray(answer.data)
            whole[-4:] = np.float32(PATIENTS[4]).tobytes()
            return answer._replace(data=bytes(whole))
        if asked.phase == "finish":
            figures = json.loads(unpack(answer.data, SUMMARY)["summary"].tobytes())
            for cohort in figures.values():
                cohort["remark"] = CANARY
            text = json.dumps(figures).encode().ljust(SUMMARY_BYTES)
            return answer._replace(data=pack({"summary": np.frombuffer(text, np.uint8)}))
        return answer


@pytest.mark.slow
def test_a_worker_that_sends_rows_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "SiteStudy", Leaking)
    monkeypatch.setenv("LEARNER_TAP", str(tmp_path / "taps"))
    source = write_marked(tmp_path / "tables")
    data = Data(source=str(source), site_column=None, sites=("h00",))
    federated(small(source, rounds=2, data=data, target="valid/loss"), tmp_path)
    found = search_files([tmp_path / "taps"])[0]
    print(f"\n{found}")
    for path, words in found.items():
        assert words >= {"the string", "a patient as float64", "a patient as float32"}, path
    assert len(found) == 2, "the tap of the site and that of the coordinator"
