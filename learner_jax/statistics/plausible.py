"""Sums that no rows can have: one site's would spoil what is fitted for all."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

NOT_NEGATIVE = ("rows", "squares", "missing", "outside")
"""What the paths of counts, and of sums of squares, end with."""


LARGEST = 1e30
"""Any sum is below it, so that no total of them is infinite; counts are below 2^53."""


def impossible(leaves: Iterable[tuple[str, np.ndarray]]) -> str | None:
    """Why a site's sums are none of any rows, or None.

    Args:
      leaves: (path, array) of what a site measured.
    """
    for path, array in leaves:
        if array.size and not np.abs(array.astype(np.float64)).max() < LARGEST:
            return f"expected sums below {LARGEST:g} in '{path}', got {array.max():g}"
        if path.rsplit("/", 1)[-1].rstrip("']") in NOT_NEGATIVE and (array < 0).any():
            return f"expected no number below 0 in '{path}', got {array.min():g}"
    return None
