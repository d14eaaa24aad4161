"""Sites' states on the disk: the same study, to the bit; killed at any moment it goes on to the same end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import Any
from unittest import mock

import numpy as np
import optax
import pytest

import learner_jax as lr
from learner_jax import trees
from learner_jax.engines import shelved
from learner_jax.errors import ConfigError, StudyError
from learner_jax.models import mlp
from learner_jax.storage.shelf import Shelf

ROUNDS = 9


def sites() -> dict[str, Any]:
    draw, out = np.random.default_rng(0), {}
    for k, rows in enumerate((30, 12, 45, 8, 26, 17, 40, 21)):
        x = draw.normal(loc=0.2 * k, size=(rows, 4)).astype(np.float32)
        out[f"site-{k}"] = (x, (x[:, 0] + draw.normal(size=rows) > 0.3 * k).astype(np.float32))
    return out


def run(folder: Any = None, states_mib: int | None = None, on_event: Any = None, **fields: Any) -> lr.Run:
    engine = {"plan": "sequential", "states_mib": states_mib} | fields.pop("engine", {})
    fields = {"rounds": ROUNDS, "algorithm": lr.scaffold(local_lr=0.05), "references": ()} | fields
    return lr.simulate(
        lr.Task(mlp(hidden=(5,)), optax.sigmoid_binary_cross_entropy, (lr.auroc,)), sites=sites(), workdir=folder,
        target="valid/auroc", batch_size=8, cohort=3, engine=lr.Engine(**engine),
        on_event=on_event or (lambda event: None), **fields,
    )  # fmt: skip


def same(found: lr.Run, expected: lr.Run) -> None:
    assert found.result["weights_sha256"] == expected.result["weights_sha256"]
    for one, other in zip(found.result["curve"], expected.result["curve"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    leaves = (trees.named_leaves(each.model.weights) for each in (found, expected))
    for one, other in zip(*(each.values() for each in leaves), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.result["evaluation"] == expected.result["evaluation"]


@pytest.fixture(scope="module")
def in_memory() -> lr.Run:
    return run()


@pytest.mark.parametrize("kept", [False, True])
def test_a_study_whose_states_lie_on_the_disk_is_the_same(kept, in_memory, tmp_path):
    made, real = [], Shelf.__init__
    with mock.patch.object(Shelf, "__init__", lambda self, *given: (made.append(given[1]), real(self, *given))[1]):
        same(run(tmp_path / "run" if kept else None, 0), in_memory)
    assert made == [8]


def test_a_look_reads_some_states_at_a_time(in_memory):
    for many in (1, 3):
        with mock.patch.object(shelved, "_LOOK", many * 125):  # bytes of a state, of which the last look has two
            same(run(None, 0), in_memory)


@pytest.mark.soak
@pytest.mark.parametrize("plan", [{"plan": "streams", "streams": 2}, {"plan": "lanes", "lanes": 2}])
def test_on_several_devices_and_lanes_it_is_what_it_is_in_memory(plan):
    same(run(None, 0, engine=plan), run(None, None, engine=plan))


def test_states_that_fit_stay_in_memory_and_a_method_without_any_has_no_file(tmp_path):
    with mock.patch.object(shelved, "Shelf", side_effect=AssertionError):
        run(None, 1, rounds=2)
        run(tmp_path / "run", 0, rounds=2, algorithm=lr.fedavg(local_lr=0.05))


@pytest.mark.parametrize("end", [KeyboardInterrupt, MemoryError])  # the first saves the newest round on its way out
def test_a_run_that_ended_early_goes_on(end, in_memory, tmp_path):
    def ending(event):
        if event.kind == "round_closed" and event.round == 7:
            raise end

    checkpoint = lr.Checkpoint(every=4, wait=True)
    with pytest.raises(end):
        run(tmp_path / "run", 0, ending, checkpoint=checkpoint)
    same(run(tmp_path / "run", 0, checkpoint=checkpoint), in_memory)


def test_a_run_goes_on_where_its_states_lie_alone(tmp_path):
    def stopping(event):
        if event.kind == "round_closed" and event.round == 3:
            raise KeyboardInterrupt

    for begun, other in ((0, None), (None, 0)):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / str(begun), begun, stopping)
        with pytest.raises(StudyError, match=r"engine\.states_mib"):
            run(tmp_path / str(begun), other)


def test_rows_in_blocks_and_states_on_the_disk_are_refused_together():
    big = {name: (np.tile(x, (1, 2500)), y) for name, (x, y) in sites().items()}
    with pytest.raises(ConfigError, match=r"engine\.states_mib: expected at least 2, .*rows come in blocks"):
        lr.simulate(
            lr.Task(mlp(hidden=(5,)), optax.sigmoid_binary_cross_entropy, ()), sites=big, rounds=1, references=(),
            algorithm=lr.scaffold(local_lr=0.05), engine=lr.Engine(rows_mib=1, states_mib=0),
        )  # fmt: skip


PROGRAM = """
import sys
from tests.engines.test_shelved import run
print(run(sys.argv[1], 0, lambda event: print(event.kind, event.round, flush=True), rounds=40).result["weights_sha256"])
"""


@pytest.mark.soak
def test_killed_at_any_moment_it_goes_on_to_the_same_weights(tmp_path, root):
    expected = run(None, rounds=40).result["weights_sha256"]
    script, draw = tmp_path / "program.py", np.random.default_rng(1)
    script.write_text(textwrap.dedent(PROGRAM))
    environment = {**os.environ, "PYTHONPATH": str(root), "NPROC": "1", "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    command, killed = [sys.executable, str(script), str(tmp_path / "run")], 0
    for _ in range(12):
        with subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = int(draw.integers(3, 12))
            last = [line for _, line in zip(range(lines), process.stdout, strict=False)]
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -9 and len(last) == lines
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert killed >= 3 and done.stdout.splitlines()[-1] == expected
