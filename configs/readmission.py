"""Will a patient with diabetes be back in hospital within 30 days? Ten sites, one model.

The sample that ships with the package: 101,766 stays in 130 US hospitals, 1999 to 2008, of real patients; the ten
sites that they are dealt to are made up. It is trained on all inpatients, judged on heart failure and on everyone.

    learner simulate --config=readmission
    learner local --config=readmission --sites=4

Time: (measured by the engines' owner)
Result: (measured by the engines' owner)
"""

from __future__ import annotations

from learner_jax.specs import Data, Spec, Study


def study() -> Study:
    adam = Spec("optimizers", "adam", {"learning_rate": 1e-3})
    return Study(
        name="readmission",
        question="Who will be back in hospital within 30 days?",
        task=Spec("tasks", "readmission"),
        algorithm=Spec("algorithms", "fedavg", {"local": adam}),
        rounds=50,
        batch_size=256,
        epochs=1,
        target="valid/auroc",
        data=Data(source="diabetes130", site_column="site", split_column="split"),
    )
