"""A round of ridge ends on two host devices, as plan "auto" has it on a machine of two cores."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

RUN = """
import numpy as np
import learner_jax as lr
from learner_jax.data.simulated_cells import simulated_cells
cells = simulated_cells(sites=2, cells=300, genes=200, proteins=3)
run = lr.simulate(
    lr.Study(name="p", task=lr.proteins(panel=cells["s00"].proteins, components=10), model=lr.protein_net(hidden=()),
             algorithm=lr.ridge(), rounds=1, target="valid/pearson", references=()), sites=cells)
print(run.result["rounds"])
"""


@pytest.mark.soak
def test_a_round_of_ridge_ends_on_two_host_devices():
    environment = {**os.environ, "NPROC": "1", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    ran = subprocess.run(
        [sys.executable, "-c", RUN], capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["1"]
