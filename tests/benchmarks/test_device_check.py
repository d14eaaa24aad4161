"""The script for machines with an accelerator runs, here on the CPU; and a word on when it was last run."""

from __future__ import annotations

import pytest

from benchmarks import device_check, simulator_arms


def test_workers_and_a_coordinator_give_the_simulators_bits_on_this_device():
    assert device_check.parity() == {"rounds": device_check.ROUNDS, "same_bits": device_check.ROUNDS}


@pytest.mark.parametrize("name", ["W2", pytest.param("W1", marks=pytest.mark.soak)])
def test_a_work_tells_its_plans_and_its_share_of_the_peak(name):
    told = device_check.work(name, simulator_arms.QUICKS[name], 2, 1e10)
    assert told["quickest_plan"] in told["ratio_to_best_loop"] and told["best_loop"] in device_check.LOOPS
    assert 0 < told["mfu"] < 1 and told["steps"] > 0


def test_engines_are_those_of_the_last_check_on_an_accelerator():
    """No fault: who changes them has perhaps no accelerator. It is said, so that nobody takes old figures for new."""
    last = device_check.last_line()
    if last is None:
        pytest.skip("`make device-check` was never run on an accelerator: no figure of a GPU or TPU is known")
    if last["engines"] != device_check.engines_digest():
        pytest.skip(f"engines changed since `make device-check` was run on {last['device']['kind']}: run it again")
