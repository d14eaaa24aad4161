"""What laboratories agree on: genes by hashed places, the same whatever the deal of cells, in schemas told before."""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Any

import numpy as np
import pytest
from scipy.sparse.linalg import svds

from learner_jax.data.told_arrays import array
from learner_jax.errors import DataError
from learner_jax.statistics import combine
from learner_jax.tasks import protein_sums
from learner_jax.tasks.protein_sums import LETTERS, PLACES, Asked, log_values, statistics
from tests.tasks.cells_of import cells_of

PANEL = ("CD3", "CD4", "CD8")
GENES = tuple(f"GENE{number}" for number in range(40))
KINDS = {
    "gram": {},
    "gram of given genes": {"genes": GENES[:30]},
    "gram of variable genes": {"highly_variable": 20},
    "gram of genes with large residuals": {"highly_variable": 20, "flavor": "pearson_residuals"},
    "sketch": {"reduction": "sketch"},
    "no reduction": {"reduction": "none", "highly_variable": 20},
    "gram of standardised genes": {"standardise": True},
    "sketch of standardised genes": {"reduction": "sketch", "standardise": True},
    "standardised genes, no reduction": {"reduction": "none", "standardise": True},
}


def asked(**fields) -> Asked:
    given = {"genes": None, "highly_variable": None, "flavor": "seurat_v3", "reduction": "gram", **fields}
    return Asked(panel=PANEL, components=8, power=4, seed=0, **given)


def agree(sites, asked_):
    """(what is found, the total of each round), and that each site's sums have the schema of `zero`."""
    found, totals = {}, []
    for one in statistics(asked_, lambda cells: cells):
        zero, sums = one.zero(found), [one.measure(cells, found) for cells in sites]
        for part in sums:
            assert {n: (v.shape, v.dtype) for n, v in part.items()} == {n: (v.shape, v.dtype) for n, v in zero.items()}
        totals.append(combine([zero, *sums]))
        found = json.loads(json.dumps(one.fit(totals[-1], found)))  # as it comes over the wire
    return found, totals


def whole(seed=0):
    return cells_of(GENES, n=400, seed=seed)


@functools.cache
def colliding() -> tuple[str, str]:
    """Two names whose sha256 sends them to one place."""
    seen: dict[int, str] = {}
    for number in range(20_000):
        name = f"G{number}"
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little") % PLACES
        if place in seen:
            return seen[place], name
        seen[place] = name
    raise AssertionError("expected a collision within 20,000 names")


@pytest.mark.parametrize("kind", KINDS)
def test_sums_have_the_schema_that_was_told_and_no_deal_changes_what_is_found(kind):
    cells = whole()
    deal = np.random.default_rng(1).permutation(400)
    ends = []
    for cuts in ([400], [120, 400], [110, 240, 400]):
        parts = [cells.take(np.sort(deal[begin:end])) for begin, end in zip([0, *cuts[:-1]], cuts, strict=True)]
        found, _ = agree(parts, asked(**KINDS[kind]))
        assert found.pop("sites") == len(cuts) and found.pop("rows") == 400
        ends.append(found)
    for other in ends[1:]:
        if "sketch" in kind:  # of floats: to rounding
            assert other["genes"] == ends[0]["genes"]
            for name in ("loadings", "centre"):
                np.testing.assert_allclose(array(other[name]), array(ends[0][name]), rtol=0, atol=1e-9)
        else:
            assert {**other, "panel_rows": 0} == {**ends[0], "panel_rows": 0}


def test_the_reduction_is_the_pooled_decomposition_and_its_first_direction_has_deviation_1():
    cells = whole()
    found, _ = agree([cells.take(np.arange(150)), cells.take(np.arange(150, 400))], asked())
    values = np.asarray(log_values(cells, found).todense())
    np.testing.assert_allclose(array(found["centre"]), values.mean(axis=0), rtol=0, atol=2e-5)  # in units of 2^-16
    centred = values - values.mean(axis=0)
    found_by: Any = svds(centred, k=8)
    _, size, right = found_by
    score = centred @ array(found["loadings"])
    assert score[:, 0].std() == pytest.approx(1, abs=1e-4)
    order = np.argsort(-size)
    wanted = np.abs(centred @ right[order].T) / (size.max() / np.sqrt(400))
    np.testing.assert_allclose(np.abs(score), wanted, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found["share"], size[order] ** 2 / (size**2).sum(), rtol=1e-3)
    assert found["inputs"][0] == "direction 1" and len(found["inputs"]) == 8


@pytest.mark.parametrize("kind", ["gram", "sketch"])
def test_standardised_genes_have_the_pooled_decomposition_of_z_scores(kind):
    cells = whole()
    sites = [cells.take(np.arange(150)), cells.take(np.arange(150, 400))]
    found, _ = agree(sites, asked(reduction=kind, standardise=True)._replace(power=11))
    values = np.asarray(log_values(cells, found).todense())
    z = (values - values.mean(axis=0)) / values.std(axis=0)
    _, size, right = np.linalg.svd(z, full_matrices=False)
    score = (values - array(found["centre"])) @ array(found["loadings"])
    wanted = z @ right[:8].T / (size[0] / np.sqrt(400))
    near = 1 if kind == "sketch" else 8  # of made-up cells all but the first are of much the same size, and turn
    np.testing.assert_allclose(np.abs(score[:, :near]), np.abs(wanted[:, :near]), rtol=0, atol=2e-3)
    plain, _ = agree(sites, asked(reduction=kind))
    assert np.abs(array(plain["loadings"]) - array(found["loadings"])).max() > 0.05


def test_standardised_genes_without_a_reduction_keep_their_mean_and_have_deviation_1():
    cells = whole()
    found, totals = agree(
        [cells.take(np.arange(150)), cells.take(np.arange(150, 400))], asked(reduction="none", standardise=True)
    )
    values = np.asarray(log_values(cells, found).todense())
    np.testing.assert_allclose(array(found["gene_scale"]), values.std(axis=0), rtol=1e-4)
    assert totals[-1]["squares"].dtype == np.int64


def test_genes_that_all_have_are_found_by_name_without_a_list():
    here, there = cells_of(GENES[:30], seed=1), cells_of(GENES[10:][::-1], seed=2)
    found, totals = agree([here, there], asked())
    assert found["agreed"] == found["genes"] == sorted(GENES[10:30])
    assert "places" not in found and len(totals[0]["genes/sites"]) == PLACES
    listed, _ = agree([here, there], asked(genes=GENES))
    assert {**listed, "panel_rows": 0} == {**found, "panel_rows": 0}


def test_two_genes_of_one_laboratory_in_one_place_are_left_out_and_all_else_is_found():
    pair = colliding()
    found, _ = agree([cells_of([*GENES, *pair], seed=1), cells_of([*GENES, *pair], seed=2)], asked())
    assert found["agreed"] == sorted(GENES)
    found, _ = agree([cells_of([*GENES, *pair], seed=1), cells_of([*GENES, pair[0]], seed=2)], asked())
    assert found["agreed"] == sorted(GENES)
    found, _ = agree([cells_of([*GENES, pair[1]], seed=1), cells_of([*GENES, pair[1]], seed=2)], asked())
    assert found["agreed"] == sorted([*GENES, pair[1]])


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 0, 1), (0, 1, 1)])
def test_a_gene_of_another_name_in_the_same_place_is_no_gene_of_all(order):
    sites = [cells_of([*GENES, colliding()[one]], seed=seed) for seed, one in enumerate(order)]
    found, totals = agree(sites, asked())
    assert found["agreed"] == sorted(GENES)
    assert (totals[0]["genes/sites"] == len(order)).sum() == len(GENES) + 1  # the place is everyone's, the name is not


@pytest.mark.parametrize("names", [("AC", "BB", "CA"), ("AB", "AD", "AC")])
def test_names_whose_letters_have_a_common_mean_are_not_taken_for_one(names, monkeypatch):
    """Letters that add up to those of a third name: their squares do not."""
    monkeypatch.setattr(protein_sums, "_place", lambda name: 7 if name in names else int(name[4:]) + 100)
    found, _ = agree([cells_of([*GENES, name], seed=seed) for seed, name in enumerate(names)], asked())
    assert found["agreed"] == sorted(GENES)


def test_a_name_too_long_to_tell_is_left_out_where_none_are_listed_and_others_are_told_whole():
    long, full, accents = "L" * (LETTERS + 1), "F" * LETTERS, "GÈNE"
    sites = [cells_of([*GENES, long, full, accents], seed=seed) for seed in (1, 2)]
    assert agree(sites, asked())[0]["agreed"] == sorted([*GENES, full, accents])
    assert long in agree(sites, asked(genes=(*GENES, long)))[0]["agreed"]


def test_totals_of_a_cell_are_over_all_agreed_genes_not_the_chosen_ones():
    cells = whole()
    found, _ = agree([cells], asked(highly_variable=10))
    assert len(found["genes"]) == 10 and len(found["agreed"]) == 40 and found["genes"] == sorted(found["genes"])
    dense = np.asarray(cells.counts.todense(), np.float64)
    wanted = np.log1p(1e4 * dense / dense.sum(axis=1, keepdims=True))
    at = [list(cells.genes).index(name) for name in found["genes"]]
    np.testing.assert_allclose(np.asarray(log_values(cells, found).todense()), wanted[:, at], rtol=1e-12)


def test_cells_that_measured_each_protein_are_counted():
    sites = [cells_of(GENES, n=150, seed=1), cells_of(GENES, n=200, proteins=("CD3", "CD19"), seed=2)]
    found, totals = agree(sites, asked())
    assert found["panel_rows"] == [350, 150, 150] and totals[0]["panel/sites"].tolist() == [2, 1, 1]


def test_what_nobody_has_is_said():
    with pytest.raises(DataError, match=r"expected each protein of the panel at one site at least, got none for CD8$"):
        agree([cells_of(GENES, proteins=("CD3", "CD4"), seed=seed) for seed in (1, 2)], asked())
    for fields in ({}, {"genes": GENES}):
        with pytest.raises(DataError, match="expected genes that all 2 sites have, got none"):
            agree([cells_of(GENES[:20], seed=1), cells_of(GENES[20:], seed=2)], asked(**fields))
        with pytest.raises(DataError, match=r"got none \(20 are shared by 2 of them\): are all of one species"):
            thrice = [cells_of(GENES[begin : begin + 20], seed=seed) for seed, begin in enumerate((0, 20, 0))]
            agree(thrice, asked(**fields))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "given" in kind or "variable" in kind])
def test_a_forecast_without_cells_finds_shapes_from_a_total_of_ones(kind):
    """And says what it cannot know, where no list of genes is given."""
    fields = {"genes": GENES, **KINDS[kind]}
    found = {}
    for one in statistics(asked(**fields), lambda cells: cells):
        found = one.fit({name: np.ones_like(leaf) for name, leaf in one.zero(found).items()}, found)
    assert len(found["inputs"]) == 8 and len(found["genes"]) == fields.get("highly_variable", len(fields["genes"]))
    (first, *_) = statistics(asked(), lambda cells: cells)
    with pytest.raises(DataError, match=r"expected the sites' cells, or task\.genes"):
        first.fit({name: np.ones_like(leaf) for name, leaf in first.zero({}).items()}, {})
