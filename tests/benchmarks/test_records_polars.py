"""Two ways from files to features must agree, and the one by hand is by hand. No time is asserted."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys

import pytest

from benchmarks import population, records_polars


def test_the_arm_by_hand_shares_no_code_with_the_package(root):
    tree = ast.parse((root / "benchmarks" / "polars_by_hand.py").read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    ours = {name for name in names if name.partition(".")[0] not in {"polars", "__future__"} | sys.stdlib_module_names}
    assert ours == set()


@pytest.mark.parametrize("name", records_polars.SAME)
def test_arms_that_differ_end_the_run(name):
    found: dict[str, int] = dict.fromkeys(records_polars.SAME, 1)
    records_polars.agree("meds", found, found)
    with pytest.raises(SystemExit, match=f"meds: expected the same of both arms, got another {name}"):
        records_polars.agree("meds", found, {**found, name: 2})


def test_both_doors_give_one_digest_which_a_day_or_a_value_changes(tmp_path):
    people = population.make(150, seed=3)
    population.to_meds(people, tmp_path / "meds")
    population.to_omop(people, tmp_path / "omop", "parquet")
    meds, omop = (records_polars.ours(str(tmp_path / door)) for door in records_polars.DOORS)
    records_polars.agree("both", meds, omop)
    assert meds["index"] > 100 and meds["features"] == 24
    rows = [("a", 1.0, None), ("b", 2.0, 3.0)]
    assert records_polars.digest(rows) == records_polars.digest(rows[::-1])
    assert len({records_polars.digest(r) for r in (rows, [("a", 1.0, 0.0), rows[1]], [("a", 1.1, None), rows[1]])}) == 3


def test_a_python_without_polars_is_a_line(root, tmp_path):
    (tmp_path / "polars.py").write_text("raise ImportError('none')\n")
    command = [sys.executable, "-m", "benchmarks.polars_by_hand"]
    environment = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.strip().startswith("expected polars: name a Python that has it")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(importlib.util.find_spec("polars") is None, reason="polars is not installed")
def test_a_small_run_prints_one_line_of_arms_that_agree(root):
    command = [sys.executable, "-m", "benchmarks.records_polars", "--patients=300", "--repeats=2"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert set(line["doors"]) == {"meds", "omop"} and line["n"] == 2
