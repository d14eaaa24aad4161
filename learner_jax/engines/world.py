"""The examples on the device, once and flat, and the batch plans over them.

A simulator's world holds every site; a worker's holds one. Both make their plans here, by the same generator.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from learner_jax import trees
from learner_jax.data import plans
from learner_jax.data.columns import Column
from learner_jax.data.sites import SiteData
from learner_jax.engines.rounds import Draw
from learner_jax.errors import DataError
from learner_jax.leaves import site_ids, weights_sha256
from learner_jax.types import PyTree

TRAIN, VALID, TEST = 0, 1, 2


class World(NamedTuple):
    """Sites in ascending order of id, and their rows one after the other.

    Attributes:
      names: the sites' names.
      ids: uint32[N].
      rows: pytree [M, ...] on the device, or columns of the host that are read block by block.
      train, valid, test: for each site the int32 places of its rows.
    """

    names: tuple[str, ...]
    ids: np.ndarray
    rows: PyTree
    train: tuple[np.ndarray, ...]
    valid: tuple[np.ndarray, ...]
    test: tuple[np.ndarray, ...]


class Local(NamedTuple):
    """How a site goes through its rows in a round.

    Attributes:
      batch_size: B.
      epochs: passes over the rows, unless steps is given.
      steps: batches a round, or None.
      seed: the study's.
      lasting: the shuffled epochs go on from round to round; only with steps.
    """

    batch_size: int
    epochs: int
    steps: int | None
    seed: int
    lasting: bool = False


def build_world(sites: Mapping[str, SiteData], dtype: Any = np.float32, streamed: bool = False) -> World:
    """Puts the sites' rows on the device, floating columns in `dtype`; `streamed` leaves them where they are.

    Raises:
      DataError: no site, two names with one id, or rows of different shapes.
    """
    if not sites:
        raise DataError("expected at least one site, got none")
    ids = site_ids(sites)
    ordered = [sites[name] for name in ids]
    _same_shapes(ids, ordered)
    starts = np.cumsum([0] + [len(site.split) for site in ordered])
    if starts[-1] >= 2**31:
        raise DataError(f"expected fewer than 2,147,483,648 rows of all sites, got {starts[-1]:,}")

    def column(*parts):
        if streamed:
            kind = np.result_type(*{part.dtype for part in parts})
            return Column(parts, jax.dtypes.canonicalize_dtype(dtype if kind.kind == "f" else kind))
        whole = np.concatenate([np.asarray(part) for part in parts])
        return jnp.asarray(whole.astype(dtype) if whole.dtype.kind == "f" else whole)

    def places(part):
        return tuple(
            (np.flatnonzero(site.split == part) + start).astype(np.int32)
            for site, start in zip(ordered, starts, strict=False)
        )

    return World(
        names=tuple(ids),
        ids=np.fromiter(ids.values(), np.uint32, len(ids)),
        rows=jax.tree.map(column, *[site.rows for site in ordered]),
        train=places(TRAIN),
        valid=places(VALID),
        test=places(TEST),
    )


def world_sha256(world: World) -> str:
    """sha256 over the sites' names, every row and who is held back."""
    parts = {"rows": world.rows, "train": world.train, "valid": world.valid, "test": world.test}
    names = np.frombuffer("\n".join(world.names).encode(), np.uint8)
    tree = {**parts, "names": names}
    leaves = [leaf if isinstance(leaf, Column) else np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return weights_sha256(dict(zip(trees.names(tree), leaves, strict=True)))


def _same_shapes(names: Sequence[str] | Mapping[str, int], sites: Sequence[SiteData]) -> None:
    def shape(site):
        return jax.tree.map(lambda leaf: (tuple(leaf.shape[1:]), leaf.dtype.kind), site.rows)

    first = None
    for name, site in zip(names, sites, strict=True):
        first = first or (name, shape(site))
        if shape(site) != first[1]:
            raise DataError(f"expected rows like those of site '{first[0]}' {first[1]}, got {shape(site)} at '{name}'")


def fixed_draws(world: World, kind: str, batch_size: int) -> Draw:
    """Every row of a kind once, in order, for all N sites.

    Args:
      world: the rows.
      kind: "look" (training rows) or "valid".
      batch_size: B.
    """
    parts = [plans.in_order(rows, batch_size) for rows in (world.train if kind == "look" else world.valid)]
    steps = np.array([len(part) for part in parts], np.int32)
    first = np.concatenate([[0], np.cumsum(steps)[:-1]]).astype(np.int32)
    index = np.concatenate(parts) if steps.sum() else np.full((1, batch_size), -1, np.int32)
    return Draw(index, first, steps)


class Deal(NamedTuple):
    """Which site goes where in one round, for D streams of S slots each.

    Attributes:
      slots: int32[D, S], place of the site in the world; N where a slot is empty.
      used: int32[D], rows of lanes in use.
      position: int32[C], for the cohort in ascending id: its place among the D x S slots.
    """

    slots: np.ndarray
    used: np.ndarray
    position: np.ndarray


def deal(cohort: np.ndarray, steps: np.ndarray, streams: int, lanes: int, size: int, enrolled: int) -> Deal:
    """Deals a cohort to streams by longest processing time, and within a stream to rows of lanes of like length.

    With one stream and one lane the order is that of the ids: the reference. Rows of lanes hold sites sorted by steps,
    so the steps wasted by waiting for the longest lane telescope to at most L times the longest site's.

    Args:
      cohort: int32[C], places of sites, ascending.
      steps: int32[C], their steps.
      streams, lanes: D and L.
      size: the largest cohort there will be; fixes S.
      enrolled: N.

    Reference: Graham, "Bounds on Multiprocessing Timing Anomalies", SIAM J. Appl. Math. 1969.
    """
    slots_each = slot_count(size, streams, lanes)
    slots = np.full((streams, slots_each), enrolled, np.int32)
    if streams == lanes == 1:
        slots[0, : len(cohort)] = cohort
        return Deal(slots, np.array([len(cohort)], np.int32), np.arange(len(cohort), dtype=np.int32))
    longest = np.argsort(-steps, kind="stable")
    piles: list[list[int]] = [[] for _ in range(streams)]
    loads = [(0, d) for d in range(streams)]  # a heap of those with room: the least loaded first, then the first
    for k, cost in zip(longest.tolist(), (steps[longest] + 1).tolist(), strict=True):
        load, d = loads[0]
        piles[d].append(k)
        if len(piles[d]) < slots_each:
            heapq.heapreplace(loads, (load + cost, d))
        else:
            heapq.heappop(loads)
    position = np.empty(len(cohort), np.int32)
    for d, pile in enumerate(piles):
        order = sorted(pile) if lanes == 1 else pile
        slots[d, : len(order)] = cohort[order]
        position[order] = d * slots_each + np.arange(len(order), dtype=np.int32)
    return Deal(slots, np.array([-(-len(pile) // lanes) for pile in piles], np.int32), position)


def slot_count(size: int, streams: int, lanes: int) -> int:
    """S: slots of each stream; half as many again as an even deal, in whole rows of lanes."""
    each = size if streams == 1 else min(size, -(-3 * size // (2 * streams)) + 1)
    return -(-each // lanes) * lanes


def train_capacity(world: World, local: Local, size: int) -> int:
    """Steps that the `size` busiest sites make in a pass: a plan of this many never has to grow."""
    steps = sorted(plans.steps_of(len(rows), local.batch_size, local.epochs, local.steps) for rows in world.train)
    return max(1, sum(steps[-size:]))


def _plan_of_steps(
    rows: np.ndarray, site: int, local: Local, generators: plans.Generators, round_number: int, pass_number: int
) -> np.ndarray:
    """One site's batches where a study says how many there are, int32[steps, B]."""
    assert local.steps is not None
    if local.lasting:
        begin = (round_number - 1) * local.steps
        return plans.lasting_plan(rows, local.batch_size, local.steps, local.seed, site, begin, pass_number)
    draw = generators.at(site, round_number, pass_number)
    return plans.train_plan(rows, local.batch_size, local.epochs, local.steps, draw)


def train_draws(
    world: World, local: Local, dealt: Deal, round_number: int, pass_number: int, capacity: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A round's shuffled batches: index int32[D, T, B], first int32[D, S], steps int32[D, S]."""
    streams, slots = dealt.slots.shape
    size, generators = local.batch_size, plans.Generators(local.seed)
    index = np.full((streams, capacity, size), -1, np.int32)
    first, steps = np.zeros((streams, slots), np.int32), np.zeros((streams, slots), np.int32)
    ids = world.ids.tolist()
    for d in range(streams):
        at, flat, begins, counts = 0, index[d].reshape(-1), [0] * slots, [0] * slots
        for s, place in enumerate(dealt.slots[d].tolist()):
            if place >= len(ids):
                continue
            rows, site = world.train[place], ids[place]
            if local.steps is not None:
                plan = _plan_of_steps(rows, site, local, generators, round_number, pass_number)
                index[d, at : at + len(plan)] = plan
                many = len(plan)
            else:  # what `train_plan` makes, where it belongs at once
                draw, each = generators.at(site, round_number, pass_number), -(-len(rows) // size)
                many = local.epochs * each
                for start in range(at * size, (at + many) * size, each * size) if each else ():
                    flat[start : start + len(rows)] = draw.permutation(rows)
            begins[s], counts[s] = at, many
            at += many
        first[d], steps[d] = begins, counts
    return index, first, steps
