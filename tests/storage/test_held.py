"""What lies on a disk of an earlier transfer: a cache that may be gone or spoilt at any time, and never raises."""

from __future__ import annotations

import hashlib

import pytest

from learner_jax.leaves import piece
from learner_jax.protocol.transfers import Held
from learner_jax.storage.held import held, hold
from learner_jax.storage.spool import Spool

DATA = bytes(range(200))
TABLE = piece(DATA[:50]) + piece(DATA[50:])


def whole(found: Held | None) -> bytes:
    assert found is not None
    return bytes(found.data[0 : len(found.data)])


def test_a_blob_and_its_table_are_there_again(tmp_path):
    path = tmp_path / "broadcast"
    there = hold(path, TABLE, memoryview(DATA))
    assert there is not None and len(there) == 200 and there[10:20] == DATA[10:20] and there[190:300] == DATA[190:]
    found = held(path)
    assert found is not None and found.pieces == TABLE and whole(found) == DATA
    assert path.stat().st_mode & 0o777 == 0o600 and [one.name for one in tmp_path.iterdir()] == ["broadcast"]
    hold(path, b"", b"another")
    assert whole(held(path)) == b"another" and there[:3] != DATA[:3]  # whoever reads checks


@pytest.mark.parametrize(
    "content", [None, b"", b"LEARNERB", b"LEARNERB" + bytes(4), b"other" * 9, b"LEARNERB\xff\xff\xff\xffx"]
)
def test_whatever_lies_there_instead_is_passed_over(tmp_path, content):
    path = tmp_path / "broadcast"
    if content is not None:
        path.write_bytes(content)
    assert held(path) is None


def test_a_file_that_is_gone_or_shorter_gives_fewer_bytes(tmp_path):
    path = tmp_path / "broadcast"
    there = hold(path, TABLE, DATA)
    assert there is not None
    path.write_bytes(path.read_bytes()[:-100])
    assert len(there[150:200]) < 50
    path.unlink()
    assert there[0:10] == b""


def test_a_disk_that_refuses_leaves_none_and_nothing_half_written(tmp_path):
    assert hold(tmp_path / "no folder" / "broadcast", TABLE, DATA) is None
    (tmp_path / "broadcast").mkdir()
    assert hold(tmp_path / "broadcast", TABLE, DATA) is None
    assert [one.name for one in tmp_path.iterdir()] == ["broadcast"]


def test_an_update_is_kept_with_its_table_and_swept_with_it(tmp_path):
    spool, digest = Spool(tmp_path / "spool"), hashlib.sha256(DATA).hexdigest()
    spool.append("h00", digest, 200, 0, DATA)
    assert spool.keep("h00", digest, TABLE)[20:30] == DATA[20:30]
    found = Spool(tmp_path / "spool").held(digest)
    assert found is not None and found.pieces == TABLE and whole(found) == DATA
    assert spool.list() == (digest,) and spool.held("a" * 64) is None
    spool.sweep([])
    assert spool.held(digest) is None and list((tmp_path / "spool").iterdir()) == []
