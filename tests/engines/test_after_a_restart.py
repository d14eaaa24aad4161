"""What a process that was started again must get right at once."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from learner_jax.engines import serving
from learner_jax.engines.worker import check_order
from learner_jax.errors import StudyError
from learner_jax.network.enrol import Desk
from learner_jax.network.keys import Site, load_or_make_keys, new_keys
from learner_jax.protocol.entry import Entry
from learner_jax.protocol.messages import Blob, Open


class Bound(Exception):
    pass


def test_the_port_knows_the_roster_from_its_first_moment(tmp_path, monkeypatch):
    """A site calls again every moment; refused once, it would take that for the last word."""
    keys, site = load_or_make_keys(tmp_path / "keys.json"), new_keys()
    Desk(tmp_path / "roster.json", "small", keys).enlist("h00", Site(site.curve_public, site.sign_public))
    known = []

    def bound(host, port, keys, users, tap):
        known.append(dict(users))
        raise Bound

    monkeypatch.setattr(serving, "CoordinatorLink", bound)
    study = dataclasses.make_dataclass("Study", ["name"])("small")
    monkeypatch.setattr(serving.specs, "manifest_digest", lambda study: "d" * 64)
    parts = dataclasses.make_dataclass("Parts", ["study"])(study)
    with pytest.raises(Bound):
        serve = inspect.unwrap(serving.serve)  # these parts are no Parts
        serve(parts, ("h00",), tmp_path, lambda event: None, "127.0.0.1", 0)
    assert known == [{site.curve_public: "h00"}]


def test_no_round_is_worked_on_with_the_state_of_a_later_one(tmp_path):
    asked = Open("small", 1, 11, "train", 1, 2, 2, Blob("d" * 64, 1, "5" * 64), {})

    def entry(number: int) -> Entry:
        return Entry(number, "train", "b" * 64, "d" * 64, 1, "5" * 64)

    check_order(asked, entry(10), b"state", tmp_path)
    check_order(asked, entry(20), b"", tmp_path)  # a method whose sites keep none
    check_order(asked._replace(phase="look"), entry(20), b"state", tmp_path)
    for number in (11, 20):
        with pytest.raises(StudyError, match="restored from an older backup") as caught:
            check_order(asked, entry(number), b"state", tmp_path)
        assert "\n" not in str(caught.value)
