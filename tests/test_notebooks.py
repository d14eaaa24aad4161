"""Notebooks run from beginning to end, on the sample alone."""

from __future__ import annotations

import pytest


@pytest.mark.slow
def test_the_notebook_of_proteins_runs_and_draws(root, tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.read(root / "docs" / "notebooks" / "proteins.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "committed without what it printed"
    nbclient.NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(tmp_path)}}).execute()
    drawn = [
        output for cell in notebook.cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})
    ]
    assert len(drawn) >= 5
    assert not [
        output for cell in notebook.cells for output in cell.get("outputs", ()) if output.output_type == "error"
    ]
