"""A study of cells, two engines: laboratories with a .h5ad and a .h5mu end with the weights of the simulator."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from learner_jax import failpoints, trees
from learner_jax.build import build
from learner_jax.data.sites import VALID, encode_sites
from learner_jax.data.tables import read_table
from learner_jax.data.told_arrays import array
from learner_jax.engines import judge, worker
from learner_jax.engines.site_study import SiteStudy
from learner_jax.errors import StudyError
from learner_jax.evaluation.conformal import outside, widening
from learner_jax.protocol.messages import STATISTICS
from learner_jax.specs import Data, Spec
from learner_jax.storage.atomic import read_json
from tests.federation.cells_at_sites import LACKING, PANEL, study_of_cells, write_cells
from tests.federation.hospitals import Apart, Process, Site, federated, flags, frames_of, simulated

# fmt: off
LISTED = ("CD3E", "CD3D", "LYZ", "S100A9", "CD79A", "MS4A1", "NKG7", "CD74", "HLA-DRA", "CST3", "IL7R", "FTL",
          "B2M", "ACTB", "TMSB4X", "EEF1A1")
# fmt: on
TASKS = {
    "gram": {},
    "sketch": {"reduction": "sketch", "power": 3, "standardise": True},
    "variable genes": {"highly_variable": 60},
    "listed genes, residuals": {"genes": LISTED, "highly_variable": 8, "flavor": "pearson_residuals"},
    "no reduction": {"reduction": "none", "highly_variable": 40, "most_genes": 40, "standardise": True},
}  # fmt: skip
GENES = {"no reduction": 40}
QUICK = ("gram", "variable genes")
"""The other kinds are in the soak: their sums have tests of their own (tests/tasks/test_protein_sums.py)."""


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """a.h5ad, b.h5mu."""
    return write_cells(tmp_path_factory.mktemp("cells"))


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """And c.zarr; written here, since the threads of zarr stay."""
    return write_cells(tmp_path_factory.mktemp("three"), zarr=True)


def _alive(sites, events) -> None:
    """A site that gave up ends the test, which would wait for it otherwise."""
    for site in sites.values():
        if site.error is not None:
            raise site.error


@pytest.fixture(autouse=True)
def double():
    """float64 for all threads, as a process of a study with precision="float64" has it."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def study_of(cells, kind: str, **fields):
    if kind in GENES:
        fields = {"model": Spec("models", "protein_net", {"hidden": (12,), "genes": GENES[kind]}), **fields}
    return study_of_cells(cells, TASKS[kind], **fields)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param(k, marks=() if k in QUICK else pytest.mark.soak) for k in TASKS])
def test_worker_threads_with_their_own_files_end_with_the_simulators_bits(kind, cells, tmp_path):
    study = study_of(cells, kind)
    ended, alone = federated(study, tmp_path, check=_alive), simulated(study)
    assert [site.error for site in ended.sites.values()] == [None, None]
    assert ended.sha256 == alone.sha256
    fitted = dict(ended.outcome.fitted)
    moved = array(fitted.pop("moved"))  # what was set right at the end: as one process with all cells counts it
    np.testing.assert_array_equal(moved, _moved(study, alone))
    assert np.abs(moved).max() > 0.1
    genes = [set(read_table(path).genes) for path in cells.iterdir()]
    assert fitted["sites"] == 2 and fitted["agreed"] == sorted(
        set.intersection(*genes, TASKS[kind].get("genes", genes[0]))
    )
    assert 1 < len(fitted["agreed"]) < min(len(mine) for mine in genes)
    assert fitted["panel_rows"][PANEL.index(LACKING)] < fitted["panel_rows"][0] == fitted["rows"]
    leaves = trees.named_leaves(ended.outcome.weights)
    assert all(np.asarray(leaf).dtype == np.float64 for leaf in leaves.values() if leaf.size)


def _moved(study, alone) -> np.ndarray:
    """What the model's intervals are moved by, of all watched cells in one place."""
    parts = build(study)
    _, sites = encode_sites(parts.task.checklist, frames_of(study))
    rows = judge.merge(list(sites.values()))
    parts.init_weights(jax.tree.map(lambda leaf: leaf[:2], rows.rows))  # a network is known by its first rows
    state = jax.tree.map(lambda leaf: leaf[0], alone.states)
    model = parts.federated.model(parts.federated.send(alone.best), state)
    output = judge.predictor(parts)(model, {"x": rows.rows["x"]})
    watched, y = rows.split == VALID, rows.rows["y"]
    return widening(outside(y["value"], output["low"], output["high"], (y["seen"] > 0) & watched[:, None]))


@pytest.mark.slow
def test_a_laboratory_goes_by_its_own_words_for_who_is_held_back(cells, tmp_path):
    data = Data(source=str(cells), site_column=None, split_column="held_out")
    study = study_of(cells, "gram", rounds=2, data=data)
    ended, alone = federated(study, tmp_path, check=_alive), simulated(study)
    assert ended.sha256 == alone.sha256
    measured = {site["name"]: site["cells"] for site in ended.outcome.result["evaluation"]["proteins"]["sites"]}
    assert measured == {
        name: int((frame.obs["held_out"] == "test").sum())
        for name, frame in ((path.stem, read_table(path)) for path in sorted(cells.iterdir()))
    }


@pytest.mark.slow
def test_a_site_and_the_coordinator_die_between_two_rounds_of_statistics(cells, tmp_path, monkeypatch):
    study = study_of(cells, "variable genes")
    gone: list[str] = []
    there: dict[str, Site] = {}
    passed = {"after statistics": 0}

    class PowerCut(Exception):
        pass

    class Leaving(SiteStudy):
        def work(self, asked, data, committed):
            if (self.name, asked.phase) == ("b", STATISTICS[2]) and not gone:
                gone.append(self.name)
                raise StudyError("the power went off")
            return super().work(asked, data, committed)

    def cut(name: str) -> None:
        if name == "coordinator.study.after_statistics":
            passed["after statistics"] += 1
            if passed["after statistics"] == 4:  # the fourth of five rounds is in, nothing of it is fitted
                raise PowerCut

    def begin(sites: dict[str, Site]) -> None:
        there.update(sites)
        for site in sites.values():
            site.start()

    def check(sites, events) -> None:
        old = there["b"]
        if not old.is_alive() and isinstance(old.error, StudyError):  # started again, as its process would be
            there["b"] = Site("b", old.table, old.folder, None, old._tell)
            there["b"].start()

    monkeypatch.setattr(worker, "SiteStudy", Leaving)
    with monkeypatch.context() as patched:
        patched.setattr(failpoints, "here", cut)
        with pytest.raises(PowerCut):
            federated(study, tmp_path, begin=begin, check=check)
    ended = federated(study, tmp_path, begin=lambda sites: None)
    for site in there.values():
        site.join(20)
        assert site.error is None
    assert gone == ["b"] and passed["after statistics"] == 4
    assert ended.sha256 == simulated(study).sha256


@pytest.mark.soak
def test_processes_that_read_a_file_each_end_with_the_simulators_weights(three, tmp_path):
    data = Data(source=str(three), site_column=None, split_column="held_out")
    study = study_of(three, "variable genes", rounds=3, data=data)
    one = Process("launch.simulate", flags(study, tmp_path / "alone"), tmp_path / "one").last_line()
    ended = Process("launch.local", flags(study, tmp_path / "run"), tmp_path / "log").last_line()
    assert ended["weights_sha256"] == one["weights_sha256"]
    told = [
        read_json(folder / "result.json")["evaluation"]["proteins"]["sites"]
        for folder in (tmp_path / "alone", tmp_path / "run")
    ]
    for here, there in zip(*told, strict=True):
        assert here["cells"] == there["cells"] > 30
        for protein, figure in here["models"]["federated"]["proteins"].items():
            same = there["models"]["federated"]["proteins"][protein]
            assert figure["coverage"]["value"] == same["coverage"]["value"]


@pytest.mark.soak
@pytest.mark.parametrize("kind", TASKS)
def test_processes_of_every_kind_of_statistics(kind, three, tmp_path):
    study = study_of(three, kind)
    with Apart(study, tmp_path) as there:
        coordinator = there.coordinator()
        ended = [one.last_line() for one in (coordinator, *[there.site(name) for name in ("a", "b", "c")])]
    one = Process("launch.simulate", flags(study, tmp_path / "alone"), tmp_path / "one").last_line()
    assert {line["weights_sha256"] for line in ended} == {one["weights_sha256"]}
