"""All arms of the table predict the same cells and are scored alike; planted faults are seen. No time is asserted."""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import protein_by_hand as by_hand
from benchmarks import protein_peers as peers
from learner_jax.data import samples
from learner_jax.data.cells_files import read_cells

SETTING = {"learning_rate": 1e-3, "average": 0.0, "dropout": 0.0, "rounds": 1, "components": 30, "batch_size": 64}


@pytest.fixture(scope="module")
def sample(root):
    return str(root / "learner_jax" / "samples" / "pbmc10k_cite_2000.h5ad")


@pytest.mark.parametrize("file", ["protein_by_hand.py", "protein_loops.py"])
def test_the_arms_by_hand_share_no_code_with_the_package(root, file):
    tree = ast.parse((root / "benchmarks" / file).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert not {name.partition(".")[0] for name in names} & {"learner_jax", "benchmarks"}


@given(st.integers(3, 40), st.integers(1, 5), st.integers(0, 99))
def test_scores_equal_scipys_and_scikit_learns(rows, proteins, seed):
    from scipy.stats import pearsonr
    from sklearn.metrics import root_mean_squared_error

    draw = np.random.default_rng(seed)
    y = draw.normal(size=(rows, proteins))
    told = y + draw.normal(size=y.shape)
    found = peers.scores(told, y)
    assert found["r"] == pytest.approx([pearsonr(told[:, c], y[:, c])[0] for c in range(proteins)], abs=1e-9)
    assert found["rmse"] == pytest.approx(root_mean_squared_error(y.ravel(), told.ravel()))
    assert peers.scores(np.ones_like(y), y)["pearson"] == 0.0


@pytest.mark.parametrize("plant", [None, "shuffled"])
def test_both_kinds_of_arms_start_from_the_same_cells(sample, plant):
    theirs, (test, sites) = by_hand.read(sample, plant), peers.split(read_cells(sample), "protein_cluster", plant)
    names = np.asarray(theirs.adata.obs_names)
    assert list(test.obs.index) == list(names[theirs.test]) and len(test) == 400
    assert sorted(name for site in sites.values() for name in site.obs.index) == sorted(names[theirs.train])
    counts = dict(zip(names, theirs.counts, strict=True))
    for cells in (test, *sites.values()):
        mine = cells.panel(theirs.proteins)[0]
        assert np.array_equal(mine, np.array([counts[name] for name in cells.obs.index]))
    measured = by_hand.read(sample).counts
    assert np.array_equal(theirs.counts[theirs.test], measured[theirs.test])
    assert np.array_equal(theirs.counts, measured) == (plant is None)


WHOLE = "singlecell/pbmc10k_protein_v3.h5ad"


@pytest.mark.skipif(samples.find(WHOLE) is None, reason=samples.not_there(WHOLE))
def test_the_split_of_the_whole_file_is_the_published_one():
    from benchmarks.proteins import skewed

    file = samples.find(WHOLE)
    assert file is not None
    cells = read_cells(file)
    (test, sites), (expected, others) = peers.split(cells, "cell_type"), skewed(cells, 0)
    assert len(test) == 1371 and list(test.obs.index) == list(expected.obs.index)
    assert [len(site) for site in sites.values()] == [2905, 435, 1904, 240]
    assert all(list(sites[name].obs.index) == list(others[name].obs.index) for name in others)


@pytest.mark.soak
def test_shuffled_proteins_are_seen_in_an_arm_of_each_kind(sample, monkeypatch):
    monkeypatch.setattr(peers, "PENALTIES", (1.0,))
    setting = {**SETTING, "hidden": ()}

    def both(plant):
        split = by_hand.read(sample, plant)
        theirs = by_hand.ridge(split, 0)["ridge"]
        mine = peers.ours("federated_ridge", sample, setting, 0, "protein_cluster", plant)
        assert mine["y"] == pytest.approx(by_hand.clr(split.counts[split.test]), abs=1e-9)
        return [peers.scores(told, mine["y"])["pearson"] for told in (theirs, mine["told"])]

    assert min(both(None)) > 0.75
    assert max(both("shuffled")) < 0.2


@pytest.mark.parametrize("name", peers.SAME)
def test_arms_that_differ_end_the_run(name):
    said: dict[str, str] = dict.fromkeys(peers.SAME, "a")
    peers.agree({"ridge": [said], "federated": [said, said]})
    with pytest.raises(SystemExit, match=f"federated: expected the same as of ridge, got another {name}"):
        peers.agree({"ridge": [said], "federated": [said, {**said, name: "b"}]})


def test_another_value_or_name_is_another_digest():
    y = np.array([[0.5, 1.0]])
    first = by_hand.about(["CD3", "CD4"], ["c1"], y)
    assert first == by_hand.about(["CD3", "CD4"], ["c1"], y + 1e-13)
    assert first["measured_sha256"] != by_hand.about(["CD3", "CD4"], ["c1"], y + 1e-6)["measured_sha256"]
    assert first["test_sha256"] != by_hand.about(["CD3", "CD4"], ["c2"], y)["test_sha256"]


def test_a_python_without_scvi_is_told_in_the_line_and_the_others_go_on(root, sample, tmp_path):
    (tmp_path / "scvi.py").write_text("raise ImportError('none')\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    command = [sys.executable, "-m", "benchmarks.protein_peers", f"--file={sample}", "--seeds=1", "--arms=mean,totalvi"]
    done = subprocess.run([*command, f"--totalvi_python={python}"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert list(line["arms"]) == ["mean"] and line["arms"]["mean"]["pearson"]["mean"] == 0
    assert line["not_run"]["totalvi"].startswith("expected the packages of arm totalvi in")
    assert str(root) not in json.dumps(line["file"]) and line["n"] == 1


def test_an_arm_of_another_name_is_refused(sample):
    with pytest.raises(SystemExit, match=r"expected arms among mean, ridge, .* got seurat"):
        peers.main([f"--file={sample}", "--arms=seurat"])


def test_the_command_of_each_arm_is_one_that_its_process_takes(sample, tmp_path):
    given = peers.parser_of().parse_args([f"--file={sample}", "--plant=shuffled", "--totalvi_epochs=3", "--hidden=8,4"])
    for arm in (*by_hand.ARMS, *peers.OURS):
        command = peers.command_of(arm, given, 1, tmp_path / "told.npz")
        assert command[:2] == [sys.executable, "-m"] and "--plant=shuffled" in command and "--seed=1" in command
        if arm in peers.OURS:
            again: argparse.Namespace = peers.parser_of().parse_args(command[3:])
            assert again.one == arm and peers.setting_of(again) == peers.setting_of(given)


@pytest.mark.soak
def test_a_quick_run_prints_one_line_of_arms_that_agree(root, sample):
    command = [
        sys.executable,
        "-m",
        "benchmarks.protein_peers",
        f"--file={sample}",
        "--types=protein_cluster",
        "--quick",
    ]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert set(line["arms"]) == {"mean", "ridge", "knn", "mlp", "federated", "pooled", "federated_ridge"}
    exact, ridge = (line["arms"][name]["pearson"]["mean"] for name in ("federated_ridge", "ridge"))
    assert exact == pytest.approx(ridge, abs=0.03)
