"""The coordinator's compute: what it sends, the sum and the step over what came, and the model in the end.

It is the simulator's own (`rounds.accumulate`, `rounds.server_step`), over wires that arrive one at a time, and holds
as few copies of a large model as it can: what is unchanged is not copied, what can be added leaf by leaf is.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from learner_jax import trees
from learner_jax.engines import rounds
from learner_jax.federate import Federated, Server
from learner_jax.leaves import Leaves, Packed, schema_bytes
from learner_jax.types import PyTree

_LARGE = 64 * 2**20
"""Bytes of a wire from which it is added leaf by leaf: below, a call a leaf costs more than its memory."""

_SMALL = 16 * 2**20
"""Bytes of all wires of a round up to which they are read before they are added."""
_UPDATE = "update"
"""What the paths of a wire's update begin with."""


def _carried(program: Any, arguments: int, widened: bool = False) -> list[int | None]:
    """Of each output of a jaxpr, which of its first inputs it is, unchanged; None where it is computed. widened: or of
    another dtype."""
    place = {id(variable): at for at, variable in enumerate(program.jaxpr.invars[:arguments])}
    for line in program.jaxpr.eqns if widened else ():
        if line.primitive.name == "convert_element_type" and id(line.invars[0]) in place:
            place[id(line.outvars[0])] = place[id(line.invars[0])]
    return [place.get(id(variable)) for variable in program.jaxpr.outvars]


def _spent(server: Server, leaves: Sequence[Any]) -> tuple[bool, ...]:
    """Which leaves of a sum the new state may take the place of: each of its own takes one of its shape and dtype."""
    wanted = Counter((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(server) if leaf.ndim)
    spent = []
    for leaf in leaves:
        form = leaf.shape, leaf.dtype
        spent.append(wanted[form] > 0)
        wanted[form] -= spent[-1]
    return tuple(spent)


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

    def __call__(self, server: Server, more: Mapping[str, np.ndarray] | None = None) -> Packed:
        """The broadcast of a state, with further leaves by name."""
        own, computed = jax.tree.leaves(server), iter(self._computed(server))
        leaves = [next(computed) if at is None else own[at] for at in self._own]
        named = trees.named_leaves(jax.tree.unflatten(jax.tree.structure(self._shape), leaves))
        return Packed({**named, **(more or {})})


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
        self._add_all = jax.jit(self._accumulate_all, donate_argnums=(0,))
        self._add_part = jax.jit(self._accumulate_part, donate_argnums=(0,))
        self._scale = jax.jit(lambda leaf, share: leaf.astype(jnp.result_type(float)) * share)
        term = jax.eval_shape(lambda wire: federated.lift(wire, template), wire)
        self._zeros = jax.jit(lambda: trees.zeros_like(term))
        self._add_leaf = jax.jit(lambda total, leaf: total + leaf.astype(total.dtype), donate_argnums=(0,))
        lift = jax.make_jaxpr(lambda wire: federated.lift(wire, template))(wire)
        count = len(jax.tree.leaves(wire))
        own = _carried(lift, count, widened=True) == list(range(count))
        self._small = schema_bytes(trees.schema(wire)) * size <= _SMALL
        self._leafwise = own and schema_bytes(trees.schema(wire)) >= _LARGE
        self._stacked = jax.jit(self._reduce)
        self._step = jax.jit(self._server_step, static_argnums=(0,), donate_argnums=(2,))

    def __call__(
        self,
        server: Server,
        wires: Iterable[PyTree | Leaves],
        accepted: int,
        number: int,
        cohort: int,
        shares: Sequence[float] | None = None,
    ) -> tuple[Server, PyTree, Any]:
        """One server step.

        Args:
          server: the state before.
          wires: in ascending order of site id, each a Wire or an iterator over (path, leaf); read one at a time where
            the rule is a sum.
          accepted: how many they are.
          number, cohort: of the round.
          shares: what each counts, from 0 to 1; None: all of them wholly. Metrics always do.

        Returns:
          The new state, the metrics' sums, the new state's digest.
        """
        if self.federated.additive:
            term = self._sum(wires, itertools.repeat(1.0) if shares is None else shares)
        else:
            absent = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.wire)
            there = [self._whole(wire) for wire in wires]
            stack = jax.tree.map(lambda *leaves: np.stack(leaves), *there, *[absent] * (self.size - accepted))
            share = (np.arange(self.size) < accepted).astype(np.float32)
            if shares is not None:
                share[:accepted] = shares
            term = self._stacked(stack, share, server)
        parts = self.apart(server, term)
        del term
        return self._step(parts[0], server, *parts[1:], np.int32(number), np.int32(cohort), np.int32(1))

    def apart(self, server: Server, term: PyTree) -> tuple[tuple[Any, tuple[bool, ...]], list[Any], list[Any]]:
        """A sum as the step takes it: its form, the leaves that it may write the new state over, and the others.

        Args:
          server: the state before, or its shapes.
          term: the sum, or its shapes; what a rule made that is no sum may be the server's own.
        """
        leaves, structure = jax.tree.flatten(term)
        spent = _spent(server, leaves) if self.federated.additive else (False,) * len(leaves)
        given = [leaf for leaf, goes in zip(leaves, spent, strict=True) if goes]
        return (structure, spent), given, [leaf for leaf, goes in zip(leaves, spent, strict=True) if not goes]

    def _sum(self, wires: Iterable[PyTree | Leaves], shares: Iterable[float]) -> PyTree:
        """The sum of all terms. A large wire is added leaf by leaf where it is its own term: one of its leaves is in
        memory at a time; the numbers are the same."""
        total = self._zeros()
        if self._small and isinstance(shares, itertools.repeat):
            return self._sum_at_once(total, [self._whole(wire) for wire in wires])
        if not self._leafwise:
            for wire, share in zip(wires, shares, strict=False):
                whole = self._whole(wire)
                total = self._add(total, whole) if share == 1 else self._add_part(total, whole, np.float32(share))
                jax.block_until_ready(total)  # else all wires would be in memory at once
            return total
        place = {name: at for at, name in enumerate(trees.names(self.wire))}
        leaves, structure = jax.tree.flatten(total)
        del total
        for wire, share in zip(wires, shares, strict=False):
            named = wire if isinstance(wire, Iterator) else iter(trees.named_leaves(wire).items())
            while (found := next(named, None)) is not None:
                at, counts = place[found[0]], share if found[0].startswith(_UPDATE) else 1.0
                new = found[1] if counts == 1 else self._scale(found[1], np.float32(counts))
                leaves[at] = jax.block_until_ready(self._add_leaf(leaves[at], new))
                del new
                del found  # before the next is read
        return jax.tree.unflatten(structure, leaves)

    def _sum_at_once(self, total: PyTree, wires: list[PyTree]) -> PyTree:
        """The same sum, in the same order, of small wires in one call: a call a wire takes longer than adding it."""
        rows = max(self.size, len(wires))

        def stacked(*leaves):
            out = np.zeros((rows, *leaves[0].shape), leaves[0].dtype)
            for place, leaf in enumerate(leaves):
                out[place] = leaf
            return out

        return self._add_all(total, jax.tree.map(stacked, *wires), np.int32(len(wires))) if wires else total

    def _accumulate_all(self, total: PyTree, wires: PyTree, count: Any) -> PyTree:
        def turn(place, total):
            wire = jax.tree.map(lambda rows: jax.lax.dynamic_index_in_dim(rows, place, 0, keepdims=False), wires)
            return rounds.accumulate(self.federated, self.template, 1, total, wire)

        return jax.lax.fori_loop(0, count, turn, total)

    def _whole(self, wire: PyTree | Leaves) -> PyTree:
        return trees.rebuild(self.wire, dict(wire)) if isinstance(wire, Iterator) else wire

    def _accumulate_part(self, total: PyTree, wire: PyTree, share: Any) -> PyTree:
        term = self.federated.lift(wire, self.template)
        part = jax.tree.map(lambda leaf: leaf * share.astype(leaf.dtype), term.update)
        return trees.add(total, term._replace(update=part))

    def _reduce(self, wires, share, server):
        terms = jax.vmap(lambda wire: self.federated.lift(wire, self.template))(wires)
        return self.federated.reduce(terms, share, server)

    def _server_step(self, form, server, spent, rest, number, cohort, once):
        """The step over a sum's leaves; the new state is made where those lie that are given away. It is a program of
        its own and not `rounds.sealed`: out of a branch, all of it would have to be copied there."""
        structure, goes = form
        there, left = iter(spent), iter(rest)
        term = jax.tree.unflatten(structure, [next(there) if one else next(left) for one in goes])
        round = rounds.make_round(self.study, self.seed, number, cohort, self.enrolled)
        return rounds.server_step(self.federated, self.template, server, term, round, once, alone=True)
