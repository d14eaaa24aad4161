"""The task of proteins: targets, panels that differ, parts by donor, and what a site's cells must hold."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pandas as pd
import pytest
from scipy.stats import zscore

from learner_jax.data.sites import TEST, TRAIN, VALID, encode_sites, fit_all
from learner_jax.data.told_arrays import array
from learner_jax.errors import ConfigError, DataError
from learner_jax.statistics import proteins as targets
from learner_jax.tasks.proteins import _loss, frame, proteins
from tests.tasks.cells_of import cells_of

PANEL = ("CD3", "CD4", "CD8")
GENES = tuple(f"GENE{number}" for number in range(40))


def checklist(**fields):
    task = proteins(**{"panel": PANEL, "components": 8, **fields})
    assert task.checklist is not None
    return task.checklist


def sites(*panels, n=200, **columns):
    return {f"lab-{k}": cells_of(GENES, n, panel, k, **columns) for k, panel in enumerate(panels or (PANEL, PANEL))}


def both(cells, split):
    return np.log1p(cells.protein[split == TRAIN].astype(np.float64)), np.log1p(cells.protein.astype(np.float64))


@pytest.mark.parametrize("fields", [{}, {"reduction": "none"}, {"types": ("B", "T")}, {"target": "log1p"}])
def test_the_template_has_the_shapes_of_what_is_encoded(fields):
    found, frames = checklist(**fields), sites(cell_type=["B", "T", "other", "B"] * 50)
    fitted, encoded = encode_sites(found, frames)
    for site in encoded.values():
        wanted = jax.tree.map(lambda leaf: (leaf.shape[1:], leaf.dtype), found.template(fitted))
        assert jax.tree.map(lambda leaf: (leaf.shape[1:], leaf.dtype), site.rows) == wanted
    if "types" in fields:
        assert next(iter(encoded.values())).rows["y"]["type"][:4].tolist() == [0, 1, -1, 0]


def test_standardised_genes_without_a_reduction_come_divided_by_their_deviation():
    frames = sites()
    _, plain = encode_sites(checklist(reduction="none"), frames)
    fitted, encoded = encode_sites(checklist(reduction="none", standardise=True), frames)
    scale = array(fitted["gene_scale"])
    for name, site in encoded.items():
        x, before = site.rows["x"], plain[name].rows["x"]
        np.testing.assert_array_equal(x["gene"], before["gene"])
        np.testing.assert_allclose(x["value"] * scale[x["gene"]], before["value"], rtol=1e-6)
        assert np.abs(x["value"] - before["value"]).max() > 0.1


def test_targets_within_a_site_have_mean_0_and_deviation_1_over_its_training_cells():
    frames = sites()
    _, encoded = encode_sites(checklist(), frames)
    for name, site in encoded.items():
        train, every = both(frames[name], site.split)
        wanted = (every - train.mean(axis=0)) / train.std(axis=0)
        np.testing.assert_allclose(site.rows["y"]["value"], wanted, rtol=0, atol=1e-5)
        np.testing.assert_allclose(
            site.rows["y"]["value"][site.split == TRAIN], np.asarray(zscore(train)), rtol=0, atol=1e-5
        )
        assert (site.rows["y"]["seen"] == 1).all()


@pytest.mark.parametrize("target", ["log1p", "clr_per_cell", "clr_per_protein"])
def test_other_targets_are_scaled_by_the_training_cells_of_all_sites(target):
    task = proteins(panel=PANEL, components=8, target=target)
    assert task.checklist is not None and task.judging is not None and task.judging.told is not None
    frames = sites()
    fitted, encoded = encode_sites(task.checklist, frames)
    own, train = {}, []
    for name, site in encoded.items():
        kept, every = both(frames[name], site.split)
        if target == "clr_per_cell":
            every = every - every.mean(axis=1, keepdims=True)
        elif target == "clr_per_protein":
            every = targets.clr_per_protein(frames[name].protein, kept.mean(axis=0))
        own[name] = every
        train.append(every[site.split == TRAIN])
    pooled = np.concatenate(train)
    for name, site in encoded.items():
        value = site.rows["y"]["value"]
        np.testing.assert_allclose(value, (own[name] - pooled.mean(0)) / pooled.std(0), rtol=0, atol=1e-5)
        told = task.judging.told({"mean": value, "low": value, "high": value}, fitted)
        np.testing.assert_allclose(told["mean"], own[name], rtol=0, atol=1e-5)


def test_a_protein_that_a_site_lacks_is_not_zero_there():
    frames = sites(PANEL, ("CD8", "CD3"))
    fitted, encoded = encode_sites(checklist(target="log1p"), frames)
    lacking = encoded["lab-1"]
    assert (lacking.rows["y"]["seen"] == [1, 0, 1]).all() and (lacking.rows["y"]["value"][:, 1] == 0).all()
    alone = fit_all(checklist(target="log1p", panel=("CD4",)), [frames["lab-0"]])
    for name in ("target_mean", "target_scale"):  # CD4 is scaled by the one site that measures it
        from learner_jax.data.told_arrays import array

        np.testing.assert_allclose(array(fitted[name])[1], array(alone[name])[0], rtol=1e-12)
    notes = checklist().check(frames["lab-1"], "site 'lab-1'")
    assert [note for note in notes if "not measured here" in note] == [
        "site 'lab-1': not measured here, and not taken for 0: CD4"
    ]


def test_to_predict_no_protein_is_looked_at_and_every_cell_is_kept():
    found, frames = checklist(), sites()
    fitted, encoded = encode_sites(found, frames)
    cells = frames["lab-0"]
    bare = dataclasses.replace(cells, protein=np.zeros((len(cells), 0), np.float32), proteins=())
    told = found.encode(bare, fitted, labelled=False)
    np.testing.assert_array_equal(told.rows["x"], encoded["lab-0"].rows["x"])
    assert (told.rows["y"]["seen"] == 0).all() and len(told.split) == len(cells)


def test_parts_are_by_barcode_or_by_donor_and_a_column_split_is_kept_to():
    donor = [f"donor {place % 40}" for place in range(400)]
    (cells,) = sites(PANEL, n=400, donor=donor).values()
    fitted, encoded = encode_sites(checklist(donor="donor"), {"lab": cells})
    parts = pd.Series(encoded["lab"].split).groupby(donor).nunique()
    assert (parts == 1).all() and set(encoded["lab"].split) == {TRAIN, VALID, TEST}
    again = checklist(donor="donor").encode(cells.take(np.arange(400)[::-1]), fitted)
    np.testing.assert_array_equal(again.split[::-1], encoded["lab"].split)  # wherever they stand in the file
    split = np.where(np.arange(400) < 80, "test", "train")
    (given,) = sites(PANEL, n=400, split=split).values()
    _, encoded = encode_sites(checklist(), {"lab": given})
    np.testing.assert_array_equal(encoded["lab"].split == TEST, split == "test")


def test_held_out_cells_move_nothing_that_is_found():
    split = np.where(np.arange(200) < 50, "test", "train")
    frames = sites(PANEL, split=split)
    (cells,) = frames.values()
    counts, protein = cells.counts.copy(), cells.protein.copy()
    counts.data[: counts.indptr[50]] += 7
    protein[:50] *= 3
    other = dataclasses.replace(cells, counts=counts, protein=protein)
    for fields in ({"target": "log1p"}, {"highly_variable": 20}, {"reduction": "sketch", "power": 2}):
        assert fit_all(checklist(**fields), [cells]) == fit_all(checklist(**fields), [other])


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(
    "fields", [{}, {"reduction": "sketch", "power": 2}, {"highly_variable": 4, "flavor": "pearson_residuals"}]
)
def test_cells_without_a_count_of_the_studys_genes_are_left_out_and_said(listed, fields):
    few = GENES[:6]
    whole = cells_of(GENES, 400, seed=1)
    other = cells_of(few, 400, seed=2)  # so that without a list these six are what all have
    there = np.diff(whole.on_genes(few).indptr) > 0
    assert 1 < (~there).sum() < 100
    found = checklist(target="log1p", components=3, **({"genes": few} if listed else {}), **fields)
    notes: list[str] = []
    fitted, encoded = encode_sites(found, {"lab": whole, "other": other}, notes.append)
    kept, rows = encode_sites(found, {"lab": whole.take(there), "other": other})
    counted_too = ("rows", "panel_rows")  # the first round is before it is known which genes all have
    assert {k: v for k, v in fitted.items() if k not in counted_too} == {
        k: v for k, v in kept.items() if k not in counted_too
    }
    assert len(encoded["lab"].split) == there.sum()
    np.testing.assert_array_equal(encoded["lab"].rows["x"], rows["lab"].rows["x"])
    said = [note for note in notes if "left out" in note]
    assert len(said) == 1 and said[0].startswith(f"site 'lab': {(~there).sum()} cells have no count of the ")
    with pytest.raises(
        DataError, match="to have at least 1 count over the 6 genes"
    ):  # to predict, each cell would need an answer
        found.encode(whole, fitted, labelled=False)
    assert len(found.encode(whole.take(np.flatnonzero(~there)[:2]), fitted).split) == 0


def test_the_loss_by_hand():
    with jax.enable_x64(True):
        output = {
            name: jax.numpy.array([[v, 5.0]]) for name, v in (("mean", 1.0), ("low", 0.5), ("mid", 1.5), ("high", 4.0))
        }
        target = {"value": jax.numpy.array([[2.0, 0.0]]), "seen": jax.numpy.array([[1.0, 0.0]])}
        wanted = (1 - 2) ** 2 + 0.5 * (0.1 * 1.5 + 0.5 * 0.5 + 0.1 * 2.0)
        np.testing.assert_allclose(_loss(0.5)(output, target), [wanted], rtol=1e-12)
        logits = jax.numpy.array([[0.0, np.log(3.0)]])
        for kind, more in ((1, -np.log(0.75)), (0, -np.log(0.25)), (-1, 0.0)):
            found = _loss(0.5)({**output, "types": logits}, {**target, "type": jax.numpy.array([kind])})
            np.testing.assert_allclose(found, [wanted + more], rtol=1e-12)
        unseen = {**target, "seen": jax.numpy.zeros((1, 2))}
        np.testing.assert_array_equal(_loss(0.5)(output, unseen), [0.0])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"panel": ()}, "task.panel: expected the proteins to predict, got none"),
        ({"panel": ("CD8a", "CD8")}, "task.panel: expected each protein once, got CD8 twice"),
        (
            {"panel": ("CD3",), "target": "clr_per_cell"},
            "task.panel: expected at least 2 proteins for clr_per_cell, got 1",
        ),
        ({"reduction": "sketch", "power": 12}, "task.power: expected 2 to 11 rounds of the sketch, got 12"),
    ],
)  # fmt: skip
def test_a_declaration_that_contradicts_itself_is_refused(fields, said):
    with pytest.raises(ConfigError) as error:
        proteins(**{"panel": PANEL, **fields})
    assert str(error.value) == said


def test_a_site_that_does_not_fit_is_refused_by_name():
    with pytest.raises(
        DataError, match=r"^site 'a': expected at least 100 cells to train on.* got \d\d of the 50 that are there$"
    ):
        checklist().check(cells_of(GENES, 50), "site 'a'")
    with pytest.raises(DataError, match=r"^site 'a': expected all proteins of the panel.* got none of CD4, CD8;"):
        checklist(target="clr_per_cell").check(cells_of(GENES, proteins=("CD3",)), "site 'a'")
    with pytest.raises(DataError, match=r"^site 'a': expected a column 'donor' of the cells"):
        checklist(donor="donor").check(cells_of(GENES), "site 'a'")
    with pytest.raises(DataError, match=r"^site 'a': expected cells \(an AnnData.*got DataFrame"):
        checklist().check(pd.DataFrame({"a": [1]}), "site 'a'")
    with pytest.raises(DataError, match="expected at least 100 cells to train on"):  # its sums would be of few, too
        checklist(reduction="none").check(cells_of(GENES, 50), "site 'a'")


def test_an_anndata_is_taken_as_it_is():
    from tests.data.cells_by_hand import GENES as HAND
    from tests.data.cells_by_hand import by_hand

    assert list(frame(by_hand()).genes) == list(HAND)
