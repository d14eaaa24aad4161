"""A simulated FedAvg round against plain JAX loops over exactly the same batches.

    python -m benchmarks.simulator                    the figures of docs/benchmarks.md (2 minutes); one JSON line
    python -m benchmarks.simulator --work=W2          another piece of work
    python -m benchmarks.simulator --quick            tiny sizes: does it run, do the results agree

W1: 200 of 1,000 sites of log-normal size (100 rows in the mean), a perceptron 784-200-200-62, batches of 20, SGD.
W2: 8 sites of 5,000 rows, a perceptron 512-256-128-1, batches of 64, Adam.
W1C: 20 such sites as in W1, two convolutions and two dense layers on 28x28x1, 62 classes.
W3: 500 of 1,000 such sites as in W1, logistic regression 60-10, batches of 20, SGD.
W4: 8 sites of 24 rows of 64 words, a transformer of 12 blocks of width 256 (9.8 million weights), batches of 8, Adam.
W1S, W2S, W3S: the same by SCAFFOLD, with SGD. The loops add two control variates in each step; a site's own is read
and written once a round, which `state_copy` does alone, and `ratio_to_floor` is over the best loop and that together.
In the first round the variates are zero, so that the weights compared are those of FedAvg.
T10, T100, T1000, T10000: so many sites, all asked, each with one batch of 20 rows for logistic regression 8-2: what a
site costs beside its step.
One epoch each. The inputs are made up: what is measured is time, not learning. Each arm runs the same round in each
repeat: the same cohort, start and batches. Times are of one call that has run before: the compiled round, waiting for
the new weights, and the plan of the next round, which the engine makes meanwhile. Before anything is timed, the arms'
final weights are compared, with Adam and convolutions after three steps a site; a difference ends the run.
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
from benchmarks.simulator_arms import QUICKS, WORKS, Sizes, answer_for

# A process of its own for each arrangement of threads and devices: (threads of a device, devices, arms).
ARRANGEMENTS = {
    "one core": (1, 1, ("scan", "unroll_4", "unroll_8", "per_step", "gathered_scan", "padded_vmap",
                        "sequential", "lanes_4", "host_plan")),
    "two devices": (1, 2, ("streams_2",)),
    "two threads": (2, 1, ("scan_2_threads", "sequential_2_threads")),
}  # fmt: skip
CENTRALISED = ("scan", "unroll_4", "unroll_8", "per_step")
ENGINES = ("sequential", "lanes_4", "streams_2")
ROUNDS = ("sequential", "lanes_4", "streams_2", "padded_vmap")
# Largest relative difference between weights, over the way from the start, that rounding explains in float32.
TOLERANCE = {"centralised": 1e-2, "rounds": 1e-3}
BY_SIGNS = 20.0
"""Adam's first steps are of one length whatever the gradient, so rounding of a small one moves more: times as far."""
WHOLE = 0.5
"""Where rounding grows with each step until two right programs are far apart, what is compared is a round of few steps
a site; a whole one must only lie within so much of the way from the start."""
LEFT_OUT = {
    "convolutions": ("unroll_8", "padded_vmap", "lanes_4"),
    "transformer": ("unroll_4", "unroll_8", "padded_vmap", "lanes_4"),
}
"""Arms that a CPU takes minutes for: kernels of many sites abreast, twelve blocks compiled several times."""


def apart(a: list[np.ndarray], b: list[np.ndarray], start: list[np.ndarray]) -> float:
    """||a - b|| / ||b - start||, over all leaves, in float64."""
    flat = [np.concatenate([leaf.ravel().astype(np.float64) for leaf in leaves]) for leaves in (a, b, start)]
    return float(np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1] - flat[2]))


def check(
    kind: str,
    found: dict[str, list[np.ndarray]],
    reference: str,
    start: list[np.ndarray],
    optimizer: str = "sgd",
) -> float:
    """The largest distance of any arm's weights from the reference's.

    Args:
      kind: which tolerance.
      found: arm -> leaves; those of the start as well where an arm did nothing.
      reference: an arm of `found`.
      start: leaves.
      optimizer: "sgd" or "adam".

    Raises:
      ValueError: an arm's weights are too far off, or not finite.
    """
    off = {name: apart(leaves, found[reference], start) for name, leaves in found.items()}
    bound = TOLERANCE[kind] * (BY_SIGNS if optimizer == "adam" else 1.0)
    for name, distance in off.items():
        if not distance <= bound:
            raise ValueError(
                f"expected the weights of '{name}' within {bound:g} of those of '{reference}', got {distance:.3g}"
            )
    return common.rounded(max(off.values()))


def agreement(leaves: dict[str, list[np.ndarray]], start: list[np.ndarray], optimizer: str = "sgd") -> dict[str, float]:
    """How far the loops are from each other, and every kind of round from each site alone, averaged by hand.

    Raises:
      ValueError: further than rounding explains.
    """
    loops_ = {name: part for name, part in leaves.items() if name in (*CENTRALISED, "gathered_scan", "scan_2_threads")}
    rounds = {name: part for name, part in leaves.items() if name in (*ROUNDS, "sequential_2_threads", "by_hand")}
    return {
        "centralised": check("centralised", loops_, "scan", start, optimizer),
        "rounds": check("rounds", rounds, "by_hand", start, optimizer),
    }


def run(name: str, sizes: Sizes, repeats: int, arguments: Sequence[str]) -> dict[str, Any]:
    """One run's line.

    Raises:
      ValueError: arms disagree, or a round compiled again.
    """
    load = os.getloadavg()[0]
    arrangements = dict(ARRANGEMENTS)
    if sizes.method == "scaffold":
        threads, devices, arms = arrangements["one core"]
        arrangements["one core"] = threads, devices, (*arms, "state_copy")
    arrangements = {
        place: (threads, devices, tuple(arm for arm in arms if arm not in LEFT_OUT.get(sizes.network, ())))
        for place, (threads, devices, arms) in arrangements.items()
    }
    processes = {
        place: common.Process("benchmarks.simulator", ["--serve", *arguments], threads, devices)
        for place, (threads, devices, _) in arrangements.items()
    }
    home = {arm: processes[place] for place, (_, _, arms) in arrangements.items() for arm in arms}
    try:
        # ---- start, compile, compare
        work = {place: process.ask({"do": "describe"}) for place, process in processes.items()}
        first, leaves, start = _first_calls(home)
        if sizes.grows:
            agreed = agreement(_few_steps(home), start, sizes.optimizer) | {"whole": _far(leaves, start)}
        else:
            agreed = agreement(leaves, start, sizes.optimizer)
        again = {arm: home[arm].ask({"do": "other round", "arm": arm})["compiled"] for arm in ENGINES if arm in home}
        if any(again.values()):
            raise ValueError(f"expected no compilation in a round with another cohort, got {again}")
        # ---- measure
        measured = common.interleave(
            {arm: lambda arm=arm: home[arm].ask({"do": "time", "arm": arm}) for arm in home}, repeats
        )
    finally:
        for process in processes.values():
            process.close()
    return {
        "benchmark": "simulator",
        "name": name,
        "quick": sizes != WORKS.get(name),
        "inputs": "synthetic",
        "sizes": sizes._asdict(),
        "work": {key: value for key, value in work["one core"].items() if key not in ("start_up_s", "devices")},
        "n": repeats,
        **_ratios(measured),
        "a_site_ms": _a_site(measured, sizes.cohort),
        "arms": _arms(measured, first, {arm: place for place, (_, _, arms) in arrangements.items() for arm in arms}),
        "start_up_s": {place: part["start_up_s"] for place, part in work.items()},
        "agreement": agreed,
        "compiled_again": sum(again.values()),
        "load_before": common.rounded(load),
        "machine": common.machine(),
        "versions": common.versions("jax", "jaxlib", "flax", "optax", "numpy"),
    }


def _first_calls(home: dict[str, common.Process]) -> tuple[dict, dict[str, list[np.ndarray]], list[np.ndarray]]:
    """Each arm's first call: (its seconds, its weights' leaves, the start's)."""
    first, leaves = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        into, start = Path(folder) / "weights.npz", Path(folder) / "start.npz"
        for arm in (*home, "by_hand"):
            process = home.get(arm, home["scan"])
            first[arm] = process.ask({"do": "first", "arm": arm, "into": str(into), "start": str(start)})["first_s"]
            leaves[arm] = _load(into)
        return first, leaves, _load(start)


def _few_steps(home: dict[str, common.Process]) -> dict[str, list[np.ndarray]]:
    """Each arm's weights after a round of SHORT steps a site."""
    leaves = {}
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "weights.npz"
        for arm in (*home, "by_hand"):
            home.get(arm, home["scan"]).ask({"do": "few steps", "arm": arm, "into": str(into)})
            leaves[arm] = _load(into)
    return leaves


def _far(leaves: dict[str, list[np.ndarray]], start: list[np.ndarray]) -> float:
    """The furthest of the rounds from the sites averaged by hand, where rounding alone may take it far.

    Raises:
      ValueError: further than WHOLE.
    """
    rounds = [name for name in (*ROUNDS, "sequential_2_threads") if name in leaves]
    off = {name: apart(leaves[name], leaves["by_hand"], start) for name in rounds}
    for name, distance in off.items():
        if not distance <= WHOLE:
            raise ValueError(f"expected the weights of '{name}' within {WHOLE} of those of 'by_hand', got {distance}")
    return common.rounded(max(off.values()))


def _load(path: Path) -> list[np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return [file[name] for name in file.files]


def _ratios(measured: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Each kind of round over the best centralised loop (by wall and by CPU time), and over the padded vmap."""
    loops_ = [arm for arm in CENTRALISED if arm in measured]
    best = {part: min(loops_, key=lambda arm: common.median(measured[arm], f"{part}_s")) for part in ("wall", "cpu")}

    def to_best(arm: str) -> dict[str, Any]:
        return {part: common.ratio(measured[arm], measured[loop])[part] for part, loop in best.items()}

    def to(arm: str, other: str) -> dict[str, Any]:
        return common.ratio(measured[arm], measured[other])

    engine = [arm for arm in ENGINES if arm in measured]
    floor = {}
    if "state_copy" in measured:
        both = [
            {part: a[part] + b[part] for part in ("wall_s", "cpu_s")}
            for a, b in zip(measured[best["wall"]], measured["state_copy"], strict=True)
        ]
        floor = {"ratio_to_floor": {arm: common.ratio(measured[arm], both)["wall"] for arm in engine}}
    return {
        **floor,
        "best_loop": best,
        "ratio_to_best_loop": {arm: to_best(arm) for arm in ROUNDS if arm in measured},
        "ratio_to_gathered_scan": {arm: to(arm, "gathered_scan") for arm in engine},
        "ratio_to_padded_vmap": {arm: to(arm, "padded_vmap") for arm in engine if "padded_vmap" in measured},
    }


def _a_site(measured: dict[str, list[dict[str, float]]], sites: int) -> dict[str, dict[str, float]]:
    """What a round takes beyond the best loop, by site: wall and CPU milliseconds."""
    found: dict[str, dict[str, float]] = {}
    for part in ("wall", "cpu"):
        least = min(common.median(measured[arm], f"{part}_s") for arm in CENTRALISED if arm in measured)
        for arm in ENGINES:
            if arm not in measured:
                continue
            more = common.median(measured[arm], f"{part}_s") - least
            found.setdefault(arm, {})[part] = common.rounded(1000 * more / sites)
    return found


def _arms(
    measured: dict[str, list[dict[str, float]]], first: dict[str, float], places: dict[str, str]
) -> dict[str, Any]:
    return {
        arm: {
            "threads": ARRANGEMENTS[places[arm]][0],
            "devices": ARRANGEMENTS[places[arm]][1],
            "wall_s": common.summary([m["wall_s"] for m in runs]),
            "cpu_s": common.summary([m["cpu_s"] for m in runs]),
            "first_s": first[arm],
        }
        for arm, runs in measured.items()
    }


def told(line: dict[str, Any]) -> list[str]:
    """The run in words, for a terminal."""
    out = [f"{'':22}{'wall ms':>10}{'(quartiles)':>20}{'cpu ms':>10}{'first call s':>14}"]
    for name, arm in line["arms"].items():
        wall, cpu = arm["wall_s"], arm["cpu_s"]
        spread = f"({wall['q1'] * 1e3:.1f} to {wall['q3'] * 1e3:.1f})"
        out.append(
            f"{name:22}{wall['median'] * 1e3:10.1f}{spread:>20}{cpu['median'] * 1e3:10.1f}{arm['first_s']:14.2f}"
        )
    best = line["best_loop"]
    out.append(f"over the best centralised loop (wall: {best['wall']}, CPU: {best['cpu']}):")
    for name, ratio in line["ratio_to_best_loop"].items():
        wall, cpu = ({part: f"{value:.3f}" for part, value in ratio[key].items()} for key in ("wall", "cpu"))
        out.append(
            f"  {name:14} wall {wall['ratio']:>7}, by repeat {wall['paired']:>7} ({wall['q1']} to {wall['q3']});"
            f"  CPU {cpu['ratio']:>7}, by repeat {cpu['paired']:>7} ({cpu['q1']} to {cpu['q3']})"
        )
    each = ", ".join(f"{arm} {found['wall'] * 1e3:.1f} (CPU {found['cpu'] * 1e3:.1f})" for arm, found in
                     line["a_site_ms"].items())  # fmt: skip
    out.append(f"beyond the best loop, microseconds a site: {each}")
    for name, ratio in line.get("ratio_to_floor", {}).items():
        spread = f"({ratio['q1']:.3f} to {ratio['q3']:.3f})"
        out.append(f"  {name:14} over that loop and each site's state, by repeat {ratio['paired']:.3f} {spread}")
    return out


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.simulator", description="A simulated round against plain JAX loops."
    )
    parser.add_argument("--repeats", type=int, help="how often each arm is timed (11; with --quick 2)")
    parser.add_argument("--work", choices=WORKS, default="W1", help="what is run (W1)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; the times mean nothing")
    parser.add_argument("--out", type=Path, help="a file that the JSON line is added to")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args(argv)
    sizes = (QUICKS if flags.quick else WORKS)[flags.work]
    if flags.serve:
        common.serve(answer_for(sizes, time.perf_counter()))
        return
    handed_on = [f"--work={flags.work}", *(["--quick"] if flags.quick else [])]
    line = run(flags.work, sizes, flags.repeats or (2 if flags.quick else 11), handed_on)
    print("\n".join(told(line)), file=sys.stderr)
    common.emit(line, flags.out)


if __name__ == "__main__":
    main()
