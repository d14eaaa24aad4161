"""How much memory a coordinator and a worker need for a model: the two constants each of `engines/forecast.py`.

    python -m benchmarks.forecast               one JSON line: bytes of each size, idle and multiples (5 minutes)
    python -m benchmarks.forecast --quick       tiny sizes: does it run

Runs `learner local` on two sites of the sample, three rounds of one step, with perceptrons of several widths, and reads
each process's peak (VmHWM) while it runs. The multiple is the slope between the smallest and the largest model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import common

WIDTHS, QUICK = (64, 1500, 3000), (8, 16)


def peak(pid: int) -> int:
    """Bytes that a process had at most, 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return max((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), default=0)


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def run(width: int, method: str) -> dict[str, Any]:
    """One federation: bytes of what travels, and the peaks."""
    with tempfile.TemporaryDirectory() as folder:
        fields = {"rounds": 3, "steps": 1, "references": "()", "model.hidden": f"({width},{width})"}
        if method == "scaffold":
            fields |= {"algorithm": "scaffold", "algorithm.local_lr": 0.01}
        flags = [f"--config.{name}={value}" for name, value in fields.items()]
        command = [sys.executable, "-m", "learner_jax", "local", "--config=readmission", "--sites=2", *flags]
        process = subprocess.Popen(
            [*command, f"--workdir={folder}/run", "--json", "--noreport"], cwd=common.ROOT, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        seen: dict[int, int] = {}
        while process.poll() is None:
            for pid in (process.pid, *children(process.pid)):
                seen[pid] = max(seen.get(pid, 0), peak(pid))
            time.sleep(0.02)
        out, words = process.communicate()
        if process.returncode:
            raise SystemExit(f"{words[-2000:]}{out[-500:]}")
        told = json.loads((Path(folder) / "run" / "result.json").read_text())["forecast"]
    coordinator = seen.pop(process.pid)
    return {"width": width, "sent": round(told["down"]), "coordinator": coordinator, "worker": max(seen.values())}


def main() -> None:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    found: dict[str, Any] = {"benchmark": "forecast", **common.machine()}
    for method in ("fedavg",) if quick else ("fedavg", "scaffold"):
        rows = [run(width, method) for width in (QUICK if quick else WIDTHS)]
        first, last = rows[0], rows[-1]
        found[method] = {"runs": rows}
        for who in ("coordinator", "worker"):
            times = (last[who] - first[who]) / (last["sent"] - first["sent"])
            found[method][who] = {"idle": round(first[who] - times * first["sent"]), "times": round(times, 2)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
