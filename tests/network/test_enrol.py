"""Enrolment end to end over sockets: once, and only so."""

from __future__ import annotations

import contextlib
import stat
import threading

import pytest

from learner_jax.engines.requests import ask_to_revoke, take
from learner_jax.errors import CryptoError, StudyError
from learner_jax.network.drive import CoordinatorDrive, CoordinatorHandlers
from learner_jax.network.enrol import ENROLS, Desk, invite, join, load_membership
from learner_jax.network.keys import (
    JoinCode,
    Site,
    load_or_make_keys,
    load_roster,
    new_curve,
    new_keys,
    parse_join_code,
    sign,
)
from learner_jax.network.links import CoordinatorLink, SiteLink
from learner_jax.network.seal import SIGNATURE
from learner_jax.protocol import messages as m
from learner_jax.protocol.coordinator import RoundKeeper

STUDY, DIGEST = "readmission", "d" * 64


@contextlib.contextmanager
def coordinator(folder, desk_only=False):
    """A coordinator that enrols and welcomes."""
    keys = load_or_make_keys(folder / "keys.json")
    desk = Desk(folder / "roster.json", STUDY, keys)
    with CoordinatorLink("127.0.0.1", 0, keys) as link:
        desk.serve(link)
        keeper = RoundKeeper(STUDY, 1, b"{}", DIGEST, desk.roster.sites)
        handlers = CoordinatorHandlers(lambda _: None, lambda _: None, lambda _: None, lambda _: None, lambda _: None)
        drive = CoordinatorDrive(link, keeper, handlers, desk)
        drive.start()
        try:
            yield desk, link, drive
        finally:
            drive.stop()
            drive.join(5)


@pytest.fixture
def desk_and_link(tmp_path):
    with coordinator(tmp_path / "coordinator") as (desk, link, _):
        yield desk, link


def test_a_code_typed_at_a_prompt_becomes_a_site(tmp_path, desk_and_link):
    desk, link = desk_and_link
    text = desk.invite(link.address, "h00").text()
    member = join(parse_join_code(text), "h00", tmp_path / "h00")
    assert load_membership(tmp_path / "h00") == member
    assert member.coordinator_sign == desk._keys.sign_public.hex()
    assert stat.S_IMODE((tmp_path / "h00" / "keys.json").stat().st_mode) == 0o600
    keys = load_or_make_keys(tmp_path / "h00" / "keys.json")
    assert desk.roster.sites == {"h00": Site(keys.curve_public, keys.sign_public)} and not desk.roster.codes
    assert load_roster(desk._path, desk._keys) == desk.roster
    with SiteLink(member.address, member.server_public, keys) as site:
        assert site.dial(5)
        site.send(m.encode(m.Hello(STUDY, m.PROTOCOL, "h00", "x", 0)))
        found = site.recv(5)
        assert found is not None and isinstance(m.decode(found[0]), m.Welcome)


def test_a_code_used_twice(tmp_path, desk_and_link):
    desk, link = desk_and_link
    code = desk.invite(link.address)
    join(code, "h00", tmp_path / "h00")
    with pytest.raises(CryptoError, match="the join code was used already") as caught:
        join(code, "h01", tmp_path / "h01")
    assert "\n" not in str(caught.value) and code.secret not in str(caught.value)
    assert set(desk.roster.sites) == {"h00"} and load_membership(tmp_path / "h01") is None


def test_a_code_used_by_two_at_once(tmp_path, desk_and_link):
    desk, link = desk_and_link
    code, ends = desk.invite(link.address), []

    def try_it(name):
        try:
            ends.append(join(code, name, tmp_path / name, timeout_s=4).site)
        except CryptoError as error:
            ends.append(error)

    threads = [threading.Thread(target=try_it, args=(f"h{n:02d}",)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends) == 5 and sum(isinstance(end, str) for end in ends) == len(desk.roster.sites) == 1


def test_the_answer_was_lost(tmp_path, desk_and_link, monkeypatch):
    desk, link = desk_and_link
    code = desk.invite(link.address)
    monkeypatch.setattr(Desk, "_answer", lambda *_: None)
    assert join(code, "h00", tmp_path / "h00", timeout_s=2).coordinator_sign == code.coordinator.hex()
    monkeypatch.undo()
    assert join(code, "h00", tmp_path / "h00").site == "h00" and set(desk.roster.sites) == {"h00"}
    with pytest.raises(CryptoError):
        join(code, "h99", tmp_path / "h00")


def test_a_code_for_another_name_and_a_name_that_is_taken(tmp_path, desk_and_link):
    desk, link = desk_and_link
    code = desk.invite(link.address, "h00")
    with pytest.raises(CryptoError, match="expected site 'h00', for which the join code was made, got 'h01'"):
        join(code, "h01", tmp_path / "h01")
    join(code, "h00", tmp_path / "h00")
    with pytest.raises(CryptoError, match="'h00' is enrolled already"):
        join(desk.invite(link.address), "h00", tmp_path / "other")


def test_a_code_that_was_never_made_here(tmp_path, desk_and_link):
    desk, link = desk_and_link
    with pytest.raises(CryptoError, match="does not know this key"):
        join(desk.invite(link.address)._replace(secret=new_curve()[1]), "h00", tmp_path / "a")
    with pytest.raises(CryptoError, match="it is another coordinator"):
        join(desk.invite(link.address)._replace(server_public=new_curve()[0]), "h00", tmp_path / "b")
    code = JoinCode("tcp://127.0.0.1:9", new_curve()[0], STUDY, new_curve()[1])
    with pytest.raises(StudyError, match=r"a coordinator at tcp://127\.0\.0\.1:9, but none answered within 1 s"):
        join(code, "h00", tmp_path / "c", timeout_s=1)
    assert not desk.roster.sites


def test_a_one_time_key_may_say_nothing_else(tmp_path, desk_and_link):
    desk, link = desk_and_link
    code = desk.invite(link.address)
    hello = m.encode(m.Hello(STUDY, m.PROTOCOL, "h00", "", 0))
    signed = sign(code.proof, ENROLS + hello) + hello
    with SiteLink(code.address, code.server_public, (code.public, code.secret)) as site:
        assert site.dial(5)
        for header, payload in ((hello, b""), (signed, b""), (b"x" * 5000, b""), (hello, b"x" * 5000)):
            site.send(header, payload)
        for words in ("signed by the join code's holder", "expected an enrolment in study"):
            found = site.recv(5)
            assert found is not None and words in str(m.decode(found[0][SIGNATURE:]))
        assert site.recv(0.5) is None
    assert not desk.roster.sites and code.public in desk.roster.codes


def test_another_coordinators_answer_is_refused(tmp_path, desk_and_link):
    """What a broker would have to do to put itself between: it has the line's key, and not the coordinator's."""
    desk, link = desk_and_link
    code = desk.invite(link.address)._replace(coordinator=new_keys().sign_public)
    with pytest.raises(CryptoError, match="signed by the coordinator that the join code names"):
        join(code, "h00", tmp_path / "h00", timeout_s=4)


def test_keys_put_in_place_of_a_sites_own_are_refused(tmp_path, desk_and_link, monkeypatch):
    desk, link = desk_and_link
    code = desk.invite(link.address)
    receive, own = Desk.receive, new_keys()

    def between(self, user, header):
        enrol = m.Enrol(STUDY, "h00", own.curve_public, own.sign_public)
        return receive(self, user, header[:SIGNATURE] + m.encode(enrol))

    monkeypatch.setattr(Desk, "receive", between)
    with pytest.raises(CryptoError):
        join(code, "h00", tmp_path / "h00", timeout_s=4)
    assert not desk.roster.sites


def test_a_site_may_not_enrol_another(tmp_path, desk_and_link):
    desk, link = desk_and_link
    member = join(desk.invite(link.address), "h00", tmp_path / "h00")
    keys = new_keys()
    with SiteLink(member.address, member.server_public, load_or_make_keys(tmp_path / "h00" / "keys.json")) as site:
        assert site.dial(5)
        site.send(m.encode(m.Enrol(STUDY, "h01", keys.curve_public, keys.sign_public)))
        site.recv(0.5)
    assert set(desk.roster.sites) == {"h00"}


def test_codes_and_sites_survive_a_restart_of_the_coordinator(tmp_path):
    with coordinator(tmp_path / "coordinator") as (desk, link, _):
        unused = desk.invite(link.address)
        join(desk.invite(link.address), "h00", tmp_path / "h00")
    with coordinator(tmp_path / "coordinator") as (desk, link, _):
        join(unused._replace(address=link.address), "h01", tmp_path / "h01")
        assert set(desk.roster.sites) == {"h00", "h01"}
    with pytest.raises(CryptoError, match="expected the roster of study 'other'"):
        Desk(
            tmp_path / "coordinator" / "roster.json", "other", load_or_make_keys(tmp_path / "coordinator" / "keys.json")
        )


def test_a_revoked_site_is_out_at_once(tmp_path, desk_and_link):
    desk, link = desk_and_link
    member = join(desk.invite(link.address), "h00", tmp_path / "h00")
    keys = load_or_make_keys(tmp_path / "h00" / "keys.json")
    hello = m.encode(m.Hello(STUDY, m.PROTOCOL, "h00", "", 0))
    with SiteLink(member.address, member.server_public, keys) as site:
        assert site.dial(5)
        site.send(hello)
        assert site.recv(5) is not None
        desk.revoke("h00")
        site.send(hello)
        assert site.recv(1) is None
    with (
        SiteLink(member.address, member.server_public, keys) as site,
        pytest.raises(CryptoError, match="off the roster"),
    ):
        site.dial(5)


def test_a_code_takes_the_place_of_an_earlier_one_for_the_same_site(tmp_path, desk_and_link):
    desk, link = desk_and_link
    first = invite(desk, ["north"], link.address, tmp_path / "join")["north"].read_text()
    path = invite(desk, ["north"], "tcp://localhost:" + link.address.rpartition(":")[2], tmp_path / "join")["north"]
    second = path.read_text()
    assert first != second and len(desk.roster.codes) == 1
    with pytest.raises(CryptoError, match="used already"):
        join(parse_join_code(first), "north", tmp_path / "x", timeout_s=4)
    assert join(parse_join_code(second), "north", tmp_path / "north").site == "north"


def test_who_was_taken_off_gets_in_by_no_code_that_was_left(tmp_path, desk_and_link):
    """Neither by one for its name, which an earlier version could leave, nor under its name by one for anybody."""
    desk, link = desk_and_link
    left, anybody = desk.invite(link.address, "north"), desk.invite(link.address)
    desk._keep(desk.roster._replace(codes={**desk.roster.codes, left.public: "south"}))
    code = desk.invite(link.address, "north")
    desk._keep(desk.roster._replace(codes={**desk.roster.codes, left.public: "north"}))
    join(code, "north", tmp_path / "north")
    assert set(desk.roster.codes) == {anybody.public}
    desk.revoke("north")
    for other in (left, anybody):
        with pytest.raises(CryptoError, match=r"used already|was taken off the roster: choose another"):
            join(other, "north", tmp_path / "again", timeout_s=4)
    assert not desk.roster.sites and desk.roster.revoked == ("north",)


def test_a_code_that_was_lost_is_withdrawn_like_a_site(tmp_path, desk_and_link):
    desk, link = desk_and_link
    code = desk.invite(link.address, "north")
    assert not ask_to_revoke(tmp_path / "coordinator", "north", wait_s=0)
    take(tmp_path / "coordinator", STUDY, desk, lambda event: None, lambda event: None)
    with pytest.raises(CryptoError, match="used already"):
        join(code, "north", tmp_path / "north", timeout_s=4)
    assert not desk.roster.codes and desk.roster.revoked == ("north",)
    with pytest.raises(StudyError, match="off the roster already"):
        ask_to_revoke(tmp_path / "coordinator", "north", wait_s=0)


def test_a_key_that_another_site_goes_over_to_is_taken(tmp_path, desk_and_link):
    desk, link = desk_and_link
    join(desk.invite(link.address), "a", tmp_path / "a")
    keys = load_or_make_keys(tmp_path / "b" / "keys.json")
    desk._keep(desk.roster.with_next("a", Site(keys.curve_public, keys.sign_public)))
    with pytest.raises(CryptoError, match="known already"):
        join(desk.invite(link.address), "b", tmp_path / "b", timeout_s=4)
