"""Benchmarks run as their first lines say, at sizes at which their figures mean nothing. No time is asserted."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import devices


def line(root, module: str, *more: str) -> dict:
    command = [sys.executable, "-m", f"benchmarks.{module}", "--quick", *more]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_aggregation_adds_up_to_the_same(root):
    told = line(root, "aggregation")
    assert told["same_sums"] and told["found"]["one thread"]["4"]["gb_per_s"].keys() == {"reducer", "numpy", "jnp"}


@pytest.mark.soak
def test_keeping_a_run_ends_in_the_same_weights_also_after_a_kill(root):
    told = line(root, "checkpoints")
    assert told["same_weights"] and told["killed"]["went_on_from"] <= told["killed"]["killed_in_round"]


@pytest.mark.soak
def test_rounds_in_one_call_end_in_the_same_weights(root):
    told = line(root, "fused")
    assert told["same_weights"] and {"nothing_1", "kept_64"} <= told["round_s"].keys()


@pytest.mark.soak
@pytest.mark.parametrize("work", ["few", "many"])
def test_rows_that_do_not_fit_end_in_the_same_weights(root, work):
    told = line(root, "streaming", f"--work={work}")
    assert told["same_weights"] and told["sizes"]["bytes"] >= 4 * told["sizes"]["allowed"]
    assert told["unpack_bytes_s"].keys() == {"zarr", "parquet"}


@pytest.mark.soak
def test_a_second_device_and_a_second_process_change_nothing(root):
    told = line(root, "devices")
    assert max(told["apart_in_float64"].values()) <= devices.SAME and not any(told["compiled_in_them"].values())
    assert told["round_s"].keys() == devices.ARMS.keys() and told["different_numbers_of_steps"] > 5


def test_weights_that_differ_in_the_ninth_digit_end_the_benchmark_of_devices():
    start, one = [np.zeros(3)], [np.array([1.0, 2.0, 3.0])]
    assert devices.held({"one": one, "devices_2": [one[0] + 1e-10]}, start)["devices_2"] < devices.SAME
    with pytest.raises(ValueError, match=r"weights of 'processes_2' within 1e-09 of those of 'one', got"):
        devices.held({"one": one, "processes_2": [one[0] * (1 + 1e-8)]}, start)


@pytest.mark.soak
def test_the_first_result_comes(root):
    told = line(root, "first_result")
    assert {"cold", "warm"} == told["until"]["readmission"].keys()


@pytest.mark.soak
def test_the_device_check_tells_of_every_work(root):
    told = line(root, "device_check")
    assert told["works"].keys() == {"W1", "W2", "W3", "W4"} and told["parity"]["same_bits"] == told["parity"]["rounds"]
