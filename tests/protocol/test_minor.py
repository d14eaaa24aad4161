"""An older minor of the protocol: its recorded study ends as it did, and nothing is said to it that it cannot read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import pytest

from learner_jax.errors import RemoteProtocolError
from learner_jax.protocol import commands as c
from learner_jax.protocol import messages as m
from learner_jax.protocol.site import SiteKeeper
from tests.protocol import recorded

FOLDER = Path(__file__).parent / "fixtures"
OLDER = range(m.PROTOCOL[1])
STUDIES = {minor: recorded.load(FOLDER / f"protocol-{m.PROTOCOL[0]}.{minor}.jsonl") for minor in OLDER}


def readable(send: c.Send, lines: list[dict[str, Any]]) -> bool:
    """Whether the recorded release could read a message: it refuses what has other fields than its own."""
    values = msgpack.unpackb(m.encode(send.message, send.minor))
    beside = m.BESIDE.get(type(send.message)) if send.minor >= 2 else None  # travels as the payload
    return list(values) == ["kind", *(name for name in lines[0]["fields"][values["kind"]] if name != beside)]


@pytest.mark.parametrize("minor", OLDER)
def test_the_recordings_are_of_all_minors_before_this_one(minor):
    lines = STUDIES[minor]
    assert lines[0]["protocol"] == [m.PROTOCOL[0], minor]
    assert {f["from"] for f in lines[1:]} == {"", *recorded.SITES} == {f["to"] for f in lines[1:]}


@pytest.mark.parametrize("minor", OLDER)
def test_todays_coordinator_with_sites_of_an_older_minor(minor):
    lines = STUDIES[minor]
    closed, said = recorded.replay(lines, "")
    assert closed == lines[0]["closed"] and len(closed) == len(recorded.PLACES)
    assert [send.message for send in said if not readable(send, lines)] == []
    assert {send.minor for send in said} == {minor}


def test_what_is_said_to_a_side_is_of_the_minor_that_was_agreed():
    coordinator = recorded.Coordinator()
    for protocol, minor in (((1, 0), 0), (m.PROTOCOL, m.PROTOCOL[1]), ((1, 99), m.PROTOCOL[1])):
        hello = m.Hello("study", protocol, "north", "x", 0)
        assert {send.minor for send in coordinator.give(c.Heard("north", hello), 0.0)} == {minor}
    assert {send.minor for send in coordinator.give(c.Heard("stranger", hello), 0.0)} == {0}


@pytest.mark.parametrize("minor", OLDER)
@pytest.mark.parametrize("name", recorded.SITES)
def test_todays_site_with_a_coordinator_of_an_older_minor(name, minor):
    lines = STUDIES[minor]
    ended, said = recorded.replay(lines, name)
    entries, finished = lines[0]["sites"][name]
    assert ended == [[[*entry, ""][:7] for entry in entries], finished] and finished[0] is True
    welcomed = next(at for at, send in enumerate(said) if not isinstance(send.message, m.Hello))
    assert [send.message for send in said[welcomed:] if not readable(send, lines)] == []
    assert {send.minor for send in said[welcomed:]} == {minor}


def test_a_site_whose_hello_is_not_read_says_it_in_older_words():
    keeper = SiteKeeper("study", "north", incarnation="0f")
    said: list[Any] = []
    for tick in range(100):
        said += [k for k in keeper.handle(c.Tick(), tick * 0.1) if isinstance(k, c.Send)]
    assert not readable(said[0], STUDIES[0]) and "incarnation" in msgpack.unpackb(m.encode(*said[0][1::2]))
    assert any(readable(send, STUDIES[0]) for send in said)


def test_what_a_minor_added_may_be_missing_and_is_left_out_for_older_sides():
    for cls, added in m.SINCE.items():
        for name, minor in added.items():
            assert 0 < minor <= m.PROTOCOL[1] and name in cls._field_defaults, (cls, name)
    hello = m.Hello("s", m.PROTOCOL, "h00", "x", 0, "0f")
    older = m.encode(hello, 0)
    assert m.decode(older) == hello._replace(incarnation="") and m.decode(m.encode(hello)) == hello
    assert m.encode(m.decode(older), 0) == older


@pytest.mark.parametrize("protocol, read", [([1, 9], True), ([2, 0], True), (list(m.PROTOCOL), False), ([0, 9], False)])
def test_of_a_newer_hello_what_is_not_known_is_passed_over(protocol, read):
    values = msgpack.unpackb(m.encode(m.Hello("s", m.PROTOCOL, "h00", "x", 0, "0f")))
    packed: Any = msgpack.packb({**values, "protocol": protocol, "colour": "red"})
    if read:
        assert m.decode(packed) == m.Hello("s", (protocol[0], protocol[1]), "h00", "x", 0, "0f")
    else:
        with pytest.raises(RemoteProtocolError, match="unknown field str 'colour'"):
            m.decode(packed)


def test_a_coordinator_of_another_major_is_not_followed():
    keeper = SiteKeeper("s", "a")
    commands: list[Any] = keeper.handle(c.Heard("", m.Welcome("s", (9, 0), 1, b"{}", "d" * 64, ("a",))), 0.0)
    assert [type(k) for k in commands] == [c.Tell] and "expected protocol 1.x" in commands[0].event.data["text"]
