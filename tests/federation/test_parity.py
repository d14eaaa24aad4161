"""One study, two engines: the simulator with one stream and a federation end with the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from learner_jax import trees
from learner_jax.engines import worker
from learner_jax.engines.program import wire_shape
from learner_jax.engines.simulator import template_rows
from learner_jax.engines.site_study import Answer, SiteStudy
from learner_jax.leaves import pack, unpack
from learner_jax.specs import Data, Study
from tests.federation.hospitals import METHODS, RULES, Process, federated, flags, simulated, small

COMBINATIONS = [(method, rule) for method in METHODS for rule in RULES]
THREE_SITES = {("scaffold", "mean")}  # the others with two, for time; in the soak all with three


def _sites(count: int, source: Path) -> Data:
    names = tuple(sorted(path.stem for path in source.iterdir()))[:count]
    return Data(source=str(source), site_column=None, sites=names)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "rule"), COMBINATIONS)
def test_worker_threads_end_with_the_simulators_bits(method, rule, source, tmp_path):
    count = 3 if (method, rule) in THREE_SITES else 2
    study = small(source, method, rule, data=_sites(count, source))
    ended = federated(study, tmp_path)
    assert ended.sha256 == simulated(study).sha256
    assert [site.error for site in ended.sites.values()] == [None] * count
    assert {site.result["weights_sha256"] for site in ended.sites.values() if site.result} == {ended.sha256}


def _both(study: Study, folder: Path) -> tuple[dict, dict]:
    one = Process("launch.simulate", flags(study, folder / "simulated"), folder / "simulate")
    first = one.last_line()
    return first, Process("launch.local", flags(study, folder / "local"), folder / "local-log").last_line()


@pytest.mark.soak
@pytest.mark.limit(900)
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(("method", "rule"), COMBINATIONS)
def test_processes_of_every_method_and_rule(method, rule, precision, source, tmp_path):
    simulation, federation = _both(small(source, method, rule, precision=precision), tmp_path)
    print(f"\n{method} x {rule}, {precision}: {simulation['weights_sha256'][:16]} {federation['weights_sha256'][:16]}")
    assert federation["weights_sha256"] == simulation["weights_sha256"]


class Scaled(SiteStudy):
    """A worker gone wrong: site h01 sends its updates of round 3 a thousandth too large."""

    def work(self, asked, data, committed):
        answer = super().work(asked, data, committed)
        if (self.name, asked.phase, asked.round) != ("h01", "train", 3):
            return answer
        _, world, weights = self._prepared()
        rows = template_rows(world)
        schema = trees.schema(wire_shape(self.parts.federated, trees.shapes(weights), rows, self.parts.local))
        leaves = {name: leaf.copy() for name, leaf in unpack(answer.data, schema).items()}
        for name, leaf in leaves.items():
            if "update" in name and leaf.dtype.kind == "f":
                leaf *= 1.001
        return Answer(pack(leaves), answer.schema_digest, answer.state)


@pytest.mark.slow
def test_an_update_scaled_by_a_thousandth_is_seen(source, tmp_path, monkeypatch):
    study = small(source, "scaffold", rounds=4, data=_sites(3, source))
    monkeypatch.setattr(worker, "SiteStudy", Scaled)
    assert federated(study, tmp_path).sha256 != simulated(study).sha256
