"""A site that is invited while a study runs takes part from the next round on, and counts like the others."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest

from learner_jax.data import plans
from learner_jax.data.sites import encode_sites
from learner_jax.data.tables import read_table
from learner_jax.engines import requests, rounds, simulator, worker
from learner_jax.engines.history import History
from learner_jax.engines.site_study import SiteStudy
from learner_jax.errors import StudyError
from learner_jax.leaves import site_ids
from learner_jax.network.enrol import Desk
from learner_jax.network.keys import new_keys
from learner_jax.specs import Data, Federation, Study
from tests.federation.hospitals import Apart, Site, _built, federated, small
from tests.federation.kills import events

FIRST, LATER = ("h00", "h01"), "h08"
WAITS = 4
"""The round that goes on when the newcomer is there."""


def study_of(source: Path, method: str, **fields: Any) -> Study:
    data = Data(source=str(source), site_column=None, sites=FIRST)
    return small(source, method, data=data, federation=Federation(quorum=1.0, deadline_s=120.0), **fields)


def expected(study: Study, source: Path, curve: Sequence[dict[str, Any]]) -> str:
    """The weights of a simulator that asks whom the federation asked, and knows of a begun site from its round on.

    All three read their tables by what the sums of the first two gave.
    """
    parts, first = _built(study), next(row["round"] for row in curve if LATER in row["sites"])
    checklist = parts.task.checklist
    assert checklist is not None
    tables = {name: read_table(source / f"{name}.csv") for name in (*FIRST, LATER)}
    fitted, _ = encode_sites(checklist, {name: tables[name] for name in FIRST})
    sites = {name: checklist.encode(table, fitted) for name, table in tables.items()}
    asked = {row["round"]: np.fromiter(site_ids(row["sites"]).values(), np.uint32) for row in curve}
    make = rounds.make_round

    def growing(study, seed, number, cohort, enrolled):
        return make(study, seed, number, cohort, jnp.where(number < first, len(FIRST), enrolled).astype(jnp.int32))

    with (
        mock.patch.object(plans, "cohort", lambda seed, number, ids, size: asked[number]),
        mock.patch.object(rounds, "make_round", growing),
    ):
        return simulator.simulate(parts, sites)[0].sha256


@pytest.mark.parametrize("method", ["fedavg", pytest.param("scaffold", marks=pytest.mark.soak)])
def test_it_takes_part_from_the_next_round_on(method, source, tmp_path, monkeypatch):
    study, run = study_of(source, method, rounds=7), tmp_path / "run"
    begun, there = threading.Event(), threading.Event()

    class Waiting(SiteStudy):
        def work(self, asked, data, committed):
            if asked.phase == "train" and asked.round == WAITS:
                begun.set()
                assert there.wait(60), "nobody came"
            return super().work(asked, data, committed)

    def begin(sites: dict[str, Site]) -> None:
        for site in sites.values():
            site.start()

        def come() -> None:
            assert begun.wait(60)
            code = requests.ask_to_invite(run, LATER, wait_s=60.0)
            assert code is not None
            sites[LATER] = Site(
                LATER, source / f"{LATER}.csv", tmp_path / "sites" / LATER, code.read_text().strip(),
                lambda event: there.set() if event.kind == "start" else None,
            )  # fmt: skip
            sites[LATER].start()

        threading.Thread(target=come, daemon=True).start()

    forgotten: list[int] = []
    forget = History.forget_best
    monkeypatch.setattr(History, "forget_best", lambda self: (forgotten.append(len(self.curve)), forget(self)))
    monkeypatch.setattr(worker, "SiteStudy", Waiting)
    ended = federated(study, tmp_path, begin=begin)
    curve = ended.outcome.result["curve"]
    of_round = {row["round"]: set(row["sites"]) for row in curve}
    assert of_round == {n: {*FIRST} if n <= WAITS else {*FIRST, LATER} for n in range(1, 8)}
    texts = [event.data["text"] for who, event in ended.events if who == "coordinator" and event.kind == "note"]
    assert f"{LATER} takes part from round {WAITS + 1} on" in texts
    found = ended.sites[LATER].result
    assert ended.sites[LATER].error is None and found is not None and found["rounds"] == 7 - WAITS
    told = [event.data["text"] for who, event in ended.events if who == FIRST[0] and event.kind == "note"]
    assert "the study has 3 sites now; it had 2" in told
    fitted = [json.loads((tmp_path / "sites" / name / "fitted.json").read_text()) for name in (*FIRST, LATER)]
    assert fitted[0] == fitted[1] == fitted[2]
    assert ended.sha256 == expected(study, source, curve)
    assert forgotten == [WAITS], "the best model is sought among those that all three have looked at"


@pytest.mark.soak
def test_a_coordinator_that_is_killed_after_it_came_goes_on_to_the_same(source, tmp_path):
    """SCAFFOLD, as processes: rounds with two sites and with three are added up again, and give what they gave."""
    study = study_of(source, "scaffold", rounds=200)
    with Apart(study, tmp_path) as there:
        coordinator = there.coordinator()
        sites = [there.site(name) for name in FIRST]

        def closed() -> list[dict[str, Any]]:
            return [line for line in events(there.run) if line["event"] == "round_closed"]

        def until(met) -> None:
            while not met():
                assert coordinator.poll() is None, coordinator.said
                time.sleep(0.02)

        until(lambda: len(closed()) >= 3)
        command = [sys.executable, "-m", "learner_jax.cli.main", "invite", LATER, f"--workdir={there.run}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and f"Join code of {LATER}" in done.stdout, done.stdout + done.stderr
        sites.append(there.site(LATER, table=source / f"{LATER}.csv"))
        until(lambda: any(LATER in line["sites"] for line in closed()))
        coordinator.kill()
        coordinator.wait(20)
        coordinator = there.coordinator()
        ended = [process.last_line() for process in (coordinator, *sites)]
    curve = json.loads((there.run / "result.json").read_text())["curve"]
    with_it = [LATER in row["sites"] for row in curve]
    assert len(curve) == 200 and sorted(with_it) == with_it and with_it[-1], "it counts in all rounds after its first"
    assert {line["weights_sha256"] for line in ended} == {expected(study, source, curve)}


def test_who_may_be_invited(tmp_path):
    desk, told = Desk(tmp_path / "roster.json", "heart", new_keys()), []
    desk.invite("tcp://127.0.0.1:1", "north")
    with pytest.raises(StudyError, match=r"holds no roster\.json"):
        requests.ask_to_invite(tmp_path / "nowhere", "west", wait_s=0.0)
    with pytest.raises(Exception, match="a site's name"):
        requests.ask_to_invite(tmp_path, "../west", wait_s=0.0)
    assert requests.ask_to_invite(tmp_path, "west", wait_s=0.0) is None, "nobody took it yet"
    made = lambda site: tmp_path / "join" / f"{site}.code"  # noqa: E731
    requests.take(tmp_path, "heart", desk, lambda event: None, told.append)
    assert not told and list((tmp_path / "requests").iterdir()), "it waits until the port is open"
    requests.take(tmp_path, "heart", desk, lambda event: None, told.append, made)
    assert [event.data["text"] for event in told] == [f"join code of west, works once: {made('west')}"]
    assert not list((tmp_path / "requests").iterdir())
    desk.revoke("north")
    with pytest.raises(StudyError, match="'north' was taken off the roster"):
        requests.ask_to_invite(tmp_path, "north", wait_s=0.0)
