"""Counts over a list of codes that is the same at every site, and the vocabulary kept from their total."""

from __future__ import annotations

import numpy as np


def counts(codes: np.ndarray, size: int) -> np.ndarray:
    """Rows in which a code stands, each code counted once a row.

    Args:
      codes: int[n] or int[n, k] (k codes a row); values outside 0 .. size - 1 are missing.
      size: length of the list.

    Returns:
      int64[size].
    """
    table = np.sort(codes if codes.ndim == 2 else codes[:, None], axis=1)
    once = np.ones(table.shape, bool)
    once[:, 1:] = table[:, 1:] != table[:, :-1]
    once &= (table >= 0) & (table < size)
    return np.bincount(table[once], minlength=size).astype(np.int64)


def kept(total: np.ndarray, at_most: int, at_least: int = 1) -> np.ndarray:
    """The `at_most` most frequent codes that occur `at_least` times, ascending, int64[k]; ties go to the lower code."""
    order = np.lexsort((np.arange(len(total)), -total))[:at_most]
    return np.sort(order[total[order] >= at_least])
