"""Files that are whole or absent."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from learner_jax.errors import CorruptError, StorageError
from learner_jax.storage import atomic


def test_writes_parts_with_the_mode_asked_for(tmp_path):
    atomic.write_bytes(tmp_path / "a", b"one", memoryview(b"two"), b"", mode=0o600)
    assert (tmp_path / "a").read_bytes() == b"onetwo"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


@pytest.mark.parametrize("owner, call", [(os, "fsync"), (Path, "replace")])
def test_a_failed_write_leaves_the_old_bytes_and_no_litter(tmp_path, monkeypatch, owner, call):
    path = tmp_path / "a"
    atomic.write_bytes(path, b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(owner, call, full)
    with pytest.raises(StorageError, match="No space left on device"):
        atomic.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_json_both_ways_and_what_is_not_json(tmp_path):
    atomic.write_json(tmp_path / "a.json", {"b": 1})
    assert atomic.read_json(tmp_path / "a.json") == {"b": 1}
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(CorruptError, match=r"a\.json"):
        atomic.read_json(tmp_path / "a.json")
    with pytest.raises(StorageError, match="none"):
        atomic.read_json(tmp_path / "none")


def test_a_shared_sync_begins_after_each_call_and_is_one_for_all_who_wait(tmp_path, monkeypatch):
    begun, go = [], threading.Event()

    def slow(folder):
        begun.append(len(done))
        go.wait(10)

    monkeypatch.setattr(atomic, "fsync_folder", slow)
    sync, done = atomic.SharedSync(tmp_path), []

    def call() -> None:
        sync()
        done.append(len(begun))

    threads = [threading.Thread(target=call) for _ in range(9)]
    threads[0].start()
    while not begun:
        time.sleep(0.001)
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.2)  # all wait by now
    go.set()
    for thread in threads:
        thread.join(10)
    assert sorted(done) == [1] + [2] * 8 and len(begun) == 2
    sync()
    assert len(begun) == 3
