"""A simulated FedAvg round against plain JAX loops over exactly the same batches.

    python -m benchmarks.simulator                    the figures of docs/benchmarks.md (2 minutes); one JSON line
    python -m benchmarks.simulator --work=W2          another piece of work
    python -m benchmarks.simulator --quick            tiny sizes: does it run, do the results agree

W1: 200 of 1,000 sites of log-normal size (100 rows in the mean), a perceptron 784-200-200-62, batches of 20, SGD.
W2: 8 sites of 5,000 rows, a perceptron 512-256-128-1, batches of 64, Adam.
W3: 500 of 1,000 such sites as in W1, logistic regression 60-10, batches of 20, SGD.
W1S, W2S, W3S: the same by SCAFFOLD, with SGD. The loops add two control variates in each step; a site's own is read
and written once a round, which `state_copy` does alone, and `ratio_to_floor` is over the best loop and that together.
In the first round the variates are zero, so that the weights compared are those of FedAvg.
T10, T100, T1000, T10000: so many sites, all asked, each with one batch of 20 rows for logistic regression 8-2: what a
site costs beside its step.
One epoch each. The inputs are made up: what is measured is time, not learning. Each arm runs the same round in each
repeat: the same cohort, start and batches. Times are of one call that has run before: the compiled round, waiting for
the new weights, and the plan of the next round, which the engine makes meanwhile. Before anything is timed, the arms'
final weights are compared, with Adam after three steps a site; a difference ends the run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks import common, peer_work

if TYPE_CHECKING:
    from benchmarks import loops
    from learner_jax.engines.program import Program

ROUND, OTHER_ROUND, SEED = 2, 3, 0

# A process of its own for each arrangement of threads and devices: (threads of a device, devices, arms).
ARRANGEMENTS = {
    "one core": (1, 1, ("scan", "unroll_4", "unroll_8", "per_step", "gathered_scan", "padded_vmap",
                        "sequential", "lanes_4", "host_plan")),
    "two devices": (1, 2, ("streams_2",)),
    "two threads": (2, 1, ("scan_2_threads", "sequential_2_threads")),
}  # fmt: skip
CENTRALISED = ("scan", "unroll_4", "unroll_8", "per_step")
ROUNDS = ("sequential", "lanes_4", "streams_2", "padded_vmap")
# Largest relative difference between weights, over the way from the start, that rounding explains in float32.
TOLERANCE = {"centralised": 1e-2, "rounds": 1e-3}
BY_SIGNS = 20.0
"""Adam's first steps are of one length whatever the gradient, so rounding of a small one moves more: times as far."""
SHORT, WHOLE = 3, 0.5
"""With Adam rounding grows with each step until two right programs are far apart: what is compared is a round of so
many steps a site; a whole one must only lie within so much of the way from the start."""


class Sizes(NamedTuple):
    """What is run; `spread` is the standard deviation of the logarithm of a site's rows."""

    sites: int = 1000
    cohort: int = 200
    mean_rows: float = 100.0
    spread: float = 1.0
    batch_size: int = 20
    widths: tuple[int, ...] = (784, 200, 200, 62)
    optimizer: str = "sgd"
    lr: float = 0.05
    method: str = "fedavg"


WORKS = {
    "W1": Sizes(),
    "W2": Sizes(8, 8, 5000.0, 0.0, 64, (512, 256, 128, 1), "adam", 1e-3),
    "W3": Sizes(cohort=500, widths=(60, 10)),
    "W1S": Sizes(optimizer="controlled", method="scaffold"),
    "W2S": Sizes(8, 8, 5000.0, 0.0, 64, (512, 256, 128, 1), "controlled", 0.01, "scaffold"),
    "W3S": Sizes(cohort=500, widths=(60, 10), optimizer="controlled", method="scaffold"),
    **{f"T{count}": Sizes(count, count, 20.0, 0.0, 20, (8, 2)) for count in (10, 100, 1000, 10_000)},
}
QUICK = Sizes(sites=12, cohort=5, mean_rows=8.0, batch_size=4, widths=(12, 8, 8, 5))
QUICKS = {
    **dict.fromkeys(WORKS, QUICK),
    "W2": Sizes(3, 3, 9.0, 0.0, 4, (6, 5, 1), "adam", 1e-3),
    "W3": Sizes(sites=12, cohort=5, mean_rows=8.0, batch_size=4, widths=(6, 3)),
    **dict.fromkeys(("W1S", "W2S", "W3S"), QUICK._replace(optimizer="controlled", method="scaffold")),
}


def site_rows(sizes: Sizes) -> np.ndarray:
    """int64[sites]: rows of each site, log-normal, 1 at least."""
    mu = np.log(sizes.mean_rows) - sizes.spread**2 / 2
    drawn = np.random.default_rng(SEED).lognormal(mu, sizes.spread, sizes.sites)
    return np.maximum(1, np.rint(drawn)).astype(np.int64)


def made_up_sites(sizes: Sizes) -> dict[str, Any]:
    """name -> SiteData: uniform inputs, uniform labels; of yes and no with one output."""
    from learner_jax.data.sites import SiteData

    counts, draw = site_rows(sizes), np.random.default_rng(SEED + 1)
    x = draw.random((counts.sum(), sizes.widths[0]), np.float32)
    binary = sizes.widths[-1] == 1
    y = draw.integers(0, 2 if binary else sizes.widths[-1], len(x), np.int32)
    y = y.astype(np.float32) if binary else y
    ends = np.cumsum(counts)
    return {
        f"s{k:04d}": SiteData({"x": x[end - n : end], "y": y[end - n : end]}, np.zeros(n, np.int8), np.arange(n), {})
        for k, (n, end) in enumerate(zip(counts, ends, strict=True))
    }


class Arms:
    """The arms of one process, built when first asked for; an arm is a function that gives the weights' leaves."""

    def __init__(self, sizes: Sizes, steps: int | None = None):
        import jax
        import jax.monitoring
        import optax

        from learner_jax.algorithms import fedavg, scaffold
        from learner_jax.engines.parts import objective
        from learner_jax.engines.world import Local, build_world
        from learner_jax.federate import federate
        from learner_jax.models import mlp

        self.sizes, self.compiled = sizes, 0
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        self.world = build_world(made_up_sites(sizes))
        model = mlp(hidden=sizes.widths[1:-1], outputs=sizes.widths[-1])
        params, stats = model.init(jax.random.key(SEED), jax.tree.map(lambda column: column[:2], self.world.rows))
        self.start = {"params": params, "stats": stats}
        binary = sizes.widths[-1] == 1
        score = optax.sigmoid_binary_cross_entropy if binary else optax.softmax_cross_entropy_with_integer_labels
        loss = objective(model, score)
        if sizes.method == "scaffold":
            self.federated = federate(scaffold(loss, local_lr=sizes.lr, by_rows=True))
        else:
            self.federated = federate(fedavg(loss, local_lr=sizes.lr, local=sizes.optimizer))
        self.local = Local(sizes.batch_size, 1, steps, SEED)
        self.x, self.y = self.world.rows["x"], self.world.rows["y"]
        # ---- the round's batches, from the plan that the engine itself follows
        program = self.program()
        (index,), (first,), (counts,) = program.draws(program.deal(self.cohort(ROUND)), ROUND)
        self.first, self.steps = first[0], counts[0]
        self.index = index[0][: self.steps.sum()]
        self.weights: loops.Weights = tuple((layer["kernel"], layer["bias"]) for layer in _layers(params))

    def work(self) -> peer_work.Work:
        """The round for other frameworks."""
        leaves = tuple(np.asarray(leaf) for layer in self.weights for leaf in layer)
        arrays = {name: np.asarray(getattr(self, name)) for name in peer_work.ARRAYS}
        return peer_work.Work(**arrays, start=leaves, lr=self.sizes.lr, optimizer=self.sizes.optimizer)

    def _heard(self, event: str, duration_secs: float, **kwargs: Any) -> None:
        self.compiled += event == "/jax/core/compile/backend_compile_duration"

    def cohort(self, number: int) -> np.ndarray:
        """int32: places of the sites asked in a round."""
        from learner_jax.data import plans

        ids = self.world.ids
        return np.searchsorted(ids, plans.cohort(SEED, number, ids, self.sizes.cohort)).astype(np.int32)

    def program(self, streams: int = 1, lanes: int = 1) -> Program:
        from learner_jax import trees
        from learner_jax.engines.program import Plan, Program

        plan = Plan(streams, lanes)
        return Program(self.federated, trees.shapes(self.start), self.world, self.local, plan, self.sizes.cohort)

    def engine(self, streams: int = 1, lanes: int = 1) -> Callable[..., list[Any]]:
        """A simulated round, host plans included."""
        import jax

        from learner_jax.engines.program import enrol_all

        program = self.program(streams, lanes)
        server = program.place(self.federated.init(self.start, jax.random.key(SEED)))
        states = program.place(enrol_all(self.federated, self.start, len(self.world.names)))

        def run(number: int = ROUND) -> list[Any]:
            nonlocal states  # they are consumed; the server's is not, so that each round starts alike
            outcome = program.round(server, states, number, self.cohort(number))
            states = outcome.states
            program.prepare(number, self.cohort(number))  # of the next round, while this one runs
            layers = _layers(_learned(outcome.server.learned))
            return [leaf for layer in layers for leaf in (layer["kernel"], layer["bias"])]

        return run

    def state_copy(self) -> Callable[..., list[Any]]:
        """Each site's control variate read and written once, by NumPy."""
        whole = [np.zeros((len(self.world.names), *leaf.shape), np.float32) for layer in self.weights for leaf in layer]
        new = [np.zeros_like(leaf) for leaf in whole]
        cohort = self.cohort(ROUND)

        def run() -> list[Any]:
            for place in cohort:
                for old, room in zip(whole, new, strict=True):
                    np.copyto(room[place], old[place])
            return []

        return run

    def make(self, name: str) -> Callable[..., list[Any]]:
        """The arm of a name."""
        import jax

        from benchmarks import loops

        x, y, index, weights = self.x, self.y, self.index, self.weights
        rule = getattr(loops, self.sizes.optimizer)(self.sizes.lr)
        name = name.removesuffix("_2_threads")
        engines = {"sequential": (1, 1), "lanes_4": (1, 4), "streams_2": (2, 1)}
        if name in engines:
            return self.engine(*engines[name])
        if name == "host_plan":
            program = self.program()
            return lambda: program.draws(program.deal(self.cohort(ROUND)), ROUND) and []
        if name == "state_copy":
            return self.state_copy()
        if name == "by_hand":
            step = loops.per_step(rule)
            return lambda: loops.averaged(step, weights, x, y, index, self.first, self.steps)
        if name == "padded_vmap":
            run, index = loops.padded_vmap(rule), loops.pad(index, self.first, self.steps)
        elif name == "gathered_scan":
            batches = loops.rows(x, y, index)
            run = loops.gathered_scan(rule)
            return lambda: jax.tree.leaves(run(weights, *batches))
        else:
            run = loops.per_step(rule) if name == "per_step" else loops.scan(rule, int(name.partition("_")[2] or 1))
        return lambda: jax.tree.leaves(run(weights, x, y, index))


def _learned(learned: Any) -> Any:
    """The parameters in a server's state, of FedAvg or of SCAFFOLD."""
    return learned.weights["params"]


def _layers(params: Any) -> list[dict[str, Any]]:
    """The dense layers of the package's perceptron, in order."""
    dense = params["dense"]
    return [dense[key] for key in sorted(dense, key=int)]


def answer_for(sizes: Sizes, began: float) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What a process answers: the work, an arm's first call, its weights, one timed call, its peak memory."""
    import jax

    from benchmarks import loops

    arms, made = Arms(sizes), {}
    built_s = time.perf_counter() - began
    few: list[Arms] = []  # of a short round, where one is asked for

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        name = str(question.get("arm"))
        if question["do"] == "describe":
            steps, used = arms.steps, np.sum(arms.index >= 0)
            return {
                "start_up_s": common.rounded(built_s),
                "steps": int(steps.sum()),
                "rows": int(used),
                "longest_steps": int(steps.max()),
                "padded_steps": int(steps.max()) * len(steps),
                "devices": len(jax.devices()),
            }
        if question["do"] == "first":
            measured, made[name] = common.timed(lambda: arms.make(name))
            called, leaves = common.timed(lambda: jax.block_until_ready(made[name]()))
            np.savez(question["into"], *[np.asarray(leaf) for leaf in leaves])
            np.savez(question["start"], *[np.asarray(leaf) for leaf in jax.tree.leaves(arms.weights)])
            return {"first_s": common.rounded(measured["wall_s"] + called["wall_s"])}
        if question["do"] == "write":  # for `benchmarks.simulator_peers`
            peer_work.write(Path(question["into"]), arms.work())
            return {}
        if question["do"] == "short":
            short, run = peer_work.shortened(arms.work()), loops.per_step(getattr(loops, sizes.optimizer)(sizes.lr))
            peer_work.write(Path(question["into"]), short)
            given = arms.weights, arms.x, arms.y, short.index
            np.savez(question["by_hand"], *loops.averaged(run, *given, short.first, short.steps))
            np.savez(question["scan"], *[np.asarray(leaf) for leaf in jax.tree.leaves(run(*given))])
            return {}
        if question["do"] == "peak":
            return peer_work.peak()
        if question["do"] == "few steps":
            few[:] = few or [Arms(sizes, SHORT)]
            np.savez(question["into"], *[np.asarray(leaf) for leaf in few[0].make(name)()])
            return {}
        if question["do"] == "other round":
            before = arms.compiled
            jax.block_until_ready(made[name](OTHER_ROUND))
            return {"compiled": arms.compiled - before}
        return common.timed(lambda: jax.block_until_ready(made[name]()))[0]

    return answer


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
    processes = {
        place: common.Process("benchmarks.simulator", ["--serve", *arguments], threads, devices)
        for place, (threads, devices, _) in arrangements.items()
    }
    home = {arm: processes[place] for place, (_, _, arms) in arrangements.items() for arm in arms}
    try:
        # ---- start, compile, compare
        work = {place: process.ask({"do": "describe"}) for place, process in processes.items()}
        first, leaves, start = _first_calls(home)
        if sizes.optimizer == "adam":
            agreed = agreement(_few_steps(home), start, sizes.optimizer) | {"whole": _far(leaves, start)}
        else:
            agreed = agreement(leaves, start, sizes.optimizer)
        again = {
            arm: home[arm].ask({"do": "other round", "arm": arm})["compiled"]
            for arm in ("sequential", "lanes_4", "streams_2")
        }
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
    off = {name: apart(leaves[name], leaves["by_hand"], start) for name in (*ROUNDS, "sequential_2_threads")}
    for name, distance in off.items():
        if not distance <= WHOLE:
            raise ValueError(f"expected the weights of '{name}' within {WHOLE} of those of 'by_hand', got {distance}")
    return common.rounded(max(off.values()))


def _load(path: Path) -> list[np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return [file[name] for name in file.files]


def _ratios(measured: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Each kind of round over the best centralised loop (by wall and by CPU time), and over the padded vmap."""
    best = {
        part: min(CENTRALISED, key=lambda arm: common.median(measured[arm], f"{part}_s")) for part in ("wall", "cpu")
    }

    def to_best(arm: str) -> dict[str, Any]:
        return {part: common.ratio(measured[arm], measured[loop])[part] for part, loop in best.items()}

    def to(arm: str, other: str) -> dict[str, Any]:
        return common.ratio(measured[arm], measured[other])

    engine = ("sequential", "lanes_4", "streams_2")
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
        "ratio_to_best_loop": {arm: to_best(arm) for arm in ROUNDS},
        "ratio_to_gathered_scan": {arm: to(arm, "gathered_scan") for arm in engine},
        "ratio_to_padded_vmap": {arm: to(arm, "padded_vmap") for arm in engine},
    }


def _a_site(measured: dict[str, list[dict[str, float]]], sites: int) -> dict[str, dict[str, float]]:
    """What a round takes beyond the best loop, by site: wall and CPU milliseconds."""
    found: dict[str, dict[str, float]] = {}
    for part in ("wall", "cpu"):
        least = min(common.median(measured[arm], f"{part}_s") for arm in CENTRALISED)
        for arm in ("sequential", "lanes_4", "streams_2"):
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
