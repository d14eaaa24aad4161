"""`kill -9`, Ctrl-C or SIGTERM, then the same command: the last weights are those of an undisturbed run, to the bit."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from pathlib import Path

import pytest

from learner_jax.specs import Checkpoint, Data, Study
from tests.federation.conftest import processes_of
from tests.federation.hospitals import Apart, Process, flags, simulated, small
from tests.federation.kills import events, in_federation, in_simulation, kill_in_a_round, newest_step

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
@pytest.mark.parametrize(
    ("sign", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.soak)]
)
def test_a_worker_is_killed_then_the_run_is_stopped_then_there_is_nothing_to_do(
    sign, code, source, tmp_path, undisturbed
):
    folder = tmp_path / "run"
    arguments = flags(_study(source), folder)

    run = Process("launch.local", arguments, tmp_path / "log" / "1")
    try:
        _wait_for_rounds(run, folder, 3)
        (worker,) = processes_of(folder / "sites" / "h01")
        os.kill(worker, signal.SIGKILL)
        _wait_for_rounds(run, folder, 8)
        run.send_signal(sign)
        assert run.wait(60) == code, run.said
    finally:
        run.kill()
        run.wait(20)
    assert not processes_of(folder), "it left a process behind"
    assert newest_step(folder) >= _stopped_after(run)
    notes = [line["text"] for line in events(folder) if line["event"] == "note"]
    assert "the process of site 'h01' was killed by signal 9; starting it again" in notes, notes
    print(f"\nworker of h01 killed with -9 and started again; {sign.name}: after round {_stopped_after(run)}")

    ended = Process("launch.local", arguments, tmp_path / "log" / "2").last_line()
    assert ended["weights_sha256"] == undisturbed
    assert all(not line["lost"] for line in events(folder) if line["event"] == "round_closed")

    again = Process("launch.local", arguments, tmp_path / "log" / "3")
    assert again.last_line()["weights_sha256"] == undisturbed
    assert "nothing to do" in again.said


def _rounds(folder: Path) -> int:
    return len([line for line in events(folder) if line["event"] == "round_closed"])


def _wait_for_rounds(run: Process, folder: Path, count: int) -> None:
    while _rounds(folder) < count:
        assert run.poll() is None, run.said
        time.sleep(0.01)


def _stopped_after(run: Process) -> int:
    """The round after which it says that it was stopped: in one plain sentence."""
    (sentence,) = [line for line in run.said.splitlines() if line.startswith("stopped")]
    found = re.fullmatch(r"stopped after round (\d+); the same command goes on", sentence)
    assert found and "Traceback" not in run.said, run.said
    return int(found[1])


@pytest.mark.soak
def test_a_worker_of_a_local_run_is_stopped(source, tmp_path, undisturbed):
    folder = tmp_path / "run"
    arguments = flags(_study(source), folder)
    run = Process("launch.local", arguments, tmp_path / "log" / "1")
    try:
        _wait_for_rounds(run, folder, 3)
        (worker,) = processes_of(folder / "sites" / "h01")
        os.kill(worker, signal.SIGTERM)
        assert run.wait(60) == 1, run.said
    finally:
        run.kill()
        run.wait(20)
    assert not processes_of(folder) and newest_step(folder) >= 1
    (line,) = [line for line in run.said.splitlines() if line.startswith("learner ")]
    assert line == "learner local: the process of site 'h01' was stopped by SIGTERM; the same command goes on"
    assert "Traceback" not in run.said, run.said
    assert Process("launch.local", arguments, tmp_path / "log" / "2").last_line()["weights_sha256"] == undisturbed


@pytest.mark.soak
def test_sigterm_at_a_worker_at_the_coordinator_and_at_the_other_worker(source, tmp_path, undisturbed):
    # no step is due in these rounds: the one on disk is that of the way out
    with Apart(_study(source, checkpoint=Checkpoint(every=100)), tmp_path) as there:
        coordinator, h00, h01 = there.coordinator(), there.site("h00"), there.site("h01")
        _wait_for_rounds(coordinator, there.run, 3)
        h01.send_signal(signal.SIGTERM)
        assert h01.wait(60) == 143 and "Traceback" not in h01.said, h01.said
        assert _stopped_after(h01) >= 1
        while not (lost := [line for line in events(there.run) if line["event"] == "site_lost"]):
            time.sleep(0.01)
        assert (lost[0]["site"], lost[0]["reason"]) == ("h01", "it was stopped at the site")
        h01 = there.site("h01")
        _wait_for_rounds(coordinator, there.run, 8)
        coordinator.send_signal(signal.SIGTERM)
        assert coordinator.wait(60) == 143, coordinator.said
        stopped, step = _stopped_after(coordinator), newest_step(there.run)
        assert step >= stopped >= 8
        coordinator = there.coordinator()
        _wait_for_rounds(coordinator, there.run, 15)
        h00.send_signal(signal.SIGTERM)
        assert h00.wait(60) == 143, h00.said
        h00 = there.site("h00")  # whose code's file is gone
        ended = [process.last_line() for process in (coordinator, h00, h01)]
    print(f"\nworker of h01, then the coordinator stopped by SIGTERM after round {stopped}; step {step} was there")
    assert {line["weights_sha256"] for line in ended} == {undisturbed}
    assert [line["round"] for line in events(there.run) if line["event"] == "resumed"] == [step]


@pytest.mark.soak
@pytest.mark.limit(600)
@pytest.mark.parametrize("seed", range(3))
def test_sigterm_at_any_moment(seed, source, tmp_path, undisturbed):
    """Also while it starts, or ends: each time one sentence, and in the end the same weights."""
    arguments, draw, said = flags(_study(source), tmp_path / "run"), random.Random(seed), []
    for stop in range(6):
        run = Process("launch.local", arguments, tmp_path / "log" / str(stop))
        until = _rounds(tmp_path / "run") + draw.randint(1, 4) if stop % 2 else 0
        while _rounds(tmp_path / "run") < until and run.poll() is None:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.05) if stop % 2 else draw.uniform(0.3, 6))
        run.send_signal(signal.SIGTERM)
        try:
            code = run.wait(60)
        finally:
            run.kill()  # that a stop which hangs is told as one, not as a child left behind
        finished = "The report:" in run.said  # before it was told to stop, or while it left
        said.append((code, [line for line in run.said.splitlines() if line.startswith("stopped")]))
        assert "Traceback" not in run.said and not processes_of(tmp_path), run.said
        assert (code, len(said[-1][1])) == (143, 1) or (finished and code in (0, -signal.SIGTERM)), run.said
        if finished:
            break
    print(f"\n{said}")
    assert sum(code == 143 for code, _ in said) >= 2, "stopped too late to show anything"
    assert Process("launch.local", arguments, tmp_path / "last").last_line()["weights_sha256"] == undisturbed
