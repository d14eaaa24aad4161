"""A disk that is full: one clear line, nothing half-written, and the same command goes on once there is room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

STUDY = (
    "--config=readmission",
    "--config.data.sites=['h07','h08']",
    "--config.references=[]",
    "--config.engine.plan=sequential",
    "--config.rounds=6",
)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 700 kB, which takes two steps of this study at most."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", folder]).returncode:
        pytest.skip("a small disk can only be mounted by root: not run")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def learner(folder: Path) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "learner_jax", "simulate", *STUDY, "--json", f"--workdir={folder}"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.soak
def test_a_full_disk_stops_a_run_and_more_room_lets_it_go_on(small_disk, tmp_path):
    code, _, err = learner(small_disk / "run")
    assert code == 1
    assert "the disk is full; make room, and the same command goes on" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not (small_disk / "run" / "result.json").exists()
    subprocess.run(["mount", "-o", "remount,size=60m", small_disk], check=True)
    code, out, err = learner(small_disk / "run")
    assert code == 0, err
    _, undisturbed, _ = learner(tmp_path / "other")
    sha256 = json.loads(out.splitlines()[-1])["weights_sha256"]
    assert sha256 == json.loads(undisturbed.splitlines()[-1])["weights_sha256"]
