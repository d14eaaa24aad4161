"""Protein targets: by the formulas as R and scikit-learn have them, back again, and with another panel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from learner_jax.errors import DataError
from learner_jax.statistics import proteins
from tests.statistics import pooled_cells as pooled

COUNTS = hnp.arrays(np.int32, st.tuples(st.integers(2, 12), st.integers(2, 6)), elements=st.integers(0, 30_000))


def seurats(values: np.ndarray) -> np.ndarray:
    """Seurat's `log1p(x / exp(sum(log1p(x[x > 0])) / length(x)))`, of one vector."""
    total = 0.0
    for value in values:
        if value > 0:
            total += np.log1p(value)
    return np.array([np.log1p(value / np.exp(total / len(values))) for value in values])


def sample() -> np.ndarray:
    return pooled.read(pooled.SAMPLE).obsm["protein_expression"].to_numpy()


def test_within_site_is_sklearns_scaler_of_the_training_cells():
    from sklearn.preprocessing import StandardScaler

    counts = sample()
    train, rest = counts[:1500], counts[1500:]
    oracle = StandardScaler().fit(np.log1p(train.astype(float)))
    scale = proteins.site_scale(train)
    theirs = np.asarray(oracle.transform(np.log1p(rest.astype(float))))
    np.testing.assert_allclose(proteins.within_site(rest, scale), theirs, rtol=1e-10, atol=1e-12)
    scored = proteins.within_site(train, scale)
    np.testing.assert_allclose(scored.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(scored.std(axis=0), 1, rtol=1e-12)


def test_clr_per_protein_is_seurats_across_features():
    counts = sample()
    theirs = np.stack([seurats(column) for column in counts.T.astype(float)], axis=1)
    np.testing.assert_allclose(proteins.clr_per_protein(counts), theirs, rtol=1e-10)


def test_clr_per_cell_is_log1p_less_the_cells_mean():
    counts = sample()
    ours = proteins.clr_per_cell(counts)
    for cell in (0, 7, 1999):
        logs = np.array([np.log1p(float(count)) for count in counts[cell]])
        np.testing.assert_allclose(ours[cell], logs - logs.sum() / len(logs), rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.sum(axis=1), 0, atol=1e-12)
    # Seurat's margin = 2 has the same centre, inside the logarithm
    cell = counts[7].astype(float)
    centre = np.log1p(cell).mean()
    np.testing.assert_allclose(np.log1p(cell / np.exp(centre)), seurats(cell), rtol=1e-12)


@given(COUNTS)
def test_counts_come_back(counts):
    scale = proteins.site_scale(counts)
    back = proteins.counts_within_site(proteins.within_site(counts, scale), scale)
    np.testing.assert_allclose(back, counts, rtol=1e-9, atol=1e-9)
    centre = proteins.protein_centre(counts)
    back = proteins.counts_per_protein(proteins.clr_per_protein(counts), centre)
    np.testing.assert_allclose(back, counts, rtol=1e-9, atol=1e-9)
    mean = np.log1p(counts.astype(float)).mean(axis=1)
    np.testing.assert_allclose(
        proteins.counts_per_cell(proteins.clr_per_cell(counts), mean), counts, rtol=1e-9, atol=1e-9
    )


@given(COUNTS, st.randoms())
def test_only_the_ratio_per_cell_depends_on_the_panel(counts, random):
    kept = sorted(random.sample(range(counts.shape[1]), random.randint(1, counts.shape[1])))
    whole = proteins.within_site(counts, proteins.site_scale(counts))
    part = proteins.within_site(counts[:, kept], proteins.site_scale(counts[:, kept]))
    np.testing.assert_allclose(whole[:, kept], part, rtol=1e-9, atol=1e-12)
    part = proteins.clr_per_protein(counts[:, kept])
    np.testing.assert_allclose(proteins.clr_per_protein(counts)[:, kept], part, rtol=1e-9, atol=1e-12)


def test_another_panel_moves_the_ratio_per_cell():
    counts = sample()
    moved = proteins.clr_per_cell(counts)[:, :9] - proteins.clr_per_cell(counts[:, :9])
    assert np.abs(moved).mean() > 0.1


def test_gain_and_spread_of_an_antibody_leave_z_scores_alone():
    """Gain leaves both targets of one protein where they are; a squeezed logarithm only the z-score."""
    counts = sample() + 1000.0
    gained, squeezed = 7 * counts, counts**0.5 * 1000**0.5
    z, ratio = [], []
    for stained in (counts, gained, squeezed):
        z.append(proteins.within_site(stained, proteins.site_scale(stained)))
        ratio.append(proteins.clr_per_protein(stained))
    for other in z[1:]:
        np.testing.assert_allclose(other, z[0], rtol=0, atol=0.02)
    np.testing.assert_allclose(ratio[1], ratio[0], rtol=0, atol=0.01)
    assert np.abs(ratio[2] - ratio[0]).max() > 0.5


def test_held_out_cells_do_not_move_the_scale_and_a_flat_protein_is_zero():
    train = np.array([[5, 1], [5, 3]])
    scale = proteins.site_scale(train)
    assert proteins.within_site(train, scale)[:, 0].tolist() == [0.0, 0.0]
    assert scale.deviation[0] == 1.0
    held = proteins.clr_per_protein(np.array([[100, 100]]), proteins.protein_centre(train))
    np.testing.assert_allclose(held, [[np.log1p(100 / 6), np.log1p(100 / np.sqrt(8))]], rtol=1e-12)


SCALE = proteins.site_scale(np.array([[1, 2], [3, 4]]))


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: proteins.clr_per_cell(np.array([[1.0, np.nan]])), "in row 0 and protein number 2"),
        (lambda: proteins.site_scale(np.array([[1, 2], [-3, 4]])), "in row 1 and protein number 1"),
        (lambda: proteins.site_scale(np.zeros((0, 2))), "at least 1 training cell"),
        (lambda: proteins.protein_centre(np.zeros((0, 2))), "at least 1 training cell"),
        (lambda: proteins.clr_per_cell(np.ones((3, 1))), "at least 2 proteins"),
        (lambda: proteins.within_site(np.ones((3, 3)), SCALE), "expected 2 proteins"),
        (lambda: proteins.clr_per_protein(np.ones((3, 3)), np.ones(2)), "expected 2 proteins"),
        (lambda: proteins.clr_per_cell(np.ones(3)), "cells x proteins"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(call, said):
    with pytest.raises(DataError, match=said) as refused:
        call()
    assert "\n" not in str(refused.value)
