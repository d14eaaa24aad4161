"""What a site says of its patients is checked before it counts: what cannot be joined would end a study at its end."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from learner_jax.engines.figures import read_summary
from learner_jax.errors import RemoteProtocolError


def leaf(text: str) -> np.ndarray:
    return np.frombuffer(text.encode().ljust(32 * 1024), np.uint8)


SOUND: dict[str, Any] = {"name": "h00", "rows": 5, "patients": 5, "events": 1, "models": {}}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000, "{", "[]", "null", '{"everyone": 3}', json.dumps({"everyone": {"name": "h00"}}),
        json.dumps({"everyone": {**SOUND, "models": 3}}), json.dumps({"everyone": {**SOUND, "name": "h01"}}),
    ],
    ids=range(8),
)  # fmt: skip
def test_figures_that_are_none_are_refused(text):
    with pytest.raises(RemoteProtocolError, match="h00: expected"):
        read_summary(leaf(text), "h00")


def test_no_figures_are_sound():
    assert read_summary(leaf("{}"), "h00") == {}
