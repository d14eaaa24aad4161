"""A study's compiled program over a world: one call a round."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from learner_jax import trees
from learner_jax.data import plans
from learner_jax.engines import rounds
from learner_jax.engines.rounds import Draw
from learner_jax.engines.world import Deal, Local, World, deal, fixed_draws, train_capacity, train_draws
from learner_jax.federate import Federated, Server
from learner_jax.leaves import Packed, schema_bytes
from learner_jax.types import PyTree


class Plan(NamedTuple):
    """How a round is laid over the machine.

    Attributes:
      streams: devices that each go through their own sites.
      lanes: sites abreast on each.
    """

    streams: int = 1
    lanes: int = 1


class Outcome(NamedTuple):
    """What a simulated round brings.

    Attributes:
      server: the new state.
      states: every site's new state, [N, ...].
      metrics: sums over the cohort.
      digest: uint32[4], of the server.
    """

    server: PyTree
    states: PyTree
    metrics: PyTree
    digest: Any


class Program:
    """The rounds of one study over one world.

    Args:
      federated: what is run.
      template: shapes of the weights.
      world: the rows.
      local: batch size, epochs, steps, seed.
      plan: streams and lanes.
      size: the largest cohort of any round.
      study: uint32 of the study.
      enrolled: N, sites known to the study; the world's own number if None (a worker's world holds one of them).
      eval_batch_size: rows a step when nothing is learned.
    """

    def __init__(
        self,
        federated: Federated,
        template: PyTree,
        world: World,
        local: Local,
        plan: Plan = Plan(),
        size: int | None = None,
        study: int = 0,
        enrolled: int | None = None,
        eval_batch_size: int = 512,
    ):
        self.federated, self.template, self.world, self.local, self.plan = federated, template, world, local, plan
        self.size = len(world.names) if size is None else size
        self.study, self.enrolled = np.uint32(study), np.int32(len(world.names) if enrolled is None else enrolled)
        self._passes = ([] if federated.watch is None else [federated.watch]) + list(federated.passes)
        self._offset = 0 if federated.watch is None else 1
        self._capacity = train_capacity(world, local, self.size)
        kinds = {p.batches for p in self._passes} - {"train"}
        sizes = {"valid": eval_batch_size, "look": local.batch_size}
        self._fixed = {kind: fixed_draws(world, kind, sizes[kind]) for kind in kinds}
        self._fixed_index = {kind: jnp.asarray(draw.index) for kind, draw in self._fixed.items()}
        # A copy for each stream, made once: rows on one device would be copied to the others in every round.
        self._rows = self.place(world.rows) if plan.streams > 1 else world.rows
        self._simulate = jax.jit(self._round, donate_argnums=(1,))
        self._local = jax.jit(self._one)
        self._look = jax.jit(functools.partial(rounds.look_each, federated))

    def place(self, tree: PyTree) -> PyTree:
        """A copy on the plan's devices, so that the first round compiles for the placement of all others."""
        if self.plan.streams == 1:
            return jax.tree.map(jnp.array, tree)
        return jax.device_put(tree, NamedSharding(self._mesh(), PartitionSpec()))

    def _mesh(self) -> Mesh:
        return Mesh(np.array(jax.devices()[: self.plan.streams]), ("stream",))

    # ---- host side: what a round needs ----------------------------------------------------------------------------

    def draws(self, dealt: Deal, number: int) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]:
        """(index, first, steps) of each pass; index is [D, T, B] for shuffled passes, [T, B] for fixed ones."""
        out = []
        for k, p in enumerate(self._passes):
            if p.batches == "train":
                out.append(train_draws(self.world, self.local, dealt, number, k - self._offset + 1, self._capacity))
            else:
                fixed = self._fixed[p.batches]
                first, steps = (np.append(a, 0)[dealt.slots].astype(np.int32) for a in (fixed.first, fixed.steps))
                out.append((self._fixed_index[p.batches], first, steps))
        index, first, steps = zip(*out, strict=True)
        return index, first, steps

    def deal(self, cohort: np.ndarray) -> Deal:
        """Deals a cohort (int32 places, ascending) to streams and lanes."""
        steps = np.array([self._steps_of(int(place)) for place in cohort], np.int32)
        return deal(cohort, steps, self.plan.streams, self.plan.lanes, self.size, len(self.world.names))

    def _steps_of(self, place: int) -> int:
        local = self.local
        return plans.steps_of(len(self.world.train[place]), local.batch_size, local.epochs, local.steps)

    # ---- a round in one process -----------------------------------------------------------------------------------

    def round(self, server: Server, states: PyTree, number: int, cohort: np.ndarray) -> Outcome:
        """One simulated round; `states` is consumed.

        Args:
          server: the coordinator's state.
          states: every site's, [N, ...].
          number: from 1.
          cohort: int32, places of the sites asked, ascending.
        """
        dealt = self.deal(cohort)
        return self._simulate(
            server, states, self._rows, *self.draws(dealt, number), dealt.slots, self._ids(dealt.slots),
            dealt.used, self._padded(dealt.position), np.int32(number), np.int32(len(cohort)), np.int32(1),
        )  # fmt: skip

    def _ids(self, slots: np.ndarray) -> np.ndarray:
        return np.append(self.world.ids, np.uint32(0))[slots]

    def _padded(self, position: np.ndarray) -> np.ndarray:
        out = np.full(self.size, -1, np.int32)
        out[: len(position)] = position
        return out

    def _round(self, server, states, rows, index, first, steps, slots, ids, count, position, number, cohort, once):
        federated, template = self.federated, self.template
        round = self._record(number, cohort)
        broadcast = federated.send(server)
        here = jax.tree.map(lambda column: jnp.take(column, slots, axis=0, mode="clip"), states)
        loop = self._streams(broadcast, here, rows, index, first, steps, ids, slots, count, round, once)
        if federated.additive:
            term = jax.tree.map(lambda x: x[0] if x.shape[0] == 1 else jnp.sum(x, 0, dtype=x.dtype), loop.sum)
        else:
            flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), loop.stack)
            wires = jax.tree.map(lambda x: jnp.take(x, position, axis=0, mode="clip"), flat)
            terms = jax.vmap(lambda wire: federated.lift(wire, template))(wires)
            term = federated.reduce(terms, (position >= 0).astype(jnp.float32), server)
        server, metrics, digest = rounds.server_step(federated, template, server, term, round, once)
        states = jax.tree.map(
            lambda whole, part: whole.at[slots.reshape(-1)].set(part.reshape(-1, *part.shape[2:]), mode="drop"),
            states,
            loop.states,
        )
        return Outcome(server, states, metrics, digest)

    def _record(self, number, cohort):
        return rounds.make_round(self.study, self.local.seed, number, cohort, self.enrolled)

    def _streams(self, broadcast, here, rows, index, first, steps, ids, slots, count, round, once):
        """Loop with a leading axis of streams on every leaf."""
        shuffled = tuple(p.batches == "train" for p in self._passes)
        present = slots < len(self.world.names)

        def one(broadcast, rows, here, index, first, steps, ids, present, count, round, once):
            draws = tuple(
                Draw(i[0] if moves else i, f[0], s[0])
                for i, f, s, moves in zip(index, first, steps, shuffled, strict=True)
            )
            mine = jax.tree.map(lambda x: x[0], here)
            loop = rounds.stream(
                self.federated, self.template, self.plan.lanes, broadcast, mine, draws, rows, round, ids[0],
                present[0], count[0], once,
            )  # fmt: skip
            return jax.tree.map(lambda x: x[None], loop)

        arguments = (broadcast, rows, here, index, first, steps, ids, present, count, round, once)
        if self.plan.streams == 1:
            return one(*arguments)
        each, all_ = PartitionSpec("stream"), PartitionSpec()
        spec_index = tuple(each if moves else all_ for moves in shuffled)
        return jax.shard_map(
            one,
            mesh=self._mesh(),
            in_specs=(all_, all_, each, spec_index, each, each, each, each, each, all_, all_),
            out_specs=each,
            check_vma=False,
        )(*arguments)

    # ---- one site's part, for a worker ----------------------------------------------------------------------------

    def local_round(self, broadcast: PyTree, state: PyTree, number: int, cohort: int) -> tuple[PyTree, PyTree]:
        """The part of the world's only site in a round: (Wire, new state). The simulator's loop, one turn long."""
        dealt = self.deal(np.zeros(1, np.int32))
        states = jax.tree.map(lambda x: x[None], state)
        index, first, steps = self.draws(dealt, number)
        return self._local(
            broadcast, states, self.world.rows, index, first, steps, self._ids(dealt.slots), dealt.used,
            np.int32(number), np.int32(cohort),
        )  # fmt: skip

    def _one(self, broadcast, states, rows, index, first, steps, ids, count, number, cohort):
        round = self._record(number, cohort)
        draws = tuple(
            Draw(i[0] if p.batches == "train" else i, f[0], s[0])
            for i, f, s, p in zip(index, first, steps, self._passes, strict=True)
        )
        loop = rounds.stream(
            self.federated, self.template, 1, broadcast, states, draws, rows, round, ids[0], count[:1] > 0, count[0]
        )
        return loop.wire, jax.tree.map(lambda x: x[0], loop.states)

    # ---- looking --------------------------------------------------------------------------------------------------

    def look(self, broadcast: PyTree, states: PyTree, number: int) -> tuple[PyTree, PyTree]:
        """The watch's sums at every site of the world, on this broadcast; nothing changes.

        Returns:
          Of each site, [N, ...], and over all of them.
        """
        if self.federated.watch is None:
            return {}, {}
        fixed = self._fixed["valid"]
        draw = Draw(self._fixed_index["valid"], fixed.first, fixed.steps)
        sites = np.int32(len(self.world.names))
        return self._look(broadcast, states, draw, self.world.rows, self._record(np.int32(number), sites),
                          self.world.ids, sites)  # fmt: skip


def wire_shape(federated: Federated, template: PyTree, rows: PyTree, local: Local, look: bool = False) -> PyTree:
    """Shapes of what a site sends in a round, or in a look alone; nothing is run.

    Args:
      federated: what is run.
      template: shapes of the weights.
      rows: one example batch, for its shapes.
      local: for the batch size.
      look: the metrics of the watch alone.
    """

    def one(weights, rows):
        broadcast = federated.send(federated.init(weights, jax.random.key(0)))
        site, number = federated.enrol(weights), jnp.int32(1)
        draw = Draw(jnp.zeros((1, local.batch_size), jnp.int32), number, number)
        round = rounds.make_round(jnp.uint32(0), 0, number, number, number)
        if look:
            watch = federated.watch
            return (
                {}
                if watch is None
                else federated.release(rounds.fold(watch, broadcast, site, (), draw, rows, round.key))
            )
        draws = (draw,) * (len(federated.passes) + (federated.watch is not None))
        return rounds.local_round(federated, template, broadcast, site, draws, rows, round, jnp.uint32(0))[0]

    return jax.eval_shape(one, template, rows)


def enrol_all(federated: Federated, weights: PyTree, sites: int) -> PyTree:
    """The states of N sites that have just enrolled, [N, ...]."""
    return jax.tree.map(lambda x: jnp.repeat(x[None], sites, axis=0), federated.enrol(weights))


def _carried(program: Any, arguments: int) -> list[int | None]:
    """Of each output of a jaxpr, which of its first inputs it is, unchanged; None where it is computed."""
    place = {id(variable): at for at, variable in enumerate(program.jaxpr.invars[:arguments])}
    return [place.get(id(variable)) for variable in program.jaxpr.outvars]


class Sender:
    """What a coordinator sends, packed; leaves that are the server's own are not copied.

    Args:
      federated: what is run.
      server: its state, for its shapes.
    """

    def __init__(self, federated: Federated, server: Server):
        program, self._shape = jax.make_jaxpr(federated.send, return_shape=True)(trees.shapes(server))
        self._own = _carried(program, len(jax.tree.leaves(server)))

        def computed(server):
            sent = zip(jax.tree.leaves(federated.send(server)), self._own, strict=True)
            return [leaf for leaf, own in sent if own is None]

        self._computed = jax.jit(computed)

    def __call__(self, server: Server) -> Packed:
        """The broadcast of a state."""
        own, computed = jax.tree.leaves(server), iter(self._computed(server))
        leaves = [next(computed) if at is None else own[at] for at in self._own]
        return Packed(trees.named_leaves(jax.tree.unflatten(jax.tree.structure(self._shape), leaves)))


class Final:
    """The model of a site that has just enrolled, from a server's state; weights to enrol with are made where wanted.

    Args:
      federated: what is run.
      init: (rows) -> the common start.
      rows: one example batch, for its shapes.
      server: a state, for its shapes.
    """

    def __init__(self, federated: Federated, init: Callable[[PyTree], PyTree], rows: PyTree, server: Server):
        self._federated, self._init, self._rows = federated, init, rows
        shapes = trees.shapes(server), jax.eval_shape(init, rows)
        program, self._shape = jax.make_jaxpr(self._model, return_shape=True)(*shapes)
        self._own = _carried(program, len(jax.tree.leaves(server)))

    def _model(self, server: Server, weights: PyTree) -> PyTree:
        return self._federated.model(self._federated.send(server), self._federated.enrol(weights))

    def __call__(self, server: Server) -> PyTree:
        """{"params": ..., "stats": ...} of a state."""
        if None in self._own:
            return self._model(server, self._init(self._rows))
        own = jax.tree.leaves(server)
        return jax.tree.unflatten(jax.tree.structure(self._shape), [own[at] for at in self._own if at is not None])


Leaves = Iterator[tuple[str, Any]]
_LARGE = 64 * 2**20


class Reducer:
    """The coordinator's part: the simulator's own sum and step, over wires that have arrived.

    Args:
      federated: what is run.
      template: shapes of the weights.
      wire: shapes of a Wire.
      study, seed, enrolled: of the study.
      size: the largest cohort; fixes the shape of a stack.
    """

    def __init__(
        self, federated: Federated, template: PyTree, wire: PyTree, study: int, seed: int, enrolled: int, size: int
    ):
        self.federated, self.template, self.wire, self.size = federated, template, wire, size
        self.study, self.seed, self.enrolled = np.uint32(study), seed, np.int32(enrolled)
        self._add = jax.jit(functools.partial(rounds.accumulate, federated, template, 1), donate_argnums=(0,))
        term = jax.eval_shape(lambda wire: federated.lift(wire, template), wire)
        self._zeros = jax.jit(lambda: trees.zeros_like(term))
        self._add_leaf = jax.jit(jnp.add, donate_argnums=(0,))
        lift = jax.make_jaxpr(lambda wire: federated.lift(wire, template))(wire)
        count = len(jax.tree.leaves(wire))
        own = _carried(lift, count) == list(range(count))
        self._leafwise = own and schema_bytes(trees.schema(wire)) >= _LARGE
        self._stacked = jax.jit(self._reduce)
        self._step = jax.jit(self._server_step)

    def __call__(
        self,
        server: Server,
        wires: Iterable[PyTree | Leaves],
        accepted: int,
        number: int,
        cohort: int,
    ) -> tuple[Server, PyTree, Any]:
        """One server step.

        Args:
          server: the state before.
          wires: in ascending order of site id, each a Wire or an iterator over (path, leaf); read one at a time where
            the rule is a sum.
          accepted: how many they are.
          number, cohort: of the round.

        Returns:
          The new state, the metrics' sums, the new state's digest.
        """
        if self.federated.additive:
            term = self._sum(wires)
        else:
            absent = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.wire)
            there = [self._whole(wire) for wire in wires]
            stack = jax.tree.map(lambda *leaves: np.stack(leaves), *there, *[absent] * (self.size - accepted))
            share = (np.arange(self.size) < accepted).astype(np.float32)
            term = self._stacked(stack, share, server)
        return self._step(server, term, np.int32(number), np.int32(cohort), np.int32(1))

    def _sum(self, wires: Iterable[PyTree | Leaves]) -> PyTree:
        """The sum of all terms. A large wire is added leaf by leaf where it is its own term: one of its leaves is in
        memory at a time; the numbers are the same."""
        total = self._zeros()
        if not self._leafwise:
            for wire in wires:
                total = jax.block_until_ready(self._add(total, self._whole(wire)))
            return total
        place = {name: at for at, name in enumerate(trees.names(self.wire))}
        leaves, structure = jax.tree.flatten(total)
        del total
        for wire in wires:
            named = wire if isinstance(wire, Iterator) else iter(trees.named_leaves(wire).items())
            while (found := next(named, None)) is not None:
                at = place[found[0]]
                leaves[at] = jax.block_until_ready(self._add_leaf(leaves[at], found[1]))
                del found  # before the next is read
        return jax.tree.unflatten(structure, leaves)

    def _whole(self, wire: PyTree | Leaves) -> PyTree:
        return trees.rebuild(self.wire, dict(wire)) if isinstance(wire, Iterator) else wire

    def _reduce(self, wires, share, server):
        terms = jax.vmap(lambda wire: self.federated.lift(wire, self.template))(wires)
        return self.federated.reduce(terms, share, server)

    def _server_step(self, server, term, number, cohort, once):
        round = rounds.make_round(self.study, self.seed, number, cohort, self.enrolled)
        return rounds.server_step(self.federated, self.template, server, term, round, once)
