"""Orbax, loaded where it is first needed, and quiet: what it says on the way is raised where it failed."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any


def loaded() -> Any:
    """Loads Orbax (2 s) where it is first needed, and keeps its log lines from the terminal: errors are raised here."""
    from orbax.checkpoint import v1

    logger = logging.getLogger("absl")
    if not any(isinstance(mark, _NoOrbax) for mark in logger.filters):
        logger.addFilter(_NoOrbax())
        _quiet_loops()
    return v1


def _quiet_loops() -> None:
    """A write of TensorStore that ends after the save it was part of has failed finds that save's event loop closed,
    and Python prints a traceback for each: the failure itself has been raised already."""
    print_it = sys.unraisablehook

    def hook(raised: Any) -> None:
        if not (isinstance(raised.exc_value, RuntimeError) and str(raised.exc_value) == "Event loop is closed"):
            print_it(raised)

    sys.unraisablehook = hook


def frugal(orbax: Any) -> Any:
    """A context in which a save takes no memory: Orbax would copy all arrays, and compress them in twice the time to
    eleven twelfths of their size."""
    context = orbax.Context()
    context.memory.deepcopy_host_arrays = False
    context.array.saving.use_compression = False
    return context


class _NoOrbax(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return f"{os.sep}orbax{os.sep}" not in record.pathname
