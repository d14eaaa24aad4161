"""Cells of one site: raw counts of genes, raw counts of antibodies where measured, and what is known of each cell.

What an AnnData holds is checked when it is taken: counts must be counts, genes of one genome, barcodes unique.
Genes that are there twice (one symbol for two Ensembl ids, or what `var_names_make_unique` has renamed) become one
gene whose counts are summed: each molecule was counted at one of them, so the sum is the symbol's number of molecules,
and the same whether a laboratory's annotation splits the gene or not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from learner_jax.data.anndata_parts import (
    ANTIBODIES,
    GENES,
    antibody_counts,
    barcodes_of,
    counts_of,
    kinds_of,
    left_out_of,
    near_words,
    proteins_of,
    some,
)
from learner_jax.data.gene_names import gene_names, joined, places
from learner_jax.data.protein_names import Panel, canonical, is_antibody, panel_of
from learner_jax.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from scipy import sparse

PROTEINS = "protein_expression"


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
    """Cells of one site (or file).

    Attributes:
      counts: int32[n, G] CSR, raw UMI counts; indices sorted, no place twice, no explicit zero.
      genes: object[G], symbols, each once; an Ensembl id where no symbol is known.
      ids: object[G], Ensembl ids without version, "" where unknown; None if none is known.
      protein: float32[n, P], raw antibody counts, never NaN; P = 0 where only RNA was measured.
      proteins: [P] canonical names, each once.
      obs: index = barcodes (text, each once); columns such as cell_type, site, split, donor.
      notes: what was done with the file, in words.
      duplicates: genes that were there more than once and are summed.
    """

    counts: sparse.csr_matrix
    genes: np.ndarray
    ids: np.ndarray | None
    protein: np.ndarray
    proteins: tuple[str, ...]
    obs: pd.DataFrame
    notes: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.obs)

    def take(self, which: Any) -> Cells:
        """The cells at these places, in that order, or those where a mask is true.

        Args:
          which: int[k] or bool[n].
        """
        at = np.asarray(which)
        at = np.flatnonzero(at) if at.dtype == bool else at.astype(np.int64)
        counts: Any = self.counts
        return dataclasses.replace(self, counts=counts[at], protein=self.protein[at], obs=self.obs.iloc[at])

    def head(self, n: int = 5) -> Cells:
        """The first n cells, as a pandas frame has it."""
        return self.take(np.arange(len(self))[:n])

    def has(self, names: Sequence[str]) -> np.ndarray:
        """bool[len(names)]: whether each gene, by symbol or Ensembl id, is among these."""
        return places(names, self.genes, self.ids) >= 0

    def on_genes(self, names: Sequence[str]) -> sparse.csr_matrix:
        """int32[n, len(names)] CSR: counts of these genes in this order; all zero for a gene that is not here.

        Not to be written to: for the genes as they are it is `counts` itself.

        Args:
          names: symbols or Ensembl ids, with or without genome prefix and version.
        """
        from scipy import sparse

        at = places(names, self.genes, self.ids)
        if np.array_equal(at, np.arange(len(self.genes))):
            return self.counts
        there = np.flatnonzero(at >= 0)
        chosen = (np.ones(len(there), np.int32), (at[there], there))
        columns = sparse.csr_matrix(chosen, shape=(len(self.genes), len(names)), dtype=np.int32)
        found = sparse.csr_matrix(self.counts @ columns)
        found.sort_indices()
        return found

    def panel(self, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Counts of these proteins, and which of them were measured here at all.

        Args:
          names: of proteins, by any alias.

        Returns:
          (float32[n, len(names)], 0 where not measured; bool[len(names)], measured).
        """
        place = {name: at for at, name in enumerate(self.proteins)}
        at = np.array([place.get(canonical(name), -1) for name in names], np.int64)
        found = np.zeros((len(self), len(names)), np.float32)
        found[:, at >= 0] = self.protein[:, at[at >= 0]]
        return found, at >= 0


class Matched(NamedTuple):
    """Genes that a study asks for, at one site.

    Attributes:
      matched: those that are there.
      missing: those that are not.
      duplicate: those that were there more than once, summed.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    duplicate: tuple[str, ...]

    def __str__(self) -> str:
        words = [f"{len(self.matched):,} of {len(self.matched) + len(self.missing):,} genes are there"]
        if self.missing:
            words.append(f"{len(self.missing):,} are missing ({some(self.missing)})")
        if self.duplicate:
            words.append(f"{len(self.duplicate):,} were there more than once and are summed ({some(self.duplicate)})")
        return "; ".join(words)


def matched(cells: Cells, genes: Sequence[str]) -> Matched:
    """Which of a study's genes a site has; `str()` of it says so in words."""
    at = places(genes, cells.genes, cells.ids)
    doubled = set(cells.duplicates)
    return Matched(
        tuple(name for name, place in zip(genes, at) if place >= 0),
        tuple(name for name, place in zip(genes, at) if place < 0),
        tuple(name for name, place in zip(genes, at) if place >= 0 and cells.genes[place] in doubled),
    )


def from_anndata(
    adata: Any, *, protein_key: str | None = PROTEINS, layer: str | None = None, where: str = "adata"
) -> Cells:
    """Cells of an AnnData in the conventions of scverse; it is not changed.

    Counts are those of `layer`; else of X; else, where X holds no counts, of `layers["counts"]`, else of `raw`, which a
    note says. Proteins are `obsm[protein_key]` (a table, or an array with names in `uns["protein_names"]`); else the
    features that `var["feature_types"]` calls "Antibody Capture"; else there are none.

    Args:
      adata: AnnData, in memory or backed, [n, G].
      protein_key: in obsm; None does not look at proteins, to predict them.
      layer: the layer that holds raw counts; None to look as said.
      where: for messages: a file or a site.

    Raises:
      DataError: no raw counts, genes of two genomes, antibodies among the genes, barcodes twice, a cell without any
        count, a protein's count that is NaN or none, names or rows that do not fit.
    """
    barcodes = barcodes_of(adata.obs, where)
    counts, var, notes = counts_of(adata, layer, len(barcodes), where)
    kinds = kinds_of(var, counts.shape[1])
    rna = kinds == GENES
    notes += left_out_of(kinds)
    if not rna.any():
        raise DataError(f"{where}: expected genes, got none: var has no feature of the type '{GENES}'")
    table = None if protein_key is None else proteins_of(adata, protein_key, barcodes, where)
    antibodies = kinds == ANTIBODIES
    if protein_key is None:
        table = [], np.zeros((len(barcodes), 0), np.float32)
    elif table is not None and antibodies.any():
        notes.append(f"proteins are those of obsm['{protein_key}']; {antibodies.sum()} antibodies in var are left out")
    elif antibodies.any():
        table = [str(name) for name in var.index[antibodies]], counts[:, np.flatnonzero(antibodies)].toarray()
        notes.append(f"proteins are the {antibodies.sum()} features of the type '{ANTIBODIES}' in var")
    elif table is None:
        notes.append(f"no proteins: obsm has no '{protein_key}'{near_words(protein_key, adata.obsm)}, only RNA is used")
    names, protein = table or ([], np.zeros((len(barcodes), 0), np.float32))
    counts = counts if rna.all() else counts[:, np.flatnonzero(rna)]
    return assemble(counts, var[rna], names, protein, adata.obs, notes, where)


def to_anndata(cells: Cells) -> AnnData:
    """AnnData in scverse's conventions: what `from_anndata` reads.

    Returns:
      X csr int32 raw counts, obs, `obsm["protein_expression"]` a DataFrame of raw counts, and `uns["notes"]`.

    Raises:
      DataError: anndata is not installed.
    """
    try:
        import anndata
    except ImportError:
        raise DataError("expected the package anndata, got none: pip install 'learner-jax[cells]'") from None
    import pandas as pd

    var = pd.DataFrame(index=pd.Index(np.asarray(cells.genes, object).astype(str)))
    if cells.ids is not None:
        var["gene_ids"] = np.asarray(cells.ids)
    made = anndata.AnnData(X=cells.counts.copy(), obs=cells.obs.copy(), var=var)
    made.obsm[PROTEINS] = pd.DataFrame(
        np.asarray(cells.protein), index=cells.obs.index, columns=pd.Index(cells.proteins)
    )
    if cells.notes:
        made.uns["notes"] = list(cells.notes)
    return made


def assemble(
    counts: Any,
    var: pd.DataFrame,
    names: Sequence[str],
    protein: np.ndarray,
    obs: pd.DataFrame,
    notes: Sequence[str],
    where: str,
) -> Cells:
    """Cells of the parts, with genes and proteins under the names that are used here.

    Args:
      counts: int32[n, G] CSR.
      var: of the G columns.
      names: [P] antibodies as written.
      protein: [n, P] of numbers.
      obs: of the n cells.
      notes: so far.
      where: for messages.

    Raises:
      DataError: as `from_anndata`.
    """
    barcodes = barcodes_of(obs, where)
    counts = _rows(counts)
    among = [str(name) for name in var.index if is_antibody(str(name))]
    if among:
        raise DataError(
            f"{where}: expected genes alone in X, got {len(among)} antibodies ({some(among)}): put them into "
            f"obsm['{PROTEINS}'], or say so by '{ANTIBODIES}' in var['feature_types']"
        )
    genes = gene_names(var, where)
    at, symbols, duplicates = joined(list(genes.symbols))
    ids = _first(genes.ids, at, len(symbols))
    notes = [*notes, *genes.notes]
    if duplicates:
        counts = _summed(counts, at, len(symbols))
        notes.append(f"{len(duplicates)} genes were there more than once and are summed ({some(duplicates)})")
    empty = np.flatnonzero(np.diff(counts.indptr) == 0)
    if len(empty):
        which = some([f"'{barcodes[cell]}'" for cell in empty])
        raise DataError(
            f"{where}: expected a count in each cell, got {len(empty)} without any ({which}): filter them out"
        )
    protein = antibody_counts(protein, names, barcodes, where)
    panel: Panel = panel_of(names, protein.sum(axis=0, dtype=np.float64))
    table = obs.copy()
    table.index = barcodes
    return Cells(
        counts,
        np.array(symbols, dtype=object),
        ids,
        np.ascontiguousarray(protein[:, panel.columns]),
        panel.names,
        table,
        (*notes, *panel.notes),
        duplicates,
    )


def _rows(counts: Any) -> sparse.csr_matrix:
    from scipy import sparse

    found = sparse.csr_matrix(counts)
    found.sort_indices()
    return found


def _summed(counts: sparse.csr_matrix, at: np.ndarray, genes: int) -> sparse.csr_matrix:
    """Counts with the columns of one gene summed."""
    from scipy import sparse

    one = (np.ones(len(at), np.int32), (np.arange(len(at)), at))
    return _rows(counts @ sparse.csr_matrix(one, shape=(len(at), genes), dtype=np.int32))


def _first(ids: np.ndarray | None, at: np.ndarray, genes: int) -> np.ndarray | None:
    """Id of each gene: that of its first column."""
    if ids is None:
        return None
    found = np.full(genes, "", dtype=object)
    found[at[::-1]] = ids[::-1]
    return found
