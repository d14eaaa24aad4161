"""Two streams and lanes add in another order: in float64 they agree with one stream to 1e-9 after 20 rounds."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from learner_jax import trees
from learner_jax.specs import Engine
from tests.federation.hospitals import METHODS, RULES, simulated, small

COMBINATIONS = [(method, rule) for method in METHODS for rule in RULES]


def _furthest(one, other) -> float:
    pairs = zip(trees.named_leaves(one).values(), trees.named_leaves(other).values(), strict=True)
    return max(float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max(initial=0)) for a, b in pairs)


def _plans_agree(method: str, rule: str, source: Path) -> None:
    with jax.enable_x64(True):
        found = {}
        for name, engine in {
            "one stream": Engine(plan="sequential"),
            "two streams": Engine(plan="streams", streams=2),
            "lanes": Engine(plan="lanes", lanes=2),
        }.items():
            trained = simulated(small(source, method, rule, precision="float64", engine=engine))
            found[name] = trained.server.learned
        apart = {name: _furthest(found["one stream"], server) for name, server in found.items()}
    print(f"\n{method} x {rule}, 20 rounds in float64, from one stream: {apart}")
    assert max(apart.values()) < 1e-9


@pytest.mark.soak
def test_two_streams_and_lanes_agree_in_float64(source):
    _plans_agree("scaffold", "mean", source)


@pytest.mark.soak
@pytest.mark.limit(900)
@pytest.mark.parametrize(("method", "rule"), [one for one in COMBINATIONS if one != ("scaffold", "mean")])
def test_two_streams_and_lanes_agree_in_float64_for_the_rest(method, rule, source):
    _plans_agree(method, rule, source)
