"""result.json: whole or not at all, plain JSON, and one clear line where it is not one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from learner_jax.errors import CorruptError, StorageError
from learner_jax.reports.result import load, save


def test_comes_back_equal(make, tmp_path):
    result = make()
    save(result, tmp_path / "result.json")
    assert load(tmp_path / "result.json") == json.loads(json.dumps(result))
    assert load(tmp_path) == load(tmp_path / "result.json")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_numbers_that_json_does_not_know(tmp_path):
    row = {
        "round": np.int64(1),
        "valid/auroc": float("nan"),
        "loss": np.float32(0.5),
        "sites": ("a",),
        "x": np.arange(2),
    }
    save({"study": {}, "kind": "simulation", "rounds": 1, "curve": [row]}, tmp_path / "r.json")
    found = load(tmp_path / "r.json")["curve"][0]
    assert found == {"round": 1, "valid/auroc": None, "loss": 0.5, "sites": ["a"], "x": [0, 1]}


def test_a_failed_write_leaves_the_old_file(make, tmp_path):
    path = tmp_path / "result.json"
    save(make(), path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save({"curve": object()}, path)
    assert path.read_bytes() == before
    with pytest.raises(StorageError, match="expected to write"):
        save(make(), tmp_path / "missing" / "result.json")


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (None, StorageError, "no such file"),
        ("{", CorruptError, "got no JSON"),
        ("[]", CorruptError, "without study, kind, rounds, curve"),
        ('{"study": {}, "rounds": 3, "kind": "x"}', CorruptError, "without curve"),
    ],
)
def test_what_is_no_result_is_one_line(tmp_path, text, error, words):
    path = tmp_path / "result.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(error, match=words) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
