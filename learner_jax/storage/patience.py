"""A disk that is full is waited for, and said."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from learner_jax.errors import CorruptError, StorageError

T = TypeVar("T")

RETRY_S, SAID_S = 3.0, 30.0


def patiently(act: Callable[[], T], say: Callable[[str], None], retry_s: float = RETRY_S) -> T:
    """Does what needs the disk, again and again until the disk takes it.

    Args:
      act: may be done twice.
      say: told why it waits, in one line, at once and every half minute.
      retry_s: between two trials.

    Returns:
      What `act` returns.

    Raises:
      CorruptError: waiting does not mend that.
    """
    said = float("-inf")
    while True:
        try:
            return act()
        except CorruptError:
            raise
        except StorageError as error:
            if time.monotonic() - said >= SAID_S:
                said = time.monotonic()
                say(f"{error}; trying again")
            time.sleep(retry_s)
