"""A peer's round is let in only with the weights of the same work. Stand-in peers: none is installed. No time told."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import common, loops, peer_work, simulator_arms, simulator_peers

STAND_IN = """
import sys
import numpy as np
from benchmarks import peer_work

laps = peer_work.Laps()

def fedavg(file):
    work = peer_work.read(file)
    total, counts = [np.zeros(leaf.shape) for leaf in work.start], peer_work.row_counts(work)
    for site, count in enumerate(counts):
        kernel, bias = (leaf.astype(np.float64) for leaf in work.start)
        for rows in peer_work.batches(work, site):
            x, logits = work.x[rows], work.x[rows] @ kernel + bias
            chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            chances[np.arange(len(rows)), work.y[rows]] -= 1
            kernel, bias = kernel - work.lr * x.T @ chances / len(rows), bias - work.lr * chances.mean(0)
        for sum_, leaf in zip(total, (kernel, bias)):
            sum_ += leaf * count / counts.sum()
    print("what a peer prints is no answer")
    return total

def job(file):
    def run(rounds):
        laps.rounds.clear()
        for _ in range(rounds):
            laps.begin()
            leaves = fedavg(file)
            laps.end()
        return leaves, list(laps.rounds)
    return peer_work.Job(run)

def fails(file):
    raise ValueError("expected fewer sites")

arms = {
    "good": lambda file: lambda: fedavg(file),
    "job": job,
    "fails": fails,
    "ends": lambda file: sys.exit(3),
    "off": lambda file: lambda: [leaf * 1.01 for leaf in fedavg(file)],
}
peer_work.main(arms, ["numpy"], laps if sys.argv[1] == "job" else None)
"""


class Here(common.Process):
    """Ours in this process instead of one of its own: jax has started here, with two devices."""

    def __init__(self, arguments):
        name = next(part.partition("=")[2] for part in arguments if part.startswith("--work="))
        self._answer = simulator_arms.answer_for(simulator_arms.QUICKS[name], time.perf_counter())

    def ask(self, question):
        return json.loads(json.dumps(self._answer(dict(question))))

    def close(self):
        pass


@pytest.fixture(autouse=True)
def here(monkeypatch):
    begin = simulator_peers.open_process

    def opened(module, arguments, *more):
        return Here(arguments) if module == "benchmarks.simulator" else begin(module, arguments, *more)

    monkeypatch.setattr(simulator_peers, "open_process", opened)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs arms of the stand-in, on the tiny logistic regression."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def run(*arms, jobs=False, python=sys.executable):
        peers = {"numpy": simulator_peers.Peer("stand_in", ("numpy",), dict.fromkeys(arms, 1), jobs)}
        return simulator_peers.run("W3", simulator_arms.QUICKS["W3"], 2, 3, ["--work=W3"], {"numpy": python}, peers)

    return run


def test_quick_run_without_peers_is_one_line_that_leaves_all_out(capsys, tmp_path):
    simulator_peers.main(["--quick", "--work=W3", f"--out={tmp_path / 'lines.jsonl'}"])
    out = capsys.readouterr().out
    line = json.loads(out)
    assert out.count("\n") == 1 and json.loads((tmp_path / "lines.jsonl").read_text()) == line
    assert line["not_run"] == {name: f"no Python was named by --{name}_python" for name in simulator_peers.PEERS}
    assert set(line["arms"]) == set(simulator_peers.OURS) and set(line["ratio_to_ours"]) == {"scan"}
    for arm in line["arms"].values():
        assert {"wall_s", "cpu_s", "first_s", "start_up_s", "peak", "cores"} <= set(arm)
        assert arm["wall_s"]["q1"] <= arm["wall_s"]["median"] <= arm["wall_s"]["q3"]
    assert str(common.ROOT) not in out


def test_a_peer_is_compared_and_timed_in_its_own_process(run):
    line = run("good", "fails", "ends")
    assert line["arms"]["good"]["agreement"] < 1e-5
    assert line["arms"]["good"]["peak"] > 1e7 and line["versions"]["numpy"]["numpy"] == np.__version__
    assert line["ratio_to_ours"]["good"]["over"] == "sequential" and line["ratio_to_ours"]["good"]["wall"]["ratio"] > 0
    assert line["not_run"]["fails"] == "'fails' failed: ValueError: expected fewer sites"
    assert "ended with status 3" in line["not_run"]["ends"] and set(line["arms"]) == {*simulator_peers.OURS, "good"}
    assert "good was left out" not in "\n".join(simulator_peers.told(line))


def test_a_job_is_its_rounds_after_the_first(run):
    arm = run("job", jobs=True)["arms"]["job"]
    assert arm["timed"] == "rounds of a job" and arm["agreement"] < 1e-5 and arm["peak_of"].startswith("all its")
    rounds = [{"wall_s": s, "cpu_s": 2 * s} for s in (9.0, 1.0, 2.0, 4.0)]
    assert peer_work.median_round(rounds) == {"wall_s": 2.0, "cpu_s": 4.0}


def test_a_peer_that_does_other_work_ends_the_run(run):
    with pytest.raises(ValueError, match=r"weights of 'off' within .* of those of 'by_hand'"):
        run("good", "off")


@pytest.mark.parametrize("python", [None, "no/such/python", "false"])
def test_a_python_that_does_not_do_is_told(python):
    why = simulator_peers.missing(python, simulator_peers.PEERS["torch"], "torch_python")
    assert why and ("--torch_python" in why) == (python is None)


@pytest.mark.parametrize("fault", ["disturbed", "nothing done", "not a number", "transposed", "no weights by rows"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_weights_of_other_work_are_refused(fault, optimizer):
    rng = np.random.default_rng(0)
    start = [rng.normal(size=shape).astype(np.float32) for shape in ((6, 3), (3,))]
    sites = [[leaf + 0.1 * rng.normal(size=leaf.shape) for leaf in start] for _ in range(2)]
    by_hand = [0.25 * a + 0.75 * b for a, b in zip(*sites, strict=True)]
    good = [leaf.astype(np.float32) for leaf in by_hand]
    bad = {
        "disturbed": [leaf + 0.05 for leaf in good],
        "nothing done": start,
        "not a number": [leaf * np.nan for leaf in good],
        "transposed": [good[0].T, good[1]],
        "no weights by rows": [(a + b) / 2 for a, b in zip(*sites, strict=True)],
    }[fault]
    leaves = {"by_hand": by_hand, "scan": by_hand, "sequential": good, "torch_centralised": good}
    assert set(simulator_peers.agreement(leaves, start, optimizer)) == {"sequential", "torch_centralised"}
    for arm in ("flower", "torch_centralised"):
        with pytest.raises(ValueError, match=rf"weights of .*'{arm}'"):
            simulator_peers.agreement({**leaves, arm: bad}, start, optimizer)


# ---- what peers share


@settings(max_examples=25)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 4))
def test_the_work_comes_back_as_it_was_written(tmp_path_factory, counts, size):
    steps = np.asarray([-(-count // size) for count in counts], np.int32)
    index, row = np.full((steps.sum(), size), -1, np.int32), 0
    first = np.concatenate([[0], np.cumsum(steps)[:-1]]).astype(np.int32)
    for at, count in zip(first, counts, strict=True):
        index[at:].reshape(-1)[:count] = np.arange(row, row + count)
        row += count
    x = np.arange(2 * row, dtype=np.float32).reshape(row, 2)
    work = peer_work.Work(x, np.zeros(row, np.int32), index, first, steps, (np.ones((2, 3)), np.ones(3)), 0.1, "adam")
    folder = tmp_path_factory.mktemp("work")
    peer_work.write(folder / "work.npz", work)
    peer_work.spread(folder, work)
    for read in (peer_work.read(folder / "work.npz"), peer_work.mapped(folder)):
        assert (read.lr, read.optimizer) == (0.1, "adam")
        pairs = [(getattr(work, name), getattr(read, name)) for name in peer_work.ARRAYS]
        for mine, theirs in (*pairs, *zip(work.start, read.start, strict=True)):
            assert np.array_equal(mine, theirs) and mine.dtype == theirs.dtype
        assert peer_work.row_counts(read).tolist() == counts
        orders = [peer_work.in_order(read, site) for site in range(len(counts))]
        assert np.array_equal(np.concatenate(orders), np.arange(row))


def test_a_short_round_has_the_first_two_batches_and_the_last():
    index = np.arange(9, dtype=np.int32)[:, None]
    first, steps = np.asarray([0, 5, 6, 8], np.int32)[:4], np.asarray([5, 1, 2, 1], np.int32)
    work = peer_work.Work(np.zeros((9, 1)), np.zeros(9), index, first, steps, (), 0.1, "adam")
    short = peer_work.shortened(work)
    found = [[int(rows[0]) for rows in peer_work.batches(short, site)] for site in range(4)]
    assert found == [[0, 1, 4], [5], [6, 7], [8]]


def test_a_short_round_with_adam_is_compared(tmp_path):
    arms, into = simulator_arms.Arms(simulator_arms.QUICKS["W2"]), tmp_path / "short.npz"
    files = {name: str(tmp_path / f"{name}.npz") for name in ("by_hand", "scan")}
    answer = simulator_arms.answer_for(simulator_arms.QUICKS["W2"], 0.0)
    answer({"do": "short", "into": str(into), **files})
    short = peer_work.read(into)
    again = loops.averaged(loops.per_step(loops.adam(short.lr)), arms.weights, short.x, short.y, short.index,
                           short.first, short.steps)  # fmt: skip
    with np.load(files["by_hand"], allow_pickle=False) as parts:
        leaves = [parts[name] for name in parts.files]
    start = list(short.start)
    assert simulator_peers.agreement({"by_hand": again, "scan": again, "torch": leaves}, start, "adam")["torch"] < 1e-6
    with pytest.raises(ValueError, match=r"weights of 'torch' within 0\.5"):
        simulator_peers.far({"by_hand": again, "torch": start}, start)


def test_batches_that_cutting_would_change_are_refused():
    index = np.asarray([[0, -1], [1, 2]], np.int32)
    work = peer_work.Work(np.zeros((3, 1)), np.zeros(3), index, np.asarray([0]), np.asarray([2]), (), 0.1, "sgd")
    with pytest.raises(ValueError, match="expected full batches before the last of site 0"):
        peer_work.in_order(work, 0)


def test_processes_of_an_arm_are_found_by_their_mark(monkeypatch):
    monkeypatch.setenv(peer_work.MARK, "one arm")
    before = peer_work.family_cpu_s()
    code = "import time; t = time.process_time()\nwhile time.process_time() < t + 0.3: pass\nprint(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()
        found, cpu, peak = peer_work.family(), peer_work.family_cpu_s() - before, peer_work.family_peak()
        child.stdin.write(b"\n")
    assert str(child.pid) in found and str(os.getppid()) not in found
    assert cpu >= 0.25 and peak > 1e6


def test_peers_import_nothing_of_ours_but_what_is_for_them(root):
    own = {
        "benchmarks.common",
        "benchmarks.loops",
        "benchmarks.peer_work",
        "benchmarks.peer_torch",
        "benchmarks.peer_nvflare",
    }
    theirs = {"torch", "jax", "optax", "fedjax", "drjax", "flwr", "nvflare", "pfl", "blazefl", "numpy"}
    files = [*(root / "benchmarks" / f"{peer.module.partition('.')[2]}.py" for peer in simulator_peers.PEERS.values())]
    for file in (*files, root / "benchmarks" / "peer_work.py"):
        tree, found = ast.parse(file.read_text()), set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module == "benchmarks":
                found |= {f"benchmarks.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
        tops = {name.partition(".")[0] for name in found - own} - set(sys.stdlib_module_names)
        assert tops <= theirs, file.name
