"""States on the disk: what was put is found, what was replaced comes back, nothing is half done."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from learner_jax.errors import CorruptError, StorageError
from learner_jax.storage.shelf import Shelf

START: dict[str, Any] = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.int8(3), "c": np.zeros((0,))}
SITES = 7


def made(number: int, places: Any) -> dict[str, Any]:
    return {
        "a": np.stack([np.full((2, 3), 100 * number + place, np.float32) for place in places]),
        "b": np.asarray([number] * len(places), np.int8),
        "c": np.zeros((len(places), 0)),
    }


def rounds(shelf: Shelf, first: int, last: int, seed: int = 0) -> None:
    """Rounds of three sites each; which, a function of the round."""
    for number in range(first, last + 1):
        places = np.random.default_rng((seed, number)).permutation(SITES)[:3]
        shelf.put(places, lambda number=number, places=places: made(number, places), number)


def all_of(shelf: Shelf) -> dict[str, Any]:
    return shelf.take(range(SITES))


def equal(one: Any, other: Any) -> None:
    for name in START:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("kept", [False, True])
def test_what_was_put_is_taken_and_others_are_as_they_enrolled(kept, tmp_path):
    shelf = Shelf(START, SITES, tmp_path / "states" if kept else None)
    places = np.array([5, 1])
    shelf.put(places, lambda: made(4, places), 1)
    found = shelf.take([1, -1, 5, 0])
    np.testing.assert_array_equal(found["a"][:, 0, 0], [401, 0, 405, 0])
    np.testing.assert_array_equal(found["b"], [4, 3, 4, 3])
    assert found["c"].shape == (4, 0) and shelf.one(5)["b"] == 4


def test_it_goes_back_to_any_round_that_a_step_may_be_of(tmp_path):
    for number in range(9):
        folder = tmp_path / str(number)
        shelf = Shelf(START, SITES, folder)
        rounds(shelf, 1, 8)
        shelf.settle()
        again, expected = Shelf(START, SITES, folder), Shelf(START, SITES)
        again.back_to(number)
        rounds(expected, 1, number)
        equal(all_of(again), all_of(expected))
        rounds(again, number + 1, 8)  # and on from there
        equal(all_of(again), all_of(shelf))


def test_behind_the_oldest_step_nobody_goes_back_and_the_files_are_gone(tmp_path):
    shelf = Shelf(START, SITES, tmp_path / "s")
    rounds(shelf, 1, 8)
    shelf.settle()
    shelf.forget(5)
    assert sorted(path.name for path in (tmp_path / "s").glob("before-*")) == [f"before-{n}" for n in (5, 6, 7, 8)]
    for wrong in (0, 3, 9):
        with pytest.raises(StorageError, match=f"states of round {wrong} .*got those of rounds 5 to 8"):
            Shelf(START, SITES, tmp_path / "s").back_to(wrong)
    expected = Shelf(START, SITES)
    rounds(expected, 1, 5)
    shelf.back_to(5)
    equal(all_of(shelf), all_of(expected))


def test_a_round_that_was_cut_off_in_its_middle_is_put_back(tmp_path, monkeypatch):
    shelf, left = Shelf(START, SITES, tmp_path / "s"), 2
    rounds(shelf, 1, 3)
    before = all_of(shelf)
    real = Shelf._write

    def full(self, place, record):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        real(self, place, record)

    rounds(shelf, 4, 4)
    monkeypatch.setattr(Shelf, "_write", full)
    with pytest.raises(StorageError, match=r"states of 3 sites.*No space left"):
        shelf.settle()
    monkeypatch.undo()
    again = Shelf(START, SITES, tmp_path / "s")
    again.back_to(3)
    equal(all_of(again), before)
    shelf.settle()  # or it is tried again, where there is room
    expected = Shelf(START, SITES)
    rounds(expected, 1, 4)
    equal(all_of(shelf), all_of(expected))


def test_damage_and_another_study_are_said(tmp_path):
    shelf = Shelf(START, SITES, tmp_path / "s")
    rounds(shelf, 1, 3)
    before = all_of(shelf)
    path = tmp_path / "s" / "before-3"
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptError, match="before-3 as it was written"):
        shelf.back_to(2)
    equal(all_of(shelf), before)
    with pytest.raises(StorageError, match=r"states of 8 sites in .*another study"):
        Shelf(START, SITES + 1, tmp_path / "s")


def test_sites_that_were_never_asked_take_no_room(tmp_path):
    start = {"w": np.ones(2**18, np.float32)}
    shelf = Shelf(start, 10_000, tmp_path / "s")
    shelf.put(np.array([9_999]), lambda: {"w": np.full((1, 2**18), 2, np.float32)}, 1)
    shelf.settle()
    told = (tmp_path / "s" / "states").stat()
    assert told.st_size > 10**10 and 512 * told.st_blocks < 4 * 2**20
    assert shelf.one(9_999)["w"][0] == 2 and shelf.one(17)["w"][0] == 1
