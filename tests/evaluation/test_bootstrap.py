"""The bootstrap by patient: against a loop that copies rows, and against how figures of fresh data truly spread."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from learner_jax.evaluation import bootstrap
from learner_jax.evaluation.bootstrap import generator, interval, patient_counts, resample


def stays(rng, patients, each):
    """Synthetic stays of patients who resemble themselves."""
    group = np.repeat(np.arange(patients), each)
    frail = np.repeat(rng.normal(size=patients), each)
    y = (rng.random(len(group)) < 1 / (1 + np.exp(1 - 2 * frail))).astype(int)
    return 1 / (1 + np.exp(-frail - 0.3 * rng.normal(size=len(group)))), y, group


def test_a_draw_is_whole_patients_with_all_their_rows():
    rng = np.random.default_rng(0)
    score, y, group = stays(rng, 40, 3)
    group = 1000 - 7 * group  # ids are any numbers, in any order
    other = np.round(score, 1)
    found = resample({"a": score, "b": other}, y, group, generator(5, "h01"), draws=30)
    names = np.unique(group)
    counts = np.concatenate(list(patient_counts(40, 120, generator(5, "h01"), 30)), axis=1)
    for draw in range(30):
        rows = np.concatenate([np.flatnonzero(group == names[p]) for p in np.repeat(np.arange(40), counts[:, draw])])
        assert len(rows) == 120
        for model, told in (("a", score), ("b", other)):
            assert found[model]["auroc"][draw] == pytest.approx(roc_auc_score(y[rows], told[rows]), abs=1e-12)
            assert found[model]["auprc"][draw] == pytest.approx(average_precision_score(y[rows], told[rows]), abs=1e-12)
            assert found[model]["brier"][draw] == pytest.approx(brier_score_loss(y[rows], told[rows]), abs=1e-12)


def test_blocks_do_not_change_the_draws(monkeypatch):
    score, y, group = stays(np.random.default_rng(1), 50, 2)
    whole = resample({"a": score}, y, group, generator(1), draws=64)["a"]
    monkeypatch.setattr(bootstrap, "CELLS", 700)  # 7 draws a block
    parts = resample({"a": score}, y, group, generator(1), draws=64)["a"]
    for name in whole:
        np.testing.assert_allclose(whole[name], parts[name], rtol=1e-14)


def test_intervals_by_patient_cover_and_intervals_by_row_are_too_narrow():
    rng = np.random.default_rng(2)
    told, came, _ = stays(rng, 100_000, 2)
    truth = roc_auc_score(came, told)
    covered, widths = 0, []
    for study in range(120):
        score, y, group = stays(rng, 80, 12)
        value = roc_auc_score(y, score)
        found = [
            interval(value, resample({"m": score}, y, cluster, generator(study), draws=200)["m"]["auroc"])
            for cluster in (group, np.arange(len(y)))
        ]
        widths.append([part["high"] - part["low"] for part in found if part])
        covered += found[0] is not None and found[0]["low"] <= truth <= found[0]["high"]
    by_patient, by_row = np.mean(widths, axis=0)
    assert covered / 120 >= 0.86  # of 95 %, with 80 patients
    assert by_patient / by_row > 1.3


def test_standard_error_equals_that_of_delong():
    rng = np.random.default_rng(3)
    n, m = 300, 700
    score = np.r_[rng.normal(1, 1, n), rng.normal(0, 1, m)]
    y = np.r_[np.ones(n), np.zeros(m)]
    placed = (np.sign(score[:n, None] - score[None, n:]) + 1) / 2
    delong = (placed.mean(1).var(ddof=1) / n + placed.mean(0).var(ddof=1) / m) ** 0.5
    drawn = resample({"m": norm.cdf(score)}, y, np.arange(n + m), generator(0), draws=2000)["m"]["auroc"]
    found = interval(placed.mean(), drawn)
    assert found is not None
    assert found["se"] == pytest.approx(delong, rel=0.06)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * delong, rel=0.08)


def test_streams_are_their_own_and_repeat():
    assert generator(1, "a", "b").integers(1 << 60) == generator(1, "a", "b").integers(1 << 60)
    others = {
        int(generator(*key).integers(1 << 60)) for key in [(1, "a", "b"), (1, "ab"), (1, "b", "a"), (2, "a", "b")]
    }
    assert len(others) == 4


def test_nothing_to_say():
    assert interval(float("nan"), np.ones(5)) is None
    assert interval(0.5, np.full(5, np.nan)) is None
