"""`learner doctor` as typed, against real ports, disks and tables: each fault is found, and a sound site has none."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from learner_jax.cli.main import main
from learner_jax.engines import doctor, serving
from learner_jax.network import drive, enrol
from learner_jax.network.brokered import BrokeredLink
from learner_jax.network.enrol import Desk, join, membership
from learner_jax.network.keys import load_or_make_keys, new_curve, parse_join_code
from learner_jax.network.links import CoordinatorLink
from learner_jax.protocol.coordinator import RoundKeeper
from learner_jax.storage.lock import only_one
from tests.federation.hospitals import ROOT, write_tables
from tests.network.proxies import REFUSALS, ConnectProxy
from tests.network.test_brokered import Place

STUDY = "readmission"
Run = Callable[..., tuple[int, dict[str, tuple[str, str]]]]
OK, MEND, UNCHECKED = doctor.OK, doctor.MEND, doctor.UNCHECKED


@contextlib.contextmanager
def coordinator(folder: Path) -> Iterator[tuple[Desk, CoordinatorLink]]:
    """A port, a roster and the machine, without a study behind."""
    keys = load_or_make_keys(folder / "keys.json")
    desk = Desk(folder / "roster.json", STUDY, keys)
    with CoordinatorLink("127.0.0.1", 0, keys) as link, driven(desk, link):
        yield desk, link


@contextlib.contextmanager
def driven(desk: Desk, link: CoordinatorLink | BrokeredLink) -> Iterator[None]:
    desk.serve(link)
    keeper = RoundKeeper(STUDY, 1, b"{}", "d" * 64, desk.roster.sites)
    handlers = drive.CoordinatorHandlers(lambda _: None, lambda _: None, lambda _: None, lambda _: None, lambda _: None)
    running = drive.CoordinatorDrive(link, keeper, handlers, desk)
    running.start()
    try:
        yield
    finally:
        running.stop()
        running.join(5)


@pytest.fixture
def desk(tmp_path) -> Iterator[Desk]:
    with coordinator(tmp_path / "coordinator") as (desk, _):
        yield desk


@pytest.fixture
def code(desk, tmp_path) -> Path:
    """A file with a join code for h00."""
    assert desk._link is not None
    path = tmp_path / "h00.code"
    path.write_text(desk.invite(desk._link.address, "h00").text())
    return path


@pytest.fixture
def look(monkeypatch, capsys, tmp_path) -> Iterator[Run]:
    """Runs the command in this process: (exit code, name -> (verdict, words)). jax is not started for it."""
    before = dict(os.environ)
    monkeypatch.setattr(doctor, "_ASK_JAX", 'print(\'[["cpu", "cpu"]]\')')

    def run(*flags: str) -> tuple[int, dict[str, tuple[str, str]]]:
        code = main(["doctor", "--json", f"--workdir={tmp_path / 'site'}", *flags])
        told = json.loads(capsys.readouterr().out)
        found = {one["name"]: (one["verdict"], one["words"]) for one in told["checks"]}
        assert told["mend"] == [name for name, (verdict, _) in found.items() if verdict == MEND]
        assert code == bool(told["mend"])
        return code, found

    yield run
    os.environ.clear()
    os.environ.update(before)


def verdicts(found: dict[str, tuple[str, str]], *names: str) -> list[str]:
    return [found[name][0] for name in names]


# ---- a sound site ----------------------------------------------------------------------------------------------------


def test_a_sound_site_has_nothing_to_mend_and_its_code_still_works(desk, code, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, path = dict(os.environ), write_tables(tmp_path / "tables", {"h00": 40}) / "h00.csv"
    try:
        ended = main(["doctor", f"--join_file={code}", "--config=readmission", f"--data={path}", "--workdir=site"])
    finally:
        os.environ.clear()
        os.environ.update(before)
    told = capsys.readouterr()
    said = told.out.splitlines()
    assert (ended, told.err, said[-1]) == (0, "", "Nothing to mend.")
    found = {line.split("  ")[0]: line[12:].split("  ")[0] for line in said[:-2]}
    assert found == dict.fromkeys(("join code", "address", "port", "key", "clock", "disk", "data", "devices"), "ok")
    assert said[7].startswith("devices     ok                    1 x cpu")
    assert not (tmp_path / "site").exists() and not desk.roster.sites
    assert join(parse_join_code(code.read_text()), "h00", tmp_path / "site").site == "h00"


def test_a_site_that_has_joined_is_looked_at_by_its_own_keys(desk, code, tmp_path, look):
    member = join(parse_join_code(code.read_text()), "h00", tmp_path / "site")
    _, found = look()
    assert verdicts(found, "membership", "key", "clock", "disk") == [OK] * 4
    assert f"has joined study '{STUDY}' as 'h00'" in found["membership"][1]
    with only_one(tmp_path / "site", "worker"):
        _, found = look(f"--join_file={code}")
    assert verdicts(found, "membership", "key", "clock") == [OK, OK, UNCHECKED] and "worker runs" in found["clock"][1]
    desk.revoke("h00")
    code_, found = look()
    assert code_ == 1 and verdicts(found, "port", "key", "clock") == [OK, MEND, UNCHECKED]
    (tmp_path / "site" / "keys.json").unlink()
    _, found = look()
    assert found["join code"][0] == MEND and "this site's keys" in found["join code"][1]
    assert not (tmp_path / "site" / "keys.json").exists() and member.site == "h00"


def test_it_begins_nothing_at_the_coordinator(desk, code, tmp_path, look, monkeypatch):
    join(parse_join_code(code.read_text()), "h00", tmp_path / "site")
    given: list[str] = []
    real = drive._Drive._give

    def give(self, event):
        given.append(type(event).__name__)
        real(self, event)

    monkeypatch.setattr(drive._Drive, "_give", give)
    assert look()[1]["clock"][0] == OK
    assert set(given) <= {"Tick"}


# ---- faults ----------------------------------------------------------------------------------------------------------


def test_a_closed_port_is_found_without_jax(tmp_path, desk, code):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    moved = parse_join_code(code.read_text())._replace(address=f"tcp://127.0.0.1:{port}")
    code.write_text(moved.text())
    program = (
        "import sys; from learner_jax.cli.main import main; from learner_jax.engines import doctor\n"
        "doctor._ASK_JAX = 'print([])'\n"
        f"code = main(['doctor', '--join_file={code}', '--workdir={tmp_path / 'site'}'])\n"
        "assert not {'jax', 'pandas'} & set(sys.modules)\n"
        "sys.exit(code)"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1 and ran.stderr == "", ran
    words = f"port {port} of 127.0.0.1 is closed: the coordinator does not run, or listens elsewhere"
    assert f"port        to mend               {words}" in ran.stdout.splitlines()
    assert ran.stdout.splitlines()[-1].startswith("To mend: port. Could not be checked: key, clock, data")


def test_a_wrong_key_is_found(desk, code, tmp_path, look):
    right = parse_join_code(code.read_text())
    for wrong, words in (
        (right._replace(secret=new_curve()[1]), "does not know this key: the join code was used already or is wrong"),
        (right._replace(server_public=new_curve()[0]), "it is another coordinator"),
    ):
        code.write_text(wrong.text())
        _, found = look(f"--join_file={code}")
        assert verdicts(found, "join code", "port", "key", "clock") == [OK, OK, MEND, UNCHECKED]
        assert words in found["key"][1]
    join(right, "h00", tmp_path / "elsewhere")
    code.write_text(right.text())
    _, found = look(f"--join_file={code}")
    assert found["key"][0] == MEND and "was used already" in found["key"][1]
    code.write_text(right.text()[:-3])
    _, found = look(f"--join_file={code}")
    assert verdicts(found, "join code", "address", "key") == [MEND, UNCHECKED, UNCHECKED]


@pytest.mark.parametrize(("minutes", "words"), [(10, "10 minutes behind"), (-10, "10 minutes ahead of")])
def test_a_clock_ten_minutes_off_is_found(minutes, words, desk, code, tmp_path, look, monkeypatch):
    """Before it has joined and after; the coordinator's clock is the one that is moved."""
    other = types.SimpleNamespace(**vars(time))
    other.time = lambda: time.time() + 60 * minutes
    for module in (enrol, drive):
        monkeypatch.setattr(module, "time", other)
    for flags in ([f"--join_file={code}"], []):
        _, found = look(*flags)
        assert verdicts(found, "key", "clock", "disk") == [OK, MEND, OK]
        assert words in found["clock"][1] and "set this machine's clock" in found["clock"][1]
        if flags:
            join(parse_join_code(code.read_text()), "h00", tmp_path / "site")


def test_a_coordinator_that_does_not_say_the_time_is_no_fault(desk, code, look, monkeypatch):
    monkeypatch.setattr(Desk, "_answer", lambda *_: None)
    monkeypatch.setattr(doctor.probe, "ASK_S", 0.2)
    exit_code, found = look(f"--join_file={code}")
    assert exit_code == 0 and found["clock"][0] == UNCHECKED


def test_a_full_disk_is_found(tmp_path, look):
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", folder]).returncode:
        pytest.skip("a small disk can only be mounted by root: not run")
    try:
        _, found = look(f"--workdir={folder / 'site'}")
        assert found["disk"][0] == MEND and "expected 200 MB free in" in found["disk"][1]
        subprocess.run(["mount", "-o", "remount,ro,size=500m", folder], check=True)
        _, found = look(f"--workdir={folder / 'site'}")
        assert found["disk"][0] == MEND and "Read-only file system" in found["disk"][1]
        subprocess.run(["mount", "-o", "remount,rw,size=500m", folder], check=True)
        _, found = look(f"--workdir={folder / 'site'}")
        assert found["disk"][0] == OK and not list(folder.iterdir())
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_table_that_does_not_fit_is_found(tmp_path, look):
    path = write_tables(tmp_path / "tables", {"h00": 40}) / "h00.csv"
    _, found = look(f"--data={path}")
    assert found["data"][0] == UNCHECKED and "can be read" in found["data"][1]
    _, found = look("--config=readmission", f"--data={path}")
    assert found["data"][0] == OK and "fits what the study readmission asks for" in found["data"][1]
    path.write_text(path.read_text().replace("time_in_hospital", "time_in_hotel", 1))
    _, found = look("--config=readmission", f"--data={path}")
    assert found["data"][0] == MEND and "time_in_hospital" in found["data"][1]
    _, found = look(f"--data={tmp_path / 'nowhere.csv'}")
    assert found["data"][0] == MEND and "does not exist" in found["data"][1]


def test_a_name_that_leads_nowhere_and_a_port_where_another_program_listens(desk, code, look, monkeypatch):
    right = parse_join_code(code.read_text())
    code.write_text(right._replace(address="tcp://nowhere.invalid:7443").text())
    _, found = look(f"--join_file={code}")
    assert verdicts(found, "address", "port", "key", "clock") == [MEND, UNCHECKED, UNCHECKED, UNCHECKED]
    monkeypatch.setattr(doctor, "DIAL_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code.write_text(right._replace(address=f"tcp://127.0.0.1:{silent.getsockname()[1]}").text())
        _, found = look(f"--join_file={code}")
    assert verdicts(found, "address", "port", "key") == [OK, OK, MEND] and "does not shake hands" in found["key"][1]


def test_jax_that_does_not_start_is_found(look, monkeypatch):
    monkeypatch.setattr(doctor, "_ASK_JAX", "raise ImportError('jaxlib is from elsewhere')")
    _, found = look()
    assert found["devices"][0] == MEND and "ImportError: jaxlib is from elsewhere" in found["devices"][1]


# ---- through a broker, through a proxy -------------------------------------------------------------------------------


def test_a_broker_in_between_does_not_hide_the_coordinators_clock(tmp_path, look):
    """A stranger's first word is answered by a Bye, which makes the two acquainted; the second is heard."""
    folder, keys = tmp_path / "coordinator", load_or_make_keys(tmp_path / "coordinator" / "keys.json")
    with contextlib.closing(Place(tmp_path / "place")) as place:
        member = membership(place.desk.invite(place.link.address, STUDY).text(), STUDY, folder / "broker")
        desk = Desk(folder / "roster.json", STUDY, keys, member.server_public)
        with serving._dial(member, desk, keys, folder) as link, driven(desk, link):
            (tmp_path / "a.code").write_text(desk.invite(member.address, "a").text())
            for flags in ([f"--join_file={tmp_path / 'a.code'}"], []):
                stop = time.monotonic() + 20  # the broker is told of its guests by and by
                while (found := look(*flags)[1])["key"][0] != OK and time.monotonic() < stop:
                    time.sleep(0.1)
                assert verdicts(found, "port", "key", "clock") == [OK] * 3
                if flags:
                    join(parse_join_code((tmp_path / "a.code").read_text()), "a", tmp_path / "site")


def test_a_proxy_is_looked_at_too(desk, code, look):
    with ConnectProxy() as proxy:
        flags = (f"--join_file={code}", f"--proxy={proxy.url}")
        _, found = look(*flags)
        assert verdicts(found, "proxy", "key", "clock") == [OK] * 3 and "port" not in found
        proxy.answer = REFUSALS[403]
        _, found = look(*flags)
        assert verdicts(found, "proxy", "key", "clock") == [MEND, UNCHECKED, UNCHECKED]
        assert "does not let this machine connect" in found["proxy"][1]
        proxy.answer = None
        moved = parse_join_code(code.read_text())._replace(address="tcp://127.0.0.1:9")
        code.write_text(moved.text())
        _, found = look(*flags)
        assert found["proxy"][0] == MEND and "(502): is the coordinator there, and running?" in found["proxy"][1]
