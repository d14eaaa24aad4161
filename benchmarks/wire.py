"""How fast updates travel, beside bare sockets in the same arrangement.

    python -m benchmarks.wire                       one JSON line (10 minutes)
    python -m benchmarks.wire --quick               tiny sizes: does it run, do the bytes agree; the times mean nothing
    python -m benchmarks.wire --grpc_python=PATH --flower_python=PATH --nvflare_python=PATH
                                                    Pythons that have gRPC, Flower, NVFlare, where this one has not

Site processes send blobs to a coordinator process over the loopback, one stream or four. The coordinator's clock runs
from its asking until the last byte is here and checked. Ends that differ in bytes end the run with status 1.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.wire_ends import STUDY, told
from learner_jax.network.keys import new_keys

GOAL = 0.8
MIB = 2**20
STREAMS = (1, 4)

# arm -> (what the ends call it, whether the coordinator hashes what comes)
ZMQ = {
    "ours": ("ours", True),
    "bare_curve": ("bare_curve", False),
    "bare_curve_sha256": ("bare_curve", True),
    "bare_plain": ("bare_plain", False),
    "ours_broker": ("ours_broker", True),
    "bare_proxy": ("bare_proxy", False),
    "bare_proxy_sha256": ("bare_proxy", True),
}
OTHERS = {"flower": "flwr", "nvflare": "nvflare"}  # arm -> what must be installed where it runs
GRPC = {"grpc_plain": ("grpc_plain", False), "grpc_tls": ("grpc_tls", False), "grpc_tls_sha256": ("grpc_tls", True)}

# (ours, over what, the goal for the ratio of throughputs or None)
RATIOS = (
    ("ours", "bare_curve_sha256", GOAL),
    ("ours", "bare_curve", None),
    ("ours", "bare_plain", None),
    ("ours_broker", "bare_proxy_sha256", GOAL),
    ("ours_broker", "bare_proxy", None),
    ("ours", "grpc_tls_sha256", None),
    ("ours", "grpc_plain", None),
    ("ours", "flower", None),
    ("ours", "nvflare", None),
)


class Process(common.Process):
    """A process of the run: `python -m module role`, and what it has cost so far."""

    def __init__(self, module: str, role: str, python: str = sys.executable):
        self._process = subprocess.Popen(
            [python, "-m", module, role], cwd=common.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one question; ends the run where the bytes are wrong."""
        answer = super().ask(question)
        if "wrong" in answer:
            raise SystemExit(f"{question.get('arm')}, {question.get('streams')} streams: {answer['wrong']}")
        return answer


def cpu_s(pids: Sequence[int]) -> float:
    """CPU seconds of these processes so far, all threads."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    found = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    return {name: common.rounded(value) for name, value in found.items()}


class Run:
    """All processes of the run, and the arms that they can play.

    Args:
      size: bytes of a blob.
      pythons: "grpc", "flower", "nvflare" -> a Python that has it, or None.
      stack: closes the processes.
    """

    def __init__(self, size: int, pythons: Mapping[str, str | None], stack: ExitStack):
        self._size, self._stack = size, stack
        self.pids: list[int] = []
        self.homes: dict[str, tuple[Process, str, bool]] = {}
        self.not_run: dict[str, str] = {}
        self.versions = common.versions("pyzmq", "cryptography", "msgpack")
        self._zmq()
        for name, module in {"grpc": "grpc", **OTHERS}.items():
            python = next((path for path in (sys.executable, pythons.get(name)) if path and _has(path, module)), None)
            if python is None:
                self.not_run[name] = f"'{module}' is not installed; name a Python that has it by --{name}_python"
            elif name == "grpc":
                self._grpc(python)
            else:
                self._other(name, python)

    def _start(self, module: str, role: str, python: str = sys.executable) -> Process:
        process = Process(module, role, python)
        self._stack.callback(process.close)
        self.pids.append(process.pid)
        return process

    def _zmq(self) -> None:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        code = self._broker(folder / "broker")
        proxy = self._start("benchmarks.wire_ends", "proxy").ask({})
        own, keys = told(new_keys()), [told(new_keys()) for _ in range(max(STREAMS))]
        coordinator = self._start("benchmarks.wire_ends", "coordinator")
        shared = {"size": self._size, "code": code, "proxy_key": proxy["key"]}
        opening = {"keys": own, "sites": keys, "folder": str(folder / "member"), "proxy": proxy["back"]}
        addresses = coordinator.ask({"do": "open", **shared, **opening})["addresses"]
        for site, key in enumerate(keys):
            process = self._start("benchmarks.wire_ends", "site")
            places = {**addresses, "bare_proxy": proxy["front"]}
            process.ask({**shared, "site": site, "keys": key, "server": own, "addresses": places})
        coordinator.ask({"do": "meet"})
        self.homes |= {arm: (coordinator, *how) for arm, how in ZMQ.items()}

    def _broker(self, folder: Path) -> str:
        """Starts `learner broker`; the join code for the coordinator."""
        command = [sys.executable, "-m", "learner_jax", "broker", f"--coordinators={STUDY}", f"--workdir={folder}"]
        process = subprocess.Popen(
            [*command, "--port=0"], cwd=common.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._stack.callback(process.wait, 10)
        self._stack.callback(process.terminate)
        self.pids.append(process.pid)
        path, stop = folder / "join" / f"{STUDY}.code", time.monotonic() + 30
        while not path.exists():
            if process.poll() is not None or time.monotonic() > stop:
                raise RuntimeError("the broker did not start")
            time.sleep(0.05)
        return path.read_text().strip()

    def _grpc(self, python: str) -> None:
        key, certificate = _certificate()
        sites, coordinator = max(STREAMS), self._start("benchmarks.wire_grpc", "coordinator", python)
        opened = coordinator.ask(
            {"do": "open", "size": self._size, "sites": sites, "key": key, "certificate": certificate}
        )
        self.versions["grpcio"] = opened["version"]
        for site in range(sites):
            process = self._start("benchmarks.wire_grpc", "site", python)
            process.ask({"site": site, "size": self._size, "ports": opened["ports"], "certificate": certificate})
        self.homes |= {arm: (coordinator, *how) for arm, how in GRPC.items()}

    def _other(self, name: str, python: str) -> None:
        sites, coordinator = max(STREAMS), self._start("benchmarks.wire_others", f"{name}-coordinator", python)
        opened = coordinator.ask({"do": "open", "size": self._size, "sites": sites})
        self.versions[OTHERS[name]] = opened["version"]
        for site in range(sites):
            process = self._start("benchmarks.wire_others", f"{name}-site", python)
            process.ask({"site": site, "size": self._size, "port": opened["port"]})
        coordinator.ask({"do": "meet"})
        self.homes[name] = (coordinator, name, False)

    def move(self, arm: str, streams: int, hashed: bool | None = None) -> dict[str, float]:
        """Moves a blob a stream: {"wall_s", "cpu_s"}, CPU time of all processes."""
        process, name, hashes = self.homes[arm]
        before = cpu_s(self.pids)
        asked = {"do": "run", "arm": name, "streams": streams, "hashed": hashes if hashed is None else hashed}
        measured = process.ask(asked)
        return {"wall_s": measured["wall_s"], "cpu_s": cpu_s(self.pids) - before}


def _has(python: str, module: str) -> bool:
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode == 0


def _certificate() -> tuple[str, str]:
    """A key and its certificate for localhost, PEM, good for an hour."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, *form)
    return secret.decode(), made.public_bytes(serialization.Encoding.PEM).decode()


def throughput(size: int, repeats: int, pythons: Mapping[str, str | None]) -> dict[str, Any]:
    """Measures all arms in turn."""
    with ExitStack() as stack:
        run = Run(size, pythons, stack)
        for arm in run.homes:
            for streams in STREAMS:
                run.move(arm, streams, hashed=True)  # untimed: all bytes of each arm against their digest
        arms: dict[str, Callable[[], dict[str, float]]] = {}
        for arm in run.homes:
            for streams in STREAMS:
                arms[f"{arm} x{streams}"] = lambda arm=arm, streams=streams: run.move(arm, streams)
        measured = common.interleave(arms, repeats)
    return {
        "arms": {name: _arm(name, runs, size) for name, runs in measured.items()},
        "ratios": _ratios(measured),
        "not_run": run.not_run,
        "versions": run.versions,
    }


def _moved(name: str, size: int) -> int:
    return size * int(name.rpartition("x")[2])


def _arm(name: str, runs: list[dict[str, float]], size: int) -> dict[str, Any]:
    moved = _moved(name, size)
    return {
        "mib_per_s": spread([moved / MIB / one["wall_s"] for one in runs]),
        "cpu_s_per_gib": spread([one["cpu_s"] * 2**30 / moved for one in runs]),
    }


def _ratios(measured: Mapping[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Throughput of ours over another's: of the medians, and repeat by repeat."""
    out = []
    for ours, other, goal in RATIOS:
        for streams in STREAMS:
            a, b = (measured.get(f"{arm} x{streams}") for arm in (ours, other))
            if not a or not b:
                continue
            ratio = common.median(b, "wall_s") / common.median(a, "wall_s")
            paired = spread([y["wall_s"] / x["wall_s"] for x, y in zip(a, b, strict=True)])
            found = {"ours": ours, "over": other, "streams": streams, "ratio": common.rounded(ratio), "paired": paired}
            cpu = common.median(a, "cpu_s") / max(0.01, common.median(b, "cpu_s"))
            found["cpu"] = common.rounded(cpu)
            out.append(found | ({"goal": goal, "met": ratio >= goal} if goal is not None else {}))
    return out


def words(line: Mapping[str, Any]) -> list[str]:
    """The run for a terminal."""
    out = [f"{'':26}{'MiB/s':>8}{'(min to max)':>20}{'CPU s/GiB':>12}"]
    for name, arm in line["arms"].items():
        speed, cpu = arm["mib_per_s"], arm["cpu_s_per_gib"]
        between = f"({speed['min']:.0f} to {speed['max']:.0f})"
        out.append(f"{name:26}{speed['median']:8.0f}{between:>20}{cpu['median']:12.2f}")
    for found in line["ratios"]:
        paired = found["paired"]
        goal = f"; goal {found['goal']}: {'met' if found['met'] else 'MISSED'}" if "goal" in found else ""
        out.append(
            f"{found['ours']} over {found['over']}, x{found['streams']}: {found['ratio']:.2f} of its speed "
            f"(by repeat {paired['min']:.2f}, {paired['median']:.2f}, {paired['max']:.2f}), "
            f"{found['cpu']:.2f} of its CPU time{goal}"
        )
    out += [f"{name} did not run: {why}" for name, why in line["not_run"].items()]
    return out


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.wire", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes; the times mean nothing")
    parser.add_argument("--repeats", type=int, help="how often each arm is timed (9; with --quick 2)")
    parser.add_argument("--mib", type=int, help="MiB of each stream's blob (256; with --quick 4)")
    for name in ("grpc", *OTHERS):
        what = OTHERS.get(name, "grpcio")
        parser.add_argument(f"--{name}_python", help=f"a Python interpreter that has {what}, where this one has not")
    parser.add_argument("--out", type=Path, help="a file that the JSON line is added to")
    flags = parser.parse_args(argv)
    size, repeats = flags.mib or (4 if flags.quick else 256), flags.repeats or (2 if flags.quick else 9)
    load = os.getloadavg()[0]
    found = throughput(size * MIB, repeats, {name: getattr(flags, f"{name}_python") for name in ("grpc", *OTHERS)})
    about = {"benchmark": "wire", "quick": flags.quick, "n": repeats, "mib": size, "machine": common.machine()}
    loads = {"load_before": load, "load_after": os.getloadavg()[0]}
    line = {**about, **loads, **found}
    print("\n".join(words(line)), file=sys.stderr)
    common.emit(line, flags.out)


if __name__ == "__main__":
    main()
