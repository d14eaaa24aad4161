"""Score histograms leave where the study says so and the site has agreed, and nowhere else."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import learner_jax as lr
from learner_jax.build import build
from learner_jax.data.sites import encode_sites
from learner_jax.engines import judge
from learner_jax.engines.sources import frames_of
from learner_jax.engines.worker import agrees
from learner_jax.protocol.commands import Approve
from learner_jax.specs import Release, manifest, manifest_digest
from tests.federation.hospitals import federated, small, write_tables


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("release"), {"h00": 700, "h04": 700})


def study(tables, **fields):
    return small(tables, "fedavg", rounds=2, model=lr.logistic(), **fields)


@pytest.mark.slow
def test_where_it_is_agreed_all_patients_are_judged_together(tables, tmp_path):
    ended = federated(study(tables, release=Release(histograms="plain")), tmp_path)
    cohort = ended.outcome.result["evaluation"]["cohorts"][-1]
    together = cohort["together"]
    parts = build(study(tables))
    assert parts.task.checklist is not None
    _, sites = encode_sites(parts.task.checklist, frames_of(study(tables)))
    predict = judge.predictor(parts)
    told, y = [], []
    for site in sites.values():
        held = judge.take_rows(site.rows, np.flatnonzero(site.split == 2))
        told.append(judge.chances(predict(ended.outcome.weights, held)))
        y.append(held["y"])
    exact = roc_auc_score(np.concatenate(y), np.concatenate(told))
    assert together["sites"] == 2 and together["rows"] == sum(map(len, y))
    assert abs(together["auroc"]["value"] - exact) <= together["auroc"]["bound"] < 0.05
    assert cohort["calibration"] and cohort["decisions"]["thresholds"]
    assert "histogram" not in json.dumps(cohort["sites"])


def test_a_site_that_has_not_agreed_takes_no_part_and_says_why(tables):
    asked = study(tables, release=Release(histograms="plain"))
    approve = Approve(manifest(asked).encode(), manifest_digest(asked), ("h00",))
    reason = agrees(False)(approve)
    assert reason is not None and "release.histograms=plain" in reason and "--release_histograms" in reason
    assert agrees(True)(approve) is None
    plain = study(tables)
    assert agrees(False)(Approve(manifest(plain).encode(), manifest_digest(plain), ("h00",))) is None
    assert manifest_digest(plain) != manifest_digest(asked)  # who approves it sees another study
