"""The coordinator's spool."""

from __future__ import annotations

import hashlib

import pytest

from learner_jax.errors import CorruptError, StorageError
from learner_jax.storage.spool import Spool


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_put_get_list_sweep(tmp_path):
    spool = Spool(tmp_path / "spool")
    blobs = [bytes([n]) * (n + 1) for n in range(4)]
    for blob in blobs:
        spool.put(digest(blob), memoryview(blob))
        spool.put(digest(blob), blob)
    assert spool.list() == tuple(sorted(map(digest, blobs)))
    assert [Spool(tmp_path / "spool").get(digest(blob)) for blob in blobs] == blobs
    assert spool.sweep([digest(blobs[0])]) == 3
    assert spool.list() == (digest(blobs[0]),)
    spool.drop(digest(blobs[0]))
    with pytest.raises(StorageError, match=r"got: No such file"):
        spool.get(digest(blobs[0]))


def test_a_changed_byte_is_seen(tmp_path):
    spool = Spool(tmp_path)
    spool.put(digest(b"update"), b"update")
    spool.path(digest(b"update")).write_bytes(b"updatE")
    with pytest.raises(CorruptError, match="what its name says"):
        spool.get(digest(b"update"))


def test_a_torn_file_is_written_again(tmp_path):
    spool = Spool(tmp_path)
    spool.path(digest(b"update")).write_bytes(b"upd")
    spool.put(digest(b"update"), b"update")
    assert spool.get(digest(b"update")) == b"update"


@pytest.mark.parametrize("name", ["../x", "a" * 63, "A" * 64, ""])
def test_only_digests_are_names(tmp_path, name):
    with pytest.raises(StorageError, match="64 hexadecimal digits"):
        Spool(tmp_path).put(name, b"")
