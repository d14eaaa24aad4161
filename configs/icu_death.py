"""Who dies in the hospital, from the first day in intensive care? Hospitals that are really apart, by region.

The demo of the eICU Collaborative Research Database (PhysioNet, open, ODbL): 186 US hospitals in 2014 and 2015. A
region is a site: Midwest, Northeast, South, West, and where it is not told. It does not ship. Get it, then put the
query beside its tables (the first unit stay of each stay in hospital; nothing that knows the end):

    https://physionet.org/content/eicu-crd-demo/2.0/
    cp configs/icu_death.sql /data/eicu/
    LEARNER_EICU=/data/eicu learner simulate --config=icu_death

Logistic regression by Newton's method, which a federation has exactly as one place would.
"""

from __future__ import annotations

import os
from pathlib import Path

from learner_jax.specs import Data, Spec, Study

FILE = "icu_death.sql"
NONE_YET = f"{FILE} (put it beside the tables of the eICU demo, and name their folder in LEARNER_EICU)"


def _number(name: str, low: float, high: float, unit: str = "", missing: str = "typical") -> dict:
    return {"name": name, "kind": "number", "unit": unit, "low": low, "high": high, "missing": missing}


COLUMNS = (
    {"name": "patient", "kind": "id"},
    _number("age", 0, 120, "years"),
    {"name": "female", "kind": "flag", "missing": "typical"},
    {"name": "intubated", "kind": "flag"},
    {"name": "vent", "kind": "flag", "about": "ventilated"},
    {"name": "dialysis", "kind": "flag"},
    _number("eyes", 1, 4, "points"),
    _number("motor", 1, 6, "points"),
    _number("verbal", 1, 5, "points"),
    {"name": "meds", "kind": "flag", "missing": "typical", "about": "the coma scale could not be taken: sedated"},
    _number("urine", 0, 50_000, "mL/day", "indicator"),
    _number("wbc", 0, 300, "10*3/uL", "indicator"),
    _number("temperature", 15, 45, "Cel"),
    _number("respiratoryrate", 0, 100, "/min"),
    _number("sodium", 90, 200, "mmol/L"),
    _number("heartrate", 0, 300, "/min"),
    _number("meanbp", 0, 300, "mm[Hg]"),
    _number("ph", 6.5, 8, "", "indicator"),
    _number("hematocrit", 5, 75, "%"),
    _number("creatinine", 0, 40, "mg/dL", "indicator"),
    _number("albumin", 0.5, 7, "g/dL", "indicator"),
    _number("pao2", 10, 800, "mm[Hg]"),
    _number("pco2", 5, 250, "mm[Hg]"),
    _number("bun", 0, 300, "mg/dL"),
    _number("glucose", 5, 3000, "mg/dL"),
    _number("bilirubin", 0, 80, "mg/dL", "indicator"),
    _number("fio2", 20, 100, "%"),
    {"name": "died", "kind": "flag", "about": "before the hospital let go"},
)


def source() -> str:
    query = Path(os.environ.get("LEARNER_EICU", "")) / FILE
    return str(query) if os.environ.get("LEARNER_EICU") and query.is_file() else NONE_YET


def study() -> Study:
    fields = {"columns": COLUMNS, "label": "died", "patient": "patient", "valid_share": 0.2, "test_share": 0.3}
    return Study(
        name="icu death",
        question="Who dies in the hospital, from the first day in intensive care?",
        task=Spec("tasks", "table", fields),
        model=Spec("models", "logistic"),
        algorithm=Spec("algorithms", "newton", {"penalty": 1e-2}),
        rounds=12,
        batch_size=64,
        epochs=1,
        target="valid/log_loss",
        data=Data(source=source(), site_column="region", split_column=None),
    )
