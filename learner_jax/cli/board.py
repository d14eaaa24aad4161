"""The live board of a run on a terminal: a row for each site, and a line for the rounds and for each reference.

`Board` is what was heard, a listener without a terminal; `live` draws it. Rows are shown where sites answer one by one
(a federation); a simulated round is one program, so its board is the line alone; so is that of a site.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO, cast

from learner_jax.cli.sentences import answered, figures, own_answer, reached, sentence, sites_of, size
from learner_jax.events import Event, Observer
from learner_jax.specs import Study

if TYPE_CHECKING:
    from rich.table import Table

    from learner_jax.cli.progress import Stream

ABOVE = {"site_lost", "resumed", "note", "statistics", "forecast"}
"""Kinds that stand as a sentence above the board; site_back also does, after the first time."""

MARKS = {"training": "·", "answered": "✓", "lost": "▲"}
"""A sign beside each state, so that it can be read without colour."""

STYLES = {"answered": "green", "lost": "yellow"}


@dataclasses.dataclass
class SiteRow:
    """What was heard of one site.

    Attributes:
      state: here, training, answered or lost.
      why: why it is lost.
      answers: rounds whose model holds its update, in this run of the program.
      sent: bytes of all that it sent.
    """

    state: str = "here"
    why: str = ""
    answers: int = 0
    sent: int = 0


@dataclasses.dataclass
class Board:
    """What was heard of all sites.

    Attributes:
      rows: by site name; empty until a site speaks for itself.
      asked: sites of the open round.
      speaking: sites were heard one by one.
    """

    rows: dict[str, SiteRow] = dataclasses.field(default_factory=dict)
    asked: tuple[str, ...] = ()
    speaking: bool = False

    def __call__(self, event: Event) -> None:
        data = event.data
        if own_answer(event):
            return
        if event.kind == "round_open":
            named = data.get("sites", data.get("cohort", ()))
            self.asked = () if isinstance(named, int) else tuple(named)
            for name in self.asked:
                row = self.row(name)
                row.state = "training" if row.state != "lost" else "lost"
        elif event.kind == "site_done" and event.site:
            row, self.speaking = self.row(event.site), True
            row.state, row.why = "answered", ""
            row.sent += data.get("bytes", 0)
        elif event.kind == "round_closed":
            named = data.get("sites", ())
            for name in () if isinstance(named, int) else named:
                self.row(name).answers += 1
        elif event.kind == "site_back" and event.site:
            row, self.speaking = self.row(event.site), True
            row.state, row.why = "training" if event.round and event.site in self.asked else "here", ""
        elif event.kind == "site_lost" and event.site:
            row, self.speaking = self.row(event.site), True
            row.state, row.why = "lost", str(data.get("reason") or "")

    def row(self, name: str) -> SiteRow:
        """The row of a site, made when it is first named."""
        return self.rows.setdefault(name, SiteRow())

    @property
    def answered(self) -> int:
        """Sites of the open round that have answered."""
        return sum(self.rows[name].state == "answered" for name in self.asked)


def table(board: Board, most: int = 16) -> Table:
    """The sites as a table: all of them, or those that need a look first and a line that counts the rest.

    Args:
      board: what was heard.
      most: rows that fit the terminal.
    """
    from rich.table import Table
    from rich.text import Text

    found = Table(box=None, pad_edge=False, header_style="bold")
    found.add_column("site", no_wrap=True)
    found.add_column("now", no_wrap=True)
    found.add_column("rounds", justify="right")
    found.add_column("sent", justify="right")
    names = sorted(board.rows)
    if len(names) > most:
        order = ("lost", "training", "here", "answered")
        names = sorted(names, key=lambda name: (order.index(board.rows[name].state), name))[: most - 1]
    for name in names:
        row = board.rows[name]
        words = f"{MARKS.get(row.state, ' ')} {row.state}" + (f", {row.why}" if row.why else "")
        found.add_row(
            Text(name), Text(words, STYLES.get(row.state, "")), str(row.answers), size(row.sent) if row.sent else ""
        )
    left = [row for name, row in board.rows.items() if name not in names]
    if left:
        done = sum(row.state == "answered" for row in left)
        found.add_row(Text(f"{len(left)} more"), Text(f"{done} answered"), "", size(sum(row.sent for row in left)))
    return found


@contextlib.contextmanager
def live(stream: Stream, study: Study | None) -> Iterator[Observer]:
    """Draws the board while a run lasts; losses, notes and the like stand above it.

    Args:
      stream: the terminal.
      study: the study; None at a site, which knows its name alone.

    Yields:
      The observer to tell.
    """
    from rich import progress
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    rounds, target = (study.rounds, study.target) if study else (None, "")
    console = Console(file=cast(TextIO, stream))
    bars = progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=24),
        progress.TextColumn("{task.fields[count]}", markup=False),
        progress.TimeRemainingColumn(compact=True),
        progress.TextColumn("{task.fields[sites]}  {task.fields[said]}", markup=False),
        console=console,
    )
    board, lines = Board(), {}

    def drawn() -> Any:
        if not board.speaking:
            return bars
        return Group(table(board, max(4, console.height - len(lines) - 4)), Text(""), bars)

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

    def own(event: Event) -> None:
        opens, number = event.kind == "round_open", event.round or 0
        done = number - opens if event.data["phase"] == "train" else None
        said = {} if opens else {"said": answered(event) if done else sentence(event)}
        move("rounds", done, rounds or event.data.get("rounds"), afresh="rounds" not in lines, **said)

    with Live(get_renderable=drawn, console=console, refresh_per_second=8) as shown:

        def tell(event: Event) -> None:
            nonlocal rounds
            board(event)
            data = event.data
            asked = len(board.asked)
            if event.kind == "start":
                rounds = data.get("rounds", rounds)
            elif own_answer(event):
                own(event)
            elif event.kind == "round_open" or (event.kind == "site_done" and asked and event.round):
                move("rounds", None, rounds, sites=f"{board.answered}/{asked} sites" if asked else "")
            elif event.kind == "round_closed":
                said = figures(data.get("metrics", {}), target, event.round)
                move("rounds", event.round, rounds, sites=sites_of(data.get("sites", ())), said=said)
            elif event.kind == "resumed":
                move("rounds", event.round or 0, rounds, afresh=True)
            elif event.kind == "reference":
                move(str(data.get("name")), reached(event), data.get("rounds"))
            from_a_site = event.site and event.kind in ("start", "done")
            if event.kind in ABOVE or from_a_site or (event.kind == "site_back" and not data.get("first")):
                words = sentence(event, rounds, target)
                if words:
                    shown.refresh()  # so that the board below the words is one with them
                    console.print(Text(words))

        yield tell
        board.speaking = False  # what stays on the screen is the line; the table at the end has each site's gain
