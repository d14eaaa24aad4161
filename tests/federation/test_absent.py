"""A site that stays away is waited for until the deadline, then left out and said; it comes back and takes part.

SCAFFOLD has most to lose there: a site's control must stay as it was in its last round that counted. So the weights at
the end are those of a simulator that runs each round with the sites that took part in it, to the bit.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from learner_jax.engines import worker
from learner_jax.engines.site_study import SiteStudy
from learner_jax.errors import StudyError
from learner_jax.specs import Data, Federation
from tests.federation.hospitals import Apart, Process, Site, federated, replayed, small
from tests.federation.kills import events


class Leaving(SiteStudy):
    """The power goes off at h01 in its third round, once."""

    off: list[str] = []

    def work(self, asked, data, committed):
        if (self.name, asked.phase, asked.round) == ("h01", "train", 3) and not self.off:
            self.off.append(self.name)
            raise StudyError("the power went off")
        return super().work(asked, data, committed)


@pytest.mark.soak
def test_a_site_stays_away_and_comes_back(source, tmp_path, monkeypatch):
    deadline = 4.0
    study = small(source, "scaffold", rounds=12, federation=Federation(quorum=2, deadline_s=deadline))
    monkeypatch.setattr(worker, "SiteStudy", Leaving)
    monkeypatch.setattr(Leaving, "off", [])
    away_from: list[int] = []  # how many events had been told when it left

    def rounds_without(events) -> list[int]:
        told = [event for who, event in events if who == "coordinator" and event.kind == "round_closed"]
        return [event.round for event in told if "h01" in event.data["lost"]]

    def power_is_back(sites: dict[str, Site], events) -> None:
        gone = sites["h01"]
        if gone.ident is None or gone.is_alive():
            return
        away_from.append(len(events))
        if len(rounds_without(events[away_from[0] :])) >= 2:
            sites["h01"] = Site("h01", gone.table, gone.folder, None, gone._tell)
            sites["h01"].start()

    ended = federated(study, tmp_path, check=power_is_back)
    curve = {row["round"]: row for row in ended.outcome.result["curve"]}
    without = [number for number, row in curve.items() if "h01" in row["lost"] and number >= 3]
    print("\n" + "; ".join(f"{n}: {len(r['sites'])} sites, {r['seconds']:.1f} s" for n, r in curve.items()))
    assert without[0] == 3 and len(without) >= 2
    for number in without[:2]:  # waited for until the deadline, then on
        assert curve[number]["seconds"] >= deadline and len(curve[number]["sites"]) == 2
    assert "h01" in curve[12]["sites"] or "h01" in curve[11]["sites"], "it takes part again"
    assert ended.sites["h01"].error is None
    assert ended.sha256 == replayed(study, ended.outcome.result["curve"]).sha256
    lost = [event for who, event in ended.events if who == "coordinator" and event.kind == "site_lost"]
    assert any(event.site == "h01" and "the power went off" in event.data["reason"] for event in lost)
    back = [event for who, event in ended.events if who == "coordinator" and event.kind == "site_back"]
    assert any(event.site == "h01" and not event.data["first"] for event in back)


def _closed(run: Path) -> list[dict[str, Any]]:
    return [line for line in events(run) if line["event"] == "round_closed"]


def _wait(process: Process, run: Path, site: str, many: int, there: bool) -> None:
    """Until so many rounds were closed with a site, or without it."""
    while len([line for line in _closed(run) if (site in line["sites"]) == there]) < many:
        assert process.poll() is None, process.said
        time.sleep(0.01)


@pytest.mark.soak
def test_a_sites_process_is_killed_stays_away_and_comes_back(source, tmp_path):
    data = Data(source=str(source), site_column=None, sites=("h00", "h01"))
    federation = Federation(quorum=1, deadline_s=4.0)
    study = small(source, "scaffold", rounds=16, data=data, federation=federation)
    with Apart(study, tmp_path) as there:
        coordinator, h00, h01 = there.coordinator(), there.site("h00"), there.site("h01")
        _wait(coordinator, there.run, "h01", 3, there=True)
        before = len(_closed(there.run))
        os.kill(h01.pid, signal.SIGKILL)
        away = [line for line in _closed(there.run) if "h01" in line["lost"]]  # of a slow first round
        _wait(coordinator, there.run, "h01", len(away) + 2, there=False)
        told = len(events(there.run))
        h01 = there.site("h01")
        ended = [process.last_line() for process in (coordinator, h00, h01)]
    curve = json.loads((there.run / "result.json").read_text())["curve"]
    print("\n" + "; ".join(f"{row['round']}: {','.join(row['sites'])}" for row in curve))
    without = [row["round"] for row in curve[before:] if row["lost"] == ["h01"]]
    assert len(without) >= 2 and "h01" in curve[-1]["sites"]
    assert f"round {without[0]} of 16" in coordinator.said and "without h01" in coordinator.said
    about = [(line["event"], place >= told) for place, line in enumerate(events(there.run)) if line["site"] == "h01"]
    about = [each for each in about if each[0] in ("site_lost", "site_back")]
    assert [each[0] for each in about] == ["site_back", "site_lost", "site_back"], "each is said once"
    assert about[-1][1], "it was said to be back before it was started"
    assert {line["weights_sha256"] for line in ended} == {replayed(study, curve).sha256}
