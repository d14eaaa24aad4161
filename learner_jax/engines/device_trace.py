"""Where a compiled round's time goes on its devices: jax's own trace, read by the names that `rounds.scope` gave.

XLA says of each operation that it ran when, on which device, under which name in the compiled program; the program's
text says of each name which scope it was traced in. Where XLA has fused operations of several scopes, the fusion has
the scope of its last one; what XLA has added itself (copies of a loop's carry) has that of the loop it stands in.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from learner_jax.engines.rounds import SCOPE

ROUND = SCOPE + "round"
"""The annotation around a round, with its number as `round`."""
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
_OPERATION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = ")
_PATH = re.compile(r"op_name=\"([^\"]*)\"")
_CALLED = re.compile(r"(?:body|condition|to_apply|calls|true_computation|false_computation|branch_computations|"
                     r"called_computations)=(\{[^}]*\}|%?[\w.\-]+)")  # fmt: skip
_SCOPE = re.compile(re.escape(SCOPE) + r"(\w+)")
_NOISE = ("end: ", "ThreadpoolListener", "ThunkExecutor")
_TO_DEVICE = ("DevicePut", "BatchedDevicePut", "TransferToDevice", "BufferFromHostBuffer", "MakeBuffer")


class Op(NamedTuple):
    """One operation that ran: on which device (-1: the host), of which compiled program, from when to when (ns)."""

    device: int
    module: str
    name: str
    began: float
    ended: float


class Rounds(NamedTuple):
    """What a trace tells.

    Attributes:
      windows: round -> (began, ended), ns.
      ops: of devices.
      transfers: of the host: arrays that it hands to a device.
    """

    windows: Mapping[int, tuple[float, float]]
    ops: list[Op]
    transfers: list[Op]


class Split(NamedTuple):
    """A round's time on its devices.

    Attributes:
      phases: phase -> seconds, on the device that had most to do.
      busy: device -> seconds.
      learning: seconds of learning steps, on all devices.
      steps: seconds of each learning step, on all devices; empty where they cannot be told apart.
      transfer: seconds in which the host handed arrays over.
    """

    phases: dict[str, float]
    busy: dict[int, float]
    learning: float
    steps: list[float]
    transfer: float


def scopes_of(text: str) -> dict[str, str]:
    """Operation -> phase, of a compiled program's text; operations outside of all scopes are not in it.

    An operation without a name of its own, such as a copy, has the scope of the operation that calls its computation.
    """
    own: dict[str, str] = {}
    place: dict[str, str] = {}  # operation -> its computation
    caller: dict[str, str] = {}  # computation -> the operation that calls it
    computation = ""
    for line in text.splitlines():
        opens = _COMPUTATION.match(line)
        if opens:
            computation = opens[1]
            continue
        found = _OPERATION.match(line)
        if not found:
            continue
        name = found[1]
        place[name] = computation
        path = _PATH.search(line)
        inner = _SCOPE.findall(path[1]) if path else []
        if inner:
            own[name] = inner[-1]
        for called in _CALLED.findall(line):
            for one in called.replace("%", "").strip("{}").split(","):
                caller[one.strip()] = name
    scopes = {}
    for name in place:
        at: str | None = name
        while at is not None and at not in own:
            at = caller.get(place[at])
        if at is not None:
            scopes[name] = own[at]
    return scopes


def exclusive(spans: Sequence[tuple[float, float]]) -> list[float]:
    """Of each (began, ended), in any order, its length without those within it."""
    alone = [end - begin for begin, end in spans]
    open_: list[int] = []
    for at in sorted(range(len(spans)), key=lambda at: (spans[at][0], -spans[at][1])):
        begin, end = spans[at]
        while open_ and spans[open_[-1]][1] <= begin:
            open_.pop()
        if open_:
            alone[open_[-1]] -= min(end, spans[open_[-1]][1]) - begin
        open_.append(at)
    return [max(0.0, one) for one in alone]


def read(folder: Path) -> Rounds:
    """The newest trace under a folder.

    Raises:
      FileNotFoundError: there is none.
    """
    files = sorted(folder.glob("plugins/profile/*/*.xplane.pb"))
    if not files:
        raise FileNotFoundError(folder)
    windows: dict[int, tuple[float, float]] = {}
    ops: list[Op] = []
    transfers: list[Op] = []
    for plane in jax.profiler.ProfileData.from_file(str(files[-1])).planes:
        for line in plane.lines:
            for event in line.events:
                name = event.name
                if name.startswith(_NOISE):
                    continue
                begin, end = event.start_ns, event.start_ns + event.duration_ns
                if name.startswith(_TO_DEVICE):
                    transfers.append(Op(-1, "", name, begin, end))
                    continue
                stats = dict(event.stats)
                if name == ROUND:
                    windows[int(stats["round"])] = begin, end
                elif "hlo_op" in stats:
                    module = str(stats.get("hlo_module", ""))
                    ops.append(Op(_device(plane.name, stats), module, str(stats["hlo_op"]), begin, end))
    return Rounds(windows, ops, transfers)


def _device(plane: str, stats: Mapping[str, Any]) -> int:
    if "device_ordinal" in stats:
        return int(stats["device_ordinal"])
    number = re.search(r"(\d+)$", plane)
    return int(number.group(1)) if number else 0


Scopes = Mapping[str, Mapping[str, str]]
"""Of the programs that a round calls: name in a trace -> operation -> phase."""


def phase_of(op: Op, scopes: Scopes) -> str:
    """An operation's phase; what has none stands between sites' steps."""
    return scopes.get(op.module, {}).get(op.name, "boundary")


def split(rounds: Rounds, number: int, scopes: Scopes, steps: int) -> Split:
    """One round's time, by scope.

    Args:
      rounds: the trace.
      number: of the round.
      scopes: of the programs that it calls.
      steps: how often learning steps are run in the round, on all devices; tells which operation comes once a step.
    """
    begin, end = rounds.windows[number]
    by_device: dict[int, list[Op]] = defaultdict(list)
    for op in rounds.ops:
        if op.module in scopes and begin <= op.began < end:
            by_device[op.device].append(op)
    phases: dict[int, dict[str, float]] = {}
    found: list[float] = []
    marker = _marker(by_device, scopes, steps)
    for device, ops in by_device.items():  # not by thread: a CPU's program passes from one to another
        alone = exclusive([(op.began, op.ended) for op in ops])
        mine: dict[str, float] = defaultdict(float)
        for op, took in zip(ops, alone, strict=True):
            mine[phase_of(op, scopes)] += took / 1e9
        phases[device] = dict(mine)
        found += _steps(ops, scopes, marker)
    busy = {device: sum(mine.values()) for device, mine in phases.items()}
    most = max(busy, key=lambda device: busy[device], default=None)
    handed = [(op.began, op.ended) for op in rounds.transfers if begin <= op.began < end]
    return Split(
        {} if most is None else phases[most],
        busy,
        sum(mine.get("step", 0.0) for mine in phases.values()),
        found,
        sum(exclusive(handed)) / 1e9,
    )


def together(rounds: Rounds, scopes: Scopes) -> list[tuple[int, str, float, float]]:
    """(device, phase, began, ended), ns: what each device did in these rounds, neighbours of one phase as one."""
    found: list[tuple[int, str, float, float]] = []
    windows = rounds.windows.values()
    for device in sorted({op.device for op in rounds.ops}):
        mine = [op for op in rounds.ops if op.device == device and any(a <= op.began < b for a, b in windows)]
        for op in sorted(mine, key=lambda op: op.began):
            phase = phase_of(op, scopes)
            last = found[-1] if found and found[-1][0] == device else None
            if last is not None and last[1] == phase:
                found[-1] = device, phase, last[2], max(last[3], op.ended)
            elif last is None or op.ended > last[3]:  # not within a loop of another phase
                found.append((device, phase, max(op.began, last[3]) if last else op.began, op.ended))
    return found


def _marker(by_device: Mapping[int, list[Op]], scopes: Scopes, steps: int) -> tuple[str, str] | None:
    """The longest operation, of which program, that comes once a step; None where there is none."""
    times: dict[tuple[str, str], int] = defaultdict(int)
    took: dict[tuple[str, str], float] = defaultdict(float)
    for ops in by_device.values():
        for op in ops:
            if phase_of(op, scopes) == "step":
                times[op.module, op.name] += 1
                took[op.module, op.name] += op.ended - op.began
    once = [name for name, count in times.items() if count == steps]
    return max(once, key=lambda name: took[name], default=None)


def _steps(ops: list[Op], scopes: Scopes, marker: tuple[str, str] | None) -> list[float]:
    """Seconds of each step on one device: from a marker to the next, or to the last operation of the site's steps."""
    found: list[float] = []
    since: float | None = None
    ended = 0.0
    for op in sorted(ops, key=lambda op: op.began):
        learns, marks = phase_of(op, scopes) == "step", (op.module, op.name) == marker
        if since is not None and (marks or not learns):
            found.append(((op.began if learns else ended) - since) / 1e9)
            since = None
        if marks:
            since = op.began
        if learns:
            ended = max(op.ended, op.began)
    return found + ([(ended - since) / 1e9] if since is not None else [])
