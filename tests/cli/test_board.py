"""The live board: what it keeps of each event, which rows it shows, and that a terminal sees them."""

from __future__ import annotations

import io

from learner_jax.cli import board
from learner_jax.cli.sentences import sentence, wrapped
from learner_jax.events import Event
from learner_jax.specs import Spec, Study

STUDY = Study(name="test", task=Spec("tasks", "t"), rounds=3)
SITES = ["h00", "h01", "h02"]
FEDERATION = [
    *(Event("site_back", "test", None, site, {"first": True}) for site in SITES),
    *(Event("site_done", "test", 0, site, {"bytes": 10}) for site in SITES),
    Event("round_open", "test", 1, None, {"sites": SITES, "rounds": 3}),
    *(Event("site_done", "test", 1, site, {"bytes": 1490}) for site in SITES),
    Event("round_closed", "test", 1, None, {"sites": SITES, "metrics": {"valid/auroc": 0.61}}),
    Event("round_open", "test", 2, None, {"sites": SITES, "rounds": 3}),
    Event("site_done", "test", 2, "h00", {"bytes": 1500}),
    Event("site_lost", "test", 2, "h01", {"reason": "no word for 15 s"}),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def heard(events) -> board.Board:
    found = board.Board()
    for event in events:
        found(event)
    return found


def drawn(found: board.Board, most: int = 16) -> list[list[str]]:
    """The table's rows as words."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=100, no_color=True)
    console.print(board.table(found, most))
    return [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_each_site_has_a_row_with_what_it_does_now():
    assert drawn(heard(FEDERATION))[1:] == [
        ["h00", "✓", "answered", "1", "3.0", "kB"],
        ["h01", "▲", "lost,", "no", "word", "for", "15", "s", "1", "1.5", "kB"],
        ["h02", "·", "training", "1", "1.5", "kB"],
    ]


def test_a_lost_site_stays_lost_until_it_is_back():
    again = Event("round_open", "test", 3, None, {"sites": SITES})
    found = heard([*FEDERATION, again])
    assert [found.rows[site].state for site in SITES] == ["training", "lost", "training"]
    found(Event("site_back", "test", 2, "h01", {"first": False}))
    assert found.rows["h01"].state == "training" and not found.rows["h01"].why


def test_more_sites_than_lines_shows_those_that_need_a_look():
    many = [f"s{i:03d}" for i in range(200)]
    found = heard(
        [
            Event("round_open", "test", 1, None, {"sites": many}),
            *(Event("site_done", "test", 1, site, {"bytes": 1000}) for site in many[:-3]),
            Event("site_lost", "test", 1, "s198", {}),
        ]
    )
    rows = drawn(found, most=6)[1:]
    assert len(rows) == 6
    assert [row[0] for row in rows[:3]] == ["s198", "s197", "s199"]
    assert rows[-1] == ["195", "more", "195", "answered", "195", "kB"]


def test_a_terminal_shows_the_rows_while_the_run_lasts():
    stream = Terminal()
    with board.live(stream, STUDY) as tell:
        for event in FEDERATION:
            tell(event)
        tell(Event("note", "test", data={"text": "a word above"}))  # a print draws the board anew
    text = stream.getvalue()
    for word in ("a word above", "h01 is lost", "▲ lost, no word for 15 s", "1/3 sites", "sent"):
        assert word in text, word


def test_a_simulated_run_has_the_line_alone():
    stream = Terminal()
    with board.live(stream, STUDY) as tell:
        tell(Event("round_open", "test", 1, None, {"sites": SITES}))
        tell(Event("round_closed", "test", 1, None, {"sites": SITES, "metrics": {"valid/auroc": 0.61}}))
    assert "sent" not in stream.getvalue() and "1/3" in stream.getvalue()


def test_long_sentences_break_between_words_and_tables_stay():
    text = "site  now\nOn average the hospitals gained by learning together."
    assert wrapped(text, 30) == "site  now\nOn average the hospitals\ngained by learning together."
    assert wrapped(text, 80) == text


def test_a_site_lost_between_rounds_names_no_round():
    assert sentence(Event("site_lost", "test", None, "h01", {"reason": "it left"}), 3) == "h01 is lost, it left"
    assert sentence(Event("site_lost", "test", 2, "h01"), 3) == "round 2 of 3: h01 is lost"
