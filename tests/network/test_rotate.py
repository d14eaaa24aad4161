"""A site goes over to new keys: both are valid until the new ones are used, wherever it is stopped."""

from __future__ import annotations

import contextlib

import pytest

from learner_jax.engines import rotate as engine
from learner_jax.engines.rotate import rotate
from learner_jax.errors import CryptoError, StudyError
from learner_jax.network.drive import CoordinatorDrive, CoordinatorHandlers
from learner_jax.network.enrol import Desk, join, rotation
from learner_jax.network.keys import Site, load_or_make_keys, load_roster, new_keys, sign
from learner_jax.network.links import CoordinatorLink
from learner_jax.protocol import messages as m
from learner_jax.protocol.coordinator import RoundKeeper

HANDLERS = CoordinatorHandlers(
    append=lambda command: None,
    validate=lambda command: None,
    spool=lambda command: None,
    journal=lambda *rows: None,
    close=lambda command: None,
)


@contextlib.contextmanager
def serving(folder, keys):
    """A coordinator with nothing to do; (desk, link)."""
    desk = Desk(folder / "roster.json", "heart", keys)
    with CoordinatorLink("127.0.0.1", 0, keys) as link:
        desk.serve(link)
        drive = CoordinatorDrive(link, RoundKeeper("heart", 1, b"{}", "d" * 64, ()), HANDLERS, desk)
        drive.start()
        try:
            yield desk, link
        finally:
            drive.stop()
            drive.join(5)


@pytest.fixture
def place(tmp_path):
    keys = new_keys()
    with serving(tmp_path / "coordinator", keys) as (desk, link):
        join(desk.invite(link.address, "north"), "north", tmp_path / "north")
        yield desk, link, tmp_path / "north", keys


def test_it_goes_over_and_the_old_keys_are_nobodys(place):
    desk, link, folder, keys = place
    old = load_or_make_keys(folder / "keys.json")
    assert rotate(folder).site == "north"
    new = load_or_make_keys(folder / "keys.json")
    assert new.curve_public != old.curve_public and not (folder / "keys.next.json").exists()
    assert desk.roster.sites["north"].curve_public == new.curve_public and not desk.roster.next
    assert link.zap.who(new.curve_public) == "north" and link.zap.who(old.curve_public) is None
    assert load_roster(desk._path, keys) == desk.roster, "signed and on disk"
    rotate(folder)
    assert desk.roster.sites["north"].curve_public not in (old.curve_public, new.curve_public)


@pytest.mark.parametrize("after", ["taken", "in place"])
def test_stopped_halfway_the_same_command_goes_on(place, monkeypatch, after):
    desk, link, folder, _ = place
    old = load_or_make_keys(folder / "keys.json")
    say = engine._say

    def stopped(member, keys, question, *more):
        if isinstance(question, m.Ask):
            raise KeyboardInterrupt
        found = say(member, keys, question, *more)
        if after == "taken":
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(engine, "_say", stopped)
    with pytest.raises(KeyboardInterrupt):
        rotate(folder)
    assert link.zap.who(old.curve_public) == "north" and len(desk.roster.next) == 1, "both are valid"
    monkeypatch.undo()
    rotate(folder)
    now = load_or_make_keys(folder / "keys.json").curve_public
    assert desk.roster.sites["north"].curve_public == now and not desk.roster.next
    assert link.zap.who(old.curve_public) is None


def test_a_coordinator_started_anew_knows_both(place):
    desk, _, _, keys = place
    following = new_keys()
    proof = sign(following.sign_secret, rotation("heart", "north", following.curve_public))
    desk.rotate("north", m.Rotate("heart", following.curve_public, following.sign_public, proof))
    with CoordinatorLink("127.0.0.1", 0, keys) as link:
        again = Desk(desk._path, "heart", keys)
        again.serve(link)
        assert link.zap.who(following.curve_public) == "north"
        assert link.zap.who(again.roster.sites["north"].curve_public) == "north"


def test_what_is_refused(place, tmp_path):
    desk, _, folder, _ = place
    following, other = new_keys(), new_keys()
    wrong = sign(other.sign_secret, rotation("heart", "north", following.curve_public))
    refused = desk.rotate("north", m.Rotate("heart", following.curve_public, following.sign_public, wrong))
    assert isinstance(refused, m.Refused) and "signed by the next key" in refused.reason
    own = desk.roster.sites["north"]._replace(sign_public=other.sign_public)
    proof = sign(other.sign_secret, rotation("heart", "north", own.curve_public))
    refused = desk.rotate("north", m.Rotate("heart", own.curve_public, own.sign_public, proof))
    assert isinstance(refused, m.Refused) and "a key of its own" in refused.reason
    with pytest.raises(StudyError, match="a folder that has joined"):
        rotate(tmp_path / "empty")
    desk.revoke("north")
    with pytest.raises(CryptoError, match="does not know this key"):
        rotate(folder, timeout_s=5)
    assert not desk.roster.next


def test_a_site_that_asks_for_new_keys_again_and_again_is_heard_now_and_then():
    """Each is made durable on the thread that serves everybody."""
    heard, told = [], []

    class Line:
        def send(self, *_: object) -> bool:
            return True

    class Asked:
        def receive(self, user: str, header: bytes) -> str | None: ...

        def rotate(self, name: str, asked: m.Rotate) -> m.Rotated | m.Refused:
            heard.append(name)
            return m.Rotated("heart", asked.curve_public)

    handlers = HANDLERS._replace(tell=told.append)
    drive = CoordinatorDrive(Line(), RoundKeeper("heart", 1, b"{}", "d" * 64, ("north", "south")), handlers, Asked())
    for _ in range(50):
        drive._heard("north", m.Rotate("heart", "k" * 40, b"s" * 32, b"p" * 64), b"")
    drive._heard("south", m.Rotate("heart", "k" * 40, b"s" * 32, b"p" * 64), b"")
    assert heard == ["north"] * 10 + ["south"]
    assert [event.data["text"] for event in told] == ["asked for new keys again and again: the rest is dropped"]


def test_a_full_disk_at_the_coordinator_ends_neither_its_line_nor_the_going_over(tmp_path, monkeypatch):
    with serving(tmp_path, new_keys()) as (desk, link):
        old, following = new_keys(), new_keys()
        desk.enlist("north", Site(old.curve_public, old.sign_public))
        proof = sign(following.sign_secret, rotation("heart", "north", following.curve_public))
        desk.rotate("north", m.Rotate("heart", following.curve_public, following.sign_public, proof))

        def full(*_: object) -> None:
            raise CryptoError("expected to write the roster, got: No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("learner_jax.network.enrol.save_roster", full)
            desk.gone_over("north")  # as its first message by the new keys asks
        assert set(desk.roster.next) == {"north"} and following.curve_public in link._watched_keys
        desk.gone_over("north")
        assert not desk.roster.next and desk.roster.sites["north"].curve_public == following.curve_public
