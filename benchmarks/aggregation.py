"""How fast a coordinator adds updates up, beside plain additions of the same arrays on the same machine.

    python -m benchmarks.aggregation                  some minutes, 5 GB of memory; one JSON line a size
    python -m benchmarks.aggregation --quick          small updates: does it run, is the sum right

4, 16 and 64 updates of 10 million and of 100 million float32 parameters, in leaves of 4 million at most, as a
coordinator finds them in its spool: NumPy arrays, one leaf at a time. Four of them are distinct and come in turn, so
that they fit into memory. Arms: `reducer` (what a coordinator runs: `Reducer`, in order, into a donated sum), `numpy`
(`np.add(total, leaf, out=total)`), `jnp` (a jitted addition, the sum donated, of arrays that lie on the device).
GB/s: bytes of all updates over the time. `one thread` and `two` are processes of their own (`NPROC`). The sums are
compared, bit for bit, before anything is timed.
"""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common

MILLIONS, UPDATES = (10, 100), (4, 16, 64)
LEAF, DISTINCT = 4_000_000, 4
ARMS = ("reducer", "numpy", "jnp")


class Adding:
    """Arms over updates of so many parameters.

    Args:
      parameters: of one update.
      leaf: of its largest leaf.
    """

    def __init__(self, parameters: int, leaf: int):
        import jax

        from learner_jax import leaves, trees
        from learner_jax.algorithms import fedavg
        from learner_jax.engines.program import wire_shape
        from learner_jax.engines.reducer import Reducer
        from learner_jax.engines.world import Local
        from learner_jax.federate import federate

        sizes = [leaf] * (parameters // leaf) + ([parameters % leaf] if parameters % leaf else [])
        weights = {"params": {f"{k:03d}": np.zeros(size, np.float32) for k, size in enumerate(sizes)}, "stats": {}}

        def loss(weights, batch):
            return sum(leaf[0] for leaf in jax.tree.leaves(weights)) * batch.rows["x"].sum(), {}

        federated = federate(fedavg(loss, local_lr=0.1))
        rows = {"x": np.zeros((2, 1), np.float32)}
        template = trees.shapes(weights)
        wire = wire_shape(federated, template, rows, Local(2, 1, None, 0))
        self.reducer = Reducer(federated, template, wire, 0, 0, 4, 4)
        draw = np.random.default_rng(0)
        schema = trees.schema(wire)
        self.updates = []
        for _ in range(
            DISTINCT
        ):  # where a coordinator's arrays come from: a file, read into memory that jax takes as it is
            made = {leaf.name: draw.random(leaf.shape, np.float32).astype(leaf.dtype) for leaf in schema}
            self.updates.append(dict(leaves.read_leaves(io.BytesIO(leaves.pack(made)), schema)))
        self.placed: list[dict[str, Any]] = []
        self.jnp_add = jax.jit(lambda total, leaf: total + leaf, donate_argnums=(0,))
        self.bytes = sum(leaf.nbytes for leaf in self.updates[0].values())

    def wires(self, count: int) -> Iterator[Iterator[tuple[str, np.ndarray]]]:
        """So many updates, each leaf by leaf."""
        return (iter(update.items()) for update in itertools.islice(itertools.cycle(self.updates), count))

    def run(self, arm: str, count: int) -> dict[str, Any]:
        """The sum's leaves by name."""
        import jax
        import jax.numpy as jnp

        from learner_jax import trees

        if arm == "reducer":
            total = jax.block_until_ready(self.reducer._sum(self.wires(count), itertools.repeat(1.0)))
            return dict(zip(trees.names(total), jax.tree.leaves(total), strict=True))
        if arm == "numpy":
            total = {name: np.zeros_like(leaf) for name, leaf in self.updates[0].items()}
            for update in self.wires(count):
                for name, leaf in update:
                    np.add(total[name], leaf, out=total[name])
            return total
        if not self.placed:
            self.placed = [{name: jnp.array(leaf) for name, leaf in update.items()} for update in self.updates]
        sums = {name: jnp.zeros_like(leaf) for name, leaf in self.placed[0].items()}
        for update in itertools.islice(itertools.cycle(self.placed), count):
            for name, leaf in update.items():
                sums[name] = self.jnp_add(sums[name], leaf)
        return jax.block_until_ready(sums)


def answer_for(parameters: int, leaf: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What a process answers: whether the sums agree, one timed sum."""
    adding = Adding(parameters, leaf)

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        if question["do"] == "check":
            sums = {arm: adding.run(arm, 5) for arm in ARMS}
            same = all(
                np.array_equal(sums[arm][name], leaf) for arm in ARMS for name, leaf in sums["numpy"].items()
            )  # fmt: skip
            return {"same": same, "bytes": adding.bytes}
        return common.timed(lambda: adding.run(question["arm"], question["updates"]))[0]

    return answer


def _ask(process: common.Process, question: dict[str, Any], arm: str) -> dict[str, Any]:
    return process.ask({**question, "arm": arm})


def measure(millions: float, updates: Sequence[int], leaf: int, repeats: int) -> dict[str, Any]:
    """One size's line.

    Raises:
      ValueError: the arms' sums differ.
    """
    load, arguments = os.getloadavg()[0], [f"--serve={millions}", f"--leaf={leaf}"]
    found: dict[str, Any] = {}
    for place, threads in (("one thread", 1), ("two threads", 2)):
        process = common.Process("benchmarks.aggregation", arguments, threads, 1)
        try:
            checked = process.ask({"do": "check"})
            if not checked["same"]:
                raise ValueError(f"expected the same sum of all arms, got others with {place}")
            for count in updates:
                question = {"do": "time", "updates": count}
                ask = functools.partial(_ask, process, question)
                took = common.interleave({arm: functools.partial(ask, arm) for arm in ARMS}, repeats)
                told = {
                    arm: common.summary([checked["bytes"] * count / 1e9 / one["wall_s"] for one in runs])
                    for arm, runs in took.items()
                }
                over = {arm: common.ratio(took["reducer"], took[arm])["wall"] for arm in ARMS[1:]}
                found.setdefault(place, {})[str(count)] = {"gb_per_s": told, "time_of_reducer_over": over}
        finally:
            process.close()
    return {
        "benchmark": "aggregation",
        "inputs": "synthetic",
        "parameters": round(millions * 1e6),
        "leaf": leaf,
        "n": repeats,
        "found": found,
        "same_sums": True,
        "load_before": common.rounded(load),
        "machine": common.machine(),
        "versions": common.versions("jax", "jaxlib", "numpy"),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.aggregation", description="How fast updates are added up.")
    parser.add_argument("--repeats", type=int, help="how often each arm is timed (7; with --quick 2)")
    parser.add_argument("--quick", action="store_true", help="small updates; the times mean nothing")
    parser.add_argument("--out", type=Path, help="a file that the JSON lines are added to")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--leaf", type=int, default=LEAF, help=argparse.SUPPRESS)
    flags = parser.parse_args(argv)
    if flags.serve is not None:
        common.serve(answer_for(round(flags.serve * 1e6), flags.leaf))
        return
    for millions in (0.01,) if flags.quick else MILLIONS:
        leaf, updates = (3000, (4,)) if flags.quick else (LEAF, UPDATES)
        line = measure(millions, updates, leaf, flags.repeats or (2 if flags.quick else 7))
        for place, counts in line["found"].items():
            for count, told in counts.items():
                rates = ", ".join(f"{arm} {rate['median']:.2f}" for arm, rate in told["gb_per_s"].items())
                print(f"{count:>3} updates of {millions:g} M parameters, {place}: GB/s {rates}", file=sys.stderr)
        common.emit(line, flags.out)


if __name__ == "__main__":
    main()
