"""The coordinator's journal: append-only SQLite (WAL, synchronous=FULL), one row a step of a round.

What is in it has happened, whatever crashes next. One writer a folder (a file lock says so); one study a journal, whose
name and manifest digest lie inside, so that another run's folder is refused. Each opening is a new epoch.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

from learner_jax import failpoints
from learner_jax.errors import CorruptError, LocalProtocolError, StorageError, StudyError
from learner_jax.protocol import rows
from learner_jax.protocol.rows import Accepted, Closed, Opened, Row

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS epochs (epoch INTEGER PRIMARY KEY AUTOINCREMENT, process INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS rows (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, round INTEGER NOT NULL, phase TEXT NOT NULL,
  site TEXT NOT NULL, attempt INTEGER NOT NULL, body TEXT NOT NULL, UNIQUE (kind, round, phase, site, attempt));
CREATE TRIGGER IF NOT EXISTS rows_stay BEFORE UPDATE ON rows BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS rows_last BEFORE DELETE ON rows BEGIN SELECT RAISE(ABORT, 'append-only'); END;
"""


def _tuples(value):
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def rows_in(base: sqlite3.Connection) -> tuple[Row, ...]:
    """All rows of a journal's data base, oldest first.

    Raises:
      ValueError: one of them is no row of ours.
    """
    return tuple(_row(*found) for found in base.execute("SELECT kind, body FROM rows ORDER BY seq").fetchall())


def _kind(row: Row) -> str:
    return type(row).__name__.lower()


def _row(kind: str, body: str) -> Row:
    try:
        fields = {name: _tuples(value) for name, value in json.loads(body).items()}
        return getattr(rows, kind.capitalize())(**fields)
    except (ValueError, TypeError, AttributeError):
        raise ValueError(f"expected a row of kind '{kind}', got {body[:60]!r}") from None


class Journal:
    """Opens (or starts) a study's journal and begins a new epoch. Any thread may call it.

    Args:
      path: of the database file; its folder is made if needed.
      study: the study's name.
      manifest_digest: sha256 of what the study means.

    Attributes:
      epoch: this incarnation, from 1.

    Raises:
      StudyError: another study's folder, or another coordinator is running in it.
      CorruptError: not a journal.
    """

    def __init__(self, path: str | Path, study: str, manifest_digest: str):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._guard = threading.RLock()
        self._lock = _lock_file(self.path)
        self._base: sqlite3.Connection | None = None
        try:
            self._base = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=FULL")
            self._base.executescript(_TABLES)
            self._own(study, manifest_digest)
            cursor = self._base.execute("INSERT INTO epochs (process) VALUES (?)", (os.getpid(),))
            self.epoch = int(cursor.lastrowid or 0)
            there = rows_in(self._base)  # each of them is one of ours
            self._newest = {row.site: row.digest for row in there if isinstance(row, Accepted) and row.phase == "train"}
            # an epoch that went with a damaged log would be given twice
            self._base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            failpoints.here("coordinator.journal.after_epoch")
        except sqlite3.OperationalError as error:
            self.close()
            raise StorageError(f"expected to open the journal {self.path}, got: {error}") from None
        except (sqlite3.DatabaseError, ValueError) as error:
            self.close()
            raise CorruptError(f"expected a journal in {self.path}, got: {error}") from None
        except BaseException:
            self.close()
            raise

    def _own(self, study: str, manifest_digest: str) -> None:
        ours = {"study": study, "manifest_digest": manifest_digest}
        found = dict(self._sql("SELECT name, value FROM meta"))
        if not found:
            self._sql("INSERT INTO meta VALUES ('study', ?), ('manifest_digest', ?)", (study, manifest_digest))
        elif found != ours:
            what = "another study" if found.get("study") != study else "this study with other settings"
            theirs = f"'{found.get('study')}' (manifest {str(found.get('manifest_digest'))[:12]})"
            raise StudyError(
                f"expected the folder of study '{study}' (manifest {manifest_digest[:12]}), but {self.path.parent} "
                f"is of {what}: {theirs}; name a new folder"
            )

    def _sql(self, text: str, values: tuple = ()) -> list[tuple]:
        with self._guard:
            if self._base is None:
                raise StorageError(f"expected an open journal, got one that was closed: {self.path}")
            return self._base.execute(text, values).fetchall()

    def write(self, *added: Row) -> None:
        """Appends rows, durably, all or none of them. The same row again changes nothing.

        Raises:
          LocalProtocolError: a different row in the same place: a site counted twice, a frozen list changed.
          StorageError: the disk is full or refuses.
        """
        try:
            for row in added:
                failpoints.here(f"coordinator.journal.before_{_kind(row)}")
            with self._guard:
                self._sql("BEGIN IMMEDIATE")
                try:
                    for row in added:
                        self._insert(row)
                    self._sql("COMMIT")
                except BaseException:
                    self._roll_back()
                    raise
                for row in added:
                    if isinstance(row, Accepted) and row.phase == "train":
                        self._newest[row.site] = row.digest
            for row in added:
                failpoints.here(f"coordinator.journal.after_{_kind(row)}")
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"expected to write a row to {self.path}, got: {error}") from None

    def _insert(self, row: Row) -> None:
        fields = row._asdict()
        place = (_kind(row), row.round, fields.get("phase", ""), fields.get("site", ""), fields.get("attempt", 0))
        body = json.dumps(fields, sort_keys=True)
        there = self._sql("SELECT body FROM rows WHERE (kind, round, phase, site, attempt) = (?, ?, ?, ?, ?)", place)
        if there and there != [(body,)]:
            raise LocalProtocolError(f"expected one row for {place} in {self.path}, got {body} over {there[0][0]}")
        if not there:
            self._sql(
                "INSERT INTO rows (kind, round, phase, site, attempt, body) VALUES (?, ?, ?, ?, ?, ?)", (*place, body)
            )

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error, StorageError):  # the error before it is said
            self._sql("ROLLBACK")

    def _found(self, where: str, *values: Any) -> list[Any]:
        """Rows by a condition, oldest first. Only these are read: a study may have very many."""
        try:
            found = self._sql(f"SELECT kind, body FROM rows WHERE {where} ORDER BY seq", values)
        except sqlite3.Error as error:
            raise StorageError(f"expected to read {self.path}, got: {error}") from None
        return [_row(*row) for row in found]

    def history(self) -> tuple[Row, ...]:
        """All rows, oldest first."""
        return tuple(self._found("TRUE"))

    def open_round(self) -> tuple[Opened, dict[str, str]] | None:
        """The last opening of a round, if it is not closed, and {site: digest} accepted in it so far."""
        last = self._found("kind = 'opened' AND seq = (SELECT max(seq) FROM rows WHERE kind = 'opened')")
        if not last or self.closed_at(last[0].round, last[0].phase) is not None:
            return None
        there = self._found("kind = 'accepted' AND round = ? AND phase = ?", last[0].round, last[0].phase)
        return last[0], {row.site: row.digest for row in there}

    def closed_at(self, number: int, phase: str) -> Closed | None:
        """The frozen list of a round, if it is closed."""
        found = self._found("kind = 'closed' AND round = ? AND phase = ?", number, phase)
        return found[0] if found else None

    def closed(self) -> dict[tuple[int, str], Closed]:
        """(round, phase) -> its frozen list, oldest first."""
        return {(row.round, row.phase): row for row in self._found("kind = 'closed'")}

    def accepted(self, after: int = -1) -> dict[tuple[int, str, str], str]:
        """(round, phase, site) -> digest, of every update that counts or counted. after: of rounds after this one, and
        of what came before the first."""
        first = self._found("kind = 'accepted' AND round = 0") if after >= 0 else []  # OR would read all of them
        found = first + self._found("kind = 'accepted' AND round > ?", after)
        return {(row.round, row.phase, row.site): row.digest for row in found}

    def origins(self) -> dict[tuple[int, str, str], str]:
        """The same by the round whose broadcast each update was computed from."""
        return {(row.origin or row.round, row.phase, row.site): row.digest for row in self._found("kind = 'accepted'")}

    def newest(self) -> dict[str, str]:
        """site -> digest of its newest accepted update of a learning round."""
        with self._guard:
            return dict(self._newest)

    def staleness(self, number: int) -> dict[str, int]:
        """site -> by how many rounds the update that counts in this learning round was late."""
        found = self._found("kind = 'accepted' AND round = ? AND phase = 'train'", number)
        return {row.site: row.round - (row.origin or row.round) for row in found}

    def opened(self) -> list[Opened]:
        """Each opening of a round, oldest first."""
        return self._found("kind = 'opened'")

    def broadcasts(self) -> dict[tuple[int, str], str]:
        """(round, phase) -> sha256 of what was sent when it was last opened."""
        return {(row.round, row.phase): row.broadcast for row in self.opened()}

    def aggregated(self) -> frozenset[tuple[int, str]]:
        """(round, phase) of what was added up."""
        return frozenset((row.round, row.phase) for row in self._found("kind = 'aggregated'"))

    def committed(self) -> dict[int, str]:
        """round -> digest of its server state, oldest first."""
        return {row.round: row.digest for row in self._found("kind = 'committed'")}

    def measured(self) -> dict[int, str]:
        """round -> its figures, oldest first."""
        return {row.round: row.figures for row in self._found("kind = 'measured'")}

    def close(self) -> None:
        """Lets the folder go. May be called twice."""
        with self._guard:
            if self._base is not None:
                self._base.close()
                self._base = None
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lock_file(path: Path) -> int:
    handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise StudyError(f"expected one coordinator a folder, but another is running in {path.parent}") from None
    return handle
