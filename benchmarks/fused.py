"""What a round has of its own, one by one and several in one call: rounds of a few steps of a tiny model.

    python -m benchmarks.fused --out=FILE        some minutes; one JSON line
    python -m benchmarks.fused --quick           few rounds: does it run, do the weights agree

Ten sites of 20 made-up rows, logistic regression of 8 inputs, FedAvg, batch 20: a step a site, so that nearly all of a
round is what it has of its own. Whole studies through `learner_jax.simulate`, with validation figures and events, with
a folder (`kept`: a journal row a round, steps in the background) and without one (`nothing`), `engine.fused` 1, 8 and
64. A round is counted from the closing of one to that of the next, over the last four fifths of them. Each repeat runs
all arms, in an order shuffled anew; all must end in the same weights.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common

MANY = (1, 8, 64)
KEPT = ("nothing", "kept")
SITES, ROWS, INPUTS = 10, 30, 8


def run(folder: Path | None, rounds: int, many: int) -> tuple[list[float], str]:
    """(when each round closed, sha256 of the weights)."""
    import optax

    import learner_jax as lr
    from learner_jax.events import Event
    from learner_jax.models import logistic

    draw, sites = np.random.default_rng(0), {}
    for k in range(SITES):
        x = draw.normal(size=(ROWS, INPUTS)).astype(np.float32)
        sites[f"s{k:02d}"] = x, (x[:, 0] + draw.normal(size=ROWS) > 0).astype(np.float32)
    closed: list[float] = []

    def on_event(event: Event) -> None:
        if event.kind == "round_closed":
            closed.append(time.perf_counter())

    found = lr.simulate(
        lr.Task(logistic(), optax.sigmoid_binary_cross_entropy, (lr.auroc,)),
        sites=sites,
        workdir=folder,
        target="valid/auroc",
        rounds=rounds,
        batch_size=20,
        algorithm=lr.fedavg(local_lr=0.01),
        references=(),
        engine=lr.Engine(plan="sequential", fused=many),
        on_event=on_event,
    )
    return closed, found.weights_sha256


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.fused", description="Rounds one by one and several in one call.")
    parser.add_argument("--repeats", type=int, help="how often each arm is run (7; with --quick 1)")
    parser.add_argument("--rounds", type=int, help="of each run (1280; with --quick 12)")
    parser.add_argument("--quick", action="store_true", help="few rounds; the times mean nothing")
    parser.add_argument("--out", type=Path, help="a file that the JSON line is added to")
    flags = parser.parse_args(argv)
    os.environ.update(NPROC="1", XLA_FLAGS="--xla_force_host_platform_device_count=1", JAX_PLATFORMS="cpu")
    rounds, load, shas = flags.rounds or (12 if flags.quick else 1280), os.getloadavg()[0], set()
    arms = {f"{kept}_{many}": (kept, many) for kept in KEPT for many in MANY}
    with tempfile.TemporaryDirectory() as place:

        def arm(kept: str, many: int) -> dict[str, float]:
            folder = None if kept == "nothing" else Path(tempfile.mkdtemp(dir=place)) / "run"
            cpu = time.process_time()
            closed, sha256 = run(folder, rounds, many)
            cpu = time.process_time() - cpu
            shas.add(sha256)
            first = len(closed) // 5
            return {"wall_s": (closed[-1] - closed[first]) / (len(closed) - 1 - first), "cpu_s": cpu / rounds}

        repeats = flags.repeats or (1 if flags.quick else 7)
        measured = common.interleave({key: lambda given=given: arm(*given) for key, given in arms.items()}, repeats)
    if len(shas) != 1:
        raise RuntimeError(f"expected all runs to end in the same weights, got {sorted(shas)}")
    line: dict[str, Any] = {
        "benchmark": "fused",
        **({"quick": True} if flags.quick else {}),
        "inputs": "synthetic",
        "sizes": {"sites": SITES, "rows": ROWS, "inputs": INPUTS, "rounds": rounds},
        "n": repeats,
        "round_s": {key: common.summary([m["wall_s"] for m in measured[key]]) for key in arms},
        "over_one_by_one": {
            key: common.ratio(measured[key], measured[f"{kept}_1"]) for key, (kept, many) in arms.items() if many > 1
        },
        "same_weights": True,
        "load_before": common.rounded(load),
        "machine": common.machine(),
        "versions": common.versions("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"),
    }
    for key in arms:
        over = line["over_one_by_one"].get(key)
        beside = "" if over is None else f", {over['wall']['paired']:.3f} of one by one"
        print(f"{key:10} {line['round_s'][key]['median'] * 1e3:6.2f} ms a round{beside}", file=sys.stderr)
    common.emit(line, flags.out)


if __name__ == "__main__":
    main()
