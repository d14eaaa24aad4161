"""The rounds that are timed are the same work as the plain loop's; planted faults are seen. No time is asserted."""

from __future__ import annotations

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import protein_loops as loops
from benchmarks import protein_scale
from benchmarks import protein_scale_arms as scale

ASKED = {
    "cells": 1600, "sites": 4, "genes": 60, "proteins": 5, "components": 10, "hidden": "16,8", "rounds": 2,
    "dropout": 0.0, "batch_size": 32, "plant": None,
}  # fmt: skip


def rows_of(folder, asked):
    from learner_jax.build import build

    scale.write(folder, asked)
    checklist = build(scale.study_of(asked, 0.0)).task.checklist
    fitted, rows = scale.encode(checklist, folder, scale.Clock())
    scale.keep_rows(folder, rows)
    return checklist, fitted, rows


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    return folder, *rows_of(folder, ASKED)


@pytest.fixture(scope="module")
def arms(made):
    return scale.OneCore(ASKED, made[0])


def test_one_laboratory_at_a_time_gives_the_rows_of_all_at_once(made):
    from learner_jax.data.cells_files import read_cells
    from learner_jax.data.sites import encode_sites

    folder, checklist, fitted, rows = made
    cells = {file.stem: read_cells(file) for file in folder.glob("*.h5ad")}
    whole, expected = encode_sites(checklist, cells)
    assert whole == fitted and list(expected) == list(rows)
    for name, site in scale.kept_rows(folder).items():
        for one in (rows[name], expected[name]):
            assert np.array_equal(site.rows["x"], one.rows["x"]) and np.array_equal(site.split, one.split)
            assert all(np.array_equal(site.rows["y"][part], one.rows["y"][part]) for part in ("value", "seen"))


def test_sites_differ_in_size_and_add_up():
    found = scale.site_cells(1_000_000, 20)
    assert sum(found) == 1_000_000 and len(found) == 20 and max(found) > 3 * min(found) > 3000


def test_the_loops_network_and_loss_are_the_packages(arms):
    part = arms.parts[0.0]
    params = jax.tree.map(lambda leaf: leaf + 0.1 * np.random.default_rng(leaf.size).normal(size=leaf.shape),
                          arms.start["params"])  # fmt: skip
    rows = jax.tree.map(lambda column: column[:7], arms.world.rows)
    output, _ = part.model.apply(params, {}, rows, None, False)
    found = loops.forward(scale.by_hand(params), rows["x"], jax.random.key(0), 0.0)
    for name, mine in zip(("mean", "low", "mid", "high"), found, strict=True):
        assert np.asarray(mine) == pytest.approx(np.asarray(output[name]), abs=1e-5)
    mask = np.arange(7) < 5
    each = np.asarray(part.task.loss(output, rows["y"]))[mask]
    mine = loops.loss(scale.by_hand(params), rows["x"], rows["y"]["value"], mask, jax.random.key(0), 0.0)
    assert float(mine) == pytest.approx(each.mean(), rel=1e-5)


def test_the_loops_dropout_drops_its_share_and_keeps_the_mean():
    """One hidden layer that copies ones, a head that sums it: 1,000 units, each kept by 0.7 and divided by it."""
    ones = np.ones((1, 1), np.float32)
    weights = {
        "layers": ((np.ones((1, 1000), np.float32), np.zeros(1000, np.float32)),),
        "head": (np.ones((1000, 4, 1), np.float32), np.zeros((4, 1), np.float32)),
        "skip": (np.zeros((1, 4, 1), np.float32), np.zeros((4, 1), np.float32)),
    }
    (mean, *_) = loops.forward(weights, ones, jax.random.key(0), 0.3)
    assert float(mean[0, 0]) == pytest.approx(1000, rel=0.1) and float(mean[0, 0]) % (1 / 0.7) == pytest.approx(
        0, abs=0.1
    )


def test_a_round_is_that_of_sites_trained_alone_and_averaged(arms):
    assert arms.agreement()["apart"] < 1e-4


@pytest.mark.parametrize("fault", ["a batch left out", "a site left out", "shuffled proteins", "one Adam", "a number"])
def test_a_fault_in_the_round_is_seen(arms, fault):
    index, first, steps = arms.plan()
    start, x, y = scale.by_hand(arms.start["params"]), arms.world.rows["x"], arms.world.rows["y"]["value"]
    if fault == "a batch left out":
        steps = steps - np.eye(len(steps), dtype=steps.dtype)[0]
    if fault == "a site left out":
        first, steps = first[:-1], steps[:-1]
    if fault == "shuffled proteins":
        y = y[np.random.default_rng(1).permutation(len(y))]
    if fault == "one Adam":
        hand = jax.tree.leaves(loops.scan(scale.LR, 0.0)(start, x, y, index))
    else:
        hand = loops.averaged(start, x, y, index, first, steps, scale.LR)
    ours = jax.tree.leaves(scale.by_hand(arms.arm(0.0, False)()))
    if fault == "a number":
        ours = [np.asarray(leaf) * np.nan for leaf in ours]
    with pytest.raises(ValueError, match=r"expected the round's weights within 0\.01 of those by hand, got"):
        scale.check(ours, hand, jax.tree.leaves(start))


def test_the_look_at_validation_cells_changes_no_weight(arms):
    with_look, without = (jax.tree.leaves(arms.arm(0.0, look)()) for look in (True, False))
    assert all(np.array_equal(a, b) for a, b in zip(with_look, without, strict=True))


def test_the_plain_process_takes_what_the_other_left(arms, made):
    told = arms.describe()
    plain = scale.Plain(ASKED, made[0])
    assert plain.time("loop")["wall_s"] > 0 and plain.run is not None
    mine = loops.scan(scale.LR, 0.0)(
        scale.by_hand(arms.start["params"]), arms.world.rows["x"], arms.world.rows["y"]["value"], arms.plan()[0]
    )
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(plain.run()), jax.tree.leaves(mine), strict=True))
    assert told["training_cells"] == sum(len(train) for train in arms.world.train)


def test_shuffled_proteins_are_seen_in_the_cells_themselves(made, tmp_path):
    """Least squares from scores to proteins, by numpy: what rounds could learn is there, and not under the plant."""

    def r(rows):
        found = []
        for site in rows.values():
            x = np.c_[np.ones(len(site.split)), site.rows["x"]].astype(np.float64)
            y = site.rows["y"]["value"].astype(np.float64)
            train = site.split == 0
            told = x[~train] @ np.linalg.lstsq(x[train], y[train], rcond=None)[0]
            found += [np.corrcoef(told[:, c], y[~train, c])[0, 1] for c in range(y.shape[1])]
        return np.mean(found)

    assert r(made[3]) > 0.3
    assert r(rows_of(tmp_path, {**ASKED, "plant": "shuffled"})[2]) < 0.1


@pytest.mark.soak
def test_a_quick_run_prints_one_line(root, tmp_path):
    out = tmp_path / "lines.jsonl"
    command = [sys.executable, "-m", "benchmarks.protein_scale", "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1 and json.loads(out.read_text()) == line and line["synthetic"]
    (found,) = line["by_cells"].values()
    assert set(found["arms"]) == set(protein_scale.HOME) and found["agreement"] < scale.TOLERANCE
    assert found["study"]["rounds"] == 2 and found["study"]["peak"] >= found["files"]["peak"] > 0
