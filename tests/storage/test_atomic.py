"""Files that are whole or absent."""

from __future__ import annotations

import errno
import os
import stat
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
