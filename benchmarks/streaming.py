"""What it costs that examples do not fit: rounds over blocks from the host and its disk, beside rows on the device.

    python -m benchmarks.streaming --out=FILE          some minutes, 0.6 GB of a temporary folder; one JSON line a work
    python -m benchmarks.streaming --quick             tiny sizes: does it run, are the weights the same

Works: `few`, 8 sites of 32,768 rows of 512 inputs, a perceptron 512-256-128-1, batch 64, Adam: each site has more rows
than a block, and comes in steps; `many`, 1,500 log-normal sites, mean 100 rows of 784 inputs, a perceptron
784-200-200-62, batch 20, SGD: a block holds many of them. Everyone takes part, one epoch. A quarter of the rows' bytes
may be on each device, in two blocks: rows are four times as many as are allowed.

Arms, each in a process of its own, with one device and with two: `resident` (rows on the device, as ever), `host` (in
the host's memory, in blocks), `disk` (mapped files, in blocks; before each round the system is told to forget their
pages, so that they are read from the disk). All start alike, follow the same plan, and with one device must end in the
same bits. Peak memory is the process's own, above what it took before it saw a row. `unpack`: what zarr and Parquet
take, once, before the first round, in bytes of rows a second.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import common

ARMS = ("resident", "host", "disk")
SEED = 3
_UNPACKED = 2**26  # bytes


class Sizes(NamedTuple):
    """A work: rows of each site, the perceptron's widths, batch size, the local optimizer and its learning rate."""

    rows: list[int]
    widths: list[int]
    batch_size: int
    optimizer: str
    lr: float

    @property
    def nbytes(self) -> int:
        """Of all rows, float32 inputs and an outcome of four bytes."""
        return sum(self.rows) * 4 * (self.widths[0] + 1)


def sizes_of(work: str, quick: bool) -> Sizes:
    """The sizes of "few" or "many"."""
    if work == "few":
        rows, widths = [1200 if quick else 32768] * 8, [300, 8, 1] if quick else [512, 256, 128, 1]
        return Sizes(rows, widths, 64, "adam", 1e-3)
    draw = np.random.default_rng(SEED).lognormal(4.106, 1.0, 40 if quick else 1500)  # mean 100
    widths = [200, 8, 5] if quick else [784, 200, 200, 62]
    return Sizes(np.maximum(1, draw.astype(int)).tolist(), widths, 20, "sgd", 0.05)


def write_rows(sizes: Sizes, folder: Path) -> None:
    """All sites' rows in one file of inputs and one of outcomes."""
    draw, total = np.random.default_rng(SEED), sum(sizes.rows)
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (total, sizes.widths[0]))
    for start in range(0, total, 65536):
        x[start : start + 65536] = draw.random(x[start : start + 65536].shape, np.float32)
    x.flush()
    binary = sizes.widths[-1] == 1
    y = draw.integers(0, 2 if binary else sizes.widths[-1], total, np.int32)
    np.save(folder / "y.npy", y.astype(np.float32) if binary else y)


class Arm:
    """One arm: rounds of the work, answered one by one."""

    def __init__(self, name: str, sizes: Sizes, folder: Path, streams: int):
        import jax
        import optax

        from learner_jax import trees
        from learner_jax.algorithms import fedavg
        from learner_jax.data.sites import SiteData
        from learner_jax.engines.parts import objective
        from learner_jax.engines.program import Plan, enrol_all
        from learner_jax.engines.streamed import is_streamed, program_over, world_of
        from learner_jax.engines.world import Local
        from learner_jax.federate import federate
        from learner_jax.models import mlp
        from learner_jax.specs import Engine

        jax.block_until_ready(jax.jit(lambda x: x + 1)(np.zeros(8, np.float32)))
        self._begun, self._name, self._file = _resident_bytes(), name, folder / "x.npy"
        x, y = np.load(self._file, mmap_mode="r" if name == "disk" else None), np.load(folder / "y.npy")
        ends = np.cumsum(sizes.rows)
        sites = {
            f"s{k:04d}": SiteData(
                {"x": x[end - n : end], "y": y[end - n : end]}, np.zeros(n, np.int8), np.arange(n), {}
            )
            for k, (n, end) in enumerate(zip(sizes.rows, ends.tolist(), strict=True))
        }
        engine = Engine(rows_mib=None if name == "resident" else max(1, sizes.nbytes // 4 // 2**20))
        world = world_of(engine, sites, np.float32)
        if name == "resident":
            del x, sites
        model = mlp(hidden=tuple(sizes.widths[1:-1]), outputs=sizes.widths[-1])
        params, stats = model.init(jax.random.key(SEED), jax.tree.map(lambda column: column[:2], world.rows))
        start = {"params": params, "stats": stats}
        score = optax.sigmoid_binary_cross_entropy if sizes.widths[-1] == 1 else (
            optax.softmax_cross_entropy_with_integer_labels
        )  # fmt: skip
        federated = federate(fedavg(objective(model, score), local_lr=sizes.lr, local=sizes.optimizer))
        local = Local(sizes.batch_size, 1, None, SEED)
        plan = Plan(streams, 1)
        self._program = program_over(engine, world, plan)(federated, trees.shapes(start), world, local, plan)
        if is_streamed(world) == (name == "resident"):
            raise RuntimeError(f"expected rows on the device in the arm 'resident' alone, got {name}")
        self._everyone = np.arange(len(world.names), dtype=np.int32)
        self._server = self._program.place(federated.init(start, jax.random.key(SEED)))
        self._states = self._program.place(enrol_all(federated, start, len(world.names)))

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """A round, timed, or the memory."""
        import jax

        from learner_jax import trees
        from learner_jax.engines.expected import peak_bytes

        if question["ask"] == "memory":
            return {"peak": peak_bytes(), "begun": self._begun}
        if self._name == "disk":
            with self._file.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        took, outcome = common.timed(
            lambda: jax.block_until_ready(self._program.round(self._server, self._states, 1, self._everyone))
        )
        self._states = outcome.states
        return {**took, "digest": trees.digest_hex(outcome.digest)}


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def unpacked(sizes: Sizes, folder: Path, rows: int) -> dict[str, float]:
    """Bytes of rows a second that are unpacked of zarr (4,096 rows and all columns a chunk, Zstandard) and of Parquet
    (Snappy, 16,384 rows a group)."""
    import pyarrow as pa
    import pyarrow.parquet as parquet
    import zarr

    from learner_jax.data.columns import ParquetColumns, mapped

    x = np.load(folder / "x.npy", mmap_mode="r")[:rows]
    packed = zarr.open_array(folder / "x.zarr", mode="w", shape=x.shape, chunks=(4096, x.shape[1]), dtype="float32")
    packed[:] = x
    names = [f"c{i}" for i in range(x.shape[1])]
    table = pa.table({name: np.ascontiguousarray(x[:, i]) for i, name in enumerate(names)})
    parquet.write_table(table, folder / "x.parquet", row_group_size=16384)
    found = {}
    for name, source in {"zarr": packed, "parquet": ParquetColumns(folder / "x.parquet", names)}.items():
        begun = time.perf_counter()
        again = mapped(source, folder)
        found[name] = common.rounded(x.nbytes / (time.perf_counter() - begun))
        np.testing.assert_array_equal(again[-9:], x[-9:])
    return found


def measure(work: str, quick: bool, repeats: int) -> dict[str, Any]:
    """One work's line."""
    sizes, load = sizes_of(work, quick), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_rows(sizes, folder)
        packed = unpacked(sizes, folder, min(sum(sizes.rows), _UNPACKED // (4 * sizes.widths[0])))
        arms = {f"{name}_{streams}": (name, streams) for streams in (1, 2) for name in ARMS}
        processes = {
            key: common.Process(
                "benchmarks.streaming",
                [f"--arm={json.dumps([name, sizes._asdict(), place, streams])}"],
                1,
                streams,
            )
            for key, (name, streams) in arms.items()
        }
        try:
            digests = {key: process.ask({"ask": "round"})["digest"] for key, process in processes.items()}  # compiles
            measured = common.interleave(
                {key: lambda process=process: process.ask({"ask": "round"}) for key, process in processes.items()},
                repeats,
            )
            memory = {key: process.ask({"ask": "memory"}) for key, process in processes.items()}
        finally:
            for process in processes.values():
                process.close()
    if len({digests[key] for key, (_, streams) in arms.items() if streams == 1}) != 1:
        raise RuntimeError(f"expected the same weights of all arms with one device, got {digests}")
    rows = sum(sizes.rows)
    line = {
        "benchmark": "streaming",
        "name": work,
        **({"quick": True} if quick else {}),
        "inputs": "synthetic",
        "sizes": {"sites": len(sizes.rows), "rows": rows, "bytes": sizes.nbytes, "allowed": sizes.nbytes // 4,
                  "widths": sizes.widths, "batch_size": sizes.batch_size, "optimizer": sizes.optimizer},
        "n": repeats,
        "round_s": {key: common.summary([m["wall_s"] for m in measured[key]]) for key in arms},
        "cpu_s": {key: common.summary([m["cpu_s"] for m in measured[key]]) for key in arms},
        "rows_a_second": {key: common.rounded(rows / common.median(measured[key], "wall_s")) for key in arms},
        "over_resident": {
            key: common.ratio(measured[key], measured[f"resident_{streams}"])
            for key, (name, streams) in arms.items() if name != "resident"
        },
        "peak_above_start": {key: one["peak"] - one["begun"] for key, one in memory.items()},
        "start": {key: one["begun"] for key, one in memory.items()},
        "unpack_bytes_s": packed,
        "same_weights": True,
        "load_before": common.rounded(load),
        "machine": common.machine(),
        "versions": common.versions("jax", "jaxlib", "flax", "optax", "numpy", "zarr", "pyarrow"),
    }  # fmt: skip
    for key in arms:
        over, peak = line["over_resident"].get(key), line["peak_above_start"][key] / sizes.nbytes
        beside = "" if over is None else f", {over['wall']['paired']:.3f} of resident"
        took = line["round_s"][key]["median"]
        print(f"{work} {key:11} {took:.3f} s a round{beside}; peak {peak:.2f} of the rows' bytes", file=sys.stderr)
    return line


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.streaming", description="Rounds over rows that do not fit.")
    parser.add_argument("--work", choices=("few", "many"), help="one of them (both)")
    parser.add_argument("--repeats", type=int, help="how often each arm runs a round (7; with --quick 2)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; the times mean nothing")
    parser.add_argument("--out", type=Path, help="a file that the JSON lines are added to")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    flags = parser.parse_args(argv)
    if flags.arm:
        name, sizes, folder, streams = json.loads(flags.arm)
        common.serve(Arm(name, Sizes(**sizes), Path(folder), streams).answer)
        return
    for work in [flags.work] if flags.work else ["few", "many"]:
        common.emit(measure(work, flags.quick, flags.repeats or (2 if flags.quick else 7)), flags.out)


if __name__ == "__main__":
    main()
