"""Rows that need not be in memory: arrays one after the other, read where they are asked for.

What is on disk and can be mapped (a `.npy` opened with `mmap_mode="r"`) is read from where it lies. What is packed
there (zarr, HDF5, Parquet) is unpacked once into a file of this process that has no name: it is gone when the process
ends, however it ends, and no one else can open it.
"""

from __future__ import annotations

import contextlib
import mmap
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from learner_jax.errors import DataError, StorageError

_BLOCK = 2**25
"""Bytes that are unpacked, or looked at, at once."""


class Column:
    """Arrays one after the other, as one.

    Args:
      parts: [n_i, ...] of one shape and kind: arrays, mapped ones, or columns.
      dtype: that they are handed out in; None: their own.

    Attributes:
      shape, dtype: as of an array.
    """

    def __init__(self, parts: Sequence[Any], dtype: Any = None):
        self._parts = list(parts)
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])
        self.shape = (int(self._starts[-1]), *self._parts[0].shape[1:])
        self.dtype = np.dtype(np.result_type(*{part.dtype for part in self._parts}) if dtype is None else dtype)

    @property
    def size(self) -> int:
        """Numbers in it."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of them all."""
        return self.size * self.dtype.itemsize

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """The rows of a slice, or at int[k] places, as an array of their own."""
        places = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows)
        found = np.empty((len(places), *self.shape[1:]), self.dtype)
        self.read(places, found)
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found = self[:]
        return found if dtype is None else found.astype(dtype)

    def read(self, places: np.ndarray, out: np.ndarray) -> None:
        """Writes the rows at int[k] places into out, [k, ...]."""
        of = np.searchsorted(self._starts, places, side="right") - 1
        order = None
        if bool((np.diff(of) < 0).any()):  # part by part, however mixed they are
            order = np.argsort(of, kind="stable")
            of, places = of[order], places[order]
        edges = (np.flatnonzero(np.diff(of)) + 1).tolist()
        for begin, end in zip([0, *edges], [*edges, len(places)], strict=True):
            if begin == end:
                continue
            part, mine = self._parts[of[begin]], places[begin:end] - self._starts[of[begin]]
            first, last = int(mine[0]), int(mine[-1])
            in_a_row = last - first == len(mine) - 1 and bool((np.diff(mine) == 1).all())
            found = part[first : last + 1] if in_a_row else part[mine]
            out[slice(begin, end) if order is None else order[begin:end]] = found
            let_go(part)

    def blocks(self) -> Iterator[np.ndarray]:
        """All rows, some at a time."""
        yield from _blocks(self)


class _Some(Column):
    """Rows of a column at int[k] places, as one."""

    def __init__(self, whole: Column, places: np.ndarray):
        self._whole, self._places = whole, np.asarray(places)
        self._parts, self._starts = [self], np.array([0, len(self._places)])
        self.shape, self.dtype = (len(self._places), *whole.shape[1:]), whole.dtype

    def read(self, places: np.ndarray, out: np.ndarray) -> None:
        self._whole.read(self._places[places], out)


def some_of(values: Any, places: np.ndarray) -> Any:
    """The rows at int[k] places; of what is on the disk those that are asked for, when they are."""
    if not is_on_disk(values):
        return np.asarray(values)[places]
    return _Some(values if isinstance(values, Column) else Column([values]), places)


def joined(parts: Sequence[Any]) -> Any:
    """Arrays one after the other, as an array; a column where one of them is on the disk."""
    return Column(parts) if any(map(is_on_disk, parts)) else np.concatenate(parts)


def blocks_of(values: Any) -> Iterator[np.ndarray]:
    """All rows of an array, some at a time where they are on the disk."""
    if isinstance(values, Column):
        yield from values.blocks()
    elif is_on_disk(values):
        yield from _blocks(Column([values]))
    else:
        yield np.asarray(values)


def _blocks(values: Column) -> Iterator[np.ndarray]:
    each = max(1, _BLOCK // max(1, values.dtype.itemsize * int(np.prod(values.shape[1:], dtype=np.int64))))
    for start in range(0, len(values), each):
        yield values[start : start + each]


def cast(values: Any, dtype: Any) -> Any:
    """The values in another dtype; those on the disk are cast when they are read."""
    return Column([values], dtype) if is_on_disk(values) else np.asarray(values).astype(dtype)


def let_go(array: Any) -> None:
    """Lets the system have back the memory that a mapped array's rows were read into; they stay on the disk."""
    mapped = getattr(array, "_mmap", None)
    if mapped is None or array.mode != "r":  # what was written into it may be nowhere else
        return
    if hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def is_on_disk(values: Any) -> bool:
    """Whether these are an array's rows, with shape, dtype and slices, that are not in memory."""
    if isinstance(values, np.memmap | Column | ParquetColumns):
        return True
    packed = all(hasattr(values, name) for name in ("shape", "dtype", "chunks", "__getitem__"))  # zarr, HDF5
    return packed and not hasattr(values, "__array_interface__") and len(values.shape) > 0


def mapped(values: Any, folder: str | Path | None = None) -> Any:
    """The values where they can be read from the disk at any place: as they are, or unpacked.

    Args:
      values: see `is_on_disk`.
      folder: of the file that they are unpacked into; None: the system's for such files.

    Raises:
      StorageError: there is no room.
      DataError: they are no numbers.
    """
    if isinstance(values, np.memmap | Column):
        return values
    dtype, shape = np.dtype(values.dtype), tuple(int(n) for n in values.shape)
    if dtype.kind not in "fiub":
        raise DataError(f"expected numbers, got {dtype}")
    row = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
    if not row * shape[0]:
        return np.zeros(shape, dtype)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for part in _unpacked(values, max(1, _BLOCK // row)):
                _written(file, np.ascontiguousarray(part, dtype), row * shape[0], folder)
            file.flush()
            return np.memmap(file, dtype, "r", shape=shape)
    except FileNotFoundError:
        raise StorageError(f"engine.scratch: expected a folder, got none at {folder}") from None


def _unpacked(values: Any, each: int) -> Iterator[np.ndarray]:
    """All rows in order, about so many at a time, as they are packed: nothing is unpacked twice."""
    if isinstance(values, ParquetColumns):
        yield from values.batches(each)
        return
    chunk = (values.chunks or (1,))[0]
    each = max(1, each // chunk) * chunk if isinstance(chunk, int) else each
    for start in range(0, values.shape[0], each):
        yield values[start : start + each]


def _written(file: Any, part: np.ndarray, size: int, folder: str | Path | None) -> None:
    try:
        file.write(part.data)
        file.flush()
    except OSError as error:
        where = tempfile.gettempdir() if folder is None else folder
        raise StorageError(
            f"{where}: expected room for {size / 2**20:,.0f} MiB of rows that are read from there, got: "
            f"{error.strerror}; name another folder: engine.scratch"
        ) from None


class ParquetColumns:
    """Columns of numbers of a Parquet file, side by side as one array [n, columns], that is read from end to end.

    Args:
      path: of the file.
      columns: their names; with `alone` a single one, whose rows are numbers, [n].

    Raises:
      StorageError, DataError: no such file, or no such column of numbers in it.
    """

    def __init__(self, path: str | Path, columns: Sequence[str], alone: bool = False):
        import pyarrow.parquet as parquet

        if isinstance(columns, str) or not len(columns):
            raise DataError(f"{path}: expected a list of columns, got {columns!r}")
        self._path, self._names, self._alone = str(path), list(columns), alone
        if not Path(path).is_file():
            raise StorageError(f"{path}: expected a Parquet file, got none")
        try:
            self._file = parquet.ParquetFile(path)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: expected a Parquet file, got: {error}") from None
        schema = self._file.schema_arrow
        types = {name: schema.field(name).type for name in self._names if name in schema.names}
        for name in self._names:
            if name not in types:
                raise DataError(f"{path}: expected column '{name}', got {_some(schema.names)}")
        kinds = {}
        for name, one in types.items():
            with contextlib.suppress(NotImplementedError, TypeError):
                kinds[name] = np.dtype(one.to_pandas_dtype())
            if name not in kinds or kinds[name].kind not in "fiub":
                raise DataError(f"{path}: expected numbers in column '{name}', got {one}")
        self.dtype = np.result_type(*kinds.values())
        rows = self._file.metadata.num_rows
        self.shape = (rows,) if alone else (rows, len(self._names))
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def batches(self, each: int) -> Iterator[np.ndarray]:
        """All rows in order, at most so many at a time.

        Raises:
          DataError: a value is missing.
        """
        start = 0
        for batch in self._file.iter_batches(each, columns=self._names):
            columns = []
            for name in self._names:
                values = batch.column(name)
                if values.null_count:
                    at = start + int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
                    raise DataError(f"{self._path}: expected a number in column '{name}' of row {at}, got none")
                columns.append(values.to_numpy(zero_copy_only=False).astype(self.dtype, copy=False))
            start += len(batch)
            yield columns[0] if self._alone else np.stack(columns, axis=1)


def parquet(path: str | Path, x: Sequence[str], y: str) -> tuple[ParquetColumns, ParquetColumns]:
    """A site's rows (x [n, columns], y [n]) of a Parquet file that need not fit in memory.

    Args:
      path: of the file.
      x: the columns of numbers that the model gets.
      y: the column of the outcome.

    Raises:
      StorageError, DataError: no such file, or no such column of numbers in it.
    """
    return ParquetColumns(path, x), ParquetColumns(path, [y], alone=True)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
