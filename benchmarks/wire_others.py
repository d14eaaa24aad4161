"""Flower's and NVFlare's ends of the wire benchmark, each by its own transport. Needs one of the two, and no jax.

Flower: a client's `FitRes` with one tensor, over the gRPC bidirectional stream of `start_client` and its server. That
transport is deprecated in Flower, and moves an update as one message; its SuperLink is not measured here.
NVFlare: a cell's answer to a request, over the `tcp` driver of its CellNet, in the chunks that it chooses itself.

Both are plain: neither has its TLS on. A site holds its blob as bytes and hands it over when it is asked.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks import common
from benchmarks.wire_blobs import CHUNK, Check, Disagreement, Expected, expect, make_blob

CHANNEL, TOPIC = "wire", "blob"
LIMIT_S = 120.0


def free_port() -> int:
    """A port of the loopback that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


class Coordinator:
    """What both have in common: one thread a stream asks for a blob and checks it."""

    package = ""

    def __init__(self) -> None:
        self._expected: list[Expected] = []

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """One question of the parent."""
        return {"open": self._open, "meet": self._meet, "run": self._run}[asked.pop("do")](**asked)

    def _open(self, size: int, sites: int) -> dict[str, Any]:
        self._expected = [expect(site, size) for site in range(sites)]
        return {"port": self.listen(sites, size), "version": importlib.metadata.version(self.package)}

    def _meet(self) -> dict[str, Any]:
        stop = time.monotonic() + LIMIT_S
        while self.here() < len(self._expected):
            if time.monotonic() > stop:
                raise TimeoutError(f"expected {len(self._expected)} sites, got {self.here()}")
            time.sleep(0.05)
        return {}

    def _run(self, arm: str, streams: int, hashed: bool) -> dict[str, Any]:
        begun = time.monotonic()
        with ThreadPoolExecutor(streams) as pool:
            wrong = list(pool.map(lambda site: self._one(site, hashed), range(streams)))
        seconds = time.monotonic() - begun
        return {"wrong": max(wrong)} if any(wrong) else {"wall_s": seconds}

    def _one(self, site: int, hashed: bool) -> str:
        """Fetches and checks one blob; what was wrong with it."""
        view, check = memoryview(self.fetch(site)), Check(self._expected[site], hashed)
        try:
            whole = [check.take(view[at : at + CHUNK]) for at in range(0, len(view), CHUNK)]
        except Disagreement as error:
            return str(error)
        return "" if whole and whole[-1] else "expected all of it, got less"

    def listen(self, sites: int, size: int) -> int:
        """Opens a port and returns it."""
        raise NotImplementedError

    def here(self) -> int:
        """How many sites have called."""
        raise NotImplementedError

    def fetch(self, site: int) -> Any:
        """A site's bytes."""
        raise NotImplementedError


class Flower(Coordinator):
    """Flower's server, without its loop of rounds."""

    package = "flwr"

    def listen(self, sites: int, size: int) -> int:
        from flwr.server.client_manager import SimpleClientManager  # type: ignore[import-not-found]
        from flwr.server.superlink.fleet.grpc_bidi.grpc_server import start_grpc_server  # type: ignore[import-not-found]

        port, self._manager, self._proxies = free_port(), SimpleClientManager(), {}
        self._server = start_grpc_server(self._manager, f"127.0.0.1:{port}")
        return port

    def here(self) -> int:
        return self._manager.num_available()

    def fetch(self, site: int) -> Any:
        return self._fit(self._proxy(site)).parameters.tensors[0]

    def _proxy(self, site: int) -> Any:
        if not self._proxies:  # a proxy's id is Flower's own: each is asked once who it is
            for proxy in self._manager.all().values():
                self._proxies[int(self._fit(proxy, "who").metrics["site"])] = proxy
        return self._proxies[site]

    def _fit(self, proxy: Any, ask: str = "blob") -> Any:
        from flwr.common import FitIns, Parameters  # type: ignore[import-not-found]

        return proxy.fit(FitIns(Parameters([], ""), {"ask": ask}), timeout=LIMIT_S, group_id=0)


def flower_site(asked: dict[str, Any]) -> dict[str, Any]:
    """A Flower client, for ever."""
    from flwr.client import Client  # type: ignore[import-not-found]
    from flwr.common import Code, FitRes, Parameters, Status  # type: ignore[import-not-found]
    from flwr.compat.client.app import start_client  # type: ignore[import-not-found]

    site, data = asked["site"], make_blob(asked["site"], asked["size"])

    class Holder(Client):
        """Answers with its blob."""

        def fit(self, ins: Any) -> Any:
            tensors = [data] if ins.config["ask"] == "blob" else []
            return FitRes(Status(Code.OK, ""), Parameters(tensors, ""), 1, {"site": site})

    _thread(lambda: start_client(server_address=f"127.0.0.1:{asked['port']}", client=Holder(), insecure=True))
    return {}


class NVFlare(Coordinator):
    """NVFlare's server cell."""

    package = "nvflare"

    def listen(self, sites: int, size: int) -> int:
        port, self._here = free_port(), set()
        self._cell = _cell("server", port)
        self._cell.register_request_cb(channel=CHANNEL, topic="hello", cb=self._hello)
        self._cell.start()
        return port

    def _hello(self, request: Any) -> Any:
        from nvflare.fuel.f3.message import Message  # type: ignore[import-not-found]

        self._here.add(request.payload)
        return Message(None, "welcome")

    def here(self) -> int:
        return len(self._here)

    def fetch(self, site: int) -> Any:
        from nvflare.fuel.f3.message import Message  # type: ignore[import-not-found]

        request = Message(None, "please")
        reply = self._cell.send_request(CHANNEL, TOPIC, f"site-{site}", request, timeout=LIMIT_S)
        return reply.payload if isinstance(reply.payload, bytes | bytearray | memoryview) else b""


def nvflare_site(asked: dict[str, Any]) -> dict[str, Any]:
    """NVFlare's cell of a site, for ever."""
    from nvflare.fuel.f3.message import Message  # type: ignore[import-not-found]

    name, data = f"site-{asked['site']}", make_blob(asked["site"], asked["size"])
    cell = _cell(name, asked["port"])
    cell.register_request_cb(channel=CHANNEL, topic=TOPIC, cb=lambda request: Message(None, data))
    cell.start()

    def call() -> None:
        while cell.send_request(CHANNEL, "hello", "server", Message(None, name), timeout=5).payload != "welcome":
            time.sleep(0.2)

    _thread(call)
    return {}


def _cell(name: str, port: int) -> Any:
    from nvflare.fuel.f3.cellnet.cell import Cell  # type: ignore[import-not-found]

    return Cell(fqcn=name, root_url=f"tcp://127.0.0.1:{port}", secure=False, credentials={})


def _thread(work: Callable[[], Any]) -> None:
    threading.Thread(target=work, daemon=True).start()


ROLES = {"flower": (Flower, flower_site), "nvflare": (NVFlare, nvflare_site)}


def main(arguments: Sequence[str]) -> None:
    """`flower coordinator`, `nvflare site`, ...: what they print themselves goes to stderr."""
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    logging.disable(logging.ERROR)  # Flower tells of each message, NVFlare of each call before the line is there
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    kind, role = arguments
    coordinator, site = ROLES[kind]
    common.serve(coordinator().answer if role == "coordinator" else site)
    os._exit(0)  # threads wait in sockets, and nothing is to be kept


if __name__ == "__main__":
    main(sys.argv[1].split("-"))
