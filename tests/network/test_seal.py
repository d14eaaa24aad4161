"""Signed headers and sealed payloads: what a broker in between could try, and what comes of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner_jax.errors import RemoteProtocolError
from learner_jax.network.keys import new_keys
from learner_jax.network.seal import OVERHEAD, CoordinatorSeal, NotMet, SiteSeal
from learner_jax.protocol import messages as m

COORDINATOR, SITE, OTHER = new_keys(), new_keys(), new_keys()
HELLO = m.encode(m.Hello("s", m.PROTOCOL, "a", "", 0))
WELCOME = m.encode(m.Pong("s", 1))
PING = m.encode(m.Ping("s", 1, 0, ""))


def coordinator() -> CoordinatorSeal:
    known = {"a": [SITE.sign_public], "b": [OTHER.sign_public]}
    return CoordinatorSeal("s", COORDINATOR.sign_secret, lambda name: known.get(name, []))


def site(keys=SITE, name: str = "a") -> SiteSeal:
    return SiteSeal("s", name, keys.sign_secret, COORDINATOR.sign_public)


def met() -> tuple[CoordinatorSeal, SiteSeal]:
    """Both after Hello and Welcome."""
    here, there = coordinator(), site()
    assert here.open("a", *there.seal(HELLO)) == (HELLO, b"")
    sealed = here.seal("a", WELCOME)
    assert sealed is not None and there.open(*sealed) == (WELCOME, b"")
    return here, there


def test_both_ways_and_nothing_to_read_in_between():
    here, there = met()
    rows = b"patients" * 100
    up, down = there.seal(PING, rows), here.seal("a", WELCOME, memoryview(rows))
    assert down is not None
    for _, payload in (up, down):
        assert b"patients" not in payload and len(payload) == len(rows) + 16
    assert here.open("a", *up) == (PING, rows) and there.open(*down) == (WELCOME, rows)
    assert len(up[0]) == OVERHEAD + len(PING)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_byte_of_a_message_can_be_changed(data):
    here, there = met()
    header, payload = there.seal(PING, b"update")
    place = data.draw(st.integers(0, len(header) + len(payload) - 1))
    bits = data.draw(st.integers(1, 255))
    both = bytearray(header + payload)
    both[place] ^= bits
    with pytest.raises(RemoteProtocolError):
        here.open("a", bytes(both[: len(header)]), bytes(both[len(header) :]))
    assert here.open("a", header, payload) == (PING, b"update"), "the true one still counts"


LOW = [bytes(32), b"\1" + bytes(31), bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")]


@pytest.mark.parametrize("low", LOW)
def test_an_ephemeral_key_that_makes_no_secret_is_refused_and_nothing_is_sealed_for_it(low):
    """Points of low order (RFC 7748, section 6.1): the site of the roster signs them itself."""
    here, there = coordinator(), site()
    there._side.public = low
    with pytest.raises(RemoteProtocolError, match="makes no secret"):
        here.open("a", *there.seal(HELLO))
    assert here.seal("a", WELCOME, b"manifest") is None
    here, there = met()
    there._side.public = low
    with pytest.raises(RemoteProtocolError, match="makes no secret"):
        here.open("a", there.seal(PING)[0], b"sealed with what all know")
    answer = here.seal("a", WELCOME, b"manifest")
    assert answer is not None  # for the process that it met before


def test_names_that_are_not_on_the_roster_are_the_brokers():
    here, there = coordinator(), site(OTHER, "z")
    for name in ("z", "made up", ""):
        with pytest.raises(RemoteProtocolError, match="a site of the roster") as caught:
            here.open(name, *there.seal(HELLO))
        assert caught.value.peer == "the broker"


def test_a_message_said_again_or_of_before_is_refused():
    here, there = met()
    first, second = there.seal(PING), there.seal(PING, b"x")
    here.open("a", *second)
    for again in (first, second):
        with pytest.raises(RemoteProtocolError, match="not said before"):
            here.open("a", *again)
    answer = here.seal("a", WELCOME)
    assert answer is not None
    there.open(*answer)
    with pytest.raises(RemoteProtocolError, match="not said before"):
        there.open(*answer)


def test_a_message_for_an_earlier_process_is_refused_and_the_site_is_told():
    _, there = met()
    late, new = there.seal(PING, b"x"), coordinator()
    with pytest.raises(NotMet) as caught:
        new.open("a", *late)
    told, _ = there.open(caught.value.answer)
    assert isinstance(m.decode(told), m.Bye)
    assert new.open("a", *there.seal(HELLO)) == (HELLO, b"")
    assert new.open("a", *there.seal(PING, b"x")) == (PING, b"x")
    welcome = new.seal("a", WELCOME, b"y")
    assert welcome is not None and there.open(*welcome) == (WELCOME, b"y"), "its count is that of the Bye"


def test_an_old_hello_said_again_gains_nothing():
    here, before = coordinator(), site()
    old = before.seal(HELLO)
    here.open("a", *old)
    now = site()
    here.open("a", *now.seal(HELLO))
    welcome = here.seal("a", WELCOME)
    assert welcome is not None
    now.open(*welcome)
    bye = now.seal(PING)
    here.open("a", *bye)
    for again in (old, bye, old, bye):  # played by the broker, in any order
        with pytest.raises(RemoteProtocolError, match="not said before"):
            here.open("a", *again)
    assert here.open("a", *now.seal(PING, b"x")) == (PING, b"x"), "the site is heard as before"
    back = here.seal("a", WELCOME, b"y")
    assert back is not None and now.open(*back) == (WELCOME, b"y")


@pytest.mark.parametrize("who", ["a", "b", "nobody"])
def test_a_site_cannot_speak_for_another(who):
    here = coordinator()
    forged = site(OTHER, "a") if who != "b" else site(SITE, "b")
    with pytest.raises(RemoteProtocolError, match=r"signed by its sender|of the roster"):
        here.open(who, *forged.seal(HELLO))


def test_a_broker_cannot_pass_for_the_coordinator():
    there = site()
    false = CoordinatorSeal("s", OTHER.sign_secret, lambda name: [SITE.sign_public])
    false.open("a", *there.seal(HELLO))
    sealed = false.seal("a", WELCOME)
    assert sealed is not None
    with pytest.raises(RemoteProtocolError, match="signed by its sender"):
        there.open(*sealed)


def test_of_another_study_or_too_short():
    here = coordinator()
    with pytest.raises(RemoteProtocolError, match="signed by its sender"):
        here.open("a", *SiteSeal("t", "a", SITE.sign_secret, COORDINATOR.sign_public).seal(HELLO))
    for junk in (b"", b"\x01", b"\x02" * 300, HELLO):
        with pytest.raises(RemoteProtocolError, match="signed header"):
            here.open("a", junk)
    assert coordinator().seal("a", WELCOME) is None, "nobody to seal for"


def test_a_site_that_goes_over_to_other_keys_is_told_of_once_it_signs_by_them():
    gone, both = [], [SITE.sign_public, OTHER.sign_public]
    here = CoordinatorSeal("s", COORDINATOR.sign_secret, lambda name: both, gone.append)
    before, after = site(), site(OTHER)
    here.open("a", *before.seal(HELLO))
    assert not gone
    here.open("a", *after.seal(HELLO))
    assert gone == ["a"]
    with pytest.raises(RemoteProtocolError, match="signed by its sender"):
        here.open("a", *SiteSeal("s", "a", new_keys().sign_secret, COORDINATOR.sign_public).seal(HELLO))
