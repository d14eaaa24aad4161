"""A federation through a broker that stands alone: the same bits, whoever is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from learner_jax.specs import Data, Spec
from tests.federation.hospitals import Apart, Process, flags, simulated, small


def _reached(there: Apart, number: int, *processes: Process) -> None:
    """Waits until a round is closed."""
    metrics = there.run / "metrics.jsonl"
    while True:
        lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
        if any(line["event"] == "round_closed" and line["round"] >= number for line in lines):
            return
        for process in processes:
            assert process.poll() is None, process.said
        time.sleep(0.02)


@pytest.fixture
def two(source):
    return Data(source=str(source), site_column=None, sites=("h00", "h01"))


@pytest.mark.slow
def test_through_a_broker_that_is_killed_twice(source, two, tmp_path):
    """SIGKILL, and the same command on the same port: all who were there call again, and no bit differs."""
    study = small(source, "scaffold", rounds=8, data=two)
    with Apart(study, tmp_path) as there:
        broker = there.broker()
        coordinator = there.coordinator()
        sites = [there.site("h00"), there.site("h01")]
        for number in (2, 4):
            _reached(there, number, coordinator, *sites)
            broker.kill()
            assert broker.wait(20) == -signal.SIGKILL
            print(f"broker killed after round {number} of {study.rounds}")
            broker = there.broker()
        ended = [process.last_line() for process in (coordinator, *sites)]
        assert "Traceback" not in broker.said
    assert {line["weights_sha256"] for line in ended} == {simulated(study).sha256}


@pytest.mark.soak
@pytest.mark.parametrize("method", ["fedavg", "scaffold"])
def test_through_a_broker_while_everybody_is_killed_once(method, source, two, tmp_path):
    study = small(source, method, rounds=12, data=two)
    with Apart(study, tmp_path) as there:
        broker = there.broker()
        running = {"coordinator": there.coordinator(), "h00": there.site("h00"), "h01": there.site("h01")}
        for number, who in ((2, "coordinator"), (4, "h00"), (6, "h01"), (8, "coordinator")):
            _reached(there, number, *(p for name, p in running.items() if name != who))
            running[who].kill()
            assert running[who].wait(20) == -signal.SIGKILL
            print(f"{who} killed after round {number} of {study.rounds}")
            running[who] = there.coordinator() if who == "coordinator" else there.site(who)
        ended = [process.last_line() for process in running.values()]
        broker.send_signal(signal.SIGTERM)
        assert broker.wait(20) == 143 and "goes on" in broker.said
    assert {line["weights_sha256"] for line in ended} == {simulated(study).sha256}


@pytest.mark.soak
def test_two_studies_through_one_broker_that_is_killed_in_the_middle_of_an_upload(source, two, tmp_path, monkeypatch):
    """The second is let in while the first runs. Both have a site of the same name; neither hears of the other's."""
    wide = Spec("models", "mlp", {"hidden": (6_000,)})
    first = small(source, "scaffold", rounds=4, data=two, model=wide)
    second = small(source, "fedavg", rounds=30, data=two, name="other")
    with Apart(first, tmp_path / "first") as one, Apart(second, tmp_path / "second") as other:
        broker = one.broker()
        monkeypatch.setenv("LEARNER_FAILPOINT", "coordinator.upload.after_chunk:8:stop")
        coordinator = one.coordinator()
        monkeypatch.delenv("LEARNER_FAILPOINT")
        h00, h01 = one.site("h00"), one.site("h01")
        other.folder.mkdir()
        (other.folder / "broker").symlink_to(one.folder / "broker")
        asked = ["invite", second.name, f"--workdir={one.folder / 'broker'}"]
        command = [sys.executable, "-m", "learner_jax.cli.main", *asked]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "Join code of other" in done.stdout, done.stdout + done.stderr
        others = [other.coordinator(), other.site("h00"), other.site("h01")]
        while "T" not in _state(coordinator):
            for process in (broker, coordinator, h00, h01):
                assert process.poll() is None, process.said
            time.sleep(0.02)
        coming = [path.stat().st_size for path in (one.run / "spool").glob(".tmp-*")]  # its room is taken at once
        assert coming
        broker.kill()
        assert broker.wait(20) == -signal.SIGKILL
        print(f"broker killed when eight chunks had come of all updates, under way now those of {coming} bytes")
        broker = one.broker()
        coordinator.send_signal(signal.SIGCONT)
        ended = [[p.last_line() for p in those] for those in ((coordinator, h00, h01), others)]
        assert "Traceback" not in broker.said
    for study, lines in zip((first, second), ended, strict=True):  # a simulator with a process's own flags for XLA
        folder = tmp_path / "simulated" / study.name
        simulation = Process("launch.simulate", flags(study, folder), folder.with_suffix(".words"))
        assert {line["weights_sha256"] for line in lines} == {simulation.last_line()["weights_sha256"]}


def _state(process: Process) -> str:
    """As the kernel says it: R, S, T (stopped), ..."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
