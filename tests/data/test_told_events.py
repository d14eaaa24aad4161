"""Events with time in one cell: written, read, checked and made arrays."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner_jax.data.schema import Column, conform
from learner_jax.data.told_events import read, sequences, written
from learner_jax.errors import ConfigError, DataError
from learner_jax.tasks.table import checklist

CODES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)
EVENTS = st.lists(st.tuples(st.integers(0, 10**8).map(lambda at: at / 1000), CODES), max_size=20)


@given(EVENTS)
def test_what_is_written_is_read(events):
    assert read(written(events)) == events


@given(EVENTS, st.integers(1, 8), st.randoms())
def test_the_latest_are_kept_whatever_their_order_in_the_cell(events, latest, random):
    turned = list(events)
    random.shuffle(turned)
    column = pd.Series(pd.Categorical([written(events), written(turned), None]))
    place = {code: at for at, code in enumerate(sorted({code for _, code in events}))}
    codes, days = sequences(column, lambda code: place[code], latest)
    np.testing.assert_array_equal(codes[0], codes[1])
    np.testing.assert_array_equal(days[0], days[1])
    kept = sorted((when, place[code]) for when, code in events)[:latest]
    assert codes[0].tolist() == [at + 1 for _, at in kept] + [0] * (latest - len(kept))
    np.testing.assert_array_equal(days[0, : len(kept)], np.array([when for when, _ in kept], np.float32))
    assert not codes[2].any()


@pytest.mark.parametrize("cell", ["ICD10CM//I50", "-1:ICD10CM//I50", "3:", "3 :A", "3:A,4:B x", "nan:A"])
def test_a_cell_that_is_none_is_refused_by_row(cell):
    table = pd.DataFrame({"history": ["1:A 2:B", cell]})
    with pytest.raises(DataError, match=r"column 'history', row 2: expected events as days:code, .* got something"):
        conform(table, [Column(name="history", kind="events")], "table")


def test_codes_that_are_not_declared_are_left_out_and_a_cell_may_be_empty():
    columns = (
        {"name": "history", "kind": "events", "keep": 4, "codes": ("A", "B")},
        {"name": "outcome", "kind": "flag"},
    )
    of = checklist(columns=columns, label="outcome")
    table = pd.DataFrame({"history": ["5:B 1:C 2:A", None], "outcome": [0, 1]})
    fitted = of.fit(of.measure(table))
    x = of.encode(table, fitted).rows["x"]
    assert x["code"].tolist() == [[1, 2, 0, 0], [0, 0, 0, 0]]
    assert x["days"][0].tolist() == [2, 5, 0, 0]
    assert x["table"].shape == (2, 0)
    shapes = of.template(fitted)["x"]
    assert {name: (leaf.shape[1:], leaf.dtype) for name, leaf in shapes.items()} == {
        name: (leaf.shape[1:], leaf.dtype) for name, leaf in x.items()
    }


def test_what_cannot_be_declared():
    events = {"name": "history", "kind": "events"}
    outcome = {"name": "outcome", "kind": "flag"}
    for columns, words in (
        (({**events, "missing": "masked"}, outcome), "expected typical .no events. or refuse for kind=events"),
        ((events, {**events, "name": "more"}, outcome), "expected at most one column of kind events"),
        (({"name": "age", "kind": "number", "keep": 3}, outcome), "for a column of kind code or events"),
    ):
        with pytest.raises(ConfigError, match=words):
            checklist(columns=columns, label="outcome")
