"""Plan "auto": what is quickest by trying, kept for the machine and for the run."""

from __future__ import annotations

import json

import numpy as np
import optax
import pytest

import learner_jax as lr
from learner_jax.engines import choose
from learner_jax.engines.program import Plan
from learner_jax.events import Event
from learner_jax.models import logistic
from learner_jax.specs import Engine


def run(workdir=None, told=None, engine=Engine(), **fields) -> lr.Run:
    draw = np.random.default_rng(0)
    sites = {}
    for k in range(6):
        x = draw.normal(size=(40 + 9 * k, 3)).astype(np.float32)
        sites[f"s{k}"] = x, (x[:, 0] > 0).astype(np.float32)
    task = lr.Task(logistic(), optax.sigmoid_binary_cross_entropy, (lr.auroc,))
    asked = {"rounds": 3, "batch_size": 16, "algorithm": lr.scaffold(local_lr=0.1), "references": (), **fields}
    tell = (lambda event: None) if told is None else told.append
    return lr.simulate(task, sites=sites, workdir=workdir, on_event=tell, target="valid/auroc", engine=engine, **asked)


def said(told: list[Event]) -> list[str]:
    return [event.data["text"] for event in told if event.kind == "note" and event.data["text"].startswith("plan: ")]


@pytest.fixture
def quickest(monkeypatch, tmp_path):
    """Makes one plan the quickest, and every study worth the trying; the cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(choose, "WORTH_S", 0.0)

    real = choose._seconds

    def is_(plan: Plan, by: float = 0.5, truly: bool = False) -> None:
        """truly: each is also tried as it would be."""

        def seconds(program, *given):
            assert not truly or real(program, *given) > 0
            return by if program.plan == plan else 1.0

        monkeypatch.setattr(choose, "_seconds", seconds)

    return is_


@pytest.mark.parametrize(
    ("plan", "named"),
    [
        (Plan(1, 1), Engine(plan="sequential")),
        pytest.param(Plan(1, 4), Engine(plan="lanes", lanes=4), marks=pytest.mark.soak),
    ],
)
def test_the_quickest_is_taken_and_said_and_gives_the_bits_of_that_plan_named(plan, named, quickest, tmp_path):
    quickest(plan, truly=True)
    told: list[Event] = []
    found = run(tmp_path / "run", told)
    (text,) = said(told)
    assert text.startswith(f"plan: {plan.said()} (a round of 6 sites took: ") and "500 ms" in text
    assert json.loads((tmp_path / "run" / "plan.json").read_text()) == plan._asdict()
    assert found.weights_sha256 == run(engine=named).weights_sha256


def test_what_is_a_little_quicker_is_not_taken(quickest, tmp_path):
    quickest(Plan(1, 4), by=0.95)
    told: list[Event] = []
    run(tmp_path / "run", told)
    assert said(told)[0].startswith(f"plan: {Plan(2, 1).said()} (")


def test_the_next_run_knows_it_and_another_workload_is_tried_anew(quickest, tmp_path, monkeypatch):
    quickest(Plan(1, 4))
    run(tmp_path / "run")
    monkeypatch.setattr(choose, "_seconds", None)  # nothing is tried again
    told: list[Event] = []
    run(tmp_path / "other", told)
    assert said(told) == ["plan: 4 sites abreast on one device (the quickest when it was tried on this machine)"]
    assert json.loads((tmp_path / "other" / "plan.json").read_text()) == Plan(1, 4)._asdict()
    with pytest.raises(TypeError):
        run(tmp_path / "third", batch_size=8)


def test_a_run_goes_on_by_the_plan_that_it_began_with(quickest, tmp_path, monkeypatch):
    quickest(Plan(1, 4))
    whole = run(tmp_path / "whole")

    def stop(event: Event) -> None:
        if event.kind == "round_closed" and event.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", type("Told", (list,), {"append": staticmethod(stop)})())
    quickest(Plan(1, 1))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    assert run(tmp_path / "run").weights_sha256 == whole.weights_sha256


def test_a_run_that_was_begun_without_a_plan_goes_on_by_the_first(quickest, tmp_path):
    def stop(event: Event) -> None:
        if event.kind == "round_closed" and event.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", type("Told", (list,), {"append": staticmethod(stop)})(), Engine(plan="streams"))
    (tmp_path / "run" / "plan.json").unlink(missing_ok=True)
    quickest(Plan(1, 4))
    told: list[Event] = []
    run(tmp_path / "run", told)
    assert not said(told)


def test_a_short_study_and_one_with_a_plan_of_its_own_are_not_tried(tmp_path, monkeypatch):
    told: list[Event] = []
    run(tmp_path / "run", told)
    monkeypatch.setattr(choose, "chosen", None)
    run(None, told, Engine(lanes=2))
    run(None, told, Engine(plan="streams"))
    assert not said(told)


def test_a_plan_that_cannot_be_read_counts_for_nothing(tmp_path):
    for text in ("", "{", "[]", '{"streams": 0, "lanes": 1}', '{"streams": 99, "lanes": 1}', '{"streams": "x"}'):
        (tmp_path / "plan.json").write_text(text)
        assert choose._read(tmp_path / "plan.json") is None
