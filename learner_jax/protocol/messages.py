"""What coordinator and site say to each other: one NamedTuple a kind, a strict schema, and bytes both ways.

A message is a msgpack map of at most 64 KiB: its kind and exactly the fields below, each of one type and within bounds;
anything else is a `RemoteProtocolError` that names the field. A `Chunk` has a second frame, the raw bytes; so have
`Open` and `Offer`, a table (`BESIDE`). Every message names its study, so that one link can carry several.

A minor version of the protocol only adds fields, each with a default (`SINCE`). They are left out of what is said to an
older side, and may be missing from what it says; what was agreed in Hello and Welcome says who is older. A Hello comes
before that: of one that names a newer version, what is not known here is passed over.

    site -> coordinator     Enrol, Hello, Want, Chunk, Offer, Ping, Bye, Ask, Rotate
    coordinator -> site     Enrolled, Refused, Welcome, Open, Want, Chunk, Accepted, Rejected, Done, Pong, Bye, Told,
                            Rotated

Transfers are asked for by the receiver: the holder announces a `Blob`, the receiver sends `Want(digest, offset,
credit)` and gets at most that many `Chunk`s; the digest is checked at the end.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgpack

from learner_jax.errors import LocalProtocolError, RemoteProtocolError
from learner_jax.leaves import PIECE_ENTRY, PIECES

PROTOCOL = (1, 3)
"""(major, minor) that this code speaks. A minor only adds; majors do not talk to each other."""

HEADER_LIMIT = 64 * 1024
"""Bytes of one encoded message."""
CHUNK = 1024 * 1024
"""Bytes of one chunk; only the last of a blob is shorter."""
ENROL_LIMIT = 4 * 1024
"""Bytes of an encoded Enrol, all that a one-time key may send."""
MANIFEST_LIMIT = 48 * 1024
TABLE_LIMIT = PIECES * PIECE_ENTRY
"""Bytes of a table of pieces."""
HAVE_LIMIT = PIECES // 8
ZIPS = ("", "zstd")
STATISTICS = ("statistics", *(f"statistics{number}" for number in range(2, 17)))
"""Rounds of sums before the first learning round, in this order; most studies have one."""
PHASES = (*STATISTICS, "enter", "train", "look", "calibrate", "finish")
PHASES_SINCE = {"enter": 3, "calibrate": 3}
"""The minor that added a phase: who speaks an older one is not asked."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,63}")


class Blob(NamedTuple):
    """Bytes to be fetched: sha256, size in bytes, and the digest of the leaves' schema they are read by."""

    digest: str
    size: int
    schema_digest: str


class Enrol(NamedTuple):
    """A new site's keys, sent once under a one-time key. CURVE as Z85 text, Ed25519 as 32 raw bytes."""

    study: str
    name: str
    curve_public: str
    sign_public: bytes


class Enrolled(NamedTuple):
    """The roster has the site, under this name. roster: its version."""

    study: str
    name: str
    sign_public: bytes
    roster: int


class Refused(NamedTuple):
    """The coordinator will not talk: reason, one line for people."""

    study: str
    reason: str


class Hello(NamedTuple):
    """A site is there.

    Attributes:
      study, site: names, as enrolled.
      protocol: the newest that the site speaks.
      software: what runs there.
      epoch_seen: the newest epoch that it has met, 0 at first.
      incarnation: drawn by each process of the site anew, in hexadecimal; "" where it does not say.
    """

    study: str
    protocol: tuple[int, int]
    site: str
    software: str
    epoch_seen: int
    incarnation: str = ""


class Welcome(NamedTuple):
    """The session: agreed protocol, this incarnation, and what the study is (canonical JSON)."""

    study: str
    protocol: tuple[int, int]
    epoch: int
    manifest: bytes
    manifest_digest: str
    enrolled: tuple[str, ...]


class Open(NamedTuple):
    """A round is open and this site is in it. cohort, enrolled: how many are asked, and known; pieces: table of the
    blob's (`leaves.pieces`), b"" where it does not say; travels as the payload."""

    study: str
    epoch: int
    round: int
    phase: str
    attempt: int
    cohort: int
    enrolled: int
    blob: Blob
    fields: Mapping[str, int | float | str]
    pieces: bytes = b""


class Want(NamedTuple):
    """Send me chunks of this digest, from offset on, at most credit of them.

    Attributes:
      have: a bit for each piece, the first the lowest of the first byte: set for those that are here; the chunks, and
        offset, are then of the other pieces, one after the other. b"": all of it is wanted.
      zip: how a chunk may be compressed, "" or "zstd".
    """

    study: str
    digest: str
    offset: int
    credit: int
    have: bytes = b""
    zip: str = ""


class Chunk(NamedTuple):
    """The payload frame holds the bytes at offset. have: as in the Want that it answers; zip: how it is compressed."""

    study: str
    digest: str
    offset: int
    last: bool
    have: bytes = b""
    zip: str = ""


class Offer(NamedTuple):
    """A site's update is ready to be fetched. pieces: of the blob, as in `Open`."""

    study: str
    epoch: int
    round: int
    phase: str
    attempt: int
    site: str
    broadcast: str
    blob: Blob
    pieces: bytes = b""


class Accepted(NamedTuple):
    """The update counts: it is spooled and journaled. Only now does the site commit its own state."""

    study: str
    epoch: int
    round: int
    phase: str
    digest: str


class Rejected(NamedTuple):
    """The update does not count. final: it never will; otherwise it may be offered again later."""

    study: str
    epoch: int
    round: int
    phase: str
    digest: str
    final: bool
    reason: str


class Done(NamedTuple):
    """The study is over. weights_sha256: of the final model, "" if there is none."""

    study: str
    epoch: int
    weights_sha256: str
    reason: str


class Ping(NamedTuple):
    """The site lives, and this is the round that it knows of."""

    study: str
    epoch: int
    round: int
    phase: str


class Pong(NamedTuple):
    """The coordinator lives; another epoch than the site's means: say Hello again."""

    study: str
    epoch: int


class Bye(NamedTuple):
    """This side leaves."""

    study: str
    reason: str


class Ask(NamedTuple):
    """What time is it with you? Begins nothing and uses nothing up: for `learner doctor`. Since minor 1."""

    study: str


class Told(NamedTuple):
    """The coordinator's clock. time: seconds since 1970, UTC."""

    study: str
    time: float


class Rotate(NamedTuple):
    """A site's next keys; proof: a signature by the next Ed25519 key. Both pairs are valid until the next is used."""

    study: str
    curve_public: str
    sign_public: bytes
    proof: bytes


class Rotated(NamedTuple):
    """The roster has the next keys too. curve_public: the next CURVE key."""

    study: str
    curve_public: str


Message = (
    Enrol
    | Enrolled
    | Refused
    | Hello
    | Welcome
    | Open
    | Want
    | Chunk
    | Offer
    | Accepted
    | Rejected
    | Done
    | Ping
    | Pong
    | Bye
    | Ask
    | Told
    | Rotate
    | Rotated
)

SINCE: Mapping[type, Mapping[str, int]] = {
    Hello: {"incarnation": 1},
    Want: {"have": 2, "zip": 2},
    Chunk: {"have": 2, "zip": 2},
}
"""The minor that added a field; what is not named here is of minor 0."""
BESIDE: Mapping[type, str] = {Open: "pieces", Offer: "pieces"}
"""Fields that travel as the payload, since minor 2: a broker sees headers, and digests of parts of an update might let
it guess what is in them."""

# A check takes a decoded value and returns it in its final type, or raises ValueError("expected ...").
Check = Callable[[Any], Any]


def _text(limit: int, pattern: str | None = None, what: str = "text") -> Check:
    match = re.compile(pattern).fullmatch if pattern else None

    def check(value: Any) -> str:
        if type(value) is not str or len(value) > limit or (match and not match(value)):
            raise ValueError(f"expected {what} of at most {limit} characters, got {_short(value)}")
        return value

    return check


def _integer(low: int, high: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"expected a whole number from {low} to {high}, got {_short(value)}")
        return value

    return check


def _raw(limit: int, exactly: bool = False) -> Check:
    def check(value: Any) -> bytes:
        if type(value) is not bytes or len(value) > limit or (exactly and len(value) != limit):
            raise ValueError(f"expected {'' if exactly else 'at most '}{limit} raw bytes, got {_short(value)}")
        return value

    return check


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"expected true or false, got {_short(value)}")
    return value


def _seconds(value: Any) -> float:
    if type(value) is not float or not 0 <= value < 2**40:
        raise ValueError(f"expected seconds since 1970, got {_short(value)}")
    return value


def _list(check: Check, limit: int, exactly: bool = False) -> Check:
    def checked(value: Any) -> tuple:
        if type(value) not in (list, tuple) or len(value) > limit or (exactly and len(value) != limit):
            raise ValueError(f"expected a list of {limit if exactly else f'at most {limit}'}, got {_short(value)}")
        return tuple(check(item) for item in value)

    return checked


def _fields(value: Any) -> dict[str, int | float | str]:
    if not isinstance(value, Mapping) or len(value) > 32:
        raise ValueError(f"expected a map of at most 32, got {_short(value)}")
    for name, item in value.items():
        sound = type(item) in (int, str) or (type(item) is float and math.isfinite(item))
        if type(name) is not str or len(name) > 64 or not sound or (type(item) is str and len(item) > 1024):
            raise ValueError(f"expected numbers and short texts by name, got {_short({name: item})}")
        if type(item) is int and not -(2**63) <= item < 2**64:
            raise ValueError(f"expected a number of 64 bits, got {_short(item)}")
    return dict(value)


def _blob(value: Any) -> Blob:
    if type(value) not in (list, tuple, Blob) or len(value) != 3:
        raise ValueError(f"expected a blob's digest, size and schema, got {_short(value)}")
    return Blob(_digest(value[0]), _size(value[1]), _digest(value[2]))


_SHOWN = reprlib.Repr()  # looks only so deep: repr of lists in lists in lists ends the interpreter's patience
_SHOWN.maxlevel, _SHOWN.maxstring, _SHOWN.maxlong, _SHOWN.maxother = 3, 60, 60, 60


def _short(value: Any) -> str:
    text = f"{len(value)} bytes" if type(value) is bytes else _SHOWN.repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


NAME_RULE = "letters, digits, '.', '_', '-' and blanks, at most 64, beginning with a letter or digit"
_name = _text(64, _NAME.pattern, f"a name ({NAME_RULE})")
_digest = _text(64, "[0-9a-f]{64}", "a sha256 in hexadecimal")
_maybe_digest = _text(64, "([0-9a-f]{64})?", "a sha256 in hexadecimal, or nothing,")
_incarnation = _text(32, "[0-9a-f]*", "hexadecimal text")
_size = _integer(0, 2**40)
_have = _raw(HAVE_LIMIT)
_zip = _text(8, "|".join(ZIPS), f"a compression ({', '.join(filter(None, ZIPS))}, or nothing)")
_line = _text(2000)
_ORDER = f"{STATISTICS[0]} to {STATISTICS[-1]}, {', '.join(PHASES[len(STATISTICS) :])}"
_phase = _text(16, "|".join(PHASES), f"a phase ({_ORDER})")
_maybe_phase = _text(16, "|".join((*PHASES, "")), f"a phase ({_ORDER}), or nothing,")
_round = _integer(0, 2**31 - 1)
_epoch = _integer(0, 2**31 - 1)
_count = _integer(0, 2**20)

_SCHEMA: dict[type, dict[str, Check]] = {
    Enrol: {
        "study": _name, "name": _name, "curve_public": _text(40, r"[!-~]{40}", "a Z85 key"),
        "sign_public": _raw(32, True),
    },
    Enrolled: {"study": _name, "name": _name, "sign_public": _raw(32, True), "roster": _count},
    Refused: {"study": _name, "reason": _line},
    Hello: {
        "study": _name, "protocol": _list(_count, 2, True), "site": _name, "software": _text(200), "epoch_seen": _epoch,
        "incarnation": _incarnation,
    },
    Welcome: {
        "study": _name, "protocol": _list(_count, 2, True), "epoch": _epoch, "manifest": _raw(MANIFEST_LIMIT),
        "manifest_digest": _digest, "enrolled": _list(_name, 4096),
    },
    Open: {
        "study": _name, "epoch": _epoch, "round": _round, "phase": _phase, "attempt": _count, "cohort": _count,
        "enrolled": _count, "blob": _blob, "fields": _fields,
    },
    Want: {
        "study": _name, "digest": _digest, "offset": _size, "credit": _integer(1, 64), "have": _have, "zip": _zip,
    },
    Chunk: {"study": _name, "digest": _digest, "offset": _size, "last": _flag, "have": _have, "zip": _zip},
    Offer: {
        "study": _name, "epoch": _epoch, "round": _round, "phase": _phase, "attempt": _count, "site": _name,
        "broadcast": _digest, "blob": _blob,
    },
    Accepted: {"study": _name, "epoch": _epoch, "round": _round, "phase": _phase, "digest": _digest},
    Rejected: {
        "study": _name, "epoch": _epoch, "round": _round, "phase": _phase, "digest": _digest, "final": _flag,
        "reason": _line,
    },
    Done: {"study": _name, "epoch": _epoch, "weights_sha256": _maybe_digest, "reason": _line},
    Ping: {"study": _name, "epoch": _epoch, "round": _round, "phase": _maybe_phase},
    Pong: {"study": _name, "epoch": _epoch},
    Bye: {"study": _name, "reason": _line},
    Ask: {"study": _name},
    Told: {"study": _name, "time": _seconds},
    Rotate: {
        "study": _name, "curve_public": _text(40, r"[!-~]{40}", "a Z85 key"), "sign_public": _raw(32, True),
        "proof": _raw(64, True),
    },
    Rotated: {"study": _name, "curve_public": _text(40, r"[!-~]{40}", "a Z85 key")},
}  # fmt: skip
_KINDS = {cls.__name__.lower(): cls for cls in _SCHEMA}


def _checked(cls: type, values: Mapping[str, Any]) -> Any:
    schema, added = _SCHEMA[cls], SINCE.get(cls, {})
    for name in schema:
        if name not in values and name not in added:
            raise ValueError(f"expected field '{name}', which is missing")
    for name in values:
        if name not in schema:
            raise ValueError(f"unknown field {_short(name)}")
    done = {}
    for name, check in schema.items():
        try:
            if name in values:
                done[name] = check(values[name])
        except ValueError as error:
            raise ValueError(f"field '{name}': {error}") from None
    return cls(**done)


def encode(message: Message, minor: int = PROTOCOL[1]) -> bytes:
    """A message as bytes.

    Args:
      message: what to say.
      minor: that the receiver knows; what later ones added is left out.

    Raises:
      LocalProtocolError: one of our own values is out of bounds.
    """
    cls = type(message)
    try:
        said = {name: value for name, value in message._asdict().items() if name != BESIDE.get(cls)}
        values, added = _checked(cls, said)._asdict(), SINCE.get(cls, {})
        values.pop(BESIDE.get(cls, ""), None)
        known = {name: value for name, value in values.items() if added.get(name, 0) <= minor}
        header: Any = msgpack.packb({"kind": cls.__name__.lower(), **known})
    except (ValueError, KeyError) as error:
        raise LocalProtocolError(f"expected to send a {cls.__name__}: {error}") from None
    if len(header) > HEADER_LIMIT:
        raise LocalProtocolError(f"expected a {cls.__name__} of at most {HEADER_LIMIT} bytes, got {len(header)}")
    return header


def beside(message: Message, minor: int = PROTOCOL[1]) -> bytes:
    """What of a message travels as its payload."""
    field = BESIDE.get(type(message))
    return getattr(message, field) if field is not None and minor >= 2 else b""


def joined(message: Message, payload: bytes | memoryview, peer: str = "unknown") -> Message:
    """A decoded message with what came beside it.

    Raises:
      RemoteProtocolError: too long a payload.
    """
    field = BESIDE.get(type(message))
    if field is None or not len(payload):
        return message
    if len(payload) > TABLE_LIMIT:
        raise RemoteProtocolError(peer, f"expected a table of at most {TABLE_LIMIT} bytes, got {len(payload)}")
    return message._replace(**{field: bytes(payload)})  # type: ignore[arg-type]


def _pairs(pairs: Any) -> dict:
    values = dict(pairs := list(pairs))
    if len(values) != len(pairs):
        raise ValueError("a field is there twice")
    return values


def decode(header: bytes | memoryview, peer: str = "unknown") -> Message:
    """Bytes as a message.

    Args:
      header: one frame.
      peer: whom an error names.

    Raises:
      RemoteProtocolError: too long, not msgpack, an unknown kind or field, a wrong type, out of bounds.
    """
    if len(header) > HEADER_LIMIT:
        raise RemoteProtocolError(peer, f"expected a header of at most {HEADER_LIMIT} bytes, got {len(header)}")
    try:
        values = msgpack.unpackb(
            header,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_pairs,
            max_ext_len=0,
        )
    except Exception as error:  # msgpack raises a dozen kinds
        raise RemoteProtocolError(peer, f"expected a msgpack header, got {type(error).__name__}: {error}") from None
    kind = values.pop("kind", None) if isinstance(values, dict) else None
    cls = _KINDS.get(kind) if type(kind) is str else None
    if cls is None:
        raise RemoteProtocolError(peer, f"expected a message of a known kind, got {_short(kind)}")
    if cls is Hello and _newer(values.get("protocol")):
        values = {name: value for name, value in values.items() if name in _SCHEMA[Hello]}
    try:
        return _checked(cls, values)
    except ValueError as error:
        raise RemoteProtocolError(peer, f"{cls.__name__}: {error}") from None


def _newer(protocol: Any) -> bool:
    """Whether a Hello names a version after ours; what is no version is for the check to say."""
    sound = isinstance(protocol, list) and len(protocol) == 2 and all(type(number) is int for number in protocol)
    return sound and tuple(protocol) > PROTOCOL


def agree(theirs: tuple[int, int], peer: str = "unknown") -> tuple[int, int]:
    """The version both sides speak: the same major, the smaller minor.

    Raises:
      RemoteProtocolError: another major.
    """
    if theirs[0] != PROTOCOL[0]:
        raise RemoteProtocolError(
            peer,
            f"expected protocol {PROTOCOL[0]}.x, got {theirs[0]}.{theirs[1]}: install matching versions of learner-jax",
        )
    return min(PROTOCOL, theirs)


def check_name(name: str, what: str) -> str:
    """A study's or site's name, if it may be one.

    Raises:
      LocalProtocolError: it may not.
    """
    try:
        return _name(name)
    except ValueError as error:
        raise LocalProtocolError(f"{what}: {error}") from None
