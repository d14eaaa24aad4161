"""What a second device and a second process give a simulated round, and what they change: nothing.

    python -m benchmarks.devices --out=FILE        W1, ten minutes; one JSON line
    python -m benchmarks.devices --work=W2         another piece of work of `benchmarks.simulator`
    python -m benchmarks.devices --quick           tiny sizes: does it run, do the weights agree

one             one process with one device of one thread
devices_2       one process with two such devices
processes_2     two processes with one such device each, joined by `jax.distributed` (gloo on the loopback)

Before anything is timed, three rounds of each arm in float64 must end in the same weights (1e-9 of the way from the
start), and fifty rounds of as many cohorts, whose sites' sizes are log-normal, must compile nothing after the first.
Then each arm runs the same round once a repeat, in an order shuffled anew; of two processes the slower one counts, and
the CPU time of both.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.simulator import apart
from benchmarks.simulator_arms import QUICKS, ROUND, WORKS, Sizes

ARMS = {"one": (1, 1), "devices_2": (1, 2), "processes_2": (2, 1)}
"""Processes, and devices in each."""
SAME, EXACT, MANY = 1e-9, 3, 50
"""How far apart weights in float64 may be, after so many rounds; rounds that may compile nothing."""


class Together:
    """The processes of one arm, asked at the same time.

    Args:
      processes, devices: how many, and in each.
      arguments: of the command line.
    """

    def __init__(self, processes: int, devices: int, arguments: Sequence[str]):
        port = _port()
        where = [] if processes == 1 else [f"127.0.0.1:{port},{processes},{index}" for index in range(processes)]
        self._all = [
            common.Process("benchmarks.devices", ["--serve", f"--where={place}", *arguments], 1, devices)
            for place in where or [""]
        ]

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The first one's answer; of times the longest wall time, and the CPU time of all.

        Raises:
          RuntimeError: one of them ended.
        """
        found: list[Any] = [None] * len(self._all)

        def one(at: int) -> None:
            try:
                found[at] = self._all[at].ask(question)
            except (OSError, RuntimeError) as error:
                found[at] = error

        threads = [threading.Thread(target=one, args=(at,)) for at in range(len(self._all))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        failed = next((answer for answer in found if isinstance(answer, Exception)), None)
        if failed is not None:
            raise RuntimeError(str(failed))
        if "wall_s" in found[0]:
            return {"wall_s": max(a["wall_s"] for a in found), "cpu_s": sum(a["cpu_s"] for a in found)}
        return found[0]

    def close(self) -> None:
        """Ends them, at the same time: they wait for each other."""
        threads = [threading.Thread(target=process.close) for process in self._all]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def answer_for(sizes: Sizes, where: str, exact: bool) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What a process answers."""
    import jax

    from benchmarks.simulator_arms import Arms
    from learner_jax.engines import machines

    jax.config.update("jax_enable_x64", exact)
    if where:
        answers = os.dup(1)
        os.dup2(2, 1)  # gloo says on stdout whom it met
        sys.stdout = os.fdopen(answers, "w")
        machines.join(where)
    arms = Arms(sizes, dtype=np.float64 if exact else np.float32)
    run = arms.engine(len(jax.devices()))
    jax.block_until_ready(run(ROUND))

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        if question["do"] == "weights":
            leaves = [np.asarray(leaf) for leaf in arms.studied(EXACT, len(jax.devices()))]
            if machines.first():
                np.savez(question["into"], *leaves)
                np.savez(question["start"], *[np.asarray(leaf) for leaf in jax.tree.leaves(arms.weights)])
            return {"dtype": str(leaves[0].dtype)}
        if question["do"] == "many":
            before, sites = arms.compiled, set()
            for number in range(ROUND + 1, ROUND + 1 + MANY):
                jax.block_until_ready(run(number))
                sites.add(int(arms.steps_of(number).sum()))
            return {"compiled": arms.compiled - before, "different": len(sites)}
        return common.timed(lambda: jax.block_until_ready(run(ROUND)))[0]

    return answer


def exactly(arguments: Sequence[str]) -> dict[str, float]:
    """How far the weights of each arm are from those of one device, in float64, over the way from the start.

    Raises:
      ValueError: further than SAME, or they are not float64.
    """
    found: dict[str, list[np.ndarray]] = {}
    start: list[np.ndarray] = []
    with tempfile.TemporaryDirectory() as folder:
        into, begun = Path(folder) / "weights.npz", Path(folder) / "start.npz"
        for name, (processes, devices) in ARMS.items():
            there = Together(processes, devices, ["--exact", *arguments])
            try:
                told = there.ask({"do": "weights", "into": str(into), "start": str(begun)})
            finally:
                there.close()
            if told["dtype"] != "float64":
                raise ValueError(f"expected weights of '{name}' in float64, got {told['dtype']}")
            found[name], start = _load(into), _load(begun)
    return held(found, start)


def held(found: Mapping[str, list[np.ndarray]], start: list[np.ndarray]) -> dict[str, float]:
    """How far each arm's weights are from those of 'one'.

    Raises:
      ValueError: further than SAME.
    """
    off = {name: apart(leaves, found["one"], start) for name, leaves in found.items() if name != "one"}
    for name, distance in off.items():
        if not distance <= SAME:
            raise ValueError(f"expected the weights of '{name}' within {SAME:g} of those of 'one', got {distance:.3g}")
    return {name: common.rounded(distance) for name, distance in off.items()}


def _load(path: Path) -> list[np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return [file[name] for name in file.files]


def run(name: str, sizes: Sizes, repeats: int, arguments: Sequence[str]) -> dict[str, Any]:
    """One run's line.

    Raises:
      ValueError: arms disagree, or a round of another cohort compiled.
    """
    load, off = os.getloadavg()[0], exactly(arguments)
    there = {arm: Together(processes, devices, arguments) for arm, (processes, devices) in ARMS.items()}
    try:
        many = {arm: one.ask({"do": "many"}) for arm, one in there.items()}
        if any(told["compiled"] for told in many.values()):
            raise ValueError(f"expected no compilation in {MANY} rounds of other cohorts, got {many}")
        measured = common.interleave(
            {arm: lambda one=one: one.ask({"do": "time"}) for arm, one in there.items()}, repeats
        )
    finally:
        for one in there.values():
            one.close()
    return {
        "benchmark": "devices",
        "name": name,
        "quick": sizes != WORKS.get(name),
        "inputs": "synthetic",
        "sizes": sizes._asdict(),
        "n": repeats,
        "round_s": {arm: common.summary([m["wall_s"] for m in runs]) for arm, runs in measured.items()},
        "cpu_s": {arm: common.summary([m["cpu_s"] for m in runs]) for arm, runs in measured.items()},
        "over_one": {arm: common.ratio(runs, measured["one"]) for arm, runs in measured.items() if arm != "one"},
        "apart_in_float64": off,
        "rounds_of_other_cohorts": MANY,
        "compiled_in_them": {arm: told["compiled"] for arm, told in many.items()},
        "different_numbers_of_steps": many["one"]["different"],
        "load_before": common.rounded(load),
        "machine": common.machine(),
        "versions": common.versions("jax", "jaxlib", "flax", "optax", "numpy"),
    }


def told(line: dict[str, Any]) -> list[str]:
    """The run in words, for a terminal."""
    out = []
    for arm, took in line["round_s"].items():
        words = f"{arm:12} {1e3 * took['median']:9.1f} ms a round"
        if arm in line["over_one"]:
            over = line["over_one"][arm]["wall"]
            words += f", {over['paired']:.2f} ({over['q1']:.2f} to {over['q3']:.2f}) of one's"
            words += f"; weights {line['apart_in_float64'][arm]:.1g} apart in float64"
        out.append(words)
    return [*out, f"nothing compiled in {line['rounds_of_other_cohorts']} rounds of other cohorts"]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.devices", description="A second device, a second process.")
    parser.add_argument("--work", choices=WORKS, default="W1", help="what is run (W1)")
    parser.add_argument("--repeats", type=int, help="how often each arm runs a round (11; with --quick 2)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; the times mean nothing")
    parser.add_argument("--out", type=Path, help="a file that the JSON line is added to")
    for hidden in ("--serve", "--exact"):
        parser.add_argument(hidden, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--where", default="", help=argparse.SUPPRESS)
    flags = parser.parse_args(argv)
    sizes = (QUICKS if flags.quick else WORKS)[flags.work]
    if flags.serve:
        common.serve(answer_for(sizes, flags.where, flags.exact))
        return
    handed_on = [f"--work={flags.work}", *(["--quick"] if flags.quick else [])]
    begun = time.perf_counter()
    line = run(flags.work, sizes, flags.repeats or (2 if flags.quick else 11), handed_on)
    print("\n".join(told(line)), file=sys.stderr)
    common.emit({**line, "seconds": common.rounded(time.perf_counter() - begun)}, flags.out)


if __name__ == "__main__":
    main()
