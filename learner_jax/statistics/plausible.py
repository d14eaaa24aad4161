"""Sums that no rows can have: one site's would spoil what is fitted for all."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

NOT_NEGATIVE = ("rows", "squares", "missing")
"""What the paths of counts, and of sums of squares, end with."""


def impossible(leaves: Iterable[tuple[str, np.ndarray]]) -> str | None:
    """Why a site's sums are none of any rows, or None.

    Args:
      leaves: (path, array) of what a site measured.
    """
    for path, array in leaves:
        if path.rsplit("/", 1)[-1].rstrip("']") in NOT_NEGATIVE and (array < 0).any():
            return f"expected no number below 0 in '{path}', got {array.min():g}"
    return None
