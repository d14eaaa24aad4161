"""Surface proteins from RNA on real CITE-seq: four skewed sites, three laboratories, and panels that do not match.

    python -m benchmarks.proteins --data=FOLDER --part=sites --out=benchmarks/results/proteins.jsonl

`--data` is the folder with pbmc10k_protein_v3.h5ad, pbmc_pitt_inhouse.h5ad and pbmc_eccite_control.h5ad. Parts:

sites         pbmc10k, five splits of the cells (1,371 are test) x five seeds; of each split four sites by
              Dirichlet(0.3) over cell types. Federated, in one place and each site alone, on the same test cells.
laboratories  one laboratory left out: the two others as a federation, in one place, and each of them alone.
panels        the four sites, each without 5 of the 14 proteins: columns averaged over those that measure them, over
              all, and with whole panels.

One search for all: the settings of SEARCH are tried federated and in one place, as many of each, on split 0, by the
validation cells (a tenth of the training cells); the best of each kind is used everywhere. Test cells take no part in
it. Figures are the mean over proteins of the Pearson correlation over test cells; the interval is of 1,000 draws of
test cells, the same for both of a pair.
"""

from __future__ import annotations

import os

os.environ.setdefault("NPROC", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=1 --xla_cpu_multi_thread_eigen=false")

import itertools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags

from benchmarks import common
from learner_jax import specs
from learner_jax.build import build
from learner_jax.data.cells import Cells
from learner_jax.data.cells_files import read_cells
from learner_jax.data.sites import SiteData, encode_sites
from learner_jax.engines import judge
from learner_jax.engines.simulator import simulate, template_rows
from learner_jax.evaluation.bootstrap import generator
from learner_jax.specs import Spec, Study

_DATA = flags.DEFINE_string("data", None, "folder of the .h5ad files", required=True)
_PART = flags.DEFINE_enum("part", "sites", ["sites", "laboratories", "panels"], "see above")
_OUT = flags.DEFINE_string("out", None, "file that one JSON line is added to")
_SEEDS = flags.DEFINE_integer("seeds", 5, "seeds of the training", lower_bound=1)
_SPLITS = flags.DEFINE_integer("splits", 5, "splits of the cells", lower_bound=1)
_PLANT = flags.DEFINE_enum("plant", None, ["shuffled"], "a fault that must be seen: cells lose their proteins")

SEARCH = [
    {"rate": rate, "average": average, "dropout": dropout, "hidden": hidden}
    for rate, average, (dropout, hidden) in itertools.product(
        (1e-3, 3e-3, 1e-2), (0.0, 0.9), ((0.3, (256, 128)), (0.5, (512, 256)))
    )
]
ROUNDS, BATCH = 60, 128
SHARED = ("CD127", "CD14", "CD16", "CD19", "CD3", "CD4", "CD56", "CD8")
FILES = {"10x": "pbmc10k_protein_v3", "pittsburgh": "pbmc_pitt_inhouse", "eccite": "pbmc_eccite_control"}


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation over runs."""
    return {"mean": round(float(np.mean(values)), 4), "sd": round(float(np.std(values)), 4), "n": len(values)}


def study_of(task: Mapping[str, Any], algorithm: str, setting: Mapping[str, Any], seed: int) -> Study:
    adam = Spec("optimizers", "adam", {"learning_rate": setting["rate"]})
    return specs.check(
        Study(
            name="proteins",
            task=Spec("tasks", "proteins", {"test_share": 0.0, **task}),
            model=Spec("models", "protein_net", {"hidden": setting["hidden"], "dropout": setting["dropout"]}),
            algorithm=Spec("algorithms", algorithm, {"local": adam, "average": setting["average"]}),
            rounds=ROUNDS,
            batch_size=BATCH,
            target="valid/pearson",
            references=(),
            seed=seed,
        )
    )


def train(study: Study, sites: Mapping[str, SiteData]) -> tuple[Any, Any, float]:
    """(parts, the best round's weights, its figure on the validation cells)."""
    parts = build(study)
    trained, world = simulate(parts, sites)
    fresh = parts.federated.enrol(parts.init_weights(template_rows(world)))
    weights = parts.federated.model(parts.federated.send(trained.best), fresh)
    told = [row["valid/pearson"] for row in trained.history.curve if "valid/pearson" in row]
    return parts, weights, max(told, default=float("nan"))


def predicted(parts: Any, weights: Any, x: Any) -> dict[str, np.ndarray]:
    return judge.predictor(parts)(weights, {"x": x})


def encoded(task: Mapping[str, Any], sites: Mapping[str, Cells]) -> tuple[Any, dict[str, SiteData]]:
    """(what is fitted, rows of each site)."""
    checklist = build(study_of(task, "fedavg", SEARCH[0], 0)).task.checklist
    return encode_sites(checklist, sites)


def inputs_of(task: Mapping[str, Any], cells: Cells, fitted: Any) -> Any:
    checklist = build(study_of(task, "fedavg", SEARCH[0], 0)).task.checklist
    return checklist.encode(cells, fitted, labelled=False).rows["x"]


def correlation(told: np.ndarray, y: np.ndarray, cells: Any = slice(None)) -> float:
    """Mean over proteins of Pearson's r."""
    told, y = told[cells] - told[cells].mean(0), y[cells] - y[cells].mean(0)
    spread = np.sqrt((told**2).sum(0) * (y**2).sum(0))
    return float(np.mean((told * y).sum(0) / np.maximum(spread, 1e-30)))


def interval(first: Sequence[np.ndarray], other: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> list[float]:
    """95 % interval of the mean difference over runs, by draws of test cells."""
    draw, found = generator(0, "proteins"), []
    for _ in range(1000):
        differences = []
        for one, two, truth in zip(first, other, y, strict=True):
            cells = draw.integers(0, len(truth), len(truth))
            differences.append(correlation(one, truth, cells) - correlation(two, truth, cells))
        found.append(np.mean(differences))
    return [round(float(q), 4) for q in np.quantile(found, (0.025, 0.975))]


def search(task: Mapping[str, Any], sites: Mapping[str, SiteData]) -> dict[str, Any]:
    """The best setting of each kind, by the validation cells."""
    pooled, best = {"pooled": judge.merge(list(sites.values()))}, {}
    for kind, algorithm, rows in (("federated", "columnwise", sites), ("pooled", "pooled", pooled)):
        told = [train(study_of(task, algorithm, setting, 0), rows)[2] for setting in SEARCH]
        for setting, figure in zip(SEARCH, told, strict=True):
            note(f"search {kind} {setting}: {figure:.4f}")
        best[kind] = {**SEARCH[int(np.argmax(told))], "valid": round(max(told), 4)}
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


def sites_part(data: Path) -> dict[str, Any]:
    cells = read_cells(data / f"{FILES['10x']}.h5ad")
    panel = tuple(sorted(cells.proteins))
    task = {"panel": panel, "target": "clr_per_cell"}
    best: dict[str, Any] = {}
    runs, alone, covered = [], [], []
    told: dict[str, list[np.ndarray]] = {"federated": [], "pooled": [], "y": []}
    for split in range(_SPLITS.value):
        test, sites = skewed(cells, split)
        if _PLANT.value == "shuffled":
            sites = {name: shuffled(site) for name, site in sites.items()}
        fitted, rows = encoded(task, sites)
        x, y = inputs_of(task, test, fitted), whole_panel_target(test, panel)
        best = best or search(task, rows)
        for seed in range(_SEEDS.value):
            row: dict[str, Any] = {"split": split, "seed": seed}
            for kind, algorithm in (("federated", "columnwise"), ("pooled", "pooled")):
                where = rows if kind == "federated" else {"pooled": judge.merge(list(rows.values()))}
                parts, weights, _ = train(study_of(task, algorithm, best[kind], seed), where)
                output = predicted(parts, weights, x)
                told[kind].append(output["mean"])
                row[kind] = round(correlation(output["mean"], y), 4)
                if kind == "federated":
                    own = parts.task.judging.told(output, fitted)
                    covered.append(((y >= own["low"]) & (y <= own["high"])).mean(axis=0))
            told["y"].append(y)
            runs.append(row)
            note(str(row))
        if split == 0:
            for name in rows:
                parts, weights, _ = train(study_of(task, "pooled", best["pooled"], 0), {name: rows[name]})
                alone.append({"site": name, "cells": len(rows[name].split)})
                alone[-1]["pearson"] = round(correlation(predicted(parts, weights, x)["mean"], y), 4)
    by_protein = np.mean(covered, axis=0)
    return {
        "search": {**best, "tried": len(SEARCH)},
        "runs": runs,
        "federated": spread([row["federated"] for row in runs]),
        "pooled": spread([row["pooled"] for row in runs]),
        "federated_less_pooled": round(float(np.mean([row["federated"] - row["pooled"] for row in runs])), 5),
        "interval": interval(told["federated"], told["pooled"], told["y"]),
        "alone": alone,
        "alone_mean": round(float(np.mean([one["pearson"] for one in alone])), 4),
        "coverage": round(float(by_protein.mean()), 4),
        "coverage_by_protein": {name: round(float(one), 4) for name, one in zip(panel, by_protein, strict=True)},
    }


def shuffled(site: Cells) -> Cells:
    """The planted fault: each cell has another's proteins."""
    import dataclasses

    return dataclasses.replace(site, protein=site.protein[generator(0, "plant").permutation(len(site))])


# ---- three laboratories ----------------------------------------------------------------------------------------------


def laboratories_part(data: Path, setting: Mapping[str, Any]) -> dict[str, Any]:
    labs = {name: read_cells(data / f"{file}.h5ad") for name, file in FILES.items()}
    genes = tuple(sorted(set.intersection(*[set(map(str, lab.genes)) for lab in labs.values()])))
    task = {"panel": SHARED, "target": "clr_within_site", "genes": genes, "inputs": "within_site", "components": 50}
    found = {}
    for left_out, test in labs.items():
        others = {name: lab for name, lab in labs.items() if name != left_out}
        fitted, rows = encoded(task, others)
        x, y = inputs_of(task, test, fitted), whole_panel_target(test, SHARED)
        z = (y - y.mean(0)) / y.std(0)
        arms: dict[str, list[np.ndarray]] = {"federated": [], "pooled": [], **{f"{name} alone": [] for name in rows}}
        covered = []
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
                parts, weights, _ = train(study_of(task, algorithm, setting[kind], seed), where)
                output = predicted(parts, weights, inputs)
                kept.append(output["mean"])
                if arm == "federated":
                    covered.append(((z >= output["low"]) & (z <= output["high"])).mean(axis=0))
            note(f"{left_out}, seed {seed}: " + str({arm: correlation(t[-1], y) for arm, t in arms.items()}))
        figures = {arm: spread([correlation(one, y) for one in kept]) for arm, kept in arms.items()}
        truth = [y] * _SEEDS.value
        found[left_out] = {
            "cells": len(test),
            **figures,
            "federated_less_pooled": interval(arms["federated"], arms["pooled"], truth),
            "coverage_at_the_new_laboratory": round(float(np.mean(covered)), 4),
        }
    return {"genes": len(genes), "left_out": found}


# ---- panels that do not match ----------------------------------------------------------------------------------------


def panels_part(data: Path, setting: Mapping[str, Any]) -> dict[str, Any]:
    import dataclasses

    cells = read_cells(data / f"{FILES['10x']}.h5ad")
    panel = tuple(sorted(cells.proteins))
    task = {"panel": panel, "target": "log1p"}
    found: dict[str, list[float]] = {"by column": [], "over all": [], "whole panels": []}
    lacking = {}
    for split in range(_SPLITS.value):
        test, sites = skewed(cells, split)
        masked = {}
        for number, (name, site) in enumerate(sites.items()):
            without = sorted(np.random.default_rng(100 + number).choice(len(panel), 5, replace=False))
            lacking[name] = [panel[place] for place in without]
            kept = [at for at, protein in enumerate(site.proteins) if protein not in lacking[name]]
            names = tuple(site.proteins[at] for at in kept)
            masked[name] = dataclasses.replace(site, protein=site.protein[:, kept], proteins=names)
        y = np.log1p(test.panel(panel)[0].astype(np.float64))
        for arm, algorithm, who in (
            ("by column", "columnwise", masked),
            ("over all", "fedavg", masked),
            ("whole panels", "columnwise", sites),
        ):
            fitted, rows = encoded(task, who)
            x = inputs_of(task, test, fitted)
            for seed in range(_SEEDS.value):
                parts, weights, _ = train(study_of(task, algorithm, setting["federated"], seed), rows)
                found[arm].append(correlation(predicted(parts, weights, x)["mean"], y))
            note(f"split {split}, {arm}: {np.mean(found[arm][-_SEEDS.value :]):.4f}")
    mean = {arm: float(np.mean(one)) for arm, one in found.items()}
    gap = mean["whole panels"] - mean["over all"]
    return {
        "lacking": lacking,
        **{arm: spread(one) for arm, one in found.items()},
        "gap": round(gap, 4),
        "share_of_the_gap_closed": round((mean["by column"] - mean["over all"]) / gap, 3) if gap > 0 else None,
    }


def searched(data: Path) -> dict[str, Any]:
    """What the search of `sites` found, from the output file where it is in it."""
    lines = Path(_OUT.value).read_text().splitlines() if _OUT.value and Path(_OUT.value).exists() else []
    done = [line for line in map(json.loads, lines) if line["part"] == "sites" and not line["plant"]]
    if done:
        return {
            kind: {**one, "hidden": tuple(one["hidden"])} for kind, one in done[-1]["search"].items() if kind != "tried"
        }
    cells = read_cells(data / f"{FILES['10x']}.h5ad")
    task = {"panel": tuple(sorted(cells.proteins)), "target": "clr_per_cell"}
    return search(task, encoded(task, skewed(cells, 0)[1])[1])


def main(_: Any) -> None:
    data, begun = Path(_DATA.value), time.perf_counter()
    if _PART.value == "sites":
        found = sites_part(data)
    else:
        setting = searched(data)
        found = (laboratories_part if _PART.value == "laboratories" else panels_part)(data, setting)
        found["search"] = {**setting, "tried": len(SEARCH)}
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
