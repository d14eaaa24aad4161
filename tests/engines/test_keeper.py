"""What a keeper keeps when: the best model with the step that names it, and no oftener."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from learner_jax.engines import keeper as keepers
from learner_jax.engines.keeper import Keeper
from learner_jax.specs import Checkpoint, Spec, Study


def study(**fields) -> Study:
    return Study(name="kept", task=Spec("tasks", "readmission"), checkpoint=Checkpoint(**fields))


def server(round_number: int) -> dict[str, np.ndarray]:
    return {"weights": np.full(3, round_number, np.float32)}


def meta(best: int | None) -> dict:
    return {"best_round": best, "best_value": 0.5, "ended": False}


@pytest.fixture
def kept(tmp_path):
    """(a keeper, its folder)."""
    keeper = Keeper(study(), tmp_path)
    yield keeper, tmp_path
    keeper.close()


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_a_small_best_model_is_on_the_disk_with_the_step_that_names_it_and_no_other_is(kept):
    keeper, folder = kept
    for number in (1, 2, 3, 4):
        assert isinstance(keeper.best(number, server(number)), dict), "it was saved alone"
    assert steps(folder / "best") == []
    keeper.step(5, server(5), {}, meta(4), last=True)
    assert steps(folder / "best") == [4] and steps(folder / "checkpoints") == [5]
    found = keeper.best_of(4, server(0))
    np.testing.assert_array_equal(found["weights"], server(4)["weights"])


def test_a_round_that_is_stopped_after_its_look_can_still_name_the_best_before_it(kept):
    keeper, folder = kept
    keeper.best(1, server(1))
    keeper.best(2, server(2))  # looked at in round 3, which is then interrupted: the newest step is round 2's
    keeper.interrupted((2, server(2), {}, meta(1)))
    assert steps(folder / "best") == [1] and steps(folder / "checkpoints") == [2]


def test_a_step_whose_best_was_saved_before_does_not_save_it_again(kept):
    keeper, folder = kept
    keeper.best(1, server(1))
    keeper.step(2, server(2), {}, meta(1), last=True)
    saved = (folder / "best" / "1").stat().st_mtime_ns
    keeper.step(3, server(3), {}, meta(1), last=True)
    assert (folder / "best" / "1").stat().st_mtime_ns == saved


def test_a_large_one_is_saved_at_once_and_let_go(kept):
    keeper, folder = kept
    with mock.patch.object(keepers, "_SMALL", 0):
        assert keeper.best(1, server(1)) == 1
    assert steps(folder / "best") == [1]


def test_where_more_than_one_is_to_be_kept_each_is_saved(tmp_path):
    keeper = Keeper(study(keep_best=2), tmp_path)
    assert [keeper.best(number, server(number)) for number in (1, 2, 3)] == [1, 2, 3]
    assert steps(tmp_path / "best")[-2:] == [2, 3]
    keeper.close()
