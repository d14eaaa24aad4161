"""Exact federated logistic regression on Diabetes 130 beside scikit-learn's on all rows in one place.

    python -m benchmarks.exact --out=benchmarks/results/exact.jsonl

Ten artificial sites of real patients, the study `readmission` with `lr.newton`; the penalty is chosen among PENALTIES
by the validation rows' log loss. Scikit-learn is handed the same training rows in one place and the same penalty
(C = 1 / (p n)). Both predict the test patients, once. Asked: AUROCs within 0.001 on everyone and on heart failure.
"""

from __future__ import annotations

import os

os.environ.setdefault("NPROC", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=1 --xla_cpu_multi_thread_eigen=false")

import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from sklearn.linear_model import LogisticRegression

import learner_jax as lr
from benchmarks import common
from learner_jax import api, specs
from learner_jax.data.sites import TEST, TRAIN, encode_sites
from learner_jax.engines import judge
from learner_jax.evaluation.exact import auroc
from learner_jax.specs import Spec

_OUT = flags.DEFINE_string("out", None, "file that one JSON line is added to")
_PLANT = flags.DEFINE_enum("plant", None, ["lost"], "a fault that must be seen: one round fewer than it takes")

PENALTIES = (1e-4, 3e-4, 1e-3, 3e-3)
WITHIN = 0.001


def main(argv: list[str]) -> None:
    del argv
    begun = time.perf_counter()
    base = api._study("readmission", {"task": Spec("tasks", "readmission", {"scale_floor": 1.0})})
    task = specs.make(base.task)
    _, sites = encode_sites(task.checklist, api.frames_of(base))
    runs = {}
    for penalty in PENALTIES:
        run = lr.simulate(
            base,
            model=lr.logistic(),
            algorithm=lr.newton(penalty=penalty),
            rounds=1 if _PLANT.value else 8,
            references=(),
            target="valid/log_loss",
            batch_size=512,
            sites=sites,
        )
        runs[penalty] = run
        last = run.result["curve"][-1]
        print(
            f"penalty {penalty:g}: validation log loss {last['valid/log_loss']:.5f}, train {last['train/loss']:.6f}",
            flush=True,
        )
    best = min(runs, key=lambda p: runs[p].result["curve"][-1]["valid/log_loss"])
    model = runs[best].model
    whole = judge.merge(list(sites.values()))
    x, y = whole.rows["x"], whole.rows["y"]
    train, test = whole.split == TRAIN, whole.split == TEST
    ours = judge.chances(judge.predictor(model.parts)(model.weights, {"x": x[test], "y": y[test]}))
    clock = time.perf_counter()
    fitted = LogisticRegression(C=1 / (best * train.sum()), tol=1e-10, max_iter=2000).fit(
        x[train].astype(np.float64), y[train]
    )
    theirs = fitted.predict_proba(x[test].astype(np.float64))[:, 1]
    found: dict[str, Any] = {"scikit-learn_s": round(time.perf_counter() - clock, 1)}
    for cohort, mask in whole.cohorts.items():
        mine = mask[test]
        a, b = auroc(y[test][mine], ours[mine]), auroc(y[test][mine], theirs[mine])
        found[cohort] = {"federated": a, "pooled": b, "apart": a - b}
        print(f"{cohort}: federated {a:.5f}, scikit-learn in one place {b:.5f}, apart {a - b:+.6f}", flush=True)
    found["chances_apart"] = float(np.abs(ours - theirs).max())
    print(f"told chances differ by at most {found['chances_apart']:.2g}")
    line = {"benchmark": "exact", "penalty": best, "found": found, "plant": _PLANT.value, "sites": "artificial",
            "n": {"train": int(train.sum()), "test": int(test.sum()), "weights": int(x.shape[1] + 1)},
            "seconds": round(time.perf_counter() - begun, 1), "machine": common.machine(),
            "versions": common.versions("jax", "numpy", "scikit-learn")}  # fmt: skip
    common.emit(line, Path(_OUT.value) if _OUT.value else None)
    if not all(abs(found[cohort]["apart"]) <= WITHIN for cohort in whole.cohorts) or found["chances_apart"] > 0.01:
        raise SystemExit(1)


if __name__ == "__main__":
    app.run(main)
