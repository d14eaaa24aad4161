"""Who listens while a study runs: the terminal, TensorBoard, and the last line for machines.

Each listener is a function of one `Event`; `listening` joins those that a run needs and closes them. On a terminal the
run is a live board (`board.py`: each site, rounds, metric, time left); elsewhere each event is one plain line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from learner_jax.cli.board import live
from learner_jax.cli.sentences import own_answer, reached, sentence, size
from learner_jax.engines.metrics_log import as_json
from learner_jax.errors import ConfigError
from learner_jax.events import Event, Observer, fan_out
from learner_jax.specs import Study

Stream = io.TextIOBase | TextIO
"""A text file that people read."""


@dataclasses.dataclass
class Tally:
    """What was heard so far: enough for the last line, and for a Ctrl-C that says where it stopped.

    answers: at a site, the rounds in which it took part.
    """

    study: str = ""
    algorithm: str | None = None
    round: int = 0
    answers: int | None = None
    seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    result: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        self.study = event.study
        if event.kind == "round_closed":
            self.round = event.round or self.round
            self.seconds += event.data.get("seconds", 0.0)
            self.bytes_up += event.data.get("bytes_up", 0)
            self.bytes_down += event.data.get("bytes_down", 0)
        elif event.kind == "site_done" and own_answer(event):
            self.answers = event.data.get("answers")
            self.round = (event.data["phase"] == "train" and event.round) or self.round
            self.seconds += event.data.get("seconds", 0.0)
            self.bytes_up += event.data.get("bytes", 0)
        elif event.kind == "start":
            self.algorithm = event.data.get("algorithm")
        elif event.kind == "resumed":
            self.round = event.round or self.round
        elif event.kind == "done":
            self.result = event.data.get("result", event.data)
        if event.kind in ("round_closed", "evaluation") and event.data.get("metrics"):
            self.metrics = {**self.metrics, **event.data["metrics"]}


__all__ = ["Stream", "Tally", "as_json", "listening", "plain", "size", "summary"]


def summary(study: Study | None, tally: Tally, result: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The JSON object that ends every run.

    Args:
      study: the study; None at a site, which knows its name alone.
      tally: what was heard, for a run that left no result.
      result: what the run ended with (`result.json`).

    Returns:
      study, algorithm, rounds, seconds, bytes_up, bytes_down, metrics, weights_sha256.
    """
    result = result or tally.result
    curve = result.get("curve") or [{}]
    metrics = {name: value for name, value in curve[-1].items() if name.count("/") == 1}
    told = tally.round if tally.answers is None else tally.answers
    return {
        "study": study.name if study else tally.study,
        "algorithm": study.algorithm.name if study else result.get("algorithm", tally.algorithm),
        "rounds": result.get("rounds", told),
        "seconds": result.get("seconds", tally.seconds),
        "bytes_up": result.get("bytes_up", tally.bytes_up),
        "bytes_down": result.get("bytes_down", tally.bytes_down),
        "metrics": result.get("metrics") or metrics or dict(tally.metrics),
        "weights_sha256": result.get("weights_sha256"),
    }


# ---- files -----------------------------------------------------------------------------------------------------------


def tensorboard(folder: Path) -> tuple[Observer, Callable[[], None]]:
    """(an observer that writes the metrics of each round as scalars, how to close it).

    Raises:
      ConfigError: tensorboardX is not installed.
    """
    try:
        writer = importlib.import_module("tensorboardX").SummaryWriter(str(folder))
    except ModuleNotFoundError as error:
        raise ConfigError("--tensorboard: expected tensorboardX; pip install 'learner-jax[tensorboard]'") from error

    def tell(event: Event) -> None:
        if event.kind == "round_closed":
            scalars = {**event.data.get("metrics", {})}
            scalars |= {f"round/{name}": event.data[name] for name in ("seconds", "bytes_up") if name in event.data}
            for name, value in scalars.items():
                if isinstance(value, int | float) and math.isfinite(value):
                    writer.add_scalar(name, value, event.round)

    return tell, writer.close


# ---- for people ------------------------------------------------------------------------------------------------------


def plain(stream: Stream, study: Study | None) -> Observer:
    """One line an event, with the study's name, or the site's at a site; references once, not each of their rounds."""
    rounds, target = (study.rounds, study.target) if study else (None, "")

    def tell(event: Event) -> None:
        if event.kind == "reference" and reached(event) != event.data.get("rounds"):
            return
        words = sentence(event, rounds, target)
        if words:
            who = (event.site if study is None else None) or event.study
            print(f"{who}: {words}", file=stream, flush=True)

    return tell


def forgiving(tell: Observer) -> Observer:
    """An observer whose words may be lost where the disk of a log is full: no run ends for them."""

    def told(event: Event) -> None:
        try:
            tell(event)
        except BrokenPipeError:
            raise
        except OSError:
            pass

    return told


@contextlib.contextmanager
def listening(
    study: Study | None, workdir: Path, stream: Stream | None = None, board: bool = False
) -> Iterator[tuple[Observer, Tally]]:
    """Everything that listens to a run.

    Args:
      study: the study; None where it is not known yet (a site that joins).
      workdir: where TensorBoard's files go; metrics.jsonl is the engines' own.
      stream: where people read; stdout, or stderr where stdout is for machines.
      board: also write for TensorBoard.

    Yields:
      (the observer, the tally).
    """
    people = stream or sys.stdout
    tally = Tally()
    with contextlib.ExitStack() as stack:
        observers: list[Observer] = [tally]
        if board:
            tell, close = tensorboard(workdir / "tensorboard")
            observers.append(tell)
            stack.callback(close)
        moving = people.isatty() and os.environ.get("TERM") != "dumb"
        observers.append(stack.enter_context(live(people, study)) if moving else plain(people, study))
        observers[-1] = forgiving(observers[-1])
        yield fan_out(*observers), tally
