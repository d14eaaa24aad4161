"""What the benchmark compares is the same work: planted faults must turn its agreement red. No time is asserted."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import common, loops, simulator, simulator_arms

RULE = loops.sgd(simulator_arms.QUICK.lr)


@pytest.fixture(scope="module")
def arms():
    return simulator_arms.Arms(simulator_arms.QUICK)


@pytest.fixture(scope="module")
def start(arms):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(arms.weights)]


def leaves(arm) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in arm()]


def test_loops_share_no_code_with_the_package(root):
    tree = ast.parse((root / "benchmarks" / "loops.py").read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert {name.partition(".")[0] for name in names} <= {"__future__", "collections", "typing", "jax", "numpy"}


def test_loss_and_step_equal_numpy(arms):
    """The loops' own gradient step against central differences of a float64 loss."""
    rng = np.random.default_rng(3)
    x, y = rng.random((4, 12)), rng.integers(0, 5, 4)
    mask = np.array([True, True, True, False])
    weights = [np.asarray(leaf, np.float64) for layer in arms.weights for leaf in layer]

    def loss(ws):
        h = x
        for k in range(0, len(ws), 2):
            h = h @ ws[k] + ws[k + 1]
            h = np.maximum(h, 0) if k < len(ws) - 2 else h
        each = np.log(np.exp(h).sum(-1)) - h[np.arange(4), y]
        return each[mask].mean()

    assert float(loops.loss(arms.weights, x.astype(np.float32), y, mask)) == pytest.approx(loss(weights), rel=1e-5)
    new, _ = loops.descend(loops.sgd(1.0), (arms.weights, ()), x.astype(np.float32), y, mask)
    bias = np.asarray(new[-1][1], np.float64)
    for k in range(5):
        up, down = ([*weights[:-1], weights[-1] + sign * 1e-5 * np.eye(5)[k]] for sign in (1, -1))
        assert weights[-1][k] - bias[k] == pytest.approx((loss(up) - loss(down)) / 2e-5, abs=1e-5)


def test_all_arms_agree(arms, start):
    names = (*simulator.CENTRALISED, "gathered_scan", *simulator.ROUNDS, "by_hand")
    found = {name: leaves(arms.make(name)) for name in names}
    off = simulator.agreement(found, start)
    assert off["centralised"] < simulator.TOLERANCE["centralised"] and off["rounds"] < simulator.TOLERANCE["rounds"]


@pytest.mark.parametrize("name", ["W1C", "W2", "W3", pytest.param("W4", marks=pytest.mark.soak), "W1S"])
def test_all_arms_of_another_work_agree(name):
    other = simulator_arms.Arms(simulator_arms.QUICKS[name])
    names = ("scan", "per_step", "gathered_scan", "padded_vmap", "sequential", "by_hand")
    found = {arm: leaves(other.make(arm)) for arm in names}
    start = [np.asarray(leaf) for leaf in jax.tree.leaves(other.weights)]
    simulator.agreement(found, start, other.sizes.optimizer)


def test_adam_is_optax_adam():
    rule, theirs = loops.adam(0.01), optax.adam(0.01)
    weights = ((np.ones((2, 3), np.float32), np.zeros(3, np.float32)),)
    mine, memory, other, state = weights, rule.begin(weights), weights, theirs.init(weights)
    for step in range(5):
        grads = jax.tree.map(lambda w, step=step: np.cos(w + step).astype(np.float32), weights)
        mine, memory = rule.move(mine, grads, memory)
        updates, state = theirs.update(grads, state, other)
        other = optax.apply_updates(other, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), mine, other)


@pytest.mark.parametrize("fault", ["one batch twice", "a batch left out", "nothing done", "not a number"])
def test_a_fault_in_one_loop_is_seen(arms, start, fault):
    index = arms.index.copy()
    good = leaves(arms.make("scan"))
    if fault == "one batch twice":
        index[3] = index[2]
    if fault == "a batch left out":
        index = index[:-1]
    bad = [np.asarray(x) for layer in loops.scan(RULE)(arms.weights, arms.x, arms.y, index) for x in layer]
    bad = {"nothing done": start, "not a number": [leaf * np.nan for leaf in bad]}.get(fault, bad)
    with pytest.raises(ValueError, match=r"weights of 'unroll_4' within .* of those of 'scan'"):
        simulator.check("centralised", {"scan": good, "unroll_4": bad}, "scan", start)


@pytest.mark.parametrize("fault", ["another round's batches", "a site left out", "no weights by rows"])
def test_a_fault_in_a_round_is_seen(arms, start, fault):
    """The engine's round against sites that went through other batches, or were averaged otherwise."""
    step, (index, first, steps) = loops.per_step(RULE), (arms.index, arms.first, arms.steps)
    if fault == "a site left out":
        first, steps = first[:-1], steps[:-1]
    if fault == "another round's batches":
        program = arms.program()
        (index,), (first,), (steps,) = program.draws(program.deal(arms.cohort(3)), 3)
        index, first, steps = index[0], first[0], steps[0]
    if fault == "no weights by rows":
        alone = [
            loops.averaged(step, arms.weights, arms.x, arms.y, index, [at], [count])
            for at, count in zip(first, steps, strict=True)
        ]
        by_hand = [np.mean(leaf, 0) for leaf in zip(*alone, strict=True)]
    else:
        by_hand = loops.averaged(step, arms.weights, arms.x, arms.y, index, first, steps)
    with pytest.raises(ValueError, match=r"weights of 'sequential' within"):
        simulator.check("rounds", {"by_hand": by_hand, "sequential": leaves(arms.make("sequential"))}, "by_hand", start)


def test_another_cohort_compiles_nothing(arms):
    round = arms.make("sequential")
    round()
    before = arms.compiled
    round(simulator_arms.OTHER_ROUND)
    assert arms.compiled == before > 0


def test_site_sizes_are_those_of_the_issue():
    rows = simulator_arms.site_rows(simulator_arms.Sizes())
    assert len(rows) == 1000 and rows.min() >= 1 and 90 < rows.mean() < 110 and rows.max() > 10 * np.median(rows)


@pytest.mark.soak
def test_quick_run_prints_one_line(root, tmp_path):
    out = tmp_path / "lines.jsonl"
    command = [sys.executable, "-m", "benchmarks.simulator", "--quick", "--repeats", "3", "--out", str(out)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1 and json.loads(out.read_text()) == line
    assert line["inputs"] == "synthetic" and line["n"] == 3 and line["compiled_again"] == 0
    assert set(line["best_loop"].values()) <= set(simulator.CENTRALISED)
    assert set(line["ratio_to_best_loop"]) == set(simulator.ROUNDS)
    for arm in line["arms"].values():
        assert {"wall_s", "cpu_s", "first_s", "threads", "devices"} <= set(arm)
        assert arm["wall_s"]["q1"] <= arm["wall_s"]["median"] <= arm["wall_s"]["q3"]
    assert str(root) not in done.stdout


# ---- common


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20))
def test_summary_is_numpys_quartiles(values):
    found = common.summary(values)
    assert list(found.values()) == pytest.approx(np.percentile(values, [50, 25, 75]), rel=1e-3)


@given(st.integers(1, 9), st.integers(0, 5))
def test_interleave_runs_each_arm_once_a_repeat(repeats, seed):
    order: list[str] = []
    arms = {name: lambda name=name: order.append(name) or {"wall_s": 1.0, "cpu_s": 1.0} for name in "abc"}
    found = common.interleave(arms, repeats, seed)
    assert all(len(found[name]) == repeats for name in "abc")
    assert all(sorted(order[k : k + 3]) == ["a", "b", "c"] for k in range(0, len(order), 3))


def test_timed_sees_a_sleep_in_wall_time_alone():
    measured, result = common.timed(lambda: time.sleep(0.2) or "done")
    assert result == "done" and measured["wall_s"] >= 0.2 > measured["cpu_s"]


def test_ratio_is_of_medians():
    a = [{"wall_s": x, "cpu_s": 2 * x} for x in (1.0, 2.0, 9.0)]
    b = [{"wall_s": 1.0, "cpu_s": 1.0}] * 3
    assert common.ratio(a, b)["wall"]["ratio"] == 2.0 and common.ratio(a, b)["cpu"]["ratio"] == 4.0


def test_a_process_that_dies_is_an_error_with_its_status():
    process = common.Process("benchmarks.no_such_module", [], 1, 1)
    with pytest.raises((RuntimeError, BrokenPipeError)):
        process.ask({"do": "describe"})
        process.ask({"do": "describe"})
    process.close()


def test_machine_names_nobody():
    import platform

    assert platform.node() not in json.dumps(common.machine()) or not platform.node()
