"""What the engine asks of a round when sites were taken off the roster, and what it makes of one site's odd sums."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from learner_jax.engines.coordinator import Phase, Rounds, Stores
from learner_jax.engines.history import said
from learner_jax.engines.keeper import Keeper
from learner_jax.events import silent
from learner_jax.leaves import Packed, pack, schema_of
from learner_jax.protocol import commands as c
from learner_jax.protocol.rows import Accepted, Opened
from learner_jax.specs import Data, Spec, Study
from learner_jax.statistics import impossible
from learner_jax.storage.journal import Journal
from learner_jax.storage.spool import Spool

STUDY = Study(name="s", task=Spec("tasks", "readmission"), data=Data(source="diabetes130"))
WEIGHTS = {"w": np.zeros(2, np.float32)}
SITES = ("a", "b", "c", "d")


class There:
    """A journal and a spool in which some sites counted in round 1, and a coordinator that begins anew."""

    def __init__(self, folder, counted: tuple[str, ...], damaged: tuple[str, ...] = ()):
        self.journal, self.spool = Journal(folder / "journal.sqlite", "s", "d" * 64), Spool(folder / "spool")
        update = pack(WEIGHTS)
        for site in counted:
            digest = self._kept(site, update + site.encode() * 0)
            if not self.journal.history():
                self.journal.write(Opened(1, "train", 1, 1, SITES, Packed(WEIGHTS).sha256))
            self.journal.write(Accepted(1, "train", site, digest, len(update)))
        if damaged:
            for digest in set(self.spool.list()):
                self.spool.drop(digest)
        self.asked: list[Any] = []

    def _kept(self, site: str, data: bytes) -> str:
        import hashlib

        digest = hashlib.sha256(data).hexdigest()
        self.spool.append(site, digest, len(data), 0, data)
        self.spool.keep(site, digest)
        return digest

    def start(self, revoked: tuple[str, ...], everyone: bool) -> c.StartRound:
        rounds = Rounds(STUDY, Stores(self.journal, self.spool), silent, roster=lambda: ((), revoked))
        rounds.post = self.asked.append
        rounds.fail(KeyboardInterrupt())  # what it asks for is all that is wanted
        schema = schema_of(WEIGHTS)
        with pytest.raises(KeyboardInterrupt):
            rounds.run(Phase(1, "train", SITES, Packed(WEIGHTS), schema, schema, everyone))
        (start,) = self.asked
        return start

    def close(self) -> None:
        self.journal.close()
        self.spool.close()


@pytest.mark.parametrize("everyone, needed", [(True, 4), (False, 3)])
def test_who_counted_before_it_was_revoked_still_does_after_a_restart(tmp_path, everyone, needed):
    there = There(tmp_path, ("d",))
    start = there.start(("d",), everyone)
    there.close()
    assert start.quorum == needed and set(start.accepted) == {"d"}


def test_who_was_revoked_and_did_not_count_is_not_needed(tmp_path):
    there = There(tmp_path, ("a",))
    start = there.start(("d",), True)
    there.close()
    assert start.quorum == 3


def test_what_is_damaged_of_a_revoked_site_is_not_asked_for_again(tmp_path):
    there = There(tmp_path, ("d",), damaged=("d",))
    start = there.start(("d",), True)
    there.close()
    assert not start.again and not start.accepted and start.quorum == 3


def test_the_figures_of_a_round_that_is_run_again_are_those_of_the_first_time(tmp_path):
    first = Keeper(STUDY, tmp_path)
    told = said({"round": 1, "bytes_up": 16038}, {})
    assert first.commit(1, "d" * 32, told) == told
    first.close()
    again = Keeper(STUDY, tmp_path)
    assert json.loads(again.commit(1, "d" * 32, said({"round": 1, "bytes_up": 226}, {})))["row"]["bytes_up"] == 16038
    again.close()


@pytest.mark.parametrize(
    "path, value, says",
    [
        ("column/rows", -590.0, "expected no number below 0 in 'column/rows', got -590"),
        ("input/squares", [1.0, -2.0], "in 'input/squares', got -2"),
        ("column/missing", -1, "in 'column/missing'"),
        ("input/sum", -5.0, None),
        ("diagnosis/rows", [0, 3], None),
    ],
)
def test_sums_that_no_rows_can_have(path, value, says):
    found = impossible([(path, np.asarray(value))])
    assert found is None if says is None else found is not None and says in found
