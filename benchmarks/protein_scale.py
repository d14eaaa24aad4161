"""A million made-up cells of twenty laboratories: from files to fifty rounds, beside a plain loop on the same rows.

    python -m benchmarks.protein_scale --cells=100000,1000000 --out=benchmarks/results/protein_scale.jsonl
    python -m benchmarks.protein_scale --quick              a small run: does it work, do the results agree

All cells are synthetic (`learner_jax.data.simulated_cells`): what is measured is time and memory, not learning. Each
laboratory's cells are made and written as .h5ad beforehand, untimed. Then, in one process:

files to round 1   each statistic reads, checks and sums a laboratory's file, one after the other, and so does the
                   encoding; of a laboratory's counts nothing is held once its scores are there. Then the first round,
                   compiling included.
fifty rounds       `engines.simulator.simulate`, on all cores, validation in each round included.

The same rows then train in three more ways, a round or an epoch at a time, shuffled anew in each repeat: one core, with
and without the look at validation cells, and `loop`: one plain `lax.scan` over the very batches of that round, in a
process of its own. Before anything is timed, the round without dropout is compared with each laboratory trained alone
by the plain step and averaged by hand; a difference ends the run. Cells a second: training cells over a round's time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.forecast import peak
from benchmarks.protein_scale_arms import OneCore, Plain, Whole, write

QUICK = {"cells": "2000", "sites": 4, "genes": 60, "proteins": 5, "components": 10, "hidden": "16,8", "rounds": 2}


# ---- the run ---------------------------------------------------------------------------------------------------------

ROLES: dict[str, tuple[Any, int | None]] = {"whole": (Whole, None), "one_core": (OneCore, 1), "plain": (Plain, 1)}
"""A process for each, and its devices: None for as many as cores."""
HOME = {"one_core": "one_core", "one_core_no_look": "one_core", "loop": "plain"}


def answer_for(role: str, asked: Mapping[str, Any], folder: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What a process answers."""
    made = ROLES[role][0](asked, folder)

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        if question["do"] == "time":
            return made.time(question["arm"])
        if question["do"] == "peak":
            return {"peak": peak(os.getpid())}
        return getattr(made, question["do"])()

    return answer


def run(asked: Mapping[str, Any], repeats: int) -> dict[str, Any]:
    """One size.

    Raises:
      ValueError, RuntimeError: the round and the one by hand disagree.
    """
    note(f"{asked['cells']:,} cells: making them")
    with tempfile.TemporaryDirectory() as place:
        folder, processes = Path(place), {}
        begun = time.perf_counter()
        made = child("make", asked, folder)
        made["made_s"] = common.rounded(time.perf_counter() - begun)

        def start(role: str) -> common.Process:
            devices = ROLES[role][1] or len(os.sched_getaffinity(0))
            arguments = [f"--serve={role}", f"--folder={folder}", f"--asked={json.dumps(dict(asked))}"]
            processes[role] = common.Process("benchmarks.protein_scale", arguments, 1, devices)
            return processes[role]

        try:
            whole = start("whole")
            files = whole.ask({"do": "files"})
            note(f"files to rows: {files}")
            for file in folder.glob("*.h5ad"):
                file.unlink()
            rounds = whole.ask({"do": "rounds"})
            note(f"rounds: {rounds}")
            whole.close()
            del processes["whole"]
            work = start("one_core").ask({"do": "describe"})
            agreed = processes["one_core"].ask({"do": "agreement"})
            start("plain")
            for arm in HOME:
                processes[HOME[arm]].ask({"do": "time", "arm": arm})  # compiled, once through
            measured = common.interleave(
                {arm: lambda arm=arm: processes[HOME[arm]].ask({"do": "time", "arm": arm}) for arm in HOME}, repeats
            )
            peaks = {role: process.ask({"do": "peak"})["peak"] for role, process in processes.items()}
        finally:
            for process in processes.values():
                process.close()
    cells = work["training_cells"]
    arms = {
        arm: {
            "wall_s": common.summary([one["wall_s"] for one in runs]),
            "cpu_s": common.summary([one["cpu_s"] for one in runs]),
            "cells_per_s": common.rounded(cells / common.median(runs, "wall_s")),
            "peak": peaks[HOME[arm]],
        }
        for arm, runs in measured.items()
    }
    all_cores = {"cells_per_s": common.rounded(cells / rounds["round_s"]["median"])}
    ratio = {arm: common.ratio(measured[arm], measured["loop"]) for arm in HOME if arm != "loop"}
    return {**work, "made": made, "files": files, "study": {**rounds, **all_cores}, "arms": arms,
            "ratio_to_loop": ratio, "agreement": agreed["apart"]}  # fmt: skip


def child(role: str, asked: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A process of its own that answers once and ends, so that what it held is held no more."""
    process = common.Process(
        "benchmarks.protein_scale",
        [f"--serve={role}", f"--folder={folder}", f"--asked={json.dumps(dict(asked))}"],
        1,
        1,
    )
    try:
        return process.ask({"do": role})
    finally:
        process.close()


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def words(found: Mapping[str, Any]) -> list[str]:
    """One size, for a terminal."""
    files, study = found["files"], found["study"]
    out = [
        f"{found['training_cells']:,} training cells at {found['sites']} sites: files to rows "
        f"{files['files_to_rows_s']} s, first round {study['first_round_s']} s, {study['rounds']} rounds "
        f"{study['all_rounds_s']} s; peak {study['peak'] / 1e9:.2f} GB"
    ]
    arms = {"all cores, validation": study["cells_per_s"], **{k: v["cells_per_s"] for k, v in found["arms"].items()}}
    return out + [f"  {name:24}{speed:12,.0f} cells/s" for name, speed in arms.items()]


def parser_of() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--cells", default="100000,1000000", help="one size or several, one after the other")
    parser.add_argument("--sites", type=int, default=20)
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument("--proteins", type=int, default=20)
    parser.add_argument("--components", type=int, default=50)
    parser.add_argument("--hidden", default="256,128")
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5, help="timings of each arm beside the study's own rounds")
    parser.add_argument("--plant", choices=["shuffled"], help="a fault that must be seen: cells swap their proteins")
    parser.add_argument("--quick", action="store_true", help="a small run; the times mean nothing")
    parser.add_argument("--out", type=Path, help="a file that the JSON line is added to")
    for hidden in ("--serve", "--folder", "--asked"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    given = parser_of().parse_args(argv)
    if given.serve:
        asked, folder = json.loads(given.asked), Path(given.folder)
        making = given.serve == "make"
        common.serve((lambda question: write(folder, asked)) if making else answer_for(given.serve, asked, folder))
        return
    if given.quick:
        for name, value in QUICK.items():
            setattr(given, name, value)
        given.repeats = min(given.repeats, 2)
    names = ("sites", "genes", "proteins", "components", "hidden", "dropout", "batch_size", "rounds", "plant")
    asked = {name: getattr(given, name) for name in names}
    load = os.getloadavg()[0]
    found = {cells: run({**asked, "cells": int(cells)}, given.repeats) for cells in given.cells.split(",")}
    for one in found.values():
        note("\n".join(words(one)))
    line = {"benchmark": "protein_scale", "synthetic": True, "quick": given.quick, "asked": asked, "n": given.repeats}
    line |= {"by_cells": found, "load_before": common.rounded(load), "load_after": common.rounded(os.getloadavg()[0])}
    line |= {"machine": common.machine(), "versions": common.versions("jax", "flax", "optax", "numpy", "anndata")}
    common.emit(line, given.out)


if __name__ == "__main__":
    main()
