"""The journal: append-only, unique, one writer, one study."""

from __future__ import annotations

import sqlite3
import subprocess
import sys

import pytest

from learner_jax.errors import CorruptError, LocalProtocolError, StorageError, StudyError
from learner_jax.protocol.rows import Accepted, Aggregated, Closed, Committed, Opened
from learner_jax.storage.journal import Journal

ROWS = (
    Opened(1, "train", 1, 1, ("a", "b"), "f" * 64),
    Accepted(1, "train", "b", "b" * 64, 10),
    Accepted(1, "train", "a", "a" * 64, 10),
    Closed(1, "train", (("a", "a" * 64), ("b", "b" * 64)), ()),
    Aggregated(1, "train"),
    Committed(1, "c" * 32),
    Opened(2, "train", 1, 1, ("a", "b"), "e" * 64),
    Accepted(2, "train", "a", "d" * 64, 10),
)


def test_rows_come_back_as_they_were_and_epochs_rise(tmp_path):
    with Journal(tmp_path / "run" / "journal.db", "readmission", "m" * 64) as journal:
        assert journal.epoch == 1
        for row in ROWS:
            journal.write(row)
        journal.write(ROWS[1])  # the same again changes nothing
    with Journal(tmp_path / "run" / "journal.db", "readmission", "m" * 64) as journal:
        assert journal.epoch == 2
        assert journal.history() == ROWS
        assert journal.open_round() == (ROWS[6], {"a": "d" * 64})
        assert journal.closed() == {(1, "train"): ROWS[3]}
        assert journal.accepted()[2, "train", "a"] == "d" * 64
        assert journal.committed() == {1: "c" * 32}
        assert journal.aggregated() == {(1, "train")}
        journal.write(Opened(2, "train", 2, 2, ("a", "b"), "e" * 64))
        assert journal.open_round() == (Opened(2, "train", 2, 2, ("a", "b"), "e" * 64), {"a": "d" * 64})
        journal.write(Closed(2, "train", (("a", "d" * 64),), ("b",)))
        assert journal.open_round() is None


@pytest.mark.parametrize(
    "row",
    [Accepted(1, "train", "b", "9" * 64, 10), Closed(1, "train", (("a", "a" * 64),), ("b",)), Committed(1, "d" * 32)],
)
def test_what_was_written_cannot_be_changed(tmp_path, row):
    with Journal(tmp_path / "journal.db", "s", "m") as journal:
        for each in ROWS:
            journal.write(each)
        with pytest.raises(LocalProtocolError, match="expected one row"):
            journal.write(row)
    base = sqlite3.connect(tmp_path / "journal.db")
    for text in ("DELETE FROM rows", "UPDATE rows SET round = 9"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            base.execute(text)
    base.close()


def test_another_runs_folder_is_refused(tmp_path):
    Journal(tmp_path / "journal.db", "readmission", "m" * 64).close()
    with pytest.raises(StudyError, match="another study: 'readmission'"):
        Journal(tmp_path / "journal.db", "sepsis", "m" * 64)
    with pytest.raises(StudyError, match="other settings"):
        Journal(tmp_path / "journal.db", "readmission", "n" * 64)
    Journal(tmp_path / "journal.db", "readmission", "m" * 64).close()


def test_one_coordinator_a_folder(tmp_path):
    with (
        Journal(tmp_path / "journal.db", "s", "m"),
        pytest.raises(StudyError, match="another is running"),
    ):
        Journal(tmp_path / "journal.db", "s", "m")


def test_other_bytes_are_no_journal(tmp_path):
    (tmp_path / "journal.db").write_bytes(b"not a data base" * 100)
    with pytest.raises(CorruptError, match="expected a journal"):
        Journal(tmp_path / "journal.db", "s", "m")


def test_closed_journal_says_so(tmp_path):
    journal = Journal(tmp_path / "journal.db", "s", "m")
    journal.close()
    with pytest.raises(StorageError, match="was closed"):
        journal.write(ROWS[0])


def test_what_was_written_survives_kill_9(tmp_path):
    code = """
import os, signal, sys
from learner_jax.protocol.rows import Accepted
from learner_jax.storage.journal import Journal
journal = Journal(sys.argv[1], "s", "m")
for n in range(5):
    journal.write(Accepted(1, "train", f"site{n}", "a" * 64, 1))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "journal.db")], check=False)
    assert done.returncode == -9
    with Journal(tmp_path / "journal.db", "s", "m") as journal:
        assert len(journal.accepted()) == 5 and journal.epoch == 2


@pytest.mark.parametrize("body", ["{", '{"round": 1}', "[]"])
def test_a_row_that_is_no_row_is_one_line(tmp_path, body):
    path = tmp_path / "journal.sqlite"
    with Journal(path, "s", "d" * 64) as journal:
        journal._sql(
            "INSERT INTO rows (kind, round, phase, site, attempt, body) VALUES (?, 1, 'train', 'a', 1, ?)",
            ("accepted", body),
        )
    with pytest.raises(CorruptError, match="expected a journal in"):
        Journal(path, "s", "d" * 64)
