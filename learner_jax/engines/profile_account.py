"""What is made of what a profiler has heard: phases of the device, steps, padding, streams, sites, and a drawing.

Pure but for `peak_flops`, which measures, and `perfetto`, which compresses.
"""

from __future__ import annotations

import gzip
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from learner_jax.engines import device_trace

Amounts = Mapping[str, float]
"""Of a round's plan: steps, rows, places, turns; see `Program.amounts`."""


class Span(NamedTuple):
    """What the host did in a round, seconds of its own clock."""

    name: str
    round: int
    began: float
    ended: float


def settle(phases: dict[str, list[float]], at: int, told: device_trace.Split) -> None:
    """Replaces the time that the host waited for the device by what the device did in it."""
    waited = phases["compute"][at]
    phases["compute"][at] = 0.0
    on_device = sum(told.phases.values())
    share = min(1.0, waited / on_device) if on_device else 0.0
    for name, seconds in told.phases.items():
        phases[name][at] += seconds * share
    transfer = min(told.transfer, max(0.0, waited - on_device))
    phases["transfer"][at] += transfer
    phases["launch"][at] += max(0.0, waited - on_device - transfer)


def quantiles(seconds: Sequence[float]) -> dict[str, float] | None:
    """How many, their middle and their 95th percentile; None of fewer than two."""
    if len(seconds) < 2:
        return None
    cuts = statistics.quantiles(seconds, n=20, method="inclusive")
    return {"n": len(seconds), "p50_s": statistics.median(seconds), "p95_s": cuts[-1]}


def padding(amounts: Sequence[Amounts]) -> float | None:
    """The share of places in batches that hold no row."""
    places = sum(one["places"] for one in amounts)
    return 1 - sum(one["rows"] for one in amounts) / places if places else None


def streams(busy: Sequence[Mapping[int, float]]) -> dict[str, Any] | None:
    """Seconds of each device, and how much longer the busiest takes than their mean."""
    if not busy:
        return None
    devices = sorted({device for one in busy for device in one})
    each = [sum(one.get(device, 0.0) for one in busy) for device in devices]
    mean = sum(each) / len(each) if each else 0.0
    return {"busy_s": each, "imbalance": max(each) / mean - 1 if mean else 0.0}


def peak_flops(least_s: float = 0.01, repeats: int = 5) -> float:
    """Floating-point operations a second, by the quickest of some products of float32 matrices, as large as takes ten
    milliseconds."""
    product, size = jax.jit(lambda a, b: a @ b), 1024
    while True:
        left = jnp.ones((size, size), jnp.float32)
        product(left, left).block_until_ready()
        best = float("inf")
        for _ in range(repeats):
            begun = time.perf_counter()
            product(left, left).block_until_ready()
            best = min(best, time.perf_counter() - begun)
        if best >= least_s or size >= 16384:
            return 2 * size**3 / best
        size *= 2


def timeline(
    walls: Mapping[int, tuple[float, float]],
    at: Mapping[int, float],
    answers: Mapping[int, Mapping[str, float]],
    lost: Mapping[int, Sequence[str]],
    own: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Each site in each round, in seconds from the round's begin.

    Args:
      walls: round -> (began, ended), of the host's clock.
      at: round -> when it began, of the wall clock.
      answers: round -> site -> when its update counted, of the host's clock.
      lost: round -> sites whose update did not count.
      own: site -> its own profile, where it lies on this machine (`learner local`).

    Returns:
      [{"round", "site", "answered_s" (None: it was lost), "began_s" and "work_s" of its own work (None: not known)}].
    """
    rows = []
    for number, (began, _) in walls.items():
        came = answers.get(number, {})
        for site in sorted({*came, *lost.get(number, ())}):
            row: dict[str, Any] = {"round": number, "site": site, "answered_s": None, "began_s": None, "work_s": None}
            if site in came:
                row["answered_s"] = came[site] - began
            mine = own.get(site)
            if mine is not None and number in mine["rounds"]:
                place = mine["rounds"].index(number)
                row["began_s"], row["work_s"] = mine["began"][place] - at[number], mine["wall_s"][place]
            rows.append(row)
    return rows


def sites(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each site over the rounds: when its update counted, how long its work took, how often it was waited for
    last (who was lost was waited for to the end), and how often it was lost."""
    found: dict[str, Any] = {}
    by_round: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_round[row["round"]].append(row)
    for site in sorted({row["site"] for row in rows}):
        mine = [row for row in rows if row["site"] == site]
        answered = [row["answered_s"] for row in mine if row["answered_s"] is not None]
        worked = [row["work_s"] for row in mine if row["work_s"] is not None]
        found[site] = {
            "answered_s": statistics.median(answered) if answered else None,
            "work_s": statistics.median(worked) if worked else None,
            "last": sum(_waited(row) >= max(map(_waited, by_round[row["round"]])) for row in mine),
            "lost": len(mine) - len(answered),
            "rounds": len(mine),
        }
    return found


def _waited(row: Mapping[str, Any]) -> float:
    return float("inf") if row["answered_s"] is None else row["answered_s"]


def perfetto(
    walls: Mapping[int, tuple[float, float]],
    spans: Sequence[Span],
    trace: device_trace.Rounds,
    scopes: device_trace.Scopes,
) -> bytes:
    """The rounds for ui.perfetto.dev (trace-event format, gzip): phases of the host, and of each device, neighbours of
    one phase as one."""
    events = []
    for number, (began, ended) in walls.items():
        if number not in trace.windows:
            continue
        at = trace.windows[number][0] / 1e3 - began * 1e6  # the trace's clock less the host's, us
        mine = [Span(f"round {number}", number, began, ended), *(one for one in spans if one.round == number)]
        events += [_complete(one.name, 0, one.began * 1e6 + at, (one.ended - one.began) * 1e6) for one in mine]
    for device, name, begin, end in device_trace.together(trace, scopes):
        events.append(_complete(name, 1 + device, begin / 1e3, (end - begin) / 1e3))
    names = {0: "host", **{1 + device: f"device {device}" for device in {op.device for op in trace.ops}}}
    events += [{"name": "process_name", "ph": "M", "pid": pid, "args": {"name": name}} for pid, name in names.items()]
    return gzip.compress(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}).encode(), 6, mtime=0)


def _complete(name: str, process: int, began_us: float, took_us: float) -> dict[str, Any]:
    """A complete event of the trace-event format."""
    return {"name": name, "ph": "X", "pid": process, "tid": 0, "ts": round(began_us, 3), "dur": round(took_us, 3)}
