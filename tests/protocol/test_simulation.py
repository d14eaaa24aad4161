"""What must hold in a federation, under random schedules of faults: see `schedules.py`, which says what and plays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import learner_jax
from tests.protocol import schedules

MANY = int(os.environ.get("LEARNER_SCHEDULES", "100000"))


def outside(many: int, first: int) -> dict[str, Any]:
    """Plays in processes of their own, where annotations are not checked: ten times as fast."""
    command = [sys.executable, schedules.__file__, str(many), str(first)]
    paths = {**os.environ, "PYTHONPATH": str(Path(learner_jax.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=paths)
    assert done.returncode == 0, done.stderr.strip().splitlines()[-1]
    found = json.loads(done.stdout)
    print({name: found[name] for name in ("schedules", "violations", "seconds", "faults_per_schedule", "met")})
    return found


def test_what_must_hold_with_every_annotation_checked():
    schedules.play(0, 25)


@pytest.mark.slow
def test_what_must_hold_under_any_schedule_and_all_is_met():
    found = outside(MANY, 1000)
    assert found["schedules"] == MANY
    assert not schedules.unmet(found), "each row of both tables and each pair of faults is met by some schedule"


@pytest.mark.soak
def test_what_must_hold_under_a_million_schedules():
    found = outside(1_000_000, 10_000_000)
    assert not schedules.unmet(found)
