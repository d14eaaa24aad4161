"""A coordinator's state as one file: whole while the coordinator runs, and nothing in it is taken on trust."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import stat
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from learner_jax.errors import CorruptError, StorageError, StudyError
from learner_jax.protocol.rows import Accepted, Closed, Committed, Opened
from learner_jax.storage import backup as backups
from learner_jax.storage.atomic import write_bytes, write_json
from learner_jax.storage.backup import backup, restore
from learner_jax.storage.journal import Journal
from learner_jax.storage.spool import Spool
from learner_jax.storage.steps import Steps


class Run:
    """A coordinator's folder, written as a coordinator does."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.journal = Journal(folder / "journal.sqlite", "heart", "m" * 64)
        self.spool, self.round = Spool(folder / "spool"), 0
        self.steps, self.best = Steps(folder / "checkpoints", 2, 0), Steps(folder / "best", 10**9, 0)
        write_json(folder / "keys.json", {"secret": "s"}, mode=0o600)
        write_json(folder / "roster.json", {"sites": []}, mode=0o600)
        (folder / "join").mkdir(mode=0o700)
        write_bytes(folder / "join" / "a b.code", b"LEARNER-x\n", mode=0o600)
        write_bytes(folder / "metrics.jsonl", b"{}\n")
        (folder / "sites" / "a").mkdir(parents=True)
        (folder / "sites" / "a" / "data.parquet").write_bytes(b"a patient's row")

    def one_round(self, save: bool = True) -> None:
        self.round += 1
        number, data = self.round, f"update {self.round}".encode()
        digest = hashlib.sha256(data).hexdigest()
        self.journal.write(Opened(number, "train", 1, self.journal.epoch, ("a",), "b" * 64))
        self.spool.append("a", digest, len(data), 0, data)
        self.spool.keep("a", digest)
        self.journal.write(Accepted(number, "train", "a", digest, len(data)))
        self.journal.write(Closed(number, "train", (("a", digest),)))
        leaves = {"x": np.full(4, number)}
        self.best.save(number, {"server": leaves}, wait=True)
        self.best.drop_before(number - 4)
        self.journal.write(Committed(number, f"{number:032x}"))
        if save:
            self.steps.save(number, {"server": leaves, "meta": {"best_round": max(1, number - number % 2)}}, wait=True)
            oldest = self.steps.all()[0]
            accepted = self.journal.accepted().items()
            self.spool.sweep(digest for (number, _, _), digest in accepted if number > oldest)

    def close(self) -> None:
        for part in (self.steps, self.best, self.journal):
            part.close()


@pytest.fixture
def run(tmp_path):
    found = Run(tmp_path / "run")
    for _ in range(5):
        found.one_round()
    found.one_round(save=False)
    yield found
    found.close()


def check(folder: Path, at_least: int) -> int:
    """What a coordinator would find: the newest step, and each update after it. Returns the last round."""
    with Journal(folder / "journal.sqlite", "heart", "m" * 64) as journal, Steps(folder / "checkpoints") as steps:
        newest = max(journal.committed())
        step, items = steps.restore()
        assert steps.skipped == [] and step <= newest and (items["server"]["x"] == step).all()
        with Steps(folder / "best", 10**9) as best:
            best.restore(items["meta"]["best_round"])
        for (number, _, _), digest in journal.accepted().items():
            if number > step:
                Spool(folder / "spool").get(digest)
        assert newest >= at_least
        return newest


def test_what_is_restored_goes_on_and_is_newer_than_any_before(run, tmp_path):
    taken = backup(run.folder, tmp_path / "out" / "study.tar")  # the run holds its journal
    assert (taken.study, taken.round, taken.epoch) == ("heart", 6, 1)
    assert stat.S_IMODE((tmp_path / "out" / "study.tar").stat().st_mode) == 0o600
    run.one_round()
    restored = tmp_path / "elsewhere" / "run"
    assert restore(tmp_path / "out" / "study.tar", restored) == taken
    assert check(restored, 6) == 6
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in restored.rglob("*")}
    assert modes["keys.json"] == modes["roster.json"] == modes["a b.code"] == 0o600
    assert modes["metrics.jsonl"] == 0o644 and stat.S_IMODE(restored.stat().st_mode) == modes["join"] == 0o700
    assert not (restored / "sites").exists(), "a site's table is in the backup"
    with Journal(restored / "journal.sqlite", "heart", "m" * 64) as journal:
        assert journal.epoch > 10**8  # no number of restarts of the one before reaches it
        assert journal.accepted() == {k: v for k, v in run.journal.accepted().items() if k[0] < 7}
    assert [path.name for path in run.folder.glob(".backup/*")] == ["lock"]


def test_backups_of_a_run_that_never_rests_are_whole(run, tmp_path):
    stop, wrong, last = threading.Event(), [], 0

    def work() -> None:
        try:
            while not stop.is_set():
                run.one_round()
        except BaseException as error:
            wrong.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for number in range(6):
            taken = backup(run.folder, tmp_path / "study.tar")
            restore(tmp_path / "study.tar", tmp_path / str(number))
            last = check(tmp_path / str(number), max(last, 6))
            assert last == taken.round
    finally:
        stop.set()
        worker.join(30)
    assert not wrong and run.round > last


def test_a_coordinator_that_is_quicker_than_the_copy_is_copied_again(run, tmp_path, monkeypatch):
    """Between the journal and the updates three rounds pass, and what the journal counts is swept: once."""
    copy, times = backups._copy_journal, []

    def slow(*paths: Path) -> dict:
        found = copy(*paths)
        times.append(found["round"])
        if len(times) == 1:
            for _ in range(3):
                run.one_round()
        return found

    monkeypatch.setattr(backups, "_copy_journal", slow)
    backup(run.folder, tmp_path / "study.tar")
    restore(tmp_path / "study.tar", tmp_path / "new")
    assert check(tmp_path / "new", 6) == times[-1]


def test_what_could_not_go_on_is_not_backed_up(run, tmp_path, monkeypatch):
    monkeypatch.setattr(backups, "_TRIES", 2)
    (tmp_path / "study.tar").write_bytes(b"the one before")
    shutil.rmtree(run.folder / "spool")
    with pytest.raises(CorruptError, match=r"the update of site 'a' in round 6 is neither in a step nor in spool"):
        backup(run.folder, tmp_path / "study.tar")
    assert (tmp_path / "study.tar").read_bytes() == b"the one before"
    with pytest.raises(StorageError, match=r"found no journal\.sqlite"):
        backup(tmp_path / "none", tmp_path / "study.tar")


def test_what_newcomers_answered_before_the_newest_step_may_be_gone(run, tmp_path):
    """It was swept with the updates of its round. What was asked before round 1 stays in the spool, and is needed."""
    run.journal.write(Accepted(3, "enter", "b", "e" * 64, 4))
    backup(run.folder, tmp_path / "run.tar")
    run.journal.write(Accepted(0, "look", "a", "f" * 64, 4))
    with pytest.raises(CorruptError, match="site 'a' in round 0"):
        backup(run.folder, tmp_path / "other.tar")


def test_a_damaged_update_that_is_needed_is_not_backed_up(run, tmp_path):
    newest = max(run.journal.accepted().items())[1]
    path = run.folder / "spool" / newest
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    run.one_round()  # a step has it behind it, so that nobody needs it
    backup(run.folder, tmp_path / "study.tar")
    (tmp_path / "study.tar").unlink()
    for step in run.steps.all():
        if step >= 6:
            shutil.rmtree(run.folder / "checkpoints" / str(step))
    with pytest.raises(CorruptError, match=r"the update of site .* as it was accepted, got other bytes in spool"):
        backup(run.folder, tmp_path / "study.tar")
    assert not (tmp_path / "study.tar").exists()


def test_a_damaged_step_is_left_out_where_the_one_before_will_do(run, tmp_path):
    run.one_round()
    newest = run.folder / "checkpoints" / str(run.steps.latest())
    largest = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    backup(run.folder, tmp_path / "study.tar")
    restore(tmp_path / "study.tar", tmp_path / "new")
    assert check(tmp_path / "new", 7) == 7


def test_a_folder_that_holds_something_is_refused(run, tmp_path):
    backup(run.folder, tmp_path / "study.tar")
    with pytest.raises(StudyError, match="expected a new or empty folder"):
        restore(tmp_path / "study.tar", run.folder)
    (tmp_path / "empty").mkdir()
    restore(tmp_path / "study.tar", tmp_path / "empty")
    assert check(tmp_path / "empty", 6) == 6


Members = list[tuple[tarfile.TarInfo, bytes]]


def changed(file: Path, to: Path, change: Callable[[Members], None]) -> Path:
    """A backup with its members changed."""
    with tarfile.open(file) as tar:
        members = [(one, tar.extractfile(one).read()) for one in tar]  # pyright: ignore[reportOptionalMemberAccess]
    change(members)
    with tarfile.open(to, "w") as tar:
        for info, data in members:
            info.size = 0 if info.issym() or info.islnk() else len(data)
            tar.addfile(info, io.BytesIO(data))
    return to


def about(members: Members, change: Callable[[dict], None]) -> None:
    found = json.loads(members[0][1])
    change(found)
    members[0] = members[0][0], json.dumps(found).encode()


def named(members: Members, name: str) -> int:
    return next(place for place, (info, _) in enumerate(members) if info.name == name)


def added(name: str, listed: bool = True, kind: bytes = tarfile.REGTYPE) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "../../outside"
        members.append((info, b"x"))
        one = {"sha256": hashlib.sha256(b"x").hexdigest(), "size": 1, "mode": 0o600}
        if listed:
            about(members, lambda found: found["files"].update({name: one}))

    return change


def flipped(members: Members) -> None:
    place = named(members, "keys.json")
    members[place] = members[place][0], members[place][1].replace(b"s", b"t", 1)


def mode(value: object) -> Callable[[Members], None]:
    return lambda members: about(members, lambda found: found["files"]["keys.json"].update(mode=value))


CHANGES = {
    "a byte of a file": (flipped, "expected 'keys.json' as it was backed up"),
    "a file less": (lambda members: members.pop(), "is not in it"),
    "a file twice": (lambda members: members.append(members[-1]), "each once"),
    "a file that is not listed": (added("x", listed=False), "each once, got 'x'"),
    "a way out": (added("../outside"), r"the name '\.\./outside'"),
    "a way out in the middle": (added("join/../../outside"), r"the name 'join/"),
    "an absolute name": (added("/outside"), "the name '/outside'"),
    "no name": (added("join//x"), "the name 'join//x'"),
    "a hidden name": (added(".bashrc"), r"the name '\.bashrc'"),
    "a symbolic link": (added("x", kind=tarfile.SYMTYPE), "each once, got 'x'"),
    "a hard link": (added("x", kind=tarfile.LNKTYPE), "got"),
    "a device": (added("x", kind=tarfile.CHRTYPE), "each once, got 'x'"),
    "a folder": (added("x", kind=tarfile.DIRTYPE), "each once, got 'x'"),
    "a mode that lets others write": (mode(0o666), "sha256, size and mode"),
    "a mode that is none": (mode("0600"), "sha256, size and mode"),
    "another format": (lambda members: about(members, lambda found: found.update(format=2)), "of format 2"),
    "no manifest": (lambda members: members.pop(0), r"no manifest\.json at its beginning"),
    "a manifest that is no JSON": (lambda members: members.__setitem__(0, (members[0][0], b"{")), "got"),
    "a manifest of something else": (lambda members: members.__setitem__(0, (members[0][0], b"[]")), "got"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A backup."""
    folder = tmp_path_factory.mktemp("whole")
    run = Run(folder / "run")
    run.one_round()
    run.close()
    backup(run.folder, folder / "study.tar")
    return folder / "study.tar"


@pytest.mark.parametrize("what", CHANGES)
def test_nothing_is_taken_on_trust(whole, tmp_path, what):
    change, match = CHANGES[what]
    file = changed(whole, tmp_path / "x.tar", change)
    (tmp_path / "place").mkdir()
    with pytest.raises(CorruptError, match=match) as caught:
        restore(file, tmp_path / "place" / "new")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "place").iterdir()) == [] and not (tmp_path / "outside").exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9])
def test_a_file_that_was_cut(whole, tmp_path, share):
    data = whole.read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: int(share * len(data))])
    with pytest.raises(CorruptError):
        restore(tmp_path / "cut.tar", tmp_path / "new")
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".restoring*"))
    with pytest.raises(StorageError, match="No such file"):
        restore(tmp_path / "none.tar", tmp_path / "new")


def test_a_file_that_is_not_the_runs_own_is_left_out_and_the_backup_can_be_put_back(run, tmp_path):
    (run.folder / "report (before the change).html").write_text("x")
    (run.folder / "spool" / "notes (mine)").write_text("x")
    (run.folder / "join" / "old (ones)").mkdir()
    (run.folder / "join" / "old (ones)" / "a.code").write_text("x")
    backup(run.folder, tmp_path / "b.tar")
    restore(tmp_path / "b.tar", tmp_path / "restored")
    assert not list((tmp_path / "restored").rglob("*(*"))
