"""Files of cells: .h5ad, .h5mu, and folders of zarr that hold an AnnData.

Nothing is read but what is needed: `obs`, `var`, the proteins, and the counts in blocks of rows; embeddings, graphs and
other layers stay on disk. A .h5mu file has its genes and its proteins as two modalities, each an AnnData.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from learner_jax.data.anndata_parts import barcodes_of, choose_counts, near_words, some
from learner_jax.data.cells import PROTEINS, Cells, assemble, from_anndata
from learner_jax.data.count_matrices import is_stored
from learner_jax.errors import DataError

INSTALL = "pip install 'learner-jax[cells]'"

_KNOWN = {
    "anndata": ("0.1.0",),
    "MuData": ("0.1.0",),
    "raw": ("0.1.0",),
    "dict": ("0.1.0",),
    "dataframe": ("0.2.0", "0.1.0"),
    "csr_matrix": ("0.1.0",),
    "csc_matrix": ("0.1.0",),
    "array": ("0.2.0",),
}
"""Versions of the encodings that are read here. Reference: anndata, "On disk format"."""


def read_cells(
    path: str | os.PathLike[str],
    *,
    protein_key: str = PROTEINS,
    layer: str | None = None,
    rna: str = "rna",
    prot: str = "prot",
) -> Cells:
    """Cells of a file, read in blocks.

    Args:
      path: .h5ad, .h5mu or a folder .zarr.
      protein_key: in obsm of a .h5ad.
      layer: that holds raw counts of genes; None to look as `from_anndata` does.
      rna: modality of the genes in a .h5mu.
      prot: modality of the proteins in a .h5mu; where there is none, only RNA is used.

    Raises:
      DataError: the file is not there, damaged, of another kind or of a newer format, anndata is not installed, or as
        `from_anndata`.
    """
    path = Path(path)
    with _opened(path) as top:
        if path.suffix.lower() == ".h5mu" or "mod" in top:
            mods = {name: _parts(top["mod"][name], path) for name in top["mod"]}
            whole = SimpleNamespace(mod=mods, obs=_element(top["obs"], path) if "obs" in top else None)
            return from_mudata(whole, layer=layer, rna=rna, prot=prot, where=str(path))
        return from_anndata(_parts(top, path), protein_key=protein_key, layer=layer, where=str(path))


def from_mudata(
    mdata: Any, *, layer: str | None = None, rna: str = "rna", prot: str = "prot", where: str = "mdata"
) -> Cells:
    """Cells of a MuData: those that have both genes and proteins, in the order of the genes' modality.

    Args:
      mdata: MuData with the modalities `rna` and, where measured, `prot`; each holds raw counts as an AnnData does.
      layer: of the genes' modality that holds raw counts; None to look as `from_anndata` does.
      rna: modality of the genes.
      prot: modality of the proteins.
      where: for messages.

    Raises:
      DataError: no such modality of genes, no cell with both, or as `from_anndata`.
    """
    import pandas as pd

    if rna not in mdata.mod:
        raise DataError(f"{where}: expected a modality '{rna}', got: {some(list(mdata.mod))}")
    first = mdata.mod[rna]
    counts, var, notes = choose_counts(first, layer, f"{where}: modality '{rna}'")
    barcodes = barcodes_of(first.obs, f"{where}: modality '{rna}'")
    obs = _with_common(first.obs, mdata.obs, barcodes)
    if prot not in mdata.mod:
        others = [name for name in mdata.mod if name != rna]
        hint = near_words(prot, others) or (f" (there: {some(others)})" if others else "")
        notes.append(f"no proteins: there is no modality '{prot}'{hint}, only RNA is used")
        return assemble(counts, var, [], np.zeros((len(barcodes), 0), np.float32), obs, notes, where)
    second = mdata.mod[prot]
    protein, antibodies, told = choose_counts(second, None, f"{where}: modality '{prot}'", "X of proteins")
    there = pd.Index(barcodes_of(second.obs, f"{where}: modality '{prot}'"))
    place = there.get_indexer(barcodes)
    both = np.flatnonzero(place >= 0)
    if not len(both):
        raise DataError(f"{where}: expected cells in both '{rna}' and '{prot}', got no barcode that is in both")
    if len(both) < len(barcodes):
        notes.append(f"{len(barcodes) - len(both)} of {len(barcodes)} cells have no proteins and are left out")
    names = [str(name) for name in antibodies.index]
    values = protein[place[both]].toarray()
    return assemble(counts[both], var, names, values, obs.iloc[both], [*notes, *told], where)


# ---- Open files ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The group at the top of a file, with whatever goes wrong on the way in one line."""
    if not path.exists():
        raise DataError(f"expected a file of cells, got '{path}', which does not exist")
    try:
        import anndata
        import h5py
    except ImportError as error:
        raise DataError(f"{path}: expected anndata to read cells, got no module '{error.name}': {INSTALL}") from None
    del anndata
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if path.suffix.lower() == ".zarr":
                import zarr

                top = zarr.open_group(str(path), mode="r")
                _version(top, path)
                yield top
                return
            _signature(path)
            with h5py.File(path, "r") as top:
                _version(top, path)
                yield top
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: {_what_is_wrong(path, error)}") from None
    except Exception as error:  # whatever a library raises on bytes that are none of its own; not what we do
        if not _while_reading(error):
            raise
        raise DataError(f"{path}: {_what_is_wrong(path, error)}") from None


def _while_reading(error: Exception) -> bool:
    """Whether it was raised inside one of the libraries that read files, and not by the package's own mistake."""
    trace = error.__traceback__
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).split(".")[0] in ("anndata", "h5py", "numcodecs", "zarr"):
            return True
        trace = trace.tb_next
    return False


def _signature(path: Path) -> None:
    """Refuses what is no HDF5 file by its first bytes."""
    if path.is_dir():
        raise DataError(f"{path}: expected a file, got a folder (of zarr? then its name ends in .zarr)")
    with path.open("rb") as file:
        start = file.read(4096)
    if not start:
        raise DataError(f"{path}: expected an HDF5 file, got an empty one")
    if all(start[at : at + 8] != b"\x89HDF\r\n\x1a\n" for at in (0, 512, 1024, 2048)):  # MuData has its own 512 first
        packed = ": it is packed with gzip, unpack it first" if start[:2] == b"\x1f\x8b" else ""
        raise DataError(f"{path}: expected an HDF5 file, got something else{packed}")


def _what_is_wrong(path: Path, error: Exception) -> str:
    """A library's error as one line of ours; nothing of the file's content is in it."""
    text = str(error)
    if found := re.search(r"truncated file: eof = (\d+).*stored_eof = (\d+)", text):
        return f"expected {int(found[2]):,} bytes, got {int(found[1]):,}: the file is cut short, copy it again"
    if type(error).__name__ == "IORegistryError":
        return _newer("a part of it", "that anndata here does not know")
    kind = "an AnnData folder of zarr" if path.suffix.lower() == ".zarr" else "a readable file of cells"
    return f"expected {kind}, got a damaged one or something else"


def _newer(what: str, version: str) -> str:
    return (
        f"{what} is of a format {version}: it was written by a newer anndata; pip install -U anndata here, or write it "
        "with an older one there"
    )


def _version(element: Any, path: Path, name: str = "the file") -> str:
    """Encoding of an element; refuses a version that is not known.

    Returns:
      its type: "csr_matrix", "array", ...; "" where none is said.
    """
    encoding, version = str(element.attrs.get("encoding-type", "")), str(element.attrs.get("encoding-version", ""))
    known = _KNOWN.get(encoding)
    if known is not None and version not in known:
        raise DataError(f"{path}: {_newer(name, f'{version} of {encoding} (known: {known[0]})')}")
    return encoding


def _element(element: Any, path: Path) -> Any:
    """An element in memory: table, array, sparse matrix, mapping."""
    from anndata.io import read_elem

    _version(element, path, f"'{element.name.lstrip('/')}'")
    return read_elem(element)


def _matrix(element: Any, path: Path) -> Any:
    """A matrix that can be read in blocks of rows."""
    from anndata.io import read_elem

    _version(element, path, f"'{element.name.lstrip('/')}'")
    return element if is_stored(element) or hasattr(element, "shape") else read_elem(element)


class _OnDisk(Mapping[str, Any]):
    """A group whose elements are read when asked for."""

    def __init__(self, group: Any, path: Path, read: Any):
        self._group, self._path, self._read = group, path, read

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(name)
        return self._read(self._group[name], self._path)

    def __contains__(self, name: object) -> bool:
        return self._group is not None and name in set(self._group)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._group) if self._group is not None else ())

    def __len__(self) -> int:
        return len(list(iter(self)))


def _at(group: Any, name: str) -> Any:
    """What a group has under a name; None if nothing, or what anndata stores for None."""
    found = group.get(name)
    return None if found is None or found.attrs.get("encoding-type") == "null" else found


def _parts(group: Any, path: Path) -> SimpleNamespace:
    """What `from_anndata` reads of an AnnData, from its group on disk.

    Raises:
      DataError: it has no obs or var.
    """
    _version(group, path)
    for part in ("obs", "var"):
        if part not in group:
            raise DataError(f"{path}: expected an AnnData, got none: there is no '{part}' in it")

    def inner(name: str, read: Any) -> _OnDisk:
        return _OnDisk(_at(group, name), path, read)

    raw, matrix = _at(group, "raw"), _at(group, "X")
    if raw is not None:
        raw = SimpleNamespace(X=_matrix(raw["X"], path), var=_element(raw["var"], path))
    return SimpleNamespace(
        X=None if matrix is None else _matrix(matrix, path),
        obs=_element(group["obs"], path),
        var=_element(group["var"], path),
        layers=inner("layers", _matrix),
        obsm=inner("obsm", _element),
        uns=inner("uns", _element),
        raw=raw,
    )


def _with_common(own: Any, common: Any, barcodes: Any) -> Any:
    """obs of a modality, and the columns that all modalities share ("rna:..." and such belong to one and stay out)."""
    table = own.copy()
    table.index = barcodes
    if common is None:
        return table
    shared = [name for name in common.columns if ":" not in str(name) and name not in table.columns]
    more = common[shared].copy()
    more.index = more.index.astype(str)
    return table.join(more.loc[~more.index.duplicated()])
