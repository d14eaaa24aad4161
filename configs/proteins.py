"""Surface proteins of blood cells from their RNA: four laboratories, fourteen proteins, one model.

    learner simulate --config=proteins                    a minute: what each laboratory gained, a report
    learner local --config=proteins                       the same as five processes on this machine

The shipped sample is one donor's 2,000 blood cells with 1,000 genes (10x Genomics, CC BY 4.0), dealt to four made-up
laboratories that differ in their kinds of cells. For files of your own, one a laboratory (.h5ad or .h5mu):

    learner simulate --config=proteins --config.data.source=/data/cite --config.data.site_column=None \\
        --config.task.target=within_site --config.task.panel="('CD3','CD4','CD8','CD14','CD19')"

Take target=within_site where laboratories stain differently or measure different panels; proteins that one of them does
not measure are learned from the others.
"""

from __future__ import annotations

from learner_jax.specs import Data, Spec, Study

PANEL = (
    "CD127", "CD14", "CD15", "CD16", "CD19", "CD25", "CD3", "CD4", "CD45RA", "CD45RO", "CD56", "CD8", "PD-1", "TIGIT",
)  # fmt: skip


def study() -> Study:
    """Genes are cut to 50 directions that all laboratories share; each protein gets a mean and an 80 % interval."""
    adam = Spec("optimizers", "adam", {"learning_rate": 3e-3})
    return Study(
        name="proteins",
        question="Which surface proteins does a cell carry, as its RNA tells?",
        task=Spec("tasks", "proteins", {"panel": PANEL, "target": "clr_per_cell", "components": 50}),
        model=Spec("models", "protein_net", {"hidden": (256, 128), "dropout": 0.3}),
        algorithm=Spec("algorithms", "columnwise", {"local": adam, "average": 0.9}),
        rounds=60,
        batch_size=64,
        target="valid/pearson",
        data=Data(source="pbmc10k"),
    )
