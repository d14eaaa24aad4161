"""Seconds from a command to its first result: `learner simulate` until its first round is over, cold and warm.

    python -m benchmarks.first_result                 some minutes; one JSON line
    python -m benchmarks.first_result --quick         one study, once

Each run is the command itself in a process of its own, on a study whose data are in the package, into a folder of its
own, and is stopped once the line of round 1 has come. Cold: the folder of compiled programs is new; warm: the same
command has filled it before. Files of the system's own cache stay as they are. Also: `import learner_jax` and
`learner --help`, each in a process of its own, beside `python -c pass`.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import common

STUDIES = ("readmission", "proteins")
LINES = {"begins_s": ": begins", "statistics_s": "sites agree", "round_1_s": ": round 1 of"}
SHORT = {
    "python": (sys.executable, "-c", "pass"),
    "import learner_jax": (sys.executable, "-c", "import learner_jax"),
    "learner --help": (sys.executable, "-m", "learner_jax", "--help"),
}


def first_round(study: str, cache: Path, place: Path) -> dict[str, float]:
    """Seconds until each of LINES has come.

    Raises:
      RuntimeError: the command ended before.
    """
    folder = tempfile.mkdtemp(dir=place)
    command = [sys.executable, "-m", "learner_jax", "simulate", f"--config={study}", f"--workdir={folder}/run",
               f"--config.engine.cache={cache}"]  # fmt: skip
    began, found = time.perf_counter(), {}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=common.ROOT)
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        for name, word in LINES.items():
            if word in line:
                found.setdefault(name, time.perf_counter() - began)
        if "round_1_s" in found:
            break
    process.kill()
    process.communicate()
    if "round_1_s" not in found:
        raise RuntimeError(f"expected a first round of {study}, got: {''.join(said)[-500:]}")
    return found


def _once(command: Sequence[str], environment: Mapping[str, str]) -> dict[str, float]:
    began = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True, cwd=common.ROOT)
    return {"wall_s": time.perf_counter() - began}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.first_result", description="From a command to its first result.")
    parser.add_argument("--repeats", type=int, help="cold and warm runs of each study (5; with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="one study, once")
    parser.add_argument("--out", type=Path, help="a file that the JSON line is added to")
    flags = parser.parse_args(argv)
    repeats, load = flags.repeats or (1 if flags.quick else 5), os.getloadavg()[0]
    taken: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for study in STUDIES[: 1 if flags.quick else None]:
            runs: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
            for _ in range(repeats):
                cache = Path(tempfile.mkdtemp(dir=place))
                for kind in runs:
                    runs[kind].append(first_round(study, cache, Path(place)))
            taken[study] = {
                kind: {name: common.summary([run[name] for run in all_]) for name in LINES}
                for kind, all_ in runs.items()
            }
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
        arms = {name: functools.partial(_once, command, environment) for name, command in SHORT.items()}
        for arm in arms.values():
            arm()
        short = common.interleave(arms, 2 if flags.quick else 11)
    line = {
        "benchmark": "first_result",
        "n": repeats,
        "until": taken,
        "short_s": {name: common.summary([run["wall_s"] for run in all_]) for name, all_ in short.items()},
        "load_before": common.rounded(load),
        "machine": common.machine(),
        "versions": common.versions("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"),
    }
    for study, kinds in taken.items():
        for kind, told in kinds.items():
            parts = ", ".join(f"{name.removesuffix('_s')} {value['median']:.1f} s" for name, value in told.items())
            print(f"{study}, {kind}: {parts}", file=sys.stderr)
    print(", ".join(f"{name} {told['median']:.2f} s" for name, told in line["short_s"].items()), file=sys.stderr)
    common.emit(line, flags.out)


if __name__ == "__main__":
    main()
