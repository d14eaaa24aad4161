"""The loops that join a machine to its link: one thread does the I/O, everything slow is someone else's.

Both loops take what the link brings, what other threads `post`, and the passing of time, give it to the machine, and
carry out what it asks for. What only the engine can do is a handler; a handler runs in the I/O thread and should be
short (a row or a chunk to the disk is; work on a round is not: put it on a queue and `post` the result from the other
thread). An update that has come whole is checked and made durable in a thread beside: a large one takes seconds, in
which the leases of all sites would run out.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, runtime_checkable

from learner_jax import events, failpoints
from learner_jax.errors import RemoteProtocolError, StorageError
from learner_jax.leaves import Bytes
from learner_jax.protocol import broker
from learner_jax.protocol import commands as c
from learner_jax.protocol import messages as m
from learner_jax.protocol.coordinator import RoundKeeper
from learner_jax.protocol.entry import Entry
from learner_jax.protocol.site import SiteKeeper

TICK_S = 0.1
_AT_ONCE = 4
"""Updates that are checked and made durable at a time."""
_ROTATIONS = 0.1, 10.0
"""Rotations a second, and at once, of one site."""
FLOOD = "sent more messages a second than a peer may"


class CoordinatorHandlers(NamedTuple):
    """What the coordinator's engine does for its machine.

    Attributes:
      append: puts the next bytes of an update on the disk; StorageError means "all of it again later".
      validate: an update's names, shapes, dtypes, finiteness: None, or the reason that the site will see. In threads
        beside, some at a time, as spool.
      spool: makes it durable; its bytes, as long as they lie there; StorageError means "all of it again later".
      journal: appends rows durably, all or none; StorageError means "again later".
      close: the round is closed: hand it to the thread that adds up.
      tell: an event for whoever listens.
      fenced: most sites have met a newer coordinator of this study: stop.
    """

    append: Callable[[c.Append], None]
    validate: Callable[[c.Validate], str | None]
    spool: Callable[[c.Spool], Bytes | None]
    journal: Callable[..., None]
    close: Callable[[c.CloseRound], None]
    tell: Callable[[events.Event], None] = events.silent
    fenced: Callable[[int], None] = lambda epoch: None


class SiteHandlers(NamedTuple):
    """What a site's engine does for its machine.

    Attributes:
      approve: Approved, Denied, or None to `post` one of them later.
      work: hand it to the thread that computes; it posts Worked.
      write: puts (entry, data, state) into the outbox durably; StorageError means "again later".
      commit: makes the pending update's state the site's own; StorageError means "again later".
      discard: empties the outbox.
      remember: keeps the newest epoch, durably.
      tell: an event for whoever listens.
    """

    approve: Callable[[c.Approve], c.Approved | c.Denied | None]
    work: Callable[[c.Work], None]
    write: Callable[[Entry, bytes, bytes], None]
    commit: Callable[[Entry], None]
    discard: Callable[[Entry, str], None]
    remember: Callable[[int], None] = lambda epoch: None
    tell: Callable[[events.Event], None] = events.silent


@runtime_checkable
class Enroller(Protocol):
    """Whoever answers one-time keys (`network.enrol.Desk`)."""

    def receive(self, user: str, header: bytes) -> str | None: ...

    def rotate(self, name: str, asked: m.Rotate) -> m.Rotated | m.Refused: ...


class _Drive:
    """What both loops share."""

    def __init__(self, link: Any, keeper: Any, tick_s: float):
        self.link, self._keeper, self._tick = link, keeper, tick_s
        self._events: deque[Any] = deque()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.ended = threading.Event()
        self.error: BaseException | None = None

    def post(self, event: c.Event) -> None:
        """Gives the machine an event, from any thread."""
        self._events.append(event)
        self.link.wake()

    def start(self) -> None:
        """Runs the loop in a thread of its own; `ended` is set when it is over, `error` says if it failed."""
        self._thread = threading.Thread(target=self._guarded, name="io", daemon=True)
        self._thread.start()

    def _guarded(self) -> None:
        try:
            self.run()
        except BaseException as error:
            self.error = error
        finally:
            self.ended.set()
            self._over()

    def stop(self) -> None:
        """Ends the loop soon, from any thread; does not wait."""
        self._stopping.set()
        self.link.wake()

    def join(self, timeout_s: float | None = None) -> None:
        """Waits for the loop's thread, and raises what it failed with."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        if self.error is not None:
            raise self.error

    def run(self) -> None:
        """The loop, in this thread, until stopped or over."""
        next_tick = time.monotonic()
        while not self._stopping.is_set() and not self._finished():
            self._drain()
            try:
                found = self.link.recv(max(0.0, next_tick - time.monotonic()))
            except RemoteProtocolError as error:  # signed by nobody, or said again
                found = None
                self._give(c.Garbled(error.peer, error.reason))
            if found is not None:
                self._take(found)
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + self._tick
                self._give(c.Tick())
            if not self._events:
                self._flush()
        self._drain()

    def _drain(self) -> None:
        while self._events:
            self._give(self._events.popleft())
            if not self._events:
                self._flush()

    def _flush(self) -> None:
        """Called when no event waits."""

    def _give(self, event: c.Event) -> None:
        for command in self._keeper.handle(event, time.monotonic()):
            self._perform(command)

    def _try(self, command: Any, act: Callable[[], None], done: c.Event | None) -> None:
        """Carries out a disk command and says how it went; that it is done, only where an event says so."""
        try:
            act()
        except StorageError as error:
            self._events.append(c.Failed(command, str(error)))
        else:
            self._events += [done] if done is not None else []

    def _hear(self, sender: str, header: bytes, payload: Any) -> None:
        try:
            who = sender or "the coordinator"
            self._heard(sender, m.joined(m.decode(header, who), payload, who), payload)
        except RemoteProtocolError as error:
            self._give(c.Garbled(sender, error.reason))

    def _heard(self, sender: str, message: m.Message, payload: Any) -> None:
        self._give(c.Heard(sender, message, payload))

    def _finished(self) -> bool:
        return False

    def _over(self) -> None:
        """Called when the thread ends."""

    def _take(self, found: Any) -> None:
        raise NotImplementedError

    def _perform(self, command: Any) -> None:
        raise NotImplementedError


class CoordinatorDrive(_Drive):
    """A `RoundKeeper` on a `CoordinatorLink`.

    Args:
      link: a CoordinatorLink (or MemoryCoordinatorLink).
      keeper: the machine.
      handlers: what the engine does.
      desk: answers one-time keys; None lets nobody enrol.
      meter: rate limit a peer.
      on_end: called when the loop's thread ends, with what it failed with or None.

    Attributes:
      drained: set when, after Finish, every site has been told and has left.
    """

    def __init__(
        self,
        link: Any,
        keeper: RoundKeeper,
        handlers: CoordinatorHandlers,
        desk: Enroller | None = None,
        meter: broker.Meter | None = None,
        on_end: Callable[[BaseException | None], None] = lambda error: None,
        tick_s: float = TICK_S,
    ):
        super().__init__(link, keeper, tick_s)
        self._handlers, self._desk, self._meter = handlers, desk, meter or broker.Meter()
        self._rotations = broker.Meter(*_ROTATIONS)
        self._on_end = on_end
        # several at a time, so that a file system makes them durable together
        self._disk = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="disk")
        self._rows: list[c.WriteRow] = []
        self.drained = threading.Event()

    def _over(self) -> None:
        self._disk.shutdown(cancel_futures=True)
        self._on_end(self.error)

    def _take(self, found: Any) -> None:
        user, _, header, payload = found
        if not self._meter.allow(user, time.monotonic()):
            self._give(c.Garbled(user, "the rest is dropped", FLOOD))
            return
        reason = broker.admit(user, len(header), len(payload))
        if reason is not None:
            self._give(c.Garbled(user, reason))
        elif user.startswith(broker.ENROL):
            name = self._desk.receive(user, header) if self._desk else None
            if name is not None:
                self._give(c.Enlist(name))
        else:
            self._hear(user, header, payload)

    def _heard(self, sender: str, message: m.Message, payload: Any) -> None:
        if isinstance(message, m.Ask):  # the machine has no clock, and a question begins no session
            self.link.send(sender, m.encode(m.Told(message.study, time.time())))
        elif isinstance(message, m.Rotate) and self._desk is not None:
            if not self._rotations.allow(sender, time.monotonic()):  # each is written durably, on this thread
                self._give(c.Garbled(sender, "the rest is dropped", "asked for new keys again and again"))
                return
            self.link.send(sender, m.encode(self._desk.rotate(sender, message)))
        else:
            super()._heard(sender, message, payload)
            if isinstance(message, m.Chunk):
                failpoints.here("coordinator.upload.after_chunk")

    def _perform(self, command: Any) -> None:
        do = self._handlers
        match command:
            case c.Send(site, message, payload, minor):
                self.link.send(site, m.encode(message, minor), payload or m.beside(message, minor))
                if isinstance(message, m.Chunk):
                    failpoints.here("coordinator.broadcast.after_chunk")
            case c.Append():
                self._try(command._replace(data=b""), lambda: do.append(command), None)
            case c.Validate() | c.Spool():
                self._disk.submit(self._beside, command)
            case c.WriteRow():
                self._rows.append(command)
            case c.CloseRound():
                do.close(command)
            case c.Tell(event):
                do.tell(event)
            case c.Fenced(epoch):
                do.fenced(epoch)
            case c.Drained():
                self.drained.set()

    def _flush(self) -> None:
        """What is to be journaled goes into one transaction."""
        while self._rows:
            commands, self._rows = self._rows, []
            try:
                self._handlers.journal(*(command.row for command in commands))
            except StorageError as error:
                self._events.extend(c.Failed(command, str(error)) for command in commands)
            else:
                self._events.extend(c.Journaled(command.row) for command in commands)
            while self._events:
                self._give(self._events.popleft())

    def _beside(self, command: c.Validate | c.Spool) -> None:
        """Carries out a command that takes its time, and says how it went."""
        about = (command.site, command.round, command.phase, command.digest)
        try:
            if isinstance(command, c.Spool):
                self.post(c.Spooled(*about, self._handlers.spool(command)))
            else:
                reason = self._handlers.validate(command)
                self.post(c.Valid(*about) if reason is None else c.Invalid(*about, reason))
        except StorageError as error:
            self.post(c.Failed(command, str(error)))
        except BaseException as error:  # a bug of ours: it ends the loop as one in the loop would
            self.error = error
            self.stop()


class SiteDrive(_Drive):
    """A `SiteKeeper` on a `SiteLink`. The loop ends when the machine is finished: see `finished`.

    Args:
      link: a SiteLink (or MemorySiteLink).
      keeper: the machine.
      handlers: what the engine does.
      on_end: called when the loop's thread ends, with what it failed with or None.
    """

    def __init__(
        self,
        link: Any,
        keeper: SiteKeeper,
        handlers: SiteHandlers,
        on_end: Callable[[BaseException | None], None] = lambda error: None,
        tick_s: float = TICK_S,
    ):
        super().__init__(link, keeper, tick_s)
        self._handlers, self._on_end, self._connected = handlers, on_end, False

    @property
    def finished(self) -> c.Finished | None:
        """How it ended; None while it goes on."""
        return self._keeper.finished

    def _finished(self) -> bool:
        if self.link.connected != self._connected:
            self._connected = self.link.connected
            if self._connected:
                self._give(c.Connected())
        return self._keeper.finished is not None

    def _over(self) -> None:
        self._on_end(self.error)

    def _take(self, found: Any) -> None:
        self._hear("", *found)

    def _perform(self, command: Any) -> None:
        do = self._handlers
        match command:
            case c.Send(_, message, payload, minor):
                self.link.send(m.encode(message, minor), payload or m.beside(message, minor))
                if isinstance(message, m.Chunk):
                    failpoints.here("site.upload.after_chunk")
            case c.Approve():
                answer = do.approve(command)
                if answer is not None:
                    self._events.append(answer)
            case c.Work():
                do.work(command)
            case c.WriteOutbox(entry, data, state):
                self._try(command, lambda: do.write(entry, data, state), c.Written(entry.digest))
            case c.Commit(entry):
                self._try(command, lambda: do.commit(entry), c.Settled(entry.digest))
            case c.Discard(entry, reason):
                self._try(command, lambda: do.discard(entry, reason), c.Settled(entry.digest))
            case c.RememberEpoch(epoch):
                self._try(command, lambda: do.remember(epoch), None)
            case c.Tell(event):
                do.tell(event)
