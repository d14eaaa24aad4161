"""What is set before jax starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from learner_jax.cli import environment
from learner_jax.specs import Engine, Spec, Study


def variables(cores: int = 4, one_site: bool = False, precision: str = "float32", **engine: Any) -> dict[str, str]:
    task = Spec("tasks", "t")
    study = Study(name="x", task=task, engine=Engine(**engine), precision=precision)  # type: ignore[arg-type]
    return environment.variables(study, cores, one_site)


def devices(found: dict[str, str]) -> int:
    return int(found["XLA_FLAGS"].rpartition("=")[2])


@pytest.mark.parametrize(
    ("engine", "count"),
    [
        ({}, 4),
        ({"plan": "streams"}, 4),
        ({"streams": 3}, 3),
        ({"plan": "streams", "streams": 8}, 8),
        ({"plan": "sequential"}, 1),
        ({"plan": "sequential", "streams": 3}, 1),
        ({"plan": "lanes"}, 1),
    ],
)
def test_a_host_device_for_each_stream(engine, count):
    assert devices(variables(**engine)) == count


def test_a_worker_has_one_device_and_else_what_the_simulator_has():
    engines: tuple[dict[str, Any], ...] = ({}, {"plan": "streams", "threads": 2}, {"plan": "sequential"})
    for engine in engines:
        alone, all_sites = variables(one_site=True, **engine), variables(**engine)
        assert devices(alone) == 1
        assert {**alone, "XLA_FLAGS": ""} == {**all_sites, "XLA_FLAGS": ""}
    assert environment.for_one_site() == variables(one_site=True)


def test_threads_platform_and_precision():
    assert variables()["NPROC"] == "1"
    assert variables(threads=2)["NPROC"] == "2"
    assert variables(plan="streams")["JAX_PLATFORMS"] == "cpu"
    assert "JAX_PLATFORMS" not in variables()
    assert variables(precision="float64")["JAX_ENABLE_X64"] == "1"
    assert "JAX_ENABLE_X64" not in variables()


def test_what_the_user_has_set_is_left_alone():
    new = variables(plan="streams")
    assert environment.merged(new, {}) == new
    assert environment.merged(new, {"NPROC": "3"}).get("NPROC") is None
    assert environment.merged(new, {"JAX_PLATFORMS": "tpu"}).get("JAX_PLATFORMS") is None
    flags = environment.merged(new, {"XLA_FLAGS": "--xla_dump_to=x"})["XLA_FLAGS"]
    assert flags == "--xla_dump_to=x --xla_force_host_platform_device_count=4"
    assert "XLA_FLAGS" not in environment.merged(new, {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"})


def test_cores_are_those_of_this_process():
    assert 1 <= environment.cores() <= (os.cpu_count() or 1)


def test_jax_starts_with_them(tmp_path):
    """A process of its own: what `learner simulate` sets on the way to its study is what jax then has."""
    program = """
import json, sys
from learner_jax.cli.main import _study
from learner_jax.cli import environment
from learner_jax.cli.flags import parse
environment.cores = lambda: 3
study = _study(parse(sys.argv[1:], ()))
import jax
print(json.dumps([len(jax.devices()), jax.config.jax_enable_x64, study.engine.plan]))
"""
    ours = ("XLA_FLAGS", "NPROC", "JAX_ENABLE_X64")
    environ = {name: value for name, value in os.environ.items() if name not in ours}
    line = ["--config=readmission", "--config.precision=float64", "--config.algorithm.local.b1=0.8"]
    for plan, count in (("streams", 3), ("sequential", 1)):
        done = subprocess.run(
            [sys.executable, "-c", program, *line, f"--config.engine.plan={plan}"],
            env={**environ, "JAX_PLATFORMS": "cpu"},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout.splitlines()[-1]) == [count, True, plan], done.stderr
