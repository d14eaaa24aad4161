"""What a site sees of its own part: a line a round that it answers, a bar on a terminal, a last line for machines."""

from __future__ import annotations

import io
import json
import re

import pytest

import learner_jax as lr
from learner_jax.cli import board, progress
from learner_jax.engines.answers import Answers, keep_figures, own_figures
from learner_jax.events import Event
from tests.federation.hospitals import federated, small, write_tables


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def done(number: int, phase: str = "train", **more) -> Event:
    about = {"phase": phase, "bytes": 118_000, "rounds": 50, "seconds": 0.8, "answers": number}
    return Event("site_done", "readmission", number, "h00", {**about, **more})


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A federation of one site over real sockets, two rounds."""
    folder = tmp_path_factory.mktemp("at-a-site")
    tables = write_tables(folder / "tables", {"h00": 60})
    study = small(tables, "fedavg", rounds=2, model=lr.logistic(), name="readmission")
    return federated(study, folder), folder


def told(ended, tmp_path, stream=None):
    """What h00's terminal was told, and its tally."""
    stream, (run, _) = stream or io.StringIO(), ended
    with progress.listening(None, tmp_path, stream) as (tell, tally):
        for who, event in run.events:
            if who == "h00":
                tell(event)
        tell(Event("done", "readmission", None, "h00", {"result": run.sites["h00"].result}))
    return stream.getvalue(), tally


def test_each_thing_that_a_site_answers_is_a_plain_line(ended, tmp_path):
    lines = told(ended, tmp_path)[0].splitlines()
    tail = r"answered, [\d.]+ k?B, \d+\.\d s"
    expected = [
        "joined study readmission",
        "takes part in 2 rounds of fedavg",
        f"sums over this table: {tail}",
        f"the table encoded as all sites agreed: {tail}",
        f"round 1 of 2: {tail}",
        f"round 2 of 2: {tail}",
        f"the last model watched: {tail}",
        f"this site's figures: {tail}",
        f"the study is over: weights {ended[0].sha256[:12]}",
    ]
    lines = [line for line in lines if " of 100 rows" not in line]  # what the checklist remarks
    assert [bool(re.fullmatch(f"h00: {words}", line)) for words, line in zip(expected, lines, strict=True)] == [
        True
    ] * 9


def test_the_last_line_of_a_site_holds_its_part(ended, tmp_path):
    result = ended[0].sites["h00"].result
    assert (result["algorithm"], result["rounds"]) == ("fedavg", 2) and result["seconds"] > 0
    _, tally = told(ended, tmp_path)
    found = json.loads(progress.as_json(progress.summary(None, tally)))
    assert (found["study"], found["algorithm"], found["rounds"]) == ("readmission", "fedavg", 2)
    assert found["weights_sha256"] == ended[0].sha256
    assert found["seconds"] > 0 and found["bytes_up"] > 0 and found["bytes_down"] > 0
    assert {"valid/loss", "valid/brier"} <= set(found["metrics"]) and 0 < found["metrics"]["valid/loss"] < 2
    kept = json.loads((ended[1] / "sites" / "h00" / "figures.json").read_text())
    assert kept["watched"]["valid/loss"] == found["metrics"]["valid/loss"] and set(kept) == {"watched", "judged"}


def test_the_last_line_of_a_site_that_was_stopped(tmp_path):
    with progress.listening(None, tmp_path, io.StringIO()) as (tell, tally):
        for event in (Event("start", "s", None, "h00", {"rounds": 50, "algorithm": "scaffold"}), done(7, answers=5)):
            tell(event)
    found = progress.summary(None, tally)
    assert (found["algorithm"], found["rounds"], tally.round) == ("scaffold", 5, 7)
    assert (found["seconds"], found["bytes_up"]) == (0.8, 118_000)


def test_a_bar_on_a_terminal_moves_by_the_sites_own_rounds(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    opens = Event("round_open", "readmission", 8, "h00", {"phase": "train", "rounds": 50})
    with board.live(stream, None) as tell:
        for event in (
            Event("start", "readmission", None, "h00", {"rounds": 50, "algorithm": "fedavg"}),
            done(7),
            opens,
        ):
            tell(event)
    text = stream.getvalue()
    for words in ("takes part in 50 rounds of fedavg", "7/50", "answered, 118 kB, 0.8 s"):
        assert words in text, words
    assert "sent" not in text and "site" not in text  # no table of sites, and no count of those that answered


def test_a_site_that_was_started_again_begins_its_bar_where_it_stands(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with board.live(stream, None) as tell:
        tell(Event("round_open", "readmission", 37, "h00", {"phase": "train", "rounds": 50}))
    assert "36/50" in stream.getvalue()


def test_rounds_are_counted_once_and_over_restarts(tmp_path):
    def answer(answers: Answers, number: int, phase: str = "train") -> Event:
        answers.told(Event("round_open", "s", number, "h00", {"phase": phase}), 9)
        newest = number + 1  # the machine names the newest round that it knows
        return answers.told(Event("site_done", "s", newest, "h00", {"round": number, "phase": phase, "bytes": 3}), 9)

    first = Answers(tmp_path)
    assert [answer(first, 0, "statistics").data["answers"], answer(first, 1).data["answers"]] == [0, 1]
    again = Answers(tmp_path)
    found = [answer(again, 1), answer(again, 4)]
    assert [(event.round, event.data["answers"], event.data["rounds"]) for event in found] == [(1, 1, 9), (4, 2, 9)]
    assert found[0].data["seconds"] >= 0


def test_a_sites_figures_by_name(tmp_path):
    assert own_figures(tmp_path) == {}
    figure = {"value": 0.7, "low": 0.6, "high": 0.8}
    models = {"federated": {"auroc": figure, "auprc": None}, "local_only": {"auroc": {**figure, "value": 0.5}}}
    keep_figures(tmp_path, watched={"valid/loss": 0.3})
    keep_figures(tmp_path, judged=[{"name": "heart failure", "models": models}, {"name": "everyone", "models": {}}])
    assert own_figures(tmp_path) == {"valid/loss": 0.3, "test/auroc": 0.7, "alone/auroc": 0.5}
    assert (tmp_path / "figures.json").stat().st_mode & 0o777 == 0o600
