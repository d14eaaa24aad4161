"""What genes are called: symbols and Ensembl ids out of `var`, prefixes and versions away, doubled ones found.

Genome prefixes are those that Cell Ranger puts before genes of a combined reference ("GRCh38_", "GRCh38______",
"hg19_", "mm10___"). A version is taken off an Ensembl id alone: "ENSG00000141510.12" becomes "ENSG00000141510", but
"AL645608.8" is a symbol and stays. A gene is doubled where its symbol is there twice, or where `var_names_make_unique`
has put -1, -2, ... behind the second and third: "TBCE-1" counts as TBCE only where TBCE is there too and the numbers
run from 1 without a gap, so that NKX2-1, HLA-A and MT-ND1 stay what they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from learner_jax.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

ID_COLUMNS = ("gene_ids", "gene_id", "ensembl_id", "ensembl_ids", "feature_id", "ensembl", "ENSEMBL")
SYMBOL_COLUMNS = ("feature_name", "gene_symbols", "gene_symbol", "gene_name", "gene_names", "symbol", "SYMBOL")

_PREFIX = re.compile(
    r"^(?P<genome>(?P<human>hg1[89]|hg38|grch3[678]|human)|(?P<mouse>mm9|mm10|mm39|grcm3[89]|mouse))"
    r"(?:-[a-z0-9-]+)?_+(?=[^_])",
    re.IGNORECASE,
)
_ID = re.compile(r"^(ENS(?P<species>[A-Z]{0,4})G\d{11})(?:\.\d+)?(?:_PAR_Y)?$")
_ID_AND_SYMBOL = re.compile(r"^(ENS[A-Z]{0,4}G\d{11})(?:\.\d+)?[_|](?P<symbol>.+)$")
_SYMBOL_AND_ID = re.compile(r"^(?P<symbol>.+)[_|](ENS[A-Z]{0,4}G\d{11})(?:\.\d+)?$")
_NUMBERED = re.compile(r"^(.+)-([1-9]\d*)$")


class GeneNames(NamedTuple):
    """Genes of a matrix's columns, in their order.

    Attributes:
      symbols: object[G], as aligned, doubled ones not yet joined; an Ensembl id where no symbol is known.
      ids: object[G], Ensembl ids without version, "" where there is none; None if the matrix has none at all.
      notes: what was done, in words.
    """

    symbols: np.ndarray
    ids: np.ndarray | None
    notes: tuple[str, ...]


def plain_gene(name: str) -> str:
    """A gene's name without genome prefix, and without version if it is an Ensembl id."""
    name = _PREFIX.sub("", str(name).strip())
    found = _ID.match(name)
    return found[1] if found else name


def gene_names(var: pd.DataFrame, where: str) -> GeneNames:
    """Symbols and ids of the genes that `var` describes, whichever of the two are its names.

    Args:
      var: index var_names; ids in one of `ID_COLUMNS`, or symbols in one of `SYMBOL_COLUMNS`, where there are any.
      where: for messages.

    Raises:
      DataError: genes of two genomes, a gene without a name, or numbers instead of names.
    """
    written = [str(name).strip() for name in var.index]
    _one_genome(written, where)
    names = [plain_gene(name) for name in written]
    notes = []
    if any(_PREFIX.match(name) for name in written):
        notes.append("the genome's prefix was taken off the genes' names")
    empty = [place for place, name in enumerate(names) if name in ("", "nan", "None")]
    if empty:
        raise DataError(f"{where}: expected a name for each gene in var_names, got none at place {empty[0]}")
    if names and all(name.isdigit() for name in names):
        raise DataError(f"{where}: expected gene symbols or Ensembl ids in var_names, got numbers ('{names[0]}', ...)")
    parts = [_ID_AND_SYMBOL.match(name) or _SYMBOL_AND_ID.match(name) for name in names]
    own_ids = [found[1] if (found := _ID.match(name)) else "" for name in names]
    if sum(part is not None for part in parts) > len(names) / 2:
        ids = [_id_in(part.group(0)) if part else own for part, own in zip(parts, own_ids)]
        symbols = [part["symbol"] if part else name for part, name in zip(parts, names)]
    elif sum(map(bool, own_ids)) > len(names) / 2:
        column = next((name for name in SYMBOL_COLUMNS if name in var.columns), None)
        ids, symbols = own_ids, names
        if column is None:
            notes.append("genes are named by Ensembl id alone: var has no column of symbols")
        else:
            told = [_symbol_of(value) for value in _texts(var, column)]
            symbols = [symbol or name for symbol, name in zip(told, names)]
    else:
        symbols, ids = names, _ids_beside(var, own_ids)
        _one_genome(ids, where)
    known = np.array(ids, dtype=object) if any(ids) else None
    return GeneNames(np.array(symbols, dtype=object), known, tuple(notes))


def joined(symbols: Sequence[str]) -> tuple[np.ndarray, list[str], tuple[str, ...]]:
    """Which columns are one gene.

    Args:
      symbols: [G] names of columns.

    Returns:
      (int64[G], place of each column's gene; names of the genes, in order of first appearance; names of doubled genes).
    """
    there = set(symbols)
    numbers: dict[str, set[int]] = {}
    for name in there:
        found = _NUMBERED.match(name)
        if found and found[1] in there:
            numbers.setdefault(found[1], set()).add(int(found[2]))
    made_unique = {base for base, found in numbers.items() if found == set(range(1, len(found) + 1))}
    names: list[str] = []
    place: dict[str, int] = {}
    times: dict[str, int] = {}
    at = np.empty(len(symbols), np.int64)
    for column, name in enumerate(symbols):
        found = _NUMBERED.match(name)
        gene = found[1] if found and found[1] in made_unique else name
        if gene not in place:
            place[gene] = len(names)
            names.append(gene)
        times[gene] = times.get(gene, 0) + 1
        at[column] = place[gene]
    return at, names, tuple(name for name in names if times[name] > 1)


def places(wanted: Sequence[str], genes: Iterable[str], ids: Iterable[str] | None) -> np.ndarray:
    """Column of each wanted gene, by symbol, else by Ensembl id; -1 where it is not there.

    Args:
      wanted: symbols or ids, with or without prefix and version.
      genes: symbols of the columns.
      ids: of the columns, or None.

    Returns:
      int64[len(wanted)].
    """
    by_id = {gene_id: place for place, gene_id in enumerate(ids) if gene_id} if ids is not None else {}
    by_name = {name: place for place, name in enumerate(genes)}
    found = [by_name.get(name, -1) for name in wanted]
    return np.array([_else(at, name, by_name, by_id) for at, name in zip(found, wanted)], np.int64)


def looks_like_mouse(names: Sequence[str]) -> bool:
    """Whether most symbols are written as those of mice are: "Cd3e", "Ms4a1"."""
    some = [name for name in names[:2000] if any(c.isalpha() for c in name)]
    return bool(some) and sum(name[0].isupper() and name[1:].islower() for name in some) > len(some) / 2


def _else(at: int, name: str, by_name: Mapping[str, int], by_id: Mapping[str, int]) -> int:
    if at >= 0:
        return at
    plain = plain_gene(name)
    return by_name.get(plain, by_id.get(plain, -1))


def _one_genome(names: Sequence[str], where: str) -> None:
    """Refuses a matrix whose genes are of two genomes, by prefix or by Ensembl id."""
    kinds: dict[str, str] = {}
    for name in names:
        if found := _PREFIX.match(name):
            genome = found["genome"]
            kinds.setdefault(genome.lower(), f"'{genome}_'")
        elif found := _ID.match(name):
            kinds.setdefault(f"ENS{found['species']}", f"'ENS{found['species']}G'")
    for told in ({k: v for k, v in kinds.items() if k.startswith("ENS") is ens} for ens in (False, True)):
        if len(told) > 1:
            which = " and ".join(sorted(told.values()))
            raise DataError(
                f"{where}: expected genes of one genome, got names with {which}: keep cells and genes of one species"
            )


def _ids_beside(var: pd.DataFrame, own: list[str]) -> list[str]:
    """Ensembl ids from a column of var; those in the names where there is no such column."""
    for column in ID_COLUMNS:
        if column in var.columns:
            told = [_id_in(value) for value in _texts(var, column)]
            if sum(map(bool, told)) > len(told) / 2:
                return [one or mine for one, mine in zip(told, own)]
    return own


def _id_in(text: str) -> str:
    """The Ensembl id in a text, without version; "" if there is none."""
    text = plain_gene(text)
    if found := _ID.match(text):
        return found[1]
    found = re.search(r"ENS[A-Z]{0,4}G\d{11}", text)
    return found[0] if found else ""


def _symbol_of(value: str) -> str:
    """A symbol as told; without the id that CELLxGENE puts behind symbols that are there twice."""
    value = _PREFIX.sub("", value)
    found = _SYMBOL_AND_ID.match(value)
    return found["symbol"] if found else "" if value in ("nan", "None", "NaN", "<NA>") else value


def _texts(var: Any, column: str) -> list[str]:
    return [str(value).strip() for value in var[column]]
