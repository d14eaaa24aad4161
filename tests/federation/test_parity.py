"""One study, two engines: the simulator with one stream and a federation end with the same bits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from learner_jax.engines import worker
from learner_jax.engines.site_study import SiteStudy
from learner_jax.network.tunnel import parse_proxy
from learner_jax.specs import Data, Study
from tests.federation.hospitals import METHODS, RULES, Apart, Process, Site, federated, flags, simulated, small
from tests.federation.mutant import Scaled
from tests.federation.told import check_told
from tests.network.proxies import REFUSALS, ConnectProxy

COMBINATIONS = [(method, rule) for method in METHODS for rule in RULES]
QUICK = [("scaffold", "mean"), ("fedavg", "median")]
"""A method with states of its sites, and each rule; the others are in the soak, where all are run as processes too."""
THREADS = [pytest.param(*one, marks=() if one in QUICK else pytest.mark.soak) for one in COMBINATIONS]
THREE_SITES = {("scaffold", "mean")}  # the others with two, for time; in the soak all with three


def _sites(count: int, source: Path) -> Data:
    names = tuple(sorted(path.stem for path in source.iterdir()))[:count]
    return Data(source=str(source), site_column=None, sites=names)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "rule"), THREADS)
def test_worker_threads_end_with_the_simulators_bits(method, rule, source, tmp_path):
    count = 3 if (method, rule) in THREE_SITES else 2
    study = small(source, method, rule, data=_sites(count, source))
    ended = federated(study, tmp_path)
    assert ended.sha256 == simulated(study).sha256
    assert [site.error for site in ended.sites.values()] == [None] * count
    assert {site.result["weights_sha256"] for site in ended.sites.values() if site.result} == {ended.sha256}
    check_told(study, ended)


@pytest.mark.slow
def test_half_of_the_bytes_on_the_wire_and_the_same_bits_in_both_engines(source, tmp_path):
    study = small(source, "scaffold", "mean", rounds=4, data=_sites(2, source), wire="bfloat16")
    ended, alone = federated(study, tmp_path), simulated(study)
    assert ended.sha256 == alone.sha256
    whole = simulated(dataclasses.replace(study, wire="full"))
    assert alone.sha256 != whole.sha256 and 0.45 < alone.bytes_down / whole.bytes_down < 0.52
    (figure, full) = (trained.history.curve[-1]["valid/loss"] for trained in (alone, whole))
    assert abs(figure - full) < 0.01


@pytest.mark.slow
def test_a_study_through_a_proxy_that_cuts_and_refuses_ends_with_the_simulators_bits(source, tmp_path, monkeypatch):
    study = small(source, "scaffold", "median", rounds=5, data=_sites(2, source))  # whose programs are compiled already
    faults = {2: [], 4: [REFUSALS[502]] * 2}  # in this round all lines are cut, and the next ones get these answers

    with ConnectProxy("nurse:a password") as proxy:

        class Cut(SiteStudy):
            def work(self, asked, data, committed):
                if asked.phase == "train" and asked.round in faults:
                    proxy.once = faults.pop(asked.round)
                    proxy.cut()
                return super().work(asked, data, committed)

        def begin(sites: dict[str, Site]) -> None:
            for site in sites.values():
                site.proxy = there
                site.start()

        monkeypatch.setattr(worker, "SiteStudy", Cut)
        there = parse_proxy(proxy.url.replace("//", "//nurse@"))._replace(password="a password")
        ended = federated(study, tmp_path, begin=begin)
        place = {head.split()[1] for head in proxy.asked}
    assert [site.error for site in ended.sites.values()] == [None, None] and not faults and not proxy.once
    assert ended.sha256 == simulated(study).sha256
    assert len(proxy.asked) >= 8 + 2 and len(place) == 1  # a site's: to enrol, to take part, and after each cut
    said = [str(event.data["text"]) for who, event in ended.events if who != "coordinator" and event.kind == "note"]
    assert 1 <= sum("does not reach" in text for text in said) <= 2
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"a password" in path.read_bytes()]


def _both(study: Study, folder: Path) -> tuple[dict, dict]:
    one = Process("launch.simulate", flags(study, folder / "simulated"), folder / "simulate")
    first = one.last_line()
    return first, Process("launch.local", flags(study, folder / "local"), folder / "local-log").last_line()


@pytest.mark.soak
def test_processes_of_another_method_and_rule_than_those_that_are_killed(source, tmp_path):
    study = small(source, "fedavg", "median", rounds=5, data=_sites(2, source))
    ended = Process("launch.local", flags(study, tmp_path / "run"), tmp_path / "log").last_line()
    assert ended["weights_sha256"] == simulated(study).sha256


@pytest.mark.soak
@pytest.mark.limit(900)
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(("method", "rule"), COMBINATIONS)
def test_processes_of_every_method_and_rule(method, rule, precision, source, tmp_path):
    simulation, federation = _both(small(source, method, rule, precision=precision), tmp_path)
    print(f"\n{method} x {rule}, {precision}: {simulation['weights_sha256'][:16]} {federation['weights_sha256'][:16]}")
    assert federation["weights_sha256"] == simulation["weights_sha256"]


@pytest.mark.slow
def test_an_update_scaled_by_a_thousandth_is_seen(source, tmp_path, monkeypatch):
    study = small(source, "scaffold", rounds=4, data=_sites(3, source))
    monkeypatch.setattr(worker, "SiteStudy", Scaled)
    assert federated(study, tmp_path).sha256 != simulated(study).sha256


@pytest.mark.soak
def test_an_update_scaled_by_a_thousandth_in_a_process_is_seen(source, tmp_path):
    study = small(source, "scaffold", rounds=3, data=_sites(2, source))
    with Apart(study, tmp_path) as there:
        coordinator = there.coordinator()
        sites = [there.site("h00"), there.site("h01", "tests.federation.mutant")]
        ended = [process.last_line() for process in (coordinator, *sites)]
    alone = simulated(study)
    curve = json.loads((there.run / "result.json").read_text())["curve"]
    losses = [[row["train/loss"] for row in rows] for rows in (curve, alone.history.curve)]
    assert losses[0] == losses[1], "until the last update went wrong, and no longer, all was the same"
    assert len({line["weights_sha256"] for line in ended}) == 1
    assert ended[0]["weights_sha256"] != alone.sha256
