"""metrics.jsonl: a line an event, whatever is in it, each round once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from learner_jax.engines.metrics_log import metrics_file
from learner_jax.errors import StorageError
from learner_jax.events import Event

SITES = ["a", "b"]
METRICS = {"valid/auroc": 0.61, "train/loss": 0.3}
RESULT = {"rounds": 1}


def closed(number: int) -> Event:
    return Event("round_closed", "test", number, None, {"metrics": METRICS, "seconds": 1.0, "sites": SITES, "lost": []})


RUN = [
    Event("start", "test"),
    Event("statistics", "test", None, None, {"sites": 2}),
    Event("round_open", "test", 1, None, {"sites": SITES}),
    Event("site_done", "test", 1, "a"),
    Event("site_lost", "test", 1, "b", {"reason": "line"}),
    closed(1),
]


def write(events: list[Event], folder: Path) -> None:
    tell = metrics_file(folder / "metrics.jsonl")
    for event in events:
        tell(event)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_metrics_file_has_a_line_an_event_and_is_json(tmp_path):
    weird = Event(
        "note",
        "test",
        None,
        None,
        {"study": "{}", "a": np.arange(2), "b": float("nan"), "c": {1: (np.float32(0.5),)}, "d": tmp_path},
    )
    write([*RUN, weird, Event("done", "test", None, None, {"result": RESULT})], tmp_path / "new" / "folder")
    found = lines(tmp_path / "new" / "folder" / "metrics.jsonl")
    assert [line["event"] for line in found] == [event.kind for event in RUN] + ["note"]
    assert all({"event", "study", "round", "site", "time"} <= set(line) for line in found)
    assert {line["study"] for line in found} == {"test"}
    assert found[5]["metrics"] == {"valid/auroc": 0.61, "train/loss": 0.3}
    assert found[-1]["a"] == [0, 1] and found[-1]["b"] is None and found[-1]["c"] == {"1": [0.5]}


@pytest.mark.parametrize("first", [Event("resumed", "test", 2), Event("round_open", "test", 3), closed(3)])
def test_a_run_that_goes_on_leaves_each_round_once(tmp_path, first):
    write([Event("start", "test"), closed(1), closed(2), closed(3), closed(4)], tmp_path)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"event": "round_cl')  # a kill in the middle of a line
    write([Event("start", "test"), first, *([] if first.kind == "round_closed" else [closed(3)]), closed(4)], tmp_path)
    assert [line["round"] for line in lines(path) if line["event"] == "round_closed"] == [1, 2, 3, 4]
    assert not list(tmp_path.glob("*.part"))


def test_a_metrics_file_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*metrics\.jsonl"):
        write(RUN, tmp_path)


def _same(file):
    return file


def test_a_full_disk_costs_no_line_and_no_part_of_one(tmp_path, monkeypatch):
    """Two events find no room, the second after half a line; the third brings all three."""
    tell, real, full = metrics_file(tmp_path / "metrics.jsonl"), Path.open, []
    tell(Event("start", "test"))

    class Full:
        def __init__(self, file):
            self.file, self.fileno, self.truncate = file, file.fileno, file.truncate

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, data):
            full.append(1)
            if len(full) == 2:
                return self.file.write(data[:5])
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(
            Path, "open", lambda path, *how, **more: (Full if how == ("ab",) else _same)(real(path, *how, **more))
        )
        tell(closed(1))
        tell(closed(2))
    tell(closed(3))
    assert [line["round"] for line in lines(tmp_path / "metrics.jsonl")] == [None, 1, 2, 3] and len(full) == 3
