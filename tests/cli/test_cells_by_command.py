"""A study of cells from the command line: what is told of a file, of a study, and each cell's proteins."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from typing import Any

import anndata
import numpy as np
import pytest

import learner_jax as lr
from learner_jax.cli.main import main
from learner_jax.data.tables import read_table
from learner_jax.engines.begun import checksums
from learner_jax.engines.doctor import _shape
from learner_jax.engines.expected import beforehand
from learner_jax.errors import DataError
from tests.federation.cells_at_sites import PANEL, study_of_cells, write_cells


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    return write_cells(tmp_path_factory.mktemp("cells"), zarr=True)


@pytest.fixture(scope="module")
def run(cells, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    return lr.simulate(study_of_cells(cells, {}, rounds=1, precision="float32"), workdir=folder)


def test_a_runs_digests_name_each_file_also_a_folder_of_zarr(cells, run):
    told = checksums(run.model.parts.study)
    assert set(told) == {"a.h5ad", "b.h5mu", "c.zarr"}
    assert told["a.h5ad"] == hashlib.sha256((cells / "a.h5ad").read_bytes()).hexdigest()
    inside = next(path for path in sorted((cells / "c.zarr").rglob("*")) if path.is_file())
    before = inside.read_bytes()
    try:
        inside.write_bytes(bytes([before[0] ^ 1]) + before[1:])  # of the same size
        assert checksums(run.model.parts.study)["c.zarr"] != told["c.zarr"]
    finally:
        inside.write_bytes(before)
    assert checksums(run.model.parts.study) == told


def test_the_doctor_says_what_is_in_a_file(cells):
    assert _shape(cells / "a.h5ad") == "260 cells, 140 genes, 14 proteins"
    assert _shape(cells / "b.h5mu") == "220 cells, 140 genes, 13 proteins"
    assert _shape(cells / "c.zarr").startswith("200 cells, 140 genes, ")


def test_a_forecast_with_cells_and_without(cells, tmp_path):
    from learner_jax.build import build

    listed = {"genes": tuple(f"G{place}" for place in range(30)), "highly_variable": 12}
    seen, there = beforehand(build(study_of_cells(cells, {}, precision="float32")))
    guessed, here = beforehand(build(study_of_cells(tmp_path / "none", listed, precision="float32")), ("a", "b"))
    assert there and not here
    assert seen["up"] == guessed["up"] > 0  # ten directions either way
    with pytest.raises(DataError, match=r"expected the sites' cells, or task\.genes"):
        beforehand(build(study_of_cells(tmp_path / "none", {}, precision="float32")), ("a", "b"))


@pytest.mark.parametrize("file", ["a.h5ad", "b.h5mu", "c.zarr"])
def test_a_model_predicts_each_cells_proteins_as_text_as_json_and_as_cells(file, cells, run, tmp_path, capsys):
    asked = ["predict", str(run.workdir), f"--data={cells / file}"]
    assert main(asked) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    header = [name + end for name in PANEL for end in ("", "_low", "_high")]
    assert list(rows[0]) == ["cell", *header]
    assert all(float(row[f"{name}_low"]) < float(row[f"{name}_high"]) for row in rows for name in PANEL)
    mean = run.model.predict(read_table(cells / file))["mean"]
    np.testing.assert_array_equal([[float(row[name]) for name in PANEL] for row in rows], mean)
    assert main([*asked, f"--out={tmp_path / 'p.csv'}"]) == 0
    assert capsys.readouterr().out.endswith(f"p.csv: 5 proteins of {len(rows)} cells\n")
    assert list(csv.DictReader(io.StringIO((tmp_path / "p.csv").read_text()))) == rows
    assert main([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["cells"]
    assert [{key: str(value) for key, value in one.items()} for one in told] == rows
    assert main([*asked, f"--out={tmp_path / 'p.h5ad'}"]) == 0
    found: Any = anndata.read_h5ad(tmp_path / "p.h5ad")
    assert list(found.obs_names) == [row["cell"] for row in rows] and found.n_vars == 0
    for part, names in (("protein_predicted", PANEL), ("protein_interval", [n for n in header if "_" in n])):
        wanted = [[float(row[name]) for name in names] for row in rows]
        frame: Any = found.obsm[part]
        assert list(frame.columns) == list(names)
        np.testing.assert_allclose(found.obsm[part], wanted, rtol=1e-12)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []
