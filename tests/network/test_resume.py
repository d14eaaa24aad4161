"""A large update goes on where it was when the coordinator's process ended, from what lies on its disk."""

from __future__ import annotations

import hashlib
import queue
import random
from pathlib import Path
from typing import Any

from learner_jax.leaves import pieces
from learner_jax.network.drive import CoordinatorDrive, CoordinatorHandlers, SiteDrive, SiteHandlers
from learner_jax.network.keys import new_keys
from learner_jax.network.links import CoordinatorLink, SiteLink
from learner_jax.protocol import commands as c
from learner_jax.protocol.coordinator import RoundKeeper
from learner_jax.protocol.site import SiteKeeper
from learner_jax.storage.spool import Spool

SIZE, KILLED_AT, SCHEMA, D = 40 * 2**20, 22 * 2**20, "5" * 64, "d" * 64


class Killed(Exception):
    """In the coordinator's line."""


def served(link: CoordinatorLink, folder: Path, epoch: int, killed_at: int) -> tuple[CoordinatorDrive, queue.Queue]:
    """A coordinator with one round open, which ends as soon as so much of the update is on its disk."""
    spool, closed = Spool(folder), queue.Queue()

    def append(command: c.Append) -> None:
        spool.append(command.site, command.digest, command.size, command.offset, command.data)
        if command.offset >= killed_at:
            raise Killed

    def keep(command: c.Spool) -> Any:
        return spool.keep(command.site, command.digest, command.pieces)

    def ended(error: BaseException | None) -> None:
        spool.close()
        closed.put(error)

    handlers = CoordinatorHandlers(append, lambda asked: None, keep, lambda *rows: None, closed.put)
    keeper = RoundKeeper("study", epoch, b"{}", D, ("h00",), parts=spool.parts(["h00"]), lease_s=60.0)
    drive = CoordinatorDrive(link, keeper, handlers, on_end=ended)
    drive.start()
    drive.post(c.StartRound(1, "train", ("h00",), b"weights", SCHEMA, SCHEMA, SIZE, 1, 600.0, attempt=epoch))
    return drive, closed


def test_what_had_come_before_the_coordinators_process_ended_is_not_sent_again(tmp_path):
    update = random.Random(0).randbytes(SIZE)
    keys, site = new_keys(), new_keys()
    nothing: Any = lambda *given: None  # noqa: E731
    with CoordinatorLink("127.0.0.1", 0, keys, {site.curve_public: "h00"}) as link:
        port = link.port
        line = SiteLink(link.address, keys.curve_public, site)
        work: queue.Queue[c.Work] = queue.Queue()
        handlers = SiteHandlers(lambda asked: c.Approved(asked.manifest_digest), work.put, nothing, nothing, nothing)
        drive = SiteDrive(line, SiteKeeper("study", "h00", resend_s=0.3), handlers)
        first, ended = served(link, tmp_path, 1, KILLED_AT)
        drive.start()
        work.get(timeout=30)
        drive.post(c.Worked(1, "train", update, SCHEMA, b"", pieces([update])))
        assert isinstance(ended.get(timeout=60), Killed) and isinstance(first.error, Killed)
    with CoordinatorLink("127.0.0.1", port, keys, {site.curve_public: "h00"}) as link:
        second, closed = served(link, tmp_path, 2, SIZE)
        ((name, digest),) = closed.get(timeout=60).accepted
        came = link.counter.bytes_in
        drive.post(c.Stop("enough"))
        drive.join(20)
        second.stop()
        second.join(20)
    line.close()
    assert name == "h00" and digest == hashlib.sha256(update).hexdigest() and Spool(tmp_path).get(digest) == update
    assert SIZE - KILLED_AT < came < SIZE - KILLED_AT + 8 * 2**20
