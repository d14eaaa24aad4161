"""Readmission within 30 days, from a table of inpatient encounters (Diabetes 130-US Hospitals, or one like it).

Trained on all inpatients, judged on two cohorts: everyone, and patients with heart failure (any of the three diagnoses
starts with 428). Discharges to death or hospice are dropped. This is not the cohort of a public payer's measure: any of
three positions, no age limit, transfers and discharges against advice are kept, several stays of one patient within 30
days count each, and planned readmissions cannot be told, since the table has no dates.

Reference: Strack et al., BioMed Research International 2014, 781670 (the data).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from learner_jax.data import encounters, icd9
from learner_jax.data.described import described, of_column, of_input
from learner_jax.data.encounters import COLUMNS, HEART_FAILURE, IGNORED, LABEL
from learner_jax.data.once import once
from learner_jax.data.schema import ONE_CLASS, Checklist, conform, refuse, rows_shown
from learner_jax.data.sites import TRAIN, SiteData, deal
from learner_jax.data.ways import Labels
from learner_jax.statistics import counts, kept, mean_and_deviation, missing, missing_rate, moments
from learner_jax.types import Task

if TYPE_CHECKING:
    import pandas as pd

SAMPLE = "diabetes130"
LIMIT = 8.0
"""Standardised inputs are cut at +- this."""


def readmission(
    *,
    codes: int = 120,
    scale_floor: float = 0.25,
    valid_share: float = 0.1,
    test_share: float = 0.2,
    split_seed: int = 0,
) -> Task:
    """The task: sigmoid cross-entropy on one logit a row, judged by AUROC, AUPRC, Brier score and log loss.

    Args:
      codes: how many of the most frequent three-digit diagnoses get an input of their own, by counts over all sites.
      scale_floor: inputs are divided by their standard deviation, or by this where that is smaller, so that a rare
        flag does not become a large number.
      valid_share: share of the training patients on whom rounds are compared.
      test_share: share of the patients held back, where the table has no column `split`.
      split_seed: of both draws.

    Returns:
      A Task whose model is the default, an MLP 64-32.
    """
    import optax

    from learner_jax.evaluation.metrics import auprc, auroc, brier, log_loss
    from learner_jax.models import mlp

    return Task(
        model=mlp(hidden=(64, 32)),
        loss=optax.sigmoid_binary_cross_entropy,
        metrics=(auroc, auprc, brier, log_loss),
        checklist=checklist(
            codes=codes,
            scale_floor=scale_floor,
            valid_share=valid_share,
            test_share=test_share,
            split_seed=split_seed,
        ),
    )


def checklist(
    *,
    codes: int = 120,
    scale_floor: float = 0.25,
    valid_share: float = 0.1,
    test_share: float = 0.2,
    split_seed: int = 0,
) -> Checklist:
    """What a hospital's table must hold, and its way to arrays. Arguments as in `readmission`."""

    def sums(inputs: np.ndarray, absent: np.ndarray, categories: np.ndarray) -> dict[str, np.ndarray]:
        return {
            **{f"input/{name}": value for name, value in moments(inputs).items()},
            **{f"column/{name}": value for name, value in missing(absent).items()},
            "diagnosis/rows": counts(categories, icd9.SIZE),
        }

    def measure(frame: pd.DataFrame) -> dict[str, np.ndarray]:
        table, _ = conform(_asked(frame), COLUMNS, "table")
        seen = encounters.describe(table)
        split = deal(seen.patient, seen.test, split_seed, valid_share, test_share)
        train = seen.alive & (split == TRAIN)
        absent = np.stack(
            [table[c.name].isna() if c.name in table else np.zeros(len(table), bool) for c in COLUMNS], axis=1
        )
        return sums(seen.inputs[train], absent[train], seen.categories[train])

    def zero() -> dict[str, np.ndarray]:
        inputs = np.zeros((0, len(encounters.input_names())))
        return sums(inputs, np.zeros((0, len(COLUMNS)), bool), np.zeros((0, 1), np.int64))

    def template(fitted: dict[str, Any]) -> dict[str, Any]:
        return {"x": np.zeros((2, len(fitted["inputs"])), np.float32), "y": np.zeros(2, np.float32)}

    def fit(total: dict[str, np.ndarray]) -> dict[str, Any]:
        diagnoses = np.where(np.arange(icd9.SIZE) == icd9.UNKNOWN, 0, total["diagnosis/rows"])
        chosen = kept(diagnoses, codes)
        rows = max(int(total["column/rows"]), 1)
        mean, deviation = mean_and_deviation({name: total[f"input/{name}"] for name in ("rows", "sum", "squares")})
        share = diagnoses[chosen] / rows
        mean = np.concatenate([mean, share])
        scale = np.maximum(np.concatenate([deviation, np.sqrt(np.maximum(share * (1.0 - share), 0.0))]), scale_floor)
        rates = missing_rate({"rows": total["column/rows"], "missing": total["column/missing"]})
        return {
            "inputs": [*encounters.input_names(), *(f"diagnosis {icd9.spell(int(code))}" for code in chosen)],
            "diagnoses": [int(code) for code in chosen],
            "mean": mean.tolist(),
            "scale": scale.tolist(),
            "rows": int(total["column/rows"]),
            "missing": {column.name: float(rate) for column, rate in zip(COLUMNS, rates)},
        }

    def encode(frame: pd.DataFrame, fitted: dict[str, Any], labelled: bool = True) -> SiteData:
        table, _ = conform(_asked(frame), COLUMNS if labelled else _for_prediction(), "table")
        seen = encounters.describe(table)
        split = deal(seen.patient, seen.test, split_seed, valid_share, test_share)
        rows = np.flatnonzero(seen.alive) if labelled else np.arange(len(table))
        categories = seen.categories[rows]
        mean, scale, known = np.array(fitted["mean"]), np.array(fitted["scale"]), seen.inputs.shape[1]
        x = np.empty((len(rows), len(mean)), np.float32)
        x[:, :known] = np.clip((seen.inputs[rows] - mean[:known]) / scale[:known], -LIMIT, LIMIT)
        for place, code in enumerate(fitted["diagnoses"], known):
            flag = np.clip((np.array([0.0, 1.0]) - mean[place]) / scale[place], -LIMIT, LIMIT)
            x[:, place] = flag[(categories == code).any(axis=1).astype(np.int64)]
        return SiteData(
            rows={"x": x, "y": seen.early[rows].astype(np.float32)},
            split=split[rows],
            group=seen.patient[rows],
            cohorts={
                "heart failure": (categories == HEART_FAILURE).any(axis=1),
                "everyone": np.ones(len(rows), bool),
            },
            ways={name: Labels(way.levels, way.of[rows]) for name, way in encounters.ways(table).items()},
        )

    def check(frame: pd.DataFrame, where: str) -> list[str]:
        table, warnings = conform(_asked(frame), COLUMNS, where)
        refuse(_patients_that_do_not_fit(table), where)
        seen = encounters.describe(table)
        train = seen.alive & (deal(seen.patient, seen.test, split_seed, valid_share, test_share) == TRAIN)
        coded = np.stack([table[name].notna().to_numpy() for name in encounters.DIAGNOSES], axis=1)
        unread = (seen.categories == icd9.UNKNOWN) & coded
        if coded.sum() >= 20 and unread.sum() > 0.2 * coded.sum():
            warnings.append(
                f"{where}: {100 * unread.sum() / coded.sum():.0f} of 100 diagnoses are no ICD-9-CM codes: is another "
                "system in use here, such as ICD-10? Translate them, or they count as unknown"
            )
        if not seen.alive.any():
            refuse(["expected encounters that did not end in death or hospice, got none"], where)
        if not train.any():
            warnings.append(f"{where}: no training rows; the site can only be judged")
        elif len(np.unique(seen.early[train])) == 1:
            warnings.append(f"{where}: {ONE_CLASS}")
        return warnings

    def describe(fitted: dict[str, Any]) -> dict[str, Any]:
        rows, known = fitted["rows"], len(encounters.input_names())
        asked = [c for c in COLUMNS if c.name not in ("patient", "order", "split", LABEL)]
        inputs = [
            of_input(name, rows, mean, scale if scale > scale_floor else None)
            for name, mean, scale in zip(fitted["inputs"], fitted["mean"], fitted["scale"], strict=True)
        ]
        coded = sorted(inputs[known:], key=lambda one: -(one.mean or 0.0))
        return described(
            rows,
            [
                ("Columns as each hospital has them", [of_column(c, rows, fitted["missing"][c.name]) for c in asked]),
                ("Inputs made of them", inputs[:known]),
                ("Diagnoses with an input of their own", coded),
            ],
            f"Most inputs are 0 or 1: the mean is the share that has it. No standard deviation is told where it is at "
            f"most {scale_floor:g}, by which such an input is divided.",
        )

    return Checklist(COLUMNS, check, zero, measure, fit, template, encode, SAMPLE, LABEL, describe=describe)


@once
def _asked(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=[name for name in IGNORED if name in frame.columns])


def _for_prediction() -> tuple:
    """The same columns; who, when and what came of it may be absent."""
    import dataclasses

    optional = ("patient", "order", "split", LABEL)
    return tuple(
        dataclasses.replace(c, required=False, missing=c.missing if c.name in ("patient", "order") else "typical")
        if c.name in optional
        else c
        for c in COLUMNS
    )


def _patients_that_do_not_fit(table: pd.DataFrame) -> list[str]:
    """Two encounters of one patient at the same place in time; one patient on both sides of the split."""
    problems = []
    twice = table.duplicated(["patient", "order"]).to_numpy()
    if twice.any():
        problems.append(f"column 'order', {rows_shown(table.index, twice)}: the same patient has this order already")
    if "split" in table:
        patient, test = table["patient"].to_numpy(), (table["split"] == "test").to_numpy()
        both = np.isin(patient, np.intersect1d(patient[test], patient[~test]))
        if both.any():
            problems.append(f"column 'split', {rows_shown(table.index, both)}: the patient is in both train and test")
    return problems
