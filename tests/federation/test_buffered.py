"""FedBuff: a round closes when so many updates are there; who is slow counts later, and less. Held against a loop of
NumPy over what the journal says: which updates counted in which round, and which broadcast each was computed from.

Reference: Nguyen et al., Federated Learning with Buffered Asynchronous Aggregation, AISTATS 2022.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import jax
import numpy as np
import pytest

from learner_jax import specs, trees
from learner_jax.data.tables import read_table
from learner_jax.engines import worker
from learner_jax.engines.program import wire_shape
from learner_jax.engines.simulator import template_rows
from learner_jax.engines.site_study import SiteStudy, broadcast_shape
from learner_jax.errors import ConfigError, StudyError
from learner_jax.leaves import pack, site_ids, unpack
from learner_jax.protocol import messages as m
from learner_jax.protocol.rows import Accepted, Closed
from learner_jax.specs import Federation, Study
from learner_jax.storage.journal import Journal
from tests.federation.hospitals import Site, _built, federated, simulated, small

ROUNDS, D = 8, "0" * 64


class Slow(SiteStudy):
    """h01 takes its time, the others some; from round 5 on all wait until they may go on."""

    go_on = threading.Event()

    def work(self, asked, data, committed):
        if asked.phase == "train" and asked.round >= 5:
            assert self.go_on.wait(60)
        if asked.phase == "train":
            time.sleep({"h01": 1.0, "h00": 0.1}.get(self.name, 0.15))
        return super().work(asked, data, committed)


def again(study: Study, folder, name: str) -> SiteStudy:
    """A site's compute once more, from what lies in its folder."""
    table = read_table(f"{study.data.source}/{name}.csv")
    manifest = specs.manifest(study).encode()
    return SiteStudy(_built, manifest, name, table, folder / "sites" / name, lambda event: None)


def by_numpy(study: Study, folder, lists: Mapping[int, list[tuple[str, int]]]) -> list[dict[str, np.ndarray]]:
    """The weights before the first round and after each: sums and steps in float64, each site's update from its own
    origin's broadcast.

    Args:
      lists: round -> (site, origin) of what counted, in order of site id.
    """
    sites = {name: again(study, folder, name) for name in ("h00", "h01", "h08")}
    parts = next(iter(sites.values())).parts
    _, world, weights = sites["h00"]._prepared()
    template = trees.shapes(weights)
    sent = trees.schema(broadcast_shape(parts, template))
    wire = trees.schema(wire_shape(parts.federated, template, template_rows(world), parts.local))
    state = {name: leaf.astype(np.float64) for name, leaf in trees.named_leaves(weights).items()}
    history = [state]
    for number in range(1, ROUNDS + 1):
        total: dict[str, np.ndarray] = {}
        mass = 0.0
        for name, origin in lists[number]:
            data = pack({spec.name: history[origin - 1][spec.name].astype(spec.dtype) for spec in sent})
            opened = m.Open("small", 1, origin, "train", 1, 3, 3, m.Blob(D, len(data), D), {})
            answer = unpack(sites[name].work(opened, data, None).data, wire)
            share = 1 / np.sqrt(1 + number - origin)
            mass += share * float(answer["update/weight"])
            for key in state:
                total[key] = total.get(key, 0.0) + share * answer[f"update/sum/{key}"].astype(np.float64)
        history.append({key: value + total[key] / mass for key, value in history[-1].items()})
    return history


@pytest.mark.slow
def test_a_buffered_study_is_that_of_a_loop_over_what_the_journal_says(source, tmp_path, monkeypatch):
    study = small(source, "fedavg", rounds=ROUNDS, federation=Federation(buffer=2, deadline_s=60.0))
    monkeypatch.setattr(worker, "SiteStudy", Slow)
    Slow.go_on.set()
    ended = federated(study, tmp_path)
    assert [site.error for site in ended.sites.values()] == [None] * 3
    with Journal(tmp_path / "run" / "journal.sqlite", study.name, specs.manifest_digest(study)) as journal:
        rows = journal.history()
    closed = {row.round: row for row in rows if isinstance(row, Closed) and row.phase == "train"}
    origins = {(row.round, row.site): row.origin or row.round for row in rows if isinstance(row, Accepted)}
    lists = {n: [(site, origins[n, site]) for site, _ in row.accepted] for n, row in closed.items()}
    order = list(site_ids(ended.sites))
    assert sorted(lists) == list(range(1, ROUNDS + 1))
    for number, counted in lists.items():
        assert len(counted) >= 2 and closed[number].lost == ()
        assert [site for site, _ in counted] == sorted((site for site, _ in counted), key=order.index)
    late = {
        number: {site: number - origin for site, origin in counted if origin < number}
        for number, counted in lists.items()
    }
    assert any(late.values()) and {row["round"]: row["late"] for row in ended.outcome.result["curve"]} == late
    expected = by_numpy(study, tmp_path, lists)[ended.outcome.result["best_round"]]
    found = trees.named_leaves(jax.tree.map(np.asarray, ended.outcome.weights))
    for name, leaf in found.items():
        np.testing.assert_allclose(leaf, expected[name], rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.mark.slow
def test_a_buffered_study_goes_on_where_its_coordinator_was_stopped(source, tmp_path, monkeypatch):
    study = small(source, "fedavg", rounds=ROUNDS, federation=Federation(buffer=2, deadline_s=60.0))
    monkeypatch.setattr(worker, "SiteStudy", Slow)
    monkeypatch.setattr(Slow, "go_on", threading.Event())
    there: dict[str, Site] = {}

    class PowerCut(Exception):
        pass

    def begin(sites: dict[str, Site]) -> None:
        there.update(sites)
        for site in sites.values():
            site.start()

    def check(sites: dict[str, Site], events) -> None:
        if any(who == "coordinator" and event.kind == "round_closed" and event.round == 4 for who, event in events):
            raise PowerCut

    with pytest.raises(PowerCut):
        federated(study, tmp_path, begin=begin, check=check)
    Slow.go_on.set()
    ended = federated(study, tmp_path, begin=lambda sites: None)
    for site in there.values():
        site.join(20)
        assert site.error is None
    with Journal(tmp_path / "run" / "journal.sqlite", study.name, specs.manifest_digest(study)) as journal:
        assert journal.epoch == 3 and len(ended.outcome.result["curve"]) == ROUNDS
        origins = [key for key in journal.origins() if key[1] == "train"]
        assert len(origins) == len(
            [row for row in journal.history() if isinstance(row, Accepted) and row.phase == "train"]
        )


def test_what_a_buffer_does_not_go_with(source, tmp_path):
    with pytest.raises(ConfigError, match=r"federation.buffer: expected no cohort beside it"):
        small(source, "fedavg", cohort=2, federation=Federation(buffer=2))
    with pytest.raises(ConfigError, match=r"federation.buffer: expected at least 1, got 0"):
        small(source, "fedavg", federation=Federation(buffer=0))
    with pytest.raises(ConfigError, match=r"federation.buffer: expected none in a simulation, which has no clock"):
        simulated(small(source, "fedavg", federation=Federation(buffer=2)))
    with pytest.raises(StudyError, match="expected a method without a state at the sites, got scaffold"):
        federated(small(source, "scaffold", federation=Federation(buffer=2)), tmp_path)
