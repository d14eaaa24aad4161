"""`--profile=3:5`: a trace of these rounds, and a table of where their time went.

The host's phases are spans (`learner_jax.spans`); the device's time within a round is split by jax's own trace
(`device_trace`); compilations are what jax tells of them. A profiled round waits for its device before it goes on, so
it may overlap less than one that is not looked at.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.monitoring

from learner_jax import spans
from learner_jax.engines import device_trace
from learner_jax.engines import profile_account as account
from learner_jax.engines.expected import peak_bytes
from learner_jax.engines.outcome import machine, versions
from learner_jax.errors import ConfigError
from learner_jax.events import Event, Observer, fan_out
from learner_jax.storage.atomic import read_json, write_bytes, write_json

SCHEMA = 1
FILE, PERFETTO = "profile.json", "perfetto.json.gz"
_COMPILING = "/jax/core/compile/"
_CACHE = {"/jax/compilation_cache/cache_hits": "hits", "/jax/compilation_cache/cache_misses": "misses"}


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
        self._spans: list[account.Span] = []
        self._walls: dict[int, tuple[float, float]] = {}  # round -> (began, ended), of the host's clock in s
        self._at: dict[int, float] = {}  # round -> when it began, of the wall clock
        self._compiles: list[dict[str, Any]] = []
        self._causes: list[dict[str, Any]] = []
        self._cache = {"hits": 0, "misses": 0}
        self._called: dict[str, spans.Called] = {}
        self._signatures: dict[str, list[dict[str, str]]] = defaultdict(list)  # of each program, the last call's last
        self._amounts: dict[int, dict[str, float]] = {}
        self._answers: dict[int, dict[str, float]] = defaultdict(dict)  # of each round, when a site's update counted
        self._lost: dict[int, list[str]] = {}
        self.problem = ""
        """Why there is no profile, in a line."""
        self._state = "before"
        self._current = 0
        self._memory: tuple[int, int | None] = (0, None)

    # ---- what it hears ----------------------------------------------------------------------------------------------

    def began(self, name: str, detail: Any) -> None:
        if name == "round":
            self._current = int(detail)
            if self._current > self.rounds[-1]:  # this process has not taken part in the last one
                self.over()
            if self._current in self.rounds and self._state == "before":
                self._start()
            self._at[self._current] = time.time()
        mark = None
        if self._state == "tracing":
            about = {"round": int(detail)} if name == "round" else {}
            mark = jax.profiler.TraceAnnotation(device_trace.SCOPE + name, **about)
            mark.__enter__()
        self._open[threading.get_ident()].append((name, detail, time.perf_counter(), mark))

    def within(self) -> bool:
        return bool(self._open[threading.get_ident()])

    def over(self) -> None:
        if self._state == "tracing":
            self._stop()

    def ended(self, name: str, detail: Any, failed: bool) -> None:
        ended = time.perf_counter()
        stack = self._open[threading.get_ident()]
        if not stack:
            return
        _, _, began, mark = stack.pop()
        if mark is not None:
            mark.__exit__(None, None, None)
        if name == "round":
            number = int(detail)
            if not failed:  # half of a round is none
                self._walls[number] = began, ended
            if number >= self.rounds[-1]:
                self.over()
        elif stack:  # within a round, or something else that is looked at
            self._spans.append(account.Span(name, self._current, began, ended))

    def called(self, what: spans.Called) -> None:
        shapes = {argument: jax.tree.map(_shape, tree) for argument, tree in what.arguments.items()}
        known = self._signatures[what.name]
        signature = {argument + path: said for argument, tree in shapes.items() for path, said in _leaves(tree).items()}
        if known and signature not in known:
            before = known[-1]
            for argument in sorted(before.keys() | signature.keys()):
                was, now = before.get(argument, "nothing"), signature.get(argument, "nothing")
                if was != now:
                    about = {"program": what.name, "round": self._current}
                    self._causes.append({**about, "argument": argument, "was": was, "is": now})
        if signature in known:
            known.remove(signature)
        known.append(signature)
        self._called[what.name] = what._replace(arguments=shapes)  # the arrays themselves may be large

    def counted(self, amounts: Mapping[str, float]) -> None:
        self._amounts[self._current] = dict(amounts)

    def heard(self, event: Event) -> None:
        """What a coordinator tells: whose update counted when, and whose did not."""
        if event.kind == "site_done" and event.round and event.site and "accepted" in event.data:
            self._answers[event.round].setdefault(event.site, time.perf_counter())
        elif event.kind == "round_closed" and event.round:
            self._lost[event.round] = list(event.data.get("lost", ()))

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
                self._spans.append(account.Span("compile", self._current, ended - duration_secs, ended))

    def _event(self, event: str, **about: Any) -> None:
        if event in _CACHE:
            self._cache[_CACHE[event]] += 1

    # ---- the trace --------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        self._state = "tracing"
        with self._harmless():
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            jax.profiler.start_trace(str(self.folder), profiler_options=options)

    def _stop(self) -> None:
        self._memory = int(peak_bytes()), _device_peak()  # before the trace is written, which takes some itself
        self._state = "traced"
        with self._harmless():
            jax.profiler.stop_trace()

    @contextlib.contextmanager
    def _harmless(self) -> Iterator[None]:
        """What goes wrong with a profile ends no study: it is said at the end, and there is no profile."""
        try:
            yield
        except Exception as error:
            self.problem = self.problem or " ".join(f"{type(error).__name__}: {error}".split())
            self._state = "failed"

    @contextlib.contextmanager
    def listening(self) -> Iterator[Profiler]:
        """Hears everything within, and writes what it found at the end, also of a run that was stopped."""
        jax.monitoring.register_event_duration_secs_listener(self._duration)
        jax.monitoring.register_event_listener(self._event)
        with self._harmless():
            for name in (FILE, PERFETTO):
                (self.folder / name).unlink(missing_ok=True)
            shutil.rmtree(self.folder / "plugins", ignore_errors=True)
        spans.listen(self)
        try:
            yield self
        finally:
            spans.listen(None)
            _unregister(self._duration, self._event)
            self.over()
            if self._state == "traced" and self._walls.keys() & set(self.rounds):
                with self._harmless():
                    write_json(self.folder / FILE, self.found(), mode=0o600)

    # ---- what it found ----------------------------------------------------------------------------------------------

    def found(self) -> dict[str, Any]:
        """The profile: see docs/profiling.md for every field."""
        numbers = [number for number in self.rounds if number in self._walls]
        trace = device_trace.read(self.folder)
        scopes = self._scopes()
        walls = {number: self._walls[number] for number in numbers}
        drawn = account.perfetto(walls, self._spans, trace, scopes)
        write_bytes(self.folder / PERFETTO, drawn, mode=0o600)
        phases: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(numbers))
        unnamed, steps, busy, learning = [], [], [], 0.0
        for at, (number, (began, ended)) in enumerate(walls.items()):
            mine = [span for span in self._spans if span.round == number and began <= span.began <= ended]
            alone = device_trace.exclusive([(span.began, span.ended) for span in mine])
            for span, own in zip(mine, alone, strict=True):
                phases[span.name][at] += own
            if number in trace.windows and scopes and number in self._amounts:
                told = device_trace.split(trace, number, scopes, int(self._amounts[number]["turns"]))
                if not told.busy:
                    raise LookupError(f"the trace has no operations of {', '.join(scopes)}")
                account.settle(phases, at, told)
                steps += told.steps
                busy.append(told.busy)
                learning += told.learning
            unnamed.append(ended - began - sum(row[at] for row in phases.values()))
        amounts = [self._amounts[number] for number in numbers if number in self._amounts]
        names = {name for number in numbers for name in (*self._answers.get(number, ()), *self._lost.get(number, ()))}
        own = {name: found for name in names if (found := load(self.folder.parent / "sites" / name)) is not None}
        timeline = account.timeline(walls, self._at, self._answers, self._lost, own)
        return {
            "schema": SCHEMA,
            "who": self.who,
            "rounds": numbers,
            "began": [self._at[number] for number in numbers],
            "wall_s": [ended - began for began, ended in walls.values()],
            "phases_s": {name: phases[name] for name in spans.PHASES if any(phases[name])},
            "unnamed_s": unnamed,
            "compile": self._compile(),
            "step": account.quantiles(steps),
            "amounts": amounts,
            "padding": account.padding(amounts),
            "streams": account.streams(busy),
            "cost": self._cost(amounts, learning, max((len(one) for one in busy), default=1)),
            "timeline": timeline,
            "sites": account.sites(timeline),
            "memory": {"host_peak_bytes": self._memory[0], "device_peak_bytes": self._memory[1]},
            "machine": machine(),
            "versions": versions(),
        }

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

    def _scopes(self) -> dict[str, dict[str, str]]:
        """Of each program that was called in a round, by its name in a trace, the scopes of its operations."""
        found = {}
        for called in self._called.values():
            text = self._compiled(called).as_text() or ""
            name = re.match(r"HloModule ([\w.\-]+)", text)
            if name:
                found[name[1]] = device_trace.scopes_of(text)
        return found

    def _compiled(self, called: spans.Called) -> Any:
        """A program, compiled from what it was called with. One that was read from the cache, or was jitted before, may
        have the names of a version that named no scopes."""
        with _named_anew():
            return called.again().lower(*called.arguments.values()).compile()  # type: ignore[attr-defined]

    def _cost(self, amounts: list[dict[str, float]], learning: float, devices: int) -> dict[str, Any] | None:
        """What a learning step takes by the compiler's account, and how near that comes to what a device can do."""
        steps = sum(one["steps"] for one in amounts)
        if not learning or not steps:
            return None
        told = next(iter(self._called.values())).cost()
        # a product of matrices takes all cores of a host, whose devices share them
        share = devices if jax.devices()[0].platform == "cpu" else 1
        peak, a_second = account.peak_flops() / share, told["flops"] * steps / learning
        return {
            "flops_a_step": told["flops"],
            "bytes_a_step": told["bytes"],
            "intensity": told["flops"] / told["bytes"] if told["bytes"] else None,
            "flops_s": a_second,
            "peak_flops_s": peak,
            "mfu": a_second / peak,
        }


def _shape(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        sharding = leaf.sharding if leaf.committed else None
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding, weak_type=leaf.weak_type)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _leaves(tree: Any) -> dict[str, str]:
    return {jax.tree_util.keystr(path): _said(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _said(leaf: Any) -> str:
    weak = " weakly typed" if getattr(leaf, "weak_type", False) else ""
    placed = getattr(leaf, "sharding", None)
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]{weak}" + ("" if placed is None else f" on {placed}")


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
def profiled(text: str | None, folder: Path | None, who: str, on_event: Observer, study: str) -> Iterator[Observer]:
    """Profiles what runs within, where `text` says which rounds.

    Args:
      text: such as "3:5", or None.
      folder: the run's; the profile lies in its profile/.
      who: see `Profiler`.
      on_event: who listens.
      study: its name.

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
    try:
        with profiler.listening():
            yield fan_out(profiler.heard, on_event)
    finally:
        if profiler.problem:
            on_event(Event("note", study, data={"text": f"no profile: {profiler.problem}"}))


def load(folder: Path) -> dict[str, Any] | None:
    """What a run's profile says; None where it has none.

    Raises:
      CorruptError: it is damaged.
    """
    path = folder / "profile" / FILE
    return read_json(path) if path.exists() else None
