"""The pieces of work of `benchmarks.simulator`, and its arms: rounds of ours and plain loops over their batches."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks import common, peer_work

if TYPE_CHECKING:
    from learner_jax.engines.program import Program

ROUND, OTHER_ROUND, SEED = 2, 3, 0
SHORT = 3
"""Steps a site of the round that is compared where rounding grows."""


class Sizes(NamedTuple):
    """What is run; `spread` is the standard deviation of the logarithm of a site's rows, `widths` are of `networks`."""

    sites: int = 1000
    cohort: int = 200
    mean_rows: float = 100.0
    spread: float = 1.0
    batch_size: int = 20
    widths: tuple[int, ...] = (784, 200, 200, 62)
    optimizer: str = "sgd"
    lr: float = 0.05
    method: str = "fedavg"
    network: str = "perceptron"

    @property
    def grows(self) -> bool:
        """Whether rounding grows with each step: Adam divides by it, and of four neighbours another may be larger."""
        return self.optimizer == "adam" or self.network == "convolutions"


WORKS = {
    "W1": Sizes(),
    "W2": Sizes(8, 8, 5000.0, 0.0, 64, (512, 256, 128, 1), "adam", 1e-3),
    "W1C": Sizes(cohort=20, widths=(28, 28, 1, 32, 64, 128, 62), lr=0.002, network="convolutions"),
    "W3": Sizes(cohort=500, widths=(60, 10)),
    "W4": Sizes(8, 8, 24.0, 0.0, 8, (1000, 64, 256, 12, 4, 10), "adam", 1e-4, network="transformer"),
    "W1S": Sizes(optimizer="controlled", method="scaffold"),
    "W2S": Sizes(8, 8, 5000.0, 0.0, 64, (512, 256, 128, 1), "controlled", 0.01, "scaffold"),
    "W3S": Sizes(cohort=500, widths=(60, 10), optimizer="controlled", method="scaffold"),
    **{f"T{count}": Sizes(count, count, 20.0, 0.0, 20, (8, 2)) for count in (10, 100, 1000, 10_000)},
}
QUICK = Sizes(sites=12, cohort=5, mean_rows=8.0, batch_size=4, widths=(12, 8, 8, 5))
QUICKS = {
    **dict.fromkeys(WORKS, QUICK),
    "W2": Sizes(3, 3, 9.0, 0.0, 4, (6, 5, 1), "adam", 1e-3),
    "W1C": QUICK._replace(widths=(8, 8, 1, 3, 4, 6, 5), network="convolutions"),
    "W4": Sizes(3, 3, 9.0, 0.0, 4, (20, 6, 64, 2, 1, 3), "adam", 1e-3, network="transformer"),
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
    from benchmarks import networks
    from learner_jax.data.sites import SiteData

    counts, draw = site_rows(sizes), np.random.default_rng(SEED + 1)
    x = networks.inputs(sizes.network, sizes.widths, int(counts.sum()), draw)
    binary = sizes.widths[-1] == 1
    y = draw.integers(0, 2 if binary else sizes.widths[-1], len(x), np.int32)
    y = y.astype(np.float32) if binary else y
    ends = np.cumsum(counts)
    return {
        f"s{k:04d}": SiteData({"x": x[end - n : end], "y": y[end - n : end]}, np.zeros(n, np.int8), np.arange(n), {})
        for k, (n, end) in enumerate(zip(counts, ends, strict=True))
    }


class Arms:
    """The arms of one process, built when first asked for; an arm is a function that gives the weights' leaves.

    Args:
      sizes: of the work.
      steps: of each site; None: an epoch.
      dtype: of rows and weights.
    """

    def __init__(self, sizes: Sizes, steps: int | None = None, dtype: Any = np.float32):
        import jax
        import jax.monitoring
        import optax

        from benchmarks import loops, networks
        from learner_jax.algorithms import fedavg, scaffold
        from learner_jax.engines.parts import objective
        from learner_jax.engines.world import Local, build_world
        from learner_jax.federate import federate

        self.sizes, self.compiled = sizes, 0
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        self.world = build_world(made_up_sites(sizes), dtype)
        model = networks.model(sizes.network, sizes.widths)
        self.network: loops.Network = getattr(loops, sizes.network)
        params, stats = model.init(jax.random.key(SEED), jax.tree.map(lambda column: column[:2], self.world.rows))
        params, stats = (jax.tree.map(lambda leaf: leaf.astype(dtype), part) for part in (params, stats))
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
        self._plans = program = self.program()
        (index,), (first,), (counts,) = program.draws(program.deal(self.cohort(ROUND)), ROUND)
        self.first, self.steps = first[0], counts[0]
        self.index = index[0][: self.steps.sum()]
        self.weights: loops.Weights = networks.by_hand(sizes.network, params)

    def work(self) -> peer_work.Work:
        """The round for other frameworks."""
        import jax

        leaves = tuple(np.asarray(leaf) for leaf in jax.tree.leaves(self.weights))
        arrays = {name: np.asarray(getattr(self, name)) for name in peer_work.ARRAYS}
        sizes = self.sizes
        return peer_work.Work(**arrays, start=leaves, lr=sizes.lr, optimizer=sizes.optimizer, network=sizes.network)

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

        from benchmarks import networks
        from learner_jax.engines.program import enrol_all

        program = self.program(streams, lanes)
        server = program.place(self.federated.init(self.start, jax.random.key(SEED)))
        states = program.place(enrol_all(self.federated, self.start, len(self.world.names)))

        def run(number: int = ROUND) -> list[Any]:
            nonlocal states  # they are consumed; the server's is not, so that each round starts alike
            outcome = program.round(server, states, number, self.cohort(number))
            states = outcome.states
            program.prepare(number, self.cohort(number))  # of the next round, while this one runs
            return jax.tree.leaves(networks.by_hand(self.sizes.network, outcome.server.learned.weights["params"]))

        return run

    def studied(self, rounds: int, streams: int = 1) -> list[Any]:
        """The leaves of the weights after rounds that go on from each other, of cohorts of their own."""
        import jax

        from benchmarks import networks
        from learner_jax.engines.program import enrol_all

        program = self.program(streams)
        server = program.place(self.federated.init(self.start, jax.random.key(SEED)))
        states = program.place(enrol_all(self.federated, self.start, len(self.world.names)))
        for number in range(1, rounds + 1):
            outcome = program.round(server, states, number, self.cohort(number))
            server, states = outcome.server, outcome.states
        return jax.tree.leaves(networks.by_hand(self.sizes.network, server.learned.weights["params"]))

    def steps_of(self, number: int) -> np.ndarray:
        """int32: the steps of each site of a round."""
        return self._plans.steps[self.cohort(number)]

    def state_copy(self) -> Callable[..., list[Any]]:
        """Each site's control variate read and written once, by NumPy."""
        import jax

        leaves = jax.tree.leaves(self.weights)
        whole = [np.zeros((len(self.world.names), *leaf.shape), np.float32) for leaf in leaves]
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
        rule, network = getattr(loops, self.sizes.optimizer)(self.sizes.lr), self.network
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
            step = loops.per_step(rule, network)
            return lambda: loops.averaged(step, weights, x, y, index, self.first, self.steps)
        if name == "padded_vmap":
            run, index = loops.padded_vmap(rule, network), loops.pad(index, self.first, self.steps)
        elif name == "gathered_scan":
            batches = loops.rows(x, y, index)
            run = loops.gathered_scan(rule, network)
            return lambda: jax.tree.leaves(run(weights, *batches))
        else:
            unroll = int(name.partition("_")[2] or 1) if name != "per_step" else 0
            run = loops.scan(rule, unroll, network) if unroll else loops.per_step(rule, network)
        return lambda: jax.tree.leaves(run(weights, x, y, index))


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
            rule = getattr(loops, sizes.optimizer)(sizes.lr)
            short, run = peer_work.shortened(arms.work()), loops.per_step(rule, arms.network)
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
