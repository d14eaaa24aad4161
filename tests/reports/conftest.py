"""Synthetic results for the reports: made-up figures, judged by the real `evaluate`."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import pytest

from learner_jax.evaluation import evaluate, join_sites, summarise_site

NAMES = (
    "Riverside University",
    "Holy Cross",
    "Municipal East",
    "Northgate University",
    "St. Anna",
    "Westfield Community",
    "St. Luke’s",
    "Lakeside General",
    "Hillcrest Clinic",
    "Harbour Clinic",
)


@functools.cache
def evaluation(sites: int, federation: bool, whom: tuple[str, ...]) -> dict[str, Any]:
    """Rows of log-normal many sites, three models, and what `evaluate` says of them."""
    rng = np.random.default_rng(3)
    sizes = np.sort(np.exp(rng.normal(6.5 if sites < 50 else 4.5, 1.0, sites)).astype(int))[::-1]
    sizes[-1] = 40
    names = [NAMES[at] if sites == len(NAMES) else f"h{at:03d}" for at in range(sites)]
    member = np.repeat(np.arange(sites), sizes)
    n = len(member)
    truth = rng.normal(-2.0, 0.55, n)
    y = (rng.random(n) < 1 / (1 + np.exp(-truth))).astype(float)
    noise = {"federated": 0.35, "local_only": 0.5 + 1.2 * (sizes.max() / sizes[member]) ** 0.1 * 0.5, "pooled": 0.33}
    shared = rng.normal(size=n)
    told = {
        model: 1 / (1 + np.exp(-(truth * 0.8 - 0.3 + level * (0.8 * shared + 0.6 * rng.normal(size=n)))))
        for model, level in noise.items()
    }
    group = rng.integers(0, int(n * 0.8), n)
    masks = {name: rng.random(n) < 0.4 if at + 1 < len(whom) else np.ones(n, bool) for at, name in enumerate(whom)}
    if not federation:
        return evaluate(told, y, group, np.array(names)[member], masks, 1, draws=100)
    del told["pooled"]
    homes = [
        summarise_site(
            {model: score[member == at] for model, score in told.items()},
            y[member == at],
            group[member == at],
            {cohort: mask[member == at] for cohort, mask in masks.items()},
            1,
            name=name,
            draws=100,
        )
        for at, name in enumerate(names)
    ]
    return join_sites(homes)


def make(
    sites: int = 10,
    federation: bool = False,
    rounds: int = 50,
    whom: tuple[str, ...] = ("heart failure", "everyone"),
    judged: bool = True,
    task: str = "readmission",
    metric: str = "auroc",
) -> dict[str, Any]:
    """A whole result, laid out as result.json; every figure is synthetic."""
    rng = np.random.default_rng(5)
    curve = []
    for at in range(1, rounds + 1):
        gone = 1 - np.exp(-at / 9)
        loss = 0.62 - 0.24 * gone + 0.002 * rng.normal()
        watched = {"auroc": 0.56 + 0.06 * gone + 0.001 * rng.normal(), "accuracy": 0.4 + 0.47 * gone, "mse": 1.4 - gone}
        row = {"round": at, "train/loss": loss, "valid/loss": loss + 0.01, f"valid/{metric}": float(watched[metric])}
        row |= {
            "seconds": float(0.31 + 0.02 * rng.exponential()),
            "bytes_up": 74_000 * sites,
            "bytes_down": 74_200 * sites,
        }
        curve.append(row | {"sites": [f"h{i:03d}" for i in range(sites)], "lost": []})
        if metric == "auroc" and not federation:
            curve[-1]["valid/auroc/se"] = 0.015
    if federation and rounds > 12:
        curve[3]["lost"], curve[11]["lost"] = ["Harbour Clinic"], ["Harbour Clinic", "St. Anna"]
    return {
        "study": {
            "name": "Heart failure 2",
            "question": "Which patients come back within 30 days after a stay for heart failure?" if judged else "",
            "task": {"kind": "tasks", "name": task, "fields": {}},
            "model": {"kind": "models", "name": "mlp", "fields": {"hidden": [64, 32]}},
            "algorithm": {"kind": "algorithms", "name": "fedavg", "fields": {"local_lr": 0.05}},
            "aggregator": {"kind": "aggregators", "name": "mean", "fields": {}},
            "rounds": rounds,
            "seed": 0,
            "target": f"valid/{metric}",
        },
        "kind": "federation" if federation else "simulation",
        "started": "2026-11-24T12:22:05+00:00",
        "seconds": 16.4 * rounds / 50,
        "rounds": rounds,
        "best_round": max(1, rounds - 7),
        "weights_sha256": "b7e208cd41f9" * 5 + "a1b2",
        "bytes_up": 74_000 * sites * rounds,
        "bytes_down": 74_200 * sites * rounds,
        "curve": curve,
        "evaluation": copy.deepcopy(evaluation(sites, federation, whom)) if judged else {"cohorts": []},
        "versions": {"learner": "0.1.0", "jax": "0.10.2", "python": "3.11.9"},
        "device": "cpu x 2",
        "command": "python -m launch.simulate --config=readmission --config.rounds=50",
        "notes": ["Synthetic figures, made up for a test: the sites are artificial and there are no patients."],
    }


@pytest.fixture(name="make")
def _make():
    """The maker of synthetic results."""
    return make
