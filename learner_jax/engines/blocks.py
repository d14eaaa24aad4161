"""How a round's examples are cut into blocks where they do not fit on a device, and read from where they lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from learner_jax import spans
from learner_jax.data import plans
from learner_jax.engines.program import Plan
from learner_jax.engines.rounds import Draw
from learner_jax.engines.world import Deal, Local, World, deal, fixed_draws, train_draws
from learner_jax.types import Pass, PyTree

_SITES = 4096
"""Sites of a block at most: what a block's plan takes is small beside its rows."""


_LINE = 64
"""Bytes at whose multiples memory must begin for a device of the host to take it as it is, and not to copy it."""


class Unit(NamedTuple):
    """Sites that are gone through together: of each stream those of a block, or one that comes in steps.

    Attributes:
      sites: for each of D streams places in the world.
      whole: they come whole.
    """

    sites: list[list[int]]
    whole: bool


class Block(NamedTuple):
    """Rows, and what is done with them.

    Attributes:
      rows: pytree [D, R, ...].
      index, first, steps: of each pass, int32[D, T, B], [D, S], [D, S]; of a site that comes in steps one pass's
        int32[D, T, B], [D] steps before these, [D] how many these are.
      slots: int32[D, S], or [D]; places in the world, N where there is none.
      ids: uint32, like slots.
      used: int32[D], rows of lanes in use.
      position: int32, like slots: in the cohort.
    """

    rows: PyTree
    index: Any
    first: Any
    steps: Any
    slots: Any
    ids: Any
    used: Any
    position: Any


class _Place:
    """Memory of the host for a block's rows, and what is there when the block that was last run from here is done with
    them."""

    def __init__(self):
        self.rows: PyTree = None
        self.done: Any = None


class Blocks:
    """The blocks of one study's rounds over a world whose rows are columns.

    Args:
      world: the rows.
      local: batch size, epochs, steps, seed.
      plan: streams and lanes.
      passes: of which batches are drawn, the watch first where there is one.
      first: the place of the first learning pass among them.
      fixed: kind -> batches that are the same in every round.
      steps: int[N], learning steps of each site.
      size: the largest cohort of any round.
      room: bytes of examples that may lie on a device, in two blocks.

    Attributes:
      rows_each: R, rows that a stream's part of a block has room for.
    """

    def __init__(
        self,
        world: World,
        local: Local,
        plan: Plan,
        passes: Sequence[Pass],
        first: int,
        fixed: Mapping[str, Draw],
        steps: np.ndarray,
        size: int,
        room: int,
    ):
        self._world, self._local, self._plan, self._passes, self._first = world, local, plan, passes, first
        kinds, lanes = {p.batches for p in passes}, plan.lanes
        self.sizes = {kind: draw.index.shape[1] for kind, draw in fixed.items()} | {"train": local.batch_size}
        self._trained, self._watched = bool(kinds - {"valid"}), "valid" in kinds
        self._needs = np.array([len(self._mine(place)) for place in range(len(world.names))])
        self._turns = {"train": steps} | {kind: draw.steps for kind, draw in fixed.items()}
        self.rows_each = self._rows_that_fit(room, size)
        self._short = self._needs <= self.rows_each // lanes
        self._sites_each = -(-min(size, _SITES) // lanes) * lanes
        epochs = {"train": local.epochs if local.steps is None else 1}
        full = {kind: epochs.get(kind, 1) * -(-self.rows_each // self.sizes[kind]) for kind in self._turns}
        self._steps_each = {
            kind: int(max(1, lanes * turns[self._short].max(initial=0), 2 * full[kind]))
            for kind, turns in self._turns.items()
        }
        self._places = [_Place(), _Place()]

    def _rows_that_fit(self, room: int, size: int) -> int:
        """At least a batch, and no more than the largest round takes."""
        row = sum(column.nbytes // max(1, len(column)) for column in jax.tree.leaves(self._world.rows))
        least = max(self.sizes.values())
        rows = max(least, min(room // 2 // max(1, row), int(np.sort(self._needs)[-size:].sum())))
        even = rows - rows % _LINE  # each stream's part begins where a device of the host takes it as it is
        return even if self._plan.streams > 1 and even >= max(least, 16 * _LINE) else rows

    def units(self, cohort: np.ndarray, plan: Plan) -> list[Unit]:
        """What is gone through together, in order: with one stream and lane that of the ids."""
        none, short = len(self._world.names), self._short[cohort]
        units: list[Unit] = []
        if plan == Plan(1, 1):
            for run in np.split(cohort, np.flatnonzero(np.diff(short)) + 1):
                if len(run) and self._short[run[0]]:
                    units += [Unit([pack], True) for pack in self._packs(run.tolist(), 1)]
                else:
                    units += [Unit([[place]], False) for place in run.tolist()]
            return units
        if short.any():
            few = cohort[short]
            dealt = deal(few, self._turns["train"][few], plan.streams, plan.lanes, len(few), none)
            piles = [[place for place in pile if place < none] for pile in dealt.slots.tolist()]
            packs = [self._packs(pile, plan.lanes) for pile in piles]
            for turn in range(max(map(len, packs))):
                units.append(Unit([mine[turn] if turn < len(mine) else [] for mine in packs], True))
        many = cohort[~short]
        busiest = many[np.argsort(-self._turns["train"][many], kind="stable")].tolist()
        for start in range(0, len(busiest), plan.streams):
            abreast = [[place] for place in busiest[start : start + plan.streams]]
            units.append(Unit(abreast + [[none]] * (plan.streams - len(abreast)), False))
        return units

    def _packs(self, pile: list[int], lanes: int) -> list[list[int]]:
        """A pile of sites cut into what a block holds; rows of lanes stay together."""
        if not pile:
            return []
        amounts = np.stack([np.ones_like(self._needs), self._needs, *self._turns.values()])[:, pile]
        limits = [self._sites_each, self.rows_each, *(self._steps_each[kind] for kind in self._turns)]
        of_rows = np.add.reduceat(amounts, np.arange(0, len(pile), lanes), axis=1).T
        packs, held = [], np.array(limits)
        for row, more in enumerate(of_rows):
            fits = bool((held + more <= limits).all())
            held = held + more if fits else more
            sites = pile[row * lanes : (row + 1) * lanes]
            packs[-1].extend(sites) if fits else packs.append(sites)
        return packs

    # ---- what is read -------------------------------------------------------------------------------------------

    def whole(self, unit: Unit, number: int, cohort: np.ndarray, looking: bool = False) -> Block:
        """The rows and batches of whole sites, a stream beside the other; with `looking` those of the watch alone."""
        world = self._world
        streams, slots_each = len(unit.sites), self._sites_each
        slots = np.full((streams, slots_each), len(world.names), np.int32)
        rows, draws, passes = self._room_for(streams), [], range(1 if looking else len(self._passes))
        with spans.span("plan"):
            for d, places in enumerate(unit.sites):
                slots[d, : len(places)] = places
                here = self._in_block(places, looking)
                dealt = Deal(np.arange(slots_each, dtype=np.int32)[None], np.zeros(0), np.zeros(0))
                draws.append([self._batches(k, here, dealt, number) for k in passes])
            index, first, steps = (
                tuple(np.stack(stream) for stream in zip(*([one[part] for one in draw] for draw in draws), strict=True))
                for part in range(3)
            )
        with spans.span("transfer"):
            for d, places in enumerate(unit.sites):
                wanted = np.concatenate([np.zeros(0, np.int32), *(self._mine(place, looking) for place in places)])
                self._read(wanted, rows, d)
            used = np.array([-(-len(places) // self._plan.lanes) for places in unit.sites], np.int32)
            return Block(rows, index, first, steps, slots, self._ids(slots), used, place_in(cohort, slots))

    def _mine(self, place: int, looking: bool = False) -> np.ndarray:
        """int32, the places of the rows that a round takes of a site, its training rows first; or a look."""
        parts = [self._world.train[place]] if self._trained and not looking else []
        return np.concatenate([*parts, self._world.valid[place]] if self._watched else parts)

    def _in_block(self, places: list[int], looking: bool) -> World:
        """The sites as a world of their own, whose rows lie one after the other as `_mine` has them."""
        world, start = self._world, 0
        train, valid = [], []
        for place in places:
            mine = np.arange(start, start + len(self._mine(place, looking)), dtype=np.int32)
            trained = len(world.train[place]) if self._trained and not looking else 0
            train.append(mine[:trained])
            valid.append(mine[trained:])
            start += len(mine)
        names = tuple(world.names[place] for place in places)
        return World(names, world.ids[places], (), tuple(train), tuple(valid), ())

    def _batches(self, k: int, here: World, dealt: Deal, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A pass's index int32[T, B], first and steps int32[S]."""
        kind, slots = self._passes[k].batches, dealt.slots.shape[1]
        many, size = self._steps_each[kind], self.sizes[kind]
        if not here.names:
            return np.full((many, size), -1, np.int32), np.zeros(slots, np.int32), np.zeros(slots, np.int32)
        if kind == "train":
            index, first, steps = train_draws(here, self._local, dealt, number, k - self._first + 1, many)
            return index[0], first[0], steps[0]
        draw, index = fixed_draws(here, kind, size), np.full((many, size), -1, np.int32)
        used = int(draw.steps.sum())
        index[:used] = draw.index[:used]
        first, steps = np.zeros(slots, np.int32), np.zeros(slots, np.int32)
        first[: len(draw.first)], steps[: len(draw.steps)] = draw.first, draw.steps
        return index, first, steps

    def drawn(self, k: int, place: int, number: int) -> np.ndarray:
        """All batches of a pass at one site: int32[T, B], places in the world."""
        kind, world = self._passes[k].batches, self._world
        if kind != "train":
            return plans.in_order(world.valid[place] if kind == "valid" else world.train[place], self.sizes[kind])
        alone = World((world.names[place],), world.ids[place : place + 1], (), (world.train[place],), (), ())
        dealt = Deal(np.zeros((1, 1), np.int32), np.zeros(0), np.zeros(0))
        steps = int(self._turns["train"][place])
        return train_draws(alone, self._local, dealt, number, k - self._first + 1, steps)[0][0]

    def part(self, slots: np.ndarray, cohort: np.ndarray, drawn: list[np.ndarray], at: int, each: int) -> Block:
        """The rows of some steps of sites that come in steps, in the order of the steps."""
        streams, size = len(drawn), drawn[0].shape[1]
        index = np.full((streams, self.rows_each // size, size), -1, np.int32)
        rows, count = self._room_for(streams), np.zeros(streams, np.int32)
        with spans.span("transfer"):
            for d, batches in enumerate(drawn):
                batches = batches[at : at + each]
                count[d], places = len(batches), batches.reshape(-1)
                own = np.arange(places.size, dtype=np.int32).reshape(batches.shape)
                index[d, : len(batches)] = np.where(batches >= 0, own, -1)
                self._read(np.where(places < 0, places[:1], places), rows, d)  # padding: a row of the same site
            first = np.full(streams, at, np.int32)
            return Block(rows, index, first, count, slots, self._ids(slots), count, place_in(cohort, slots))

    def parts(self, drawn: Sequence[np.ndarray], k: int) -> Iterator[tuple[int, int]]:
        """(the first step, how many) of each block of sites that come in steps: of one length, so that none is over
        before the next is there."""
        last, most = max(map(len, drawn)), self.rows_each // self.sizes[self._passes[k].batches]
        each = -(-last // max(1, -(-last // most)))
        for at in range(0, last, max(1, each)):
            yield at, each

    def _room_for(self, streams: int) -> PyTree:
        """Where the next block's rows are written, [D, R, ...]: in turn one of two places, so that the system need not
        find and clear the memory of each block anew. A device of the host may read them from there."""
        self._places.reverse()
        place = self._places[0]
        jax.block_until_ready(place.done)  # the block before the one that runs
        if place.rows is None:
            most = self._plan.streams, self.rows_each
            place.rows = jax.tree.map(lambda c: _aligned((*most, *c.shape[1:]), c.dtype), self._world.rows)
        return jax.tree.map(lambda rows: rows[:streams], place.rows)

    def runs(self, done: Any) -> None:
        """Says that the block that was read last runs; `done` is there when it is done with its rows."""
        self._places[0].done = done

    def _read(self, places: np.ndarray, rows: PyTree, d: int) -> None:
        for column, room in zip(jax.tree.leaves(self._world.rows), jax.tree.leaves(rows), strict=True):
            column.read(places, room[d, : len(places)])

    def _ids(self, slots: np.ndarray) -> np.ndarray:
        return np.append(self._world.ids, np.uint32(0))[slots]

    def counts(self, number: int, cohort: np.ndarray) -> dict[str, float]:
        """As `Program.amounts`."""
        steps = rows = places = turns = 0
        for k, p in enumerate(self._passes[self._first :], self._first):
            many, lanes, passed = self._turns[p.batches], self._plan.lanes, 0
            for unit in self.units(cohort, self._plan):
                for sites in unit.sites:
                    counts = many[[place for place in sites if place < len(many)]]
                    rows_of_lanes = np.arange(0, len(counts), lanes if unit.whole else 1)
                    longest = int(np.maximum.reduceat(counts, rows_of_lanes).sum()) if len(counts) else 0
                    passed += longest
                    places += longest * self.sizes[p.batches] * (lanes if unit.whole else 1)
            turns = turns or passed
            steps += int(many[cohort].sum())
            rows += sum(int(np.sum(self.drawn(k, int(place), number) >= 0)) for place in cohort)
        return {"steps": steps, "rows": rows, "places": places, "turns": turns}


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Memory that a device of the host takes as it is: where it does not begin at such a place, it would be copied."""
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    room = np.empty(size + _LINE, np.uint8)
    start = -room.ctypes.data % _LINE
    return room[start : start + size].view(dtype).reshape(shape)


def place_in(cohort: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """int32, the place of each slot's site in the cohort; its length where it is in none."""
    at = np.searchsorted(cohort, slots)
    there = np.append(cohort, -1)[at] == slots
    return np.where(there, at, 2**30).astype(np.int32)
