"""How patients are dealt to splits, and tables to sites."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner_jax.data.partition import by_column, dirichlet, make, quantity
from learner_jax.data.sites import TEST, TRAIN, VALID, deal, share_of
from learner_jax.errors import DataError


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=50), st.integers(0, 2**63), st.randoms())
def test_a_patient_is_dealt_the_same_wherever_it_is(patients, seed, random):
    group = np.array(patients, np.int64)
    test = np.zeros(len(group), bool)
    dealt = dict(zip(patients, deal(group, test, seed, 0.3, 0.2).tolist()))
    shuffled = list(patients)
    random.shuffle(shuffled)
    some = shuffled[: len(shuffled) // 2 + 1]
    assert [dealt[p] for p in some] == deal(
        np.array(some, np.int64), np.zeros(len(some), bool), seed, 0.3, 0.2
    ).tolist()


def test_shares_are_as_asked_for_and_change_with_the_seed():
    group = np.arange(50_000)
    test = group % 5 == 0
    split = deal(group, test, 0, 0.1, 0.2)
    assert (split[test] == TEST).all() and not (split[~test] == TEST).any()
    assert abs((split[~test] == VALID).mean() - 0.1) < 0.005
    drawn = deal(group, None, 0, 0.1, 0.2)
    assert abs((drawn == TEST).mean() - 0.2) < 0.006 and abs((drawn == TRAIN).mean() - 0.72) < 0.008
    assert abs(np.corrcoef(share_of(group, 0, "valid"), share_of(group, 1, "valid"))[0, 1]) < 0.02
    assert abs(np.corrcoef(share_of(group, 0, "valid"), share_of(group, 0, "test"))[0, 1]) < 0.02


TABLE = pd.DataFrame(
    {
        "patient": np.arange(600) // 2,
        "ward": np.arange(600) % 3,
        "label": np.arange(600) // 2 % 4,
        "row": np.arange(600),
    }
)
SOME = [
    by_column(column="ward"),
    dirichlet(sites=5, alpha=0.5, label="label"),
    dirichlet(sites=5, alpha=0.5, label="label", group="patient"),
    quantity(sites=5, sigma=1.0, group="patient"),
]


@pytest.mark.parametrize("partition", SOME)
@pytest.mark.parametrize("seed", [0, 7])
def test_every_row_is_at_one_site_and_the_draw_can_be_repeated(partition, seed):
    sites = partition(TABLE, seed)
    assert sorted(np.concatenate([site["row"] for site in sites.values()]).tolist()) == list(range(600))
    assert list(sites) == sorted(sites) and all(len(site) for site in sites.values())
    again = partition(TABLE, seed)
    assert all((sites[name]["row"] == again[name]["row"]).all() for name in sites)


@pytest.mark.parametrize("partition", SOME[2:])
def test_a_patient_stays_together(partition):
    sites = partition(TABLE, 3)
    assert sum(site["patient"].nunique() for site in sites.values()) == TABLE["patient"].nunique()


def test_alpha_is_the_skew():
    def skew(alpha: float) -> float:
        sites = dirichlet(sites=5, alpha=alpha, label="label")(TABLE, 0)
        return float(np.mean([site["label"].value_counts(normalize=True).max() for site in sites.values()]))

    assert skew(0.05) > 0.7 > 0.4 > skew(1000.0)
    sizes = [len(site) for site in quantity(sites=4, sigma=0.0)(TABLE, 0).values()]
    assert sizes == [150] * 4
    assert dirichlet(sites=5, label="label")(TABLE, 0).keys() and [
        len(s) for s in dirichlet(sites=5, label="label")(TABLE, 0).values()
    ] != [len(s) for s in dirichlet(sites=5, label="label")(TABLE, 1).values()]


def test_what_cannot_be_dealt_is_one_line():
    with pytest.raises(DataError, match=r"a column 'wards' to make sites by, got none \(near: ward\)"):
        by_column(column="wards")(TABLE, 0)
    with pytest.raises(DataError, match="a partition, got 'dirichlett'; near: dirichlet"):
        make("dirichlett", {})
    with pytest.raises(DataError, match="expected alpha > 0, got alpha=0"):
        dirichlet(alpha=0, label="label")
    holes = TABLE.assign(ward=[None] + [1] * 599)
    with pytest.raises(DataError, match="column 'ward': expected a value in each row, got none in 1"):
        by_column(column="ward")(holes, 0)
