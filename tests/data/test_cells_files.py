"""Files of cells: the same as the AnnData that was written, and every file that is wrong in one line."""

from __future__ import annotations

import gzip
import shutil
import sys
import warnings

import anndata
import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from learner_jax.data.cells import from_anndata
from learner_jax.data.cells_files import from_mudata, read_cells
from learner_jax.data.samples import find, not_there, sample_path
from learner_jax.data.tables import files_of, read_sites, read_table
from learner_jax.errors import DataError
from tests.data.cells_by_hand import GENES, PROTEINS, by_hand, counts, proteins
from tests.data.test_cells import logged, same

LABORATORIES = {
    "pbmc10k_protein_v3.h5ad": (6855, 4000, 14),
    "pbmc5k_rna_only.h5ad": (3994, 4000, 0),
    "pbmc_pitt_inhouse.h5ad": (1372, 13682, 10),
    "pbmc_eccite_control.h5ad": (500, 11980, 45),
}


def write(data, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.suffix == ".zarr":
            data.write_zarr(path)
        else:
            data.write(path)
    return path


def two_modalities(rna_cells=None, prot_cells=None, x=None):
    data = by_hand()
    prot = anndata.AnnData(
        sparse.csr_matrix(proteins().astype(np.float32)),
        pd.DataFrame(index=data.obs_names),
        pd.DataFrame(index=pd.Index(PROTEINS)),
    )
    rna = by_hand(x, protein=None)
    rna, prot = rna[rna_cells or slice(None)].copy(), prot[prot_cells or slice(None)].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mudata.MuData({"rna": rna, "prot": prot})


@pytest.fixture
def h5ad(tmp_path):
    return write(by_hand(), tmp_path / "lab.h5ad")


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_a_file_is_the_anndata_that_was_written(tmp_path, suffix, form):
    x = counts().astype(np.float32)
    data = by_hand({"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}[form](x))
    data.uns["more"], data.obsm["X_pca"] = {"a": 1}, np.ones((7, 2))
    got = read_cells(write(data, tmp_path / f"lab{suffix}"))
    same(got, from_anndata(data))
    assert list(got.obs["site"]) == list(data.obs["site"])


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_counts_in_a_layer_or_raw_of_a_file(tmp_path, suffix):
    plain, x = from_anndata(by_hand()), sparse.csr_matrix(counts().astype(np.float32))
    in_layer = by_hand(logged(counts()), layers={"counts": x})
    same(read_cells(write(in_layer, tmp_path / f"layer{suffix}")), plain)
    in_raw = by_hand(x)
    in_raw.raw = in_raw.copy()
    in_raw.X = logged(counts())
    same(read_cells(write(in_raw, tmp_path / f"raw{suffix}")), plain)
    same(read_cells(tmp_path / f"layer{suffix}", layer="counts"), plain)


def test_blocks_of_a_file_make_no_difference(monkeypatch, h5ad):
    for rows in (1, 3, 7, 100):
        monkeypatch.setattr("learner_jax.data.count_matrices.blocks_of.__defaults__", (rows,))
        same(read_cells(h5ad), from_anndata(by_hand()))


def test_an_anndata_that_is_backed(h5ad):
    data = anndata.read_h5ad(h5ad, backed="r")
    same(from_anndata(data), from_anndata(by_hand()))
    data.file.close()


def test_two_modalities_are_the_same_cells(tmp_path):
    data = two_modalities()
    expected = from_anndata(by_hand())
    same(from_mudata(data), expected)
    got = read_cells(write(data, tmp_path / "lab.h5mu"))
    same(got, expected)
    assert list(got.obs["site"]) == list(by_hand().obs["site"])


def test_cells_without_proteins_are_left_out_and_said(tmp_path):
    names = list(by_hand().obs_names)
    data = two_modalities(prot_cells=[names[5], names[1], names[2]])
    got = read_cells(write(data, tmp_path / "lab.h5mu"))
    same(got, from_anndata(by_hand()).take([1, 2, 5]))
    assert "4 of 7 cells have no proteins and are left out" in got.notes


def test_modalities_of_other_names(tmp_path):
    path = write(two_modalities(), tmp_path / "lab.h5mu")
    with pytest.raises(DataError, match=r"lab\.h5mu: expected a modality 'gex', got: (rna, prot|prot, rna)$"):
        read_cells(path, rna="gex")
    got = read_cells(path, prot="protein")
    assert got.proteins == () and "there is no modality 'protein' (near: prot)" in got.notes[-1]
    names = list(by_hand().obs_names)
    apart = two_modalities(rna_cells=names[:3], prot_cells=names[3:])
    with pytest.raises(DataError, match="expected cells in both 'rna' and 'prot', got no barcode that is in both"):
        from_mudata(apart)


def test_normalised_counts_of_a_modality_are_refused(tmp_path):
    path = write(two_modalities(x=logged(counts())), tmp_path / "lab.h5mu")
    with pytest.raises(
        DataError, match=r"lab\.h5mu: modality 'rna': X: expected raw counts \(whole numbers\), got val"
    ):
        read_cells(path)


# ---- files that are wrong


def one_line(path, line):
    with pytest.raises(DataError) as told:
        read_cells(path)
    assert line in str(told.value) and path.name in str(told.value) and "\n" not in str(told.value), str(told.value)


def test_what_is_no_file_of_cells(tmp_path, h5ad):
    one_line(tmp_path / "none.h5ad", "which does not exist")
    (tmp_path / "text.h5ad").write_text("barcode,CD3\n")
    one_line(tmp_path / "text.h5ad", "expected an HDF5 file, got something else")
    (tmp_path / "empty.h5ad").touch()
    one_line(tmp_path / "empty.h5ad", "expected an HDF5 file, got an empty one")
    (tmp_path / "packed.h5ad").write_bytes(gzip.compress(h5ad.read_bytes()))
    one_line(tmp_path / "packed.h5ad", "it is packed with gzip, unpack it first")
    with h5py.File(tmp_path / "other.h5ad", "w") as file:
        file["matrix"] = np.ones(3)
    one_line(tmp_path / "other.h5ad", "expected an AnnData, got none: there is no 'obs' in it")
    (tmp_path / "folder.h5ad").mkdir()
    one_line(tmp_path / "folder.h5ad", "expected a file, got a folder")
    (tmp_path / "x.zarr").mkdir()
    one_line(tmp_path / "x.zarr", "expected an AnnData folder of zarr, got a damaged one or something else")


def test_a_file_that_is_cut_short_anywhere(tmp_path, h5ad):
    whole = h5ad.read_bytes()
    path = tmp_path / "cut.h5ad"
    for length in sorted({9, 100, *range(500, len(whole) - 1, max(1, len(whole) // 12)), len(whole) - 1}):
        path.write_bytes(whole[:length])
        one_line(path, ": expected ")
    path.write_bytes(whole[:-1000])
    one_line(path, f"expected {len(whole):,} bytes, got {len(whole) - 1000:,}: the file is cut short, copy it again")


def test_a_file_with_a_damaged_part(tmp_path):
    """A packed block whose bytes are wrong: its checksum tells."""
    data = by_hand(sparse.csr_matrix(np.random.default_rng(0).integers(1, 999, (400, 6))), cells=400, protein=None)
    path = tmp_path / "damaged.h5ad"
    data.write_h5ad(path, compression="gzip")
    with h5py.File(path) as file:
        values = file["X/data"]
        assert isinstance(values, h5py.Dataset)
        where = values.id.get_chunk_info(0).byte_offset
    with path.open("r+b") as file:
        file.seek(where)
        file.write(b"\xff" * 64)
    one_line(path, "expected a readable file of cells, got a damaged one or something else")


@pytest.mark.parametrize("element, kind", [("/", "anndata"), ("X", "csr_matrix"), ("obs", "dataframe")])
def test_a_newer_format(h5ad, element, kind):
    with h5py.File(h5ad, "r+") as file:
        file[element].attrs["encoding-version"] = "9.0.0"
    one_line(h5ad, f"is of a format 9.0.0 of {kind} (known: ")
    one_line(
        h5ad, "it was written by a newer anndata; pip install -U anndata here, or write it with an older one there"
    )


def test_a_part_of_an_unknown_kind(h5ad):
    with h5py.File(h5ad, "r+") as file:
        file["obsm/protein_expression"].attrs["encoding-type"] = "quantum-table"
    one_line(h5ad, "a part of it is of a format that anndata here does not know: it was written by a newer anndata")


def test_arrays_that_do_not_fit_each_other(h5ad):
    with h5py.File(h5ad, "r+") as file:
        places = file["X/indices"]
        assert isinstance(places, h5py.Dataset)
        places[0] = 99
    one_line(h5ad, "expected a readable file of cells, got a damaged one or something else")


def test_rows_of_proteins_that_are_too_few(tmp_path):
    path = write(by_hand(protein=proteins(), uns={"protein_names": np.array(PROTEINS)}), tmp_path / "lab.h5ad")
    with h5py.File(path, "r+") as file:
        attributes = dict(file["obsm/protein_expression"].attrs)
        del file["obsm/protein_expression"]
        file["obsm"].create_dataset("protein_expression", data=proteins()[:5]).attrs.update(attributes)  # pyright: ignore
    one_line(path, "obsm['protein_expression']: expected 7 rows, one a cell, got 5")


def test_without_anndata_it_says_what_to_install(monkeypatch, h5ad):
    monkeypatch.setitem(sys.modules, "anndata", None)
    one_line(h5ad, "expected anndata to read cells, got no module 'anndata': pip install 'learner-jax[cells]'")


def test_a_mistake_of_ours_is_not_called_a_damaged_file(monkeypatch, h5ad):
    monkeypatch.setattr("learner_jax.data.cells_files.from_anndata", lambda *args, **more: {}["ours"])
    with pytest.raises(KeyError):
        read_cells(h5ad)


# ---- sites


def test_the_sample_is_four_sites():
    got = read_sites("pbmc10k")
    data = anndata.read_h5ad(sample_path("pbmc10k"))
    assert {name: len(cells) for name, cells in got.items()} == data.obs["site"].value_counts().sort_index().to_dict()
    for name, cells in got.items():
        same(cells, from_anndata(data[data.obs["site"] == name]))
        assert set(cells.obs["split"]) == {"train", "test"}


def test_files_are_sites_where_no_column_says_so(tmp_path, h5ad):
    shutil.copy(h5ad, tmp_path / "north.h5ad")
    write(two_modalities(), tmp_path / "south.h5mu")
    write(by_hand(), tmp_path / "west.zarr")
    got = read_sites(tmp_path, site_column=None)
    assert list(got) == ["lab", "north", "south", "west"]
    for cells in got.values():
        same(cells, from_anndata(by_hand()))
    assert [path.name for path in files_of(tmp_path / "west.zarr")] == ["west.zarr"]
    same(read_table(h5ad), got["lab"])
    with pytest.raises(DataError, match=r"expected each site in one file, got site 's0' in lab\.h5ad and north\.h5ad"):
        read_sites(tmp_path)


def test_the_split_of_cells_may_have_another_name(tmp_path):
    data = by_hand()
    data.obs["held_out"], data.obs["split"] = ["train"] * 6 + ["test"], "none"
    path = write(data, tmp_path / "lab.h5ad")
    assert list(read_sites(path, split_column="held_out", site_column=None)["lab"].obs["split"])[-1] == "test"
    assert "split" not in read_sites(path, split_column=None, site_column=None)["lab"].obs


def test_tables_and_cells_in_one_folder(tmp_path, h5ad):
    (tmp_path / "ward.csv").write_text("patient\n1\n")
    with pytest.raises(DataError, match=r"expected tables or cells in the folder, got ward\.csv and lab\.h5ad$"):
        read_sites(tmp_path)


def test_a_cell_without_a_site(tmp_path):
    data = by_hand()
    data.obs["site"] = ["a", None, "b", "a", "a", "b", "a"]
    path = write(data, tmp_path / "lab.h5ad")
    with pytest.raises(
        DataError, match=r"obs\['site'\], cell 'AAAC1-1' \(1 such\): expected the site's name, got no val"
    ):
        read_sites(path)


@pytest.mark.parametrize("name", LABORATORIES)
def test_the_files_of_three_laboratories(name):
    path = find(f"singlecell/{name}")
    if path is None:
        pytest.skip(not_there(f"singlecell/{name}"))
    data, got = anndata.read_h5ad(path), read_cells(path)
    cells, genes, proteins_there = LABORATORIES[name]
    assert got.counts.shape == (cells, genes) and len(got.proteins) == proteins_there
    assert (got.counts != data.X).nnz == 0 and list(got.genes) == list(data.var_names)  # pyright: ignore
    assert set("CD127 CD14 CD16 CD19 CD3 CD4 CD56 CD8".split()) <= set(got.proteins) or not proteins_there
    assert len(GENES) and got.duplicates == ()
