"""Checkpoints: whole or absent, checked leaf by leaf."""

from __future__ import annotations

import logging
import random
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from learner_jax.errors import CorruptError, StorageError
from learner_jax.storage import quiet_orbax
from learner_jax.storage.steps import Steps


def leaves(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "params/dense/kernel": rng.normal(size=(30, 7)).astype(np.float32),
        "params/count": np.int32(seed),
        "wide": rng.normal(size=5),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 3), np.float32),
        "half": np.arange(6).astype(ml_dtypes.bfloat16).reshape(2, 3),
        "key": np.array([1, 2], np.uint32),
    }


def same(got: dict, expected: dict) -> None:
    assert got.keys() == expected.keys()
    for name in expected:
        value = np.asarray(expected[name])
        assert got[name].dtype == value.dtype and got[name].shape == value.shape
        assert got[name].tobytes() == value.tobytes()


def test_what_is_restored_is_what_was_saved(tmp_path):
    meta = {"round": 3, "curve": [0.5, None], "name": "x"}
    with Steps(tmp_path) as steps:
        assert steps.latest() is None
        steps.save(3, {"server": leaves(3), "sites": {}, "meta": meta}, wait=True)
    with Steps(tmp_path) as steps:
        step, items = steps.restore()
    assert step == 3 and items["meta"] == meta and items["sites"] == {}
    same(items["server"], leaves(3))


def test_jax_arrays_may_be_deleted_at_once(tmp_path):
    import jax.numpy as jnp

    with Steps(tmp_path) as steps:
        leaf = jnp.arange(1000.0)
        steps.save(1, {"server": {"x": leaf}})
        leaf.delete()
        steps.wait()
        assert steps.restore(1)[1]["server"]["x"].sum() == 499500


def test_kept_by_policy(tmp_path):
    metrics = [0.5, 0.9, 0.6, float("nan"), 0.7, 0.8]
    with Steps(tmp_path, keep_last=2, keep_best=1) as steps:
        for step, metric in enumerate(metrics[:4]):
            steps.save(step, {"server": leaves(step)}, wait=True, metric=metric)
    with Steps(tmp_path, keep_last=2, keep_best=1) as steps:  # what is best is known after a restart
        for step in (4, 5):
            steps.save(step, {"server": leaves(step)}, wait=True, metric=metrics[step])
        assert steps.all() == (1, 4, 5) and steps.best() == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "4", "5"]


def test_lower_is_better_and_a_step_is_replaced(tmp_path):
    with Steps(tmp_path, keep_last=1, keep_best=1, higher_is_better=False) as steps:
        for step, metric in enumerate([0.9, 0.1, 0.5]):
            steps.save(step, {"server": leaves(step)}, wait=True, metric=metric)
        assert steps.all() == (1, 2)
        steps.save(2, {"server": leaves(77)}, wait=True, metric=0.5)
        same(steps.restore(2)[1]["server"], leaves(77))


def test_a_save_in_flight_is_not_waited_for(tmp_path, monkeypatch):
    with Steps(tmp_path, keep_last=9) as steps:
        go = threading.Event()
        monkeypatch.setattr("learner_jax.storage.steps._fsynced_files", lambda _: go.wait(60) and {})
        assert steps.save(1, {"server": leaves(1)})
        assert not steps.save(2, {"server": leaves(2)})  # returns, though the first cannot end
        assert steps.latest() is None
        go.set()
        assert steps.save(3, {"server": leaves(3)}, wait=True)
        assert steps.all() == (1, 3)


def test_a_failed_save_is_said_and_leaves_nothing(tmp_path, monkeypatch, capfd):
    with Steps(tmp_path) as steps:
        steps.save(1, {"server": leaves(1)}, wait=True)

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("learner_jax.storage.steps._fsynced_files", full)
        steps.save(2, {"server": leaves(2)})
        with pytest.raises(StorageError, match=r"step 2.*the disk is full"):
            steps.wait()
        monkeypatch.undo()
        assert steps.restore()[0] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert capfd.readouterr() == ("", "")


def test_a_corrupt_step_is_named_and_passed_over(tmp_path):
    with Steps(tmp_path, keep_last=5) as steps:
        for step in (1, 2, 3):
            steps.save(step, {"server": leaves(step)}, wait=True)
    (tmp_path / "3" / "server" / "manifest.ocdbt").write_bytes(b"")
    for path in (tmp_path / "2").rglob("d/*"):
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 0xFF
        path.write_bytes(raw)
    with Steps(tmp_path) as steps:
        for step in (2, 3):
            with pytest.raises(CorruptError, match=str(tmp_path / str(step))):
                steps.restore(step)
        step, items = steps.restore()
        assert step == 1 and len(steps.skipped) == 2
        same(items["server"], leaves(1))
        with pytest.raises(StorageError, match=r"expected step 9 .*\[1, 2, 3\]"):
            steps.restore(9)


def test_a_changed_meta_value_is_seen(tmp_path):
    with Steps(tmp_path) as steps:
        steps.save(1, {"server": leaves(1), "meta": {"round": 1}}, wait=True)
        path = tmp_path / "1" / "step.json"
        path.write_text(path.read_text().replace('"round": 1', '"round": 2'))
        with pytest.raises(CorruptError, match=r"step\.json"):
            steps.restore()


def test_a_leaf_that_changed_in_silence_is_seen(tmp_path):
    """Our sha256 of each file, not Orbax, finds this: the item is a valid one, of other numbers."""
    with Steps(tmp_path / "a") as a, Steps(tmp_path / "b") as b:
        a.save(1, {"server": {"x": np.zeros(3)}}, wait=True)
        b.save(1, {"server": {"x": np.ones(3)}}, wait=True)
        (tmp_path / "a" / "1" / "server").rename(tmp_path / "gone")
        (tmp_path / "b" / "1" / "server").rename(tmp_path / "a" / "1" / "server")
        with pytest.raises(CorruptError, match="is not as it was written"):
            a.restore()


SAVER = """
import sys
import numpy as np
from learner_jax.storage.steps import Steps
steps = Steps(sys.argv[1], keep_last=2)
for step in range((steps.latest() or 0) + 1, 100000):
    steps.save(step, {"server": {"x": np.full(200_000, step, np.float64)}, "meta": {"step": step}}, wait=True)
    print(step, flush=True)
"""


def test_kill_9_during_a_save_leaves_the_step_before(tmp_path):
    rng = random.Random(7)
    for _ in range(2):
        saver = subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert saver.stdout is not None
        said = [int(saver.stdout.readline()) for _ in range(2)]
        time.sleep(rng.random() * 0.12)
        saver.send_signal(signal.SIGKILL)
        said += [int(line) for line in saver.stdout.read().split()]
        assert saver.wait() == -9
        saver.stdout.close()
        with Steps(tmp_path, keep_last=2) as steps:
            step, items = steps.restore()
        assert steps.skipped == [] and step >= said[-1]
        assert items["meta"] == {"step": step} and (items["server"]["x"] == step).all()


def test_a_step_that_was_about_to_be_replaced_is_not_lost(tmp_path):
    """A crash between two renames: the old one is hidden, the new one has no name yet."""
    with Steps(tmp_path) as steps:
        steps.save(1, {"server": leaves(1)}, wait=True)
    (tmp_path / "1").rename(tmp_path / ".replaced-1")
    with Steps(tmp_path) as steps:
        same(steps.restore(1)[1]["server"], leaves(1))


class Ends:
    """Raises where no one can catch it, as a write does that ends after its save."""

    def __init__(self, error: Exception):
        self.error = error

    def __del__(self):
        raise self.error


def test_a_write_that_ends_after_its_save_has_failed_prints_nothing_and_other_faults_are_still_printed(monkeypatch):
    printed: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: printed.append(str(raised.exc_value)))
    monkeypatch.setattr("learner_jax.storage.quiet_orbax._NoOrbax", type("New", (logging.Filter,), {}))
    quiet_orbax.loaded()
    Ends(RuntimeError("Event loop is closed"))
    Ends(RuntimeError("another"))
    assert printed == ["another"]
