"""`kill -9` of a run at a random moment of an open round, and what was going on there."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from learner_jax.protocol import rows
from tests.federation.hospitals import Process


class Kill(NamedTuple):
    """Where a kill fell.

    Attributes:
      round: the open round.
      phase: what was going on in it.
      in_flight: bytes that the round had under way: updates asked for and not yet added up, a step being written.
      writing: what of that was a step on its way to disk.
      durable: the newest step on disk.
    """

    round: int
    phase: str
    in_flight: int
    writing: int
    durable: int

    def __str__(self) -> str:
        return (f"round {self.round}, {self.phase}, {self.in_flight} bytes in flight ({self.writing} of a step being "
                f"written; newest step {self.durable})")  # fmt: skip


def kill_in_a_round(
    start: Callable[[], Process], folder: Path, draw: random.Random, rounds: int, where: Callable[[Path], Kill | None]
) -> tuple[Kill, int]:
    """Starts runs in `folder` and kills each, until a kill falls into an open round.

    Args:
      start: starts the run, or goes on with it.
      folder: the run's.
      draw: of the moment: a round, then up to two rounds' time more.
      rounds: of the study.
      where: reads what was going on from what lies in the folder.

    Returns:
      The kill that counts, and how many before it did not.
    """
    said = ""
    for missed in range(8):
        if (folder / "result.json").exists():  # it was over before the kill
            shutil.rmtree(folder)
        begun, process = time.time(), start()
        try:
            seconds = _wait_for(process, folder, draw.randint(2, rounds - 2), begun)
            time.sleep(draw.uniform(0, 2 * seconds))
        finally:
            process.kill()
            code = process.wait(30)
        found, said = where(folder) if code == -9 else None, process.said
        if found is not None:
            return found, missed
    raise AssertionError(f"expected a kill in an open round of {rounds} in 8 trials: {said[-2000:]}")


def _wait_for(process: Process, folder: Path, number: int, begun: float) -> float:
    """Waits until this process tells of this round or a later one; seconds that a round took last."""
    while process.poll() is None:
        told = [line for line in events(folder) if line["time"] > begun]
        done = [line for line in told if line["event"] == "round_closed"]
        if any(line["event"] == "round_open" and line["round"] >= number for line in told):
            return done[-1]["seconds"] if done else 0.1
        time.sleep(0.002)
    return 0.0


def events(folder: Path) -> list[dict]:
    """What metrics.jsonl tells; a line that is cut is none."""
    try:
        lines = (folder / "metrics.jsonl").read_text(errors="replace").split("\n")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines[:-1] if line.endswith("}")]


def _open_round(folder: Path) -> int | None:
    """The round that was told open and not closed."""
    told = [line for line in events(folder) if line["event"] in ("round_open", "round_closed")]
    return told[-1]["round"] if told and told[-1]["event"] == "round_open" else None


def rows_of(folder: Path) -> list[rows.Row]:
    """The journal's rows, read beside a dead process without opening an epoch."""
    base = sqlite3.connect(folder / "journal.sqlite")
    try:
        found = base.execute("SELECT kind, body FROM rows ORDER BY seq").fetchall()
    finally:
        base.close()
    return [getattr(rows, kind.capitalize())(**json.loads(body)) for kind, body in found]


def newest_step(folder: Path) -> int:
    """The newest durable step; 0 if there is none."""
    steps = folder / "checkpoints"
    return max((int(path.name) for path in steps.glob("*") if path.name.isdigit()), default=0)


def _steps(folder: Path) -> tuple[int, int]:
    """(bytes of a step that was being written, the newest step that is durable)."""
    steps = folder / "checkpoints"
    writing = sum(path.stat().st_size for path in steps.glob(".saving-*/**/*") if path.is_file())
    return writing, newest_step(folder)


def in_simulation(folder: Path) -> Kill | None:
    """Reads a simulator's folder. What would cross the wire in a round counts as in flight until it is committed."""
    number = _open_round(folder)
    if number is None:
        return None
    closed = [line for line in events(folder) if line["event"] == "round_closed"]
    wire = closed[-1]["bytes_up"] + closed[-1]["bytes_down"] if closed else 0
    writing, durable = _steps(folder)
    committed = any(isinstance(row, rows.Committed) and row.round == number for row in rows_of(folder))
    return Kill(
        number, "checkpointing" if committed else "learning", wire * (not committed) + writing, writing, durable
    )


def in_federation(folder: Path) -> Kill | None:
    """Reads a coordinator's folder: its journal knows how far the round was."""
    opened = [row for row in rows_of(folder) if isinstance(row, rows.Opened) and row.phase == "train"]
    return where_it_fell(folder) if opened and opened[-1].round == _open_round(folder) else None


def where_it_fell(folder: Path) -> Kill:
    """Reads a coordinator's folder, whatever it was at: before the first round, in one, or at the end."""
    found = rows_of(folder)
    opened = [row for row in found if isinstance(row, rows.Opened)]
    last = opened[-1] if opened else rows.Opened(0, "statistics", 0, 0, (), "")
    mine = [row for row in found if row.round == last.round and getattr(row, "phase", last.phase) == last.phase]
    accepted = [row.size for row in mine if isinstance(row, rows.Accepted)]
    closed, added = (any(isinstance(row, kind) for row in mine) for kind in (rows.Closed, rows.Aggregated))
    committed = any(isinstance(row, rows.Committed) for row in mine)
    size = next((row.size for row in found if isinstance(row, rows.Accepted) and row.phase == last.phase), 0)
    if not opened:
        phase = "before anything"
    elif last.phase != "train":
        phase = f"{last.phase}, " + ("closed" if closed else f"{len(accepted)} of {len(last.cohort)} answers in")
    elif committed:
        phase = "checkpointing"
    elif added:
        phase = "committing"
    elif closed:
        phase = "adding up"
    else:
        phase = f"learning, {len(accepted)} of {len(last.cohort)} updates in"
    writing, durable = _steps(folder)
    over = added or (closed and last.phase != "train")
    return Kill(last.round, phase, (0 if over else size * len(last.cohort)) + writing, writing, durable)
