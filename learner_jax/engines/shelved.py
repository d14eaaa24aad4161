"""A program whose sites' states lie on the disk: each round takes those of its sites, and puts the new ones there.

The compiled round is the resident one but for how it comes by its states, so a study ends in the same bits. What is on
a device is as large as a round's cohort, whatever the number of sites.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from learner_jax import spans
from learner_jax.engines import machines, rounds
from learner_jax.engines.program import _ROUND, Outcome, Program, anew
from learner_jax.engines.rounds import Draw
from learner_jax.engines.streamed import device_memory, is_streamed
from learner_jax.engines.world import World
from learner_jax.errors import ConfigError
from learner_jax.federate import Federated, Server
from learner_jax.specs import Engine
from learner_jax.storage.shelf import Shelf
from learner_jax.types import PyTree

_SHARE = 0.25
"""Of a device's memory, or of the host's, for sites' states where nothing else is said."""
_LOOK = 2**26
"""Bytes of states that a look reads at a time."""


def shelf_of(engine: Engine, federated: Federated, weights: PyTree, world: World, folder: Path | None) -> Shelf | None:
    """The sites' states on the disk, if they do not fit in memory.

    Args:
      engine: says how much may be there.
      federated: what is run.
      weights: of a site that enrols.
      world: the sites.
      folder: of the run; None keeps nothing.

    Raises:
      ConfigError: they do not fit, and neither do the rows, or other processes run the study too.
    """
    one = jax.eval_shape(federated.enrol, weights)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(one)) * len(world.names)
    if not size or size <= room_of(engine):
        return None
    if is_streamed(world) or machines.several():
        why = "rows come in blocks" if is_streamed(world) else "several processes run the study"
        raise ConfigError(
            f"engine.states_mib: expected at least {size / 2**20:,.0f}, since states lie on the disk in one process "
            f"alone whose rows are in memory, and here {why}"
        )
    start = jax.device_get(federated.enrol(weights))
    return Shelf(start, len(world.names), None if folder is None else folder / "states", engine.scratch)


def room_of(engine: Engine) -> float:
    """Bytes of all sites' states that may be in memory."""
    if engine.states_mib is not None:
        return engine.states_mib * 2**20
    return _SHARE * (device_memory() or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


class Shelved(Program):
    """The rounds of one study over a world whose sites' states are a `Shelf`; arguments as of `Program`."""

    _whole = False

    def round(self, server: Server, states: Any, number: int, cohort: np.ndarray) -> Outcome:
        """One simulated round; the new states are put on the shelf when they are there, which is handed back."""
        shelf: Shelf = states
        ahead = self._ahead_of(number, cohort)
        slots = ahead.slots.reshape(-1)
        there = np.flatnonzero(slots < shelf.sites)
        with spans.span("transfer"):
            taken = shelf.take(np.where(slots < shelf.sites, slots, -1))
            taken = jax.tree.map(lambda leaf: leaf.reshape(*ahead.slots.shape, *leaf.shape[1:]), taken)
            taken = machines.spread(taken, self._placements()[0])
        given = (server, taken, self._rows, *ahead.given)
        outcome = self._ran(
            self._simulate, lambda: anew(self._round, donate_argnums=(1,)), _ROUND, given, ahead.slots, ahead.draws
        )

        def new() -> PyTree:
            return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:])[there], outcome.states)

        shelf.put(slots[there], new, number)
        return outcome._replace(states=shelf)

    def look(self, broadcast: PyTree, states: Any, number: int) -> tuple[PyTree, PyTree]:
        """As `Program.look`, over some sites' states at a time."""
        shelf: Shelf = states
        if self.federated.watch is None:
            return {}, {}
        fixed, sites = self._fixed["valid"], shelf.sites
        many = int(min(sites, max(1, _LOOK // shelf.record)))
        round, each, total = self._record(np.int32(number), np.int32(sites)), [], None
        for start in range(0, sites, many):
            places = np.minimum(np.arange(start, start + many), sites - 1)
            count = min(many, sites - start)
            draw = Draw(self._fixed_index["valid"], fixed.first[places], fixed.steps[places])
            here = jax.tree.map(jnp.asarray, shelf.take(places))
            found, total = self._look(
                broadcast, here, draw, self.world.rows, round, self.world.ids[places], np.int32(count), total
            )
            each.append(jax.tree.map(lambda x, count=count: np.asarray(x)[:count], found))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *each), total

    def _of(self, states, slots):
        return states

    def _with(self, states, slots, new):
        with rounds.scope("boundary"):
            return new
