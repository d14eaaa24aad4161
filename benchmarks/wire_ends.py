"""The ends of the wire benchmark: a coordinator, a site or a bare proxy, each a process that `benchmarks.wire` starts.

Ours: `Receiver` asks a `Holder` by Want, over `CoordinatorLink` and `SiteLink`, or their sealed kind through a broker;
what the drives do for each message (rate limit, admission, strict schema) is done here too.

Bare: a DEALER sends header and chunk to a ROUTER as fast as the sockets take them, when told "go"; no schema, no
window, no digest. Through `zmq.proxy` the coordinator's end is a DEALER that dials in, as ours dials a broker.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import zmq

from benchmarks import common
from benchmarks.wire_blobs import Disagreement, Expected, checks, expect, make_blob
from learner_jax.engines import broker as switch
from learner_jax.errors import RemoteProtocolError
from learner_jax.network import links
from learner_jax.network.brokered import BrokeredLink, SealedSiteLink
from learner_jax.network.enrol import membership
from learner_jax.network.keys import Keys, load_or_make_keys, new_curve, parse_join_code
from learner_jax.network.links import CoordinatorLink, SiteLink
from learner_jax.network.seal import CoordinatorSeal, SiteSeal
from learner_jax.protocol import broker
from learner_jax.protocol import messages as m
from learner_jax.protocol.transfers import Holder, Receiver

STUDY, SCHEMA = "wire", "0" * 64
STALLED_S = 60.0

Link = CoordinatorLink | BrokeredLink


def name_of(site: int) -> str:
    """A site's name on our links."""
    return f"site{site}"


# ---- ours ------------------------------------------------------------------------------------------------------------


def welcome(link: Link, sites: int) -> None:
    """Answers Hello until every site is there."""
    here: set[str] = set()
    stop = time.monotonic() + STALLED_S
    while len(here) < sites:
        if time.monotonic() > stop:
            raise TimeoutError(f"expected {sites} sites, got {sorted(here)}")
        try:
            found = link.recv(1.0)
        except RemoteProtocolError:  # said before this process was met: it will say Hello
            continue
        if found is not None and isinstance(m.decode(found.header, found.user), m.Hello):
            here.add(found.user)
            link.send(found.user, m.encode(m.Pong(STUDY, 1)))


def fetch(link: Link, expected: Sequence[Expected], streams: int) -> float:
    """Seconds to fetch a blob from each of the first sites, by their digests.

    Raises:
      Disagreement: what came is not what was sent.
    """
    begun = time.monotonic()
    meter = broker.Meter()
    blobs = [m.Blob(one.sha256, one.size, SCHEMA) for one in expected[:streams]]
    receivers = {name_of(site): Receiver(STUDY, blob, peer=name_of(site)) for site, blob in enumerate(blobs)}
    left, moved = set(receivers), begun

    def ask(user: str, now: float) -> None:
        for want in receivers[user].wants(now):
            link.send(user, m.encode(want))

    for user in receivers:
        ask(user, begun)
    while left:
        found, now = link.recv(1.0), time.monotonic()
        if found is None:
            if now - moved > STALLED_S:
                raise TimeoutError(f"nothing came for {STALLED_S:.0f} s")
            for user in left:
                ask(user, now)
            continue
        user, _, header, payload = found
        refused = broker.admit(user, len(header), len(payload))
        if refused is not None or not meter.allow(user, now):
            raise Disagreement(f"expected chunks of {user}, got {refused or 'too many messages'}")
        message = m.decode(header, user)
        if not isinstance(message, m.Chunk) or user not in left:
            continue
        try:
            moved = now if receivers[user].take(message, payload, now) else moved
            if receivers[user].complete:
                receivers[user].check()
                left.discard(user)
                continue
        except RemoteProtocolError as error:
            raise Disagreement(str(error)) from None
        ask(user, now)
    return time.monotonic() - begun


def offer(link: SiteLink | SealedSiteLink, site: int, data: bytes, digest: str) -> None:
    """A site's side: says Hello until it is answered, then sends what it is asked for, for ever."""
    holder, met, said = Holder(), False, 0.0
    holder.hold(digest, data)
    hello = m.encode(m.Hello(STUDY, m.PROTOCOL, name_of(site), "", 0))
    while True:
        if not met and link.connected and time.monotonic() - said > 0.5:
            said = time.monotonic()
            link.send(hello)
        found = link.recv(0.1 if not met else 1.0)
        if found is None:
            continue
        met, message = True, m.decode(found[0], "the coordinator")
        if isinstance(message, m.Want):
            for chunk, payload in holder.chunks(message):
                link.send(m.encode(chunk), payload)


# ---- bare sockets ----------------------------------------------------------------------------------------------------


def bare(context: zmq.Context, kind: int, queue: int = links.QUEUE) -> zmq.Socket:
    """A socket with queues as long as ours."""
    socket = context.socket(kind)
    for option, value in ((zmq.LINGER, 0), (zmq.SNDHWM, queue), (zmq.RCVHWM, queue)):
        socket.setsockopt(option, value)
    return socket


def guard(socket: zmq.Socket, secret: str) -> zmq.Socket:
    """Makes it a CURVE server, which lets any key in."""
    socket.curve_server, socket.curve_secretkey = True, secret.encode()
    return socket


def trust(socket: zmq.Socket, server: str) -> zmq.Socket:
    """Makes it a CURVE client of this server."""
    public, secret = new_curve()
    socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = (
        server.encode(), public.encode(), secret.encode(),
    )  # fmt: skip
    return socket


def bound(socket: zmq.Socket) -> str:
    """Binds a free port of the loopback; its address."""
    return f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"


def meet(socket: zmq.Socket, sites: int) -> dict[int, bytes]:
    """Routing ids of the sites, once all have called."""
    routes: dict[int, bytes] = {}
    while len(routes) < sites:
        if not socket.poll(int(STALLED_S * 1000)):
            raise TimeoutError(f"expected {sites} sites, got {sorted(routes)}")
        route, site = socket.recv_multipart()
        routes[int(site)] = route
    return routes


def pour(socket: zmq.Socket, routes: Mapping[int, bytes], expected: Sequence[Expected], streams: int, hashed: bool):
    """Seconds until each of the first sites has sent its blob."""
    begun, left = time.monotonic(), checks(expected, streams, hashed)
    for site in left:
        socket.send_multipart([routes[site], b"go"])
    while left:
        if not socket.poll(int(STALLED_S * 1000)):
            raise TimeoutError(f"nothing came for {STALLED_S:.0f} s")
        _, site, part = socket.recv_multipart(copy=False)
        if left[int(site.bytes)].take(part.buffer):
            del left[int(site.bytes)]
    return time.monotonic() - begun


def send_when_told(socket: zmq.Socket, site: int, data: bytes) -> None:
    """A bare site's side, for ever."""
    name, view = str(site).encode(), memoryview(data)
    socket.send_multipart([name])
    while True:
        socket.recv_multipart()
        for at in range(0, len(view), m.CHUNK):
            socket.send_multipart([name, view[at : at + m.CHUNK]], copy=False)


# ---- processes -------------------------------------------------------------------------------------------------------


class Coordinator:
    """Opens all arms' ports, and takes what comes by the one that is asked for."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}
        self._sockets: dict[str, zmq.Socket] = {}
        self._routes: dict[str, dict[int, bytes]] = {}
        self._context = zmq.Context()
        self._expected: list[Expected] = []

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """One question of the parent."""
        try:
            return {"open": self._open, "meet": self._meet, "run": self._run}[asked.pop("do")](**asked)
        except Disagreement as error:
            return {"wrong": str(error)}

    def _open(self, size: int, keys: list, sites: list, code: str, folder: str, proxy: str, proxy_key: str) -> dict:
        own, known = keys_of(keys), {name_of(i): keys_of(one) for i, one in enumerate(sites)}
        self._expected = [expect(site, size) for site in range(len(sites))]
        users = {one.curve_public: name for name, one in known.items()}
        direct = self._links["ours"] = CoordinatorLink("127.0.0.1", 0, own, users)
        member = membership(code, STUDY, Path(folder))
        seal = CoordinatorSeal(STUDY, own.sign_secret, lambda site: [known[site].sign_public])
        mine = load_or_make_keys(Path(folder) / "keys.json")
        sealed = BrokeredLink(member.address, member.server_public, mine, seal)
        for public, user in users.items():
            sealed.allow(public, user)
        self._links["ours_broker"] = sealed
        addresses = {"ours": direct.address}
        for name in ("bare_curve", "bare_plain"):
            socket = self._sockets[name] = bare(self._context, zmq.ROUTER)
            addresses[name] = bound(guard(socket, own.curve_secret) if name == "bare_curve" else socket)
        back = self._sockets["bare_proxy"] = trust(bare(self._context, zmq.DEALER), proxy_key)
        back.connect(proxy)
        return {"addresses": addresses}

    def _meet(self) -> dict[str, Any]:
        count = len(self._expected)
        for link in self._links.values():
            welcome(link, count)
        self._routes = {name: meet(socket, count) for name, socket in self._sockets.items()}
        return {}

    def _run(self, arm: str, streams: int, hashed: bool) -> dict[str, Any]:
        if arm in self._links:
            return {"wall_s": fetch(self._links[arm], self._expected, streams)}
        return {"wall_s": pour(self._sockets[arm], self._routes[arm], self._expected, streams, hashed)}


class Site:
    """Dials all arms' ports, each in a thread of its own that waits until it is asked."""

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """One question of the parent: begin."""
        return self._begin(**asked)

    def _begin(self, site: int, size: int, keys: list, server: list, addresses: dict, code: str, proxy_key: str):
        own, coordinator = keys_of(keys), keys_of(server)
        data, digest = make_blob(site, size), expect(site, size).sha256
        known = parse_join_code(code)
        seal = SiteSeal(STUDY, name_of(site), own.sign_secret, coordinator.sign_public)
        direct = SiteLink(addresses["ours"], coordinator.curve_public, own)
        sealed = SealedSiteLink(known.address, known.server_public, own, seal)
        context = zmq.Context()
        sockets = {name: bare(context, zmq.DEALER) for name in ("bare_curve", "bare_plain", "bare_proxy")}
        trust(sockets["bare_curve"], coordinator.curve_public)
        trust(sockets["bare_proxy"], proxy_key)
        for link in (direct, sealed):
            _thread(offer, link, site, data, digest)
        for name, socket in sockets.items():
            socket.connect(addresses[name])
            _thread(send_when_told, socket, site, data)
        return {}


def proxied(asked: dict[str, Any]) -> dict[str, Any]:
    """A `zmq.proxy` with CURVE on both legs: its addresses and its key."""
    context, (public, secret) = zmq.Context(), new_curve()
    front = guard(bare(context, zmq.ROUTER, switch.QUEUE), secret)
    back = guard(bare(context, zmq.DEALER, switch.QUEUE), secret)
    addresses = {"front": bound(front), "back": bound(back), "key": public}
    _thread(zmq.proxy, front, back)
    return addresses


def told(keys: Keys) -> list[str]:
    """Keys as JSON."""
    return [keys.curve_public, keys.curve_secret, keys.sign_public.hex(), keys.sign_secret.hex()]


def keys_of(text: Sequence[str]) -> Keys:
    """Keys of JSON."""
    return Keys(text[0], text[1], bytes.fromhex(text[2]), bytes.fromhex(text[3]))


def _thread(work: Callable[..., Any], *given: Any) -> None:
    threading.Thread(target=work, args=given, daemon=True).start()


if __name__ == "__main__":
    common.serve({"coordinator": Coordinator().answer, "site": Site().answer, "proxy": proxied}[sys.argv[1]])
    os._exit(0)  # threads wait in sockets, and nothing is to be kept
