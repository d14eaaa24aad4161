"""`--profile=3:5`: a trace of these rounds, and a table of where their time went.

The host's phases are spans (`learner_jax.spans`); the device's time within a round is split by jax's own trace
(`device_trace`); compilations are what jax tells of them. A profiled round waits for its device before it goes on, so
it may overlap less than one that is not looked at.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.monitoring
import jax.numpy as jnp

from learner_jax import spans
from learner_jax.engines import device_trace
from learner_jax.errors import ConfigError
from learner_jax.events import Event, Observer, fan_out
from learner_jax.storage.atomic import write_json

SCHEMA = 1
FILE = "profile.json"
_COMPILING = "/jax/core/compile/"
_CACHE = {"/jax/compilation_cache/cache_hits": "hits", "/jax/compilation_cache/cache_misses": "misses"}


class _Span(NamedTuple):
    name: str
    round: int
    began: float
    ended: float


class Profiler:
    """Listens to a process's spans, traces the rounds asked for, and writes what it found.

    Args:
      rounds: which.
      folder: where to write; made anew.
      who: "simulation", "coordinator", or a site's name.
    """

    def __init__(self, rounds: range, folder: Path, who: str):
        self.rounds, self.folder, self.who = rounds, folder, who
        self._lock = threading.Lock()
        self._open: dict[int, list[tuple[str, Any, float, Any]]] = defaultdict(list)  # of each thread, innermost last
        self._spans: list[_Span] = []
        self._walls: dict[int, tuple[float, float]] = {}  # round -> (began, ended), of the host's clock in s
        self._at: dict[int, float] = {}  # round -> when it began, of the wall clock
        self._compiles: list[dict[str, Any]] = []
        self._causes: list[dict[str, Any]] = []
        self._cache = {"hits": 0, "misses": 0}
        self._called: dict[str, spans.Called] = {}
        self._amounts: dict[int, dict[str, float]] = {}
        self._answers: dict[int, dict[str, float]] = defaultdict(dict)  # of each round, when a site's update counted
        self._state = "before"
        self._current = 0
        self._memory: tuple[int, int | None] = (0, None)

    # ---- what it hears ----------------------------------------------------------------------------------------------

    def began(self, name: str, detail: Any) -> None:
        if name == "round":
            self._current = int(detail)
            if self._current in self.rounds and self._state == "before":
                self._start()
            self._at[self._current] = time.time()
        mark = None
        if self._state == "tracing":
            about = {"round": int(detail)} if name == "round" else {}
            mark = jax.profiler.TraceAnnotation(device_trace.SCOPE + name, **about)
            mark.__enter__()
        self._open[threading.get_ident()].append((name, detail, time.perf_counter(), mark))

    def ended(self, name: str, detail: Any) -> None:
        ended = time.perf_counter()
        stack = self._open[threading.get_ident()]
        if not stack:
            return
        _, _, began, mark = stack.pop()
        if mark is not None:
            mark.__exit__(None, None, None)
        if name == "round":
            number = int(detail)
            self._walls[number] = began, ended
            if number == self.rounds[-1] and self._state == "tracing":
                self._stop()
        elif stack:  # within a round, or something else that is looked at
            self._spans.append(_Span(name, self._current, began, ended))

    def called(self, what: spans.Called) -> None:
        if not self._open[threading.get_ident()]:
            return  # a reference's round, after the study's own
        shapes = {argument: jax.tree.map(_shape, tree) for argument, tree in what.arguments.items()}
        before = self._called.get(what.name)
        if before is not None and before.program is what.program:
            for argument, was, now in _changed(before.arguments, shapes):
                cause = {"program": what.name, "round": self._current, "argument": argument, "was": was, "is": now}
                self._causes.append(cause)
        self._called[what.name] = what._replace(arguments=shapes)  # the arrays themselves may be large

    def counted(self, amounts: Mapping[str, float]) -> None:
        self._amounts[self._current] = dict(amounts)

    def heard(self, event: Event) -> None:
        """What a coordinator's machine tells: whose update counted when."""
        if event.kind == "site_done" and event.round and event.site and "accepted" in event.data:
            self._answers[event.round].setdefault(event.site, time.perf_counter())

    def _duration(self, event: str, duration_secs: float, **about: Any) -> None:
        if not event.startswith(_COMPILING):
            return
        ended = time.perf_counter()
        inside = bool(self._open[threading.get_ident()])
        what, program = event.removeprefix(_COMPILING).removesuffix("_duration"), str(about.get("fun_name", ""))
        with self._lock:
            said = {"what": what, "program": program, "seconds": duration_secs, "round": self._current if inside else 0}
            self._compiles.append(said)
            if inside:
                self._spans.append(_Span("compile", self._current, ended - duration_secs, ended))

    def _event(self, event: str, **about: Any) -> None:
        if event in _CACHE:
            self._cache[_CACHE[event]] += 1

    # ---- the trace --------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        jax.profiler.start_trace(str(self.folder), create_perfetto_trace=True, profiler_options=options)
        self._state = "tracing"

    def _stop(self) -> None:
        self._memory = _host_peak(), _device_peak()  # before the trace is written, which takes some itself
        jax.profiler.stop_trace()
        self._state = "traced"

    @contextlib.contextmanager
    def listening(self) -> Iterator[Profiler]:
        """Hears everything within, and writes what it found at the end, also of a run that was stopped."""
        jax.monitoring.register_event_duration_secs_listener(self._duration)
        jax.monitoring.register_event_listener(self._event)
        spans.listen(self)
        try:
            yield self
        finally:
            spans.listen(None)
            _unregister(self._duration, self._event)
            if self._state == "tracing":
                self._stop()
            if self._state == "traced":
                write_json(self.folder / FILE, self.found(), mode=0o600)

    # ---- what it found ----------------------------------------------------------------------------------------------

    def found(self) -> dict[str, Any]:
        """The profile: see docs/profiling.md for every field."""
        numbers = [number for number in self.rounds if number in self._walls]
        trace = device_trace.read(self.folder)
        module, scopes = self._scopes()
        phases: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(numbers))
        walls, unnamed, steps, busy, learning = [], [], [], [], 0.0
        for at, number in enumerate(numbers):
            began, ended = self._walls[number]
            walls.append(ended - began)
            mine = [span for span in self._spans if span.round == number and began <= span.began <= ended]
            alone, _ = device_trace.nested([(span.began, span.ended) for span in mine])
            for span, own in zip(mine, alone, strict=True):
                phases[span.name][at] += own
            if number in trace.windows and module:
                told = device_trace.split(trace, number, module, scopes, int(self._amounts[number]["steps"]))
                _settle(phases, at, told)
                steps += told.steps
                busy.append(told.busy)
                learning += told.learning
            unnamed.append(walls[-1] - sum(row[at] for row in phases.values()))
        amounts = [self._amounts[number] for number in numbers if number in self._amounts]
        return {
            "schema": SCHEMA,
            "who": self.who,
            "rounds": numbers,
            "began": [self._at[number] for number in numbers],
            "wall_s": walls,
            "phases_s": {name: phases[name] for name in spans.PHASES if any(phases[name])},
            "unnamed_s": unnamed,
            "compile": self._compile(),
            "step": _quantiles(steps),
            "amounts": amounts,
            "padding": _padding(amounts),
            "streams": _streams(busy),
            "cost": self._cost(amounts, learning),
            "sites": self._sites(numbers),
            "memory": {"host_peak_bytes": self._memory[0], "device_peak_bytes": self._memory[1]},
            "machine": {"device": jax.devices()[0].device_kind, "devices": len(jax.devices()), "cpus": os.cpu_count(),
                        "jax": jax.__version__},
        }  # fmt: skip

    def _sites(self, numbers: list[int]) -> dict[str, Any]:
        """Of each site: how long after a round's begin its update counted, in how many rounds it was the last, and how
        long its own work took, where its own profile lies on this machine (`learner local`)."""
        after: dict[str, list[float]] = defaultdict(list)
        last: dict[str, int] = defaultdict(int)
        for number in numbers:
            answers = self._answers.get(number, {})
            for site, at in answers.items():
                after[site].append(at - self._walls[number][0])
            if answers:
                last[max(answers, key=lambda site: answers[site])] += 1
        found = {}
        for site, times in sorted(after.items()):
            own = load(self.folder.parent / "sites" / site)
            worked = (
                [took for number, took in zip(own["rounds"], own["wall_s"], strict=True) if number in numbers]
                if own
                else []
            )
            found[site] = {
                "answered_s": statistics.median(times),
                "last": last[site],
                "rounds": len(times),
                "work_s": statistics.median(worked) if worked else None,
            }
        return found

    def _compile(self) -> dict[str, Any]:
        """How often and how long, over the whole run, and why again."""
        compiled = [one for one in self._compiles if one["what"] == "backend_compile"]
        later = [one for one in compiled if one["round"] in self.rounds]
        return {
            "count": len(compiled),
            "seconds": sum(one["seconds"] for one in self._compiles if one["what"] != "jaxpr_trace"),
            "cache_hits": self._cache["hits"],
            "cache_misses": self._cache["misses"],
            "in_these_rounds": sorted({one["program"] for one in later}),
            "causes": self._causes,
        }

    def _scopes(self) -> tuple[str, dict[str, str]]:
        """(the compiled round's name in a trace, the scopes of its operations); ("", {}) where none was called."""
        if "a round" not in self._called:
            return "", {}
        text = self._compiled().as_text() or ""
        name = re.match(r"HloModule ([\w.\-]+)", text)
        return (name[1] if name else ""), device_trace.scopes_of(text)

    def _compiled(self) -> Any:
        """The round's program, compiled from what it was called with. One that was read from the cache, or was jitted
        before, may have the names of a version that named no scopes."""
        called = self._called["a round"]
        with _named_anew():
            return called.again().lower(*called.arguments.values()).compile()  # type: ignore[attr-defined]

    def _cost(self, amounts: list[dict[str, float]], learning: float) -> dict[str, Any] | None:
        """What a learning step takes by the compiler's account, and how near that comes to what a device can do."""
        steps = sum(one["steps"] for one in amounts)
        if not learning or not steps:
            return None
        told = self._called["a round"].cost()
        peak, a_second = _peak(), told["flops"] * steps / learning
        return {
            "flops_a_step": told["flops"],
            "bytes_a_step": told["bytes"],
            "intensity": told["flops"] / told["bytes"] if told["bytes"] else None,
            "flops_s": a_second,
            "peak_flops_s": peak,
            "mfu": a_second / peak,
        }


def _settle(phases: dict[str, list[float]], at: int, told: device_trace.Split) -> None:
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


def _shape(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        sharding = leaf.sharding if leaf.committed else None
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding, weak_type=leaf.weak_type)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(argument, what it was, what it is) of arguments of another shape, dtype or structure."""
    found = []
    for name in now:
        was, is_ = _leaves(before.get(name)), _leaves(now[name])
        for path in sorted(was.keys() | is_.keys()):
            if was.get(path) != is_.get(path):
                found.append((name + path, was.get(path, "nothing"), is_.get(path, "nothing")))
    return found


def _leaves(tree: Any) -> dict[str, str]:
    return {jax.tree_util.keystr(path): _said(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _said(leaf: Any) -> str:
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _quantiles(seconds: list[float]) -> dict[str, float] | None:
    if len(seconds) < 2:
        return None
    cuts = statistics.quantiles(seconds, n=20, method="inclusive")
    return {"n": len(seconds), "p50_s": statistics.median(seconds), "p95_s": cuts[-1]}


def _padding(amounts: list[dict[str, float]]) -> float | None:
    """The share of places in batches that hold no row."""
    places = sum(one["places"] for one in amounts)
    return 1 - sum(one["rows"] for one in amounts) / places if places else None


def _streams(busy: list[dict[int, float]]) -> dict[str, Any] | None:
    """Seconds of each device, and how much longer the busiest takes than their mean."""
    if not busy:
        return None
    devices = sorted({device for one in busy for device in one})
    each = [sum(one.get(device, 0.0) for one in busy) for device in devices]
    mean = sum(each) / len(each) if each else 0.0
    return {"busy_s": each, "imbalance": max(each) / mean - 1 if mean else 0.0}


def _peak(size: int = 1024, repeats: int = 5) -> float:
    """Floating-point operations a second of one device, by the quickest of some products of matrices (float32)."""
    left = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a, b: a @ b)
    product(left, left).block_until_ready()
    best = float("inf")
    for _ in range(repeats):
        begun = time.perf_counter()
        product(left, left).block_until_ready()
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best


def _host_peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _device_peak() -> int | None:
    stats = jax.devices()[0].memory_stats()
    return None if not stats else int(stats.get("peak_bytes_in_use", 0)) or None


@contextlib.contextmanager
def _named_anew() -> Iterator[None]:
    """Compiled programs that lie in the cache count only if their operations have the names of this very version."""
    before = jax.config.values["jax_compilation_cache_include_metadata_in_key"]
    jax.config.update("jax_compilation_cache_include_metadata_in_key", True)
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_include_metadata_in_key", before)


def _unregister(duration: Any, event: Any) -> None:
    with contextlib.suppress(Exception):
        jax.monitoring.unregister_event_duration_listener(duration)
        jax.monitoring.unregister_event_listener(event)


@contextlib.contextmanager
def profiled(text: str | None, folder: Path | None, who: str, on_event: Observer) -> Iterator[Observer]:
    """Profiles what runs within, where `text` says which rounds.

    Args:
      text: such as "3:5", or None.
      folder: the run's; the profile lies in its profile/.
      who: see `Profiler`.
      on_event: who listens.

    Returns:
      Who is to be told instead: the profiler listens too.

    Raises:
      ConfigError: the text is no rounds, or there is no folder.
    """
    if text is None:
        yield on_event
        return
    rounds = spans.rounds_of(text)
    if folder is None:
        raise ConfigError("profile: expected a run's folder (workdir), where the trace is written, got none")
    profiler = Profiler(rounds, folder / "profile", who)
    with profiler.listening():
        yield fan_out(profiler.heard, on_event)


def load(folder: Path) -> dict[str, Any] | None:
    """What a run's profile says; None where it has none."""
    path = folder / "profile" / FILE
    return json.loads(path.read_text()) if path.exists() else None
