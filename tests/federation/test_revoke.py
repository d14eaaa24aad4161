"""A site is taken off the roster while the study runs: at once, on the connection that it has, and for good."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time

import pytest

from learner_jax.engines import requests
from learner_jax.errors import StudyError
from learner_jax.network.enrol import Desk, invite
from learner_jax.network.keys import Site, new_keys
from learner_jax.protocol import commands as c
from learner_jax.specs import Data
from tests.federation.hospitals import Apart, small


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "roster.json", "heart", new_keys())
    for name in ("north", "south"):
        keys = new_keys()
        desk.enlist(name, Site(keys.curve_public, keys.sign_public))
    return desk


def test_a_request_takes_a_site_off_and_gives_it_no_new_code(desk, tmp_path):
    posted, told = [], []
    assert not requests.ask_to_revoke(tmp_path, "north", "moved", wait_s=0.0), "nobody took it yet"
    take = functools.partial(requests.take, tmp_path, "heart", desk, posted.append, told.append)
    with requests.taken(take):
        while list((tmp_path / "requests").iterdir()):
            time.sleep(0.02)
    assert set(desk.roster.sites) == {"south"} and posted == [c.Forget("north")]
    assert told[0].data["text"] == "north was taken off the roster: moved"
    again = Desk(tmp_path / "roster.json", "heart", desk._keys)
    assert again.roster == desk.roster and again.roster.revoked == ("north",)
    assert not invite(again, ("north", "south"), "tcp://127.0.0.1:1", tmp_path / "join")


@pytest.mark.parametrize(("site", "words"), [("west", "north, south"), ("../x", "a site's name")])
def test_a_site_that_is_not_there(desk, tmp_path, site, words):
    with pytest.raises(Exception, match=words):
        requests.ask_to_revoke(tmp_path, site, wait_s=0.0)
    with pytest.raises(StudyError, match=r"it holds no roster\.json"):
        requests.ask_to_revoke(tmp_path / "nowhere", "north", wait_s=0.0)
    desk.revoke("north")
    with pytest.raises(StudyError, match="off the roster already"):
        requests.ask_to_revoke(tmp_path, "north", wait_s=0.0)


@pytest.mark.soak
@pytest.mark.parametrize("through", ["port", "broker"])
def test_a_running_study_goes_on_without_it_also_after_a_restart(through, source, tmp_path):
    names = tuple(sorted(path.stem for path in source.iterdir()))
    last = names[-1]
    study = small(source, rounds=40, data=Data(source=str(source), site_column=None, sites=names))
    with Apart(study, tmp_path) as there:
        if through == "broker":
            there.broker()
        coordinator = there.coordinator()
        sites = {name: there.site(name) for name in names}
        metrics = there.run / "metrics.jsonl"

        def closed() -> list[dict]:
            lines = metrics.read_text().splitlines() if metrics.exists() else []
            return [one for one in map(json.loads, lines) if one["event"] == "round_closed"]

        while len(closed()) < 3:
            time.sleep(0.05)
        command = [sys.executable, "-m", "learner_jax.cli.main", "revoke", last, f"--workdir={there.run}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "its line is closed" in done.stdout, done.stdout + done.stderr
        at = len(closed())
        coordinator.kill()
        coordinator.wait(20)
        coordinator = there.coordinator()
        ended = [process.last_line() for process in (coordinator, *(sites[name] for name in names[:-1]))]
        sites[last].kill()
    assert len({line["weights_sha256"] for line in ended}) == 1
    curve = json.loads((there.run / "result.json").read_text())["curve"]
    assert at + 1 < len(curve) and all(set(row["sites"]) == set(names[:-1]) for row in curve[at + 1 :])
    print(
        f"{last} was taken off after round {at}; it counts in none of the {len(curve) - at - 1} rounds after the next"
    )
