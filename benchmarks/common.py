"""What benchmarks share: the machine in words, timing, processes that take turns, medians, one JSON line a run.

Arms that need other threads or devices live in processes of their own, all started before the first timing. The parent
asks one arm at a time, in an order shuffled anew in each repeat, so that a slow minute of the machine falls on all.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent


def machine() -> dict[str, Any]:
    """Processor, cores, memory and system; no name, address or date."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    family = f" (family {found['cpu family']}, model {found['model']})" if "cpu family" in found else ""
    return found.get("model name", "unknown") + family


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of installed packages."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}


def timed(f: Callable[[], T]) -> tuple[dict[str, float], T]:
    """({"wall_s", "cpu_s"}, f()); f waits for its own result. CPU time is that of all threads of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = f()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"wall_s": wall, "cpu_s": cpu}, result


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    if len(values) < 2:
        return dict.fromkeys(("median", "q1", "q3"), rounded(values[0]))
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": rounded(median), "q1": rounded(q1), "q3": rounded(q3)}


def rounded(value: float) -> float:
    """Four significant digits: more is noise."""
    return float(f"{value:.4g}")


def interleave(
    arms: Mapping[str, Callable[[], dict[str, float]]], repeats: int, seed: int = 0
) -> dict[str, list[dict[str, float]]]:
    """Each arm once a repeat, in an order shuffled anew each time: name -> its measurements, by repeat."""
    order, shuffle = list(arms), random.Random(seed)
    out: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    for _ in range(repeats):
        shuffle.shuffle(order)
        for name in order:
            out[name].append(arms[name]())
    return out


def ratio(a: list[dict[str, float]], b: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """a / b in wall and CPU time: the medians' ratio, and median and quartiles of the ratios repeat by repeat."""
    out = {}
    for key in ("wall_s", "cpu_s"):
        over, under = [m[key] for m in a], [m[key] for m in b]
        paired = summary([x / y for x, y in zip(over, under, strict=True)])
        of_medians = rounded(statistics.median(over) / statistics.median(under))
        out[key.removesuffix("_s")] = {
            "ratio": of_medians,
            "paired": paired["median"],
            "q1": paired["q1"],
            "q3": paired["q3"],
        }
    return out


def median(measured: list[dict[str, float]], key: str) -> float:
    """Of "wall_s" or "cpu_s"."""
    return statistics.median(m[key] for m in measured)


class Process:
    """A module of benchmarks in a process of its own that answers JSON lines with JSON lines.

    Args:
      module: is run as `python -m module *arguments`.
      arguments: of the command line.
      threads: of one device, set before jax starts.
      devices: host devices.
      python: that runs it; this one where it is None.
      environment: more variables.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        threads: int,
        devices: int,
        python: str | None = None,
        environment: Mapping[str, str] | None = None,
    ):
        own = {
            "NPROC": str(threads),
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_PLATFORMS": "cpu",
        }
        self._process = subprocess.Popen(
            [python or sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**os.environ, **own, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one question.

        Raises:
          RuntimeError: the process ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a benchmark process ended with status {self._process.wait()} at {question}")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process: its input closes, and it has ten seconds."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The other side of `Process`: one answer a line until the input closes. Nothing else may print."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


def emit(line: Mapping[str, Any], out: Path | None) -> None:
    """Prints the run's JSON line, and adds it to a file."""
    text = json.dumps(line)
    print(text, flush=True)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a") as file:
            file.write(text + "\n")
