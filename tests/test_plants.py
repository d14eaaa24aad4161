"""Each planted fault still finds its place; `make plants` shows that its test notices it."""

from __future__ import annotations

import ast

import pytest

from tests.plants import PLANTS, text_of


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_plant_finds_its_place_and_leaves_python(plant, root):
    changed = text_of(plant).replace(plant.old, plant.new)
    assert changed != text_of(plant)
    if plant.file.endswith(".py"):
        ast.parse(changed)
    assert (root / plant.tests[0]).exists()
