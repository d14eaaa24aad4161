"""Columns that are read where they are asked for, held against arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner_jax.data.columns import Column, ParquetColumns, blocks_of, is_on_disk, joined, mapped, parquet, some_of
from learner_jax.errors import DataError, StorageError

LENGTHS = st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(sum)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.data())
def test_a_column_is_its_parts_one_after_the_other(lengths, data):
    draw = np.random.default_rng(sum(lengths))
    parts = [draw.normal(size=(n, 3)) for n in lengths]
    whole, column = np.concatenate(parts).astype(np.float32), Column(parts, np.float32)
    places = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=9)), int)
    begin, end = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9))
    assert column.shape == whole.shape and column.dtype == whole.dtype and len(column) == len(whole)
    assert (column.size, column.nbytes, column.ndim) == (whole.size, whole.nbytes, whole.ndim)
    np.testing.assert_array_equal(column[places], whole[places])
    np.testing.assert_array_equal(column[begin:end], whole[begin:end])
    np.testing.assert_array_equal(np.asarray(column), whole)
    np.testing.assert_array_equal(np.asarray(column, np.float64), whole.astype(np.float64))
    np.testing.assert_array_equal(np.concatenate(list(column.blocks())), whole)
    np.testing.assert_array_equal(Column([column, column])[:], np.concatenate([whole, whole]))
    some = some_of(column, places)
    np.testing.assert_array_equal(np.asarray(some), whole[places])
    np.testing.assert_array_equal(joined([some, column])[:], np.concatenate([whole[places], whole]))


def test_what_is_on_the_disk(tmp_path):
    import h5py
    import jax.numpy as jnp
    import pandas as pd
    import zarr

    x = np.arange(12.0).reshape(4, 3)
    np.save(tmp_path / "x.npy", x)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = x
    packed = zarr.open_array(tmp_path / "x.zarr", mode="w", shape=x.shape, chunks=(2, 2), dtype=x.dtype)
    packed[:] = x
    lying = [np.load(tmp_path / "x.npy", mmap_mode="r"), h5py.File(tmp_path / "x.h5")["x"], packed, Column([x])]
    for values in lying:
        assert is_on_disk(values)
        np.testing.assert_array_equal(np.asarray(mapped(values, tmp_path)), x)
        np.testing.assert_array_equal(np.concatenate(list(blocks_of(mapped(values, tmp_path)))), x)
    for values in (x, x.tolist(), jnp.asarray(x), pd.DataFrame(x), pd.Series(x[0])):
        assert not is_on_disk(values)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.h5", "x.npy", "x.zarr"]


def test_parquet_is_read_by_groups_of_rows(tmp_path):
    import pandas as pd

    draw = np.random.default_rng(0)
    table = pd.DataFrame({"a": draw.normal(size=50), "b": draw.integers(0, 9, 50), "y": draw.random(50) < 0.5})
    table.to_parquet(tmp_path / "t.parquet", row_group_size=7)
    x, y = parquet(tmp_path / "t.parquet", ["b", "a"], "y")
    assert x.shape == (50, 2) and y.shape == (50,) and is_on_disk(x)
    whole = table[["b", "a"]].to_numpy()
    for each in (1, 6, 7, 8, 50, 99):
        parts = list(x.batches(each))
        assert max(map(len, parts)) <= each
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        np.testing.assert_array_equal(np.concatenate(list(y.batches(each))), table["y"].to_numpy())
    np.testing.assert_array_equal(mapped(x, tmp_path), whole)


def test_what_was_written_into_a_mapped_copy_stays(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((5, 2)))
    x = np.load(tmp_path / "x.npy", mmap_mode="c")
    x += 3
    np.testing.assert_array_equal(Column([x])[np.array([4, 0])], np.full((2, 2), 3.0))
    np.testing.assert_array_equal(x, np.full((5, 2), 3.0))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (["c"], "expected column 'c', got a, b, name, kind"),
        (["name"], "expected numbers in column 'name', got string"),
        (["kind"], "expected numbers in column 'kind', got dictionary"),
        ([], "expected a list of columns, got []"),
        ("a", "expected a list of columns, got 'a'"),
        (["a", "b"], "expected a number in column 'b' of row 1, got none"),
    ],
)
def test_a_parquet_file_of_no_use_says_so(columns, words, tmp_path):
    import pandas as pd

    table = pd.DataFrame({"a": [1.0, 2.0], "b": pd.array([1, None], "Int64"), "name": ["x", "y"]})
    table["kind"] = pd.Categorical(["u", "v"])
    table.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError) as error:
        mapped(ParquetColumns(tmp_path / "t.parquet", columns))
    assert words in str(error.value).replace("large_string", "string")
    with pytest.raises(StorageError, match="expected a Parquet file, got none"):
        ParquetColumns(tmp_path / "none.parquet", ["a"])
    (tmp_path / "no.parquet").write_bytes(b"no")
    with pytest.raises(DataError, match="expected a Parquet file, got: "):
        ParquetColumns(tmp_path / "no.parquet", ["a"])
