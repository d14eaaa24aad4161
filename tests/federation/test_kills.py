"""`kill -9`, then the same command: the weights at the end are those of a run that nobody disturbed, to the bit."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from learner_jax.specs import Checkpoint, Data, Study
from tests.federation.conftest import processes_of
from tests.federation.hospitals import Process, flags, simulated, small
from tests.federation.kills import events, in_federation, in_simulation, kill_in_a_round

ROUNDS = 30


SITES = ("h00", "h01")  # and all three in the soak


@pytest.fixture(scope="module")
def undisturbed(source) -> str:
    """sha256 of the study's last weights, with two sites."""
    return simulated(_study(source)).sha256


@pytest.fixture(scope="module")
def undisturbed_three(source) -> str:
    """The same with all three."""
    return simulated(_study(source, None)).sha256


def _study(source: Path, sites: tuple[str, ...] | None = SITES, **fields) -> Study:
    data = Data(source=str(source), site_column=None, sites=sites)
    return small(source, "scaffold", rounds=ROUNDS, data=data, **fields)


def _killed(program: str, where, source: Path, folder: Path, seed: int, undisturbed: str, sites=SITES) -> None:
    # every third run waits for each step to be durable, so that kills fall there too
    study = _study(source, sites, checkpoint=Checkpoint(wait=seed % 3 == 2))
    arguments, logs = flags(study, folder / "run"), iter(range(100))

    def start() -> Process:
        return Process(program, arguments, folder / "logs" / str(next(logs)), start_new_session=True)

    kill, missed = kill_in_a_round(start, folder / "run", random.Random(seed), ROUNDS, where)
    print(f"\n{program}, seed {seed}: {signal.SIGKILL.name} in {kill}" + f"; {missed} not counted" * bool(missed))
    ended = start().last_line()
    assert ended["weights_sha256"] == undisturbed, kill
    assert ended["rounds"] == ROUNDS
    told = events(folder / "run")
    assert [line["round"] for line in told if line["event"] == "round_closed"] == list(range(1, ROUNDS + 1))
    assert any(line["event"] == "resumed" for line in told) == (kill.durable > 0)


@pytest.mark.slow
def test_processes_end_with_the_simulators_bits(source, tmp_path, undisturbed):
    ended = Process("launch.local", flags(_study(source), tmp_path / "run"), tmp_path / "log").last_line()
    assert (ended["weights_sha256"], ended["rounds"]) == (undisturbed, ROUNDS)


@pytest.mark.slow
def test_a_simulation_is_killed_and_goes_on(source, tmp_path, undisturbed):
    _killed("launch.simulate", in_simulation, source, tmp_path, 0, undisturbed)


@pytest.mark.slow
def test_a_coordinator_is_killed_and_goes_on(source, tmp_path, undisturbed):
    _killed("launch.local", in_federation, source, tmp_path, 1, undisturbed)


@pytest.mark.soak
@pytest.mark.limit(900)
@pytest.mark.parametrize("seed", range(10, 20))
def test_ten_kills_of_a_simulation(seed, source, tmp_path, undisturbed_three):
    _killed("launch.simulate", in_simulation, source, tmp_path, seed, undisturbed_three, None)


@pytest.mark.soak
@pytest.mark.limit(900)
@pytest.mark.parametrize("seed", range(20, 30))
def test_ten_kills_of_a_coordinator(seed, source, tmp_path, undisturbed_three):
    _killed("launch.local", in_federation, source, tmp_path, seed, undisturbed_three, None)


@pytest.mark.slow
@pytest.mark.limit(600)
def test_a_worker_is_killed_then_ctrl_c_then_there_is_nothing_to_do(source, tmp_path, undisturbed):
    folder = tmp_path / "run"
    arguments = flags(_study(source), folder)

    run = Process("launch.local", arguments, tmp_path / "log" / "1")
    try:
        _wait_for_rounds(run, folder, 3)
        (worker,) = processes_of(folder / "sites" / "h01")
        os.kill(worker, signal.SIGKILL)
        _wait_for_rounds(run, folder, 8)
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 130, run.said
    finally:
        run.kill()
        run.wait(20)
    assert not processes_of(folder), "Ctrl-C left a process behind"
    assert "the same command goes on" in run.said and "Traceback" not in run.said, run.said
    notes = [line["text"] for line in events(folder) if line["event"] == "note"]
    assert "the process of site 'h01' was killed by signal 9; starting it again" in notes, notes
    print(f"\nworker of h01 killed with -9 and started again; Ctrl-C: {_stopped(run)}")

    ended = Process("launch.local", arguments, tmp_path / "log" / "2").last_line()
    assert ended["weights_sha256"] == undisturbed
    assert all(not line["lost"] for line in events(folder) if line["event"] == "round_closed")

    again = Process("launch.local", arguments, tmp_path / "log" / "3")
    assert again.last_line()["weights_sha256"] == undisturbed
    assert "nothing to do" in again.said


def _wait_for_rounds(run: Process, folder: Path, count: int) -> None:
    while len([line for line in events(folder) if line["event"] == "round_closed"]) < count:
        assert run.poll() is None, run.said
        time.sleep(0.01)


def _stopped(run: Process) -> str:
    return next(line for line in run.said.splitlines() if line.startswith("stopped"))
