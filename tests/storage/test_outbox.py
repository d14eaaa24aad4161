"""A site's outbox."""

from __future__ import annotations

import hashlib

import pytest

from learner_jax.errors import CorruptError, LocalProtocolError
from learner_jax.protocol.entry import Entry
from learner_jax.storage.outbox import Outbox


def entry(data: bytes, number: int = 1) -> Entry:
    return Entry(number, "train", "b" * 64, hashlib.sha256(data).hexdigest(), len(data), "5" * 64)


def test_put_restart_commit(tmp_path):
    box = Outbox(tmp_path / "box")
    assert box.pending() is None and box.committed() is None and box.epoch_seen() == 0
    box.put(entry(b"update"), b"update", b"state 1")
    box.see_epoch(3)
    box = Outbox(tmp_path / "box")
    assert box.pending() == (entry(b"update"), b"update", b"state 1")
    assert box.committed() is None and box.epoch_seen() == 3
    box.commit(entry(b"update").digest)
    box.commit(entry(b"update").digest)
    assert Outbox(tmp_path / "box").committed() == (entry(b"update"), b"state 1")
    assert box.pending() is None


def test_a_discarded_update_commits_nothing(tmp_path):
    box = Outbox(tmp_path)
    box.put(entry(b"x"), b"x", b"s")
    box.discard()
    assert box.pending() is None and box.committed() is None
    with pytest.raises(LocalProtocolError, match="but pending is none"):
        box.commit(entry(b"x").digest)


def test_killed_between_the_two_writes_of_a_commit(tmp_path, monkeypatch):
    box = Outbox(tmp_path)
    box.put(entry(b"x"), b"x", b"s")
    monkeypatch.setattr(Outbox, "_remove", lambda self: None)
    box.commit(entry(b"x").digest)
    monkeypatch.undo()
    box = Outbox(tmp_path)
    assert box.pending() is None and box.committed() == (entry(b"x"), b"s")


@pytest.mark.parametrize("at", [0, 9, 20, 60, -7, -1])
def test_a_changed_byte_is_seen(tmp_path, at):
    box = Outbox(tmp_path)
    box.put(entry(b"update"), b"update", b"state")
    raw = bytearray((tmp_path / "pending").read_bytes())
    raw[at] ^= 1
    (tmp_path / "pending").write_bytes(raw)
    with pytest.raises(CorruptError):
        box.pending()


def test_what_was_acknowledged_stays_until_the_next(tmp_path):
    box = Outbox(tmp_path)
    assert box.kept() is None
    box.put(entry(b"x"), b"x", b"s")
    box.commit(entry(b"x").digest)
    box.put(entry(b"y", 2), b"y", b"t")
    assert Outbox(tmp_path).kept() == (entry(b"x"), b"x")
    box.commit(entry(b"y", 2).digest)
    assert box.kept() == (entry(b"y", 2), b"y") and box.committed() == (entry(b"y", 2), b"t")
