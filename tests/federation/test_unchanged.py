"""A leaf that is as it was in the round before is not sent again, not even after a restart; nothing else is changed."""

from __future__ import annotations

import threading
from collections.abc import Hashable

import jax
import optax
import pytest

from learner_jax import build
from learner_jax.engines import worker
from learner_jax.engines.site_study import SiteStudy
from learner_jax.errors import StudyError
from learner_jax.specs import Data, Federation, Spec, Study
from tests.federation.hospitals import Site, federated, simulated, small

HIDDEN = 512


@pytest.fixture
def frozen(monkeypatch):
    """The largest leaf of all weights moves neither at the sites nor at the coordinator; how many bytes it has."""
    size: list[int] = []

    def labels(tree):
        size[:] = [4 * max(leaf.size for leaf in jax.tree.leaves(tree))]
        return jax.tree.map(lambda leaf: "frozen" if 4 * leaf.size == size[0] else "free", tree)

    transforms: dict[Hashable, optax.GradientTransformation] = {"frozen": optax.set_to_zero(), "free": optax.identity()}
    monkeypatch.setattr(build, "chain", lambda specs: optax.multi_transform(transforms, labels))
    return size


def study_of(source, rounds: int) -> Study:
    model = Spec("models", "mlp", {"hidden": (HIDDEN,)})
    data = Data(source=str(source), site_column=None, sites=("h00", "h01"))
    return small(source, "fedavg", rounds=rounds, model=model, data=data, federation=Federation(quorum=2))


class Leaving(SiteStudy):
    """The power goes off at h01 in its third round, once; from round 5 on all wait until they may go on."""

    off: list[str] = []
    go_on = threading.Event()

    def work(self, asked, data, committed):
        if (self.name, asked.phase, asked.round) == ("h01", "train", 3) and not self.off:
            self.off.append(self.name)
            raise StudyError("the power went off")
        if asked.phase == "train" and asked.round >= 5:
            assert self.go_on.wait(60)
        return super().work(asked, data, committed)


class PowerCut(Exception):
    """At the coordinator."""


@pytest.mark.slow
def test_a_frozen_leaf_is_sent_once_and_not_again_after_restarts(source, tmp_path, monkeypatch, frozen):
    study = study_of(source, 6)
    monkeypatch.setattr(worker, "SiteStudy", Leaving)
    monkeypatch.setattr(Leaving, "off", [])
    monkeypatch.setattr(Leaving, "go_on", threading.Event())
    there: dict[str, Site] = {}

    def begin(sites: dict[str, Site]) -> None:
        there.update(sites)
        for site in sites.values():
            site.start()

    def check(sites: dict[str, Site], events) -> None:
        gone = sites.get("h01", there.get("h01"))
        if gone is not None and gone.ident is not None and not gone.is_alive() and isinstance(gone.error, StudyError):
            sites["h01"] = there["h01"] = Site("h01", gone.table, gone.folder, None, gone._tell)
            there["h01"].start()
        if any(who == "coordinator" and event.kind == "round_closed" and event.round == 4 for who, event in events):
            raise PowerCut

    with pytest.raises(PowerCut):
        federated(study, tmp_path, begin=begin, check=check)
    Leaving.go_on.set()
    ended = federated(study, tmp_path, begin=lambda sites: None)
    for site in there.values():
        site.join(20)
        assert site.error is None
    assert Leaving.off == ["h01"] and ended.sha256 == simulated(study).sha256
    (leaf,), curve = frozen, ended.outcome.result["curve"]
    assert leaf > 50_000 and len(curve) == 6
    assert 2 * leaf < curve[0]["bytes_down"]  # the first time; what goes up of it are zeros
    for row in curve[1:]:
        assert row["bytes_down"] < leaf / 2 and row["bytes_up"] < leaf, row
