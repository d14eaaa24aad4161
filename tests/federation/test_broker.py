"""A federation through a broker that stands alone: the same bits, whoever is killed."""

from __future__ import annotations

import json
import signal
import time

import pytest

from learner_jax.specs import Data
from tests.federation.hospitals import Apart, Process, simulated, small


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
