"""A site's summary from elsewhere: what could not be joined with another's is refused before it counts."""

from __future__ import annotations

import copy
import itertools
import json

import numpy as np
import pytest

from learner_jax.evaluation import join_sites, summarise_site
from learner_jax.evaluation.summary import check_summary


def honest(name: str, rows: int = 80, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    y = (rng.random(rows) < 0.4).astype(float)
    scores = {model: np.clip(0.3 * y + rng.random(rows) * 0.7, 0, 1) for model in ("federated", "local_only")}
    found = summarise_site(scores, y, None, None, 0, name=name, draws=20)
    return json.loads(json.dumps(found))


def test_what_sites_say_is_taken():
    for rows in (0, 5, 80):
        check_summary(honest("a", rows))
    assert check_summary({}) == {}


def test_what_a_site_adds_goes_no_further():
    found = honest("a")
    more = copy.deepcopy(found)
    more["everyone"]["remark"] = "a patient's name"
    assert check_summary(more) == check_summary(found) == found


PATHS = [
    (("events",), 0), (("events",), 81), (("rows",), 10**400), (("rows",), -1), (("rows",), True),
    (("rows",), None),
    (("models",), []), (("models", "federated", "auroc"), "x"), (("models", "federated", "told"), None),
    (("models", "federated", "auroc", "se"), -1.0),
    (("models", "federated", "auroc", "value"), float("nan")),
    (("models", "federated", "auroc", "value"), 1e300),
    (("models", "federated", "slope_se"), 1e-300),
    (("models", "zz"), {"told": "0"}),
    (("gain", "federated-local_only", "auroc"), {"value": 0.1}),
    (("gain", "x"), {"y": {}}),
]  # fmt: skip


@pytest.mark.parametrize("path, value", PATHS)
def test_what_cannot_be_joined_is_refused(path, value):
    found = honest("a")
    place = found["everyone"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ValueError, match="in a site's summary"):
        check_summary(found)


@pytest.mark.parametrize("told", ["x", [], 3, {"everyone": 1}, {"everyone": {}}, {1: {}}])
def test_what_is_no_summary_is_refused(told):
    with pytest.raises(ValueError, match="in a site's summary"):
        check_summary(told)


def test_whatever_is_taken_can_be_joined_with_any_other():
    """Single fields changed to odd values: what passes the check joins, before and after an honest one."""
    base = honest("b", seed=1)["everyone"]
    odd = (None, 0, 1, -1, 0.0, 1e-12, 1e11, "x", {}, [], True, float("inf"))
    fields = [("rows",), ("events",), ("patients",), ("models", "federated"), ("models", "zz"), ("gain", "q"),
              *(("models", "federated", name) for name in ("auroc", "auprc", "brier", "told", "slope", "slope_se")),
              *(("models", "federated", "auroc", name) for name in ("value", "se", "low"))]  # fmt: skip
    joined = 0
    for path, value in itertools.product(fields, odd):
        found = copy.deepcopy(base)
        place = found
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        try:
            check_summary({"everyone": found})
        except ValueError:
            continue
        joined += 1
        for both in ([honest("a"), {"everyone": found}], [{"everyone": found}, honest("a")], [{"everyone": found}]):
            json.dumps(join_sites(both), allow_nan=False)
    assert joined > 10
