"""Days on which something refuses once: a line is said, or it is tried again; no loop ends by a traceback."""

from __future__ import annotations

import errno
import hashlib
import io
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner_jax.cli.progress import forgiving, plain
from learner_jax.engines import coordinator, serving
from learner_jax.engines.coordinator import Rounds, Stores
from learner_jax.engines.metrics_log import metrics_file
from learner_jax.engines.site_study import study_of
from learner_jax.errors import ConfigError, CryptoError, StorageError, StudyError
from learner_jax.events import Event, silent
from learner_jax.leaves import Packed, pack, schema_of
from learner_jax.network import links
from learner_jax.network.enrol import Desk
from learner_jax.network.keys import new_keys, write_secret
from learner_jax.protocol import commands as c
from learner_jax.protocol import rows
from learner_jax.specs import Data, Spec, Study
from learner_jax.statistics import impossible
from learner_jax.storage import outbox, patience
from learner_jax.storage.atomic import write_bytes
from learner_jax.storage.journal import Journal
from learner_jax.storage.spool import Spool

STUDY = Study(name="s", task=Spec("tasks", "readmission"), data=Data(source="diabetes130"))
NOTE = Event("note", "s", data={"text": "words"})


def refuse(number: int, times: int = 10**9) -> Any:
    left = [times]

    def refused(*_: object, **__: object) -> Any:
        if left[0]:
            left[0] -= 1
            raise OSError(number, "refused")
        return None

    return refused


class Full(io.StringIO):
    """A log on a disk that is full, or a pipe that nobody reads."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, "refused")


def test_words_for_people_end_no_run_where_their_disk_is_full():
    forgiving(plain(Full(errno.ENOSPC), STUDY))(NOTE)
    with pytest.raises(BrokenPipeError):
        forgiving(plain(Full(errno.EPIPE), STUDY))(NOTE)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSPC, errno.EROFS])
def test_lines_for_machines_wait_where_they_cannot_be_written(tmp_path, monkeypatch, number):
    tell = metrics_file(tmp_path / "metrics.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse(number))
        patch.setattr("builtins.open", refuse(number))
        tell(NOTE)
    tell(NOTE)
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2


def test_a_disk_that_may_only_be_read_is_one_of_our_errors(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "unlink", refuse(errno.EROFS))
    monkeypatch.setattr("os.open", refuse(errno.EROFS))
    with pytest.raises(StorageError):
        write_bytes(tmp_path / "x", b"x")
    with pytest.raises(CryptoError):
        write_secret(tmp_path / "x", b"x")


def test_a_read_that_fails_once_is_no_corruption(tmp_path, monkeypatch):
    (tmp_path / "pending").write_bytes(b"some")
    monkeypatch.setattr(Path, "open", refuse(errno.EIO))
    with pytest.raises(StorageError, match="expected to read") as caught:
        outbox._read(tmp_path / "pending")
    assert type(caught.value) is StorageError


def test_an_update_that_cannot_be_read_is_checked_again(tmp_path, monkeypatch):
    journal, spool = Journal(tmp_path / "journal.sqlite", "s", "d" * 64), Spool(tmp_path / "spool")
    rounds, data = Rounds(STUDY, Stores(journal, spool), silent), pack({"w": np.zeros(2, np.float32)})
    rounds._expected = schema_of({"w": np.zeros(2, np.float32)})
    spool.append("a", "d" * 64, len(data), 0, data)
    monkeypatch.setattr(coordinator, "check_file", refuse(errno.EIO))
    with pytest.raises(StorageError, match="expected to read an update of a"):
        rounds._validate(c.Validate("a", 1, "train", "d" * 64))
    journal.close()
    spool.close()


@pytest.mark.parametrize(
    "manifest", [b"\xff\xfe", b"[" * 40_000, b"3", b'{"name": "s", "task": {"fields": 3}}', b"nonsense"]
)
def test_a_manifest_that_is_none_is_one_line(manifest):
    with pytest.raises(ConfigError) as caught:
        study_of(manifest)
    assert "\n" not in str(caught.value)


def test_a_study_whose_sites_cannot_be_told_of_it_does_not_begin():
    serving._can_be_welcomed(STUDY, [f"h{number:02d}" for number in range(100)])
    with pytest.raises(ConfigError, match=r"1500 sites and a manifest of .* do not fit in one message"):
        serving._can_be_welcomed(STUDY, ["hospital-of-a-long-name-" + "x" * 30 + str(number) for number in range(1500)])


@pytest.mark.parametrize("text", ["", "{}", "[" * 5000, '{"port": "x"}', '{"port": 99999999}', "nonsense"])
def test_an_address_that_was_spoilt_is_made_anew(tmp_path, text):
    (tmp_path / "address.json").write_text(text)
    assert serving._port_before(tmp_path / "address.json") == 0
    assert serving._port_before(tmp_path / "none.json") == 0


def test_whom_nobody_knows_takes_no_time_from_others(monkeypatch):
    """A revoked key sends and sends: the loop has its turn after each."""
    with links.CoordinatorLink("127.0.0.1", 0, new_keys()) as link:
        polls = []

        def ready(*_: object) -> list[tuple[Any, int]]:
            polls.append(1)
            assert len(polls) <= 200, "it does not come back"
            return [(link._socket, 1)]

        monkeypatch.setattr(link, "_take", lambda: None)
        monkeypatch.setattr(link._poller, "poll", ready)
        assert [link.recv(30.0) for _ in range(100)] == [None] * 100


def test_a_port_has_as_many_files_as_it_may(monkeypatch):
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: asked.append(limits))
    links._more_files()
    assert asked == [(4096, 4096)]
    monkeypatch.setattr(resource, "setrlimit", refuse(errno.EPERM))
    links._more_files()


def test_what_is_awaited_of_a_site_that_was_revoked_meanwhile_is_nothing(tmp_path):
    keys = new_keys()
    with links.CoordinatorLink("127.0.0.1", 0, keys) as link:
        desk = Desk(tmp_path / "roster.json", "s", keys)
        desk.serve(link)
        desk._await("gone")
        assert not link._watched_keys


def test_sums_that_would_make_a_total_infinite_are_refused():
    said = impossible([("input/sum", np.array([1.7e308]))])
    assert said is not None and "expected sums below 1e+30" in said


@pytest.mark.parametrize("size", [100, 2**21])
def test_an_update_that_is_given_up_on_a_disk_that_may_only_be_read_is_one_of_our_errors(tmp_path, monkeypatch, size):
    spool, data = Spool(tmp_path / "spool"), bytes(size)
    spool.append("a", "d" * 64, size, 0, data)
    monkeypatch.setattr(Path, "unlink", refuse(errno.EROFS))
    monkeypatch.setattr("os.fsync", refuse(errno.EROFS))
    with pytest.raises(StorageError, match="expected to keep an update"):
        spool.keep("a", "d" * 64)
    spool.append("a", "e" * 64, size, 0, data)
    spool.append("a", "f" * 64, size, 0, data)  # drops the one before
    spool.close()


def opened(tmp_path, buffered: bool) -> tuple[Rounds, list[str], dict[str, str], Path]:
    """A round that was open when its coordinator ended, with one update in it."""
    journal, spool = Journal(tmp_path / "journal.sqlite", "s", "d" * 64), Spool(tmp_path / "spool")
    said: list[str] = []
    rounds = Rounds(STUDY, Stores(journal, spool), lambda event: said.append(event.data["text"]))
    digest = hashlib.sha256(b"update").hexdigest()
    spool.append("a", digest, 6, 0, b"update")
    spool.keep("a", digest)
    return rounds, said, {"a": digest}, spool.path(digest)


@pytest.mark.parametrize("buffered", [False, True])
def test_an_accepted_update_that_cannot_be_read_now_is_waited_for(tmp_path, monkeypatch, buffered):
    rounds, said, accepted, path = opened(tmp_path, buffered)
    real, left = Path.open, [2]

    def refused(self, *more, **also):
        if self == path and left[0]:
            left[0] -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return real(self, *more, **also)

    monkeypatch.setattr(Path, "open", refused)
    monkeypatch.setattr(patience.time, "sleep", lambda seconds: None)
    assert rounds._damaged(accepted, buffered) == {} and path.read_bytes() == b"update"
    assert len(said) == 1 and "Too many open files; trying again" in said[0]
    rounds.stores.journal.close()


def test_an_accepted_update_that_is_lost_is_asked_for_again_but_not_in_a_buffered_round(tmp_path):
    rounds, said, accepted, path = opened(tmp_path, True)
    path.write_bytes(b"damage")
    with pytest.raises(StorageError, match="updates of a as they were accepted in a buffered round"):
        rounds._damaged(accepted, True)
    assert path.read_bytes() == b"damage", "a repaired disk may bring it back"
    assert rounds._damaged(accepted, False) == accepted and not path.exists()
    assert rounds._damaged(accepted, False) == accepted  # and one that is not there
    assert "asking site 'a' for it again" in said[-1]
    rounds.stores.journal.close()


def test_a_round_whose_broadcast_is_another_now_does_not_count_what_was_answered_to_the_first(tmp_path):
    rounds, _, accepted, _ = opened(tmp_path, False)
    journal = rounds.stores.journal
    journal.write(rows.Opened(1, "train", 1, journal.epoch, ("a",), "b" * 64))
    journal.write(rows.Accepted(1, "train", "a", accepted["a"], 1))
    expected = schema_of({"w": np.zeros(2, np.float32)})
    asked = coordinator.Phase(1, "train", ("a",), Packed({"w": np.ones(2, np.float32)}), expected, expected)
    with pytest.raises(StudyError, match="go on with the broadcast that it was opened with"):
        rounds.run(asked)
    journal.close()


def test_a_disk_that_refuses_once_while_updates_are_added_up_is_no_damage(tmp_path, monkeypatch):
    rounds, _, accepted, _ = opened(tmp_path, False)
    monkeypatch.setattr(Path, "open", refuse(errno.EIO))
    with pytest.raises(StorageError) as caught:
        list(rounds._accepted("a", accepted["a"], schema_of({"w": np.zeros(2, np.float32)})))
    assert type(caught.value) is StorageError
    rounds.stores.journal.close()
