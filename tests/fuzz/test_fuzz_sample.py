"""A short fixed sample of the fuzzing that `make fuzz` does by coverage: all seeds, and thousands of their changes."""

from __future__ import annotations

import random

import pytest

from tests.fuzz import targets


@pytest.mark.parametrize("name, many", [("header", 4000), ("reassembly", 2000), ("seal", 1000), ("roster", 600)])
def test_no_bytes_break_a_reader(name, many):
    rng, corpus = random.Random(name), targets.seeds(name)
    for data in [*corpus, *(targets.mutated(rng, corpus) for _ in range(many))]:
        try:
            targets.TARGETS[name](data)
        except Exception as error:
            raise AssertionError(f"{name}({data[:200]!r}...): {type(error).__name__}: {error}") from error
