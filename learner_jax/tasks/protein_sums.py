"""What laboratories agree on before they train on cells: rounds of sums, each of which builds on the one before.

| round | what leaves a laboratory | what is found |
|---|---|---|
| genes | how many laboratories have each gene, each protein; cells | genes that all have |
| names (without a list of genes) | the letters of those genes' names | their names |
| variable genes, two (where asked for) | sums of counts; of clipped counts or residuals | the genes used |
| reduction | sums of products of log-normalised values, or a sketch of them in `power` rounds | directions, centre |
| deviations (standardised genes without a reduction) | sums and squares of log-normalised values | deviations |

Without a list of genes each is told by its place among 2^20, to which sha256 sends its name; two genes of one
laboratory that meet in a place are left out (of 20,000 genes about 2 in 100). Whether the gene at a place is the same
everywhere is seen from its letters: their sum is the number of laboratories times the letter only if all are equal.

A cell without a count of the agreed genes is left out from then on.

All sums but those of a sketch are of whole numbers, so they are the same however the cells are dealt to laboratories:
log-normalised values are rounded to 2^-16 before their products are added. Sums are over training cells alone.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from learner_jax.data.protein_names import near_proteins
from learner_jax.data.schema import Statistic
from learner_jax.data.told_arrays import array, told
from learner_jax.errors import DataError
from learner_jax.statistics import genes as gene_sums
from learner_jax.statistics import reduction as reduce_
from learner_jax.statistics import variable_genes
from learner_jax.statistics.whole_gram import deviation_of, mean_of, principal_of, whole_gram, whole_moments

if TYPE_CHECKING:
    from learner_jax.data.cells import Cells

PLACES = 1 << 20
MOST_OF_GRAM = 8000
LETTERS = 32
"""Bytes of a gene's name; a longer one is left out where no list of genes is given."""

Found = dict[str, Any]
Sums = dict[str, np.ndarray]


class Asked(NamedTuple):
    """What a study of proteins asks for; see `learner_jax.tasks.proteins.proteins`."""

    panel: tuple[str, ...]
    genes: tuple[str, ...] | None
    highly_variable: int | None
    flavor: Literal["seurat_v3", "pearson_residuals"]
    reduction: Literal["gram", "sketch", "none"]
    components: int
    power: int
    seed: int
    standardise: bool = False


def statistics(asked: Asked, training: Callable[[Any], Cells]) -> tuple[Statistic, ...]:
    """The rounds of sums.

    Args:
      asked: by the study.
      training: (a site's cells) -> those of them that are trained on.
    """
    found = [_genes(asked, training)]
    if asked.genes is None:
        found.append(_names(training))

    def used(frame: Any, so_far: Found) -> Cells:
        return counted(training(frame), so_far)

    if asked.highly_variable is not None:
        found += _variable(asked, used)
    if asked.reduction == "gram":
        found.append(_gram(asked, used))
    elif asked.reduction == "sketch":
        found += [_sketch(asked, used, number) for number in range(1, asked.power + 1)]
    elif asked.standardise:
        found.append(_deviations(used))
    return tuple(found)


def counted(cells: Cells, found: Found) -> Cells:
    """The cells that have a count of the agreed genes: of another, nothing is known here, so it teaches nothing."""
    some = np.diff(cells.on_genes(found["agreed"]).indptr) > 0
    return cells if some.all() else cells.take(some)


def log_values(cells: Cells, found: Found, where: str = "the site") -> Any:
    """Log-normalised values of the genes used, CSR float64 [n, G]; totals are over all agreed genes."""
    agreed = found["agreed"]
    values = gene_sums.log_normalised(cells.on_genes(agreed), names=list(cells.obs.index), where=where)
    return values if found["genes"] == agreed else values[:, _chosen(tuple(agreed), tuple(found["genes"]))]


@functools.lru_cache(maxsize=4)
def _chosen(agreed: tuple[str, ...], genes: tuple[str, ...]) -> np.ndarray:
    place = {name: at for at, name in enumerate(agreed)}
    return np.array([place[name] for name in genes], np.int64)


# ---- which genes -----------------------------------------------------------------------------------------------------


def _place(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little") % PLACES


def _own(cells: Cells) -> dict[int, str]:
    """place -> the one gene of this laboratory that is there."""
    seen: dict[int, list[str]] = {}
    for name in cells.genes:
        if len(str(name).encode()) <= LETTERS:
            seen.setdefault(_place(str(name)), []).append(str(name))
    return {place: names[0] for place, names in seen.items() if len(names) == 1}


def _genes(asked: Asked, training: Callable[[Any], Cells]) -> Statistic:
    size = PLACES if asked.genes is None else len(asked.genes)

    def zero(found: Found) -> Sums:
        none = np.zeros(len(asked.panel), np.int64)
        counts = {"sites": np.zeros(1, np.int64), "rows": np.zeros(1, np.int64)}
        return {**counts, "genes/sites": np.zeros(size, np.int64), "panel/sites": none, "panel/rows": none}

    def measure(frame: Any, found: Found) -> Sums:
        cells = training(frame)
        has = np.zeros(size, np.int64)
        if asked.genes is None:
            has[list(_own(cells))] = 1
        else:
            has[:] = cells.has(asked.genes)
        _, measured = cells.panel(asked.panel)
        one, rows = np.ones(1, np.int64), np.array([len(cells)], np.int64)
        mine = measured.astype(np.int64)
        return {"sites": one, "rows": rows, "genes/sites": has, "panel/sites": mine, "panel/rows": mine * len(cells)}

    def fit(total: Sums, found: Found) -> Found:
        sites = int(total["sites"][0])
        places = np.flatnonzero(total["genes/sites"] == sites)
        unmeasured = [name for name, n in zip(asked.panel, total["panel/sites"], strict=True) if n == 0]
        if unmeasured:
            raise DataError(
                "expected each protein of the panel at one site at least, got none for "
                + _some([f"{name}{near_proteins(name)}" for name in unmeasured])
            )
        if len(places) == PLACES:  # no laboratory has a gene at each place: a forecast without cells asks
            raise DataError("expected the sites' cells, or task.genes, to tell which genes all sites have, got neither")
        if not len(places):
            raise DataError(
                f"expected genes that all {sites} sites have, got none{_shared(total['genes/sites'], sites)}: are all "
                "of one species, and named by symbols? What each site's check says of its genes may tell"
            )
        out = {"rows": int(total["rows"][0]), "sites": sites, "panel_rows": total["panel/rows"].tolist()}
        if asked.genes is None:
            return {**out, "places": places.tolist()}
        return _agreed(out, [asked.genes[place] for place in places])

    return Statistic(zero, measure, fit)


def _shared(at_sites: np.ndarray, sites: int) -> str:
    """Where three or more sites have no gene in common: by how many a gene is shared at most."""
    most = int(at_sites.max())
    return f" ({int((at_sites == most).sum()):,} are shared by {most} of them)" if 1 < most < sites else ""


def _agreed(found: Found, genes: Sequence[str]) -> Found:
    names = sorted(genes)
    return {**found, "agreed": names, "genes": names}


def _names(training: Callable[[Any], Cells]) -> Statistic:
    def zero(found: Found) -> Sums:
        none = np.zeros((len(found["places"]), LETTERS), np.int64)
        return {"letters": none, "letters/squares": none}

    def measure(frame: Any, found: Found) -> Sums:
        own = _own(training(frame))
        letters = np.zeros((len(found["places"]), LETTERS), np.int64)
        for row, place in enumerate(found["places"]):
            name = own[place].encode()
            letters[row, : len(name)] = np.frombuffer(name, np.uint8)
        return {"letters": letters, "letters/squares": letters**2}

    def fit(total: Sums, found: Found) -> Found:
        sites = found["sites"]
        letters, rest = np.divmod(total["letters"], sites)
        same = ((rest == 0) & (total["letters/squares"] == sites * letters**2)).all(axis=1)
        names = [bytes(row[row > 0].astype(np.uint8)).decode("utf-8", "replace") for row in letters[same]]
        out = {key: value for key, value in found.items() if key != "places"}
        return _agreed(out, names)

    return Statistic(zero, measure, fit)


# ---- which of them vary ----------------------------------------------------------------------------------------------


def _variable(asked: Asked, used: Callable[[Any, Found], Cells]) -> list[Statistic]:
    assert asked.highly_variable is not None
    top, seurat = asked.highly_variable, asked.flavor == "seurat_v3"

    def counts(frame: Any, found: Found) -> Any:
        return used(frame, found).on_genes(found["agreed"])

    def moments_zero(found: Found) -> Sums:
        none = np.zeros(len(found["agreed"]), np.int64)
        return {"cells": np.zeros((), np.int64), "sum": none, "squares": none}

    def moments_fit(total: Sums, found: Found) -> Found:
        first = {name: told(np.asarray(total[name], np.int64)) for name in ("cells", "sum", "squares")}
        if not seurat:
            return {**found, "first": first}
        if int(total["cells"]) < 2:  # a forecast without cells
            return {**found, "first": first, "clip": told(np.ones(len(found["agreed"])))}
        return {**found, "first": first, "clip": told(variable_genes.expected(total).clip)}

    def second_zero(found: Found) -> Sums:
        none = np.zeros(len(found["agreed"]), np.int64)
        names = ("sum", "squares", "above") if seurat else ("sum", "sum_rest", "squares", "squares_rest")
        return {"cells": np.zeros((), np.int64), **dict.fromkeys(names, none)}

    def second(frame: Any, found: Found) -> Sums:
        if seurat:
            return variable_genes.clipped(counts(frame, found), array(found["clip"]))
        return variable_genes.residuals(counts(frame, found), _first(found))

    def second_fit(total: Sums, found: Found) -> Found:
        first = _first(found)
        out = {key: value for key, value in found.items() if key not in ("first", "clip")}
        if int(first["cells"]) < 2:  # a forecast without cells: their number is enough
            return {**out, "genes": found["agreed"][:top], "tied": []}
        mean, _ = variable_genes.mean_and_variance(first)
        if seurat:
            variance = variable_genes.normalised_variance(variable_genes.expected(first), total)
        else:
            variance = variable_genes.residual_variance(total)
        chosen = variable_genes.most_variable(variance, mean, found["agreed"], top)
        genes = [found["agreed"][place] for place in np.sort(chosen.places)]
        return {**out, "genes": genes, "tied": [found["agreed"][place] for place in chosen.tied]}

    return [
        Statistic(moments_zero, lambda frame, found: variable_genes.count_moments(counts(frame, found)), moments_fit),
        Statistic(second_zero, second, second_fit),
    ]


def _first(found: Found) -> Sums:
    return {name: array(said) for name, said in found["first"].items()}


# ---- the reduction ---------------------------------------------------------------------------------------------------


def _gram(asked: Asked, used: Callable[[Any, Found], Cells]) -> Statistic:
    def zero(found: Found) -> Sums:
        size = len(found["genes"])
        if size > MOST_OF_GRAM:
            raise DataError(
                f"expected at most {MOST_OF_GRAM:,} genes for reduction='gram', whose sums are their square, got "
                f"{size:,}: set task.highly_variable=2000, or task.reduction=sketch"
            )
        return {
            "rows": np.zeros((), np.int64),
            "sum": np.zeros(size, np.int64),
            "gram": np.zeros(size * (size + 1) // 2, np.int64),
        }

    def fit(total: Sums, found: Found) -> Found:
        k = min(asked.components, len(found["genes"]))
        scale = deviation_of(total) if asked.standardise else np.ones(len(found["genes"]))
        return _reduced(found, principal_of(total, k, scale if asked.standardise else None), mean_of(total), scale)

    return Statistic(zero, lambda frame, found: whole_gram(log_values(used(frame, found), found)), fit)


def _sketch(asked: Asked, used: Callable[[Any, Found], Cells], number: int) -> Statistic:
    """Round `number` of subspace iteration; the first also finds the mean, by which the later ones are centred."""

    def width(found: Found) -> int:
        return min(len(found["genes"]), asked.components + 10)

    def basis(found: Found) -> np.ndarray:
        return reduce_.start(len(found["genes"]), width(found), asked.seed) if number == 1 else array(found["basis"])

    def zero(found: Found) -> Sums:
        size = len(found["genes"])
        out = {"rows": np.zeros((), np.int64), "product": np.zeros((size, width(found)))}
        none = np.zeros(size, np.int64)
        return {**out, "sum": none, "squares": none} if number == 1 else out

    def measure(frame: Any, found: Found) -> Sums:
        values = log_values(used(frame, found), found)
        zeros, ones = np.zeros(len(found["genes"])), np.ones(len(found["genes"]))
        if number == 1:  # any basis is a beginning: the genes' own mean and deviation are not known yet
            return {**reduce_.power(values, basis(found), zeros, ones), **whole_moments(values)}
        return reduce_.power(values, basis(found), array(found["centre"]), array(found["scale"]))

    def fit(total: Sums, found: Found) -> Found:
        rows = int(total["rows"])
        if number == 1:
            scale = deviation_of(total) if asked.standardise else np.ones(len(found["genes"]))
            found = {**found, "centre": told(mean_of(total)), "scale": told(scale)}
        if number < asked.power:
            return {**found, "basis": told(reduce_.orthonormal(total["product"]))}
        k = min(asked.components, len(found["genes"]))
        directions = reduce_.ritz(basis(found), total["product"], k, rows)
        out = {key: value for key, value in found.items() if key not in ("basis", "scale")}
        return _reduced(out, directions, array(found["centre"]), array(found["scale"]))

    return Statistic(zero, measure, fit)


def _deviations(used: Callable[[Any, Found], Cells]) -> Statistic:
    """Where the network gets the genes: their deviations alone, for without their mean they stay sparse."""

    def zero(found: Found) -> Sums:
        none = np.zeros(len(found["genes"]), np.int64)
        return {"rows": np.zeros((), np.int64), "sum": none, "squares": none}

    def measure(frame: Any, found: Found) -> Sums:
        return whole_moments(log_values(used(frame, found), found))

    return Statistic(zero, measure, lambda total, found: {**found, "gene_scale": told(deviation_of(total))})


def _reduced(found: Found, directions: Any, centre: np.ndarray, deviations: np.ndarray) -> Found:
    """One scale for all directions: the first has deviation 1, and the others keep their share of it."""
    scale = float(np.sqrt(directions.variance[0])) or 1.0
    share = (directions.variance / max(float(directions.variance.sum()), np.finfo(float).tiny)).tolist()
    return {
        **found,
        "centre": told(centre),
        "loadings": told(directions.components / deviations[:, None] / scale),
        "inputs": [f"direction {number}" for number in range(1, len(share) + 1)],
        "share": share,
    }


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
