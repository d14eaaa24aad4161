"""A disk that is full or broken for a moment is said in a line and waited for; the weights are as ever."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from learner_jax import failpoints
from learner_jax.protocol.rows import Accepted
from learner_jax.specs import Checkpoint
from tests.federation.chains import Federation, ended, slow_study
from tests.federation.hospitals import simulated
from tests.federation.kills import events, rows_of
from tests.federation.nursery import Child

WORDS = {"enospc": (os.strerror(28), "the disk is full; make room"), "eio": (os.strerror(5),)}
AT_THE_END = "coordinator.steps.mid_replace"
AT_THE_START = tuple(name for name in failpoints.STORAGE if name.startswith(("site.epoch", "site.fitted")))
COORDINATOR = [name for name in failpoints.STORAGE if name.startswith("coordinator.") and name != AT_THE_END]
OUTBOX = [name for name in failpoints.STORAGE if name.startswith("site.outbox") and not name.endswith("discard")]


def told(child: Child, action: str, others: list[Child]) -> str:
    """Waits until a process says in a line that its disk refused."""
    while not (lines := [line for line in child.said.splitlines() if any(words in line for words in WORDS[action])]):
        for one in (child, *others):
            assert one.poll() is None, f"it waits, but ended with {one.returncode}: {one.said[-2000:]}"
        time.sleep(0.02)
    return lines[0]


def goes_on(run: Path, child: Child) -> None:
    """Waits for another round."""
    closed: Callable[[], int] = lambda: len([line for line in events(run) if line["event"] == "round_closed"])  # noqa: E731
    before = closed()
    while closed() <= before:
        assert child.poll() is None, child.said[-2000:]
        time.sleep(0.02)


@pytest.mark.slow
def test_a_sample_of_full_disks(source, nursery, tmp_path):
    study = slow_study(source, "scaffold", 6)
    there = Federation(nursery, study, tmp_path)
    coordinator = there.coordinator("coordinator.spool.after_rename:5:enospc")
    h00 = there.site("h00", coordinator, "site.fitted.before_rename:1:eio")
    h01 = there.site("h01", coordinator, "site.outbox.before_commit:4:enospc")
    for child, action in ((coordinator, "enospc"), (h00, "eio"), (h01, "enospc")):
        line = told(child, action, [])
        assert line.endswith("trying again") and "Traceback" not in child.said
        print(f"  {line}")
    ended(study, there.run, [coordinator, h00, h01], simulated(study).sha256)


@pytest.mark.soak
@pytest.mark.limit(900)
@pytest.mark.parametrize("action", WORDS)
def test_the_disk_refuses_at_every_point(action, source, nursery, tmp_path):
    """A process at a time; then it is killed, and the next one finds its disk refuse elsewhere."""
    every = Checkpoint(keep_last=2, wait=True)  # so that the last is there when it is saved once more
    study = dataclasses.replace(slow_study(source, "scaffold", 300), checkpoint=every)
    there = Federation(nursery, study, tmp_path)
    coordinator = there.coordinator()
    h00, h01 = there.site("h00", coordinator), there.site("h01", coordinator, f"{AT_THE_START[0]}:1:{action}")
    for place, name in enumerate([*AT_THE_START, *OUTBOX]):
        print(f"  {name}: {told(h01, action, [coordinator, h00])}")
        goes_on(there.run, coordinator) if name in OUTBOX else time.sleep(0.1)
        h01.kill()
        following = [*AT_THE_START, *OUTBOX, ""][place + 1]
        if following.startswith("site.epoch"):  # a site keeps each epoch once
            coordinator.kill()
            coordinator.wait()
            coordinator = there.coordinator()
        assert h01.wait() == -9
        h01 = there.site("h01", coordinator, f"{following}:1:{action}" if following else "")
    for name in (*COORDINATOR, AT_THE_END):
        coordinator.kill()
        coordinator.wait()
        coordinator = there.coordinator(f"{name}:1:{action}")
        print(f"  {name}: {told(coordinator, action, [h00, h01])}")
        if name != AT_THE_END:
            goes_on(there.run, coordinator)
    ended(study, there.run, [coordinator, h00, h01], simulated(study).sha256)


@pytest.mark.soak
@pytest.mark.parametrize("damage", ["a byte", "its end", "all of it"])
def test_an_update_that_is_damaged_on_disk_is_sent_again(damage, source, nursery, tmp_path):
    """Its round is open, its site has committed it and gone on waiting; the other one is still to come."""
    study = slow_study(source, "scaffold", 8)
    there = Federation(nursery, study, tmp_path)
    coordinator = there.coordinator()
    h00, h01 = there.site("h00", coordinator), there.site("h01", coordinator, "site.outbox.before_write:5")
    assert h01.wait() == -9  # in round 3; the other one's update comes, and counts
    while not any(line["event"] == "site_done" and line["round"] == 3 for line in events(there.run)):
        time.sleep(0.02)
    coordinator.kill()
    assert coordinator.wait() == -9
    (digest,) = [row.digest for row in rows_of(there.run) if isinstance(row, Accepted) and row.round == 3]
    file = there.run / "spool" / digest
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data if damage == "a byte" else data[:100])
    if damage == "all of it":
        file.unlink()
    coordinator = there.coordinator()
    h01 = there.site("h01", coordinator)
    ended(study, there.run, [coordinator, h00, h01], simulated(study).sha256)
    notes = [line["text"] for line in events(there.run) if line["event"] == "note"]
    assert any(text.endswith("asking site 'h00' for it again") and digest in text for text in notes), notes
