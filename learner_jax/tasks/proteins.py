"""Surface proteins of cells from their RNA (CITE-seq): each laboratory's panel, one model for all proteins.

A site's rows are its cells, `learner_jax.data.cells.Cells`. What the sites agree on first is in
`learner_jax.tasks.protein_sums`: the genes that all have, which of them vary, and a linear reduction. A cell's inputs
are its scores on that reduction, which keep their share of the variance (the first has deviation 1).

| target | of a protein's count | where laboratories' panels differ |
|---|---|---|
| within_site | log1p, less its mean at the site, over its deviation there | the same: the default |
| log1p | log1p, one scale for all sites | the same, for laboratories that stain with the same antibodies |
| clr_per_protein | log1p of the count over its geometric mean at the site | the same, but antibody gain stays in it |
| clr_per_cell | log1p less the cell's mean over the panel | another target for each panel: refused |
| clr_within_site | that, z-scored within the site | refused too; of one panel, antibodies may differ |

A protein that a site does not measure is not zero there: it is left out of the loss, of each figure, and, by
`algorithms.columnwise`, of the average. Means and deviations are of training cells alone. Within one site's scale a
laboratory of B cells alone and one without them both have mean 0: where sites differ in their cells and share their
antibodies, take log1p, or clr_per_cell if all measure the whole panel.

References: Stoeckius et al., Nature Methods 2017 (CITE-seq, CLR); Gayoso et al., Nature Methods 2021 (totalVI).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from learner_jax.data.schema import Checklist, Statistic
from learner_jax.data.sites import TEST, TRAIN, VALID, SiteData, deal
from learner_jax.data.told_arrays import array, told
from learner_jax.errors import ConfigError, DataError
from learner_jax.statistics import mean_and_deviation, moments
from learner_jax.statistics import proteins as targets
from learner_jax.statistics.reduction import FEWEST_CELLS, scores
from learner_jax.tasks.protein_judging import judging
from learner_jax.tasks.protein_sums import Asked, counted, log_values, statistics
from learner_jax.types import Task

if TYPE_CHECKING:
    from learner_jax.data.cells import Cells

VALIDATION = ("valid", "val", "validation")
"""Words of the column `split` for cells on which rounds are compared."""
Target = Literal["within_site", "log1p", "clr_per_protein", "clr_per_cell", "clr_within_site"]
WHOLE = ("clr_per_cell", "clr_within_site")
"""Targets that need a cell's whole panel."""
SAMPLE = "pbmc10k"


def proteins(
    *,
    panel: tuple[str, ...],
    genes: tuple[str, ...] | None = None,
    highly_variable: int | None = None,
    flavor: Literal["seurat_v3", "pearson_residuals"] = "seurat_v3",
    reduction: Literal["gram", "sketch", "none"] = "gram",
    components: int = 100,
    power: int = 8,
    standardise: bool = False,
    target: Target = "within_site",
    types: tuple[str, ...] = (),
    type_column: str = "cell_type",
    donor: str | None = None,
    inputs: Literal["shared", "within_site"] = "shared",
    most_genes: int = 1024,
    quantiles: float = 0.5,
    valid_share: float = 0.1,
    test_share: float = 0.2,
    split_seed: int = 0,
) -> Task:
    """The task: squared error of each measured protein's mean, and pinball loss of its quantiles 0.1, 0.5 and 0.9.

    Args:
      panel: the proteins, by any alias; each must be measured at one site at least.
      genes: symbols or Ensembl ids to look at; None for those that all sites have.
      highly_variable: so many of them, the most variable over all sites; None for all.
      flavor: how "variable" is told, as scanpy's flavors of these names.
      reduction: "gram" (one round; a site's covariances of genes leave it), "sketch" (`power` rounds of smaller sums,
        for more than about 2,000 genes), "none" (the network gets the genes, and has as many inputs).
      components: directions of the reduction.
      power: rounds of the sketch.
      standardise: divide each gene by its standard deviation over all sites' cells before the reduction, so that
        faint genes count like loud ones; without a reduction too, where the mean stays, so that cells stay sparse.
        Nothing is cut off: a gene of very few cells is far out in them (ask for variable genes first).
      target: what is predicted; see the module.
      types: cell types for a second head, as they stand in `type_column`; () for none. Give the model their number.
      type_column: of the cells.
      donor: the column that says whose cell it is, so that a donor's cells are all in one part; None: each by itself.
      inputs: "within_site" takes off each site's own mean of its scores (of all cells that are predicted together, at a
        site that took no part), so that what is a laboratory's alone does not pass for biology.
      most_genes: without a reduction, a cell's genes of which as many are kept, the largest.
      quantiles: how much the pinball loss counts beside the squared error.
      valid_share, test_share: of the cells; where they have a column `split`, its words "test" and "valid" go first.
      split_seed: of both draws.

    Returns:
      A Task whose model is `protein_net()`.

    Raises:
      ConfigError: the declaration contradicts itself.
    """
    from learner_jax.evaluation import protein_metrics as watched
    from learner_jax.models import protein_net

    panel = _canonical(panel)
    if target in WHOLE and len(panel) < 2:
        raise ConfigError(f"task.panel: expected at least 2 proteins for {target}, got 1")
    if reduction == "sketch" and not 2 <= power <= 11:
        raise ConfigError(f"task.power: expected 2 to 11 rounds of the sketch, got {power}")
    asked = Asked(panel, genes, highly_variable, flavor, reduction, components, power, split_seed, standardise)
    parting = _Parting(donor, valid_share, test_share, split_seed)
    return Task(
        model=protein_net(types=len(types)),
        loss=_loss(quantiles),
        metrics=(watched.pearson(len(panel)), watched.rmse, watched.coverage),
        checklist=checklist(asked, parting, target, types, type_column, most_genes, inputs == "within_site"),
        judging=judging(panel, types),
    )


def _canonical(panel: tuple[str, ...]) -> tuple[str, ...]:
    from learner_jax.data.protein_names import canonical

    if not panel:
        raise ConfigError("task.panel: expected the proteins to predict, got none")
    names = tuple(canonical(name) for name in panel)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"task.panel: expected each protein once, got {', '.join(twice)} twice")
    return names


def _loss(weight: float) -> Any:
    """(output, {"value", "seen", and with types "type"}) -> float[B]; means over the proteins that were seen."""
    import jax
    import jax.numpy as jnp

    from learner_jax.models.protein_net import QUANTILES

    def loss(output, target):
        y, seen = target["value"], target["seen"]
        each = (output["mean"] - y) ** 2
        for name, share in zip(("low", "mid", "high"), QUANTILES, strict=True):
            away = y - output[name]
            each = each + weight * jnp.maximum(share * away, (share - 1) * away)
        found = jnp.sum(each * seen, axis=1) / jnp.maximum(jnp.sum(seen, axis=1), 1)
        if "types" in output and "type" in target:
            known = target["type"] >= 0
            chance = jnp.take_along_axis(
                jax.nn.log_softmax(output["types"]), jnp.maximum(target["type"], 0)[:, None], axis=1
            )
            found = found - jnp.where(known, chance[:, 0], 0)
        return found

    return loss


class _Parting:
    """How cells are dealt to training, validation and test: by barcode, or by donor."""

    def __init__(self, donor: str | None, valid_share: float, test_share: float, seed: int):
        self.donor, self.shares, self.seed = donor, (valid_share, test_share), seed

    def __call__(self, cells: Cells) -> tuple[np.ndarray, np.ndarray]:
        """(group int64[n], split int8[n])."""
        who = cells.obs.index if self.donor is None else cells.obs[self.donor].astype(str)
        group = np.array([_number(name) for name in who], np.int64)
        if "split" not in cells.obs:
            return group, deal(group, None, self.seed, *self.shares)
        words = cells.obs["split"].astype(str).to_numpy()
        said = deal(group, words == "test", self.seed, *self.shares)
        valid = np.isin(words, VALIDATION)
        if valid.any():  # who names them means the others to be trained on
            said[said == VALID] = TRAIN
            said[valid] = VALID
        return group, said


def _number(name: Any) -> int:
    return int.from_bytes(hashlib.sha256(str(name).encode()).digest()[:8], "little", signed=True)


def checklist(
    asked: Asked,
    parting: Any,
    target: Target,
    types: tuple[str, ...],
    type_column: str,
    most_genes: int,
    own_mean: bool = False,
) -> Checklist:
    """What a site's cells must hold, and their way to arrays."""

    def training(cells: Cells) -> Cells:
        return cells.take(parting(cells)[1] == TRAIN)

    first, *more = statistics(asked, training)
    more = [*more, *([] if target.endswith("within_site") else [_target_moments(asked, target, training)])]

    def check(cells: Any, where: str) -> list[str]:
        from learner_jax.data.cells_check import check_cells

        cells = frame(cells, where)
        notes = check_cells(cells, asked.genes or (), asked.panel, where)
        _, split = parting(_with_donor(cells, parting, where))
        train, measured = split == TRAIN, cells.panel(asked.panel)[1]
        if asked.genes is not None:
            train &= np.diff(cells.on_genes(asked.genes).indptr) > 0
        n = int(train.sum())
        if n < FEWEST_CELLS:
            raise DataError(
                f"{where}: expected at least {FEWEST_CELLS} cells to train on, since sums of few cells tell of each, "
                f"got {n} of the {len(cells):,} that are there"
            )
        if target in WHOLE and not measured.all():
            lacking = ", ".join(name for name, there in zip(asked.panel, measured) if not there)
            raise DataError(
                f"{where}: expected all proteins of the panel, since target='{target}' is another for each panel, "
                f"got none of {lacking}; choose target='within_site'"
            )
        unknown = set(cells.obs[type_column].astype(str)) - set(types) if types and type_column in cells.obs else set()
        if unknown:
            notes.append(f"{where}: cells of types that the study does not name teach no type: {len(unknown)} such")
        return notes

    def template(fitted: dict[str, Any]) -> dict[str, Any]:
        count = len(asked.panel)
        y: dict[str, Any] = {"value": np.zeros((2, count), np.float32), "seen": np.zeros((2, count), np.float32)}
        if types:
            y["type"] = np.full(2, -1, np.int32)
        if asked.reduction == "none":
            width = min(most_genes, len(fitted["genes"]))
            last = np.full((2, width), len(fitted["genes"]) - 1, np.int32)
            return {"x": {"gene": last, "value": np.zeros((2, width), np.float32)}, "y": y}
        return {"x": np.zeros((2, len(fitted["inputs"])), np.float32), "y": y}

    def encode(cells: Any, fitted: dict[str, Any], labelled: bool = True) -> SiteData:
        from learner_jax.data.cells_check import background

        cells = counted(frame(cells, "the cells"), fitted) if labelled else frame(cells, "the cells")
        group, split = parting(cells) if labelled else (np.arange(len(cells)), np.full(len(cells), TEST, np.int8))
        values = log_values(cells, fitted, "the cells")
        if asked.reduction == "none":
            if "gene_scale" in fitted:
                values = values.copy()
                values.data = values.data / array(fitted["gene_scale"])[values.indices]
            x: Any = padded(values, min(most_genes, len(fitted["genes"])))
        else:
            found = scores(values, array(fitted["centre"]), array(fitted["loadings"]))
            mine = split == TRAIN if labelled and (split == TRAIN).any() else slice(None)
            x = (found - found[mine].mean(axis=0) if own_mean and len(found) else found).astype(np.float32)
        counts, measured = cells.panel(asked.panel)
        y: dict[str, Any] = {
            "value": np.zeros(counts.shape, np.float32),
            "seen": np.broadcast_to(measured.astype(np.float32), counts.shape).copy(),
        }
        if labelled and measured.any() and (split == TRAIN).any():
            y["value"][:, measured] = _value(counts[:, measured], split == TRAIN, target, fitted, measured)
        else:  # without cells to train on there is no scale, so nothing to hold a prediction against
            y["seen"][:] = 0
        if not labelled:
            _same_genes(cells, fitted)
        if types:
            y["type"] = _types(cells, types, type_column)
        about = (
            {"background": [name for name, alone in background(cells).items() if alone]}
            if labelled and len(cells)
            else {}
        )
        return SiteData({"x": x, "y": y}, split, group, {"everyone": np.ones(len(cells), bool)}, about=about)

    def compare(cells: Any, fitted: dict[str, Any]) -> list[str]:
        cells = frame(cells)
        out = len(cells) - len(counted(cells, fitted))
        said = asked.genes is not None  # by the check, before anything has left
        return [] if said or not out else [f"{out:,} cells have no count of the genes that all sites have: left out"]

    return Checklist(
        columns=(),
        check=check,
        zero=lambda: first.zero({}),
        measure=lambda cells: first.measure(cells, {}),
        fit=lambda total: first.fit(total, {}),
        template=template,
        encode=encode,
        sample=SAMPLE,
        label="proteins",
        compare=compare,
        more=tuple(more),
        frame=frame,
    )


def frame(cells: Any, where: str = "the cells") -> Cells:
    """Cells, of an AnnData or a MuData too.

    Raises:
      DataError: it is neither.
    """
    from learner_jax.data.cells import Cells, from_anndata
    from learner_jax.data.cells_files import from_mudata

    if isinstance(cells, Cells):
        return cells
    if isinstance(getattr(cells, "mod", None), Mapping):  # which of a pandas frame is a method
        return from_mudata(cells, where=where)
    if hasattr(cells, "obsm"):
        return from_anndata(cells, where=where)
    raise DataError(f"{where}: expected cells (an AnnData, or a .h5ad or .h5mu file), got {type(cells).__name__}")


def _same_genes(cells: Cells, fitted: dict[str, Any]) -> None:
    """Warns where genes that the study agreed on are not among those of cells to predict.

    Raises:
      DataError: none of them is.
    """
    from learner_jax.data.cells import matched

    agreed = fitted["agreed"]
    there = len(matched(cells, agreed).matched)
    if there == 0:
        raise DataError(
            f"the cells: expected some of the study's {len(agreed):,} genes, got none: other names, or species?"
        )
    if there < len(agreed):
        few = "; with so few, predictions mean little" if 2 * there < len(agreed) else ""
        warnings.warn(
            f"{len(agreed) - there:,} of the study's {len(agreed):,} genes are not among those of these cells, and "
            f"count as 0{few}",
            stacklevel=2,
        )


def _with_donor(cells: Cells, parting: Any, where: str) -> Cells:
    if parting.donor is not None and parting.donor not in cells.obs:
        raise DataError(
            f"{where}: expected a column '{parting.donor}' of the cells, which says whose they are, got none"
        )
    without = 0 if parting.donor is None else int(np.sum(cells.obs[parting.donor].isna()))
    if without:
        raise DataError(f"{where}: expected a donor of each cell in '{parting.donor}', got none of {without:,}")
    return cells


def padded(values: Any, most: int) -> dict[str, np.ndarray]:
    """Rows of a sparse matrix as two arrays of one width: it stays sparse until the minibatch.

    Args:
      values: CSR [n, G].
      most: K; of a row with more entries, the largest are kept.

    Returns:
      {"gene": int32[n, K], ascending; "value": float32[n, K], 0 where a row is filled up}.
    """
    rows = values.shape[0]
    gene, value = np.zeros((rows, most), np.int32), np.zeros((rows, most), np.float32)
    for row in range(rows):
        begin, end = values.indptr[row], values.indptr[row + 1]
        at, amount = values.indices[begin:end], values.data[begin:end]
        if len(at) > most:
            kept = np.sort(np.argsort(-amount, kind="stable")[:most])
            at, amount = at[kept], amount[kept]
        gene[row, : len(at)], value[row, : len(at)] = at, amount
    return {"gene": gene, "value": value}


def _value(
    counts: np.ndarray, train: np.ndarray, target: Target, fitted: dict[str, Any], measured: np.ndarray
) -> np.ndarray:
    """Targets of the measured proteins, in units in which they have deviation 1 or about it."""
    if target == "within_site":
        return targets.within_site(counts, targets.site_scale(counts[train]))
    if target == "clr_within_site":
        ratios = targets.clr_per_cell(counts)
        mean, deviation = ratios[train].mean(axis=0), ratios[train].std(axis=0)
        return (ratios - mean) / np.where(deviation > 1e-6, deviation, 1.0)
    mean, deviation = array(fitted["target_mean"])[measured], array(fitted["target_scale"])[measured]
    return (_ratios(counts, train, target) - mean) / deviation


def _ratios(counts: np.ndarray, train: np.ndarray, target: Target) -> np.ndarray:
    if target == "clr_per_cell":
        return targets.clr_per_cell(counts)
    if target == "log1p":
        return np.log1p(counts.astype(np.float64))
    return targets.clr_per_protein(counts, targets.protein_centre(counts[train]))


def _target_moments(asked: Asked, target: Target, training: Any) -> Statistic:
    """One round more: mean and deviation of centred log-ratios over all sites that measure a protein."""
    size = len(asked.panel)

    def zero(found: dict[str, Any]) -> dict[str, np.ndarray]:
        return {"rows": np.zeros(size, np.int64), "sum": np.zeros(size), "squares": np.zeros(size)}

    def measure(cells: Any, found: dict[str, Any]) -> dict[str, np.ndarray]:
        cells, out = counted(training(cells), found), zero(found)
        counts, measured = cells.panel(asked.panel)
        if measured.any():
            ratios = _ratios(counts[:, measured], np.ones(len(cells), bool), target)
            sums = moments(ratios, np.zeros(ratios.shape[1]))
            for name in out:
                out[name][measured] = sums[name]
        return out

    def fit(total: dict[str, np.ndarray], found: dict[str, Any]) -> dict[str, Any]:
        mean, deviation = mean_and_deviation(total, np.zeros(size))
        scale = np.where(deviation > 1e-6, deviation, 1.0)
        return {**found, "target_mean": told(np.asarray(mean)), "target_scale": told(scale)}

    return Statistic(zero, measure, fit)


def _types(cells: Cells, types: tuple[str, ...], column: str) -> np.ndarray:
    if column not in cells.obs:
        return np.full(len(cells), -1, np.int32)
    place = {name: at for at, name in enumerate(types)}
    return np.array([place.get(str(name), -1) for name in cells.obs[column]], np.int32)
