"""A coordinator is lost, and goes on from a backup, with the sites as they are."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from learner_jax import failpoints
from learner_jax.storage.backup import backup, restore
from tests.federation.chains import SITES, Federation, ended, slow_study
from tests.federation.hospitals import simulated
from tests.federation.kills import events
from tests.federation.nursery import Child

AT_THE_END = ("coordinator.result", "coordinator.study.before_finish", "coordinator.study.after_finish",
              "coordinator.steps.mid_replace")  # fmt: skip
HELD = [name for name in failpoints.NAMES if name.startswith("coordinator.") and not name.startswith(AT_THE_END)]


def held(child: Child) -> None:
    """Waits until a process has stopped at its point."""
    while Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
        assert child.poll() is None, child.said[-2000:]
        time.sleep(0.01)


def goes_on_until(run: Path, number: int, child: Child) -> None:
    os.kill(child.pid, signal.SIGCONT)
    while not any(line["event"] == "round_closed" and line["round"] >= number for line in events(run)):
        assert child.poll() is None, child.said[-2000:]
        time.sleep(0.01)


@pytest.mark.slow
def test_sites_that_are_ahead_follow_a_restored_coordinator(source, nursery, tmp_path):
    """A method whose sites keep no state: rounds are run again, to the same bits."""
    study = slow_study(source, "fedavg", 12)
    there = Federation(nursery, study, tmp_path)
    coordinator = there.coordinator("coordinator.journal.after_closed:5:stop")
    sites = [there.site(name, coordinator) for name in SITES]
    held(coordinator)
    taken = backup(there.run, tmp_path / "study.tar")  # while it holds its lock, and its next row is not written
    goes_on_until(there.run, taken.round + 3, coordinator)
    coordinator.kill()
    assert coordinator.wait() == -9
    there.run = tmp_path / "elsewhere"
    assert restore(tmp_path / "study.tar", there.run) == taken
    print(f"\n  backed up in round {taken.round + 1}, lost after round {taken.round + 3} or later, restored elsewhere")
    ended(study, there.run, [there.coordinator(), *sites], simulated(study).sha256)


@pytest.mark.soak
def test_a_site_with_a_later_state_says_so_and_leaves(source, nursery, tmp_path):
    study = slow_study(source, "scaffold", 60)
    there = Federation(nursery, study, tmp_path)
    coordinator = there.coordinator("coordinator.journal.after_closed:5:stop")
    sites = [there.site(name, coordinator) for name in SITES]
    held(coordinator)
    taken = backup(there.run, tmp_path / "study.tar")
    goes_on_until(there.run, taken.round + 3, coordinator)
    coordinator.kill()
    coordinator.wait()
    there.run = tmp_path / "elsewhere"
    restore(tmp_path / "study.tar", there.run)
    coordinator, line = there.coordinator(), ""
    for site in sites:
        assert site.wait() == 1
        (line,) = [line for line in site.said.splitlines() if line.startswith("learner join:")]
        assert "restored from an older backup" in line and f"got round {taken.round + 2}" in line
    print(f"\n  {line}")


@pytest.mark.soak
@pytest.mark.limit(900)
@pytest.mark.parametrize("method", ["scaffold"])
def test_a_backup_at_every_point_can_be_gone_on_from(method, source, nursery, tmp_path):
    """The coordinator is held at a point, backed up, killed for good, and restored in another folder; and so on."""
    study = slow_study(source, method, 120)
    there = Federation(nursery, study, tmp_path)
    chain = random.Random(3).sample(HELD, len(HELD))
    chain.sort(key=lambda name: not name.startswith("coordinator.best"))
    coordinator = there.coordinator(f"{chain[0]}:1:stop")
    sites = [there.site(name, coordinator) for name in SITES]
    for place, name in enumerate(chain):
        held(coordinator)
        taken = backup(there.run, tmp_path / "study.tar")
        coordinator.kill()
        assert coordinator.wait() == -9
        there.run = tmp_path / f"run-{place}"
        restore(tmp_path / "study.tar", there.run)
        print(f"  {name}: as of round {taken.round}, {taken.bytes} bytes")
        coordinator = there.coordinator(f"{chain[place + 1]}:1:stop" if place + 1 < len(chain) else "")
    ended(study, there.run, [coordinator, *sites], simulated(study).sha256)
