"""Several rounds in one compiled call: the run of rounds one by one."""

from __future__ import annotations

import json
from typing import Literal
from unittest import mock

import numpy as np
import optax
import pytest

import learner_jax as lr
from learner_jax import spans
from learner_jax.engines import fused
from learner_jax.engines.program import Program
from learner_jax.models import mlp

TASK = lr.Task(mlp(hidden=(5,), dropout=0.2), optax.sigmoid_binary_cross_entropy, (lr.auroc,))
ROUNDS = 11
METHODS = {
    "fedavg": {"algorithm": lr.fedavg(local_lr=0.02, local="adam"), "cohort": 3},
    "scaffold": {"algorithm": lr.scaffold(local_lr=0.05)},
    "median": {"algorithm": lr.fedavg(local_lr=0.05), "aggregator": lr.median()},
}


def sites():
    draw = np.random.default_rng(0)
    found = {}
    for name, rows in {"a": 60, "b": 200, "c": 90, "d": 30}.items():
        x = draw.normal(size=(rows, 4)).astype(np.float32)
        found[name] = x, (x[:, 0] + draw.normal(size=rows) > 0).astype(np.float32)
    return found


def run(
    workdir=None, many=1, plan: Literal["sequential", "streams"] = "sequential", on_event=lambda event: None, **fields
):
    asked = {"rounds": ROUNDS, "batch_size": 16, "references": (), "engine": lr.Engine(plan=plan, fused=many), **fields}
    return lr.simulate(TASK, sites=sites(), workdir=workdir, target="valid/auroc", on_event=on_event, **asked)


def told(found):
    """What came of a run, without what a clock says."""
    curve = [{name: value for name, value in row.items() if name != "seconds"} for row in found.result["curve"]]
    return found.weights_sha256, found.result["best_round"], found.result["evaluation"], curve


def calls():
    """Counts rounds by how they are run: {"round": n, "several": [rounds of each call]}."""
    seen = {"round": 0, "several": []}
    one, many = Program.round, Program.several

    def round(self, *given):
        seen["round"] += 1
        return one(self, *given)

    def several(self, server, states, number, cohorts, most):
        seen["several"].append(len(cohorts))
        return many(self, server, states, number, cohorts, most)

    return seen, mock.patch.multiple(Program, round=round, several=several)


@pytest.mark.parametrize(
    "method", ["scaffold", *(pytest.param(name, marks=pytest.mark.soak) for name in ("fedavg", "median"))]
)
def test_the_run_is_that_of_rounds_one_by_one(method, tmp_path):
    plain = run(tmp_path / "plain", **METHODS[method])
    seen, patched = calls()
    with patched:
        found = run(tmp_path / "fused", 4, **METHODS[method])
    assert seen == {"round": 0, "several": [4, 4, 3]}
    assert told(found) == told(plain)
    lines = [json.loads(line) for line in (tmp_path / "fused" / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines if line["event"] == "round_closed"] == list(range(1, ROUNDS + 1))


@pytest.mark.soak
@pytest.mark.parametrize("method", METHODS)
def test_on_several_devices_it_is_the_same_but_for_rounding(method):
    plain, found = (run(None, many, "streams", **METHODS[method]) for many in (1, 5))
    for one, other in zip(plain.result["curve"], found.result["curve"], strict=True):
        assert one["valid/loss"] == pytest.approx(other["valid/loss"], abs=1e-5)


@pytest.mark.parametrize("method", ["fedavg", pytest.param("scaffold", marks=pytest.mark.soak)])
@pytest.mark.parametrize("stop", [6, pytest.param(8, marks=pytest.mark.soak)])  # within a call, and at its end
def test_a_run_that_was_stopped_goes_on_from_within_a_call(method, stop, tmp_path):
    def stopping(event):
        if event.kind == "round_closed" and event.round == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", 4, on_event=stopping, **METHODS[method])
    assert told(run(tmp_path / "run", 3, **METHODS[method])) == told(run(None, **METHODS[method]))


def test_patience_ends_within_a_call_as_it_does_between_rounds():
    settings = {**METHODS["fedavg"], "rounds": 60, "patience": 2}
    seen, patched = calls()
    with patched:
        found = run(None, 7, **settings)
    plain = run(None, **settings)
    assert len(plain.result["curve"]) % 7 and len(plain.result["curve"]) < 60, "it ends elsewhere: nothing is shown"
    assert told(found) == told(plain) and seen["several"]


def test_a_step_is_saved_at_the_end_of_a_call_after_which_one_was_due(tmp_path):
    for every, steps in ((3, [4, 8, 11]), (6, [8, 11])):
        saved = lr.Checkpoint(every=every, keep_last=9, wait=False)
        with mock.patch("learner_jax.engines.keeper._BUSY", 1.0):
            run(tmp_path / str(every), 4, checkpoint=saved, **METHODS["scaffold"])
        found = sorted(
            int(path.name) for path in (tmp_path / str(every) / "checkpoints").iterdir() if path.name.isdigit()
        )
        assert set(found) <= set(steps) and found[-1] == 11 and len(found) > 1


@pytest.mark.soak
def test_rounds_are_one_by_one_where_somebody_looks_in_between(tmp_path):
    def ran(**fields):
        seen, patched = calls()
        with patched:
            run(tmp_path / str(len([*tmp_path.iterdir()])), 4, rounds=3, **{**METHODS["scaffold"], **fields})
        return seen

    assert ran()["several"] == [3]
    for fields in ({"patience": 2}, {"checkpoint": lr.Checkpoint(wait=True)}, {"profile": "2"}):
        assert ran(**fields)["several"] == [], fields
    assert not spans.heard()
    with mock.patch.object(fused, "_HELD", 0):  # no room for a second model
        assert ran()["several"] == []
