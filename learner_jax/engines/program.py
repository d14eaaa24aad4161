"""A study's compiled program over a world: one call a round."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from learner_jax import spans, trees
from learner_jax.data import plans
from learner_jax.engines import machines, rounds
from learner_jax.engines.rounds import Draw
from learner_jax.engines.world import Deal, Local, World, deal, fixed_draws, train_capacity, train_draws
from learner_jax.federate import Federated, Server
from learner_jax.types import Batch, PyTree


class Plan(NamedTuple):
    """How a round is laid over the machine.

    Attributes:
      streams: devices that each go through their own sites.
      lanes: sites abreast on each.
    """

    streams: int = 1
    lanes: int = 1

    def said(self) -> str:
        """In words."""
        if self == Plan(1, 1):
            return "one site after the other"
        devices = f"on {self.streams} devices" if self.streams > 1 else "on one device"
        return f"{self.lanes} sites abreast {devices}" if self.lanes > 1 else f"one site after the other {devices}"


_ROUND = (
    "server", "states", "rows", "batches", "first", "steps", "slots", "ids", "count", "position", "number", "cohort",
    "once",
)  # fmt: skip
_LOCAL = ("broadcast", "states", "rows", "batches", "first", "steps", "ids", "count", "number", "cohort")
"""What the arguments of the compiled programs are called in a profile."""


class _Planned(NamedTuple):
    """A round's plan: of which round, its slots and draws on the host, and what the compiled round is given of it."""

    number: int
    cohort: np.ndarray
    slots: np.ndarray
    draws: tuple[Any, ...]
    given: tuple[Any, ...]


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


def _here(tree: Any, sharding: Any) -> Any:
    """In place of `machines.spread`: it stays on the host."""
    return tree


def anew(f: Callable[..., Any], **options: Any) -> Any:
    """The function jitted as if for the first time: jax takes it for another one."""

    @functools.wraps(f)
    def again(*given):
        return f(*given)

    return jax.jit(again, **options)


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

    _whole = True
    """Whether what a round is given are the states of all sites."""

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
        given = local.batch_size, local.epochs, local.steps
        self.steps = np.array([plans.steps_of(len(rows), *given) for rows in world.train], np.int32)
        kinds = {p.batches for p in self._passes} - {"train"}
        sizes = {"valid": eval_batch_size, "look": local.batch_size}
        self._fixed = {kind: fixed_draws(world, kind, sizes[kind]) for kind in kinds}
        self.send = jax.jit(federated.send, **self._everywhere())
        self._settle()

    def _settle(self) -> None:
        """Puts the examples on the devices, and says what is compiled."""
        self._fixed_index = {kind: jnp.asarray(draw.index) for kind, draw in self._fixed.items()}
        self._rows = self.world.rows
        if self.plan.streams > 1:  # a copy for each, made once: what is on one device would be copied in every round
            self._rows, self._fixed_index = self.place(self.world.rows), self.place(self._fixed_index)
        self._ahead: _Planned | None = None
        self._simulate = jax.jit(self._round, donate_argnums=(1,), **self._everywhere())
        self._fused = jax.jit(self._rounds, donate_argnums=(1,), **self._everywhere())
        self._local = jax.jit(self._one)
        self._look = jax.jit(functools.partial(rounds.look_each, self.federated), **self._everywhere())

    def place(self, tree: PyTree) -> PyTree:
        """A copy on the plan's devices, so that the first round compiles for the placement of all others."""
        if self.plan.streams == 1:
            return jax.tree.map(jnp.array, tree)
        return machines.spread(tree, NamedSharding(self._mesh(), PartitionSpec()))

    def _everywhere(self) -> dict[str, Any]:
        """How what is compiled hands its results out where other processes have a part in it: whole, to each."""
        if self.plan.streams == 1 or not machines.several():
            return {}
        return {"out_shardings": NamedSharding(self._mesh(), PartitionSpec())}

    def _mesh(self) -> Mesh:
        return Mesh(np.array(machines.devices(self.plan.streams)), ("stream",))

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
        return deal(cohort, self.steps[cohort], self.plan.streams, self.plan.lanes, self.size, len(self.world.names))

    # ---- a round in one process -----------------------------------------------------------------------------------

    def round(self, server: Server, states: PyTree, number: int, cohort: np.ndarray) -> Outcome:
        """One simulated round; `states` is consumed.

        Args:
          server: the coordinator's state.
          states: every site's, [N, ...].
          number: from 1.
          cohort: int32, places of the sites asked, ascending.
        """
        ahead = self._ahead_of(number, cohort)
        given = (server, states, self._rows, *ahead.given)
        return self._ran(
            self._simulate, lambda: anew(self._round, donate_argnums=(1,)), _ROUND, given, ahead.slots, ahead.draws
        )

    def _ahead_of(self, number: int, cohort: np.ndarray) -> _Planned:
        """The plan that was made ahead, if it is this round's; else it is made now."""
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead.number != number or not np.array_equal(ahead.cohort, cohort):
            ahead = self._planned(number, cohort)
        return ahead

    def several(
        self, server: Server, states: PyTree, number: int, cohorts: Sequence[np.ndarray], most: int
    ) -> list[Outcome]:
        """Rounds one after the other in one call; `states` is consumed.

        Args:
          server, states: as in `round`.
          number: of the first of them.
          cohorts: of each, as in `round`.
          most: there will ever be in a call.

        Returns:
          Each round's outcome, on the host; the last one's is on the device, and it alone has states, if there are any.
        """
        planned = [self._planned(number + k, cohort, _here) for k, cohort in enumerate(cohorts)]
        given = [one.given for one in planned] + [planned[0].given] * (most - len(planned))
        shuffled = [p.batches == "train" for p in self._passes]
        index = tuple(
            np.stack([one[0][k] for one in given]) if moves else given[0][0][k] for k, moves in enumerate(shuffled)
        )
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *[one[1:] for one in given])
        server, states, each = self._fused(server, states, self._rows, index, stacked, np.int32(len(cohorts)))
        held = jax.tree.map(lambda x: np.asarray(x), each)
        outcomes = [jax.tree.map(lambda x, k=k: x[k], held) for k in range(len(cohorts))]
        between = states if not jax.tree.leaves(states) else None
        outcomes = [one._replace(states=between) for one in outcomes]
        outcomes[-1] = outcomes[-1]._replace(server=server, states=states)
        return outcomes

    def _rounds(self, server, states, rows, index, stacked, many):
        """`_round` so many times: (server, states, every round's Outcome without states, [most, ...])."""
        shuffled = [p.batches == "train" for p in self._passes]

        def given(k):
            mine = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, k, 0, keepdims=False), stacked)
            draws = tuple(
                jax.lax.dynamic_index_in_dim(one, k, 0, keepdims=False) if moves else one
                for one, moves in zip(index, shuffled, strict=True)
            )
            return draws, *mine

        def one(server, states, k):
            found = self._round(server, states, rows, *given(k))
            return found.server, found.states, found._replace(states=())

        def turn(k, carry):
            server, states, each = carry
            server, states, found = one(server, states, k)
            put = functools.partial(jax.lax.dynamic_update_index_in_dim, index=k, axis=0)
            return server, states, jax.tree.map(lambda whole, x: put(whole, x), each, found)

        shape = jax.eval_shape(one, server, states, jnp.int32(0))[2]
        each = jax.tree.map(lambda leaf: jnp.zeros((len(stacked[2]), *leaf.shape), leaf.dtype), shape)
        return jax.lax.fori_loop(0, many, turn, (server, states, each))

    def prepare(self, number: int, cohort: np.ndarray) -> None:
        """Makes a round's plan, and sends it to the device, while the round before runs there.

        Args:
          number, cohort: as `round` will be asked.
        """
        self._ahead = self._planned(number, cohort)

    def _planned(self, number: int, cohort: np.ndarray, put: Callable[[Any, Any], Any] = machines.spread) -> _Planned:
        """The plan of a round, handed over to the devices by `put`."""
        with spans.span("plan"):
            dealt = self.deal(cohort)
            draws = self.draws(dealt, number)
        with spans.span("transfer"):
            each, all_ = self._placements()
            index = tuple(
                put(one, each) if p.batches == "train" else one for p, one in zip(self._passes, draws[0], strict=True)
            )
            ids, position = self._ids(dealt.slots), self._padded(dealt.position)
            scalars = np.int32(number), np.int32(len(cohort)), np.int32(1)
            (first, steps, ids, used), (slots, position, scalars) = put(
                ((*draws[1:], ids, dealt.used), (dealt.slots, position, scalars)), (each, all_)
            )
        return _Planned(number, cohort, dealt.slots, draws, (index, first, steps, slots, ids, used, position, *scalars))

    def _placements(self) -> tuple[Any, Any]:
        """Where arrays [D, ...] belong, each stream's part on its device, and where all others do."""
        if self.plan.streams == 1:
            return None, None
        mesh = self._mesh()
        return NamedSharding(mesh, PartitionSpec("stream")), NamedSharding(mesh, PartitionSpec())

    def _ran(
        self,
        program: Any,
        again: Callable[[], Any],
        names: tuple[str, ...],
        given: tuple[Any, ...],
        slots: np.ndarray,
        draws: tuple[Any, ...],
    ) -> Any:
        """Calls a compiled round; whoever profiles hears of it, and waits for it here."""
        if not spans.listening():
            return program(*given)
        with spans.span("profile"):
            arguments = dict(zip(names, given, strict=True))
            spans.called(lambda: spans.Called("a round", program, arguments, again, self.step_cost))
            spans.counted(**self.amounts(slots, draws))
        with spans.span("compute"):
            return jax.block_until_ready(program(*given))

    def plan_bytes(self) -> int:
        """Of a round's shuffled batches."""
        shuffled = sum(p.batches == "train" for p in self._passes)
        return 4 * shuffled * self.plan.streams * self._capacity * self.local.batch_size

    def step_cost(self) -> dict[str, float]:
        """Floating-point operations, and bytes that pass between memory and arithmetic, of a learning step: XLA's own
        account of that step compiled by itself, the mean over the passes."""
        federated, size = self.federated, self.local.batch_size
        broadcast = jax.eval_shape(
            lambda w: federated.receive(federated.send(federated.init(w, jax.random.key(0)))), self.template
        )
        site, found = jax.eval_shape(federated.enrol, self.template), ()
        rows = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), self.world.rows)
        batch = jax.eval_shape(lambda rows: Batch(rows, jnp.ones(size, bool), jax.random.key(0), jnp.int32(0)), rows)
        told = []
        for p in federated.passes:
            carry = jax.eval_shape(lambda *given, begin=p.begin: trees.strong(begin(*given)), broadcast, site, found)
            told.append(jax.jit(p.step).lower(broadcast, site, carry, batch).compile().cost_analysis() or {})
            found = carry
        return {
            "flops": sum(one.get("flops", 0.0) for one in told) / len(told),
            "bytes": sum(one.get("bytes accessed", 0.0) for one in told) / len(told),
        }

    def amounts(self, slots: np.ndarray, draws: tuple[Any, ...]) -> dict[str, float]:
        """Of a round's learning passes: steps, rows, and places of rows (B a step, padding included; with lanes as many
        steps as the longest of a row of lanes); turns: how often the first pass's step runs, a row of lanes at once."""
        steps = rows = places = turns = 0
        sizes = np.array([*(len(part) for part in self.world.train), 0])
        for p, index, count in zip(self._passes[self._offset :], draws[0][self._offset :], draws[2][self._offset :],
                                   strict=True):  # fmt: skip
            longest = count.reshape(*count.shape[:-1], -1, self.plan.lanes).max(-1)
            turns = turns or int(longest.sum())
            steps, places = steps + int(count.sum()), places + int(longest.sum()) * self.plan.lanes * index.shape[-1]
            # a fixed plan holds the rows of all sites, and a round takes those of some
            rows += int(np.sum(index >= 0)) if p.batches == "train" else int(sizes[slots].sum())
        return {"steps": steps, "rows": rows, "places": places, "turns": turns}

    def steps_in(self, cohort: np.ndarray) -> int:
        """Learning steps of a round of these sites, of one pass."""
        return int(self.steps[cohort].sum())

    def _ids(self, slots: np.ndarray) -> np.ndarray:
        return np.append(self.world.ids, np.uint32(0))[slots]

    def _padded(self, position: np.ndarray) -> np.ndarray:
        out = np.full(self.size, -1, np.int32)
        out[: len(position)] = position
        return out

    def _round(self, server, states, rows, index, first, steps, slots, ids, count, position, number, cohort, once):
        round = self._record(number, cohort)
        with rounds.scope("server"):
            broadcast = self.federated.send(server)
        shuffled = [p.batches == "train" for p in self._passes]
        whole = self._whole and self.plan == Plan(1, 1)  # each is read and written where it lies, and nothing else is
        here = jax.tree.map(lambda x: x[None], states) if whole else self._of(states, slots)

        def one(fixed, mine):
            broadcast, rows, common, round, once = fixed
            here, own, first, steps, ids, places, present, count = mine
            index = (c if o is None else o for o, c in zip(own, common, strict=True))
            draws = tuple(Draw(*draw) for draw in zip(index, first, steps, strict=True))
            return rounds.stream(
                self.federated, self.template, self.plan.lanes, broadcast, here, draws, rows, round, ids, present,
                count, once, places=places if whole else None,
            )  # fmt: skip

        own = tuple(i if moves else None for i, moves in zip(index, shuffled, strict=True))
        common = tuple(None if moves else i for i, moves in zip(index, shuffled, strict=True))
        loop = self._by_stream(
            one,
            (broadcast, rows, common, round, once),
            (here, own, first, steps, ids, slots, slots < len(self.world.names), count),
        )
        with rounds.scope("aggregate"):
            flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), loop.stack)
            wires = jax.tree.map(lambda x: jnp.take(x, position, axis=0, mode="clip"), flat)
        states = jax.tree.map(lambda x: x[0], loop.states) if whole else self._with(states, slots, loop.states)
        return self._closed(server, states, loop.sum, wires, position >= 0, round, once)

    def _closed(self, server, states, sums, wires, present, round, once) -> Outcome:
        """The coordinator's part: from each stream's sum, [D, ...], or from all wires, [size, ...]."""
        federated, template = self.federated, self.template
        with rounds.scope("aggregate"):
            if federated.additive:
                term = jax.tree.map(lambda x: x[0] if x.shape[0] == 1 else jnp.sum(x, 0, dtype=x.dtype), sums)
            else:
                terms = jax.vmap(lambda wire: federated.lift(wire, template))(wires)
                term = federated.reduce(terms, present.astype(jnp.float32), server)
        server, metrics, digest = rounds.server_step(federated, template, server, term, round, once)
        return Outcome(server, states, metrics, digest)

    def _of(self, states, slots):
        """The states of the sites in these slots, [D, S, ...]."""
        with rounds.scope("boundary"):
            return jax.tree.map(lambda column: jnp.take(column, slots, axis=0, mode="clip"), states)

    def _with(self, states, slots, new):
        """All states, those in these slots as they are now."""
        with rounds.scope("boundary"):
            return jax.tree.map(
                lambda whole, part: whole.at[slots.reshape(-1)].set(part.reshape(-1, *part.shape[2:]), mode="drop"),
                states,
                new,
            )

    def _record(self, number, cohort):
        return rounds.make_round(self.study, self.local.seed, number, cohort, self.enrolled)

    def _by_stream(self, one: Callable[[Any, Any], Any], fixed: Any, each: Any) -> Any:
        """one(fixed, each stream's part of `each`), with a leading axis of streams on every leaf of what it gives."""

        def there(fixed, each):
            return jax.tree.map(lambda x: x[None], one(fixed, jax.tree.map(lambda x: x[0], each)))

        if self.plan.streams == 1:
            return there(fixed, each)
        apart, all_ = PartitionSpec("stream"), PartitionSpec()
        return jax.shard_map(there, mesh=self._mesh(), in_specs=(all_, apart), out_specs=apart, check_vma=False)(
            fixed, each
        )

    # ---- one site's part, for a worker ----------------------------------------------------------------------------

    def local_round(self, broadcast: PyTree, state: PyTree, number: int, cohort: int) -> tuple[PyTree, PyTree]:
        """The part of the world's only site in a round: (Wire, new state). The simulator's loop, one turn long."""
        dealt = self.deal(np.zeros(1, np.int32))
        states = jax.tree.map(lambda x: x[None], state)
        with spans.span("plan"):
            draws = self.draws(dealt, number)
        given = (
            broadcast, states, self.world.rows, *draws, self._ids(dealt.slots), dealt.used, np.int32(number),
            np.int32(cohort),
        )  # fmt: skip
        return self._ran(self._local, lambda: anew(self._one), _LOCAL, given, dealt.slots, draws)

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
        rows = self._rows if machines.several() else self.world.rows
        return self._look(broadcast, states, draw, rows, self._record(np.int32(number), sites), self.world.ids, sites)


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
                else federated.release(
                    rounds.fold(watch, federated.receive(broadcast), site, (), draw, rows, round.key)
                )
            )
        draws = (draw,) * (len(federated.passes) + (federated.watch is not None))
        return rounds.local_round(federated, template, broadcast, site, draws, rows, round, jnp.uint32(0))[0]

    return jax.eval_shape(one, template, rows)


def enrol_all(federated: Federated, weights: PyTree, sites: int) -> PyTree:
    """The states of N sites that have just enrolled, [N, ...]."""
    return jax.tree.map(lambda x: jnp.repeat(x[None], sites, axis=0), federated.enrol(weights))
