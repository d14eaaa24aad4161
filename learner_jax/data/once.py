"""What is made of a site's table is made once, while one step after the other asks for it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
_KEPT: ContextVar[dict[Any, Any] | None] = ContextVar("what is made of a table", default=None)


@contextlib.contextmanager
def read_once(keep: bool = True) -> Iterator[None]:
    """Within it, what functions marked `once` made of an object is kept, and given again for the same object.

    Nothing is kept longer: a table may be changed afterwards, and its memory is let go.

    Args:
      keep: False keeps nothing: where it would take too much memory.
    """
    token = _KEPT.set({} if keep else None)
    try:
        yield
    finally:
        _KEPT.reset(token)


def once(function: F) -> F:
    """Marks a function of (object, *rest): see `read_once`. The object counts by identity, the rest, hashable, by
    value. What it returns is shared: nobody may change it."""

    @functools.wraps(function)
    def again(first: Any, *rest: Any) -> Any:
        kept = _KEPT.get()
        if kept is None:
            return function(first, *rest)
        key = function, id(first), rest
        if key not in kept:
            kept[key] = first, function(first, *rest)  # held, so that no other object gets its id
        return kept[key][1]

    return again  # type: ignore[return-value]
