"""Surface proteins from RNA on real CITE-seq: four skewed sites, three laboratories, and panels that do not match.

    python -m benchmarks.proteins --data=FOLDER --part=sites --out=benchmarks/results/proteins.jsonl

`--data` is the folder with pbmc10k_protein_v3.h5ad, pbmc_pitt_inhouse.h5ad and pbmc_eccite_control.h5ad. Parts:

sites         pbmc10k, five splits of the cells (1,371 are test) x five seeds; of each split four sites by
              Dirichlet(0.3) over cell types. Federated, in one place and each site alone (one seed), on the same cells.
laboratories  one laboratory left out: the two others as a federation, in one place, and each of them alone.
panels        the four sites, each without 5 of the 14 proteins: columns averaged over those that measure them, over
              all, all cells in one place with the same measurements missing, and whole panels.

Each split has a search of its own, by its validation cells (a tenth of the training cells), so that no cell judges
what it chose: twelve settings federated (rate, width and dropout, a proximal term or none) and twelve in one place
(rate, width and dropout, averaged over rounds or not); each site alone takes the latter's choice. Laboratories: a
search by the validation cells of the two that train. Panels: the settings of the split, from whole panels.

Figures are the mean over proteins of the Pearson correlation over test cells. Differences are paired; their interval
is Student's t over the splits, corrected for the cells that they share, of which each is the mean of its seeds, and for
laboratories, of which each is one, over 1,000 draws of test cells, the mean over seeds in each: how it would be at
other cells of that laboratory, not at other laboratories.

Intervals are the model's 80 % ones, moved by what the watched cells of the sites that took part tell, as every study
moves them ("coverage"; "coverage_before" as the network tells them); at a laboratory that was left out also by 100 of
its own cells, the others judged ("coverage_set_right_there"; inputs and targets less the mean of all of its cells).
The single laboratory that federated is held against is the best by the test figure, which favours it. That inputs less
the laboratory's own mean carry over was seen in trials that also showed these test figures: they are not blind.
"""

from __future__ import annotations

import dataclasses
import os

os.environ.setdefault("NPROC", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=1 --xla_cpu_multi_thread_eigen=false")

import itertools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags
from scipy import stats

from benchmarks import common
from learner_jax import specs
from learner_jax.build import build
from learner_jax.data.cells import Cells
from learner_jax.data.cells_files import read_cells
from learner_jax.data.sites import SiteData, encode_sites
from learner_jax.data.told_arrays import array
from learner_jax.engines import calibrate, judge
from learner_jax.engines.simulator import simulate, template_rows
from learner_jax.evaluation.bootstrap import generator
from learner_jax.evaluation.conformal import outside, widened, widening
from learner_jax.specs import Spec, Study

_DATA = flags.DEFINE_string("data", None, "folder of the .h5ad files", required=True)
_PART = flags.DEFINE_enum("part", "sites", ["sites", "laboratories", "panels"], "see above")
_OUT = flags.DEFINE_string("out", None, "file that one JSON line is added to")
_SEEDS = flags.DEFINE_integer("seeds", 5, "seeds of the training", lower_bound=1)
_SPLITS = flags.DEFINE_integer("splits", 5, "splits of the cells", lower_bound=1)
_PLANT = flags.DEFINE_enum("plant", None, ["shuffled"], "a fault that must be seen: cells lose their proteins")

_GRID = list(itertools.product((1e-3, 3e-3, 1e-2), (0, 1), ((0.3, (256, 128)), (0.5, (512, 256)))))
SEARCH = {
    "federated": [
        {"rate": rate, "mu": (0.0, 0.01)[choice], "average": 0.9, "dropout": dropout, "hidden": hidden}
        for rate, choice, (dropout, hidden) in _GRID
    ],
    "pooled": [
        {"rate": rate, "average": (0.0, 0.9)[choice], "dropout": dropout, "hidden": hidden}
        for rate, choice, (dropout, hidden) in _GRID
    ],
}
ROUNDS, BATCH = 60, 128
TEST_TO_TRAIN = 1371 / 5484
SHARED = ("CD127", "CD14", "CD16", "CD19", "CD3", "CD4", "CD56", "CD8")
FILES = {"10x": "pbmc10k_protein_v3", "pittsburgh": "pbmc_pitt_inhouse", "eccite": "pbmc_eccite_control"}


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation over runs."""
    return {"mean": round(float(np.mean(values)), 4), "sd": round(float(np.std(values)), 4), "n": len(values)}


def study_of(task: Mapping[str, Any], algorithm: str, setting: Mapping[str, Any], seed: int) -> Study:
    adam = Spec("optimizers", "adam", {"learning_rate": setting["rate"]})
    name, pull = algorithm, {"mu": setting["mu"]} if setting.get("mu") and algorithm != "pooled" else {}
    algorithm = "fedprox" if pull and name == "fedavg" else name
    return specs.check(
        Study(
            name="proteins",
            task=Spec("tasks", "proteins", {"test_share": 0.0, **task}),
            model=Spec("models", "protein_net", {"hidden": setting["hidden"], "dropout": setting["dropout"]}),
            algorithm=Spec("algorithms", algorithm, {"local": adam, "average": setting["average"], **pull}),
            rounds=ROUNDS,
            batch_size=BATCH,
            target="valid/pearson",
            references=(),
            seed=seed,
        )
    )


class Learned(NamedTuple):
    """A study's parts, the best round's weights, its figure on the validation cells, what moves its intervals."""

    parts: Any
    weights: Any
    figure: float
    move: np.ndarray


def train(study: Study, sites: Mapping[str, SiteData]) -> Learned:
    parts = build(study)
    trained, world = simulate(parts, sites)
    fresh = parts.federated.enrol(parts.init_weights(template_rows(world)))
    weights = parts.federated.model(parts.federated.send(trained.best), fresh)
    told = [row["valid/pearson"] for row in trained.history.curve if "valid/pearson" in row]
    move = calibrate.moves(parts, sites, world, {"federated": [weights] * len(world.names)})["federated"][0]
    return Learned(parts, weights, max(told, default=float("nan")), move)


def predicted(learned: Learned, x: Any) -> dict[str, np.ndarray]:
    return judge.predictor(learned.parts)(learned.weights, {"x": x})


def inside(output: Mapping[str, np.ndarray], y: np.ndarray, by: np.ndarray | float = 0.0) -> np.ndarray:
    """Share of each protein's values that are in their intervals, moved by so much."""
    low, high = widened(output["low"], output["high"], by)
    return ((low <= y) & (y <= high)).mean(axis=0)


def encoded(task: Mapping[str, Any], sites: Mapping[str, Cells]) -> tuple[Any, dict[str, SiteData]]:
    """(what is fitted, rows of each site)."""
    checklist = build(study_of(task, "fedavg", SEARCH["pooled"][0], 0)).task.checklist
    return encode_sites(checklist, sites)


def inputs_of(task: Mapping[str, Any], cells: Cells, fitted: Any) -> Any:
    checklist = build(study_of(task, "fedavg", SEARCH["pooled"][0], 0)).task.checklist
    return checklist.encode(cells, fitted, labelled=False).rows["x"]


def correlation(told: np.ndarray, y: np.ndarray, cells: Any = slice(None)) -> float:
    """Mean over proteins of Pearson's r."""
    told, y = told[cells] - told[cells].mean(0), y[cells] - y[cells].mean(0)
    spread = np.sqrt((told**2).sum(0) * (y**2).sum(0))
    return float(np.mean((told * y).sum(0) / np.maximum(spread, 1e-30)))


def over_cells(first: Sequence[np.ndarray], other: Sequence[np.ndarray], y: np.ndarray) -> list[float]:
    """95 % interval of the mean difference over seeds, by draws of test cells that all seeds share."""
    draw, found = generator(0, "proteins"), []
    for _ in range(1000):
        cells = draw.integers(0, len(y), len(y))
        apart = [correlation(a, y, cells) - correlation(b, y, cells) for a, b in zip(first, other, strict=True)]
        found.append(np.mean(apart))
    return [round(float(q), 4) for q in np.quantile(found, (0.025, 0.975))]


def over_splits(differences: Sequence[float]) -> dict[str, Any]:
    """The mean of paired differences, one a split, and its 95 % interval: Student's t, corrected for random splits that
    share cells (Nadeau and Bengio, Machine Learning 2003, section 3)."""
    values = np.asarray(differences)
    told = {"mean": round(float(values.mean()), 5), "splits": len(values)}
    if len(values) < 2:
        return told
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) * np.sqrt(1 / len(values) + TEST_TO_TRAIN))
    return {**told, "interval": [round(told["mean"] - half, 5), round(told["mean"] + half, 5)]}


def by_split(rows: Sequence[Mapping[str, Any]], first: str, other: str) -> dict[str, Any]:
    """`over_splits` of runs' rows."""
    splits = sorted({row["split"] for row in rows})
    return over_splits([float(np.mean([r[first] - r[other] for r in rows if r["split"] == split])) for split in splits])


def search(task: Mapping[str, Any], sites: Mapping[str, SiteData]) -> dict[str, Any]:
    """The best setting of each kind, by the validation cells."""
    pooled, best = {"pooled": judge.merge(list(sites.values()))}, {}
    for kind, algorithm, rows in (("federated", "columnwise", sites), ("pooled", "pooled", pooled)):
        told = [train(study_of(task, algorithm, setting, 0), rows).figure for setting in SEARCH[kind]]
        best[kind] = {**SEARCH[kind][int(np.nanargmax(told))], "valid": round(float(np.nanmax(told)), 4)}
        note(f"search {kind}: {best[kind]}, of {[round(one, 4) for one in told]}")
    return best


# ---- four skewed sites -----------------------------------------------------------------------------------------------


def skewed(cells: Cells, split: int) -> tuple[Cells, dict[str, Cells]]:
    """(test cells, four sites) by the recipe above."""
    order = np.random.default_rng(split).permutation(len(cells))
    test, training = order[:1371], order[1371:]
    kinds, draw = cells.obs["cell_type"].astype(str).to_numpy(), np.random.default_rng(split)
    of = np.full(len(cells), -1)
    for kind in sorted(set(kinds[training])):
        places = training[kinds[training] == kind]
        of[places] = draw.choice(4, len(places), p=draw.dirichlet([0.3] * 4))
    return cells.take(test), {f"site{number}": cells.take(np.flatnonzero(of == number)) for number in range(4)}


def whole_panel_target(cells: Cells, panel: tuple[str, ...]) -> np.ndarray:
    """CLR per cell over the panel."""
    logs = np.log1p(cells.panel(panel)[0].astype(np.float64))
    return logs - logs.mean(axis=1, keepdims=True)


def shuffled(sites: Mapping[str, Cells]) -> dict[str, Cells]:
    """The planted fault, where it is asked for: each cell has another's proteins."""
    if _PLANT.value != "shuffled":
        return dict(sites)
    return {
        name: dataclasses.replace(site, protein=site.protein[generator(0, "plant").permutation(len(site))])
        for name, site in sites.items()
    }


def sites_part(data: Path) -> dict[str, Any]:
    cells = read_cells(data / f"{FILES['10x']}.h5ad")
    panel = tuple(sorted(cells.proteins))
    task = {"panel": panel, "target": "clr_per_cell"}
    runs, alone, covered, before, chosen = [], [], [], [], []
    for split in range(_SPLITS.value):
        test, sites = skewed(cells, split)
        fitted, rows = encoded(task, shuffled(sites))
        x, y = inputs_of(task, test, fitted), whole_panel_target(test, panel)
        scaled = (y - array(fitted["target_mean"])) / array(fitted["target_scale"])
        best = search(task, rows)
        chosen.append(best)
        for seed in range(_SEEDS.value):
            row: dict[str, Any] = {"split": split, "seed": seed}
            for kind, algorithm in (("federated", "columnwise"), ("pooled", "pooled")):
                where = rows if kind == "federated" else {"pooled": judge.merge(list(rows.values()))}
                learned = train(study_of(task, algorithm, best[kind], seed), where)
                output = predicted(learned, x)
                row[kind] = round(correlation(output["mean"], y), 4)
                if kind == "federated":
                    covered.append(inside(output, scaled, learned.move))
                    before.append(inside(output, scaled))
            runs.append(row)
            note(str(row))
        for name in rows:
            learned = train(study_of(task, "pooled", best["pooled"], 0), {name: rows[name]})
            figure = round(correlation(predicted(learned, x)["mean"], y), 4)
            alone.append({"split": split, "site": name, "cells": len(rows[name].split), "pearson": figure})
            note(str(alone[-1]))
    by_protein = np.mean(covered, axis=0)
    together = [np.mean([r["federated"] for r in runs if r["split"] == split]) for split in range(_SPLITS.value)]
    singles = [[a["pearson"] for a in alone if a["split"] == split] for split in range(_SPLITS.value)]
    return {
        "search": chosen,
        "runs": runs,
        "federated": spread([row["federated"] for row in runs]),
        "pooled": spread([row["pooled"] for row in runs]),
        "federated_less_pooled": by_split(runs, "federated", "pooled"),
        "alone": alone,
        "alone_mean": spread([float(np.mean(one)) for one in singles]),
        "alone_best": spread([max(one) for one in singles]),
        "federated_less_best_alone": over_splits([a - max(b) for a, b in zip(together, singles, strict=True)]),
        "coverage": round(float(by_protein.mean()), 4),
        "coverage_by_protein": {name: round(float(one), 4) for name, one in zip(panel, by_protein, strict=True)},
        "coverage_before": round(float(np.mean(before)), 4),
        "coverage_before_by_protein": {
            name: round(float(one), 4) for name, one in zip(panel, np.mean(before, axis=0), strict=True)
        },
    }


# ---- three laboratories ----------------------------------------------------------------------------------------------


def laboratories_part(data: Path) -> dict[str, Any]:
    labs = {name: read_cells(data / f"{file}.h5ad") for name, file in FILES.items()}
    genes = tuple(sorted(set.intersection(*[set(map(str, lab.genes)) for lab in labs.values()])))
    task = {"panel": SHARED, "target": "clr_within_site", "genes": genes, "inputs": "within_site", "components": 50}
    found = {}
    for left_out, test in labs.items():
        others = shuffled({name: lab for name, lab in labs.items() if name != left_out})
        fitted, rows = encoded(task, others)
        setting = search(task, rows)
        x, y = inputs_of(task, test, fitted), whole_panel_target(test, SHARED)
        z = (y - y.mean(0)) / y.std(0)
        arms: dict[str, list[np.ndarray]] = {"federated": [], "pooled": [], **{f"{name} alone": [] for name in rows}}
        covered: dict[str, list[float]] = {"coverage_before": [], "coverage": [], "coverage_set_right_there": []}
        for seed in range(_SEEDS.value):
            for arm, kept in arms.items():
                if arm == "federated":
                    where, algorithm, inputs, kind = rows, "columnwise", x, "federated"
                elif arm == "pooled":
                    where, algorithm, inputs, kind = {"all": judge.merge(list(rows.values()))}, "pooled", x, "pooled"
                else:
                    name = arm.removesuffix(" alone")
                    own, alone_rows = encoded(task, {name: others[name]})
                    where, algorithm, inputs, kind = alone_rows, "pooled", inputs_of(task, test, own), "pooled"
                learned = train(study_of(task, algorithm, setting[kind], seed), where)
                output = predicted(learned, inputs)
                kept.append(output["mean"])
                if arm == "federated":
                    covered["coverage_before"].append(inside(output, z).mean())
                    covered["coverage"].append(inside(output, z, learned.move).mean())
                    covered["coverage_set_right_there"].append(set_right_there(output, z, seed))
            note(f"{left_out}, seed {seed}: " + str({arm: correlation(t[-1], y) for arm, t in arms.items()}))
        figures = {arm: spread([correlation(one, y) for one in kept]) for arm, kept in arms.items()}
        best = max((arm for arm in arms if arm.endswith(" alone")), key=lambda arm: figures[arm]["mean"])
        found[left_out] = {
            "cells": len(test),
            "search": setting,
            **figures,
            "federated_less_pooled": over_cells(arms["federated"], arms["pooled"], y),
            "best_alone": best,
            "federated_less_best_alone": over_cells(arms["federated"], arms[best], y),
            **{name: round(float(np.mean(one)), 4) for name, one in covered.items()},
        }
    return {"genes": len(genes), "left_out": found}


def set_right_there(output: Mapping[str, np.ndarray], z: np.ndarray, seed: int, cells: int = 100) -> float:
    """Coverage of the others, once some of the laboratory's own cells have moved the intervals."""
    order = generator(seed, "set right").permutation(len(z))
    some, rest = order[:cells], order[cells:]
    seen = np.ones((cells, z.shape[1]), bool)
    by = widening(outside(z[some], output["low"][some], output["high"][some], seen))
    return float(inside({end: output[end][rest] for end in ("low", "high")}, z[rest], by).mean())


# ---- panels that do not match ----------------------------------------------------------------------------------------


def panels_part(data: Path, settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    cells = read_cells(data / f"{FILES['10x']}.h5ad")
    panel = tuple(sorted(cells.proteins))
    task = {"panel": panel, "target": "log1p"}
    lacking, runs = {}, []
    for split in range(_SPLITS.value):
        test, sites = skewed(cells, split)
        sites, masked, setting = shuffled(sites), {}, settings[split]
        for number, (name, site) in enumerate(sites.items()):
            without = sorted(np.random.default_rng(100 + number).choice(len(panel), 5, replace=False))
            lacking[name] = [panel[place] for place in without]
            kept = [at for at, protein in enumerate(site.proteins) if protein not in lacking[name]]
            names = tuple(site.proteins[at] for at in kept)
            masked[name] = dataclasses.replace(site, protein=site.protein[:, kept], proteins=names)
        y = np.log1p(test.panel(panel)[0].astype(np.float64))
        found: dict[str, list[float]] = {}
        for arm, algorithm, who, kind in (
            ("by column", "columnwise", masked, "federated"),
            ("over all", "fedavg", masked, "federated"),
            ("in one place", "pooled", masked, "pooled"),
            ("whole panels", "columnwise", sites, "federated"),
        ):
            fitted, rows = encoded(task, who)
            x = inputs_of(task, test, fitted)
            where = {"all": judge.merge(list(rows.values()))} if kind == "pooled" else rows
            for seed in range(_SEEDS.value):
                learned = train(study_of(task, algorithm, setting[kind], seed), where)
                found.setdefault(arm, []).append(correlation(predicted(learned, x)["mean"], y))
            note(f"split {split}, {arm}: {np.mean(found[arm]):.4f}")
        runs += [
            {"split": split, "seed": seed, **{arm: round(one[seed], 4) for arm, one in found.items()}}
            for seed in range(_SEEDS.value)
        ]
    arms = ("by column", "over all", "in one place", "whole panels")
    mean = {arm: float(np.mean([row[arm] for row in runs])) for arm in arms}

    def share(ceiling: str) -> float | None:
        gap = mean[ceiling] - mean["over all"]
        return round((mean["by column"] - mean["over all"]) / gap, 3) if gap > 0 else None

    return {
        "lacking": lacking,
        "runs": runs,
        **{arm: spread([row[arm] for row in runs]) for arm in arms},
        "by_column_less_over_all": by_split(runs, "by column", "over all"),
        "gap": round(mean["whole panels"] - mean["over all"], 4),
        "share_of_the_gap_closed": share("whole panels"),
        "share_of_what_one_place_closes": share("in one place"),
    }


def searched(data: Path) -> list[dict[str, Any]]:
    """What the search of `sites` found for each split, from the output file where it is in it."""
    lines = Path(_OUT.value).read_text().splitlines() if _OUT.value and Path(_OUT.value).exists() else []
    done = [line for line in map(json.loads, lines) if line["part"] == "sites" and not line["plant"]]
    if done and isinstance(done[-1]["search"], list) and len(done[-1]["search"]) >= _SPLITS.value:
        return [
            {kind: {**one, "hidden": tuple(one["hidden"])} for kind, one in best.items()} for best in done[-1]["search"]
        ]
    cells = read_cells(data / f"{FILES['10x']}.h5ad")
    task = {"panel": tuple(sorted(cells.proteins)), "target": "clr_per_cell"}
    return [search(task, encoded(task, skewed(cells, split)[1])[1]) for split in range(_SPLITS.value)]


def main(_: Any) -> None:
    data, begun = Path(_DATA.value), time.perf_counter()
    if _PART.value == "panels":
        found = panels_part(data, searched(data))
    else:
        found = (sites_part if _PART.value == "sites" else laboratories_part)(data)
    found["tried"] = len(_GRID)
    line = {
        "benchmark": "proteins",
        "part": _PART.value,
        "seeds": _SEEDS.value,
        "splits": _SPLITS.value,
        "plant": _PLANT.value,
        **found,
        "seconds": round(time.perf_counter() - begun, 1),
        "machine": common.machine(),
        "versions": common.versions("jax", "flax", "optax", "numpy", "anndata"),
    }
    common.emit(line, None if _OUT.value is None else Path(_OUT.value))


if __name__ == "__main__":
    jax.config.update("jax_compilation_cache_dir", str(Path("~/.cache/learner").expanduser()))
    app.run(main)
