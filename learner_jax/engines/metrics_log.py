"""metrics.jsonl: one JSON line an event, for machines and for those who come later."""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learner_jax.errors import StorageError
from learner_jax.events import Event, Observer

_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.EROFS)
_WAITING = 2**20
"""Bytes of lines that wait for room."""


def as_json(value: Any) -> str:
    """One line of JSON: what JSON cannot say (nan, inf) is null, arrays are lists, paths text."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if hasattr(value, "tolist"):  # NumPy and jax arrays, and their scalars
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def metrics_file(path: Path) -> Observer:
    """Appends one JSON line an event: event, study, round, site, time, and the event's own data.

    A full or broken disk ends no run: a MiB of lines waits in memory, and goes out with the next event.
    Before the first round that it hears of, it drops the lines of that round and later ones, which an earlier run of
    the same folder did not finish, and a last line that a kill has cut.

    Raises:
      StorageError: the file cannot be written.
    """

    cut, waiting = False, b""

    def tell(event: Event) -> None:
        nonlocal cut, waiting
        if event.kind == "done":
            return  # the result has a file of its own
        head = {"event": event.kind, "study": event.study, "round": event.round, "site": event.site}
        line = {**head, "time": round(time.time(), 3), **event.data, **head}  # what event, study, ... mean is ours
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not cut and event.round is not None and event.kind in ("resumed", "round_open", "round_closed"):
                _keep_until(path, event.round - (event.kind != "resumed"))
                cut = True
            whole = waiting + (as_json(line) + "\n").encode()
            waiting = whole if len(whole) <= _WAITING else waiting
            _append(path, waiting)
            waiting = b""
        except OSError as error:
            if error.errno in _PASSING:
                return
            raise StorageError(f"cannot write {path}: {error.strerror}") from error

    return tell


def _append(path: Path, data: bytes) -> None:
    """All of it, or nothing: part of a line would spoil the next one."""
    with path.open("ab", buffering=0) as file:
        before = os.fstat(file.fileno()).st_size
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(before)
            raise


def _keep_until(path: Path, last: int) -> None:
    """Rewrites the file without broken lines and without rounds after the last."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            number = json.loads(line).get("round")
        except (ValueError, AttributeError):
            continue
        if number is None or number <= last:
            kept.append(line + "\n")
    fresh = path.with_suffix(".part")
    fresh.write_text("".join(kept), encoding="utf-8")
    fresh.replace(path)
