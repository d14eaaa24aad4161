"""Who listens while a study runs: the terminal, TensorBoard, and the last line for machines.

Each listener is a function of one `Event`; `listening` joins those that a run needs and closes them. On a terminal the
rounds are a live line (rounds, sites, metric, time left); elsewhere each event is one plain line.
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
from typing import Any, TextIO, cast

from learner_jax.engines.metrics_log import as_json
from learner_jax.errors import ConfigError
from learner_jax.events import Event, Observer, fan_out
from learner_jax.specs import Study

Stream = io.TextIOBase | TextIO
"""A text file that people read."""

QUIET = {"site_done", "checkpoint"}
"""Kinds that have no plain line of their own: one per site, or per save, is too many."""


@dataclasses.dataclass
class Tally:
    """What was heard so far: enough for the last line, and for a Ctrl-C that says where it stopped."""

    study: str = ""
    round: int = 0
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
        elif event.kind == "resumed":
            self.round = event.round or self.round
        elif event.kind == "done":
            self.result = event.data.get("result", event.data)
        if event.kind in ("round_closed", "evaluation") and event.data.get("metrics"):
            self.metrics = {**self.metrics, **event.data["metrics"]}


__all__ = ["Stream", "Tally", "as_json", "figures", "listening", "live", "plain", "sentence", "size", "summary"]


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
    metrics = {name: value for name, value in curve[-1].items() if name.count("/") == 1} or dict(tally.metrics)
    return {
        "study": study.name if study else tally.study,
        "algorithm": study.algorithm.name if study else None,
        "rounds": result.get("rounds", tally.round),
        "seconds": result.get("seconds", tally.seconds),
        "bytes_up": result.get("bytes_up", tally.bytes_up),
        "bytes_down": result.get("bytes_down", tally.bytes_down),
        "metrics": metrics,
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


def size(count: float) -> str:
    """Bytes for people: 950 B, 1.2 MB."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def figures(metrics: Mapping[str, Any], target: str = "") -> str:
    """'valid/auroc 0.643, train/loss 0.312': the target first, then losses."""
    first = [name for name in (target, "valid/loss", "train/loss") if name in metrics]
    names = list(dict.fromkeys(first)) or list(metrics)[:2]
    values = [(name, metrics[name]) for name in names[:2]]
    known = ((name, value) for name, value in values if isinstance(value, int | float) and not isinstance(value, bool))
    return ", ".join(f"{name} {value:.4g}" for name, value in known)


def sentence(event: Event, rounds: int | None = None, target: str = "") -> str:
    """One event in words, without the study's name; "" where it needs no line."""
    data = event.data
    number = f"round {event.round}" + (f" of {rounds}" if rounds and event.round else "")
    if event.kind in ("start", "evaluation"):
        words = {"start": "begins", "evaluation": "evaluation"}[event.kind]
        told = figures(data.get("metrics", {}), target)
        return f"{words}: {told}" if told else words
    if event.kind == "statistics":
        return "sites agree on means, scales and codes: sums only"
    if event.kind == "round_closed":
        sites, lost = data.get("sites", ()), data.get("lost", ())
        parts = [figures(data.get("metrics", {}), target), _sites(sites), f"{data.get('seconds', 0.0):.2f} s"]
        parts += [f"{size(data['bytes_up'])} up"] if data.get("bytes_up") else []
        parts += [f"without {', '.join(lost)}"] if lost else []
        return f"{number}: " + ", ".join(part for part in parts if part)
    if event.kind == "site_lost":
        return f"{number}: {event.site} is lost" + (f", {data['reason']}" if data.get("reason") else "")
    if event.kind == "site_back":
        return f"{number}: {event.site} is back" if event.round else f"{event.site} is back"
    if event.kind == "resumed":
        return f"goes on after {number}"
    if event.kind == "reference":
        return f"reference {data.get('name')}: round {_reached(event)} of {data.get('rounds')}"
    if event.kind == "note":
        return str(data.get("text", ""))
    return ""


def _sites(sites: Any) -> str:
    count = sites if isinstance(sites, int) else len(sites)
    return f"{count} site{'s' if count != 1 else ''}" if count else ""


def _reached(event: Event) -> int | None:
    """The round of a reference, which is none of the study's."""
    return event.data.get("round", event.round)


def plain(stream: Stream, study: Study | None) -> Observer:
    """One line an event, with the study's name; references once, not each of their rounds."""
    rounds, target = (study.rounds, study.target) if study else (None, "")

    def tell(event: Event) -> None:
        if event.kind in QUIET or (event.kind == "reference" and _reached(event) != event.data.get("rounds")):
            return
        words = sentence(event, rounds, target)
        if words:
            print(f"{event.study}: {words}", file=stream, flush=True)

    return tell


@contextlib.contextmanager
def live(stream: Stream, study: Study | None) -> Iterator[Observer]:
    """A moving line for rounds and one for each reference; losses, notes and the like stand above it."""
    from rich import progress
    from rich.console import Console
    from rich.text import Text

    rounds, target = (study.rounds, study.target) if study else (None, "")
    console = Console(file=cast(TextIO, stream))
    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=24),
        progress.TextColumn("{task.fields[count]}", markup=False),
        progress.TimeRemainingColumn(compact=True),
        progress.TextColumn("{task.fields[sites]}  {task.fields[said]}", markup=False),
    )
    with progress.Progress(*columns, console=console) as bars:
        lines: dict[str, Any] = {}

        def move(name: str, done: int | None, total: int | None, afresh: bool = False, **fields: Any) -> None:
            if name not in lines:
                lines[name] = bars.add_task(name, total=total, count="", sites="", said="")
            if done is not None:
                fields["count"] = f"{done}/{total}" if total else str(done)
            if afresh:  # rounds of an earlier run say nothing about the speed of this one
                bars.reset(lines[name], total=total, completed=done or 0)
                bars.update(lines[name], **fields)
            else:
                bars.update(lines[name], completed=done, **fields)

        heard: set[str] = set()
        asked = 0

        def tell(event: Event) -> None:
            nonlocal rounds, asked
            data = event.data
            if event.kind == "start":
                rounds = data.get("rounds", rounds)
            elif event.kind == "round_open":
                heard.clear()
                sites = data.get("sites", data.get("cohort", ()))
                asked = sites if isinstance(sites, int) else len(sites)
                move("rounds", None, rounds, sites=f"0/{asked} sites" if asked else "")
            elif event.kind == "site_done" and asked:
                heard.add(event.site or "")
                move("rounds", None, rounds, sites=f"{len(heard)}/{asked} sites")
            elif event.kind == "round_closed":
                said = figures(data.get("metrics", {}), target)
                move("rounds", event.round, rounds, sites=_sites(data.get("sites", ())), said=said)
            elif event.kind == "resumed":
                move("rounds", event.round or 0, rounds, afresh=True)
            elif event.kind == "reference":
                move(str(data.get("name")), _reached(event), data.get("rounds"))
            if event.kind in ("site_lost", "site_back", "resumed", "note", "statistics"):
                words = sentence(event, rounds, target)
                if words:
                    console.print(Text(words))

        yield tell


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
        yield fan_out(*observers), tally
