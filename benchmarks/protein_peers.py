"""Surface proteins from RNA: a federation beside scikit-learn and scvi-tools' totalVI, on the same split, in one table.

    python -m benchmarks.protein_peers --file=pbmc10k_protein_v3.h5ad --totalvi_python=PATH --out=FILE.jsonl
    python -m benchmarks.protein_peers --file=learner_jax/samples/pbmc10k_cite_2000.h5ad --types=protein_cluster --quick

Each arm is a process of its own for each seed, in an order shuffled anew for each seed, with `--threads` threads (one:
two of torch's on a machine that others use wait for each other). Its seconds are from opening the file to predictions
for the test cells, compiling included and imports not; its peak (VmHWM) has the imports in it. All must name the same
proteins, test cells and measured values, or the run ends. Scores are the mean over proteins of Pearson's r over test
cells, and the root of the mean squared error over all entries.

    mean, ridge, knn, mlp, totalvi    `benchmarks.protein_by_hand`, in which it is said what they do
    federated                         four sites, by Dirichlet(0.3) over cell types; their weights averaged each round
    pooled                            the same network on the same cells in one place
    federated_ridge                   the four sites' sums; the penalty of PENALTIES by the validation cells

Ours keep a tenth of the training cells to choose the best round. `--plant=shuffled`: training cells swap their
proteins, and no arm may look good.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import common
from benchmarks.protein_by_hand import ARMS as BY_HAND
from benchmarks.protein_by_hand import about, clr, keep, peak

if TYPE_CHECKING:
    from learner_jax.data.cells import Cells
    from learner_jax.specs import Study

OURS = ("federated", "pooled", "federated_ridge")
PENALTIES = (0.01, 0.1, 1.0, 10.0)
SAME = ("proteins", "test_sha256", "measured_sha256")
"""What all arms must say alike."""


# ---- ours ------------------------------------------------------------------------------------------------------------


def split(cells: Cells, types: str, plant: str | None = None) -> tuple[Cells, dict[str, Cells]]:
    """(test cells, four sites): the split of `protein_by_hand.read`, and the data's own recipe for skewed sites.

    Args:
      cells: all of them; a split that they bring themselves is left out.
      types: the column of cell types.
      plant: "shuffled" as in `protein_by_hand.read`.
    """
    order = np.random.default_rng(0).permutation(len(cells))
    test, train = order[: len(cells) // 5], order[len(cells) // 5 :]
    kinds, draw = cells.obs[types].astype(str).to_numpy(), np.random.default_rng(0)
    cells = dataclasses.replace(cells, obs=cells.obs.drop(columns="split", errors="ignore"))
    if plant == "shuffled":
        protein = cells.protein.copy()
        protein[train] = protein[np.random.default_rng(1).permutation(train)]
        cells = dataclasses.replace(cells, protein=protein)
    of = np.full(len(cells), -1)
    for kind in sorted(set(kinds[train])):
        places = train[kinds[train] == kind]
        of[places] = draw.choice(4, len(places), p=draw.dirichlet([0.3] * 4))
    return cells.take(test), {f"site{number}": cells.take(np.flatnonzero(of == number)) for number in range(4)}


def study_of(
    arm: str, panel: tuple[str, ...], setting: Mapping[str, Any], seed: int, penalty: float | None = None
) -> Study:
    """The study of an arm."""
    from learner_jax import specs
    from learner_jax.specs import Engine, Spec, Study

    if arm == "federated_ridge":
        model, rounds = {"hidden": (), "dropout": 0.0}, 1
        algorithm = Spec("algorithms", "ridge", {"penalty": penalty})
    else:
        model, rounds = {"hidden": tuple(setting["hidden"]), "dropout": setting["dropout"]}, setting["rounds"]
        adam = Spec("optimizers", "adam", {"learning_rate": setting["learning_rate"]})
        name = "pooled" if arm == "pooled" else "columnwise"
        algorithm = Spec("algorithms", name, {"local": adam, "average": setting["average"]})
    task = {"panel": panel, "target": "clr_per_cell", "components": setting["components"], "test_share": 0.0}
    return specs.check(
        Study(
            name="proteins", task=Spec("tasks", "proteins", task), model=Spec("models", "protein_net", model),
            algorithm=algorithm, rounds=rounds, batch_size=setting["batch_size"], target="valid/pearson",
            references=(), seed=seed, engine=Engine(plan="sequential") if arm == "federated_ridge" else Engine(),
        )
    )  # fmt: skip


def ours(
    arm: str, file: str, setting: Mapping[str, Any], seed: int, types: str = "cell_type", plant: str | None = None
) -> dict[str, Any]:
    """One arm of ours, from the file to predictions in the target's own units.

    Returns:
      {"told": float64[n, P], "y": float64[n, P], "proteins", "barcodes", and what was chosen}.
    """
    from benchmarks import proteins as skewed_sites
    from learner_jax.build import build
    from learner_jax.data.cells_files import read_cells
    from learner_jax.data.sites import encode_sites
    from learner_jax.engines import judge

    cells = read_cells(Path(file))
    panel = tuple(sorted(cells.proteins))
    test, sites = split(cells, types, plant)
    checklist = build(study_of(arm, panel, setting, seed, 1.0)).task.checklist
    assert checklist is not None
    fitted, rows = encode_sites(checklist, sites)
    x = checklist.encode(test, fitted, labelled=False).rows["x"]
    if arm == "pooled":
        rows = {"pooled": judge.merge(list(rows.values()))}
    tried = []
    for penalty in PENALTIES if arm == "federated_ridge" else (None,):
        learned = skewed_sites.train(study_of(arm, panel, setting, seed, penalty), rows)
        tried.append((learned.figure, penalty, learned))
    valid, penalty, learned = max(tried, key=lambda one: one[0])
    output = learned.parts.task.judging.told(skewed_sites.predicted(learned, x), fitted)
    y = clr(test.panel(panel)[0].astype(np.float64))
    found = {"told": np.asarray(output["mean"]), "y": y, "proteins": list(panel), "barcodes": list(test.obs.index)}
    return {**found, "valid": round(valid, 4), "sites": {name: len(site) for name, site in sites.items()},
            **({} if penalty is None else {"penalty": penalty})}  # fmt: skip


def one(given: argparse.Namespace) -> dict[str, Any]:
    """An arm of ours in this process, timed; predictions are in the folder."""
    import anndata  # noqa: F401  what is measured is the work

    from benchmarks import proteins  # noqa: F401

    imported, begun, used = peak(), time.perf_counter(), time.process_time()
    found = ours(given.one, given.file, setting_of(given), given.seed, given.types, given.plant)
    told: dict[str, Any] = {"wall_s": time.perf_counter() - begun, "cpu_s": time.process_time() - used}
    told |= {"peak": peak(), "imports_peak": imported, "kept": keep(given.into, {given.one: found["told"]}, found["y"])}
    told |= about(found["proteins"], found["barcodes"], found["y"])
    told |= {name: found[name] for name in ("valid", "penalty") if name in found}
    return told | {"versions": common.versions("jax", "flax", "optax", "anndata", "numpy")}


def setting_of(given: argparse.Namespace) -> dict[str, Any]:
    """Of the networks."""
    names = ("learning_rate", "average", "dropout", "rounds", "components", "batch_size")
    return {**{name: getattr(given, name) for name in names}, "hidden": [int(w) for w in given.hidden.split(",")]}


# ---- scores ----------------------------------------------------------------------------------------------------------


def scores(told: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Pearson's r by protein (float[P]; 0 where either is the same for all cells), and the error over all entries.

    Args:
      told: float[n, P], predicted.
      y: float[n, P], measured.
    """
    a, b = told - told.mean(axis=0), y - y.mean(axis=0)
    length = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    r = np.where(length > 1e-9 * len(y), (a * b).sum(axis=0) / np.maximum(length, 1e-30), 0.0)
    return {"r": r, "pearson": float(r.mean()), "rmse": float(np.sqrt(np.mean((told - y) ** 2)))}


def agree(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """All arms have spoken of the same proteins of the same cells.

    Raises:
      SystemExit: one has not.
    """
    (first, runs), *_ = found.items()
    for arm, answers in found.items():
        for answer in answers:
            unlike = [name for name in SAME if answer[name] != runs[0][name]]
            if unlike:
                raise SystemExit(f"{arm}: expected the same as of {first}, got another {', '.join(unlike)}")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation over seeds."""
    return {"mean": round(float(np.mean(values)), 4), "sd": round(float(np.std(values)), 4), "n": len(values)}


def by_protein(proteins: Sequence[str], runs: Sequence[np.ndarray]) -> dict[str, float]:
    """Pearson's r of each, the mean over seeds."""
    return dict(zip(proteins, np.mean(runs, axis=0).round(4).tolist(), strict=True))


def table(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """For a terminal."""
    out = [f"{'':28}{'Pearson':>9}{'RMSE':>8}{'wall s':>9}{'CPU s':>9}{'peak GB':>9}"]
    for name, arm in arms.items():
        wall, cpu = arm["wall_s"]["median"], arm["cpu_s"]["median"]
        out.append(
            f"{name:28}{arm['pearson']['mean']:9.4f}{arm['rmse']['mean']:8.4f}{wall:9.1f}{cpu:9.1f}"
            f"{arm['peak'] / 1e9:9.2f}"
        )
    return out


# ---- the run ---------------------------------------------------------------------------------------------------------


def child(command: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """A process of its own whose last line is JSON.

    Raises:
      SystemExit: it failed; the last line that it wrote.
    """
    done = subprocess.run(command, capture_output=True, text=True, cwd=common.ROOT, env=dict(environment), check=False)
    if done.returncode:
        raise SystemExit((done.stderr.strip().splitlines() or [f"{command[2]} ended with {done.returncode}"])[-1])
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def command_of(arm: str, given: argparse.Namespace, seed: int, into: Path) -> list[str]:
    """Of one arm's process."""
    plant = [f"--plant={given.plant}"] if given.plant else []
    common_ = [f"--file={given.file}", f"--seed={seed}", f"--into={into}", *plant]
    if arm in BY_HAND:
        python = given.totalvi_python if arm == "totalvi" else sys.executable
        epochs = [f"--epochs={given.totalvi_epochs}"] if given.totalvi_epochs else []
        return [python, "-m", "benchmarks.protein_by_hand", f"--arm={arm}", *common_, *epochs]
    setting = [f"--{name}={value}" for name, value in setting_of(given).items() if name != "hidden"]
    own = [sys.executable, "-m", "benchmarks.protein_peers", f"--one={arm}", *common_]
    return [*own, *setting, f"--hidden={given.hidden}", f"--types={given.types}"]


def environment_of(threads: int) -> dict[str, str]:
    """So many threads for BLAS and torch; for jax so many devices of one thread, as `learner simulate` has it."""
    blas = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    devices = f"--xla_force_host_platform_device_count={threads}"
    return {**os.environ, **blas, "NPROC": "1", "XLA_FLAGS": devices, "JAX_PLATFORMS": "cpu"}


def run(given: argparse.Namespace, arms: Sequence[str]) -> dict[str, Any]:
    """All arms: {"arms": figures by prediction, "not_run": arm -> why}."""
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    missing: dict[str, str] = {}
    kept: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as place:

        def ask(arm: str) -> dict[str, float]:
            seed, into = len(found[arm]), Path(place) / "told.npz"
            if arm in missing or (arm == "totalvi" and seed >= given.totalvi_seeds):
                return {}
            try:
                answer = child(command_of(arm, given, seed, into), environment_of(given.threads))
            except (SystemExit, OSError) as error:
                if arm != "totalvi":
                    raise
                missing[arm] = str(error)
                return {}
            found[arm].append(answer)
            with np.load(into, allow_pickle=False) as file:
                for name in answer["kept"]:
                    kept.setdefault(name, []).append({**scores(file[name], file["measured"]), "arm": arm})
            print(f"{arm}, seed {seed}: {kept[answer['kept'][0]][-1]['pearson']:.4f}", file=sys.stderr, flush=True)
            return {}

        common.interleave({arm: lambda arm=arm: ask(arm) for arm in arms}, given.seeds)
    found = {arm: answers for arm, answers in found.items() if answers}
    agree(found)
    out: dict[str, Any] = {}
    for name in sorted(kept, key=lambda name: arms.index(kept[name][0]["arm"])):
        answers, runs = found[kept[name][0]["arm"]], kept[name]
        out[name] = {
            "pearson": spread([one["pearson"] for one in runs]),
            "rmse": spread([one["rmse"] for one in runs]),
            "by_protein": by_protein(answers[0]["proteins"], [one["r"] for one in runs]),
            "wall_s": common.summary([answer["wall_s"] for answer in answers]),
            "cpu_s": common.summary([answer["cpu_s"] for answer in answers]),
            "peak": max(answer["peak"] for answer in answers),
            "imports_peak": max(answer["imports_peak"] for answer in answers),
            **{key: answers[0][key] for key in ("epochs", "penalty", "valid") if key in answers[0]},
            "versions": answers[0]["versions"],
        }  # fmt: skip
    return {"arms": out, "not_run": missing}


def parser_of() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--file", required=True, help="a .h5ad with counts, proteins and cell_type")
    parser.add_argument("--types", default="cell_type", help="the column of cell types, by which sites are skewed")
    parser.add_argument("--arms", default=",".join([*BY_HAND, *OURS]))
    parser.add_argument("--seeds", type=int, default=3, help="runs of each arm")
    parser.add_argument("--threads", type=int, default=1, help="of each arm")
    parser.add_argument("--totalvi_python", default=sys.executable, help="a Python that has scvi-tools")
    parser.add_argument("--totalvi_seeds", type=int, default=1, help="runs of totalVI, of --seeds at most")
    parser.add_argument("--totalvi_epochs", type=int, help="its own choice where none is given")
    parser.add_argument("--hidden", default="256,128")
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--average", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--components", type=int, default=100)
    parser.add_argument("--plant", choices=["shuffled"], help="a fault that must be seen")
    parser.add_argument("--quick", action="store_true", help="one seed, 3 rounds, no totalVI: does it run")
    parser.add_argument("--out", type=Path, help="a file that the JSON line is added to")
    for hidden in ("--one", "--into", "--seed"):
        parser.add_argument(hidden, help=argparse.SUPPRESS, type={"--into": Path, "--seed": int}.get(hidden, str))
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    given = parser_of().parse_args(argv)
    given.file = str(Path(given.file).absolute())
    if given.one:
        print(json.dumps(one(given)))
        return
    if given.quick:
        given.seeds, given.rounds = 1, min(given.rounds, 3)
    arms = [arm for arm in given.arms.split(",") if not (given.quick and arm == "totalvi")]
    unknown = sorted(set(arms) - {*BY_HAND, *OURS})
    if unknown:
        raise SystemExit(f"expected arms among {', '.join([*BY_HAND, *OURS])}, got {', '.join(unknown)}")
    load = os.getloadavg()[0]
    line: dict[str, Any] = {"benchmark": "protein_peers", "file": Path(given.file).name, "quick": given.quick}
    line |= {
        "n": given.seeds,
        "threads": given.threads,
        "plant": given.plant,
        "setting": setting_of(given),
        **run(given, arms),
    }
    line |= {"load_before": common.rounded(load), "load_after": common.rounded(os.getloadavg()[0])}
    print("\n".join(table(line["arms"])), file=sys.stderr)
    common.emit({**line, "machine": common.machine()}, given.out)


if __name__ == "__main__":
    main()
