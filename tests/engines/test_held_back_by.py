"""A site whose table lacks the column by which the study holds back is told so."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from learner_jax.build import build
from learner_jax.engines.site_study import SiteStudy
from learner_jax.specs import Data
from tests.tasks.cells_of import cells_of


@pytest.mark.parametrize(("named", "said"), [("fold", True), ("there", False), ("split", False), (None, False)])
def test_a_column_that_is_not_there_is_said(named, said, tmp_path):
    from tests.federation.cells_at_sites import study_of_cells

    study = study_of_cells(Path("unused"), {"panel": ("CD3", "CD4", "CD8")}, data=Data(split_column=named))
    cells = cells_of(tuple(f"GENE{number}" for number in range(40)), 200)
    cells.obs["there"] = pd.Series(["test", *["train"] * 3] * 50, index=cells.obs.index)
    manifest = json.dumps(json.loads(study.to_json())).encode()
    told = SiteStudy(build, manifest, "a", cells, tmp_path, lambda event: None).warnings
    assert any("expected a column 'fold'" in line for line in told) == said
