"""What listens to a run: lines for people, the metrics file, TensorBoard, the last line for machines."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from learner_jax.cli import progress
from learner_jax.errors import ConfigError
from learner_jax.events import Event
from learner_jax.specs import Spec, Study

STUDY = Study(name="test", task=Spec("tasks", "t"), rounds=3)


def closed(number: int, **data) -> Event:
    metrics = {"valid/auroc": 0.6 + number / 100, "train/loss": 0.3}
    figures = {"metrics": metrics, "seconds": 0.5, "bytes_up": 1500, "bytes_down": 900, "sites": ["h00", "h01"]}
    return Event("round_closed", "test", number, None, {**figures, "lost": [], **data})


RUN = [
    Event("start", "test"),
    Event("statistics", "test"),
    Event("round_open", "test", 1, None, {"sites": ["h00", "h01"]}),
    Event("site_done", "test", 1, "h00"),
    Event("site_lost", "test", 1, "h01", {"reason": "no word for 300 s"}),
    closed(1, sites=["h00"], lost=["h01"]),
    Event("checkpoint", "test", 1),
    Event("site_back", "test", 2, "h01"),
    Event("round_open", "test", 2, None, {"sites": ["h00", "h01"]}),
    closed(2),
    Event("reference", "test", None, None, {"name": "pooled", "round": 1, "rounds": 2}),
    Event("reference", "test", 2, None, {"name": "pooled", "rounds": 2}),
    Event("note", "test", None, None, {"text": "the sites [bold] are artificial"}),
    Event("evaluation", "test", 2, None, {"metrics": {"valid/auroc": np.float64(0.625)}}),
]
RESULT = {
    "rounds": 2,
    "seconds": 9.5,
    "bytes_up": 10,
    "bytes_down": 20,
    "weights_sha256": "ab" * 32,
    "curve": [{"round": 1}, {"round": 2, "valid/auroc": 0.64, "valid/auroc/se": 0.01, "seconds": 1.0, "sites": ["a"]}],
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def tell_all(events, tmp_path, stream=None):
    stream = stream or io.StringIO()
    with progress.listening(STUDY, tmp_path, stream) as (tell, tally):
        for event in events:
            tell(event)
    return stream.getvalue(), tally


def test_plain_lines_one_an_event(tmp_path):
    text, _ = tell_all(RUN, tmp_path)
    assert text.splitlines() == [
        "test: begins",
        "test: sites agree on means, scales and codes: sums only",
        "test: round 1 of 3: h01 is lost, no word for 300 s",
        "test: round 1 of 3: valid/auroc 0.61 at the start, train/loss 0.3, 1 site, 0.50 s, 1.5 kB up, without h01",
        "test: round 2 of 3: h01 is back",
        "test: round 2 of 3: valid/auroc 0.62 after round 1, train/loss 0.3, 2 sites, 0.50 s, 1.5 kB up",
        "test: reference pooled: round 2 of 2",
        "test: the sites [bold] are artificial",
        "test: evaluation: valid/auroc 0.625",
    ]


def test_a_live_line_on_a_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    text, _ = tell_all(RUN, tmp_path, Terminal())
    for word in ("rounds", "2/3", "2 sites", "valid/auroc 0.62", "pooled", "2/2", "[bold]", "h01 is lost"):
        assert word in text, word


def test_a_live_line_of_a_site_that_knows_no_number_of_rounds(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with progress.listening(None, tmp_path, stream) as (tell, _):
        for event in (Event("resumed", "test", 6), closed(7)):
            tell(event)
    assert "goes on after round 6" in stream.getvalue()
    assert "rounds" in stream.getvalue() and "7/" not in stream.getvalue()


def test_a_dumb_terminal_gets_plain_lines(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    text, _ = tell_all(RUN, tmp_path, Terminal())
    assert "\x1b" not in text
    assert text.startswith("test: begins\n")


def test_the_last_line_of_a_run_that_finished(tmp_path):
    _, tally = tell_all([*RUN, Event("done", "test", None, None, {"result": RESULT})], tmp_path)
    assert progress.summary(STUDY, tally) == {
        "study": "test",
        "algorithm": "fedavg",
        "rounds": 2,
        "seconds": 9.5,
        "bytes_up": 10,
        "bytes_down": 20,
        "metrics": {"valid/auroc": 0.64},
        "weights_sha256": "ab" * 32,
    }


def test_the_last_line_of_a_run_that_was_stopped(tmp_path):
    _, tally = tell_all(RUN, tmp_path)
    found = json.loads(progress.as_json(progress.summary(STUDY, tally)))
    assert found["rounds"] == 2 and found["seconds"] == 1.0 and found["bytes_up"] == 3000
    assert found["metrics"] == {"valid/auroc": 0.625, "train/loss": 0.3}
    assert found["weights_sha256"] is None
    assert progress.summary(None, tally)["study"] == "test"


def test_tensorboard_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with (
        pytest.raises(ConfigError, match=r"^--tensorboard: expected tensorboardX; pip install 'learner-jax\[tensorb"),
        progress.listening(STUDY, tmp_path, io.StringIO(), board=True),
    ):
        pass


def test_tensorboard_gets_each_rounds_metrics(tmp_path, monkeypatch):
    """A double with tensorboardX's three calls: the extra need not be installed."""
    written = []

    class SummaryWriter:
        def __init__(self, folder: str):
            written.append(folder)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def close(self) -> None:
            written.append("closed")

    double = types.ModuleType("tensorboardX")
    double.__dict__["SummaryWriter"] = SummaryWriter
    monkeypatch.setitem(sys.modules, "tensorboardX", double)
    with progress.listening(STUDY, tmp_path, io.StringIO(), board=True) as (tell, _):
        tell(closed(1, metrics={"valid/auroc": 0.5, "train/loss": float("nan")}))
    assert written[0] == str(tmp_path / "tensorboard")
    assert ("valid/auroc", 0.5, 1) in written and ("round/bytes_up", 1500, 1) in written
    assert not [one for one in written if one[0] == "train/loss"]
    assert written[-1] == "closed"


@pytest.mark.skipif(importlib.util.find_spec("tensorboardX") is None, reason="tensorboardX (an extra) is not installed")
def test_tensorboard_itself_writes_a_file(tmp_path):
    with progress.listening(STUDY, tmp_path, io.StringIO(), board=True) as (tell, _):
        tell(closed(1))
    assert list((tmp_path / "tensorboard").glob("events.*"))


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (950, "950 B"), (1500, "1.5 kB"), (999_600, "1.0 MB"), (4e12, "4000.0 GB")]
)
def test_sizes_for_people(count, words):
    assert progress.size(count) == words


@pytest.mark.parametrize("kind", ["site_lost", "note"])
def test_what_a_site_says_makes_no_line_of_its_own_and_moves_no_cursor(kind):
    words = "gone\nheart: b was taken off the roster\x1b[2K\r"
    stream = io.StringIO()
    progress.plain(stream, None)(Event(kind, "heart", site="a", data={"reason": words, "text": words}))
    said = stream.getvalue()
    assert said.count("\n") == 1 and said.endswith("\n") and "\x1b" not in said and "\r" not in said
    assert "gone" in said
