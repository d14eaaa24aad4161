"""lr.protein as a scanpy user meets it: from an AnnData to predictions in another, and a model that is loaded."""

from __future__ import annotations

import numpy as np
import pytest

import learner_jax as lr
from learner_jax.errors import DataError, StudyError
from learner_jax.specs import Data
from tests.data.cells_by_hand import by_hand
from tests.statistics import pooled_cells as pooled

SMALL = {"rounds": 3, "task": {"components": 10}, "model": {"hidden": (16,)}, "references": ()}


def sample(cells=800, genes=200):
    """A cut of the shipped sample: every few cells, the genes of most counts."""
    adata = pooled.read(pooled.SAMPLE)
    most = np.sort(np.argsort(-np.asarray(adata.X.sum(axis=0)).ravel(), kind="stable")[:genes])
    return adata[:: max(1, adata.n_obs // cells)][:cells, most].copy()


@pytest.fixture(scope="module")
def trained():
    adata = sample(2000)
    del adata.obs["split"]
    lr.protein.setup_anndata(adata, batch_key="site", labels_key="protein_cluster")
    return adata, lr.protein.train(adata, **{**SMALL, "rounds": 40})


def test_a_model_is_trained_predicts_and_is_loaded_again(trained, tmp_path):
    adata, model = trained
    assert set(model.panel) == set(adata.obsm["protein_expression"])
    other = adata[::3].copy()
    del other.obsm["protein_expression"]
    frame = model.predict(other)
    assert frame.shape == (other.n_obs, 14) and list(frame.index) == list(other.obs_names)
    assert list(frame.columns) == list(model.panel)
    np.testing.assert_array_equal(other.obsm["protein_predicted"], frame)
    interval = other.obsm["protein_interval"]
    assert list(interval.columns[:2]) == [f"{model.panel[0]}_low", f"{model.panel[0]}_high"]
    assert (interval.to_numpy()[:, ::2] < interval.to_numpy()[:, 1::2]).all()
    kinds = other.obs["cell_type_predicted"]
    assert set(kinds) <= set(adata.obs["protein_cluster"].astype(str))
    assert (kinds.astype(str) == other.obs["protein_cluster"].astype(str)).mean() > 0.45
    model.save(tmp_path / "model")
    again = lr.protein.load(tmp_path / "model")
    assert again.panel == model.panel
    np.testing.assert_array_equal(again.predict(other), frame)
    with pytest.raises(DataError, match="got a loaded one"):
        _ = again.result


def test_what_is_predicted_goes_with_what_was_measured_on_cells_held_out(trained):
    adata, model = trained
    counts = adata.obsm["protein_expression"]
    logs = np.log1p(np.asarray(counts, np.float64))
    clr = logs - logs.mean(axis=1, keepdims=True)  # one panel in one AnnData: the default target
    frame = model.predict(adata.copy())[list(counts.columns)]
    r = [np.corrcoef(clr[:, c], frame.iloc[:, c])[0, 1] for c in range(14)]
    assert np.mean(r) > 0.6
    figures = model.figures
    assert set(figures.index) == set(counts.columns) and 0.5 < figures["r"].mean() < 1
    assert ((figures["low"] <= figures["r"]) & (figures["r"] <= figures["high"])).all()
    assert model.result["data"]["dealt"]["test"]["rows"] > 50


def _held(adata, counts, of):
    """Share of values that are in their intervals, over cells and proteins."""
    logs = np.log1p(np.asarray(counts, np.float64))
    clr, interval = logs - logs.mean(axis=1, keepdims=True), adata.obsm["protein_interval"]
    ends = [interval[[f"{name}_{end}" for name in counts.columns]].to_numpy() for end in ("low", "high")]
    return float(np.mean((ends[0] <= clr) & (clr <= ends[1]), where=of[:, None]))


def test_a_laboratory_sets_intervals_right_on_some_of_its_own_cells(trained, tmp_path):
    adata, model = trained
    other, draw = adata.copy(), np.random.default_rng(3)
    counts = other.obsm["protein_expression"]
    noisy = np.rint(counts * np.exp(draw.normal(0, 0.6, counts.shape))).astype(np.int32)  # antibodies that read worse
    other.obsm["protein_expression"] = noisy
    own = other[::20].copy()  # 100 cells
    lr.protein.setup_anndata(own)
    own.uns["learner_protein"] = {"protein": "protein_expression"}
    judged = np.ones(other.n_obs, bool)
    judged[::20] = False
    before = model.predict(other)
    assert _held(other, noisy, judged) < 0.72
    moved = model.calibrate(own)
    moved.save(tmp_path / "here")
    after = lr.protein.load(tmp_path / "here").predict(other)
    np.testing.assert_array_equal(after, before)
    assert abs(_held(other, noisy, judged) - 0.8) < 0.03
    del own.obsm["protein_expression"]
    own.obsm["protein_expression"] = noisy.iloc[::20][["CD3", "CD14"]].set_axis(own.obs_names)
    with pytest.raises(DataError, match="panel"):
        model.calibrate(own)  # ratios over another panel are another target


def test_a_model_that_was_trained_in_a_folder_is_loaded_from_it(tmp_path):
    adata = sample(300, 60)
    lr.protein.setup_anndata(adata)
    model = lr.protein.train(adata, workdir=tmp_path / "run", **{**SMALL, "rounds": 2})
    again = lr.protein.load(tmp_path / "run")
    np.testing.assert_array_equal(again.predict(adata), model.predict(adata))


def test_laboratories_of_their_own_with_other_panels_share_a_model():
    whole = sample()
    labs = {}
    for place, lacking in enumerate((["CD3", "CD14"], ["CD19"])):
        one = whole[place::2].copy()
        one.obsm["protein_expression"] = one.obsm["protein_expression"].drop(columns=lacking)
        lr.protein.setup_anndata(one)
        labs[f"lab {place}"] = one
    model = lr.protein.train(labs, **SMALL)
    assert set(model.panel) == set(whole.obsm["protein_expression"].columns)
    assert model.model.parts.study.task.fields["target"] == "within_site"
    assert model.predict(labs["lab 1"].copy()).notna().all(axis=None)


def test_layers_and_other_keys_are_used(tmp_path):
    adata = sample(300, 60)
    wanted = sample(300, 60)
    lr.protein.setup_anndata(wanted)
    adata.layers["umi"] = adata.X.copy()
    adata.X = np.log1p(adata.X.toarray())
    adata.obsm["adt"] = adata.obsm.pop("protein_expression")
    lr.protein.setup_anndata(adata, protein_expression_obsm_key="adt", layer="umi")
    assert adata.uns["learner_protein"] == {"protein": "adt", "layer": "umi"}
    fields = {**SMALL, "rounds": 1}
    np.testing.assert_array_equal(
        lr.protein.train(adata, **fields).predict(adata), lr.protein.train(wanted, **fields).predict(wanted)
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"batch_key": "lab"}, "setup_anndata: expected a column 'lab' in adata.obs, got "),
        ({"labels_key": "kind"}, "setup_anndata: expected a column 'kind' in adata.obs, got "),
        ({"protein_expression_obsm_key": "adt"}, "setup_anndata: expected antibody counts in adata.obsm['adt'], got "),
        ({"layer": "umi"}, "adata: expected "),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said(fields, said):
    with pytest.raises(DataError) as error:
        lr.protein.setup_anndata(by_hand(), **fields)
    assert str(error.value).startswith(said) and "\n" not in str(error.value)


def test_cells_that_are_handed_over_are_held_back_by_the_column_that_the_study_names():
    adata = sample(300, 60)
    adata.obs["fold"] = np.where(np.arange(adata.n_obs) % 3 == 0, "test", "train")
    adata.obs["split"] = "train"
    lr.protein.setup_anndata(adata)
    model = lr.protein.train(adata, **{**SMALL, "rounds": 1}, data=Data(split_column="fold"))
    assert model.result["data"]["dealt"]["test"]["rows"] == (adata.obs["fold"] == "test").sum()


def test_a_network_with_too_few_inputs_for_the_genes_is_refused():
    adata = sample(300, 60)
    lr.protein.setup_anndata(adata)
    given = {**SMALL, "task": {"reduction": "none"}, "model": {"hidden": (8,), "genes": 59}}
    with pytest.raises(StudyError, match=r"^model.genes: expected at least 60, .* got 59$"):
        lr.protein.train(adata, **given)


def test_an_anndata_that_was_not_set_up_is_refused():
    with pytest.raises(DataError, match=r"expected an AnnData that lr\.protein\.setup_anndata has seen"):
        lr.protein.train(by_hand())
