"""Who is readmitted within 30 days of a stay with heart failure, by what was coded and when: a small transformer.

As `heart_failure`, whose tables need a column more, the coded events of the year before the discharge:

    learner data cohort /data/omop --cohort=heart_failure_readmission --features=features/north.csv --events
    learner data cohort /data/fhir --cohort=heart_failure_readmission --features=features/south.csv --events
    learner simulate --config=heart_failure_events

It reads which codes there were and how long ago; codes are counted over places that are the same at every hospital, so
that no list of codes leaves one. It needs more patients than a logistic regression does: a thousand are few.
"""

from __future__ import annotations

import os

from learner_jax.specs import Data, Spec, Study

COLUMNS = (
    {"name": "patient", "kind": "id"},
    {"name": "age", "kind": "number", "unit": "years", "low": 18, "high": 120, "missing": "masked"},
    {"name": "female", "kind": "flag", "missing": "masked"},
    {"name": "stay_days", "kind": "number", "unit": "days", "low": 0, "high": 1000},
    {"name": "stays_365", "kind": "number", "low": 0, "high": 400, "about": "stays within a year before"},
    {"name": "days_since_stay", "kind": "number", "unit": "days", "low": 0, "missing": "masked"},
    {"name": "charlson", "kind": "number", "low": 0, "high": 40},
    {"name": "history", "kind": "events", "keep": 64, "about": "coded events of the year before"},
    {"name": "outcome", "kind": "flag", "about": "readmitted within the rule's window"},
)


def study() -> Study:
    """Two layers of width 64 over the 64 latest events; each patient is in one part of the data alone."""
    adamw = Spec("optimizers", "adamw", {"learning_rate": 1e-3, "weight_decay": 0.1})
    return Study(
        name="heart failure events",
        question="Who is readmitted within 30 days of a stay with heart failure?",
        task=Spec("tasks", "table", {"columns": COLUMNS, "label": "outcome", "patient": "patient"}),
        model=Spec("models", "transformer", {"width": 64, "layers": 2, "heads": 4, "dropout": 0.1}),
        algorithm=Spec("algorithms", "fedavg", {"local": adamw}),
        rounds=30,
        batch_size=32,
        epochs=1,
        target="valid/log_loss",
        data=Data(source=os.environ.get("LEARNER_FEATURES", "features"), site_column=None, split_column=None),
    )
