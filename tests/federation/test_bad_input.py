"""Through the doors, as typed: what is wrong is one clear line, or does not matter and the result is right."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from learner_jax.cli.main import main
from learner_jax.engines.coordinator import quorum
from learner_jax.engines.local import site_table
from learner_jax.errors import DataError, StorageError
from learner_jax.network.keys import new_keys, parse_join_code
from learner_jax.protocol.entry import Entry
from learner_jax.specs import Data, Federation
from learner_jax.storage.outbox import Outbox
from tests.federation.conftest import processes_of
from tests.federation.hospitals import Site, federated, flags, simulated, small, write_tables

Door = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def door(capsys) -> Iterator[Door]:
    """Runs a command line in this process: (exit code, lines of stderr); what jax would read at its start is undone."""
    before = dict(os.environ)

    def run(*argv: str | Path) -> tuple[int, list[str]]:
        code = main([str(word) for word in argv])
        return code, capsys.readouterr().err.splitlines()

    yield run
    os.environ.clear()
    os.environ.update(before)


def _one_line(found: tuple[int, list[str]], *words: str, code: int = 1) -> None:
    """One line that begins with the command and has all these words."""
    got, lines = found
    said = [line for line in lines if line.startswith("learner ")]
    print(f"\n{got}: {said}")
    assert got == code and len(said) == 1 and lines[-1] == said[0], lines
    assert all(word in said[0] for word in words), said[0]
    assert "Traceback" not in said[0]


# ---- tables ----------------------------------------------------------------------------------------------------------

NAMES = ("h00", "h01")


def _csv(source: Path, name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = source / f"{name}.csv"
    change(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)


def _cell(column: str, value: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(stays: pd.DataFrame) -> pd.DataFrame:
        stays.loc[4, column] = value
        return stays

    return change


REFUSED = {
    "wrong dtype": (_cell("time_in_hospital", "three"), ("h01", "'time_in_hospital', row 5", "1 to 14 days", "text")),
    "no patient": (_cell("patient", "NaN"), ("h01", "'patient', row 5", "no value")),
    "out of range": (_cell("time_in_hospital", "72"), ("h01", "'time_in_hospital', row 5", "1 to 14 days", "above")),
    "infinite": (_cell("num_medications", "inf"), ("h01", "'num_medications', row 5", "an infinite number")),
    "unknown code": (_cell("gender", "F"), ("h01", "'gender', row 5", "'Female'")),
    "missing column": (lambda stays: stays.drop(columns="age"), ("h01", "expected a column 'age'")),
    "misspelt column": (
        lambda stays: stays.rename(columns={"insulin": "insuline"}),
        ("h01", "expected a column 'insulin', got none (near: 'insuline')"),
    ),
    "empty": (lambda stays: stays.head(0), ("h01", "expected at least one row, got an empty table")),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_table_that_does_not_fit_is_one_line(what, door, tmp_path):
    change, words = REFUSED[what]
    source = write_tables(tmp_path / "tables", dict.fromkeys(NAMES, 40))
    _csv(source, "h01", change)
    _one_line(door("simulate", *flags(small(source), tmp_path / "run")), *words)


def test_a_table_that_does_not_fit_ends_a_federation_in_one_line(door, tmp_path):
    source, folder = write_tables(tmp_path / "tables", dict.fromkeys(NAMES, 40)), tmp_path / "run"
    change, words = REFUSED["missing column"]
    _csv(source, "h01", change)
    _one_line(door("local", *flags(small(source), folder)), *words)
    assert not processes_of(tmp_path)
    half = [path for path in folder.rglob("*") if path.name.startswith((".tmp-", ".saving-")) or path.suffix == ".part"]
    assert not half and not (folder / "result.json").exists() and not (folder / "checkpoints").exists()


def test_a_mended_table_is_taken_until_a_sites_first_answer_has_counted(tmp_path):
    first, mended, later = (pd.DataFrame({"age": [number]}) for number in range(3))
    path = site_table(tmp_path / "h01", first)
    assert site_table(tmp_path / "h01", mended) == path
    assert pd.read_parquet(path).equals(mended)
    outbox = Outbox(tmp_path / "h01" / "outbox")
    entry = Entry(0, "statistics", "b" * 64, hashlib.sha256(b"sums").hexdigest(), 4, "5" * 64)
    outbox.put(entry, b"sums")
    outbox.commit(entry.digest)
    site_table(tmp_path / "h01", later)
    assert pd.read_parquet(path).equals(mended)


def test_a_site_in_two_files_is_one_line(door, tmp_path):
    source = write_tables(tmp_path / "tables", dict.fromkeys(NAMES, 40))
    pd.read_csv(source / "h01.csv", dtype=str, keep_default_na=False).to_parquet(source / "h01.parquet")
    for command in ("simulate", "local"):
        found = door(command, *flags(small(source), tmp_path / command))
        _one_line(found, "site 'h01' in h01.csv and h01.parquet")


def _awkward(source: Path) -> Path:
    """Tables that are odd, and nothing is wrong with them: each line below is a site's."""
    write_tables(source, {"h00": 180, "h01": 60, "h08": 150})
    _csv(source, "h00", lambda stays: stays.assign(ward="7b"))  # a column that nobody asked for
    _csv(source, "h00", lambda stays: stays.assign(num_medications=stays["num_medications"].where(stays.index % 7 > 0)))
    _csv(source, "h01", lambda stays: stays.assign(readmitted="NO"))  # one class
    _csv(source, "h08", lambda stays: stays.head(9))  # smaller than a batch
    return source


@pytest.mark.soak
def test_odd_tables_train_and_the_engines_agree(tmp_path):
    study = small(_awkward(tmp_path / "tables"), rounds=3, target="valid/loss")
    ended = federated(study, tmp_path)
    assert [site.error for site in ended.sites.values()] == [None] * 3
    assert ended.sha256 == simulated(study).sha256
    said = [str(event.data["text"]) for _, event in ended.events if event.kind == "note" and "text" in event.data]
    assert any("'ward' is not asked for and is not read" in line for line in said)
    assert any("same outcome" in line for line in said)
    losses = [row["train/loss"] for row in ended.outcome.result["curve"]]
    assert len(losses) == 3 and all(loss == loss for loss in losses)


# ---- folders and ports -----------------------------------------------------------------------------------------------


def test_another_runs_folder_is_one_line(door, tmp_path):
    source, folder = write_tables(tmp_path / "tables", dict.fromkeys(NAMES, 40)), tmp_path / "run"
    study = small(source, rounds=1, target="valid/loss")
    assert door("simulate", *flags(study, folder))[0] == 0
    other = flags(small(source, rounds=1, seed=7, target="valid/loss"), folder)
    _one_line(door("simulate", *other), str(folder), "another", "new folder")
    _one_line(door("local", *other), str(folder), "another", "new folder")
    (folder / "result.json").unlink()  # one that has not finished
    _one_line(door("simulate", *other), str(folder), "another")
    _one_line(door("coordinator", *other, "--sites=h00"), str(folder), "another")


def test_a_port_in_use_is_one_line(door, tmp_path):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        study = small("", data=Data())
        found = door("coordinator", *flags(study, tmp_path / "run"), "--sites=north", f"--port={port}")
        _one_line(found, f"port {port} on 127.0.0.1 is in use")


def test_a_quorum_larger_than_the_cohort_is_all_of_it():
    def of(wanted: float | None, asked: int) -> int:
        return quorum(small("", data=Data(), federation=Federation(quorum=wanted)), asked)

    assert of(9, 3) == 3 and of(1.0, 3) == 3
    assert of(2, 3) == 2 and of(0.5, 4) == 2 and of(0.01, 4) == 1
    assert [of(None, asked) for asked in (1, 2, 3, 4)] == [1, 2, 2, 3]


# ---- codes, and a site that does not fit -----------------------------------------------------------------------------


@pytest.mark.slow
def test_codes_and_a_table_that_does_not_fit_at_a_sites_door(door, tmp_path):
    """A steward's bad morning: wrong code, used code, another coordinator's key, a wrong table; then all is well."""
    source = write_tables(tmp_path / "tables", dict.fromkeys(NAMES, 120))
    study = small(source, rounds=3, target="valid/loss")
    good = simulated(study).sha256
    spoilt = write_tables(tmp_path / "spoilt", {"h01": 120})
    _csv(spoilt, "h01", _cell("time_in_hospital", "72"))

    def join(code: str, folder: Path) -> tuple[int, list[str]]:
        (tmp_path / "code").write_text(code)
        table = f"--data={source / 'h01.csv'}"
        return door("join", f"--join_file={tmp_path / 'code'}", table, f"--workdir={folder}", "--json")

    def begin(sites: dict[str, Site]) -> None:
        code = sites["h01"].code
        assert code is not None
        _one_line(join(code[:20] + ("a" if code[20] != "a" else "b") + code[21:], tmp_path / "x1"), "wrong join code")
        stranger = parse_join_code(code)._replace(server_public=new_keys().curve_public).text()
        _one_line(join(stranger, tmp_path / "x2"), "another coordinator", "ask for a new join code")
        sites["h00"].start()
        while not (sites["h00"].folder / "membership.json").exists():
            time.sleep(0.02)
        _one_line(join(sites["h00"].code or "", tmp_path / "x3"), "the join code was used already or is wrong")
        sites["h01"].table = spoilt / "h01.csv"
        sites["h01"].start()

    def mend(sites: dict[str, Site], events: list) -> None:
        """The steward reads what the site said, puts the right table there, and starts it again."""
        spoilt_site = sites["h01"]
        if spoilt_site.ident is None or spoilt_site.is_alive() or spoilt_site.error is None:
            return
        assert isinstance(spoilt_site.error, DataError), spoilt_site.error
        assert "'time_in_hospital', row 5: expected a whole number, 1 to 14 days" in str(spoilt_site.error)
        lost = [event for who, event in events if (who, event.kind, event.site) == ("coordinator", "site_lost", "h01")]
        assert lost and str(spoilt_site.error) in str(lost[-1].data["reason"]), lost
        sites["h01"] = Site("h01", source / "h01.csv", spoilt_site.folder, None, lambda event: None)
        sites["h01"].start()

    ended = federated(study, tmp_path, begin=begin, check=mend)
    assert ended.sha256 == good
    assert ended.sites["h01"].error is None


# ---- a coordinator's checkpoints -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_corrupt_checkpoints_of_a_coordinator(tmp_path):
    """The newest step is passed over and its rounds are added up again from the spool; without any, one line."""
    source = write_tables(tmp_path / "tables", {"h00": 120})
    study = small(source, rounds=5, target="valid/loss")
    first = federated(study, tmp_path)
    steps = tmp_path / "run" / "checkpoints"

    def spoil(step: Path) -> None:
        (step / "step.json").write_text((step / "step.json").read_text().replace("best_round", "worst_round", 1))

    def again():
        return federated(study, tmp_path, begin=lambda sites: None)  # no site is there, and none is asked

    newest = max(steps.iterdir(), key=lambda path: int(path.name))
    spoil(newest)
    ended = again()
    assert ended.sha256 == first.sha256
    notes = [str(event.data.get("text")) for _, event in ended.events if event.kind == "note"]
    assert any(str(newest) in line and "passed over" in line for line in notes), notes
    for step in steps.iterdir():
        spoil(step)
    with pytest.raises(StorageError) as caught:
        again()
    print(f"\n{caught.value}")
    assert "\n" not in str(caught.value) and f"expected an intact step in {steps}" in str(caught.value)
