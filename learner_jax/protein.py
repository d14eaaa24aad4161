"""Surface proteins from RNA in a notebook, in the manner of scvi-tools and scanpy.

    import learner_jax as lr

    lr.protein.setup_anndata(adata, protein_expression_obsm_key="protein_expression", batch_key="site")
    model = lr.protein.train(adata)                      # each batch is a laboratory; the cells stay apart
    model.predict(other)                                 # writes other.obsm["protein_predicted"], ["protein_interval"]
    lr.protein.pl.measured_against_predicted(adata)

`train` simulates the laboratories in this process; the same study runs between real ones by `learner coordinator` and
`learner join` with `configs/proteins.py`. Predictions are in the study's target: log1p counts z-scored within the
laboratory (`target="within_site"`, the default), or log1p counts or centred log-ratios.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from learner_jax import api
from learner_jax import plots as pl
from learner_jax.cli import environment
from learner_jax.data.protein_names import canonical
from learner_jax.data.told_arrays import array
from learner_jax.errors import DataError
from learner_jax.evaluation.conformal import LEAST
from learner_jax.events import Observer, silent
from learner_jax.specs import Spec, Study

if TYPE_CHECKING:
    from anndata import AnnData

    from learner_jax.api import Run
    from learner_jax.engines.trained import TrainedModel

__all__ = ["ProteinModel", "load", "pl", "setup_anndata", "train"]

SETUP = "learner_protein"
MANY_GENES, VARIABLE = 4000, 2000
"""With more genes than the first at each laboratory, so many of the most variable are taken."""
_ONE_MACHINE = Study(name="proteins", task=Spec("tasks", "proteins"))
PREDICTED, INTERVAL = "protein_predicted", "protein_interval"


def setup_anndata(
    adata: AnnData,
    *,
    protein_expression_obsm_key: str = "protein_expression",
    batch_key: str | None = None,
    labels_key: str | None = None,
    layer: str | None = None,
) -> None:
    """Says where things are in an AnnData, and sees that they can be used.

    Args:
      adata: raw counts of genes in X or a layer, and of antibodies in obsm. `uns["learner_protein"]` is set.
      protein_expression_obsm_key: of the antibody counts.
      batch_key: column of obs that says which laboratory (or batch) a cell is of; None: all are of one.
      labels_key: column of obs with cell types, which a second head then learns.
      layer: that holds the raw counts of genes; None for X, or where they are found.

    Raises:
      DataError: a key that is not there, or counts that cannot be used; one line.
    """
    from learner_jax.data.cells import from_anndata

    for key in filter(None, (batch_key, labels_key)):
        if key not in adata.obs:
            raise DataError(f"setup_anndata: expected a column '{key}' in adata.obs, got {_some(adata.obs)}")
    cells = from_anndata(adata, protein_key=protein_expression_obsm_key, layer=layer)
    if not cells.proteins:
        raise DataError(
            f"setup_anndata: expected antibody counts in adata.obsm['{protein_expression_obsm_key}'], got "
            f"{_some(adata.obsm)}"
        )
    said = {"protein": protein_expression_obsm_key, "batch": batch_key, "labels": labels_key, "layer": layer}
    adata.uns[SETUP] = {name: value for name, value in said.items() if value is not None}


def train(
    adata: AnnData | Mapping[str, AnnData],
    *,
    panel: tuple[str, ...] | None = None,
    target: str | None = None,
    rounds: int = 60,
    workdir: str | Path | None = None,
    on_event: Observer = silent,
    task: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    **fields: Any,
) -> ProteinModel:
    """Trains one model over laboratories, all in this process.

    Args:
      adata: set up by `setup_anndata`; or laboratory -> AnnData of its own.
      panel: the proteins; None for all that a laboratory measured.
      target: what is predicted (`learner_jax.tasks.proteins`); None: clr_per_cell where all laboratories are batches of
        one AnnData with one panel, else within_site.
      rounds: of training.
      workdir: the run's folder; the same call goes on where it stopped. None keeps everything in memory.
      on_event: told what happens.
      task: further fields of the task, such as {"highly_variable": 2000, "components": 100}.
      model: fields of `learner_jax.models.protein_net`, such as {"hidden": (512, 256), "dropout": 0.5}.
      **fields: of the study, in place of the defaults: `seed=1`, `batch_size=256`, `algorithm=...`.

    Returns:
      The trained model.

    Raises:
      DataError, ConfigError: one line.
    """
    sites, setup = _sites(adata)
    given_panel = None if panel is None else tuple(map(canonical, panel))
    names = given_panel or tuple(dict.fromkeys(protein for site in sites.values() for protein in site.proteins))
    whole = all(set(names) <= set(site.proteins) for site in sites.values())
    asked: dict[str, Any] = {"panel": names}
    together = whole and panel is None and len(names) > 1 and not isinstance(adata, Mapping)
    asked["target"] = target or ("clr_per_cell" if together else "within_site")
    if min(len(site.genes) for site in sites.values()) > MANY_GENES:
        asked["highly_variable"] = VARIABLE
    labels = setup.get("labels")
    if labels is not None:
        kinds = {
            str(kind) for site in sites.values() if labels in site.obs for kind in site.obs[labels].dropna().unique()
        }
        asked |= {"types": tuple(sorted(kinds)), "type_column": labels}
    asked |= dict(task or {})
    given = {"types": len(asked.get("types", ())), **dict(model or {})}
    adam = Spec("optimizers", "adam", {"learning_rate": 3e-3})
    environment.apply(environment.variables(_ONE_MACHINE, environment.cores()))  # before jax starts, if it has not
    study = Study(
        name=str(fields.pop("name", "proteins")),
        question="Which surface proteins does a cell carry, as its RNA tells?",
        task=Spec("tasks", "proteins", asked),
        model=Spec("models", "protein_net", given),
        algorithm=fields.pop("algorithm", Spec("algorithms", "columnwise", {"local": adam, "average": 0.9})),
        rounds=rounds,
        batch_size=fields.pop("batch_size", 128),
        target="valid/pearson",
    )
    run = api.simulate(study, sites=sites, workdir=workdir, on_event=on_event, **fields)
    return ProteinModel(run.model, names, run)


def load(folder: str | Path) -> ProteinModel:
    """A model as `ProteinModel.save`, or a run's `model/`, left it.

    Raises:
      StorageError, CorruptError: it is not there, or not readable.
    """
    folder = Path(folder)
    model = api.load(folder / "model" if (folder / "model").is_dir() else folder)
    return ProteinModel(model, tuple(map(canonical, model.parts.study.task.fields["panel"])))


class ProteinModel:
    """A trained model of proteins.

    Attributes:
      model: reads cells and predicts.
      panel: the proteins, in the order of what is predicted.
      run: what it was trained by, None of a loaded model.
    """

    def __init__(self, model: TrainedModel, panel: tuple[str, ...], run: Run | None = None):
        self.model, self.panel, self.run = model, panel, run

    def predict(self, adata: AnnData, *, layer: str | None = None) -> Any:
        """Predicts each cell's proteins from its RNA.

        Args:
          adata: raw counts of genes; proteins are not looked at. `obsm["protein_predicted"]` (cells x panel) and
            `obsm["protein_interval"]` (cells x "CD3_low", "CD3_high", ...: 80 % intervals) are written, and, where the
            study has cell types, `obs["cell_type_predicted"]`.
          layer: that holds the raw counts, as in `setup_anndata`.

        Returns:
          The predictions, a frame float64[n, P], in units of the study's target.

        Raises:
          DataError: counts that cannot be used.
        """
        import pandas as pd

        from learner_jax.data.cells import from_anndata

        said = dict(adata.uns.get(SETUP, {}))
        cells = from_anndata(adata, protein_key=None, layer=layer or said.get("layer"))
        own_mean = self.model.parts.study.task.fields.get("inputs") == "within_site" and "batch" in said
        batch = adata.obs[said["batch"]].astype(str).to_numpy() if own_mean else np.full(adata.n_obs, "all")
        told: dict[str, np.ndarray] = {}
        for name in sorted(set(batch)):
            rows = np.flatnonzero(batch == name)
            for part, value in self.model.predict(cells.take(rows)).items():
                told.setdefault(part, np.zeros((adata.n_obs, *value.shape[1:])))[rows] = value
        frame = pd.DataFrame(told["mean"], index=adata.obs_names, columns=pd.Index(self.panel))
        bounds = {f"{name}_{end}": told[end][:, at] for at, name in enumerate(self.panel) for end in ("low", "high")}
        adata.obsm[PREDICTED] = frame
        target = str(self.model.parts.study.task.fields.get("target", "within_site"))
        adata.uns["protein_target"] = target
        adata.obsm[INTERVAL] = pd.DataFrame(bounds, index=adata.obs_names)
        if "types" in told:
            kinds = np.array(self.model.parts.study.task.fields["types"], object)
            adata.obs["cell_type_predicted"] = pd.Categorical(kinds[told["types"].argmax(axis=1)])
        return frame

    def fine_tune(self, adata: AnnData, *, panel: tuple[str, ...] | None = None, **fields: Any) -> ProteinModel:
        """The same model for a laboratory's own panel, proteins that the study never had included.

        The layers that all laboratories trained stay; the head is trained on these cells alone, in this process.

        Args:
          adata: set up by `setup_anndata`; a tenth of its cells, or those whose `split` is "valid", is watched.
          panel: the proteins; None for all that were measured.
          **fields: of `learner_jax.engines.fine_tune.tune_head`: epochs, learning_rate, patience.

        Raises:
          DataError: counts that cannot be used; too few cells.
        """
        import dataclasses

        import jax

        from learner_jax.engines.calibrate import MOVED, kept, move_of
        from learner_jax.engines.fine_tune import start_from, tune_head
        from learner_jax.engines.trained import TrainedModel
        from learner_jax.specs import check

        (name, cells), *more = _sites(adata)[0].items()
        if more:
            raise DataError(
                "fine_tune: expected the cells of one laboratory, got several batches: set up without batch_key"
            )
        names = cells.proteins if panel is None else tuple(map(canonical, panel))
        study = self.model.parts.study
        fitted = {
            key: value
            for key, value in dict(self.model.fitted or {}).items()
            if not key.startswith("target_") and key != MOVED
        }
        own = {"panel": names, "target": "within_site", "test_share": 0.0}
        task = dataclasses.replace(study.task, fields={**study.task.fields, **own})
        parts = api.built(check(dataclasses.replace(study, task=task)))
        parts.task.checklist.check(cells, name)
        site = parts.task.checklist.encode(cells, fitted)
        fresh = parts.init_weights(jax.tree.map(lambda leaf: leaf[:2], site.rows))
        place = {protein: at for at, protein in enumerate(self.panel)}
        begin = start_from(fresh, self.model.weights, [place.get(protein, -1) for protein in names])
        weights = jax.device_get(tune_head(parts, begin, site, **fields))
        fitted = kept(fitted, move_of(parts, weights, site))
        rows = jax.tree.map(lambda leaf: leaf[:2], site.rows)
        return ProteinModel(TrainedModel(parts, weights, fitted, rows), tuple(names))

    def calibrate(self, adata: AnnData) -> ProteinModel:
        """The same model with intervals that hold 80 % of one laboratory's cells, as far as its own cells tell.

        A laboratory that took no part stains and sequences in its own way, and intervals learned elsewhere are likely
        to be too narrow there. Each protein's are moved by one number, found on cells that were measured here
        (`learner_jax.evaluation.conformal`); predictions stay. Judge them on other cells.

        Args:
          adata: set up by `setup_anndata`, cells of one laboratory that the model did not learn from; 50 or more tell
            enough. Proteins that were not measured keep their intervals.

        Raises:
          DataError: counts that cannot be used; no protein of the panel was measured in 20 cells.
        """
        import dataclasses

        import jax

        from learner_jax.data.cells_check import check_cells
        from learner_jax.engines.calibrate import MOVED, kept, move_of
        from learner_jax.engines.trained import TrainedModel
        from learner_jax.tasks.proteins import WHOLE

        (name, cells), *more = _sites(adata)[0].items()
        if more:
            raise DataError(
                "calibrate: expected the cells of one laboratory, got several batches: set up without batch_key"
            )
        study, fitted = self.model.parts.study, dict(self.model.fitted or {})
        check_cells(cells, (), self.panel, name)
        lacking = [protein for protein in self.panel if protein not in cells.proteins]
        if lacking and study.task.fields.get("target") in WHOLE:
            raise DataError(
                f"calibrate: expected all proteins of the panel, since target='{study.task.fields['target']}' is "
                f"another for each panel, got none of {_some(lacking)}"
            )
        every = {**study.task.fields, "valid_share": 0.0, "test_share": 0.0, "donor": None}
        parts = api.built(dataclasses.replace(study, task=dataclasses.replace(study.task, fields=every)))
        cells = dataclasses.replace(cells, obs=cells.obs.drop(columns="split", errors="ignore"))
        checklist: Any = parts.task.checklist
        checklist.encode(cells, fitted, labelled=False)  # says which genes are not there
        site = checklist.encode(cells, fitted)
        enough = (np.asarray(site.rows["y"]["seen"]) > 0).sum(axis=0) >= LEAST
        if not enough.any():
            raise DataError(
                f"calibrate: expected a protein of the panel measured in {LEAST} cells, got none: it has "
                f"{_some(self.panel)}"
            )
        before = array(fitted[MOVED]) if MOVED in fitted else np.zeros(len(self.panel))
        parts.init_weights(jax.tree.map(lambda leaf: leaf[:2], site.rows))  # a network is known by its first rows
        by = np.where(enough, move_of(parts, self.model.weights, site, every=True), before)
        return ProteinModel(
            TrainedModel(self.model.parts, self.model.weights, kept(fitted, by), self.model.rows), self.panel, self.run
        )

    @property
    def result(self) -> dict[str, Any]:
        """As in result.json: curve, evaluation.

        Raises:
          DataError: of a loaded model, which has none.
        """
        if self.run is None:
            raise DataError(
                "expected a model that was trained here, got a loaded one; its run's folder has result.json"
            )
        return self.run.result

    @property
    def figures(self) -> Any:
        """One row a protein: r, its interval, RMSE and coverage of the joint model, averaged over laboratories."""
        import pandas as pd

        judged = self.result["evaluation"]["proteins"]
        one = judged["average"]
        rows = one["models"][judged["models"][0]]["proteins"]
        told = {
            name: {
                "r": (figure["r"] or {}).get("value"),
                "low": (figure["r"] or {}).get("low"),
                "high": (figure["r"] or {}).get("high"),
                "rmse": (figure["rmse"] or {}).get("value"),
                "coverage": (figure["coverage"] or {}).get("value"),
            }
            for name, figure in rows.items()
        }
        return pd.DataFrame(told).T.sort_values("r", ascending=False)

    def report(self, path: str | Path) -> Path:
        """Writes what came out as one self-contained HTML page."""
        if self.run is None:
            raise DataError("expected a model that was trained here, got a loaded one; its run's folder has a report")
        return self.run.report(path)

    def save(self, folder: str | Path) -> None:
        """Writes weights.npz and model.json; `lr.protein.load(folder)` reads them."""
        self.model.save(folder)


def _sites(adata: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(laboratory -> Cells, what was set up)."""
    from learner_jax.data.cells import from_anndata

    if isinstance(adata, Mapping):
        found, setup = {}, {}
        for name, one in adata.items():
            said = dict(one.uns.get(SETUP, {}))
            key = said.get("protein", "protein_expression")
            found[str(name)] = from_anndata(one, protein_key=key, layer=said.get("layer"), where=f"site '{name}'")
            setup = {**said, **setup}
        return found, setup
    said = dict(adata.uns.get(SETUP, {}))
    if not said:
        raise DataError("train: expected an AnnData that lr.protein.setup_anndata has seen, got one it has not")
    cells = from_anndata(adata, protein_key=said["protein"], layer=said.get("layer"))
    if "batch" not in said:
        return {"all": cells}, said
    column = cells.obs[said["batch"]]
    without = int(np.sum(column.isna()))
    if without:
        raise DataError(f"expected a laboratory of each cell in obs['{said['batch']}'], got none of {without:,} cells")
    batch = column.astype(str).to_numpy()
    return {name: cells.take(batch == name) for name in sorted(set(batch))}, said


def _some(names: Any) -> str:
    told = [str(name) for name in names]
    return ", ".join(told[:6]) + (f" and {len(told) - 6} more" if len(told) > 6 else "") if told else "none"
