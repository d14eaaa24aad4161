"""Sites on lines of a given rate, each in a network namespace of its own; to be run by `shaped(...)`, see there.

    here: 10.7.N.1 the coordinator  ----- veth, tbf at both ends -----  10.7.N.2 site N, without another route

A site is a process without jax: the real machine, drive, link and outbox, with prepared bytes where others compute. The
coordinator has its real machine, drive, link, journal and spool, and adds nothing up. What passed is read from the
counters of the veth's end here, so it is what the line carried, headers and repeated packets included.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import queue
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from learner_jax.leaves import site_id
from learner_jax.network.drive import CoordinatorDrive, CoordinatorHandlers, SiteDrive, SiteHandlers
from learner_jax.network.keys import Keys, load_or_make_keys
from learner_jax.network.links import CoordinatorLink, SiteLink
from learner_jax.protocol import commands as c
from learner_jax.protocol.coordinator import RoundKeeper
from learner_jax.protocol.site import SiteKeeper
from learner_jax.storage.journal import Journal
from learner_jax.storage.outbox import Outbox
from learner_jax.storage.spool import Spool

ROOT = Path(__file__).resolve().parents[2]
STUDY, SCHEMA, MANIFEST = "shaped", "e" * 64, "d" * 64
OWN = ["unshare", "-rnmpf", "--mount-proc", "--kill-child"]
"""Namespaces of network and processes: what is started in them ends with them."""
QUEUE_MS = 25
"""What may wait at each end of a line; the rest is dropped, as a modem does it."""


# ---------------------------------------------------------------------------------------------- from outside


def missing() -> str:
    """Why lines cannot be shaped here, in words; "" if they can."""
    tools = [name for name in ("unshare", "nsenter", "ip", "tc", "ss") if not shutil.which(name)]
    if tools:
        return f"no {', '.join(tools)}"
    tried = subprocess.run(
        [*OWN, sys.executable, "-m", "tests.federation.shaped", "probe"], cwd=ROOT, capture_output=True, text=True
    )
    return (tried.stderr.strip().splitlines() or ["no namespaces"])[-1] if tried.returncode else ""


def shaped(job: str, folder: Path, seconds: float, **given: Any) -> dict[str, Any]:
    """Runs a job in namespaces of its own.

    Args:
      job: "transfer" or "rounds".
      folder: for journal, spool and outboxes.
      seconds: that it may take.
      given: arguments of the function of that name.

    Returns:
      What it returned.
    """
    command = [*OWN, sys.executable, "-m", "tests.federation.shaped", job, str(folder), json.dumps(given)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    if ran.returncode:
        raise RuntimeError(f"ended with {ran.returncode}: {ran.stderr[-3000:]}")
    return json.loads(ran.stdout.splitlines()[-1])


# ---------------------------------------------------------------------------------------------- lines


def _do(line: str, *before: str) -> None:
    subprocess.run([*before, *line.split()], check=True, capture_output=True)


class Line(NamedTuple):
    """One site's line. inside: what a command begins with that runs at the site."""

    number: int
    inside: tuple[str, ...]

    @property
    def here(self) -> str:
        return f"10.7.{self.number}.1"

    @property
    def there(self) -> str:
        return f"10.7.{self.number}.2"

    def reset(self) -> None:
        """Breaks the connection: both ends are told."""
        _do(f"ss -K -t dst {self.there}")

    def down(self, seconds: float) -> None:
        """Takes the line away: nobody is told."""
        _do(f"ip link set line{self.number} down")
        time.sleep(seconds)
        _do(f"ip link set line{self.number} up")

    def came(self) -> int:
        """Bytes that came from the site so far, as the interface counts them."""
        for line in Path("/proc/net/dev").read_text().splitlines():
            name, _, figures = line.partition(":")
            if name.strip() == f"line{self.number}":
                return int(figures.split()[0])
        raise LookupError(f"line{self.number}")


@contextlib.contextmanager
def lines(count: int, mbit: float) -> Iterator[list[Line]]:
    """So many sites' lines, each of so many megabits a second each way."""
    _do("ip link set lo up")
    holders, found = [], []
    try:
        for number in range(1, count + 1):
            holders.append(holder := subprocess.Popen(["unshare", "-n", "sleep", "infinity"]))
            here = Path("/proc/self/ns/net").readlink()
            while Path(f"/proc/{holder.pid}/ns/net").readlink() == here:
                time.sleep(0.01)
            line = Line(number, ("nsenter", "-t", str(holder.pid), "-n"))
            tbf = f"root tbf rate {mbit}mbit burst 16kb latency {QUEUE_MS}ms"
            _do(f"ip link add line{number} type veth peer name out netns {holder.pid}")
            _do(f"ip address add {line.here}/30 dev line{number}")
            _do(f"ip link set line{number} up")
            _do("ip link set lo up", *line.inside)
            _do(f"ip address add {line.there}/30 dev out", *line.inside)
            _do("ip link set out up", *line.inside)
            _do(f"tc qdisc add dev line{number} {tbf}")
            _do(f"tc qdisc add dev out {tbf}", *line.inside)
            found.append(line)
        yield found
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()


def probe() -> None:
    """Raises if lines cannot be shaped, or connections not be reset."""
    with lines(1, 10.0) as (line,):
        with socket.create_server((line.here, 0)) as server, socket.create_connection(server.getsockname()) as client:
            accepted, _ = server.accept()
            _do(f"ss -K -t dst {line.here}")
            try:
                client.send(b"x")
                time.sleep(0.1)
                reset = not client.recv(1)
            except OSError:
                reset = True
            accepted.close()
        if not reset:
            raise SystemExit("the kernel does not reset connections (ss -K)")


# ---------------------------------------------------------------------------------------------- a site


def update(site: str, number: int, size: int) -> bytes:
    """The prepared bytes of a site's round."""
    return np.random.Generator(np.random.Philox(key=[site_id(site), number])).bytes(size)


def take_part(site: str, address: str, server: str, folder: Path) -> None:
    """Answers each round with its prepared bytes; one line of JSON at the end."""
    keys, outbox = load_or_make_keys(folder / "keys.json"), Outbox(folder / "outbox")
    with SiteLink(address, server, keys) as link:

        def work(asked: c.Work) -> None:
            data = update(site, asked.open.round, int(asked.open.fields["size"]))
            drive.post(c.Worked(asked.open.round, asked.open.phase, data, SCHEMA))

        handlers = SiteHandlers(
            approve=lambda asked: c.Approved(asked.manifest_digest),
            work=work,
            write=outbox.put,
            commit=lambda entry: outbox.commit(entry.digest),
            discard=lambda entry, reason: outbox.discard(),
            remember=outbox.see_epoch,
        )
        drive = SiteDrive(link, SiteKeeper(STUDY, site), handlers)
        drive.run()
        print(json.dumps({"sent": link.counter.bytes_out, "ok": bool(drive.finished and drive.finished.ok)}))


# ---------------------------------------------------------------------------------------------- the coordinator


class Coordinator:
    """Sites on their lines, and what of a coordinator keeps the account.

    Args:
      folder: for all of it.
      lines: one a site.
      patience_s: see `RoundKeeper`.
    """

    def __init__(self, folder: Path, lines: Sequence[Line]):
        self.lines = {f"h{line.number:02d}": line for line in lines}
        folder.mkdir(parents=True, exist_ok=True)
        keys = {name: self._keys(folder / name) for name in ("coordinator", *self.lines)}
        self.journal, self.spool = Journal(folder / "journal.sqlite", STUDY, MANIFEST), Spool(folder / "spool")
        self._closed: queue.SimpleQueue[c.CloseRound | BaseException | None] = queue.SimpleQueue()
        self.progress: queue.SimpleQueue[float] = queue.SimpleQueue()  # shares of updates that are on the disk
        self.told: list[str] = []
        users = {each.curve_public: name for name, each in keys.items()}
        self.link = CoordinatorLink("0.0.0.0", 0, keys["coordinator"], users)
        keeper = RoundKeeper(STUDY, self.journal.epoch, b"{}", MANIFEST, tuple(self.lines))
        handlers = CoordinatorHandlers(
            append=self._append,
            validate=lambda _: None,
            spool=lambda command: self.spool.keep(command.site, command.digest),
            journal=self.journal.write,
            close=self._closed.put,
            tell=lambda event: self.told.append(f"{event.kind} {event.site} {event.data.get('text', '')}"),
        )
        self.drive = CoordinatorDrive(self.link, keeper, handlers, on_end=self._closed.put)
        self.drive.start()
        self.sites = {
            name: subprocess.Popen(
                [*line.inside, sys.executable, "-m", "tests.federation.shaped", "site", str(folder / name), json.dumps(
                    {"site": name, "address": f"tcp://{line.here}:{self.link.port}", "server": keys["coordinator"][0]}
                )], cwd=ROOT, stdout=subprocess.PIPE, text=True,
            ) for name, line in self.lines.items()
        }  # fmt: skip

    def _keys(self, folder: Path) -> Keys:
        folder.mkdir()
        return load_or_make_keys(folder / "keys.json")

    def _append(self, command: c.Append) -> None:
        self.spool.append(command.site, command.digest, command.size, command.offset, command.data)
        self.progress.put((command.offset + len(command.data)) / command.size)

    def all_here(self, seconds: float = 120) -> None:
        """Waits until every site has called."""
        stop = time.monotonic() + seconds
        while len([line for line in self.told if line.startswith("site_back")]) < len(self.lines):
            if time.monotonic() > stop:
                raise TimeoutError(f"expected {len(self.lines)} sites within {seconds:.0f} s: {self.told}")
            time.sleep(0.05)

    def start(self, number: int, broadcast: bytes, size: int) -> None:
        """Opens a round."""
        names, digest = tuple(self.lines), hashlib.sha256(broadcast).hexdigest()
        about = (names, broadcast, SCHEMA, SCHEMA, size, len(names), 1e6)
        self.drive.post(c.StartRound(number, "train", *about, fields={"size": size}, digest=digest))

    def closed(self) -> Mapping[str, str]:
        """Waits for the round's end: site -> digest."""
        found = self._closed.get()
        if not isinstance(found, c.CloseRound):
            raise RuntimeError(f"the coordinator ended: {found}")
        return dict(found.accepted)

    def end(self) -> list[dict[str, Any]]:
        """Ends the study: what the sites say."""
        self.drive.post(c.Finish("f" * 64, "over"))
        ended = [json.loads(process.communicate(timeout=60)[0]) for process in self.sites.values()]
        self.drive.stop()
        self.drive.join(10)
        self.link.close()
        self.journal.close()
        self.spool.close()
        return ended


def transfer(folder: Path, mbit: float, size: int, cuts: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """An update of a quarter of the size on a line that holds, then one of that size on a line that does not.

    Args:
      folder: for all of it.
      mbit: of the line.
      size: bytes.
      cuts: (share of the update that has come, seconds without a line; 0 resets the connection).

    Returns:
      {"smooth", "came": bytes on the line for either; "resent": share of the second that was sent again, "handed": the
      same of what the site handed to its line, "seconds", "equal": whether the digests are those of the bytes, "told"}.
    """
    with lines(1, mbit) as (line,):
        there = Coordinator(folder, [line])
        there.all_here()
        there.start(1, b"first", size // 4)
        equal = there.closed() == {"h01": hashlib.sha256(update("h01", 1, size // 4)).hexdigest()}
        smooth, begun = line.came(), time.monotonic()
        while not there.progress.empty():
            there.progress.get()
        there.start(2, b"second", size)
        for share, seconds in cuts:
            while there.progress.get(timeout=300) < share:
                pass
            line.down(seconds) if seconds else line.reset()
        equal &= there.closed() == {"h01": hashlib.sha256(update("h01", 2, size)).hexdigest()}
        took, came = time.monotonic() - begun, line.came() - smooth
        (ended,) = there.end()
    return {
        "smooth": smooth,
        "came": came,
        "resent": came / (smooth * size / (size // 4)) - 1,
        "handed": (ended["sent"] - size // 4) / size - 1,
        "seconds": round(took, 2),
        "equal": equal,
        "told": there.told,
    }


def rounds(folder: Path, mbit: float, sites: int, size: int, count: int) -> dict[str, Any]:
    """So many rounds, with `size` bytes down to each site and up from it: {"seconds" of each, "told"}."""
    took = []
    with lines(sites, mbit) as made:
        there = Coordinator(folder, made)
        there.all_here()
        for number in range(1, count + 1):
            begun = time.monotonic()
            there.start(number, update("the model", number, size), size)
            accepted = there.closed()
            took.append(time.monotonic() - begun)
            if accepted != {name: hashlib.sha256(update(name, number, size)).hexdigest() for name in there.lines}:
                raise RuntimeError(f"expected each site's own update in round {number}, got {accepted}")
            there.spool.sweep(())
        there.end()
    return {"seconds": took, "told": there.told}


def main() -> None:
    """In the namespaces: a job; one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=("probe", "site", "transfer", "rounds"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("given", type=json.loads, nargs="?")
    asked = parser.parse_args()
    if asked.job == "probe":
        probe()
    elif asked.job == "site":
        take_part(folder=asked.folder, **asked.given)
    else:
        print(json.dumps({"transfer": transfer, "rounds": rounds}[asked.job](asked.folder, **asked.given)))


if __name__ == "__main__":
    main()
