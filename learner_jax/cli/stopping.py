"""Ctrl-C and SIGTERM: both leave by an exception, wherever they fall."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

_AGAIN_S = 0.05


class Stopped(KeyboardInterrupt):
    """SIGTERM: like Ctrl-C, with an exit code of its own."""


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """While this lasts, SIGTERM raises `Stopped`, and neither it nor Ctrl-C is lost.

    Python lets no exception out of a callback of its garbage collector (jax has one) or out of a `__del__`: it prints
    a traceback and the run would go on as if nobody had asked. There the signal is sent again, a moment later.

    Raises:
      Stopped: SIGTERM came.
      KeyboardInterrupt: Ctrl-C.
    """
    again: list[threading.Timer] = []
    before_hook, before = sys.unraisablehook, signal.signal(signal.SIGTERM, _stop)

    def hook(lost: Any) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            before_hook(lost)
            return
        number = signal.SIGTERM if issubclass(lost.exc_type, Stopped) else signal.SIGINT
        again.append(threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number)))
        again[-1].daemon = True
        again[-1].start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        for timer in again:
            timer.cancel()
        sys.unraisablehook = before_hook
        signal.signal(signal.SIGTERM, before)


def _stop(number: int, frame: Any) -> None:
    raise Stopped
