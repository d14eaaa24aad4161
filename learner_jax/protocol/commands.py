"""What the two machines are told and what they ask for: plain records, so that a test is a few lines.

Whoever drives a machine hands it events and carries out its commands. Commands that end in an event say which; until
that event comes, the machine waits (a crash in between is what the journal, the spool and the outbox are for).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from learner_jax import events
from learner_jax.leaves import Bytes
from learner_jax.protocol.entry import Entry
from learner_jax.protocol.messages import PROTOCOL, Message, Open
from learner_jax.protocol.rows import Row

# ---------------------------------------------------------------- events of both machines


class Heard(NamedTuple):
    """A message came. site: who sent it, as ZAP knows them (at a site: ""); payload: a chunk's bytes."""

    site: str
    message: Message
    payload: bytes | memoryview = b""


class Garbled(NamedTuple):
    """A peer did what no peer may: sent what is not a message, or too much. kind: which, for those who count it."""

    site: str
    reason: str
    kind: str = "sent what is not a message"


class Tick(NamedTuple):
    """Time passed. Give one a few times a second."""


class Failed(NamedTuple):
    """A command could not be carried out (a full disk); the machine asks for it again later."""

    command: Any
    reason: str


# ---------------------------------------------------------------- events of the coordinator's machine


class StartRound(NamedTuple):
    """Open a round.

    Attributes:
      round, phase: later than any before: by round, then in the order of `messages.PHASES`.
      cohort: the sites asked.
      data: the broadcast's bytes, or what can be sliced into them; digest: their sha256, made here if ""; pieces: their
        table (`leaves.pieces`).
      schema_digest: of its leaves.
      update_size, update_schema: what an update must be; size None allows up to size_limit.
      quorum: fewest accepted updates with which it may close; 0: with whoever answers, and who is not there is not
        waited for.
      deadline_s: after which it closes with a quorum.
      attempt: from 1; one more after a restart, with the sites already `accepted` (from the journal).
      fields: a few plain values for the sites.
      buffer: so many accepted updates close the round at once, of this round's broadcast or an earlier one's (FedBuff);
        0: of this one's alone, and all sites are waited for. oldest: the round of the earliest broadcast.
      again: site -> digest of what was accepted from it, whose bytes were lost here: it must send the same again.
      enrolled: how many sites take part in the study at this round, of which the cohort was drawn.
    """

    round: int
    phase: str
    cohort: tuple[str, ...]
    data: Bytes
    schema_digest: str
    update_schema: str
    update_size: int | None
    quorum: int
    deadline_s: float
    attempt: int = 1
    accepted: Mapping[str, str] = {}
    fields: Mapping[str, int | float | str] = {}
    again: Mapping[str, str] = {}
    digest: str = ""
    pieces: bytes = b""
    buffer: int = 0
    oldest: int = 0
    enrolled: int = 0


class Valid(NamedTuple):
    """Answers Validate: names, shapes and dtypes fit, all numbers are finite."""

    site: str
    round: int
    phase: str
    digest: str


class Invalid(NamedTuple):
    """Answers Validate: reason is one line that the site will see."""

    site: str
    round: int
    phase: str
    digest: str
    reason: str


class Spooled(NamedTuple):
    """Answers Spool: the bytes are on disk, fsynced. data: they, to be read again while they are there."""

    site: str
    round: int
    phase: str
    digest: str
    data: Bytes | None = None


class Journaled(NamedTuple):
    """Answers WriteRow: the row is on disk."""

    row: Row


class Enlist(NamedTuple):
    """A site was added to the roster."""

    site: str


class Forget(NamedTuple):
    """A site was taken off the roster."""

    site: str


class Finish(NamedTuple):
    """The study is over; tell the sites. weights_sha256: of the final model, "" if there is none."""

    weights_sha256: str
    reason: str


# ---------------------------------------------------------------- commands of the coordinator's machine


class Send(NamedTuple):
    """Send a message. May be lost; the machines make up for it.

    Attributes:
      site: whom to; "" at a site.
      message, payload: what.
      minor: of the protocol that the other side knows: encode the message for it.
    """

    site: str
    message: Message
    payload: bytes | memoryview = b""
    minor: int = PROTOCOL[1]


class Append(NamedTuple):
    """Put the next bytes of an update behind those before; answered only if it fails, by Failed.

    Attributes:
      digest, size: of the whole update, as announced.
      offset: where these bytes begin; 0 begins the update anew.
      data: they; to be written, or copied, before this command is over.
    """

    site: str
    round: int
    phase: str
    digest: str
    size: int
    offset: int
    data: bytes | memoryview


class Validate(NamedTuple):
    """All of an update has come: check it against the schema, and that it is finite; answered by Valid or Invalid."""

    site: str
    round: int
    phase: str
    digest: str


class Spool(NamedTuple):
    """Make an update durable, under its digest; answered by Spooled or Failed. pieces: its table, to be kept too."""

    site: str
    round: int
    phase: str
    digest: str
    pieces: bytes = b""


class WriteRow(NamedTuple):
    """Append a row to the journal, durably; answered by Journaled or Failed."""

    row: Row


class CloseRound(NamedTuple):
    """The round is closed, and journaled so: add up exactly these.

    Attributes:
      accepted: (site, digest) in ascending order of site id.
      lost: sites of the cohort that are not in it.
    """

    round: int
    phase: str
    accepted: tuple[tuple[str, str], ...]
    lost: tuple[str, ...]


class Tell(NamedTuple):
    """Tell whoever listens."""

    event: events.Event


class Fenced(NamedTuple):
    """A newer incarnation of this coordinator has spoken to a site: stop."""

    epoch: int


class Drained(NamedTuple):
    """After Finish: every site that was there has been told and has left."""


# ---------------------------------------------------------------- events of a site's machine


class Connected(NamedTuple):
    """The line was opened, for the first time or again: say Hello at once."""


class Worked(NamedTuple):
    """Answers Work. data: the packed update; state: what the site will commit if the update is accepted; pieces: the
    update's table (`leaves.pieces`)."""

    round: int
    phase: str
    data: bytes
    schema_digest: str
    state: bytes = b""
    pieces: bytes = b""


class Stored(NamedTuple):
    """The broadcast that was handed out last lies on the disk, or does not: data None. May come at any time, or never:
    the machine holds its bytes until then.
    """

    digest: str
    data: Bytes | None


class Written(NamedTuple):
    """Answers WriteOutbox: the update and its state are on disk."""

    digest: str


class Settled(NamedTuple):
    """Answers Commit or Discard: done, durably."""

    digest: str


class Approved(NamedTuple):
    """Answers Approve: this site takes part in what the manifest says."""

    manifest_digest: str


class Denied(NamedTuple):
    """Answers Approve: it does not."""

    reason: str


class Stop(NamedTuple):
    """Leave, now; what is in the outbox stays there."""

    reason: str


# ---------------------------------------------------------------- commands of a site's machine


class Approve(NamedTuple):
    """May this study run here? Answered by Approved or Denied, as soon or late as the steward likes."""

    manifest: bytes
    manifest_digest: str
    enrolled: tuple[str, ...]


class RememberEpoch(NamedTuple):
    """Remember the newest epoch met, durably; not answered."""

    epoch: int


class Work(NamedTuple):
    """Do this round; answered by Worked. data: the broadcast's bytes."""

    open: Open
    data: memoryview


class WriteOutbox(NamedTuple):
    """Write an update, and the state that it would commit, durably, before it is offered; answered by Written."""

    entry: Entry
    data: bytes
    state: bytes


class Commit(NamedTuple):
    """The update was acknowledged: make its state the site's own; answered by Settled."""

    entry: Entry


class Discard(NamedTuple):
    """The update was refused for good: empty the outbox; answered by Settled."""

    entry: Entry
    reason: str


class Finished(NamedTuple):
    """The site has nothing more to do. ok: the study ended; otherwise reason says why this site leaves."""

    ok: bool
    weights_sha256: str
    reason: str


Event = (
    Heard | Garbled | Tick | Failed | StartRound | Valid | Invalid | Spooled | Journaled | Enlist | Forget | Finish
    | Connected | Worked | Stored | Written | Settled | Approved | Denied | Stop
)  # fmt: skip
Command = (
    Send | Append | Validate | Spool | WriteRow | CloseRound | Tell | Fenced | Drained
    | Approve | RememberEpoch | Work | WriteOutbox | Commit | Discard | Finished
)  # fmt: skip
