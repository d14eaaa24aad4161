"""Large files of cells in batches of one shape: shuffled once on disk, then read in contiguous blocks with a buffer.

Random rows of a compressed sparse file cost a seek each. So cells are brought into random order once
(`shuffle_on_disk`); after that an epoch reads runs of neighbouring cells, in a new order of runs each epoch, and mixes
those of a buffer (`blocks`). In memory are the buffer as CSR and one dense batch, whatever the size of the file.

The shuffled file is a .h5ad that anndata and `read_cells` read: counts in X by rows, proteins in
`obsm["protein_expression"]` with `uns["protein_names"]`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from learner_jax.data.anndata_parts import some
from learner_jax.data.cells import PROTEINS, Cells
from learner_jax.data.cells_files import read_cells
from learner_jax.data.gene_names import places
from learner_jax.errors import DataError, StorageError

if TYPE_CHECKING:
    from scipy import sparse

BUCKETS = 64
MARK = "learner-shuffled"
PIECE, SMALL_PIECE = 1 << 16, 1 << 11
"""Values in a chunk of the file that is written, and of a bucket."""


class Block(NamedTuple):
    """A batch of cells.

    Attributes:
      counts: float32[rows, G], raw counts; 0 in rows that hold no cell.
      protein: float32[rows, P], raw antibody counts; 0 in rows that hold no cell.
      cell: int64[rows], row of the cell in the file; -1 in rows that hold no cell.
      there: bool[rows], whether the row holds a cell; all do but some of the last batch of an epoch.
    """

    counts: np.ndarray
    protein: np.ndarray
    cell: np.ndarray
    there: np.ndarray


def shuffle_on_disk(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    seed: int,
    *,
    genes: Sequence[str] | None = None,
) -> int:
    """Writes the cells of some files into one, in random order; every order is equally likely.

    Cells are dealt to 64 buckets on disk, then each bucket is shuffled in memory. In memory are one of the files, or a
    64th of all cells, whichever is more.

    Args:
      paths: files of cells of one site, with the same proteins.
      out: .h5ad to write; replaced if it is there, and never half written.
      seed: of the order.
      genes: columns of the file that is written; None: those of the files, which must be the same then.

    Returns:
      number of cells.

    Raises:
      DataError: a file is no file of cells, or genes or proteins differ.
      StorageError: the disk does not take it.

    Reference: Sanders, Random permutations on distributed, external and hierarchical memory, Information Processing
      Letters 1998.
    """
    import h5py

    out = Path(out)
    if not paths:
        raise DataError("expected at least one file of cells to shuffle, got none")
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 0])))
    part = out.with_name(out.name + ".part")
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
            with h5py.File(Path(folder) / "buckets.h5", "w") as file:
                buckets = [_Rows(file.create_group(str(bucket))) for bucket in range(BUCKETS)]
                first, tables = None, []
                for path in map(Path, paths):
                    cells = read_cells(path)
                    names = list(cells.genes) if genes is None else list(genes)
                    first = first or (path, names, cells.proteins)
                    _same(first, path, names, cells.proteins)
                    before = sum(map(len, tables))
                    tables.append(cells.obs.assign(file=path.stem))
                    _deal(cells, names, before, buckets, random)
                assert first is not None
                order = [_shuffled(bucket, random) for bucket in buckets]
                _write(part, buckets, order, tables, first[1], first[2], seed)
            part.replace(out)
    except OSError as error:
        raise StorageError(f"{out}: cannot be written: {error.strerror or 'the disk did not take it'}") from None
    finally:
        part.unlink(missing_ok=True)
    return sum(map(len, tables))


def blocks(
    path: str | os.PathLike[str],
    rows: int,
    buffer: int,
    seed: int,
    epoch: int,
    *,
    genes: Sequence[str] | None = None,
) -> Iterator[Block]:
    """An epoch of a shuffled file: each cell once, in batches of one shape.

    Args:
      path: that `shuffle_on_disk` wrote.
      rows: cells a batch.
      buffer: runs of `rows` neighbouring cells that are in memory and mixed at a time, at least 1.
      seed: of the order.
      epoch: another order for each.
      genes: columns, by symbol or Ensembl id; 0 for a gene that is not here. None for those of the file.

    Yields:
      batches; the same seed and epoch give the same ones.

    Raises:
      DataError: no such file, or not one that `shuffle_on_disk` wrote; rows or buffer below 1.
    """
    import h5py
    from scipy import sparse

    if rows < 1 or buffer < 1:
        raise DataError(f"expected rows and buffer of at least 1, got {rows} and {buffer}")
    try:
        file = h5py.File(path, "r")
    except OSError:
        raise DataError(f"{path}: expected a file that shuffle_on_disk wrote, got none or a damaged one") from None
    with file:
        if MARK not in file.attrs:
            raise DataError(f"{path}: expected a file that shuffle_on_disk wrote, got another one")
        x: Any = file["X"]
        protein: Any = file.get(f"obsm/{PROTEINS}")
        starts = x["indptr"][:]
        cells, columns = len(starts) - 1, int(x.attrs["shape"][1])
        at = None if genes is None else _columns(file, genes)
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, 1])))
        runs = random.permutation(-(-cells // rows))
        left: list[tuple[Any, np.ndarray, np.ndarray]] = []
        for first in range(0, len(runs), buffer):
            for run in runs[first : first + buffer]:
                here, end = int(run) * rows, min((int(run) + 1) * rows, cells)
                low, high = int(starts[here]), int(starts[end])
                values = (x["data"][low:high].astype(np.float32), x["indices"][low:high], starts[here : end + 1] - low)
                counts = sparse.csr_matrix(values, shape=(end - here, columns))
                some_protein = np.zeros((end - here, 0), np.float32) if protein is None else protein[here:end]
                left.append((counts, some_protein, np.arange(here, end)))
            counts, some_protein, cell = _joined(left)
            order = random.permutation(len(cell))
            last = first + buffer >= len(runs)
            whole = len(cell) if last else len(cell) // rows * rows
            for begin in range(0, whole, rows):
                yield _block(counts, some_protein, cell, order[begin : begin + rows], rows, at)
            rest = order[whole:]
            left = [(counts[rest], some_protein[rest], cell[rest])] if len(rest) else []


def _joined(parts: list[tuple[Any, np.ndarray, np.ndarray]]) -> tuple[Any, np.ndarray, np.ndarray]:
    from scipy import sparse

    counts: Any = sparse.vstack([one[0] for one in parts], format="csr")
    return counts, np.concatenate([one[1] for one in parts]), np.concatenate([one[2] for one in parts])


def _block(
    counts: Any, protein: np.ndarray, cell: np.ndarray, which: np.ndarray, rows: int, at: np.ndarray | None
) -> Block:
    """The cells at `which` as a batch, filled up with empty rows."""
    dense = counts[which].toarray()
    if at is not None:
        dense = np.where(at >= 0, dense[:, at], 0)
    empty = rows - len(which)
    return Block(
        np.pad(dense.astype(np.float32), ((0, empty), (0, 0))),
        np.pad(protein[which].astype(np.float32), ((0, empty), (0, 0))),
        np.pad(cell[which].astype(np.int64), (0, empty), constant_values=-1),
        np.arange(rows) < len(which),
    )


# ---- The shuffle -----------------------------------------------------------------------------------------------------


class _Rows:
    """Rows of a sparse matrix, with proteins and numbers of cells, in a group that grows."""

    def __init__(self, group: Any, piece: int = SMALL_PIECE):
        self.group, self.piece = group, piece
        for name, kind in (("data", np.int32), ("indices", np.int32), ("lengths", np.int64), ("cell", np.int64)):
            group.create_dataset(name, (0,), kind, maxshape=(None,), chunks=(piece,))

    def add(self, counts: sparse.csr_matrix, protein: np.ndarray, cell: np.ndarray) -> None:
        size = protein.shape[1]
        if size and "protein" not in self.group:
            chunks = (max(1, self.piece // size), size)
            self.group.create_dataset("protein", (0, size), np.float32, maxshape=(None, size), chunks=chunks)
        for name, values in (
            ("data", counts.data),
            ("indices", counts.indices),
            ("lengths", np.diff(counts.indptr)),
            ("cell", cell),
            ("protein", protein),
        ):
            if name == "protein" and not size:
                continue
            there = self.group[name]
            there.resize(len(there) + len(values), axis=0)
            if len(values):
                there[-len(values) :] = values

    def read(self, genes: int) -> tuple[Any, np.ndarray, np.ndarray]:
        from scipy import sparse

        starts = np.concatenate([[0], np.cumsum(self.group["lengths"][:])])
        values = (self.group["data"][:], self.group["indices"][:], starts)
        counts = sparse.csr_matrix(values, shape=(len(starts) - 1, genes))
        cell = self.group["cell"][:]
        return counts, self.group["protein"][:] if "protein" in self.group else np.zeros((len(cell), 0)), cell


def _same(first: tuple[Path, list[str], tuple[str, ...]], path: Path, genes: list[str], panel: tuple[str, ...]) -> None:
    for what, here, there in (("genes", genes, first[1]), ("proteins", list(panel), list(first[2]))):
        if here != there:
            odd = sorted(set(here) ^ set(there))
            how = f"differ in {some(odd)}" if odd else "stand in another order"
            raise DataError(f"{path}: expected the {what} of {first[0].name}, got others: they {how}")


def _deal(cells: Cells, genes: list[str], before: int, buckets: list[_Rows], random: np.random.Generator) -> None:
    """Puts each cell of a file into a bucket drawn for it."""
    counts: Any = cells.on_genes(genes)
    drawn = random.integers(0, len(buckets), len(cells))
    for bucket, rows in enumerate(buckets):
        mine = np.flatnonzero(drawn == bucket)
        rows.add(counts[mine], cells.protein[mine], mine + before)


def _shuffled(bucket: _Rows, random: np.random.Generator) -> np.ndarray:
    return random.permutation(len(bucket.group["cell"]))


def _write(
    path: Path,
    buckets: list[_Rows],
    orders: list[np.ndarray],
    tables: list[Any],
    genes: list[str],
    panel: tuple[str, ...],
    seed: int,
) -> None:
    """The shuffled file, bucket after bucket."""
    import h5py
    import pandas as pd
    from anndata.io import write_elem

    obs = pd.concat(tables, join="inner")
    doubled = obs.index.duplicated(keep=False)
    names = [f"{name}-{file}" if twice else name for name, file, twice in zip(obs.index, obs["file"], doubled)]
    obs.index = pd.Index(names, dtype=object)
    with h5py.File(path, "w") as file:
        for name, value in (("encoding-type", "anndata"), ("encoding-version", "0.1.0"), (MARK, seed)):
            file.attrs[name] = value
        for name in ("layers", "obsm", "obsp", "varm", "varp", "uns"):
            write_elem(file, name, {})
        x = file.create_group("X")
        rows = _Rows(x, PIECE)
        cell = []
        for bucket, order in zip(buckets, orders):
            counts, protein, where = bucket.read(len(genes))
            rows.add(counts[order], protein[order], where[order])
            cell.append(where[order])
        lengths: Any = x["lengths"]
        x["indptr"] = np.concatenate([[0], np.cumsum(lengths[:])])
        for name, value in (("encoding-type", "csr_matrix"), ("encoding-version", "0.1.0")):
            x.attrs[name] = value
        x.attrs["shape"] = np.array([len(obs), len(genes)])
        if panel:
            file.move("X/protein", f"obsm/{PROTEINS}")
            for name, value in (("encoding-type", "array"), ("encoding-version", "0.2.0")):
                file[f"obsm/{PROTEINS}"].attrs[name] = value
            uns: Any = file["uns"]
            write_elem(uns, "protein_names", np.array(panel, dtype=object))
        del file["X/lengths"], file["X/cell"]
        write_elem(file, "obs", obs.iloc[np.concatenate(cell)])
        write_elem(file, "var", pd.DataFrame(index=pd.Index(genes, dtype=object)))


def _columns(file: Any, genes: Sequence[str]) -> np.ndarray:
    """Column of each gene in the file; -1 for one that is not there."""
    index = file["var"][file["var"].attrs["_index"]]
    return places(genes, list(index.asstr()[:]), None)
