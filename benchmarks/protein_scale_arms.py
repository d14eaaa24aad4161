"""The cells and the arms of `benchmarks.protein_scale`: what is run, each in a process of its own."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import common
from benchmarks.forecast import peak

if TYPE_CHECKING:
    from learner_jax.data.cells import Cells
    from learner_jax.specs import Study

LR, ROUND, SEED = 1e-3, 2, 0
TOLERANCE, LONG_TOLERANCE, LONG = 1e-2, 3e-2, 2000
"""Largest difference of weights, over the way from the start, that rounding in float32 explains, and in rounds of more
than LONG batches: 5e-6 was found after 574 of them, 7e-3 after 5,634, of which one site makes 700 steps with Adam."""


# ---- the cells -------------------------------------------------------------------------------------------------------


def write(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """A .h5ad for each laboratory, of log-normal sizes; what they hold, in numbers."""
    from learner_jax.data.simulated_cells import simulated_cells, to_anndata

    sizes = site_cells(asked["cells"], asked["sites"])
    made = {"counts": 0, "bytes": 0}
    for number in range(asked["sites"]):
        name = f"s{number:02d}"
        (cells,) = simulated_cells(
            asked["sites"], sizes, asked["genes"], asked["proteins"], SEED, only=[name]
        ).values()  # fmt: skip
        if asked.get("plant") == "shuffled":
            cells.protein[:] = cells.protein[np.random.default_rng(1).permutation(len(cells))]
        anndata = to_anndata(cells)
        anndata.write_h5ad(folder / f"{name}.h5ad")
        made["counts"] += int(cells.counts.nnz)
        made["bytes"] += (folder / f"{name}.h5ad").stat().st_size
    return {**made, "smallest": min(sizes), "largest": max(sizes)}


def site_cells(cells: int, sites: int) -> list[int]:
    """Cells of each laboratory, log-normal (sigma 0.7), which add up."""
    drawn = np.random.default_rng(SEED).lognormal(0.0, 0.7, sites)
    found = np.maximum(1, np.floor(cells * drawn / drawn.sum())).astype(int)
    found[int(np.argmax(found))] += cells - found.sum()
    return found.tolist()


class Clock:
    """Seconds by what they went into."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, what: str, f: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        found = f()
        self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - begun
        return found


def encode(checklist: Any, folder: Path, clock: Clock) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `data.sites.encode_sites` does, with one laboratory's counts in memory at a time: (fitted, rows by site)."""
    from learner_jax.data.cells_files import read_cells
    from learner_jax.leaves import site_ids
    from learner_jax.statistics import combine

    ids = site_ids([file.stem for file in folder.glob("*.h5ad")])
    names = sorted(ids, key=ids.__getitem__)

    def each() -> Iterator[tuple[str, Cells]]:
        for name in names:
            yield name, clock("read", lambda name=name: read_cells(folder / f"{name}.h5ad"))

    for name, cells in each():
        clock("check", lambda name=name, cells=cells: checklist.check(cells, f"site '{name}'"))
    fitted: dict[str, Any] = {}
    for one in checklist.statistics:
        total: dict[str, np.ndarray] | None = None
        for _, cells in each():
            mine = clock("sums", lambda cells=cells, one=one, fitted=fitted: one.measure(cells, fitted))
            total = mine if total is None else combine([total, mine])
        assert total is not None
        fitted = clock("fit", lambda one=one, total=total, fitted=fitted: one.fit(total, fitted))
    rows = {name: clock("encode", lambda cells=cells: checklist.encode(cells, fitted)) for name, cells in each()}
    return fitted, rows


# ---- arms ------------------------------------------------------------------------------------------------------------


def study_of(asked: Mapping[str, Any], dropout: float) -> Study:
    """The study."""
    from learner_jax import specs
    from learner_jax.data.simulated_cells import simulated_cells
    from learner_jax.specs import Spec, Study

    (one,) = simulated_cells(1, 1, asked["genes"], asked["proteins"], SEED).values()
    task = {"panel": one.proteins, "genes": tuple(map(str, one.genes)), "components": asked["components"]}
    hidden = tuple(int(width) for width in asked["hidden"].split(","))
    return specs.check(
        Study(
            name="scale", task=Spec("tasks", "proteins", task), rounds=asked["rounds"], batch_size=asked["batch_size"],
            model=Spec("models", "protein_net", {"hidden": hidden, "dropout": dropout}), target="valid/pearson",
            algorithm=Spec("algorithms", "columnwise", {"local": Spec("optimizers", "adam", {"learning_rate": LR})}),
            references=(), seed=SEED,
        )
    )  # fmt: skip


def by_hand(params: Mapping[str, Any]) -> dict[str, Any]:
    """Our network's weights as `protein_loops` has them."""
    dense = params["dense"]
    layers = tuple((dense[key]["kernel"], dense[key]["bias"]) for key in sorted(dense, key=int))
    return {"layers": layers, **{name: (params[name]["kernel"], params[name]["bias"]) for name in ("head", "skip")}}


class Whole:
    """From files to the study's last round, on all cores; its rows are kept for the others."""

    def __init__(self, asked: Mapping[str, Any], folder: Path):
        self.asked, self.folder = asked, folder

    def files(self) -> dict[str, Any]:
        """Files to rows: the seconds of each part, and the peak so far."""
        from learner_jax.build import build

        clock = Clock()
        self.parts = build(study_of(self.asked, self.asked["dropout"]))
        imported, begun = peak(os.getpid()), time.perf_counter()
        _, self.rows = encode(self.parts.task.checklist, self.folder, clock)
        whole = time.perf_counter() - begun
        keep_rows(self.folder, self.rows)
        parts = {name: common.rounded(one) for name, one in clock.seconds.items()}
        return {"files_to_rows_s": common.rounded(whole), **parts, "imports_peak": imported, "peak": peak(os.getpid())}

    def rounds(self) -> dict[str, Any]:
        """All rounds of the study, as `learner simulate` runs them."""
        from learner_jax.engines.simulator import simulate

        begun, ends, cpu = time.perf_counter(), [], time.process_time()

        def heard(event: Any) -> None:
            if event.kind == "round_closed":
                ends.append(time.perf_counter())

        trained, _ = simulate(self.parts, self.rows, None, heard)
        over, used = time.perf_counter(), time.process_time() - cpu
        told = [row["valid/pearson"] for row in trained.history.curve if "valid/pearson" in row]
        each = np.diff(ends) if len(ends) > 1 else np.array([ends[0] - begun])
        return {
            "rounds": len(ends), "first_round_s": common.rounded(ends[0] - begun),
            "all_rounds_s": common.rounded(over - begun), "cpu_s": common.rounded(used),
            "round_s": common.summary(each.tolist()), "valid_pearson": common.rounded(max(told)),
            "peak": peak(os.getpid()),
        }  # fmt: skip


def keep_rows(folder: Path, rows: Mapping[str, Any]) -> None:
    """All rows as files of arrays, in the order of site ids; no pickle."""
    np.save(folder / "x.npy", np.concatenate([site.rows["x"] for site in rows.values()]))
    np.save(folder / "y.npy", np.concatenate([site.rows["y"]["value"] for site in rows.values()]))
    np.save(folder / "split.npy", np.concatenate([site.split for site in rows.values()]))
    (folder / "sites.json").write_text(json.dumps({name: len(site.split) for name, site in rows.items()}))


def kept_rows(folder: Path) -> dict[str, Any]:
    """What `keep_rows` kept: name -> SiteData."""
    from learner_jax.data.sites import SiteData

    x, y, split = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("x", "y", "split"))
    found, at = {}, 0
    for name, count in json.loads((folder / "sites.json").read_text()).items():
        mine = slice(at, at + count)
        value = {"value": y[mine], "seen": np.ones(y[mine].shape, np.float32)}
        found[name] = SiteData({"x": x[mine], "y": value}, np.array(split[mine]), np.arange(count), {})
        at += count
    return found


class OneCore:
    """Rounds on one core, and what they are compared with."""

    def __init__(self, asked: Mapping[str, Any], folder: Path):
        import jax

        from learner_jax.build import build
        from learner_jax.engines.simulator import template_rows
        from learner_jax.engines.world import build_world

        self.asked, self.folder = asked, folder
        self.parts = {dropout: build(study_of(asked, dropout)) for dropout in {0.0, asked["dropout"]}}
        self.world = build_world(kept_rows(folder))
        self.start = self.parts[0.0].init_weights(template_rows(self.world))
        self.cohort = np.arange(len(self.world.names), dtype=np.int32)
        self.made: dict[str, Callable[[], Any]] = {}
        self.key = jax.random.key(SEED)

    def program(self, dropout: float, look: bool) -> tuple[Any, Any]:
        """(what is run, its rounds), with or without the look at validation cells."""
        from learner_jax import specs, trees
        from learner_jax.engines.parts import objective
        from learner_jax.engines.program import Program
        from learner_jax.federate import federate

        parts = self.parts[dropout]
        method = specs.make(parts.study.algorithm, objective(parts.model, parts.task.loss))
        federated = parts.federated if look else federate(method)
        return federated, Program(federated, trees.shapes(self.start), self.world, parts.local)

    def plan(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(index int32[T, B], first, steps int32[S]): the round's batches, from the plan that the engine follows."""
        program = self.program(0.0, False)[1]
        (index,), (first,), (steps,) = program.draws(program.deal(self.cohort), ROUND)
        return np.asarray(index[0][: steps[0].sum()]), np.asarray(first[0]), np.asarray(steps[0])

    def arm(self, dropout: float, look: bool) -> Callable[[], Any]:
        """One round of ours."""
        from learner_jax.engines.program import enrol_all

        federated, program = self.program(dropout, look)
        server = program.place(federated.init(self.start, self.key))

        def run() -> Any:
            states = enrol_all(federated, self.start, len(self.world.names))
            outcome = program.round(server, states, ROUND, self.cohort)
            return outcome.server.learned.weights["params"]

        return run

    def describe(self) -> dict[str, Any]:
        """Batches and the start, kept for the plain loop."""
        import jax

        index, first, _ = self.plan()
        np.save(self.folder / "index.npy", index)
        leaves = jax.tree.leaves(by_hand(self.start["params"]))
        np.savez(self.folder / "start.npz", *[np.asarray(leaf) for leaf in leaves])
        return {"batches": len(index), "training_cells": int(np.sum(index >= 0)), "sites": len(first)}

    def agreement(self) -> dict[str, Any]:
        """The round without dropout beside one by hand."""
        import jax

        from benchmarks import protein_loops as loops

        index, first, steps = self.plan()
        start, rows = by_hand(self.start["params"]), self.world.rows
        hand = loops.averaged(start, rows["x"], rows["y"]["value"], index, first, steps, LR)
        ours = jax.tree.leaves(by_hand(self.arm(0.0, False)()))
        tolerance = LONG_TOLERANCE if len(index) > LONG else TOLERANCE
        return {"apart": check(ours, hand, jax.tree.leaves(start), tolerance)}

    def time(self, arm: str) -> dict[str, float]:
        import jax

        if arm not in self.made:
            self.made[arm] = self.arm(self.asked["dropout"], arm == "one_core")
            jax.block_until_ready(self.made[arm]())
        return common.timed(lambda: jax.block_until_ready(self.made[arm]()))[0]


def check(ours: Sequence[Any], hand: Sequence[Any], start: Sequence[Any], tolerance: float = TOLERANCE) -> float:
    """||ours - hand|| / ||hand - start||, in float64.

    Raises:
      ValueError: it is more than rounding explains, or not a number.
    """
    from benchmarks.simulator import apart

    found = apart(*([np.asarray(leaf) for leaf in leaves] for leaves in (ours, hand, start)))
    if not found <= tolerance:
        raise ValueError(f"expected the round's weights within {tolerance:g} of those by hand, got {found:.3g}")
    return common.rounded(found)


class Plain:
    """One model through all batches of the round, in a process that does not import the package."""

    def __init__(self, asked: Mapping[str, Any], folder: Path):
        self.asked, self.folder = asked, folder
        self.run: Callable[[], Any] | None = None

    def time(self, arm: str) -> dict[str, float]:
        """One epoch; the first call also compiles, untimed."""
        import jax
        import jax.numpy as jnp

        from benchmarks import protein_loops as loops

        if self.run is None:
            x, y, index = (jnp.asarray(np.load(self.folder / f"{name}.npy")) for name in ("x", "y", "index"))
            with np.load(self.folder / "start.npz", allow_pickle=False) as file:
                leaves = [jnp.asarray(file[name]) for name in file.files]
            shape = {"layers": ((0, 0),) * (len(leaves) // 2 - 2), "head": (0, 0), "skip": (0, 0)}
            start, epoch = jax.tree.unflatten(jax.tree.structure(shape), leaves), loops.scan(LR, self.asked["dropout"])
            self.run = lambda: epoch(start, x, y, index)
            jax.block_until_ready(self.run())
        run = self.run
        return common.timed(lambda: jax.block_until_ready(run()))[0]
