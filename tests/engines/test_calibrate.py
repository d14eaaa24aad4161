"""By whose rows each kind of model is set right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from learner_jax.build import build
from learner_jax.data.sites import TEST, VALID, SiteData
from learner_jax.engines import calibrate
from learner_jax.engines.world import build_world
from learner_jax.types import Calibrating
from tests.federation.cells_at_sites import study_of_cells


def test_a_joint_model_goes_by_all_a_sites_own_by_its_own_and_that_of_the_others_by_theirs(monkeypatch):
    def site(watched: int) -> SiteData:
        split = np.array([VALID] * watched + [TEST] * 5, np.int8)
        return SiteData({"x": np.zeros(len(split))}, split, np.arange(len(split)), {})

    def zero():
        return {"n": np.zeros(1, np.int64)}

    def tally(output: int, rows: Any):
        return {"n": np.array([output * len(rows["x"])], np.int64)}

    calibrating = Calibrating(zero, tally, lambda sums: sums["n"], lambda output, by: output)
    whole = build(study_of_cells(Path("unused"), {}))
    judging = whole.task.judging
    assert judging is not None
    parts = whole._replace(task=whole.task._replace(judging=judging._replace(calibrating=calibrating)))
    world = build_world({"a": site(2), "b": site(3), "c": site(4)}, parts.dtype)
    monkeypatch.setattr(calibrate, "predictor", lambda parts: lambda weights, rows: weights)
    sites = {"a": site(2), "b": site(3), "c": site(4)}
    own = {"a": 1, "b": 10, "c": 100}
    theirs = [own[name] for name in world.names]  # their order is that of their ids
    models = {"federated": [1, 1, 1], "local_only": theirs, "all_but_me": theirs}
    found = {
        model: {name: int(by[0]) for name, by in zip(world.names, moves, strict=True)}
        for model, moves in calibrate.moves(parts, sites, world, models).items()
    }
    assert found == {
        "federated": {"a": 9, "b": 9, "c": 9},
        "local_only": {"a": 2, "b": 30, "c": 400},
        "all_but_me": {"a": 7, "b": 60, "c": 500},
    }
    assert calibrate.moves(whole._replace(task=whole.task._replace(judging=None)), sites, world, models) == {}
