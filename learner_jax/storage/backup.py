"""A coordinator's state as one file, taken while it runs, and put back elsewhere.

A backup holds what a coordinator must not lose: its journal, the updates that are not yet in a step, its steps and best
models, its keys and its roster; and what a run shows: metrics, model, report. Sites keep their own.

    manifest.json   first: what the study is, how far it was, and sha256, size and mode of every other file
    ...             plain files, as they lie in the run's folder

It is taken in an order that any later crash of the running coordinator leaves whole: first the journal (by SQLite's
own way of copying an open data base), then the updates, then best models, steps, and best models again; all but the
journal by hard links, since none of them ever changes. An update is swept only after a step has it, so what the journal
counts is in the one or the other. That is checked, and the copy made again if the coordinator was quicker.

A restored coordinator is a newer one than any before it, so that sites refuse whichever may still run: its epoch
begins at the seconds since 2020, which no count of restarts reaches.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import stat
import tarfile
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from learner_jax import __version__
from learner_jax.errors import CorruptError, StorageError, StudyError
from learner_jax.protocol.rows import Accepted, Committed
from learner_jax.storage.atomic import TEMPORARY, fsync_folder
from learner_jax.storage.journal import rows_in
from learner_jax.storage.lock import only_one
from learner_jax.storage.steps import intact

FORMAT = 1
MANIFEST = "manifest.json"
_JOURNAL, _SPOOL, _STEPS, _BEST = "journal.sqlite", "spool", "checkpoints", "best"
_FOLDERS = ("join", "broker", "model")
_SNAPSHOT = ".backup"
_TRIES = 20
_MANIFEST_LIMIT = 64 * 2**20
_MODES = (0o600, 0o644)
_SINCE = 1_577_836_800
"""2020-01-01 in seconds since 1970: an epoch has 31 bits."""
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ -]{0,127}")


class Summary(NamedTuple):
    """What a backup holds.

    Attributes:
      study: its name.
      round: the last round that was over, 0 before the first.
      epoch: the newest of the coordinator that it was taken from.
      made: when, UTC.
      files, bytes: how many.
    """

    study: str
    round: int
    epoch: int
    made: str
    files: int
    bytes: int


# ---- taking one ------------------------------------------------------------------------------------------------------


def backup(run: Path, out: Path) -> Summary:
    """Writes a coordinator's state as one file that only its owner may read; the coordinator may run meanwhile.

    Args:
      run: the coordinator's folder.
      out: the file; one that is there is replaced, when the new one is whole.

    Raises:
      StorageError: no run is there, or the disk refuses.
      CorruptError: what lies there would be of no use when restored.
      StudyError: another backup of the run is being taken.
    """
    if not (run / _JOURNAL).is_file():
        raise StorageError(f"expected a coordinator's run in {run}, found no {_JOURNAL}")
    place = run / _SNAPSHOT
    try:
        with only_one(place, "backup"):
            try:
                about = _snapshot(run, place)
                needed, files = about.pop("needed"), _listed(place)
                _undamaged(needed, files)
                about |= {"files": files}
                _write(about, place, out)
            finally:
                _empty(place)
    except OSError as error:
        raise StorageError(f"expected to write a backup of {run} to {out}, got: {error.strerror}") from None
    return _summary(about)


def _snapshot(run: Path, place: Path) -> dict[str, Any]:
    """A copy that is whole, in a folder beside what it is of."""
    missing: str | None = ""
    for trial in range(_TRIES):
        _empty(place)
        about = _copy_journal(run / _JOURNAL, place / _JOURNAL)
        accepted = about.pop("accepted")
        for name in (_SPOOL, _BEST, _STEPS, _BEST):
            _link_each(run / name, place / name)
        needed = _in_no_step(place, about["round"], accepted)
        missing = _missing(place, needed)
        if missing is None:
            _copy_the_rest(run, place)
            return {**about, "needed": needed}
        time.sleep(0.05 * trial)
    raise CorruptError(f"expected a run that can go on in {run}, but {missing}")


def _copy_journal(path: Path, copy: Path) -> dict[str, Any]:
    whole = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)
    with contextlib.closing(whole), contextlib.closing(sqlite3.connect(copy)) as base:
        try:
            whole.backup(base)
            copy.chmod(0o600)
            base.execute("PRAGMA journal_mode=DELETE").fetchall()
            meta = dict(base.execute("SELECT name, value FROM meta").fetchall())
            ((epoch,),) = base.execute("SELECT max(epoch) FROM epochs").fetchall()
            found = rows_in(base)
        except (sqlite3.Error, ValueError) as error:
            raise CorruptError(f"expected a journal in {path}, got: {error}") from None
    about = {"format": FORMAT, "version": __version__, "made": datetime.now(UTC).isoformat(timespec="seconds")}
    about |= {"study": meta.get("study", ""), "manifest_digest": meta.get("manifest_digest", ""), "epoch": epoch or 0}
    about["round"] = max((row.round for row in found if isinstance(row, Committed)), default=0)
    about["accepted"] = [row for row in found if isinstance(row, Accepted)]
    return about


def _in_no_step(place: Path, newest: int, accepted: list[Accepted]) -> list[Accepted]:
    """Updates that a copy would be gone on with; steps that are newer than the journal, or not whole, are left out."""
    done = 0
    for path in sorted((place / _STEPS).iterdir(), key=lambda path: int(path.name)):
        if int(path.name) <= newest and _whole(path, place / _BEST):
            done = int(path.name)
        else:
            shutil.rmtree(path)
    return [row for row in accepted if row.round == 0 or row.round > done]


def _missing(place: Path, needed: list[Accepted]) -> str | None:
    """Why a copy could not go on, in words."""
    for row in needed:
        if not (place / _SPOOL / row.digest).exists():
            return f"the update of site '{row.site}' in round {row.round} is neither in a step nor in {_SPOOL}"
    return None


def _undamaged(needed: list[Accepted], files: Mapping[str, Mapping[str, Any]]) -> None:
    """Whether each update in the spool that is needed has the digest that its name says.

    Raises:
      CorruptError: one has another.
    """
    for row in needed:
        found = files.get(f"{_SPOOL}/{row.digest}")
        if found is not None and found["sha256"] != row.digest:
            raise CorruptError(
                f"expected the update of site '{row.site}' in round {row.round} as it was accepted, got other bytes in "
                f"{_SPOOL}: a copy of it would be of no use"
            )


def _whole(step: Path, best: Path) -> bool:
    """Whether a step, and the best model that it names, are as they were written."""
    try:
        named = intact(step)["meta"].get("best_round")
        if named is not None and named != int(step.name):
            intact(best / str(named))
    except CorruptError:
        return False
    return True


def _link_each(source: Path, target: Path) -> None:
    """What in a folder has its last name: digests, numbers. What goes meanwhile is left out."""
    target.mkdir(exist_ok=True, mode=0o700)
    for path in sorted(source.iterdir()) if source.is_dir() else ():
        if not _PART.fullmatch(path.name) or (target / path.name).exists():
            continue
        try:
            _link(path, target / path.name)
        except FileNotFoundError:
            shutil.rmtree(target / path.name, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir(mode=0o700)
        for path in sorted(source.iterdir()):
            _link(path, target / path.name)
        return
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # not on every file system
        shutil.copy2(source, target)


def _copy_the_rest(run: Path, place: Path) -> None:
    """Keys, roster, metrics, result: files that are replaced as a whole, or only grow."""
    wanted = [path for path in run.iterdir() if path.is_file() and path.suffix in (".json", ".jsonl", ".html")]
    for name in _FOLDERS:
        wanted += [path for path in (run / name).rglob("*") if path.is_file()]
    for path in wanted:
        name = path.relative_to(run)
        if not all(_PART.fullmatch(part) for part in name.parts):  # ours have no other names
            continue
        target = place / name
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2(path, target)


def _listed(place: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(path for path in place.rglob("*") if path.is_file() and path != place / "lock"):
        about = path.stat()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        mode = _MODES[bool(stat.S_IMODE(about.st_mode) & 0o044)]
        found[path.relative_to(place).as_posix()] = {"sha256": digest, "size": about.st_size, "mode": mode}
    return found


def _write(about: Mapping[str, Any], place: Path, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f"{TEMPORARY}{out.name}-{os.getpid()}")
    text = json.dumps(about, sort_keys=True, indent=1).encode()
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                tar.addfile(_member(MANIFEST, len(text), 0o600), io.BytesIO(text))
                for name, one in about["files"].items():
                    with (place / name).open("rb") as data:
                        tar.addfile(_member(name, one["size"], one["mode"]), data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(out)
        fsync_folder(out.parent)
    finally:
        beside.unlink(missing_ok=True)


def _member(name: str, size: int, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, mode
    return info


def _empty(place: Path) -> None:
    for path in place.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()


# ---- putting one back ------------------------------------------------------------------------------------------------


def restore(file: Path, workdir: Path) -> Summary:
    """Puts a coordinator's state back; the command that ran it goes on there.

    Args:
      file: as `backup` wrote it.
      workdir: a folder that is not there, or is empty; it is made whole or not at all.

    Raises:
      StudyError: the folder holds something.
      CorruptError: the file is no backup, or not as it was written.
      StorageError: it cannot be read, or the disk refuses.
    """
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise StudyError(f"expected a new or empty folder for a restored run, but {workdir} holds something")
    workdir = workdir.absolute()
    beside = workdir.with_name(f".restoring-{workdir.name}-{os.getpid()}")
    try:
        beside.mkdir(parents=True, mode=0o700)
        about = _unpacked(file, beside)
        _newer(beside / _JOURNAL)
        for place, _, _ in os.walk(beside):
            fsync_folder(Path(place))
        if workdir.exists():
            workdir.rmdir()
        beside.rename(workdir)
        fsync_folder(workdir.parent)
    except OSError as error:
        raise StorageError(f"expected to restore {file} to {workdir}, got: {error.strerror}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return _summary(about)


def lets_in(workdir: Path) -> list[str]:
    """Names of the sites on a run's roster, sorted; none where there is no roster."""
    try:
        return sorted(json.loads((workdir / "roster.json").read_bytes())["roster"]["sites"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _unpacked(file: Path, into: Path) -> dict[str, Any]:
    """Every file that the manifest names and nothing else, each checked; what a tar could do besides is refused."""
    try:
        with tarfile.open(file, "r:") as tar:
            about = _manifest(tar)
            left = dict(about["files"])
            while (member := tar.next()) is not None:
                one = left.pop(member.name, None)
                data = tar.extractfile(member) if one is not None and member.isreg() else None
                if one is None or data is None or member.size != one["size"]:
                    raise CorruptError(f"expected files of the manifest in {file}, each once, got '{member.name}'")
                _put(into.joinpath(*_parts(member.name)), data, one)
    except (tarfile.TarError, EOFError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"expected a backup in {file}, got: {str(error) or type(error).__name__}") from None
    if left or _JOURNAL not in about["files"]:
        raise CorruptError(f"expected a whole backup in {file}, but {next(iter(left), _JOURNAL)} is not in it")
    return about


def _manifest(tar: tarfile.TarFile) -> dict[str, Any]:
    first = tar.next()
    if first is None or first.name != MANIFEST or not first.isreg() or first.size > _MANIFEST_LIMIT:
        raise ValueError(f"no {MANIFEST} at its beginning")
    data = tar.extractfile(first)
    about = json.loads(data.read()) if data is not None else {}
    if about["format"] != FORMAT:
        raise ValueError(f"a backup of format {about['format']}; this version of learner reads {FORMAT}")
    for name, one in about["files"].items():
        _parts(name)
        if one["mode"] not in _MODES or type(one["size"]) is not int or type(one["sha256"]) is not str:
            raise ValueError(f"something else about '{name}' than sha256, size and mode")
    return about


def _parts(name: str) -> list[str]:
    """A name's parts: folders below the run's and a file, none of which leads elsewhere."""
    parts = name.split("/")
    if not all(_PART.fullmatch(part) for part in parts) or parts[0] == MANIFEST:
        raise ValueError(f"the name '{name[:200]}'")
    return parts


def _put(path: Path, data: Any, one: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    digest = hashlib.sha256()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, one["mode"])
    with os.fdopen(handle, "wb") as out:
        for part in _pieces(data):
            digest.update(part)
            out.write(part)
        out.flush()
        os.fchmod(out.fileno(), one["mode"])
        os.fsync(out.fileno())
    if digest.hexdigest() != one["sha256"]:
        raise CorruptError(f"expected '{path.name}' as it was backed up, got other bytes")


def _pieces(data: Any) -> Iterator[bytes]:
    while part := data.read(2**20):
        yield part


def _newer(journal: Path) -> None:
    """From now on a newer coordinator than any that sites may have met."""
    try:
        with contextlib.closing(sqlite3.connect(journal)) as base:
            base.execute("PRAGMA synchronous=FULL")
            ((seen,),) = base.execute("SELECT max(epoch) FROM epochs").fetchall()
            epoch = max(int(time.time()) - _SINCE, (seen or 0) + 1)
            base.execute("INSERT INTO epochs (epoch, process) VALUES (?, ?)", (epoch, os.getpid()))
            base.commit()
    except sqlite3.Error as error:
        raise CorruptError(f"expected a journal in the backup, got: {error}") from None


def _summary(about: Mapping[str, Any]) -> Summary:
    sizes = [one["size"] for one in about["files"].values()]
    return Summary(about["study"], about["round"], about["epoch"], about["made"], len(sizes), sum(sizes))
