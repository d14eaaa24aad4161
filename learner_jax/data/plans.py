"""Batch plans: which rows make which step of which site.

A plan is made on the host by a counter-based generator, keyed by (seed, site) and counted by (round, pass), so that a
worker and a simulator draw the same batches without having to agree on anything else. An entry is a row's place among
the site's own rows; -1 marks padding, which comes only at the end of a batch, and no batch is all padding.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LASTING = 2**32
"""Stands for a pass in the counter of a generator that is of an epoch, not of a round."""


def generator(seed: int, site: int, round_number: int, pass_number: int) -> np.random.Generator:
    """NumPy's Philox for one (seed, round, site, pass).

    Reference: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
    """
    bits = np.random.Philox(key=[seed % 2**64, site], counter=[0, 0, round_number, pass_number])
    return np.random.Generator(bits)


class Generators:
    """`generator`, for many at once: one is set anew in place of making the next, in an eighth of the time.

    Args:
      seed: of them all.
    """

    def __init__(self, seed: int):
        self._bits = np.random.Philox(key=[seed % 2**64, 0], counter=[0, 0, 0, 0])
        self._fresh: Any = self._bits.state
        self._counter, self._key = self._fresh["state"]["counter"], self._fresh["state"]["key"]
        self._draw = np.random.Generator(self._bits)

    def at(self, site: int, round_number: int, pass_number: int) -> np.random.Generator:
        """As `generator` makes it; it is the one of the call before, set anew."""
        self._key[1] = site
        self._counter[2], self._counter[3] = round_number, pass_number
        self._bits.state = self._fresh
        return self._draw


def steps_of(rows: int, batch_size: int, epochs: int, steps: int | None) -> int:
    """Steps that a site with so many rows makes in one pass: 0 if it has none."""
    if rows == 0:
        return 0
    return steps if steps is not None else epochs * -(-rows // batch_size)


def train_plan(
    rows: np.ndarray, batch_size: int, epochs: int, steps: int | None, draw: np.random.Generator
) -> np.ndarray:
    """Shuffled epochs of a site's rows.

    Args:
      rows: int32[n], the places of the rows that are trained on.
      batch_size: B; the short last batch of an epoch is kept, padded.
      epochs: how many times each row is seen, unless steps is given.
      steps: how many batches are taken, over as many epochs as that needs; None for whole epochs.
      draw: the generator, consumed.

    Returns:
      int32[steps, B], -1 where padded.
    """
    wanted = steps_of(len(rows), batch_size, epochs, steps)
    per_epoch = -(-len(rows) // batch_size)
    parts = [in_order(draw.permutation(rows), batch_size) for _ in range(-(-wanted // per_epoch) if wanted else 0)]
    plan = np.concatenate(parts) if parts else np.empty((0, batch_size), np.int32)
    return plan[:wanted]


def lasting_plan(
    rows: np.ndarray, batch_size: int, steps: int, seed: int, site: int, first: int, pass_number: int = 0
) -> np.ndarray:
    """Shuffled epochs that go on from round to round, as a data loader does that is never started anew.

    Args:
      rows: int32[n], the places of the rows that are trained on.
      batch_size: B; the short last batch of an epoch is kept, padded.
      steps: how many batches are taken.
      seed: the study's.
      site: its id.
      first: how many were taken in earlier rounds.
      pass_number: of the method's passes.

    Returns:
      int32[steps, B], -1 where padded: batches `first` to `first + steps` of an endless row of epochs, each shuffled by
      a generator of (seed, site, epoch).
    """
    per_epoch = -(-len(rows) // batch_size)
    if not steps or not per_epoch:
        return np.empty((0, batch_size), np.int32)
    epochs = range(first // per_epoch, -(-(first + steps) // per_epoch))
    drawn = [
        in_order(generator(seed, site, epoch, LASTING + pass_number).permutation(rows), batch_size) for epoch in epochs
    ]
    at = first - epochs[0] * per_epoch
    return np.concatenate(drawn)[at : at + steps]


def in_order(rows: np.ndarray, batch_size: int) -> np.ndarray:
    """Every row once, in the order given: int32[steps, B], -1 where padded."""
    plan = np.full((-(-len(rows) // batch_size), batch_size), -1, np.int32)
    plan.reshape(-1)[: len(rows)] = rows
    return plan


def cohort(seed: int, round_number: int, ids: np.ndarray, size: int) -> np.ndarray:
    """The sites asked in one round: `size` of the ids, drawn without replacement, in ascending order.

    Args:
      seed: the study's.
      round_number: from 1.
      ids: uint32[N], the enrolled sites' ids, ascending.
      size: how many; N or more is everyone.
    """
    if size >= len(ids):
        return ids
    draw = generator(seed, 2**40, round_number, 0)
    return np.sort(draw.choice(ids, size, replace=False))
