"""What this machine's device gives: the rounds of `benchmarks.simulator`, a parity case, and its measured peak.

    make device-check                                 where jax has a GPU or TPU; some minutes
    python -m benchmarks.device_check --quick         tiny sizes: does it run

One JSON line, added to benchmarks/results/device_check.jsonl: the device and versions; whether a federation's workers
and coordinator give the simulator's bits on it (`parity`); the quickest of products of float32 matrices (`peak_flops`);
and for W1 to W4 (see `benchmarks.simulator`) the seconds of a round by each plan, of the plain loops over the same
batches, and the share of the peak that the round's own arithmetic comes to (`mfu`; XLA's account of a step). The
weights of every arm are compared before anything is timed, by products in full precision. `engines` is a digest of the
sources that make a round: a test says when they changed since.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common, simulator
from benchmarks.simulator_arms import QUICK, QUICKS, SEED, SHORT, WORKS, Arms, Sizes, made_up_sites

ROUNDS = 5
LOOPS = ("scan", "unroll_8", "per_step")
LANES = (1, 4, 16, 64)
RESULTS = common.ROOT / "benchmarks" / "results" / "device_check.jsonl"
SOURCES = (
    "engines/compute.py", "engines/machines.py", "engines/parts.py", "engines/program.py", "engines/reducer.py",
    "engines/rounds.py", "engines/world.py", "federate.py", "trees.py",
    "algorithms/*.py", "aggregators/*.py", "models/*.py",
)  # fmt: skip


def engines_digest() -> str:
    """sha256 over the sources that make a compiled round, 16 hex digits."""
    found = hashlib.sha256()
    package = common.ROOT / "learner_jax"
    for path in sorted(path for pattern in SOURCES for path in package.glob(pattern)):
        found.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def parity() -> dict[str, Any]:
    """Whether workers and a coordinator, without what lies between them, give the simulator's digests on this device.

    Returns:
      rounds, and in how many of them the digests were the same.
    """
    import jax

    from learner_jax import trees
    from learner_jax.engines.program import Program, enrol_all, wire_shape
    from learner_jax.engines.reducer import Reducer
    from learner_jax.engines.world import build_world

    arms, sizes = Arms(QUICK), QUICK
    federated, world, template = arms.federated, arms.world, trees.shapes(arms.start)
    program, count = arms.program(), len(arms.world.names)
    server = program.place(federated.init(arms.start, jax.random.key(SEED)))
    states, theirs = program.place(enrol_all(federated, arms.start, count)), server
    sites = made_up_sites(sizes)
    workers: dict[int, Program] = {}
    mine: dict[int, Any] = {}
    wire = wire_shape(federated, template, trees.shapes(world.rows), arms.local)
    reducer = Reducer(federated, template, wire, 0, arms.local.seed, count, sizes.cohort)
    send, same = jax.jit(federated.send), 0
    for number in range(1, ROUNDS + 1):
        cohort = arms.cohort(number)
        outcome = program.round(server, states, number, cohort)
        server, states = outcome.server, outcome.states
        broadcast, wires = send(theirs), []
        for place in map(int, cohort):
            if place not in workers:
                own = build_world({world.names[place]: sites[world.names[place]]})
                workers[place] = Program(federated, template, own, arms.local, size=1, enrolled=count)
                mine[place] = federated.enrol(arms.start)
            sent, mine[place] = workers[place].local_round(broadcast, mine[place], number, len(cohort))
            wires.append(jax.device_get(sent))
        theirs, _, digest = reducer(theirs, iter(wires), len(wires), number, len(cohort))
        same += trees.digest_hex(digest) == trees.digest_hex(outcome.digest)
    return {"rounds": ROUNDS, "same_bits": same}


def work(name: str, sizes: Sizes, repeats: int, peak: float) -> dict[str, Any]:
    """One piece of work on this device: seconds by arm, ratio to the best loop, share of the peak.

    Raises:
      ValueError: the arms' weights differ.
    """
    import jax

    def built(arms: Arms) -> dict[str, Callable[[], Any]]:
        plans = [lanes for lanes in LANES if lanes <= sizes.cohort]
        engines = {f"lanes_{lanes}" if lanes > 1 else "sequential": arms.engine(1, lanes) for lanes in plans}
        return {loop: arms.make(loop) for loop in LOOPS} | engines

    # with Adam after few steps: see `benchmarks.simulator`; an accelerator's quicker products have three digits
    few = Arms(sizes, SHORT if sizes.grows else None)
    with jax.default_matmul_precision("highest"):
        leaves = {arm: [np.asarray(leaf) for leaf in call()] for arm, call in built(few).items()}
        by_hand = [np.asarray(leaf) for leaf in few.make("by_hand")()]
    start = [np.asarray(leaf) for leaf in jax.tree.leaves(few.weights)]
    rounds = {"by_hand": by_hand} | {arm: leaves[arm] for arm in leaves if arm not in LOOPS}
    agreed = {
        "centralised": simulator.check("centralised", {a: leaves[a] for a in LOOPS}, "scan", start, sizes.optimizer),
        "rounds": simulator.check("rounds", rounds, "by_hand", start, sizes.optimizer),
    }
    arms = Arms(sizes)
    calls = built(arms)
    for call in calls.values():
        jax.block_until_ready(call())
    measured = common.interleave(
        {arm: lambda call=call: common.timed(lambda: jax.block_until_ready(call()))[0] for arm, call in calls.items()},
        repeats,
    )
    best = min(LOOPS, key=lambda arm: common.median(measured[arm], "wall_s"))
    cost, steps = arms.program().step_cost(), int(arms.steps.sum())
    quickest = min((arm for arm in calls if arm not in LOOPS), key=lambda arm: common.median(measured[arm], "wall_s"))
    took = common.median(measured[quickest], "wall_s")
    return {
        "steps": steps,
        "agreement": agreed,
        "best_loop": best,
        "wall_s": {arm: common.summary([one["wall_s"] for one in runs]) for arm, runs in measured.items()},
        "ratio_to_best_loop": {
            arm: common.ratio(runs, measured[best])["wall"] for arm, runs in measured.items() if arm not in LOOPS
        },
        "quickest_plan": quickest,
        "flops_a_step": cost["flops"],
        "operations_a_byte": common.rounded(cost["flops"] / max(1.0, cost["bytes"])),
        "gb_per_s": common.rounded(cost["bytes"] * steps / took / 1e9),
        "mfu": common.rounded(cost["flops"] * steps / took / peak),
    }


def last_line(path: Path = RESULTS) -> dict[str, Any] | None:
    """The newest line of an accelerator; None where there is none."""
    import json

    lines = [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
    return next((line for line in reversed(lines) if line["device"]["platform"] != "cpu" and not line["quick"]), None)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.device_check", description="What this machine's device gives.")
    parser.add_argument("--repeats", type=int, help="how often each arm is timed (7; with --quick 2)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; the times mean nothing")
    parser.add_argument("--out", type=Path, help="a file that the JSON line is added to")
    flags = parser.parse_args(argv)
    load = os.getloadavg()[0]
    import jax

    from learner_jax.engines.profile_account import peak_flops

    device, repeats = jax.devices()[0], flags.repeats or (2 if flags.quick else 7)
    peak = peak_flops()
    works = {name: (QUICKS if flags.quick else WORKS)[name] for name in ("W1", "W2", "W3", "W4")}
    line = {
        "benchmark": "device_check",
        "quick": flags.quick,
        "engines": engines_digest(),
        "device": {"platform": device.platform, "kind": device.device_kind, "count": len(jax.devices())},
        "parity": parity(),
        "peak_flops": common.rounded(peak),
        "n": repeats,
        "works": {name: work(name, sizes, repeats, peak) for name, sizes in works.items()},
        "load_before": common.rounded(load),
        "machine": common.machine(),
        "versions": common.versions("jax", "jaxlib", "flax", "optax", "numpy"),
    }
    print(
        f"{device.device_kind}: {peak / 1e12:.3g} TFLOP/s; {line['parity']['same_bits']} of {ROUNDS} rounds to the bit",
        file=sys.stderr,
    )
    for name, told in line["works"].items():
        ratio = told["ratio_to_best_loop"][told["quickest_plan"]]["paired"]
        print(
            f"{name}: {told['quickest_plan']} {told['wall_s'][told['quickest_plan']]['median'] * 1e3:.1f} ms a round, "
            f"{ratio:.2f} of {told['best_loop']}; {100 * told['mfu']:.2g} % of the peak, {told['gb_per_s']:.3g} GB/s",
            file=sys.stderr,
        )
    common.emit(line, flags.out)


if __name__ == "__main__":
    main()
