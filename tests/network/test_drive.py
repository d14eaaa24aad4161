"""A coordinator and three sites as threads: two rounds of 5 MB, journaled and spooled, through links and machines.

This is also how an engine drives them: the loop in a thread of its own, the slow work in another.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner_jax.leaves import pack, read_leaves, schema_bytes, schema_digest, schema_of, site_ids, unpack
from learner_jax.network.drive import CoordinatorDrive, CoordinatorHandlers, SiteDrive, SiteHandlers
from learner_jax.network.keys import new_keys
from learner_jax.network.links import CoordinatorLink, SiteLink
from learner_jax.network.memory import Faults, MemoryHub
from learner_jax.protocol import commands as c
from learner_jax.protocol.coordinator import RoundKeeper
from learner_jax.protocol.rows import Closed
from learner_jax.protocol.site import SiteKeeper
from learner_jax.storage.journal import Journal
from learner_jax.storage.outbox import Outbox
from learner_jax.storage.spool import Spool

STUDY, SITES, DIGEST = "readmission", ("h00", "h01", "h02"), "d" * 64
ZERO = {"w": np.zeros(1_250_000, np.float32)}  # 5 MB
SCHEMA = schema_of(ZERO)


class Coordinator:
    """An engine: the I/O thread keeps the rounds, this thread adds up."""

    def __init__(self, link: Any, folder: Path, patience_s: float = 10.0):
        self.journal, self.spool = Journal(folder / "journal.db", STUDY, DIGEST), Spool(folder / "spool")
        self.closed: queue.Queue[c.CloseRound | None] = queue.Queue()
        self.told: list[Any] = []
        keeper = RoundKeeper(
            STUDY,
            self.journal.epoch,
            b"{}",
            DIGEST,
            SITES,
            closed=self.journal.closed(),
            accepted=self.journal.accepted(),
            lease_s=1.5,
            patience_s=patience_s,
        )
        handlers = CoordinatorHandlers(
            validate=self.validate,
            append=lambda k: self.spool.append(k.site, k.digest, k.size, k.offset, k.data),
            spool=lambda k: self.spool.keep(k.site, k.digest),
            journal=self.journal.write,
            close=self.closed.put,
            tell=self.told.append,
        )
        self.drive = CoordinatorDrive(link, keeper, handlers, on_end=lambda _: self.closed.put(None))

    def close(self) -> None:
        self.journal.close()
        self.spool.close()

    def validate(self, asked: c.Validate) -> str | None:
        with self.spool.arrived(asked.site, asked.digest) as file:
            leaves = dict(read_leaves(file, SCHEMA, asked.site))
        return None if np.isfinite(leaves["w"]).all() else "expected finite numbers"

    def run(self, weights: np.ndarray, rounds: int, deadline_s: float = 60.0) -> np.ndarray:
        self.drive.start()
        digest, size = schema_digest(SCHEMA), schema_bytes(SCHEMA)
        for number in range(1, rounds + 1):
            data = pack({"w": weights})
            self.drive.post(c.StartRound(number, "train", SITES, data, digest, digest, size, 3, deadline_s))
            closed = self.closed.get()
            if closed is None:
                break
            updates = [unpack(self.spool.get(each), SCHEMA, site)["w"] for site, each in closed.accepted]
            weights = weights + sum(updates, np.zeros_like(weights)) / np.float32(len(updates))
        self.drive.post(c.Finish("e" * 64, "finished"))
        assert self.drive.drained.wait(20)
        self.drive.stop()
        self.drive.join(10)
        self.close()
        return weights


class Site:
    """An engine: the I/O thread keeps the lease, this thread works."""

    def __init__(self, link: Any, name: str, folder: Path, patience_s: float = 10.0):
        self.link, self.name, self.outbox = link, name, Outbox(folder / name)
        self.jobs: queue.Queue[c.Work | None] = queue.Queue()
        pending, committed = self.outbox.pending(), self.outbox.committed()
        keeper = SiteKeeper(
            STUDY,
            name,
            pending=pending and pending[:2],
            committed=committed and committed[0],
            epoch_seen=self.outbox.epoch_seen(),
            lease_s=1.5,
            resend_s=0.3,
            patience_s=patience_s,
        )
        handlers = SiteHandlers(
            approve=lambda asked: c.Approved(asked.manifest_digest),
            work=self.jobs.put,
            write=self.outbox.put,
            commit=lambda entry: self.outbox.commit(entry.digest),
            discard=lambda entry, reason: self.outbox.discard(),
            remember=self.outbox.see_epoch,
        )
        self.drive = SiteDrive(link, keeper, handlers, on_end=lambda _: self.jobs.put(None))
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        self.drive.start()
        while (job := self.jobs.get()) is not None:
            weights = unpack(job.data, SCHEMA)["w"]
            committed = self.outbox.committed()
            state = int(committed[1]) + 1 if committed else 1
            update = weights * np.float32(0.5) + np.float32(site_ids([self.name])[self.name] % 7 + state)
            data = pack({"w": update})
            self.drive.post(c.Worked(job.open.round, job.open.phase, data, schema_digest(SCHEMA), str(state).encode()))


def expected(weights: np.ndarray, rounds: int) -> np.ndarray:
    """The same, in a loop: what the federation must equal to the bit."""
    ids = site_ids(SITES)
    for state in range(1, rounds + 1):
        updates = [weights * np.float32(0.5) + np.float32(ids[name] % 7 + state) for name in ids]
        weights = weights + sum(updates, np.zeros_like(weights)) / np.float32(len(updates))
    return weights


def check(coordinator: Coordinator, sites: list[Site], got: np.ndarray, start: np.ndarray, folder: Path) -> None:
    assert got.tobytes() == expected(start, 2).tobytes()
    for site in sites:
        site.thread.join(10)
        site.drive.join(10)
        assert site.drive.finished == c.Finished(True, "e" * 64, "finished")
        committed = site.outbox.committed()
        assert committed is not None and committed[1] == b"2" and site.outbox.pending() is None
    with Journal(folder / "journal.db", STUDY, DIGEST) as journal:
        assert journal.epoch == 2
        assert [len(row.accepted) for row in journal.history() if isinstance(row, Closed)] == [3, 3]
    for digest in coordinator.spool.list():
        assert hashlib.sha256(coordinator.spool.get(digest)).hexdigest() == digest


def test_two_rounds_of_5_mb_over_sockets(tmp_path):
    server, keys = new_keys(), {name: new_keys() for name in SITES}
    users = {keys[name].curve_public: name for name in SITES}
    start = np.random.default_rng(0).normal(size=ZERO["w"].size).astype(np.float32)  # does not compress
    with CoordinatorLink("127.0.0.1", 0, server, users) as link:
        coordinator = Coordinator(link, tmp_path)
        links = [SiteLink(link.address, server.curve_public, keys[name]) for name in SITES]
        sites = [Site(each, name, tmp_path) for each, name in zip(links, SITES)]
        got = coordinator.run(start, 2)
        check(coordinator, sites, got, start, tmp_path)
        size = schema_bytes(SCHEMA)
        for each in links:
            assert 2 * size < each.counter.bytes_in < 2 * size * 1.01  # nothing was sent twice
            assert 2 * size < each.counter.bytes_out < 2 * size * 1.01
            each.close()
        assert link.counter.bytes_in == sum(each.counter.bytes_out for each in links)


@pytest.mark.parametrize("seed", [1, 2])
def test_two_rounds_over_a_bad_line(tmp_path, seed):
    hub = MemoryHub(SITES, seed, Faults(loss=0.1, double=0.1, delay_s=0.02))
    start = np.random.default_rng(0).normal(size=ZERO["w"].size).astype(np.float32)  # does not compress
    coordinator = Coordinator(hub.coordinator, tmp_path, 0.1)
    sites = [Site(hub.sites[name], name, tmp_path, 0.1) for name in SITES]
    got = coordinator.run(start, 2)
    check(coordinator, sites, got, start, tmp_path)


def test_stopping_is_prompt_in_the_middle_of_everything(tmp_path):
    server, key = new_keys(), new_keys()
    link = CoordinatorLink("127.0.0.1", 0, server, {key.curve_public: "h00"})
    coordinator = Coordinator(link, tmp_path)
    coordinator.drive.start()
    site_link = SiteLink(link.address, server.curve_public, key)
    site = Site(site_link, "h00", tmp_path)
    digest = schema_digest(SCHEMA)
    coordinator.drive.post(c.StartRound(1, "train", ("h00",), pack(ZERO), digest, digest, 5_000_000, 1, 60.0))
    time.sleep(0.3)
    for drive in (coordinator.drive, site.drive):
        drive.stop()
        drive.join(60)
        assert drive.ended.is_set()  # the round's deadline is 60 s away: it was not waited for
    site.thread.join(60)
    site_link.close()
    link.close()
    coordinator.close()
    assert not site.thread.is_alive()


def test_a_bug_in_a_handler_ends_the_loop_and_is_raised(tmp_path):
    hub = MemoryHub(SITES)
    coordinator = Coordinator(hub.coordinator, tmp_path)
    coordinator.drive.start()
    coordinator.drive.post(c.Finish("", "x"))
    coordinator.drive.post(c.StartRound(1, "train", SITES, b"", DIGEST, DIGEST, 0, 1, 1.0))
    assert coordinator.closed.get(timeout=5) is None
    with pytest.raises(Exception, match="expected to open a round"):
        coordinator.drive.join(5)
    coordinator.close()
