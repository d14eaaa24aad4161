"""Who takes part in which round, where sites come while a study runs; also after a restart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import pytest

from learner_jax import leaves
from learner_jax.engines.newcomers import ENTER, Newcomers
from learner_jax.protocol.rows import Closed, Opened
from learner_jax.storage.journal import Journal

SENT = "b" * 64


class Process:
    """A coordinator's process: its journal, and who is there. ready: of those asked, who answers in which round."""

    def __init__(self, folder: Path, ready: dict[int, Sequence[str]] | None = None):
        self.journal = Journal(folder / "journal.sqlite", "heart", "m" * 64)
        self.there: Sequence[str] = ()
        self.asked: list[tuple[int, tuple[str, ...]]] = []
        self.said: list[str] = []
        self.ready = ready
        self.part = Newcomers(self.journal, ("a", "b"), lambda: self.there, self.ask, self.said.append)

    def ask(self, number: int, sites: Sequence[str]) -> Sequence[str]:
        self.asked.append((number, tuple(sites)))
        answered = tuple(sites) if self.ready is None else self.ready.get(number, ())
        self.open(number, ENTER, tuple(sites))
        self.journal.write(Closed(number, ENTER, tuple((site, "d" * 64) for site in answered)))
        return answered

    def open(self, number: int, phase: str, cohort: tuple[str, ...], attempt: int = 1) -> None:
        self.journal.write(Opened(number, phase, attempt, self.journal.epoch, cohort, SENT))

    def round(self, number: int) -> tuple[str, ...]:
        names = self.part.at(number)
        self.open(number, "train", names)
        self.journal.write(Closed(number, "train", tuple((site, "d" * 64) for site in names)))
        return names


@pytest.fixture
def process(tmp_path):
    process = Process(tmp_path)
    yield process
    process.journal.close()


def test_who_comes_takes_part_from_the_next_round_on(process):
    assert process.round(1) == ("a", "b") and not process.asked
    process.there = ("a", "b", "c")
    assert process.round(2) == ("a", "b", "c") == process.round(3)
    assert process.asked == [(2, ("c",))] and process.said == ["c takes part from round 2 on"]


def test_who_was_not_ready_is_asked_again_before_the_next_round(tmp_path):
    process = Process(tmp_path, ready={2: ("d",), 3: ("c",)})
    process.there = ("c", "d")
    assert [process.round(number) for number in (1, 2, 3)] == [("a", "b"), ("a", "b", "d"), ("a", "b", "d", "c")]
    assert process.asked == [(1, ("c", "d")), (2, ("c", "d")), (3, ("c",))]
    process.journal.close()


def test_another_process_finds_the_same_sites_in_the_same_rounds(process, tmp_path):
    process.round(1)
    process.there = ("c",)
    expected = [process.round(number) for number in (2, 3)]
    process.there = ("c", "d")
    expected.append(process.round(4))
    process.journal.close()
    again = Process(tmp_path)
    again.there = ("e",)  # it comes while rounds are added up again
    assert [again.part.at(number) for number in (1, 2, 3, 4)] == [("a", "b"), *expected] and not again.asked
    assert again.round(5) == ("a", "b", "c", "d", "e")
    again.journal.close()


def test_a_round_that_was_opened_without_newcomers_is_gone_on_with_without_them(process, tmp_path):
    process.round(1)
    process.open(2, "train", ("a", "b"))
    process.journal.close()
    again = Process(tmp_path)
    again.there = ("c",)
    assert again.part.at(2) == ("a", "b") and not again.asked
    assert again.part.at(3) == ("a", "b", "c")
    again.journal.close()


def test_newcomers_who_were_being_asked_when_the_process_died_are_asked_again(process, tmp_path):
    process.round(1)
    process.open(2, ENTER, ("c", "d"))
    process.journal.close()
    again = Process(tmp_path)
    again.there = ("e",)
    asked = []
    again.part._ask = lambda number, sites: asked.append((number, tuple(sites))) or ("d",)
    assert again.part.at(2) == ("a", "b", "d") and asked == [(2, ("c", "d"))]
    again.journal.close()


def test_whose_id_is_anothers_takes_no_part_and_that_is_said_once(process):
    with mock.patch.object(leaves, "site_id", lambda name: {"x": 1, "y": 1}.get(name, hash(name) % 2**32)):
        process.there = ("x", "y")
        assert process.round(1) == process.round(2) == ("a", "b", "x")
    assert process.asked == [(1, ("x",))] and len(process.said) == 2
    assert process.said[0].startswith("y cannot take part: expected sites with names of their own")
