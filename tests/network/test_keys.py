"""Keys, join codes and the roster."""

from __future__ import annotations

import json
import random
import stat
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner_jax.errors import CryptoError, LearnerError
from learner_jax.network.keys import (
    JoinCode,
    Roster,
    Site,
    check_site_name,
    code_id,
    load_or_make_keys,
    load_roster,
    new_curve,
    new_keys,
    parse_join_code,
    save_roster,
    sign,
    verify,
)


def site() -> Site:
    keys = new_keys()
    return Site(keys.curve_public, keys.sign_public)


def test_keys_are_born_0600_and_stay(tmp_path):
    keys = load_or_make_keys(tmp_path / "private" / "keys.json")
    assert stat.S_IMODE((tmp_path / "private" / "keys.json").stat().st_mode) == 0o600
    assert load_or_make_keys(tmp_path / "private" / "keys.json") == keys != new_keys()


def test_a_key_file_that_others_may_read_is_refused(tmp_path):
    load_or_make_keys(tmp_path / "keys.json")
    (tmp_path / "keys.json").chmod(0o640)
    with pytest.raises(CryptoError, match="only its owner may read"):
        load_or_make_keys(tmp_path / "keys.json")


@pytest.mark.parametrize("field", ["curve_public", "sign_secret"])
def test_other_bytes_are_no_keys(tmp_path, field):
    path = tmp_path / "keys.json"
    load_or_make_keys(path)
    other = new_keys()._asdict()[field]
    found = json.loads(path.read_bytes())
    path.write_text(json.dumps({**found, field: other if isinstance(other, str) else other.hex()}))
    with pytest.raises(CryptoError, match="expected a key file"):
        load_or_make_keys(path)
    path.write_text("{}")
    with pytest.raises(CryptoError, match="expected a key file"):
        load_or_make_keys(path)


def test_signatures():
    keys = new_keys()
    signature = sign(keys.sign_secret, b"data")
    assert verify(keys.sign_public, b"data", signature)
    assert not verify(keys.sign_public, b"dato", signature)
    assert not verify(new_keys().sign_public, b"data", signature)
    assert not verify(b"", b"data", b"")


@settings(max_examples=50, deadline=None)
@given(
    st.from_regex(r"tcp://[a-z0-9.]{1,60}:[0-9]{1,5}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9]{1,64}", fullmatch=True),
)
def test_a_join_code_there_and_back(address, study):
    (server, _), (public, secret) = new_curve(), new_curve()
    code = JoinCode(address, server, study, secret, bytes(range(32)), len(study) % 2 == 0)
    text = code.text()
    assert parse_join_code(f" {text[:20]}\n{text[20:]} \n") == code
    assert parse_join_code(text).public == public
    assert set(text) <= set(string.ascii_letters + string.digits + "-_")


def test_a_typo_is_a_wrong_join_code_and_is_not_repeated():
    rng = random.Random(1)
    text = JoinCode("tcp://hospital.example:7000", new_curve()[0], "readmission", new_curve()[1]).text()
    wrong = [text[:-1], text[1:], text + "A", "", "LEARNER-", text.lower(), text.replace("LEARNER", "LEANER"), "é" * 50]
    for _ in range(300):
        at = rng.randrange(8, len(text))
        other = rng.choice([c for c in string.ascii_letters + "-_" if c != text[at]])
        wrong.append(text[:at] + other + text[at + 1 :])
        at = rng.randrange(8, len(text) - 1)
        if text[at] != text[at + 1]:
            wrong.append(text[:at] + text[at + 1] + text[at] + text[at + 2 :])
    for each in wrong:
        with pytest.raises(CryptoError, match="wrong join code") as caught:
            parse_join_code(each)
        assert len(each) < 12 or each[8:20] not in str(caught.value)


def test_a_code_becomes_a_site_once():
    (code, _), other = new_curve(), new_curve()[0]
    roster = Roster("readmission").with_code(code, "h00").with_code(other)
    with pytest.raises(CryptoError, match="expected site 'h00'"):
        roster.with_site(code, "h01", site())
    after = roster.with_site(code, "h00", site())
    assert after.version == roster.version + 1 == 3 and code not in after.codes and other in after.codes
    with pytest.raises(CryptoError, match="used already"):
        after.with_site(code, "h00", site())
    with pytest.raises(CryptoError, match="'h00' is enrolled already"):
        after.with_site(other, "h00", site())
    for taken in (after.sites["h00"].curve_public, other):
        with pytest.raises(CryptoError, match="a key of its own"):
            after.with_site(other, "h01", Site(taken, b"k" * 32))
    assert after.users() == {after.sites["h00"].curve_public: "h00", other: code_id(other)}
    assert after.without_site("h00").sites == {}


def test_the_roster_is_signed(tmp_path):
    keys, path = new_keys(), tmp_path / "roster.json"
    roster = Roster("s").with_code(new_curve()[0], "h00")
    roster = roster.with_site(next(iter(roster.codes)), "h00", site()).with_code(new_curve()[0])
    save_roster(path, roster, keys)
    assert load_roster(path, keys) == roster
    with pytest.raises(CryptoError, match="it was changed"):
        load_roster(path, new_keys())
    path.write_text(path.read_text().replace("h00", "h01"))
    with pytest.raises(CryptoError, match="it was changed"):
        load_roster(path, keys)
    path.write_text("[]")
    with pytest.raises(CryptoError, match="expected a roster"):
        load_roster(path, keys)


@pytest.mark.parametrize("name", ["enrol:abc", "", "../x", "x" * 65, ".x", "a\nb"])
def test_names_that_no_site_may_have(name):
    with pytest.raises(CryptoError, match="expected a site's name"):
        check_site_name(name)
    with pytest.raises(LearnerError):
        Roster("s").with_code("x" * 40, name or " ")
