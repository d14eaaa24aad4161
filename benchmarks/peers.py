"""What an honest transfer costs while a crowd of peers that do nothing, or half of a handshake, hangs on the same port.

    python -m benchmarks.peers            one JSON line (8 minutes): 1,000 idle and 500 half-open peers
    python -m benchmarks.peers --quick    a small crowd, small blobs: does it run; the times mean nothing

Two honest sites send a blob each to one `CoordinatorLink`, with the crowd and without it, in turn. An idle peer has
a key that the port knows and has completed its ZMTP and CURVE handshake; it says nothing. A half-open peer has a TCP
connection and says nothing, half of a greeting, or a greeting and no more; it is shed after the handshake's time, and
dials again at once, so that as many are there all the time.
"""

from __future__ import annotations

import argparse
import os
import random
import selectors
import socket as sockets
import statistics
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import zmq

from benchmarks import common
from benchmarks.wire import MIB, Process, cpu_s, spread
from benchmarks.wire_blobs import Expected, expect, make_blob
from benchmarks.wire_ends import fetch, keys_of, name_of, offer, told, welcome
from learner_jax.network.keys import new_keys
from learner_jax.network.links import CoordinatorLink, SiteLink

GOAL = 0.05
HONEST = 2
TRANSFERS = 3
"""Transfers for each time that the crowd comes, and for each that it goes."""

_SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
GREETINGS = (b"", _SIGNATURE[:7], _SIGNATURE + b"\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32))
"""What half-open peers say: nothing, half of a signature, or a whole ZMTP 3.1 greeting and nothing after it."""


class Crowd:
    """Peers that only take room.

    Args:
      address: of the port.
      server, keys: its CURVE key, and the pair by which all idle peers are known to it.
      idle, half_open: how many of each.
      again: whether a half-open peer that was shed dials again.

    Attributes:
      shed: how often a half-open peer's connection was closed by the port.
    """

    def __init__(self, address: str, server: str, keys: tuple[str, str], idle: int, half_open: int, again: bool = True):
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._place, self._again, self.shed = (host, int(port)), again, 0
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, idle + 16)
        self._idle = [self._dial(address, server, keys) for _ in range(idle)]
        self._selector, self._stop = selectors.DefaultSelector(), threading.Event()
        for number in range(half_open):
            self._half_open(number)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _dial(self, address: str, server: str, keys: tuple[str, str]) -> zmq.Socket:
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.setsockopt(zmq.IMMEDIATE, 1)  # so that it can send only once its handshake is over
        socket.curve_serverkey = server.encode()
        socket.curve_publickey, socket.curve_secretkey = keys[0].encode(), keys[1].encode()
        socket.connect(address)
        return socket

    def _half_open(self, number: int) -> None:
        socket = sockets.create_connection(self._place)
        socket.sendall(GREETINGS[number % len(GREETINGS)])
        socket.setblocking(False)
        self._selector.register(socket, selectors.EVENT_READ, number)

    def _watch(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.1):
                assert isinstance(key.fileobj, sockets.socket)
                try:
                    if key.fileobj.recv(4096):
                        continue  # the port's own greeting
                except OSError:
                    pass
                self.shed += 1
                self._selector.unregister(key.fileobj)
                key.fileobj.close()
                if self._again:
                    self._half_open(key.data)

    def idle(self) -> int:
        """Idle peers whose handshake is over and whose line stands."""
        return sum(bool(socket.poll(0, zmq.POLLOUT)) for socket in self._idle)

    def half_open(self) -> int:
        """Half-open peers that are there."""
        return len(self._selector.get_map())

    def settle(self, timeout_s: float = 60.0) -> bool:
        """Waits until all idle peers' handshakes are over."""
        stop = time.monotonic() + timeout_s
        while self.idle() < len(self._idle):
            if time.monotonic() > stop:
                return False
            time.sleep(0.05)
        return True

    def close(self) -> None:
        """All of them go."""
        self._stop.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, sockets.socket)
            key.fileobj.close()
        self._selector.close()
        for socket in self._idle:
            socket.close()
        self._context.term()


# ---- processes -------------------------------------------------------------------------------------------------------


class Host:
    """The crowd's process: it comes and goes when it is told to."""

    def __init__(self) -> None:
        self._crowd: Crowd | None = None

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """One question of the parent."""
        crowd, self._crowd = self._crowd, None
        if asked["do"] == "count" and crowd is not None:
            self._crowd = crowd
            return {"idle": crowd.idle(), "half_open": crowd.half_open(), "shed": crowd.shed}
        if crowd is not None:
            crowd.close()
        if asked["do"] == "come":
            self._crowd = Crowd(asked["address"], asked["server"], asked["keys"], asked["idle"], asked["half_open"])
            if not self._crowd.settle():
                return {"wrong": f"expected {asked['idle']} idle peers, got {self._crowd.idle()} within a minute"}
        return {}


def honest(asked: dict[str, Any]) -> dict[str, Any]:
    """An honest site, for ever."""
    data = make_blob(asked["site"], asked["size"])
    link = SiteLink(asked["address"], asked["server"], keys_of(asked["keys"]))
    given = (link, asked["site"], data, expect(asked["site"], asked["size"]).sha256)
    threading.Thread(target=offer, args=given, daemon=True).start()
    return {}


class Run:
    """One port, two honest sites, and a crowd.

    Args:
      size: bytes of a blob.
      idle, half_open: the crowd.
      stack: closes all of it.
    """

    def __init__(self, size: int, idle: int, half_open: int, stack: ExitStack):
        server, crowd, sites = new_keys(), new_keys(), [new_keys() for _ in range(HONEST)]
        users = {one.curve_public: name_of(site) for site, one in enumerate(sites)}
        self.link = stack.enter_context(CoordinatorLink("127.0.0.1", 0, server, {**users, crowd.curve_public: "crowd"}))
        self.pids = [os.getpid()]
        self.expected: list[Expected] = [expect(site, size) for site in range(HONEST)]
        about = {"address": self.link.address, "server": server.curve_public}
        self._coming = {**about, "do": "come", "keys": crowd[:2], "idle": idle, "half_open": half_open}
        for site, keys in enumerate(sites):
            process = self._start("site", stack)
            process.ask({**about, "site": site, "size": size, "keys": told(keys)})
            self.pids.append(process.pid)
        self._crowd = self._start("crowd", stack)
        welcome(self.link, HONEST)
        self.seen: dict[str, int] = {}

    def _start(self, role: str, stack: ExitStack) -> Process:
        process = Process("benchmarks.peers", f"--{role}")
        stack.callback(process.close)
        return process

    def transfers(self, with_crowd: bool) -> list[dict[str, float]]:
        """A few transfers with the crowd there, or away."""
        self._crowd.ask(self._coming if with_crowd else {"do": "go"})
        out = []
        for _ in range(TRANSFERS):
            before = cpu_s(self.pids)
            wall = fetch(self.link, self.expected, HONEST)
            out.append({"wall_s": wall, "cpu_s": cpu_s(self.pids) - before})
        if with_crowd:
            self.seen = self._crowd.ask({"do": "count"})
            if self.seen["idle"] < self._coming["idle"] or self.seen["half_open"] < 0.9 * self._coming["half_open"]:
                raise SystemExit(f"expected the whole crowd to be there still, got {self.seen}")
        return out


def run(size: int, repeats: int, idle: int, half_open: int) -> dict[str, Any]:
    """Measures with and without the crowd, in an order shuffled anew each repeat."""
    found: dict[bool, list[list[dict[str, float]]]] = {False: [], True: []}
    shuffle = random.Random(0)
    with ExitStack() as stack:
        run = Run(size, idle, half_open, stack)
        run.transfers(True)
        run.transfers(False)
        for _ in range(repeats):
            for which in shuffle.sample((False, True), 2):
                found[which].append(run.transfers(which))
    out: dict[str, Any] = {"crowd": {"idle": idle, "half_open": half_open, "seen": run.seen}}
    for which, name in ((False, "alone"), (True, "in_a_crowd")):
        runs = [one for few in found[which] for one in few]
        out[name] = {
            "mib_per_s": spread([HONEST * size / MIB / one["wall_s"] for one in runs]),
            "cpu_s": spread([one["cpu_s"] for one in runs]),
        }
    for key in ("wall", "cpu"):
        alone, crowd = ([statistics.median(one[f"{key}_s"] for one in few) for few in found[w]] for w in (False, True))
        paired = spread([b / a - 1 for a, b in zip(alone, crowd, strict=True)])
        slower = statistics.median(crowd) / statistics.median(alone) - 1
        out[f"slower_{key}"] = {"of_medians": common.rounded(slower), "paired": paired}
    slower = out["slower_wall"]  # on a busy machine the two differ: neither may be too much
    return out | {"goal": GOAL, "met": max(slower["of_medians"], slower["paired"]["median"]) < GOAL}


def words(line: Mapping[str, Any]) -> list[str]:
    """The run for a terminal."""
    out = []
    for name in ("alone", "in_a_crowd"):
        speed, cpu = line[name]["mib_per_s"], line[name]["cpu_s"]
        between = f"({speed['min']:.0f} to {speed['max']:.0f})"
        out.append(f"{name:12}{speed['median']:8.0f} MiB/s {between}, CPU {cpu['median']:.2f} s")
    for key in ("wall", "cpu"):
        slower, paired = line[f"slower_{key}"]["of_medians"], line[f"slower_{key}"]["paired"]
        by_repeat = ", ".join(f"{paired[part]:+.1%}" for part in ("min", "median", "max"))
        out.append(f"slower in a crowd, {key} time: {slower:+.1%} (by repeat {by_repeat})")
    return [*out, f"goal, wall time: less than {line['goal']:.0%}: {'met' if line['met'] else 'MISSED'}"]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="a small crowd, small blobs; the times mean nothing")
    parser.add_argument("--repeats", type=int, help=f"of {TRANSFERS} transfers with and without (15; --quick 1)")
    parser.add_argument("--out", type=Path, help="a file that the JSON line is added to")
    parser.add_argument("--site", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--crowd", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args(argv)
    if flags.site or flags.crowd:
        common.serve(honest if flags.site else Host().answer)
        os._exit(0)  # a thread waits in a socket, and nothing is to be kept
    size, idle, half_open = (4 * MIB, 50, 20) if flags.quick else (64 * MIB, 1000, 500)
    repeats = flags.repeats or (1 if flags.quick else 15)
    load = os.getloadavg()[0]
    found = run(size, repeats, idle, half_open)
    about = {"benchmark": "peers", "quick": flags.quick, "n": repeats, "transfers": TRANSFERS, "mib": size // MIB}
    about |= {"machine": common.machine(), "versions": common.versions("pyzmq"), "libzmq": zmq.zmq_version()}
    line = {**about, "load_before": load, "load_after": os.getloadavg()[0], **found}
    print("\n".join(words(line)), file=sys.stderr)
    common.emit(line, flags.out)


if __name__ == "__main__":
    main()
