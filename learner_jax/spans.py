"""Named spans of a process's time, for whoever profiles it. Where nobody listens, a span costs a comparison.

    with spans.span("plan"):
        ...

Spans of a thread stand within each other; what passes in an inner one is not counted in the outer one. `round` is the
span of a whole round, whose number is its detail.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from learner_jax.errors import ConfigError

PHASES = {
    "plan": "who takes part, and which rows make which batch",
    "transfer": "arrays on their way from the host to the device",
    "compile": "tracing, lowering and compiling, or reading a compiled program from the disk",
    "step": "the sites' own steps: forward, backward, update",
    "boundary": "between sites: a site's state in and out, and its finished update",
    "aggregate": "finished updates joining the sum",
    "server": "the coordinator's step from the sum to the new model, and its digest",
    "evaluate": "the arriving model on the rows that are watched, and what is made of the sums",
    "launch": "the device waits for its next program, or the host for the device; arrays are let go",
    "encode": "leaves to bytes",
    "decode": "bytes to leaves",
    "wait": "for others: sites, the coordinator, the line",
    "checkpoint": "steps and the best model to the disk",
    "journal": "rows of the account to the disk",
    "profile": "the profiler's own accounts",
    "tell": "events to whoever listens: the terminal, the metrics file",
}
"""Every phase of a round, and what it is."""


class Called(NamedTuple):
    """A compiled program that is about to be called.

    Attributes:
      name: what it does.
      program: a jitted function.
      arguments: by name, in its order.
      again: the same function, jitted anew: compiled, it has the same operations, by the names of this version.
      cost: what one of its steps takes, by the compiler's account: {"flops", "bytes"}.
    """

    name: str
    program: Callable[..., Any]
    arguments: Mapping[str, Any]
    again: Callable[[], Callable[..., Any]]
    cost: Callable[[], Mapping[str, float]]


@runtime_checkable
class Listener(Protocol):
    """Who profiles."""

    def began(self, name: str, detail: Any) -> None: ...

    def ended(self, name: str, detail: Any, failed: bool) -> None: ...

    def within(self) -> bool: ...

    def over(self) -> None: ...

    def called(self, what: Called) -> None: ...

    def counted(self, amounts: Mapping[str, float]) -> None: ...


_listener: Listener | None = None


def listen(listener: Listener | None) -> None:
    """Hears all spans of this process from now on; None ends it."""
    global _listener
    _listener = listener


def listening() -> bool:
    """Whether somebody does, in a round: the time to wait for a device, whose time is counted where it is spent."""
    return _listener is not None and _listener.within()


def heard() -> bool:
    """Whether somebody hears the spans of this process at all."""
    return _listener is not None


def over() -> None:
    """Says that no round follows: what comes now is another phase of the study."""
    if _listener is not None:
        _listener.over()


class span:
    """The time within `with span(name):`.

    Args:
      name: one of `PHASES`, or "round", or "compute" (the device's own time, split by the trace).
      detail: of a round its number.
    """

    __slots__ = ("_detail", "_heard", "_name")

    def __init__(self, name: str, detail: Any = None):
        self._name, self._detail = name, detail

    def __enter__(self) -> span:
        self._heard = _listener
        if self._heard is not None:
            self._heard.began(self._name, self._detail)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._heard is not None:
            self._heard.ended(self._name, self._detail, error is not None)


def called(what: Callable[[], Called]) -> None:
    """Says that a compiled program is about to be called; `what` is asked where somebody listens."""
    if _listener is not None and _listener.within():
        _listener.called(what())


def counted(**amounts: float) -> None:
    """Says how much a round's plan holds: steps, rows, places of rows."""
    if _listener is not None and _listener.within():
        _listener.counted(amounts)


def rounds_of(text: str) -> range:
    """`3:5` is rounds 3, 4 and 5; `3` is round 3.

    Raises:
      ConfigError: it is neither.
    """
    match = re.fullmatch(r"(\d+)(?::(\d+))?", text.strip())
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last:
        raise ConfigError(f"--profile: expected the first and the last round, such as 3:5, or one round, got {text!r}")
    return range(first, last + 1)
