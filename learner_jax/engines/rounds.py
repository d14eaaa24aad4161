"""The compiled parts of a round, used by every engine.

    local_round   one site's part: look, passes, finish, encode      (the simulator's loop body; a worker's loop of one)
    accumulate    a finished wire joins the running sum              (in the loop; at the coordinator, wire by wire)
    server_step   decode, after, apply, and the new state's digest   (both)

A wire is finished before it is added: the sum takes its bits as `rounded` hands them over. Were it added as it is, LLVM
would contract weight and sum into one fused multiply-add and a simulator's sum would differ in its last bit from a
coordinator's. (To carry it over the loop's boundary and add it in the next turn keeps the bits as well, and costs three
more passes over the weights a site.) For the same reason a loop's length is an argument, never a constant
(XLA would unroll a loop of one), and the server's step is `sealed` (a branch, which XLA compiles apart from whatever
surrounds it) and `uncontracted` (each of its products is rounded: a coordinator writes the new state over the sum, a
simulator does not, and the compiler would make other instructions of each).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from learner_jax import trees
from learner_jax.engines.exact import rounded, uncontracted
from learner_jax.federate import Federated, Server, Site, Wire
from learner_jax.types import Batch, Pass, PyTree, Round, Session

SCOPE = "learner."
"""What the names begin with by which a profile knows the parts of a compiled round: one of `spans.PHASES` follows."""


def scope(phase: str) -> Any:
    """Names the operations within, for a profile; they are the same operations."""
    return jax.named_scope(SCOPE + phase)


class Draw(NamedTuple):
    """The batches of one pass, for several sites.

    Attributes:
      index: int32[T, B], places of rows; -1 is padding.
      first: int32[S], where a site's steps begin in index.
      steps: int32[S], how many they are.
    """

    index: Any
    first: Any
    steps: Any


def make_round(study: Any, seed: Any, number: Any, cohort: Any, enrolled: Any) -> Round:
    """The record of one round; its key is fold_in(key(seed), number)."""
    key = jax.random.fold_in(jax.random.key(seed), number)
    return Round(study, number, key, cohort, enrolled)


def fold(
    p: Pass, broadcast: PyTree, site: Site, found: PyTree, draw: Draw, rows: PyTree, key: Any, name: str = "the watch"
) -> PyTree:
    """One pass over one site's batches.

    Args:
      p: the pass.
      broadcast, site: fixed in this round.
      found: the last carry of the pass before.
      draw: this site's batches; first and steps are scalars here.
      rows: pytree [N, ...], all examples.
      key: of this pass.
      name: of this pass, for messages.

    Returns:
      The last carry.

    Raises:
      StudyError: while tracing, where a step hands back another carry than it was given.
    """
    return further(p, broadcast, site, begun(p, broadcast, site, found), draw, rows, key, 0, name)


def begun(p: Pass, broadcast: PyTree, site: Site, found: PyTree) -> PyTree:
    """The carry that a pass begins with; arguments as in `fold`."""
    return trees.strong(p.begin(broadcast, site, found))


def further(
    p: Pass, broadcast: PyTree, site: Site, carry: PyTree, draw: Draw, rows: PyTree, key: Any, at: Any, name: str
) -> PyTree:
    """Some more of a pass's steps; arguments as in `fold`.

    Args:
      carry: after the steps before.
      draw: the batches of these steps.
      at: int32, how many were before.
    """

    def step(i, carry):
        index = jax.lax.dynamic_index_in_dim(draw.index, draw.first + i, 0, keepdims=False)
        there = index >= 0
        place = jnp.where(there, index, index[0])  # a batch is filled up with its own first row: never another site's
        taken = jax.tree.map(lambda column: jnp.take(column, place, axis=0, mode="clip"), rows)
        number = at + i
        new = trees.strong(p.step(broadcast, site, carry, Batch(taken, there, jax.random.fold_in(key, number), number)))
        trees.expect_like(carry, new, f"{name} step: expected carry", "as it went in")
        return new

    return jax.lax.fori_loop(0, draw.steps, step, carry)


def local_round(
    federated: Federated,
    template: PyTree,
    broadcast: PyTree,
    site: Site,
    draws: tuple[Draw, ...],
    rows: PyTree,
    round: Round,
    site_id: Any,
) -> tuple[Wire, Site]:
    """One site's part of one round.

    Args:
      federated: what is run.
      template: shapes of the weights.
      broadcast: what the coordinator sent.
      site: this site's state.
      draws: one for the watch, if there is one, then one for each pass.
      rows: pytree [N, ...].
      round: the round.
      site_id: uint32.

    Returns:
      The finished Wire, and the site's new state.
    """
    key, broadcast = jax.random.fold_in(round.key, site_id), federated.receive(broadcast)
    looked, found = (), ()
    if federated.watch is not None:
        with scope("evaluate"):
            looked = fold(federated.watch, broadcast, site, (), draws[0], rows, jax.random.fold_in(key, 0))
        draws = draws[1:]
    for number, (p, draw) in enumerate(zip(federated.passes, draws, strict=True), 1):
        with scope("step"):
            found = fold(p, broadcast, site, found, draw, rows, jax.random.fold_in(key, number), f"pass {number - 1}")
    return finished(federated, template, broadcast, site, looked, found, round, site_id)


def finished(
    federated: Federated, template: PyTree, broadcast: PyTree, site: Site, looked: PyTree, found: PyTree, round: Round,
    site_id: Any,
) -> tuple[Wire, Site]:  # fmt: skip
    """What ends `local_round`; `broadcast` is as it was received."""
    return federated.finish(broadcast, site, looked, found, Session(round, site_id, federated.zero(template)))


class Loop(NamedTuple):
    """What one stream brings back.

    Attributes:
      sum: of the terms of all its wires (additive, and asked for), or ().
      wire: the last wire or row of lanes [L, ...] where there is no sum, or ().
      stack: every wire, [S, ...], for reductions that are no sum; or ().
      states: the sites' new states, [S, ...].
    """

    sum: PyTree
    wire: PyTree
    stack: PyTree
    states: PyTree


def stream(
    federated: Federated,
    template: PyTree,
    lanes: int,
    broadcast: PyTree,
    states: PyTree,
    draws: tuple[Draw, ...],
    rows: PyTree,
    round: Round,
    ids: Any,
    present: Any,
    count: Any,
    once: Any = None,
    total: PyTree = None,
    places: Any = None,
) -> Loop:
    """Sites one after the other, or L of them side by side.

    Args:
      federated, template, broadcast, rows, round: as in `local_round`.
      lanes: L, how many sites go abreast; 1 on a CPU.
      states: [S, ...], read only; S is a multiple of L.
      draws: first and steps are int32[S].
      ids: uint32[S].
      present: bool[S]; False marks a slot that fills up a row of lanes.
      count: int32, how many rows of L sites there are; an argument, see the module's docstring.
      once: int32 1, an argument of the jitted program: the wires are added up. None: they are not (a worker has one).
      total: what they are added to; None: zeros.
      places: int32[S], where in `states` each site's lies, with one lane: it is read there and written there, once.
        None: `states` are in the order of the sites.
    """
    at = (lambda s: s) if places is None else (lambda s: places[s])
    summed = federated.additive and once is not None
    zero = 0 if once is None else once - 1

    def one(s, here, states):
        site = jax.tree.map(lambda column: jax.lax.dynamic_index_in_dim(column, at(s), 0, keepdims=False), states)
        mine = tuple(Draw(d.index, d.first[s], d.steps[s]) for d in draws)
        wire, site = local_round(federated, template, broadcast, site, mine, rows, round, ids[s])
        return (trees.where(here, wire, trees.zeros_like(wire)) if lanes > 1 else wire), site

    def row(r, states):
        if lanes == 1:
            return one(r, True, states)
        slots = r * lanes + jnp.arange(lanes, dtype=jnp.int32)
        return jax.vmap(one, (0, 0, None))(slots, present[slots], states)

    wire_shape = jax.eval_shape(row, jnp.int32(0), states)[0]
    none = trees.zeros_like(wire_shape)
    single = wire_shape if lanes == 1 else jax.eval_shape(lambda w: jax.tree.map(lambda x: x[0], w), wire_shape)

    def put(stack, values, r):
        if lanes == 1:
            values = jax.tree.map(lambda x: x[None], values)
        return jax.tree.map(
            lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, r * lanes, 0), stack, values
        )

    def turn(r, loop: Loop):
        with scope("boundary"):
            wire, new = row(r, states if places is None else loop.states)  # a site is there once: none was changed yet
            stack = () if federated.additive else put(loop.stack, wire, r)
            changed = put(loop.states, new, at(r))
        with scope("aggregate"):
            joined = accumulate(federated, template, lanes, loop.sum, rounded(wire, zero)) if summed else ()
        return Loop(joined, () if summed else wire, stack, changed)

    if summed and total is None:
        total = trees.zeros_like(jax.eval_shape(lambda w: federated.lift(w, template), single))
    slots = ids.shape[0]
    stack = jax.tree.map(lambda leaf: jnp.zeros((slots, *leaf.shape), leaf.dtype), single)
    start = Loop(
        total if summed else (),
        () if summed else none,
        () if federated.additive else stack,
        states,
    )
    with scope("boundary"):
        return jax.lax.fori_loop(0, count, turn, start)


def accumulate(federated: Federated, template: PyTree, lanes: int, total: PyTree, pending: PyTree) -> PyTree:
    """total + the term of a finished wire, or of a row of lanes."""
    if lanes == 1:
        return trees.add(total, federated.lift(pending, template))
    terms = jax.vmap(lambda wire: federated.lift(wire, template))(pending)
    return trees.add(total, jax.tree.map(lambda rows: jnp.sum(rows, 0, dtype=rows.dtype), terms))


def sealed(f: Callable[..., PyTree], once: Any, *arguments: PyTree) -> PyTree:
    """f(*arguments), compiled as the branch that is always taken, so that no neighbour is fused into it.

    A loop of one turn would seal it as well, and carry a copy of every argument.

    Args:
      f: a pure function.
      once: int32 1, an argument of the jitted program and no constant.
      *arguments: of f.
    """
    never = jax.eval_shape(f, *arguments)
    return jax.lax.cond(once > 0, f, lambda *_: trees.zeros_like(never), *arguments)


def server_step(
    federated: Federated, template: PyTree, server: Server, term: Wire, round: Round, once: Any, alone: bool = False
) -> tuple[Server, PyTree, Any]:
    """The coordinator's part of a round.

    Args:
      once: int32 1, an argument of the jitted program and no constant.
      alone: this is a program of its own, and no neighbour is there to be sealed from.

    Returns:
      The new server state, the metrics' sums, and the state's digest, uint32[4].
    """

    def step(server, term):
        server = uncontracted(lambda *of: federated.step(of[0], of[1], round, template), once - 1)(server, term)
        return server, trees.digest(server)

    with scope("server"):
        server, digest = step(server, term) if alone else sealed(step, once, server, term)
    return server, term.metrics, digest


def look_each(
    federated: Federated,
    broadcast: PyTree,
    states: PyTree,
    draw: Draw,
    rows: PyTree,
    round: Round,
    ids: Any,
    count: Any,
    total: PyTree = None,
) -> tuple[PyTree, PyTree]:
    """The watch alone, at every site: what ends a study.

    Args:
      total: of other sites, which these are added to.

    Returns:
      The metrics' sums of each site, [N, ...], and over all sites, added in their order.
    """
    watch, broadcast = federated.watch, federated.receive(broadcast)
    assert watch is not None

    def one(s):
        site = jax.tree.map(lambda column: jax.lax.dynamic_index_in_dim(column, s, 0, keepdims=False), states)
        mine = Draw(draw.index, draw.first[s], draw.steps[s])
        key = jax.random.fold_in(jax.random.fold_in(round.key, ids[s]), 0)
        return federated.release(fold(watch, broadcast, site, (), mine, rows, key))

    def turn(s, carry):
        each, total, pending = carry
        found = one(s)
        each = jax.tree.map(lambda whole, x: jax.lax.dynamic_update_index_in_dim(whole, x, s, 0), each, found)
        return each, trees.add(total, pending), found

    shape = jax.eval_shape(one, jnp.int32(0))
    none = trees.zeros_like(shape)
    each = jax.tree.map(lambda x: jnp.zeros((ids.shape[0], *x.shape), x.dtype), shape)
    each, total, pending = jax.lax.fori_loop(0, count, turn, (each, none if total is None else total, none))
    return each, trees.add(total, pending)
