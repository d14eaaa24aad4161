"""Messages: bytes both ways, and everything that is not a message refused in one line."""

from __future__ import annotations

import typing
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner_jax.errors import LocalProtocolError, RemoteProtocolError
from learner_jax.protocol import messages as m

D = "ab" * 32
BLOB = m.Blob(D, 5_000_000, "cd" * 32)
EXAMPLES = (
    m.Enrol("s", "h00", "x" * 40, b"k" * 32),
    m.Enrolled("s", "h00", b"k" * 32, 3),
    m.Refused("s", "not known here"),
    m.Hello("s", (1, 0), "h00", "learner-jax 0.1.0", 2, "0a1f"),
    m.Welcome("s", (1, 0), 3, b"{}", D, ("h00", "h01")),
    m.Open("s", 3, 1, "train", 1, 2, 10, BLOB, {"key": 7, "lr": 0.5, "mode": "x"}),
    m.Want("s", D, m.CHUNK, 8),
    m.Chunk("s", D, 0, True),
    m.Offer("s", 3, 1, "train", 1, "h00", D, BLOB),
    m.Accepted("s", 3, 1, "train", D),
    m.Rejected("s", 3, 1, "train", D, False, "late"),
    m.Done("s", 3, "", "finished"),
    m.Ping("s", 3, 1, ""),
    m.Pong("s", 3),
    m.Bye("s", "finished"),
    m.Ask("s"),
    m.Told("s", 1_790_000_000.25),
    m.Rotate("s", "k" * 40, b"s" * 32, b"p" * 64),
    m.Rotated("s", "k" * 40),
)

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,63}", fullmatch=True)
digests = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
scalars = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=20)
)
opens = st.builds(
    m.Open,
    names,
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**31 - 1),
    st.sampled_from(m.PHASES),
    st.integers(0, 100),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.builds(m.Blob, digests, st.integers(0, 2**40), digests),
    st.dictionaries(st.text(max_size=64), scalars, max_size=5),
)


def pack(value: Any) -> bytes:
    packed: Any = msgpack.packb(value)
    return packed


def test_every_kind_has_an_example():
    assert {type(e) for e in EXAMPLES} == set(typing.get_args(m.Message))


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda e: type(e).__name__)
def test_there_and_back(message):
    assert m.decode(m.encode(message), "h00") == message


@given(opens)
def test_there_and_back_for_any_open(message):
    assert m.joined(m.decode(m.encode(message)), m.beside(message)) == message


def test_a_table_travels_beside_and_older_sides_get_none():
    opened = m.Open("s", 3, 1, "train", 1, 2, 10, BLOB, {}, b"t" * 48)
    assert b"t" * 9 not in m.encode(opened) and m.beside(opened) == b"t" * 48 and m.beside(opened, 1) == b""
    assert m.joined(m.decode(m.encode(opened)), memoryview(b"t" * 48)) == opened
    assert m.joined(m.Ping("s", 1, 1, ""), b"x") == m.Ping("s", 1, 1, "") and m.beside(m.Ping("s", 1, 1, "")) == b""
    with pytest.raises(RemoteProtocolError, match=f"h00: expected a table of at most {m.TABLE_LIMIT} bytes, got"):
        m.joined(opened, bytes(m.TABLE_LIMIT + 1), "h00")


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda e: type(e).__name__)
def test_a_missing_or_unknown_field_is_named(message):
    values = msgpack.unpackb(m.encode(message))
    for name in message._fields:
        if name in m.SINCE.get(type(message), {}) or name == m.BESIDE.get(type(message)):
            continue  # an older side does not say it; it is no part of the header
        with pytest.raises(RemoteProtocolError, match=f"h00: .*'{name}', which is missing"):
            m.decode(pack({k: v for k, v in values.items() if k != name}), "h00")
    with pytest.raises(RemoteProtocolError, match="unknown field str 'extra'"):
        m.decode(pack({**values, "extra": 1}))


@pytest.mark.parametrize(
    "example, field, value, says",
    [
        (m.Want, "offset", -1, "field 'offset': expected a whole number from 0"),
        (m.Want, "offset", True, "whole number"),
        (m.Want, "offset", 1.0, "whole number"),
        (m.Want, "credit", 65, "from 1 to 64"),
        (m.Want, "digest", "AB" * 32, "sha256"),
        (m.Want, "digest", D + "\n", "sha256"),
        (m.Hello, "site", "../h00", "a name"),
        (m.Hello, "site", "enrol:1", "a name"),
        (m.Hello, "protocol", [1], "list of 2"),
        (m.Hello, "incarnation", "h00", "hexadecimal"),
        (m.Offer, "blob", [D, 2**60, D], "whole number"),
        (m.Offer, "phase", "test", "a phase"),
        (m.Open, "fields", {"x": float("nan")}, "numbers and short texts"),
        (m.Open, "fields", {"x": [1]}, "numbers and short texts"),
        (m.Chunk, "last", 1, "true or false"),
        (m.Enrol, "sign_public", b"k" * 31, "32 raw bytes"),
        (m.Welcome, "manifest", "{}", "raw bytes"),
        (m.Told, "time", float("nan"), "seconds since 1970"),
        (m.Told, "time", 1_790_000_000, "seconds since 1970"),
        (m.Rejected, "reason", "x" * 2001, "at most 2000 characters"),
    ],
)
def test_a_wrong_value_is_refused_by_both_sides(example, field, value, says):
    message = next(e for e in EXAMPLES if type(e) is example)
    values = msgpack.unpackb(m.encode(message))
    with pytest.raises(
        RemoteProtocolError, match=f"field '{field}'.*{says}" if "field" not in says else says
    ) as caught:
        m.decode(pack({**values, field: value}), "h00")
    assert caught.value.peer == "h00" and "\n" not in str(caught.value)
    with pytest.raises(LocalProtocolError):
        m.encode(message._replace(**{field: value}))


def test_what_is_not_a_message():
    good = m.encode(EXAMPLES[0])
    pong = pack("kind") + pack("pong") + pack("study") + pack("s") + pack("epoch") + b"\x01"
    assert m.decode(b"\x83" + pong) == m.Pong("s", 1)
    twice = b"\x84" + pong + pack("epoch") + b"\x01"
    nested = b"\x91" * 60_000 + b"\xc0"
    deep = [b"\x81\xa4kind" + b"\x91" * depth + b"\xc0" for depth in (400, 900, 1000, 1020)]
    for bad in (*deep, b"", b"\xc1", good + b"\x00", good[:-1], b"\x90", pack({"kind": []}), twice, nested,
                pack({"kind": "__class__"}), pack({1: 2}), b"\xd9\x01\xff", b"\xdf\xff\xff\xff\xff",
                pack(msgpack.ExtType(1, b"x")), b"\x00" * (m.HEADER_LIMIT + 1)):  # fmt: skip
        with pytest.raises(RemoteProtocolError, match="h00"):
            m.decode(bad, "h00")


@settings(max_examples=500)
@given(st.binary(max_size=200), st.sampled_from(EXAMPLES), st.data())
def test_any_bytes_give_a_message_or_our_error(noise, message, data):
    raw = bytearray(m.encode(message))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at : at + data.draw(st.integers(0, 3))] = noise[:3]
    for header in (noise, bytes(raw)):
        try:
            got = m.decode(header)
        except RemoteProtocolError:
            continue
        assert m.decode(m.encode(got)) == got


def test_a_header_that_is_too_long_is_not_sent():
    with pytest.raises(LocalProtocolError, match="at most 65536"):
        m.encode(EXAMPLES[4]._replace(enrolled=tuple(f"{'h' * 50}{n}" for n in range(2000))))


def test_versions():
    major, minor = m.PROTOCOL
    assert m.agree((major, minor)) == m.PROTOCOL == m.agree((major, minor + 5))
    with pytest.raises(RemoteProtocolError, match=f"expected protocol {major}.x, got {major + 1}.0"):
        m.agree((major + 1, 0), "h00")
