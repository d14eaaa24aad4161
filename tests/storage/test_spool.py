"""The coordinator's spool."""

from __future__ import annotations

import errno
import hashlib
import os

import pytest

from learner_jax.errors import CorruptError, StorageError
from learner_jax.storage.spool import Spool


@pytest.fixture(autouse=True, params=["held till it is kept", "to the disk as it comes"])
def _how(request, monkeypatch):
    if request.param != "held till it is kept":
        monkeypatch.setattr("learner_jax.storage.spool._SMALL", -1)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(spool: Spool, data: bytes | memoryview, site: str = "h00", step: int = 3) -> None:
    """Appends in pieces, and keeps."""
    name = digest(bytes(data))
    for at in range(0, max(1, len(data)), step):
        spool.append(site, name, len(data), at, data[at : at + step])
    spool.keep(site, name)


def test_put_get_list_sweep(tmp_path):
    spool = Spool(tmp_path / "spool")
    blobs = [bytes([n]) * (n + 1) for n in range(4)]
    for blob in blobs:
        put(spool, memoryview(blob))
        put(spool, blob)
    assert spool.list() == tuple(sorted(map(digest, blobs)))
    assert [Spool(tmp_path / "spool").get(digest(blob)) for blob in blobs] == blobs
    assert spool.sweep([digest(blobs[0])]) == 3
    assert spool.list() == (digest(blobs[0]),)
    spool.drop(digest(blobs[0]))
    with pytest.raises(StorageError, match=r"got: No such file"):
        spool.get(digest(blobs[0]))


def test_a_changed_byte_is_seen(tmp_path):
    spool = Spool(tmp_path)
    put(spool, b"update")
    spool.path(digest(b"update")).write_bytes(b"updatE")
    with pytest.raises(CorruptError, match="what its name says"):
        spool.get(digest(b"update"))


def test_a_torn_file_is_written_again(tmp_path):
    spool = Spool(tmp_path)
    spool.path(digest(b"update")).write_bytes(b"upd")
    put(spool, b"update")
    assert spool.get(digest(b"update")) == b"update"


@pytest.mark.parametrize("name", ["../x", "a" * 63, "A" * 64, ""])
def test_only_digests_are_names(tmp_path, name):
    with pytest.raises(StorageError, match="64 hexadecimal digits"):
        Spool(tmp_path).append("h00", name, 0, 0, b"")


def test_what_is_on_its_way_has_no_name_and_is_gone_after_a_crash(tmp_path):
    spool, name = Spool(tmp_path), digest(b"update")
    spool.append("h00", name, 6, 0, b"upd")
    with spool.arrived("h00", name) as file:
        assert file.read()[:3] == b"upd"
    spool.close()
    assert spool.list() == () and Spool(tmp_path).list() == ()
    assert all(path.name.startswith(".half-") for path in tmp_path.iterdir())


def test_of_a_large_update_an_earlier_process_leaves_what_has_come(tmp_path, monkeypatch):
    monkeypatch.setattr("learner_jax.storage.spool._SMALL", 4)
    whole, name = b"0123456789", digest(b"0123456789")
    for _ in range(2):  # killed twice
        spool = Spool(tmp_path)
        spool.append("h00", name, 10, 0, whole[:7])
        spool.close()
    spool = Spool(tmp_path)
    assert list(spool.parts(["h00", "h01"])) == [("h00", name)]
    half = spool.parts(["h00"])["h00", name]
    assert half[0:7] == whole[:7] and half[0:10] != whole
    put(spool, whole)
    assert spool.get(name) == whole and [path.name for path in tmp_path.iterdir()] == [name]
    assert Spool(tmp_path).parts(["h00"]) == {}


def test_halves_go_when_their_site_does_or_the_disk_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr("learner_jax.storage.spool._SMALL", 4)

    def killed() -> Spool:
        spool = Spool(tmp_path)
        spool.append("h00", digest(b"0123456789"), 10, 0, b"0123456")
        spool.close()
        return Spool(tmp_path)

    assert killed().parts(["h01"]) == {} and list(tmp_path.iterdir()) == []
    spool, tried = killed(), []

    def no_room(handle: int, start: int, size: int) -> None:
        tried.append(size)
        if len(tried) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    put(spool, b"9876543210")
    assert tried == [10, 10] and spool.list() == (digest(b"9876543210"),) and spool.parts(["h00"]) == {}


def test_a_gap_is_refused_and_what_came_is_dropped(tmp_path):
    spool, name = Spool(tmp_path), digest(b"update")
    spool.append("h00", name, 6, 0, b"upd")
    with pytest.raises(StorageError, match="expected its bytes from 3 on, got 5"):
        spool.append("h00", name, 6, 5, b"e")
    with pytest.raises(StorageError, match="from 0 on, got 3"):
        spool.append("h00", name, 6, 3, b"ate")
    with pytest.raises(StorageError, match="not all of it is there"):
        spool.keep("h00", name)
    assert not list(tmp_path.iterdir())
    spool.append("h00", name, 6, 0, b"upd")
    with pytest.raises(StorageError, match="not all of it is there"):
        spool.keep("h00", name)
    assert not list(tmp_path.iterdir())


def test_a_new_update_of_a_site_takes_the_place_of_one_on_its_way(tmp_path):
    spool = Spool(tmp_path)
    spool.append("h00", digest(b"first"), 5, 0, b"fir")
    spool.append("h01", digest(b"first"), 5, 0, b"fir")
    put(spool, b"second")
    assert set(spool._parts) == {("h01", digest(b"first"))} and len(list(tmp_path.iterdir())) <= 2
    spool.append("h01", digest(b"first"), 5, 3, b"st")
    spool.keep("h01", digest(b"first"))
    assert sorted(spool.list()) == sorted([digest(b"first"), digest(b"second")])


def test_a_full_disk_is_said_before_most_of_an_update_has_come(tmp_path):
    spool = Spool(tmp_path)
    with pytest.raises(StorageError, match=r"No space left|too large"):
        spool.append("h00", digest(b"x"), 1 << 60, 0, b"x")
    assert not list(tmp_path.iterdir())
