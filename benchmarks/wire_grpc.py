"""gRPC's ends of the wire benchmark: client streaming, the same chunks. Needs grpcio alone, so that any Python will do.

A site asks `Wait`, which the coordinator answers when it wants the blob; then it streams it by `Upload`. Plain, or TLS
with a certificate of the run.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from benchmarks import common
from benchmarks.wire_blobs import CHUNK, Check, Disagreement, Expected, checks, expect, make_blob

OPTIONS = [("grpc.max_receive_message_length", 2 * CHUNK), ("grpc.max_send_message_length", 2 * CHUNK)]
WAIT, UPLOAD = "/wire/Wait", "/wire/Upload"


class Coordinator(grpc.GenericRpcHandler):
    """The server of both kinds."""

    def __init__(self) -> None:
        self._go: dict[tuple[str, int], queue.SimpleQueue[bool]] = {}
        self._ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._expected: list[Expected] = []
        self._checks: dict[int, Check] = {}

    def service(self, handler_call_details: Any) -> Any:
        """gRPC's question: who handles this method?"""
        if handler_call_details.method == WAIT:
            return grpc.unary_unary_rpc_method_handler(self._wait)
        return grpc.stream_unary_rpc_method_handler(self._upload)

    def _wait(self, asked: bytes, _: Any) -> bytes:
        kind, site = asked.decode().split()
        self._go[kind, int(site)].get()
        return b"go"

    def _upload(self, parts: Iterator[bytes], context: Any) -> bytes:
        site = int(dict(context.invocation_metadata())["site"])
        try:
            whole = [self._checks[site].take(part) for part in parts]
            self._ended.put("" if whole and whole[-1] else "expected all chunks, got fewer")
        except Disagreement as error:
            self._ended.put(str(error))
        return b""

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """One question of the parent."""
        return {"open": self._open, "run": self._run}[asked.pop("do")](**asked)

    def _open(self, size: int, sites: int, key: str, certificate: str) -> dict[str, Any]:
        self._expected = [expect(site, size) for site in range(sites)]
        self._go = {(kind, site): queue.SimpleQueue() for kind in ("plain", "tls") for site in range(sites)}
        server = self._server = grpc.server(ThreadPoolExecutor(4 * sites), handlers=[self], options=OPTIONS)
        tls = grpc.ssl_server_credentials([(key.encode(), certificate.encode())])
        ports = {"plain": server.add_insecure_port("127.0.0.1:0"), "tls": server.add_secure_port("127.0.0.1:0", tls)}
        server.start()
        return {"ports": ports, "version": grpc.__version__}

    def _run(self, arm: str, streams: int, hashed: bool) -> dict[str, Any]:
        self._checks = checks(self._expected, streams, hashed)
        begun = time.monotonic()
        for site in range(streams):
            self._go[arm.removeprefix("grpc_"), site].put(True)
        wrong = [self._ended.get(timeout=120) for _ in range(streams)]
        seconds = time.monotonic() - begun
        return {"wrong": max(wrong)} if any(wrong) else {"wall_s": seconds}


def begin(asked: dict[str, Any]) -> dict[str, Any]:
    """A site: one thread a kind, for ever."""
    data = make_blob(asked["site"], asked["size"])
    for kind, port in asked["ports"].items():
        place = f"localhost:{port}"
        if kind == "tls":
            credentials = grpc.ssl_channel_credentials(asked["certificate"].encode())
            channel = grpc.secure_channel(place, credentials, OPTIONS)
        else:
            channel = grpc.insecure_channel(place, OPTIONS)
        threading.Thread(target=_serve, args=(channel, kind, asked["site"], data), daemon=True).start()
    return {}


def _serve(channel: grpc.Channel, kind: str, site: int, data: bytes) -> None:
    wait, upload = channel.unary_unary(WAIT), channel.stream_unary(UPLOAD)
    while True:
        wait(f"{kind} {site}".encode())
        parts = (data[at : at + CHUNK] for at in range(0, len(data), CHUNK))
        upload(parts, metadata=(("site", str(site)),))


if __name__ == "__main__":
    common.serve({"coordinator": Coordinator().answer, "site": begin}[sys.argv[1]])
    os._exit(0)  # threads wait in sockets, and nothing is to be kept
