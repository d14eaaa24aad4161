"""Cells in batches from disk: each cell once an epoch, the same numbers as in memory, the same order for a seed."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from learner_jax.data.cell_blocks import blocks, shuffle_on_disk
from learner_jax.data.cells_files import read_cells
from learner_jax.errors import DataError, StorageError
from tests.data.cells_by_hand import GENES, by_hand, counts, proteins
from tests.data.test_cells_files import write

CELLS = 103


def lab(folder, name, seed, cells=CELLS, **more):
    data = by_hand(sparse.csr_matrix(counts(cells, seed=seed)), cells=cells, **more)
    data.obsm["protein_expression"].iloc[:] = proteins(cells, seed)  # pyright: ignore
    data.obs_names = [f"{name}-{place}" for place in range(cells)]
    data.obsm["protein_expression"].index = data.obs_names  # pyright: ignore
    return write(data, folder / f"{name}.h5ad")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labs")
    return [lab(folder, "north", 1), lab(folder, "south", 2, 58)]


@pytest.fixture(scope="module")
def shuffled(two):
    path = two[0].parent / "shuffled.h5ad"
    assert shuffle_on_disk(two, path, 7) == CELLS + 58
    return path


def test_the_shuffled_file_holds_each_cell_once(two, shuffled):
    got, before = read_cells(shuffled), [read_cells(path) for path in two]
    names = [name for cells in before for name in cells.obs.index]
    assert sorted(got.obs.index) == sorted(names) and list(got.obs.index) != names
    at = {name: place for place, name in enumerate(got.obs.index)}
    for cells, stem in zip(before, ("north", "south")):
        here = got.take([at[name] for name in cells.obs.index])
        np.testing.assert_array_equal(here.counts.toarray(), cells.counts.toarray())
        np.testing.assert_array_equal(here.protein, cells.protein)
        assert here.proteins == cells.proteins and set(here.obs["file"]) == {stem}
        assert list(here.obs["site"]) == list(cells.obs["site"])
    assert sorted(path.name for path in shuffled.parent.iterdir() if path.name.startswith(".")) == []


def test_anndata_reads_the_shuffled_file(shuffled):
    data, got = anndata.read_h5ad(shuffled), read_cells(shuffled)
    np.testing.assert_array_equal(data.X.toarray(), got.counts.toarray())  # pyright: ignore
    assert list(data.var_names) == list(GENES) and list(data.uns["protein_names"]) == list(got.proteins)


def test_a_seed_is_an_order(two, shuffled, tmp_path):
    shuffle_on_disk(two, tmp_path / "again.h5ad", 7)
    shuffle_on_disk(two, tmp_path / "other.h5ad", 8)
    names = list(read_cells(shuffled).obs.index)
    assert list(read_cells(tmp_path / "again.h5ad").obs.index) == names
    assert list(read_cells(tmp_path / "other.h5ad").obs.index) != names


def test_every_place_is_as_likely_for_every_cell(tmp_path):
    """Eighths of the file before against eighths after: chi-squared against uniform, 49 degrees of freedom."""
    path = write(by_hand(sparse.csr_matrix(np.ones((8000, 6))), cells=8000, protein=None), tmp_path / "many.h5ad")
    shuffle_on_disk([path], tmp_path / "out.h5ad", 0)
    place = {name: at for at, name in enumerate(read_cells(path).obs.index)}
    before = np.array([place[name] for name in read_cells(tmp_path / "out.h5ad").obs.index])
    table, _, _ = np.histogram2d(before, np.arange(8000), bins=8)
    assert ((table - 125) ** 2 / 125).sum() < 92  # p = 2e-4
    assert abs(np.corrcoef(before[1:], before[:-1])[0, 1]) < 0.045, "neighbours are no neighbours any more"


@settings(max_examples=25)
@given(st.integers(1, 200), st.integers(1, 9), st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_is_each_cell_once_as_in_memory(shuffled, rows, buffer, seed, epoch):
    cells = read_cells(shuffled)
    got = list(blocks(shuffled, rows, buffer, seed, epoch))
    assert len(got) == -(-len(cells) // rows)
    assert {(b.counts.shape, b.protein.shape) for b in got} == {((rows, len(GENES)), (rows, 3))}
    assert all(b.there.all() for b in got[:-1]) and all(b.counts.dtype == b.protein.dtype == np.float32 for b in got)
    seen = np.concatenate([b.cell[b.there] for b in got])
    assert sorted(seen) == list(range(len(cells)))
    np.testing.assert_array_equal(np.concatenate([b.counts[b.there] for b in got]), cells.counts.toarray()[seen])
    np.testing.assert_array_equal(np.concatenate([b.protein[b.there] for b in got]), cells.protein[seen])
    last = got[-1]
    assert (
        not last.counts[~last.there].any()
        and not last.protein[~last.there].any()
        and (last.cell[~last.there] == -1).all()
    )


def order(path, *args):
    return np.concatenate([b.cell[b.there] for b in blocks(path, *args)]).tolist()


def test_orders_follow_seed_and_epoch(shuffled):
    first = order(shuffled, 16, 3, 0, 0)
    assert order(shuffled, 16, 3, 0, 0) == first != order(shuffled, 16, 3, 0, 1)
    assert order(shuffled, 16, 3, 1, 0) != first


def test_a_buffer_mixes_its_runs(shuffled):
    """With one run at a time a batch is one run; with three its cells come from more than one."""

    def runs_in(buffer):
        return [len(set(b.cell[b.there] // 16)) for b in blocks(shuffled, 16, buffer, 0, 0) if b.there.all()]

    assert max(runs_in(3)) >= 3 and np.mean(runs_in(3)) > 2 and min(runs_in(1)) == 1


def test_genes_may_be_chosen(shuffled):
    cells, wanted = read_cells(shuffled), ["MS4A1", "NONE1", "CD3E"]
    for b in blocks(shuffled, 50, 2, 0, 0, genes=wanted):
        np.testing.assert_array_equal(b.counts[b.there], cells.on_genes(wanted).toarray()[b.cell[b.there]])
    chosen = shuffled.parent / "chosen.h5ad"
    shuffle_on_disk([shuffled], chosen, 0, genes=["MS4A1", "CD3E"])
    assert list(read_cells(chosen).genes) == ["MS4A1", "CD3E"]
    chosen.unlink()


def test_rna_alone(tmp_path):
    path = write(by_hand(protein=None), tmp_path / "rna.h5ad")
    shuffle_on_disk([path], tmp_path / "out.h5ad", 0)
    (got,) = blocks(tmp_path / "out.h5ad", 7, 1, 0, 0)
    assert got.protein.shape == (7, 0) and got.counts.sum() == counts().sum()


def test_what_is_wrong_is_one_line(two, tmp_path):
    other = write(by_hand(genes=[*GENES[:-1], "ZZZ3"]), tmp_path / "other.h5ad")
    with pytest.raises(
        DataError, match=r"other\.h5ad: expected the genes of north\.h5ad, got others: they differ in AL"
    ):
        shuffle_on_disk([two[0], other], tmp_path / "out.h5ad", 0)
    table = by_hand().obsm["protein_expression"].iloc[:, :2]  # pyright: ignore
    fewer = write(by_hand(protein=table), tmp_path / "fewer.h5ad")
    with pytest.raises(DataError, match=r"expected the proteins of north\.h5ad, got others: they differ in PD-1"):
        shuffle_on_disk([two[0], fewer], tmp_path / "out.h5ad", 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fewer.h5ad", "other.h5ad"], "nothing half written"
    with pytest.raises(DataError, match="at least one file"):
        shuffle_on_disk([], tmp_path / "out.h5ad", 0)
    with pytest.raises(StorageError, match="cannot be written"):
        shuffle_on_disk(two, tmp_path / "none" / "out.h5ad", 0)
    with pytest.raises(DataError, match="expected a file that shuffle_on_disk wrote, got another one"):
        next(blocks(two[0], 4, 1, 0, 0))
    with pytest.raises(DataError, match="got none or a damaged one"):
        next(blocks(tmp_path / "none.h5ad", 4, 1, 0, 0))
    with pytest.raises(DataError, match="rows and buffer of at least 1, got 0 and 1"):
        next(blocks(two[0], 0, 1, 0, 0))
