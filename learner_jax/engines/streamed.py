"""A program over examples that stay on the host, or on its disk: they come in blocks, one while another is worked on.

A block holds the rows of several sites, whose turns are those of the resident program: with one stream the sums have
the same bits. A site with more rows than a block comes in steps: its batches are gathered on the host, and what a pass
carries is carried from block to block. Two blocks are on a device at a time, and nothing else of the examples.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from learner_jax import spans, trees
from learner_jax.data.columns import Column, is_on_disk
from learner_jax.data.sites import SiteData
from learner_jax.engines import machines, rounds
from learner_jax.engines.blocks import Block, Blocks, place_in
from learner_jax.engines.exact import rounded
from learner_jax.engines.program import Outcome, Plan, Program, anew, wire_shape
from learner_jax.engines.rounds import Draw
from learner_jax.engines.world import World, build_world
from learner_jax.federate import Server
from learner_jax.specs import Engine
from learner_jax.types import PyTree

_SHARE = 0.6
"""Of a device's memory, for examples where nothing else is said: the rest is for models and what they compute."""
_ON_HOST = float("inf")
"""Room where the device's memory is the host's: what is in it already need not be moved."""
_BLOCKS = 2**29
"""Bytes of examples on all devices in blocks where nothing else is said: larger ones gain nothing."""
_PACK = ("broadcast", "states", "sums", "wires", "block", "number", "cohort", "once")
_STEPS = ("broadcast", "states", "carry", "block", "number", "cohort")
"""What the arguments of the compiled programs are called in a profile."""


class _Held:
    """What a round holds between blocks: the broadcast, the sites' states, sums, wires that are not summed (in a look
    the figures of each site), and each pass's carry at a site that comes in steps."""

    def __init__(self, broadcast: PyTree, states: PyTree, sums: PyTree, wires: PyTree, passes: int):
        self.broadcast, self.states, self.sums, self.wires = broadcast, states, sums, wires
        self.carries: list[PyTree] = [()] * passes


_Job = tuple[Callable[[], Block | None], Callable[[_Held, Any], Any]]
"""How a block is loaded, and what is done with it; the latter gives a small array that is there when it is done."""


def is_streamed(world: World) -> bool:
    """Whether the world's rows are not on the device."""
    return isinstance(jax.tree.leaves(world.rows)[0], Column)


def world_of(engine: Engine, sites: Mapping[str, SiteData], dtype: Any) -> World:
    """The sites' rows on the devices where they fit, else where they are: see `build_world`."""
    leaves = [leaf for site in sites.values() for leaf in jax.tree.leaves(site.rows)]
    size = sum(leaf.nbytes if leaf.dtype.kind != "f" else leaf.size * np.dtype(dtype).itemsize for leaf in leaves)
    least = engine.rows_mib is None and any(is_on_disk(leaf) for leaf in leaves)
    return build_world(sites, dtype, streamed=least or size > room_of(engine))


def room_of(engine: Engine) -> float:
    """Bytes of examples that may lie on a device."""
    if engine.rows_mib is not None:
        return engine.rows_mib * 2**20
    memory = device_memory()
    return _ON_HOST if memory is None else _SHARE * memory


def device_memory() -> float | None:
    """Bytes of an accelerator's memory; None where it does not tell, and on a CPU, whose memory is the host's."""
    told = jax.local_devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    return (told or {}).get("bytes_limit") or None


def program_over(engine: Engine, world: World, plan: Plan = Plan()) -> Callable[..., Program]:
    """What makes a program over a world, wherever its rows are: `Program`, or the like.

    Args:
      engine: of which the room counts.
      world: the rows.
      plan: of the program.
    """
    if not is_streamed(world):
        return Program
    room = room_of(engine)
    if engine.rows_mib is None:  # the host holds them for all its devices
        room = min(room, _BLOCKS // plan.streams)
    return functools.partial(Streamed, int(room))


class Streamed(Program):
    """The rounds of one study over a world whose rows are columns.

    Args:
      room: bytes of examples that may lie on a device, in two blocks; others as of `Program`.
    """

    def __init__(self, room: int, *given: Any, **named: Any):
        self._room = room
        super().__init__(*given, **named)

    def _settle(self) -> None:
        streams = self.plan.streams
        self.blocks = Blocks(
            self.world, self.local, self.plan, self._passes, self._offset, self._fixed, self.steps, self.size,
            self._room,
        )  # fmt: skip
        shape = wire_shape(self.federated, self.template, self._two_rows(), self.local)
        term = jax.eval_shape(lambda wire: self.federated.lift(wire, self.template), shape)
        additive = self.federated.additive

        def nothing() -> tuple[PyTree, PyTree]:
            def stack(tree, many):
                return jax.tree.map(lambda leaf: jnp.zeros((many, *leaf.shape), leaf.dtype), tree)

            return (stack(term, streams), ()) if additive else ((), stack(shape, self.size))

        each, all_ = self._placements()

        def compiled(f: Any, out: Any, donated: tuple[int, ...] = (), k: int | None = None) -> Any:
            where: dict[str, Any] = {} if each is None else {"out_shardings": out}  # the same in each block
            made = jax.jit(f if k is None else _of_pass(f, k), donate_argnums=donated, **where)
            self._options[id(made)] = {"donate_argnums": donated, **where}
            return made

        self._options: dict[int, dict[str, Any]] = {}
        passes = range(len(self._passes))
        self._nothing = compiled(nothing, (each, all_))
        self._pack = compiled(self._packed, (each, all_, all_, all_), (1, 2, 3))
        self._begins = [compiled(self._begun, each, k=k) for k in passes]
        self._steps = [compiled(self._further, (each, all_), (2,), k) for k in passes]
        self._ends = compiled(self._ended, (each, all_, all_), (1, 2, 3))
        self._close = compiled(self._closing, all_)
        self._alone = compiled(self._sent, all_)
        self._looks = compiled(self._looked, all_, (2, 3))
        self._look_ends = compiled(self._look_ended, all_, (1, 2))
        self._figures = compiled(self._no_figures, all_)
        self._first: tuple[int, np.ndarray, Block | None] | None = None

    def _two_rows(self) -> PyTree:
        return jax.tree.map(lambda c: jax.ShapeDtypeStruct((2, *c.shape[1:]), c.dtype), self.world.rows)

    # ---- a round --------------------------------------------------------------------------------------------------

    def round(self, server: Server, states: PyTree, number: int, cohort: np.ndarray) -> Outcome:
        beforehand = self._prepared(number, cohort)
        sums, wires = self._nothing()
        held = _Held(self.send(server), states, sums, wires, len(self._passes))
        scalars = np.int32(number), np.int32(len(cohort)), np.int32(1)
        if spans.listening():
            with spans.span("profile"):
                spans.counted(**self.blocks.counts(number, cohort))
        self._go(self._jobs(number, cohort, scalars), held, beforehand)
        present = np.arange(self.size) < len(cohort)
        return self._close(server, held.sums, held.wires, present, *scalars)._replace(states=held.states)

    def prepare(self, number: int, cohort: np.ndarray) -> None:
        job = next(self._jobs(number, cohort, ()), None)
        self._first = None if job is None else (number, cohort, job[0]())

    def _prepared(self, number: int, cohort: np.ndarray) -> list[Block | None]:
        """The first block, where it was loaded beforehand; whoever takes it out is the only one to hold it."""
        first, self._first = self._first, None
        return [first[2]] if first is not None and first[0] == number and np.array_equal(first[1], cohort) else []

    def _go(self, jobs: Iterator[_Job], held: _Held, beforehand: list[Block | None] | None = None) -> None:
        """Runs jobs one after the other, each one's block being loaded while the one before runs."""
        for load, run in jobs:
            ready = beforehand.pop() if beforehand else load()
            done = run(held, ready)
            if ready is not None:
                self.blocks.runs(done)
            del ready  # while the next one is loaded, none but the one that runs is there

    def _jobs(self, number: int, cohort: np.ndarray, scalars: tuple[Any, ...]) -> Iterator[_Job]:
        for unit in self.blocks.units(cohort, self.plan):
            if unit.whole:
                yield (
                    functools.partial(self._whole, unit, number, cohort),
                    functools.partial(self._run_pack, scalars=scalars),
                )
            else:
                slots = np.array([place for [place] in unit.sites], np.int32)
                yield from self._long(slots, number, cohort, range(len(self._passes)), scalars)
                yield _nothing, functools.partial(self._run_end, slots, cohort, scalars)

    def _long(
        self, slots: np.ndarray, number: int, cohort: np.ndarray, passes: Sequence[int], scalars: tuple[Any, ...]
    ) -> Iterator[_Job]:
        """The passes over sites that come in steps, one in each stream."""
        for k in passes:
            yield _nothing, functools.partial(self._run_begin, k, slots)
            with spans.span("plan"):
                there = slots[slots < len(self.world.names)].tolist()
                drawn = [self.blocks.drawn(k, place, number) for place in there]
                drawn += [drawn[0][:0]] * (len(slots) - len(drawn))
            for at, each in self.blocks.parts(drawn, k):
                yield (
                    functools.partial(self._part, slots, cohort, drawn, at, each),
                    functools.partial(self._run_steps, k, scalars),
                )

    def _whole(self, *given: Any) -> Block:
        return self._sent_over(self.blocks.whole(*given))

    def _part(self, *given: Any) -> Block:
        return self._sent_over(self.blocks.part(*given))

    def _sent_over(self, block: Block) -> Block:
        """The block on the devices, each stream's part on its own."""
        each = self._placements()[0] if len(block.slots) == self.plan.streams else None
        with spans.span("transfer"):
            return machines.spread(block, each)

    # ---- what is compiled -----------------------------------------------------------------------------------------

    def _run_pack(self, held: _Held, block: Block, scalars: tuple[Any, ...]) -> Any:
        given = held.broadcast, held.states, held.sums, held.wires, block, *scalars
        held.sums, held.wires, held.states, done = self._call("a block", self._pack, self._packed, _PACK, given)
        return done

    def _call(self, name: str, program: Any, f: Any, names: tuple[str, ...], given: tuple[Any, ...]) -> Any:
        """Calls a compiled program; whoever profiles hears of it, and waits for it here."""
        if not spans.listening():
            return program(*given)
        with spans.span("profile"):
            arguments = dict(zip(names, given, strict=True))
            options = self._options[id(program)]
            spans.called(lambda: spans.Called(name, program, arguments, lambda: anew(f, **options), self.step_cost))
        with spans.span("compute"):
            return jax.block_until_ready(program(*given))

    def _packed(self, broadcast, states, sums, wires, block, number, cohort, once):
        """Whole sites: what `Program._round` does with them, onto the sums of those before."""
        round = self._record(number, cohort)

        def one(fixed, mine):
            broadcast, round, once = fixed
            here, total, rows, index, first, steps, ids, present, count = mine
            draws = tuple(Draw(*draw) for draw in zip(index, first, steps, strict=True))
            return rounds.stream(
                self.federated, self.template, self.plan.lanes, broadcast, here, draws, rows, round, ids, present,
                count, once, total,
            )  # fmt: skip

        present = block.slots < len(self.world.names)
        loop = self._by_stream(
            one,
            (broadcast, round, once),
            (self._of(states, block.slots), sums, block.rows, block.index, block.first, block.steps, block.ids, present,
             block.used),
        )  # fmt: skip
        wires = self._joined(wires, loop.stack, block.position)
        return loop.sum, wires, self._with(states, block.slots, loop.states), jnp.sum(block.used)

    def _joined(self, wires, new, position):
        """All wires of the cohort, [size, ...], with these in their places; () where they are added up."""
        if self.federated.additive:
            return ()
        at = position.reshape(-1)
        return jax.tree.map(lambda w, x: w.at[at].set(x.reshape(-1, *x.shape[2:]), mode="drop"), wires, new)

    def _run_begin(self, k: int, slots: np.ndarray, held: _Held, block: None) -> None:
        found = () if k in (0, self._offset) else held.carries[k - 1]
        held.carries[k] = self._begins[k](held.broadcast, held.states, found, slots)

    def _begun(self, k, broadcast, states, found, slots):
        """A pass's first carry at the sites that come in steps."""

        def one(broadcast, mine):
            site, found = mine
            carry = rounds.begun(self._passes[k], self.federated.receive(broadcast), site, found)
            return jax.tree.map(jnp.copy, carry)  # it is given away; what it was made from is not

        return self._by_stream(one, broadcast, (self._of(states, slots), found))

    def _run_steps(self, k: int, scalars: tuple[Any, ...], held: _Held, block: Block) -> Any:
        given = held.broadcast, held.states, held.carries[k], block, *scalars[:2]
        f = _of_pass(self._further, k)
        held.carries[k], done = self._call(f"steps of pass {k}", self._steps[k], f, _STEPS, given)
        return done

    def _further(self, k, broadcast, states, carry, block, number, cohort):
        """Some steps of a pass at the sites that come in steps."""
        round, name = self._record(number, cohort), f"pass {k - self._offset}" if k >= self._offset else "the watch"

        def one(fixed, mine):
            broadcast, round = fixed
            site, carry, rows, index, at, steps, id_ = mine
            key = jax.random.fold_in(jax.random.fold_in(round.key, id_), k - self._offset + 1)
            draw, broadcast = Draw(index, jnp.int32(0), steps), self.federated.receive(broadcast)
            with rounds.scope("evaluate" if k < self._offset else "step"):
                return rounds.further(self._passes[k], broadcast, site, carry, draw, rows, key, at, name)

        carry = self._by_stream(
            one,
            (broadcast, round),
            (self._of(states, block.slots), carry, block.rows, block.index, block.first, block.steps, block.ids),
        )
        return carry, jnp.sum(block.steps)

    def _run_end(
        self, slots: np.ndarray, cohort: np.ndarray, scalars: tuple[Any, ...], held: _Held, block: None
    ) -> None:
        held.sums, held.wires, held.states = self._ends(
            held.broadcast, held.states, held.sums, held.wires, self._looked_of(held), self._found_of(held), slots,
            self._ids(slots), place_in(cohort, slots), *scalars,
        )  # fmt: skip

    def _looked_of(self, held: _Held) -> PyTree:
        return held.carries[0] if self._offset else ()

    def _found_of(self, held: _Held) -> PyTree:
        return held.carries[-1] if len(self._passes) > self._offset else ()

    def _ended(self, broadcast, states, sums, wires, looked, found, slots, ids, position, number, cohort, once):
        """The finished updates of the sites that came in steps, onto the sums of those before."""
        federated, template, round = self.federated, self.template, self._record(number, cohort)

        def one(fixed, mine):
            broadcast, round, once = fixed
            site, total, looked, found, id_, present = mine
            wire, site = rounds.finished(
                federated, template, federated.receive(broadcast), site, looked, found, round, id_
            )
            if not federated.additive:
                return (), wire, site
            with rounds.scope("aggregate"):
                joined = rounds.accumulate(federated, template, 1, total, rounded(wire, once - 1))
                return trees.where(present, joined, total), (), site

        sums, new, sites = self._by_stream(
            one,
            (broadcast, round, once),
            (self._of(states, slots), sums, looked, found, ids, slots < len(self.world.names)),
        )
        new, sites = jax.tree.map(lambda x: x[:, None], (new, sites))  # one slot in each stream
        return sums, self._joined(wires, new, position), self._with(states, slots[:, None], sites)

    def _closing(self, server, sums, wires, present, number, cohort, once):
        return self._closed(server, (), sums, wires, present, self._record(number, cohort), once)

    # ---- one site's part, for a worker ----------------------------------------------------------------------------

    def local_round(self, broadcast: PyTree, state: PyTree, number: int, cohort: int) -> tuple[PyTree, PyTree]:
        held = _Held(broadcast, jax.tree.map(lambda x: x[None], state), (), (), len(self._passes))
        scalars, slots = (np.int32(number), np.int32(cohort), np.int32(1)), np.zeros(1, np.int32)
        self._go(self._long(slots, number, slots, range(len(self._passes)), scalars), held)
        return self._alone(
            broadcast, state, self._looked_of(held), self._found_of(held), self._ids(slots)[0], *scalars[:2]
        )

    def _sent(self, broadcast, state, looked, found, id_, number, cohort):
        looked, found = jax.tree.map(lambda x: x[0], (looked, found))
        received = self.federated.receive(broadcast)
        return rounds.finished(
            self.federated, self.template, received, state, looked, found, self._record(number, cohort), id_
        )

    # ---- looking --------------------------------------------------------------------------------------------------

    def look(self, broadcast: PyTree, states: PyTree, number: int) -> tuple[PyTree, PyTree]:
        if self.federated.watch is None:
            return {}, {}
        self._first = None  # its place may be taken
        none, everyone = len(self.world.names), np.arange(len(self.world.names), dtype=np.int32)
        sums, each = self._figures()
        held = _Held(broadcast, states, sums, each, len(self._passes))
        scalars = np.int32(number), np.int32(none)

        def jobs() -> Iterator[_Job]:
            for unit in self.blocks.units(everyone, Plan()):
                if unit.whole:
                    yield (
                        functools.partial(self._whole, unit, number, everyone, True),
                        functools.partial(self._run_look, scalars),
                    )
                    continue
                [[place]] = unit.sites
                slots = np.array([place] + [none] * (self.plan.streams - 1), np.int32)
                yield from self._long(slots, number, everyone, [0], scalars)
                yield _nothing, functools.partial(self._run_look_end, place)

        self._go(jobs(), held)
        return held.wires, held.sums

    def _no_figures(self) -> tuple[PyTree, PyTree]:
        """(sums over no site, of each site none [N, ...])."""
        shape = wire_shape(self.federated, self.template, self._two_rows(), self.local, look=True)
        each = jax.tree.map(lambda leaf: jnp.zeros((len(self.world.names), *leaf.shape), leaf.dtype), shape)
        return trees.zeros_like(shape), each

    def _run_look(self, scalars: tuple[Any, ...], held: _Held, block: Block) -> Any:
        held.sums, held.wires, done = self._looks(held.broadcast, held.states, held.sums, held.wires, block, *scalars)
        return done

    def _looked(self, broadcast, states, total, each, block, number, sites):
        """The watch at whole sites: what `rounds.look_each` makes of them, onto those before."""
        block = jax.tree.map(lambda x: x[0], block)
        here = jax.tree.map(lambda column: jnp.take(column, block.slots, axis=0, mode="clip"), states)
        draw = Draw(block.index[0], block.first[0], block.steps[0])
        count = jnp.sum(block.slots < len(self.world.names))
        new, total = rounds.look_each(
            self.federated, broadcast, here, draw, block.rows, self._record(number, sites), block.ids, count, total
        )
        each = jax.tree.map(lambda whole, x: whole.at[block.slots].set(x, mode="drop"), each, new)
        return total, each, count + 1

    def _run_look_end(self, place: int, held: _Held, block: None) -> None:
        held.sums, held.wires = self._look_ends(held.carries[0], held.sums, held.wires, np.int32(place))

    def _look_ended(self, looked, total, each, place):
        found = self.federated.release(jax.tree.map(lambda x: x[0], looked))
        return trees.add(total, found), jax.tree.map(lambda whole, x: whole.at[place].set(x), each, found)


def _of_pass(f: Callable[..., Any], k: int) -> Callable[..., Any]:
    """f(k, ...) as a function of the rest, by a name that a trace has."""

    def one(*given: Any) -> Any:
        return f(k, *given)

    one.__name__ = f"{f.__name__.strip('_')}_{k}"
    return one


def _nothing() -> None:
    """Of a job that needs no rows."""
