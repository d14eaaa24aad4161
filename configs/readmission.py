"""Will a patient with diabetes be back in hospital within 30 days? Ten sites, one model.

The sample that ships with the package: 101,766 stays in 130 US hospitals, 1999 to 2008, of real patients; the ten
sites that they are dealt to are made up. It is trained on all inpatients, judged on heart failure and on everyone.

    learner simulate --config=readmission
    learner local --config=readmission --sites=4

The setting is the best of twelve federated ones by validation rows (docs/readmission.md): FedProx, whose pull towards
the common weights keeps large local steps in check.

Time, on two cores that were busy with other work: the first command 165 s (with --config.engine.plan=sequential; its
50 rounds 42 s, the rest is compiling, references, bootstrap), the second 36 s, with all ten sites 138 s.
Result: round 47 is the best; AUROC on held-back stays 0.640 [0.609, 0.668] of heart failure, 0.685 [0.672, 0.697] of
everyone; pooled 0.635 and 0.682, each site alone on its own patients 0.614 and 0.647 (95 %, by patient).
"""

from __future__ import annotations

from learner_jax.specs import Data, Spec, Study


def study() -> Study:
    adamw = Spec("optimizers", "adamw", {"learning_rate": 2.6e-3, "weight_decay": 0.3})
    return Study(
        name="readmission",
        question="Who will be back in hospital within 30 days?",
        task=Spec("tasks", "readmission", {"scale_floor": 1.0}),
        model=Spec("models", "mlp", {"hidden": (64, 32), "dropout": 0.5}),
        algorithm=Spec("algorithms", "fedprox", {"local": adamw, "mu": 0.041}),
        rounds=50,
        batch_size=128,
        epochs=1,
        target="valid/auroc",
        data=Data(source="diabetes130", site_column="site", split_column="split"),
    )
