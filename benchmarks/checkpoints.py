"""What keeping a run costs where a round takes about 20 ms: the time between rounds with a folder and without one.

    python -m benchmarks.checkpoints                  some minutes; one JSON line
    python -m benchmarks.checkpoints --quick          few rounds: does it run, do the weights agree

Sixteen sites of 1,000 made-up rows, a perceptron 64-128-64-1, FedAvg, the best round by validation AUROC; two streams.
Arms: `nothing` (no folder), `kept` (a folder by the study's default: a journal row each round, synced; steps in the
background; the best model before a step that names it), `waited` (`checkpoint.wait=True`: each round's step is durable
before the next begins). A round is counted from its opening to the next one's, without the first fifth of them, in
which Orbax is loaded. Each repeat runs all arms, in an order shuffled anew; all must end in the same weights. Then a
run in a process of its own is killed with SIGKILL in its middle and started again: it must end in these weights too.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common

ARMS = ("nothing", "kept", "waited")
SITES, ROWS, INPUTS, HIDDEN = 16, 1000, 64, (128, 64)


def run(folder: Path | None, rounds: int, wait: bool = False) -> tuple[list[float], str, float]:
    """(seconds from each round's opening to the next one's, sha256 of the weights, seconds of it all)."""
    import optax

    import learner_jax as lr
    from learner_jax.events import Event
    from learner_jax.models import mlp

    draw, sites = np.random.default_rng(0), {}
    for k in range(SITES):
        x = draw.normal(size=(ROWS, INPUTS)).astype(np.float32)
        y = (x[:, :8].sum(1) + 2 * draw.normal(size=ROWS) > 0).astype(np.float32)
        sites[f"s{k:02d}"] = (x, y)
    opened: list[float] = []

    def on_event(event: Event) -> None:
        if event.kind == "round_open":
            opened.append(time.perf_counter())
            if folder is not None and os.environ.get("LEARNER_BENCH_TELL"):
                print(event.round, flush=True)

    began = time.perf_counter()
    made = lr.simulate(
        lr.Task(mlp(hidden=HIDDEN), optax.sigmoid_binary_cross_entropy, (lr.auroc,)),
        sites=sites,
        workdir=folder,
        target="valid/auroc",
        rounds=rounds,
        algorithm=lr.fedavg(local_lr=0.005),
        references=(),
        checkpoint=lr.Checkpoint(wait=wait),
        on_event=on_event,
    )
    whole = time.perf_counter() - began
    return list(np.diff(opened)), made.weights_sha256, whole


def killed(folder: Path, rounds: int) -> dict[str, Any]:
    """A run that is killed in its middle and started again: rounds opened before and after, and its weights."""
    command = [sys.executable, "-m", "benchmarks.checkpoints", f"--child={folder}", f"--rounds={rounds}"]
    environment = {**os.environ, "LEARNER_BENCH_TELL": "1"}
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=common.ROOT)
    assert first.stdout is not None
    opened = 0
    for line in first.stdout:
        opened = int(line)
        if opened >= rounds // 2:
            first.send_signal(signal.SIGKILL)
            break
    first.stdout.read()
    if first.wait() != -signal.SIGKILL:
        raise RuntimeError("expected to kill the run before it was over")
    second = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=common.ROOT, check=True)
    *said, sha256 = second.stdout.split()
    return {"killed_in_round": opened, "went_on_from": int(said[0]), "sha256": sha256}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.checkpoints", description="What keeping a run costs.")
    parser.add_argument("--repeats", type=int, help="how often each arm is run (7; with --quick 1)")
    parser.add_argument("--rounds", type=int, help="of each run (300; with --quick 12)")
    parser.add_argument("--quick", action="store_true", help="few rounds; the times mean nothing")
    parser.add_argument("--out", type=Path, help="a file that the JSON line is added to")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args(argv)
    os.environ.update(NPROC="1", XLA_FLAGS="--xla_force_host_platform_device_count=2", JAX_PLATFORMS="cpu")
    rounds = flags.rounds or (12 if flags.quick else 300)
    if flags.child:
        print(run(flags.child, rounds)[1])
        return
    load, shas = os.getloadavg()[0], set()
    told: dict[str, list[dict[str, float]]] = {name: [] for name in ARMS}
    with tempfile.TemporaryDirectory() as place:

        def arm(name: str) -> dict[str, float]:
            folder = None if name == "nothing" else Path(tempfile.mkdtemp(dir=place)) / "run"
            cpu = time.process_time()
            took, sha256, whole = run(folder, rounds, name == "waited")
            cpu = time.process_time() - cpu
            shas.add(sha256)
            steady = took[len(took) // 5 :]
            told[name].append({"mean": float(np.mean(steady)), "median": float(np.median(steady)), "whole": whole})
            return {"wall_s": float(np.mean(steady)), "cpu_s": cpu / rounds}

        run(None, 3)  # imports, and what is compiled once a process
        repeats = flags.repeats or (1 if flags.quick else 7)
        measured = common.interleave({name: lambda name=name: arm(name) for name in ARMS}, repeats)
        after = killed(Path(place) / "killed", rounds)
    if not flags.quick and not 1 < after["went_on_from"] <= after["killed_in_round"] + 1:
        raise RuntimeError(f"expected the killed run to go on from a step that was kept, got {after}")
    shas.add(after["sha256"])
    if len(shas) != 1:
        raise RuntimeError(f"expected all runs to end in the same weights, got {sorted(shas)}")
    line = {
        "benchmark": "checkpoints",
        "inputs": "synthetic",
        "sizes": {"sites": SITES, "rows": ROWS, "widths": [INPUTS, *HIDDEN, 1], "rounds": rounds},
        "n": repeats,
        "round_s": {name: common.summary([m["wall_s"] for m in measured[name]]) for name in ARMS},
        "median_round_s": {name: common.summary([m["median"] for m in told[name]]) for name in ARMS},
        "whole_s": {name: common.summary([m["whole"] for m in told[name]]) for name in ARMS},
        "over_nothing": {name: common.ratio(measured[name], measured["nothing"]) for name in ARMS[1:]},
        "killed": {key: after[key] for key in ("killed_in_round", "went_on_from")},
        "same_weights": True,
        "load_before": common.rounded(load),
        "machine": common.machine(),
        "versions": common.versions("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"),
    }
    for name in ARMS:
        mean, whole = line["round_s"][name], line["whole_s"][name]["median"]
        over = "" if name == "nothing" else f", {line['over_nothing'][name]['wall']['paired']:.3f} of nothing kept"
        print(f"{name:8} {mean['median'] * 1e3:7.2f} ms a round{over}; {whole:.1f} s in all", file=sys.stderr)
    common.emit(line, flags.out)


if __name__ == "__main__":
    main()
