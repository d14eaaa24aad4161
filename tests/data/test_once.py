"""A table is read once where one process encodes all sites, and not remembered longer."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pandas as pd

from learner_jax.data import schema
from learner_jax.data.once import once, read_once
from learner_jax.data.samples import sample_path
from learner_jax.data.sites import encode_sites
from learner_jax.data.tables import read_sites
from learner_jax.tasks.readmission import checklist


def frames() -> dict[str, pd.DataFrame]:
    sites = read_sites(sample_path("diabetes130"), sites=("h01", "h07", "h08"))
    return {name: frame.head(60) for name, frame in sites.items()}


def test_all_that_is_made_of_a_table_reads_its_columns_once():
    tables, asked = frames(), checklist()
    encode_sites(asked, tables)  # names of inputs are made once a process
    with mock.patch.object(schema, "_canonical", wraps=schema._canonical) as read:
        fitted, found = encode_sites(asked, tables)
    columns = sum(column.name in frame for frame in tables.values() for column in asked.columns)
    assert read.call_count == columns
    for name, site in found.items():  # and finds what it finds when it reads each time
        alone = asked.encode(tables[name], fitted)
        np.testing.assert_array_equal(site.rows["x"], alone.rows["x"])


def test_a_table_that_changed_is_read_again():
    table, columns = next(iter(frames().values())).copy(), checklist().columns
    with read_once():
        before = schema.conform(table, columns, "here")[0]["time_in_hospital"].to_numpy().copy()
    table["time_in_hospital"] = 14
    assert not (before == 14).all()
    assert (schema.conform(table, columns, "here")[0]["time_in_hospital"] == 14).all()
    with read_once():
        assert (schema.conform(table, columns, "here")[0]["time_in_hospital"] == 14).all()


def test_what_is_kept_is_let_go_and_told_apart_by_identity_and_the_rest_by_value():
    asked = []

    @once
    def made(first: list, number: int) -> int:
        asked.append((first, number))
        return len(asked)

    one, same = [1], [1]
    with read_once():
        assert [made(one, 1), made(one, 1), made(same, 1), made(one, 2)] == [1, 1, 2, 3]
        with read_once():
            assert made(one, 1) == 4
        assert made(one, 1) == 1
    assert [made(one, 1), made(one, 1)] == [5, 6]
