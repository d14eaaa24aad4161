"""Who is readmitted within 30 days of a stay with heart failure, from health records at each hospital?

Each hospital makes its table from its own records, in MEDS, OMOP, FHIR or plain tables, as docs/records.md tells; no
hospital needs the others' kind of records. To try it in one place, put one table a hospital into the folder `features`
(or that which LEARNER_FEATURES names):

    learner data cohort /data/omop --cohort=heart_failure_readmission --features=features/north.csv
    learner data cohort /data/fhir --cohort=heart_failure_readmission --features=features/south.csv
    learner simulate --config=heart_failure

Counts of codes are left out: they tell how a hospital's files were made as much as how ill its patients are. So are
days since a medicine, which are hours where doses are recorded and days where orders are; that one was known in the
stay agrees between renderings of the same patients. Eight groups are taken: the treatments of heart failure that a
discharge can lack (loop diuretics, ACE inhibitors and the like, beta blockers, mineralocorticoid antagonists), and four
that tell of a graver case (digoxin, oral anticoagulants, inotropes, insulin). Of Elixhauser the sum alone, which counts
what Charlson does not (fluids, arrhythmias, weight loss): its groups are mostly Charlson's once more.
"""

from __future__ import annotations

import os

from learner_jax.specs import Data, Spec, Study

GROUPS = (
    "myocardial_infarction", "heart_failure", "peripheral_vascular", "cerebrovascular", "dementia", "chronic_pulmonary",
    "rheumatic", "peptic_ulcer", "mild_liver", "diabetes", "diabetes_complicated", "hemiplegia", "renal", "malignancy",
    "severe_liver", "metastatic", "aids",
)  # fmt: skip
DRUGS = (
    "loop_diuretic",
    "ras_inhibitor",
    "beta_blocker",
    "mra",
    "digoxin",
    "oral_anticoagulant",
    "inotrope",
    "insulin",
)
COLUMNS = (
    {"name": "patient", "kind": "id"},
    {"name": "age", "kind": "number", "unit": "years", "low": 18, "high": 120, "missing": "typical"},
    {"name": "female", "kind": "flag", "missing": "typical"},
    {"name": "stay_days", "kind": "number", "unit": "days", "low": 0, "high": 1000},
    {"name": "emergency", "kind": "flag", "missing": "indicator", "about": "came by the emergency department"},
    {"name": "stays_180", "kind": "number", "low": 0, "high": 200, "about": "stays within 180 days before"},
    {"name": "stays_365", "kind": "number", "low": 0, "high": 400, "about": "stays within a year before"},
    {"name": "days_since_stay", "kind": "number", "unit": "days", "low": 0, "missing": "indicator"},
    {"name": "days_in_stays_365", "kind": "number", "unit": "days", "low": 0, "high": 365},
    {"name": "emergency_180", "kind": "number", "low": 0, "high": 400, "about": "emergency visits within 180 days"},
    *({"name": group, "kind": "flag", "about": "Charlson group"} for group in GROUPS),
    {"name": "charlson", "kind": "number", "low": 0, "high": 40},
    {"name": "elixhauser", "kind": "number", "low": -20, "high": 100, "about": "van Walraven's points"},
    *({"name": f"medicine_{drug}", "kind": "flag", "about": "known in the stay"} for drug in DRUGS),
    *(
        {"name": f"{name}_last", "kind": "number", "unit": unit, "missing": "indicator", "about": "last in the stay"}
        for name, unit in (
            ("creatinine", "mg/dL"), ("urea_nitrogen", "mg/dL"), ("sodium", "mmol/L"), ("potassium", "mmol/L"),
            ("haemoglobin", "g/dL"), ("systolic", "mm[Hg]"), ("heart_rate", "/min"),
        )
    ),
    {"name": "outcome", "kind": "flag", "about": "readmitted within the rule's window"},
)  # fmt: skip
SUBGROUPS = ({"name": "age", "edges": (65, 80)}, "female")


def study() -> Study:
    """Logistic regression, federated; each patient is in one part of the data alone."""
    adam = Spec("optimizers", "adam", {"learning_rate": 3e-3})
    return Study(
        name="heart failure",
        question="Who is readmitted within 30 days of a stay with heart failure?",
        task=Spec(
            "tasks", "table", {"columns": COLUMNS, "label": "outcome", "patient": "patient", "subgroups": SUBGROUPS}
        ),
        model=Spec("models", "logistic"),
        algorithm=Spec("algorithms", "fedavg", {"local": adam}),
        rounds=50,
        batch_size=32,
        epochs=1,
        target="valid/log_loss",
        data=Data(source=os.environ.get("LEARNER_FEATURES", "features"), site_column=None, split_column=None),
    )
