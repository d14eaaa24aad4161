"""Readmission, trained on all inpatients of ten sites: each site alone, FedAvg, the best method, pooled.

    python -m benchmarks.readmission --out=benchmarks/results/readmission.jsonl
    python -m benchmarks.readmission --quick

1. The table is encoded once. Everything that trains or chooses is handed the sites *without* their test rows.
2. Search: as many random settings for the federated methods together as for pooled training (half of the federated
   ones are FedAvg's); half as many for sites alone. A setting is judged by one figure, the AUROC on the validation
   rows of all sites (a tenth of the training patients, never trained on; of sites alone: the mean over the ten models).
3. The chosen setting of each is trained anew with five seeds (start and order of the batches), and the test rows are
   predicted, once, after the last training.
4. A figure is the mean over the seeds; its interval, and that of each difference, comes from 1,000 draws of whole
   patients, the same draws for all models and seeds (95 %, percentiles). Spread: standard deviation over the seeds.

Each trial is one JSON line in --trials, which a run that was cut short reads back (same setting, same versions); the
run itself is one JSON line in --out. The last lines hold the figures against the goals; exit code 1 if one is missed.

The ten sites are artificial: real patients of 130 hospitals, dealt to ten made-up sites.
"""

from __future__ import annotations

import os

os.environ.setdefault("NPROC", "1")  # before jax starts: one device, one thread, so that a figure can be had again
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=1 --xla_cpu_multi_thread_eigen=false")

import dataclasses
import hashlib
import json
import platform
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags

import learner_jax
from learner_jax import api, specs
from learner_jax.build import build
from learner_jax.data.sites import TEST, TRAIN, VALID, SiteData, encode_sites
from learner_jax.engines import judge
from learner_jax.engines.parts import Parts
from learner_jax.engines.simulator import simulate, template_rows
from learner_jax.engines.world import build_world
from learner_jax.errors import DataError
from learner_jax.evaluation.bootstrap import generator, interval, resample
from learner_jax.evaluation.exact import FIGURES, auroc
from learner_jax.specs import Spec, Study

_OUT = flags.DEFINE_string("out", None, "file that one JSON line is added to")
_TRIALS = flags.DEFINE_string("trials", None, "file of trials, read back and added to; none keeps none")
_SEEDS = flags.DEFINE_integer("seeds", 5, "seeds of each chosen setting", lower_bound=1)
_SEARCH = flags.DEFINE_integer("search", 12, "settings tried for pooled; federated as many, alone half", lower_bound=2)
_ROUNDS = flags.DEFINE_integer("rounds", 50, "at most so many rounds, ended by 10 without a better one", lower_bound=1)
_EPOCHS = flags.DEFINE_integer("epochs", 30, "epochs of pooled; the best one is kept", lower_bound=1)
_ALONE = flags.DEFINE_integer("alone", 30, "epochs of a site alone; its best one is kept", lower_bound=1)
_DRAWS = flags.DEFINE_integer("draws", 1000, "draws of the bootstrap", lower_bound=2)
_QUICK = flags.DEFINE_bool("quick", False, "2 settings, 2 seeds, 2 rounds, 50 draws: does it run? goals are not judged")
_PLANT = flags.DEFINE_enum("plant", None, ["labels", "test"], "a fault that must be seen: test outcomes shuffled; "
                           "test rows handed to the search as validation rows")  # fmt: skip

TASK = Spec("tasks", "readmission", {"scale_floor": 1.0})  # chosen by 48 pooled trainings; docs/readmission.md
KINDS: tuple[str, ...] = ("fedavg", "other methods", "pooled", "site alone")
PATIENCE = 10
LEAST = {"heart failure": {"pooled": 0.650, "federated": 0.645}, "everyone": {"federated": 0.685}}
GAP = {"heart failure": -0.005, "everyone": -0.003}  # federated less pooled


# ---- what is searched ------------------------------------------------------------------------------------------------

TRAINING = {  # of every kind: Adam with decoupled weight decay; ("log", low, high) is drawn evenly in the logarithm
    "batch_size": [256, 512, 1024],
    "dropout": [0.3, 0.5],
    "weight_decay": [0.3, 1.0, 1.5],
    "average": [0.0, 0.8, 0.9],
}
SPACES: dict[str, dict[str, Any]] = {
    "fedavg": {**TRAINING, "learning_rate": ("log", 3e-4, 3e-3), "epochs": [1, 2]},
    "fedavgm": {**TRAINING, "learning_rate": ("log", 3e-4, 3e-3), "epochs": [1, 2], "server_lr": [0.3, 1.0],
                "momentum": [0.5, 0.9]},
    "fedadam": {**TRAINING, "learning_rate": ("log", 3e-4, 3e-3), "epochs": [1, 2], "server_lr": ("log", 1e-3, 2e-2)},
    "fedyogi": {**TRAINING, "learning_rate": ("log", 3e-4, 3e-3), "epochs": [1, 2], "server_lr": ("log", 1e-3, 2e-2)},
    "fedprox": {**TRAINING, "learning_rate": ("log", 3e-4, 3e-3), "epochs": [1, 2], "mu": ("log", 1e-3, 1e-1)},
    "scaffold": {"batch_size": [128, 256], "dropout": [0.3, 0.5], "local_lr": ("log", 0.03, 0.5),
                 "epochs": [1, 2], "by_rows": [True]},
    "pooled": {**TRAINING, "learning_rate": ("log", 3e-4, 3e-3)},
    "site alone": {**TRAINING, "learning_rate": ("log", 3e-4, 3e-3)},
}  # fmt: skip
OTHERS = ("fedavgm", "scaffold", "fedadam", "fedprox", "fedyogi")
OWN = ("server_lr", "momentum", "mu", "local_lr", "by_rows", "average")


def settings(kind: str, count: int) -> list[dict[str, Any]]:
    """`count` random settings of a kind, the same in every run."""
    draw = generator(0, "search", kind)
    names = [kind] if kind != "other methods" else OTHERS
    return [{"method": names[k % len(names)], **_one(SPACES[names[k % len(names)]], draw)} for k in range(count)]


def _one(space: Mapping[str, Any], draw: np.random.Generator) -> dict[str, Any]:
    def value(choice):
        if isinstance(choice, tuple):
            return float(f"{np.exp(draw.uniform(np.log(choice[1]), np.log(choice[2]))):.2g}")
        return choice[int(draw.integers(len(choice)))]

    return {name: value(choice) for name, choice in space.items()}


def study_of(base: Study, setting: Mapping[str, Any], seed: int, rounds: int) -> Study:
    """The study that a setting stands for; pooled and alone take local optimizer and model from it."""
    fields = {name: setting[name] for name in OWN if name in setting}
    if "learning_rate" in setting:
        fields["local"] = Spec(
            "optimizers", "adamw", {name: setting[name] for name in ("learning_rate", "weight_decay")}
        )
    method = setting["method"] if setting["method"] not in ("pooled", "site alone") else "fedavg"
    return specs.check(
        dataclasses.replace(
            base,
            algorithm=Spec("algorithms", method, fields),
            model=Spec("models", "mlp", {"hidden": (64, 32), "dropout": setting["dropout"]}),
            rounds=rounds,
            patience=PATIENCE,
            batch_size=setting["batch_size"],
            epochs=setting.get("epochs", 1),
            seed=seed,
        )
    )


# ---- training --------------------------------------------------------------------------------------------------------


def without_test(sites: Mapping[str, SiteData], plant: str | None = None) -> dict[str, SiteData]:
    """The sites as training and choosing see them: no row of a test patient is there."""
    if plant == "test":
        return {name: s._replace(split=np.where(s.split == TEST, VALID, s.split)) for name, s in sites.items()}
    return {name: take(site, site.split != TEST) for name, site in sites.items()}


def take(site: SiteData, keep: np.ndarray) -> SiteData:
    rows = {name: column[keep] for name, column in site.rows.items()}
    cohorts = {name: mask[keep] for name, mask in site.cohorts.items()}
    return SiteData(rows, site.split[keep], site.group[keep], cohorts)


def guard(seen: Mapping[str, SiteData], sites: Mapping[str, SiteData]) -> None:
    """Raises DataError where a test patient is among those who train or choose, or trains and chooses."""
    test = np.concatenate([site.group[site.split == TEST] for site in sites.values()])
    chooses = np.concatenate([site.group[site.split == VALID] for site in seen.values()])
    trains = np.concatenate([site.group[site.split == TRAIN] for site in seen.values()])
    for what, a, b in (("test and training", test, trains), ("test and validation", test, chooses),
                       ("training and validation", trains, chooses)):  # fmt: skip
        both = np.intersect1d(a, b)
        if len(both):
            raise DataError(f"expected no patient to be in {what}, got {len(both)}, such as {both[0]}")


class Models(NamedTuple):
    """What a training gives. weights: of one model, or of each site's. round: the best one, where it is known."""

    parts: Parts
    weights: list[Any]
    round: int | None


def train(base: Study, kind: str, setting: Mapping[str, Any], seen: Mapping[str, SiteData], seed: int, rounds: int):
    """Trains one setting with one seed on sites without test rows."""
    parts = build(study_of(base, setting, seed, rounds))
    if kind == "pooled":
        return Models(parts, [judge.train_pooled(parts, seen, lambda event: None)], None)
    if kind == "site alone":
        return Models(parts, judge.train_alone(parts, build_world(seen), lambda event: None), None)
    trained, world = simulate(parts, seen)
    fresh = parts.federated.enrol(parts.init_weights(template_rows(world)))
    model = parts.federated.model(parts.federated.send(trained.best), fresh)
    return Models(parts, [model], trained.history.best_round)


def told(models: Models, x: np.ndarray) -> np.ndarray:
    """Chances float64[models, n]."""
    predict = judge.predictor(models.parts)
    return np.stack([judge.chances(predict(weights, {"x": x, "y": np.zeros(len(x))})) for weights in models.weights])


# ---- choosing --------------------------------------------------------------------------------------------------------


class Trials:
    """Trials as JSON lines; one that is there already is not run again."""

    def __init__(self, path: str | None, about: Mapping[str, str]):
        self.path, self.reused = None if path is None else Path(path), 0
        self.about = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
        there = self.path is not None and self.path.exists()
        lines = [json.loads(line) for line in self.path.read_text().splitlines()] if there and self.path else []
        self.known = {self._key(line): line for line in lines if line["about"] == self.about}

    def _key(self, line: Mapping[str, Any]) -> str:
        return json.dumps([line["kind"], line["setting"], line["rounds"]], sort_keys=True)

    def get(self, kind: str, setting: Mapping[str, Any], rounds: int) -> dict[str, Any] | None:
        found = self.known.get(self._key({"kind": kind, "setting": setting, "rounds": rounds}))
        self.reused += found is not None
        return found

    def add(self, line: dict[str, Any]) -> dict[str, Any]:
        line["about"] = self.about
        if self.path is not None:
            append(self.path, line)
        return line


def append(path: Path, line: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line, sort_keys=True) + "\n")


def search(base: Study, kind: str, count: int, rounds: int, seen: Mapping[str, SiteData], trials: Trials):
    """The trials of a kind, best first, by the AUROC on all validation rows (alone: the mean of the ten models')."""
    chosen = [take(site, site.split == VALID) for site in seen.values()]
    x, y = (np.concatenate([site.rows[name] for site in chosen]) for name in ("x", "y"))
    failing = np.concatenate([site.cohorts["heart failure"] for site in chosen])
    found = []
    for k, setting in enumerate(settings(kind, count), 1):
        line = trials.get(kind, setting, rounds)
        if line is None:
            begun = time.perf_counter()
            models = train(base, kind, setting, seen, 0, rounds)
            scores = told(models, x)
            line = trials.add({
                "kind": kind, "setting": setting, "task": str(TASK), "rounds": rounds, "best_round": models.round,
                "valid/auroc": float(np.mean([auroc(y, score) for score in scores])),
                "valid/auroc of heart failure": float(np.mean([auroc(y[failing], score[failing]) for score in scores])),
                "seconds": round(time.perf_counter() - begun, 1),
            })  # fmt: skip
        found.append(line)
        print(f"{kind} {k}/{count}: {line['valid/auroc']:.4f}  {_words(setting)}  round {line['best_round']}, "
              f"{line['seconds']} s", flush=True)  # fmt: skip
    return sorted(found, key=lambda line: -line["valid/auroc"])


def _words(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in setting.items())


# ---- judging ---------------------------------------------------------------------------------------------------------


def figures(scores: Mapping[str, np.ndarray], best: str, sites: Mapping[str, SiteData], seed: int, draws: int,
            plant: str | None) -> dict[str, Any]:  # fmt: skip
    """Every kind on the test rows of each cohort.

    Args:
      scores: kind -> float64[seeds, models, n], chances of the test rows of all sites in the order of `sites`.
      best: the federated kind that the validation rows chose.
      sites: with their test rows.
      seed, draws: of the bootstrap.
      plant: "labels" shuffles the outcomes.

    Returns:
      cohort -> {"rows", "patients", "events", "models": {kind: {figure: {"value", "low", "high", "se", "sd"}}},
      "differences": {"best-pooled": ...}, "sites": {name: own patients, best method against the site alone}}.
    """
    held = [take(site, site.split == TEST) for site in sites.values()]
    y = np.concatenate([site.rows["y"] for site in held]).astype(np.float64)
    group = np.concatenate([site.group for site in held])
    if plant == "labels":
        y = generator(0, "plant").permutation(y)
    member = np.repeat(np.arange(len(held)), [len(site.split) for site in held])
    pairs = list(dict.fromkeys([(best, "pooled"), ("fedavg", "pooled"), (best, "site alone"), (best, "fedavg")]))
    found = {}
    for cohort in ("heart failure", "everyone"):
        mask = np.concatenate([site.cohorts[cohort] for site in held])
        exact, drawn = _drawn(scores, y, group, mask, generator(seed, "readmission", cohort), draws)
        models = {kind: _summary(exact[kind], drawn[kind]) for kind in scores}
        gains = {
            f"{a} - {b}": _summary(
                {name: _over_models(exact[a][name]) - _over_models(exact[b][name]) for name in FIGURES},
                {name: drawn[a][name] - drawn[b][name] for name in FIGURES},
            )
            for a, b in pairs
            if a != b
        }  # fmt: skip
        own = {}
        for at, name in enumerate(sites):
            mine = mask & (member == at)
            own[name] = _at_home(scores[best], scores["site alone"][:, at : at + 1], y, group, mine, seed, draws)
        found[cohort] = {"rows": int(mask.sum()), "patients": len(np.unique(group[mask])), "events": int(y[mask].sum()),
                         "models": models, "differences": gains, "sites": own}  # fmt: skip
    return found


def _over_models(each: np.ndarray) -> np.ndarray:
    return each.mean(1, keepdims=True)


def _drawn(scores, y, group, mask, rng, draws):
    """kind -> figure -> float64[seeds, models] as the rows are, and float64[draws], the mean over seeds and models."""
    flat = {(kind, s, m): one[mask] for kind, all_ in scores.items() for s, many in enumerate(all_)
            for m, one in enumerate(many)}  # fmt: skip
    resampled = resample({str(key): score for key, score in flat.items()}, y[mask], group[mask], rng, draws)
    exact = {kind: {name: np.array([[figure(y[mask], one[mask]) for one in many] for many in all_])
                    for name, figure in FIGURES.items()} for kind, all_ in scores.items()}  # fmt: skip
    drawn = {kind: {name: np.mean([resampled[str(key)][name] for key in flat if key[0] == kind], axis=0)
                    for name in FIGURES} for kind in scores}  # fmt: skip
    return exact, drawn


def _summary(exact: Mapping[str, np.ndarray], drawn: Mapping[str, np.ndarray]) -> dict[str, Any]:
    out = {}
    for name, each in exact.items():
        seeds = each.mean(1)
        spread = {"sd": float(seeds.std(ddof=1)) if len(seeds) > 1 else None, "seeds": [float(v) for v in seeds]}
        out[name] = {**(interval(float(seeds.mean()), drawn[name]) or {}), **spread}
    return out


def _at_home(ours, alone, y, group, mine, seed, draws) -> dict[str, Any] | None:
    """A site's own test patients: best method, the site alone, difference of AUROC. None: too few to judge."""
    events = int(y[mine].sum())
    if min(events, mine.sum() - events) < 10:
        return None
    exact, drawn = _drawn({"ours": ours, "alone": alone}, y, group, mine, generator(seed, "home"), draws)
    gain = {"auroc": exact["ours"]["auroc"] - exact["alone"]["auroc"]}
    moved = {"auroc": drawn["ours"]["auroc"] - drawn["alone"]["auroc"]}
    return {"rows": int(mine.sum()), "events": events, "ours": float(exact["ours"]["auroc"].mean()),
            "alone": float(exact["alone"]["auroc"].mean()), "gain": _summary(gain, moved)["auroc"]}  # fmt: skip


def goals(found: Mapping[str, Any], best: str) -> list[tuple[bool, str]]:
    """(reached, in words) of each goal."""
    out = []
    for cohort, one in found.items():
        value = {kind: one["models"][kind]["auroc"]["value"] for kind in one["models"]}
        gap = value[best] - value["pooled"]
        out.append((gap >= GAP[cohort], f"{cohort}: federated ({best}) less pooled at least {GAP[cohort]}: "
                                        f"{value[best]:.4f} and {value['pooled']:.4f}, {gap:+.4f}"))  # fmt: skip
        gain = value[best] - value["site alone"]
        out.append((gain > 0, f"{cohort}: above the mean site alone: {value[best]:.4f} against "
                              f"{value['site alone']:.4f}, difference {gain:+.4f}"))  # fmt: skip
        for kind, least in LEAST[cohort].items():
            there = value[best if kind == "federated" else kind]
            out.append((there >= least, f"{cohort}: AUROC of {kind} at least {least}: {there:.4f}"))
    return out


def show(found: Mapping[str, Any]) -> None:
    """The figures as a table."""
    for cohort, one in found.items():
        size = f"{one['rows']} stays, {one['patients']} patients, {one['events']} events"
        print(f"\n{cohort}: {size} (real patients, artificial sites)")
        for kind, model in [*one["models"].items(), *one["differences"].items()]:
            cells = "  ".join(f"{name} {f['value']:+.4f} [{f['low']:+.4f}, {f['high']:+.4f}] sd {f['sd'] or 0:.4f}"
                              for name, f in model.items())  # fmt: skip
            print(f"  {kind:28s} {cells}")
        for name, site in one["sites"].items():
            line = "too few to judge"
            if site is not None:
                gain = "{value:+.4f} [{low:+.4f}, {high:+.4f}]".format(**site["gain"])
                line = f"{site['rows']:5d} stays {site['events']:4d} events: best {site['ours']:.4f}, "
                line += f"alone {site['alone']:.4f}, gain {gain}"
            print(f"  own patients of {name}: {line}")


# ---- the run ---------------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor()
    return {"cores": os.cpu_count(), "processor": processor, "system": platform.system(),
            "devices": len(jax.devices()), "platform": jax.devices()[0].platform}  # fmt: skip


def versions() -> dict[str, str]:
    named = ("jax", "jaxlib", "flax", "optax", "numpy", "pandas")
    return {"learner": learner_jax.__version__, "python": platform.python_version(),
            **{name: metadata.version(name) for name in named}}  # fmt: skip


def main(argv: list[str]) -> None:
    del argv
    begun, quick = time.perf_counter(), _QUICK.value
    count, seeds, draws = (2, 2, 50) if quick else (_SEARCH.value - _SEARCH.value % 2, _SEEDS.value, _DRAWS.value)
    rounds = dict(zip(KINDS, (_ROUNDS.value, _ROUNDS.value, _EPOCHS.value, _ALONE.value)))
    rounds = dict.fromkeys(KINDS, 2) if quick else rounds
    base = api._study("readmission", {"task": TASK})
    # ---- encode, once; test rows are set aside
    task = specs.make(base.task)
    _, sites = encode_sites(task.checklist, api.frames_of(base))
    seen = without_test(sites, _PLANT.value)
    guard(seen, sites)
    print(f"{len(sites)} artificial sites of real patients; rows to train on "
          f"{sum((s.split == TRAIN).sum() for s in seen.values())}, to choose by "
          f"{sum((s.split == VALID).sum() for s in seen.values())}", flush=True)  # fmt: skip
    # ---- choose, on validation rows
    each = dict(zip(KINDS, (count // 2, count // 2, count, count // 2)))
    for kind, space in SPACES.items():
        print(f"search space of {kind}: {json.dumps(space)}")
    print(f"trials: {each}; federated {count}, pooled {count}; rounds or epochs: {rounds}; seed 0", flush=True)
    trials = Trials(
        _TRIALS.value, {**versions(), "data": base.data.source, "task": str(TASK), "plant": _PLANT.value or ""}
    )
    ranked = {kind: search(base, kind, each[kind], rounds[kind], seen, trials) for kind in KINDS}
    chosen = {kind: lines[0] for kind, lines in ranked.items()}
    best = max(("fedavg", "other methods"), key=lambda kind: chosen[kind]["valid/auroc"])
    for kind, line in chosen.items():
        print(f"chosen for {kind}: {_words(line['setting'])} (validation AUROC {line['valid/auroc']:.4f})", flush=True)
    # ---- train the chosen with each seed, then predict the test rows
    judged = [kind for kind in KINDS if kind in ("fedavg", best, "pooled", "site alone")]
    trained: dict[str, list[Models]] = {kind: [] for kind in judged}
    for kind in judged:
        for seed in range(1, seeds + 1):
            trained[kind].append(train(base, kind, chosen[kind]["setting"], seen, seed, rounds[kind]))
            print(f"{kind}: seed {seed}/{seeds}, {time.perf_counter() - begun:.0f} s since the start", flush=True)
    x = np.concatenate([site.rows["x"][site.split == TEST] for site in sites.values()])
    order = [list(build_world(seen).names).index(name) for name in sites]
    scores = {kind: np.stack([told(models, x) for models in many]) for kind, many in trained.items()}
    scores["site alone"] = scores["site alone"][:, order]
    found = figures(scores, best, sites, 0, draws, _PLANT.value)
    # ---- tell
    show(found)
    against = goals(found, best)
    line = {
        "benchmark": "readmission", "started": datetime.now(UTC).isoformat(timespec="seconds"), "quick": quick,
        "n": {"seeds": seeds, "rounds": rounds, "draws": draws, "trials": each, "trials read back": trials.reused,
              "patience": PATIENCE}, "task": str(TASK),
        "seconds": round(time.perf_counter() - begun, 1), "best": best, "chosen": chosen, "spaces": SPACES,
        "figures": found, "goals": [{"reached": bool(ok), "what": words} for ok, words in against],
        "plant": _PLANT.value, "sites": "artificial groups of real patients",
        "machine": machine(), "versions": versions(),
    }  # fmt: skip
    if _OUT.value:
        append(Path(_OUT.value), line)
    print()
    for ok, words in against:
        print(f"{'reached' if ok else 'MISSED '}  {words}")
    if not quick and not all(ok for ok, _ in against):
        raise SystemExit(1)


if __name__ == "__main__":
    app.run(main)
