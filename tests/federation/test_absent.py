"""A site that stays away is waited for until the deadline, then left out and said; it comes back and takes part."""

from __future__ import annotations

import pytest

from learner_jax.engines import worker
from learner_jax.engines.site_study import SiteStudy
from learner_jax.errors import StudyError
from learner_jax.specs import Federation
from tests.federation.hospitals import Site, federated, small


class Leaving(SiteStudy):
    """The power goes off at h01 in its third round, once."""

    off: list[str] = []

    def work(self, asked, data, committed):
        if (self.name, asked.phase, asked.round) == ("h01", "train", 3) and not self.off:
            self.off.append(self.name)
            raise StudyError("the power went off")
        return super().work(asked, data, committed)


@pytest.mark.slow
def test_a_site_stays_away_and_comes_back(source, tmp_path, monkeypatch):
    deadline = 4.0
    study = small(source, "fedavg", rounds=12, federation=Federation(quorum=2, deadline_s=deadline))
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
    lost = [event for who, event in ended.events if who == "coordinator" and event.kind == "site_lost"]
    assert any(event.site == "h01" and "the power went off" in event.data["reason"] for event in lost)
    back = [event for who, event in ended.events if who == "coordinator" and event.kind == "site_back"]
    assert any(event.site == "h01" and not event.data["first"] for event in back)
