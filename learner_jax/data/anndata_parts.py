"""What is in an AnnData, in memory or open on disk: raw counts, barcodes, types of features, counts of antibodies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from learner_jax.data.count_matrices import NotCounts, are_counts, read_counts
from learner_jax.data.schema import near
from learner_jax.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

ANTIBODIES, GENES = "Antibody Capture", "Gene Expression"


def choose_counts(adata: Any, layer: str | None, where: str, what: str = "X") -> tuple[Any, Any, list[str]]:
    """Raw counts of an AnnData: CSR int32[n, G], `var` of its columns, and notes.

    Args:
      adata: with X, layers, raw and var.
      layer: to take; None to look in X, layers["counts"], raw.
      where: for messages.
      what: X is called in messages.

    Raises:
      DataError: none of them holds counts; names a layer that does.
    """
    layers = adata.layers
    if layer is not None:
        if layer not in layers:
            there = f"there: {some(list(layers))}" if len(list(layers)) else "there are none"
            raise DataError(f"{where}: expected a layer '{layer}', got none of that name ({there})")
        try:
            return read_counts(layers[layer]), adata.var, []
        except NotCounts as wrong:
            raise DataError(f"{where}: layer '{layer}': expected raw counts (whole numbers), got {wrong}") from None
    reason = f"no {what}"
    if adata.X is not None:
        try:
            return read_counts(adata.X), adata.var, []
        except NotCounts as wrong:
            reason = str(wrong)
    raw = getattr(adata, "raw", None)
    others: list[tuple[str, Any, Any]] = []
    if "counts" in layers:
        others.append(("layers['counts']", layers["counts"], adata.var))
    if raw is not None:
        others.append(("raw.X", raw.X, raw.var))
    for name, matrix, var in others:
        try:
            return read_counts(matrix), var, [f"{what} holds no raw counts ({reason}): {name} is taken"]
        except NotCounts:
            continue
    found = next((name for name in layers if name != "counts" and are_counts(layers[name])), None)
    hint = f"; layer '{found}' holds whole numbers: layer='{found}'" if found else ""
    tried = f", and {' and '.join(name for name, _, _ in others)} likewise" if others else ""
    raise DataError(f"{where}: {what}: expected raw counts (whole numbers), got {reason}{tried}{hint}")


def counts_of(adata: Any, layer: str | None, cells: int, where: str) -> tuple[Any, Any, list[str]]:
    counts, var, notes = choose_counts(adata, layer, where)
    for what, rows, expected in (
        ("rows of counts", counts.shape[0], cells),
        ("rows of var", len(var), counts.shape[1]),
    ):
        if rows != expected:
            raise DataError(f"{where}: expected {expected} {what}, got {rows}")
    return counts, var, notes


def barcodes_of(obs: pd.DataFrame, where: str) -> pd.Index:
    import pandas as pd

    barcodes = pd.Index([str(name) for name in obs.index], name=obs.index.name, dtype=object)
    if not len(barcodes):
        raise DataError(f"{where}: expected at least one cell, got none")
    doubled = barcodes[barcodes.duplicated()]
    if len(doubled):
        raise DataError(
            f"{where}: expected each barcode once in obs_names, got {len(doubled.unique())} more than once "
            f"('{doubled[0]}'): several samples in one file? Put the sample's name before the barcode"
        )
    return barcodes


def kinds_of(var: pd.DataFrame, columns: int) -> np.ndarray:
    """Type of each feature; genes where nothing is said."""
    if "feature_types" not in var.columns:
        return np.full(columns, GENES, dtype=object)
    return np.array([GENES if str(kind) in ("nan", "", "None") else str(kind) for kind in var["feature_types"]], object)


def left_out_of(kinds: np.ndarray) -> list[str]:
    others = sorted(set(kinds) - {GENES, ANTIBODIES})
    return [f"{np.sum(kinds == kind)} features of the type '{kind}' are left out" for kind in others]


def proteins_of(adata: Any, protein_key: str, barcodes: pd.Index, where: str) -> tuple[list[str], np.ndarray] | None:
    """Names and values of obsm[protein_key]; None if it is not there."""
    if protein_key not in adata.obsm:
        return None
    table, place = adata.obsm[protein_key], f"obsm['{protein_key}']"
    if table.shape[0] != len(barcodes):
        raise DataError(f"{where}: {place}: expected {len(barcodes)} rows, one a cell, got {table.shape[0]}")
    if hasattr(table, "columns"):
        if [str(name) for name in table.index] != list(barcodes):
            raise DataError(f"{where}: {place}: expected the cells of obs in their order, got others")
        names = [str(name) for name in table.columns]
    else:
        key = next((one for one in ("protein_names", f"{protein_key}_names") if one in adata.uns), None)
        if key is None:
            raise DataError(
                f"{where}: {place}: expected names of proteins, got an array without: make it a DataFrame, or put them "
                "into uns['protein_names']"
            )
        names = [str(name) for name in np.asarray(adata.uns[key]).ravel()]
        if len(names) != table.shape[1]:
            raise DataError(f"{where}: uns['{key}']: expected {table.shape[1]} names as in {place}, got {len(names)}")
    values = table.toarray() if hasattr(table, "toarray") else np.asarray(table)
    return names, values


def antibody_counts(values: np.ndarray, names: Sequence[str], barcodes: pd.Index, where: str) -> np.ndarray:
    """float32[n, P] of raw counts, or the protein and the cell where there is none."""
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{where}: proteins: expected counts, got something else than numbers") from None
    checks = (
        (~np.isfinite(numbers), "NaN or infinity: a protein that was not measured has no column"),
        (numbers < 0, "a negative value: take raw counts, not what was normalised (DSB, CLR)"),
        (numbers != np.floor(numbers), "a fraction: take raw counts, not what was normalised (CLR, log)"),
    )
    for wrong, what in checks:
        if wrong.any():
            cell, protein = np.argwhere(wrong)[0]
            more = f" (and {int(wrong.sum()) - 1} more such)" if wrong.sum() > 1 else ""
            raise DataError(
                f"{where}: protein '{names[protein]}' of cell '{barcodes[cell]}'{more}: expected a count, got {what}"
            )
    return numbers.astype(np.float32)


def near_words(name: str, there: Any) -> str:
    found = near(name, list(there))
    return f" (near: {', '.join(found)})" if found else ""


def some(names: Sequence[str], most: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
