"""A simulated FedAvg round of ours beside other frameworks: the same rows, batches, start, loss and optimizer.

    python -m benchmarks.simulator_peers --work=W1 --torch_python=peers/torch/bin/python --flower_python=... --out=FILE
    python -m benchmarks.simulator_peers --quick      tiny sizes: does it run, do the weights agree

The works are those of `benchmarks.simulator`. Each peer runs in a Python of its own, named by its flag; how it is made
stands at the top of its file, benchmarks/peer_NAME.py, with what the peer does there. One without a flag is left out,
and one that can't do its first round too; the line says so under "not_run".

Every arm is a process of its own, started before the first timing, with one thread (an arm of two cores: two devices,
threads or workers of one thread). Before anything is timed, each arm's weights after one round are compared with those
of every site alone, averaged by hand; a difference ends the run. With Adam a round of many steps can't be compared so:
it magnifies rounding until two right programs are far apart. There each peer first does a short round, of each site's
first two batches and its last, which is compared; of a whole round it is only asked that it lies within WHOLE.

Then all are timed in turn, in an order shuffled anew in each repeat. A call of ours has the plan of the next round in
it; peers have theirs ready. A peer that does whole jobs alone does one of `--rounds` rounds in each repeat, and the
median of its rounds after the first counts: its start-up, which the first has in it, is told apart.

start_up_s    from starting the process to its first answer: imports, reading the work, building
first_s       the first call, compiling included; of a peer that does jobs, a job of one round
peak          bytes at most, imports included (VmHWM); of a peer with several processes, of all that it starts. Ours
              make the rows that peers read from a file and hold them more than once meanwhile: not to be compared
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import common, peer_work
from benchmarks.simulator import apart, check
from benchmarks.simulator_arms import QUICKS, WORKS, Sizes

NAMES = tuple(name for name, sizes in WORKS.items() if name != "T10000" and sizes.method == "fedavg")


class Peer(NamedTuple):
    """A peer's file and arms.

    Attributes:
      module: of benchmarks.
      packages: what its Python must be able to import.
      arms: name -> cores that it may use.
      networks: whether it has other networks than perceptrons.
      jobs: whether it does whole jobs of several rounds alone.
    """

    module: str
    packages: tuple[str, ...]
    arms: Mapping[str, int]
    jobs: bool = False
    networks: bool = False


PEERS = {
    "torch": Peer(
        "benchmarks.peer_torch", ("torch",), {"torch_centralised": 1, "torch": 1, "torch_optim": 1}, networks=True
    ),
    "fedjax": Peer("benchmarks.peer_fedjax", ("fedjax",), {"fedjax": 1, "fedjax_2": 2}),
    "drjax": Peer("benchmarks.peer_drjax", ("drjax",), {"drjax": 1}),
    "flower": Peer("benchmarks.peer_flower", ("flwr", "ray", "torch"), {"flower": 1, "flower_2": 2}, jobs=True),
    "nvflare": Peer("benchmarks.peer_nvflare", ("nvflare", "torch"), {"nvflare": 2}, jobs=True),
    "pfl": Peer("benchmarks.peer_pfl", ("pfl", "torch"), {"pfl": 1}),
    "blazefl": Peer("benchmarks.peer_blazefl", ("blazefl", "torch"), {"blazefl": 1, "blazefl_2": 2}),
}
OURS = {"scan": 1, "sequential": 1, "streams_2": 2}
"""`scan` is no round: one model over all batches in one jit, as `torch_centralised` is it for PyTorch."""
CENTRALISED = ("scan", "torch_centralised")
OVER = {1: "sequential", 2: "streams_2"}
"""Cores -> the arm of ours that arms of so many cores are compared with."""
WHOLE = 0.5
"""||w - by hand|| / ||by hand - start|| of a whole round with Adam. In W2 Adam in float64 with the corrections of its
bias once in float32 is at 0.2 from itself; PyTorch's in float64 is at 4e-15 from it by hand in float64."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def open_process(
    module: str, arguments: Sequence[str], devices: int, python: str | None, environment: Mapping[str, str]
) -> common.Process:
    """An arm's process, of one thread a device."""
    return common.Process(module, arguments, 1, devices, python, environment)


class Arm(NamedTuple):
    """A process that does one arm: `told` is what it said of itself."""

    process: common.Process
    name: str
    cores: int
    told: dict[str, Any]

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """One question.

        Raises:
          RuntimeError: the peer raised, or its process ended.
        """
        answer = self.process.ask({"do": do, "arm": self.name, **more})
        if "failed" in answer:
            raise RuntimeError(f"'{self.name}' failed: {answer['failed']}")
        return answer


def start(name: str, cores: int, process: common.Process) -> Arm:
    """Waits for a process that has just been started.

    Raises:
      RuntimeError: it can't do its work.
    """
    began = time.perf_counter()
    told = Arm(process, name, cores, {}).ask("describe")
    return Arm(process, name, cores, {**told, "start_up_s": common.rounded(time.perf_counter() - began)})


def missing(python: str | None, peer: Peer, flag: str) -> str | None:
    """Why a peer can't run, or None."""
    if python is None:
        return f"no Python was named by --{flag}"
    try:
        code = "; ".join(f"import {package}" for package in peer.packages)
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"its Python does not start: {error.strerror}"
    return (done.stderr.strip().splitlines() or ["it does not import"])[-1] if done.returncode else None


class Run:
    """All processes of a run.

    Args:
      arguments: of our own processes, which name the work.
      sizes: of the work.
      pythons: peer -> its Python or None.
      folder: for the work and weights.
      stack: closes the processes.
      peers: what can be run.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        sizes: Sizes,
        pythons: Mapping[str, str | None],
        folder: Path,
        stack: ExitStack,
        peers: Mapping[str, Peer] = PEERS,
    ):
        self._folder, self._stack = folder, stack
        self.arms: dict[str, Arm] = {}
        self.not_run: dict[str, str] = {}
        self.leaves: dict[str, list[np.ndarray]] = {}
        self.first_s: dict[str, float] = {}
        self.versions: dict[str, dict[str, str]] = {}
        # ---- ours, one of which writes the work
        for name, cores in OURS.items():
            self._begin(name, cores, "benchmarks.simulator", ["--serve", *arguments], None)
        self.arms["scan"].ask("write", into=str(folder / "work.npz"))
        self.work = {key: self.arms["scan"].told[key] for key in ("steps", "rows", "longest_steps", "padded_steps")}
        for name in OURS:
            self._first(self.arms[name], self.arms[name].name)
        self._first(self.arms["scan"], "by_hand")
        self.start = _load(folder / "start.npz")
        self.short: dict[str, list[np.ndarray]] = {}
        if sizes.grows:
            files = {name: folder / f"short-{name}.npz" for name in ("by_hand", "scan")}
            into = str(folder / "short.npz")
            self.arms["scan"].ask("short", into=into, **{name: str(file) for name, file in files.items()})
            self.short = {name: _load(file) for name, file in files.items()}
        # ---- theirs
        for name, peer in peers.items():
            why = missing(pythons.get(name), peer, f"{name}_python")
            if sizes.network != "perceptron" and not peer.networks:
                why = "its file here has perceptrons alone"
            if why is not None:
                self.not_run[name] = why
                continue
            for arm, cores in peer.arms.items():
                try:
                    if self.short:
                        self._short(arm, cores, peer.module, pythons[name])
                    self._begin(arm, cores, peer.module, [arm, str(folder / "work.npz")], pythons[name])
                    self._first(self.arms[arm], arm)
                    self.versions[name] = self.arms[arm].told["versions"]
                except (RuntimeError, OSError) as error:
                    self.arms.pop(arm, None)
                    self.not_run[arm] = str(error)
                _say(f"{arm}: " + (self.not_run.get(arm) or f"first call {self.first_s[arm]} s"))

    def _begin(self, name: str, cores: int, module: str, arguments: Sequence[str], python: str | None) -> None:
        more = {**ONE_THREAD, peer_work.MARK: f"{self._folder}:{name}"}
        devices = 1 if module == "benchmarks.simulator" and name != "streams_2" else cores
        process = open_process(module, arguments, devices, python, more)
        self._stack.callback(process.close)
        self.arms[name] = start(name, cores, process)

    def _short(self, name: str, cores: int, module: str, python: str | None) -> None:
        more = {**ONE_THREAD, peer_work.MARK: f"{self._folder}:{name}:short"}
        process = open_process(module, [name, str(self._folder / "short.npz")], cores, python, more)
        try:
            into = self._folder / "weights.npz"
            Arm(process, name, cores, {}).ask("first", into=str(into))
            self.short[name] = _load(into)
        finally:
            process.close()

    def _first(self, arm: Arm, name: str) -> None:
        into = self._folder / "weights.npz"
        asked = {"do": "first", "arm": name, "into": str(into), "start": str(self._folder / "start.npz")}
        answer = Arm(arm.process, name, arm.cores, {}).ask(**asked)
        self.leaves[name], self.first_s[name] = _load(into), answer["first_s"]


def _load(file: Path) -> list[np.ndarray]:
    with np.load(file, allow_pickle=False) as parts:
        return [parts[name] for name in parts.files]


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def agreement(leaves: Mapping[str, list[np.ndarray]], start: list[np.ndarray], optimizer: str) -> dict[str, float]:
    """How far each round is from the sites averaged by hand, and each loop of one model from ours.

    Args:
      leaves: arm -> weights after one round; "by_hand" and "scan" among them.
      start: the weights before it.
      optimizer: "sgd" or "adam".

    Returns:
      arm -> ||w - reference|| / ||reference - start||.

    Raises:
      ValueError: an arm is further off than rounding explains, or hands over weights of other shapes.
    """
    out = {}
    for arm, found in leaves.items():
        kind, reference = ("centralised", "scan") if arm in CENTRALISED else ("rounds", "by_hand")
        if [leaf.shape for leaf in found] != [leaf.shape for leaf in start]:
            raise ValueError(
                f"expected weights of shapes {[leaf.shape for leaf in start]} from '{arm}', "
                f"got {[leaf.shape for leaf in found]}"
            )
        if arm != reference:
            out[arm] = check(kind, {reference: leaves[reference], arm: found}, reference, start, optimizer)
    return out


def far(leaves: Mapping[str, list[np.ndarray]], start: list[np.ndarray]) -> dict[str, float]:
    """How far each round is from the sites averaged by hand, where rounding alone may take it far.

    Raises:
      ValueError: further than WHOLE.
    """
    rounds = {arm: found for arm, found in leaves.items() if arm not in CENTRALISED}
    out = {arm: common.rounded(apart(found, leaves["by_hand"], start)) for arm, found in rounds.items()}
    for arm, distance in out.items():
        if not distance <= WHOLE:
            raise ValueError(f"expected the weights of '{arm}' within {WHOLE} of those of 'by_hand', got {distance}")
    return out


def run(
    name: str,
    sizes: Sizes,
    repeats: int,
    rounds: int,
    arguments: Sequence[str],
    pythons: Mapping[str, str | None],
    peers: Mapping[str, Peer] = PEERS,
) -> dict[str, Any]:
    """One run's line.

    Args:
      name: of the work.
      sizes: of the work.
      repeats: how often each arm is timed.
      rounds: of a job, 2 at least.
      arguments: name the work to our own processes.
      pythons: peer -> its Python or None.
      peers: what can be run.

    Raises:
      ValueError: an arm's weights are not those of the work.
      RuntimeError: an arm failed after its first round.
    """
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        run = Run(arguments, sizes, pythons, Path(folder), stack, peers)
        if run.short:
            agreed, whole = agreement(run.short, run.start, sizes.optimizer), far(run.leaves, run.start)
        else:
            agreed, whole = agreement(run.leaves, run.start, sizes.optimizer), {}
        measured = common.interleave(
            {key: lambda arm=arm: arm.ask("time", rounds=rounds) for key, arm in run.arms.items()}, repeats
        )
        peaks = {key: arm.ask("peak") for key, arm in run.arms.items()}
    jobs = {arm for peer in peers.values() if peer.jobs for arm in peer.arms}
    return {
        "benchmark": "simulator_peers",
        "name": name,
        "quick": sizes != WORKS.get(name),
        "inputs": "synthetic",
        "sizes": sizes._asdict(),
        "work": run.work,
        "n": repeats,
        "rounds_of_a_job": rounds,
        "ratio_to_ours": {
            key: {"over": OVER[arm.cores], **common.ratio(measured[key], measured[OVER[arm.cores]])}
            for key, arm in run.arms.items()
            if key not in OVER.values()
        },
        "a_site_ms": {
            key: {part: common.rounded(1000 * common.median(measured[key], f"{part}_s") / sizes.cohort)
                  for part in ("wall", "cpu")}
            for key in run.arms if key not in CENTRALISED
        },
        "arms": {
            key: {
                "cores": arm.cores,
                "timed": "rounds of a job" if key in jobs else "calls",
                "wall_s": common.summary([one["wall_s"] for one in measured[key]]),
                "cpu_s": common.summary([one["cpu_s"] for one in measured[key]]),
                "first_s": run.first_s[key],
                "start_up_s": arm.told["start_up_s"],
                **peaks[key],
                "agreement": agreed.get(key),
                **({"agreement_of_whole": whole[key]} if key in whole else {}),
            }
            for key, arm in run.arms.items()
        },
        "not_run": run.not_run,
        "load_before": common.rounded(load),
        "machine": common.machine(),
        "versions": {"ours": common.versions("jax", "jaxlib", "flax", "optax", "numpy"), **run.versions},
    }  # fmt: skip


def told(line: Mapping[str, Any]) -> list[str]:
    """The run as a table, for a terminal."""
    out = [
        f"{'':20}{'cores':>6}{'wall ms':>11}{'(quartiles)':>22}{'CPU ms':>11}{'ms a site':>11}{'over ours':>11}"
        f"{'first s':>9}{'start s':>9}{'peak MB':>9}{'apart':>10}"
    ]
    for name, arm in line["arms"].items():
        wall, cpu = arm["wall_s"], arm["cpu_s"]
        spread = f"({wall['q1'] * 1e3:.1f} to {wall['q3'] * 1e3:.1f})"
        apart_ = "" if arm["agreement"] is None else f"{arm['agreement']:.1e}"
        site = f"{line['a_site_ms'][name]['wall']:.3f}" if name in line["a_site_ms"] else ""
        ratio = f"{line['ratio_to_ours'][name]['wall']['ratio']:.2f}" if name in line["ratio_to_ours"] else ""
        out.append(
            f"{name:20}{arm['cores']:6}{wall['median'] * 1e3:11.1f}{spread:>22}{cpu['median'] * 1e3:11.1f}"
            f"{site:>11}{ratio:>11}{arm['first_s']:9.2f}"
            f"{arm['start_up_s']:9.1f}{arm['peak'] / 1e6:9.0f}{apart_:>10}"
        )
    return out + [f"{name} was left out: {why}" for name, why in line["not_run"].items()]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.simulator_peers", description="A simulated round of ours beside other frameworks."
    )
    parser.add_argument("--work", choices=NAMES, default="W1", help="what is run (W1)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; the times mean nothing")
    parser.add_argument("--repeats", type=int, help="how often each arm is timed (7; with --quick 2)")
    parser.add_argument("--rounds", type=int, help="of a job of a peer that does whole jobs (4; with --quick 2)")
    parser.add_argument("--out", type=Path, help="a file that the JSON line is added to")
    for name in PEERS:
        parser.add_argument(f"--{name}_python", help=f"a Python for peer_{name}.py")
    flags = parser.parse_args(argv)
    rounds = flags.rounds or (2 if flags.quick else 4)
    if rounds < 2:
        parser.error(f"expected --rounds of 2 at least, got {rounds}: the first of a job does not count")
    handed_on = [f"--work={flags.work}", *(["--quick"] if flags.quick else [])]
    line = run(
        flags.work,
        (QUICKS if flags.quick else WORKS)[flags.work],
        flags.repeats or (2 if flags.quick else 7),
        rounds,
        handed_on,
        {name: getattr(flags, f"{name}_python") for name in PEERS},
    )
    _say("\n".join(told(line)))
    common.emit(line, flags.out)


if __name__ == "__main__":
    main()
