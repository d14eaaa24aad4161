"""Joins an algorithm with the way its updates cross the wire: what an engine runs.

At the site: finish, before, encode, wire; the state of `before` and the aggregator's memory are kept with the site's
own state. At the coordinator: lift, reduce, decode, after, apply; the states of `after` and of the aggregator are kept
with the server's. A round of a site is `Federated.local_round`, traced once and used by every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from learner_jax import trees
from learner_jax.aggregators.mean import mean
from learner_jax.errors import StudyError
from learner_jax.types import Aggregator, Algorithm, Pass, PyTree, Round, Session


class Server(NamedTuple):
    """What the coordinator keeps and checkpoints.

    Attributes:
      learned: the algorithm's server state.
      after: the state of the transformation after the mean.
      state: the aggregator's.
    """

    learned: PyTree
    after: PyTree
    state: PyTree


class Site(NamedTuple):
    """What one site keeps and never sends.

    Attributes:
      own: the algorithm's state of this site.
      before: the state of the transformation before encoding.
      memory: the aggregator's.
    """

    own: PyTree
    before: PyTree
    memory: PyTree


class Wire(NamedTuple):
    """What one site sends in one round.

    Attributes:
      update: as the aggregator encoded it.
      metrics: sums: {"train/loss": ..., "valid/auroc": {...}, ...}.
    """

    update: PyTree
    metrics: PyTree


class Watch(NamedTuple):
    """The look at a site's validation rows that travels with its next report.

    Attributes:
      look: (model: (broadcast, site) -> params) -> Pass.
      release: (carry) -> metrics, a dict of sums: all that leaves.
    """

    look: Callable[[Callable], Pass]
    release: Callable[[PyTree], dict[str, PyTree]]


class Federated(NamedTuple):
    """An algorithm and an aggregator as one; `template` is the weights' tree, or its shapes.

    Attributes:
      init: (weights, key) -> Server.
      enrol: (weights) -> Site.
      send: (server) -> broadcast.
      watch: the look at validation rows, or None.
      release: (the watch's last carry) -> metrics.
      passes: the algorithm's.
      finish: (broadcast, site, looked, carry, session) -> (Wire, Site).
      lift: (Wire, template) -> term, metrics as they are.
      reduce: (terms [S, ...], share float[S], Server) -> term.
      step: (server, term, round, template) -> Server.
      receive: (broadcast) -> broadcast as the algorithm knows it: what a site does first with what came.
      model: (broadcast, site) -> params that this site predicts with.
      zero: (template) -> an update's zeros.
      additive: reduce is a sum.
    """

    init: Callable[[PyTree, Any], Server]
    enrol: Callable[[PyTree], Site]
    send: Callable[[Server], PyTree]
    watch: Pass | None
    release: Callable[[PyTree], PyTree]
    passes: tuple[Pass, ...]
    finish: Callable[..., tuple[Wire, Site]]
    lift: Callable[[Wire, PyTree], Wire]
    reduce: Callable[[PyTree, Any, Server], Wire]
    step: Callable[[Server, Wire, Round, PyTree], Server]
    receive: Callable[[PyTree], PyTree]
    model: Callable[[PyTree, Site], PyTree]
    zero: Callable[[PyTree], PyTree]
    additive: bool


def federate(
    algorithm: Algorithm,
    aggregator: Aggregator | None = None,
    before: optax.GradientTransformation | None = None,
    after: optax.GradientTransformation | None = None,
    watch: Watch | None = None,
    wire: str = "full",
) -> Federated:
    """Joins what is learned with how it travels.

    Args:
      algorithm: what is learned.
      aggregator: how updates meet; `mean()` if None.
      before: an optax transformation of each site's update (a clip).
      after: one of the aggregated update (a noise).
      watch: what is looked at on the validation rows, on the arriving broadcast and the old site state.
      wire: "bfloat16" rounds what is sent, both ways, to 16 bits a number: weights and updates, but neither an update's
        weight nor the metrics. Sums, and what the server keeps, are of full precision.

    Returns:
      What an engine runs. Its `finish` and `step` raise StudyError, while they are traced, where a function of the
      algorithm or of the aggregator hands back a state of another structure, shape or dtype than it was given. Its
      `init` raises StudyError for wire="bfloat16" where the weights are of that dtype already.
    """
    narrow, widen = (_narrowed, _widened) if wire == "bfloat16" else (lambda tree, keep=(): tree, lambda tree: tree)
    aggregator = mean() if aggregator is None else aggregator
    before = optax.identity() if before is None else before
    after = optax.identity() if after is None else after

    def init(weights, key):
        if wire == "bfloat16" and any(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(weights)):
            raise StudyError("wire: expected weights of float32 for wire='bfloat16', got some of bfloat16; drop it")
        zero = algorithm.zero(weights)
        return Server(algorithm.init(weights, key), after.init(zero), aggregator.start(zero)[1])

    def enrol(weights):
        zero = algorithm.zero(weights)
        return Site(algorithm.enrol(weights), before.init(zero), aggregator.start(zero)[0])

    def finish(broadcast, site: Site, looked, carry, session: Session):
        report, own = algorithm.finish(broadcast, site.own, carry)
        trees.expect_like(session.zero, report.update, "finish: expected update", "as zero makes it")
        trees.expect_like(site.own, own, "finish: expected site state", "as it went in")
        update, before_state = before.update(report.update, site.before)
        encoded, memory = aggregator.encode(update, report.weight, site.memory, session)
        trees.expect_like(site.memory, memory, "encode: expected memory", "as it went in")
        valid = watch.release(looked) if watch is not None else {}
        sent = narrow(encoded, keep=jax.tree.leaves(report.weight))
        return Wire(sent, {**report.metrics, **valid}), Site(own, before_state, memory)

    def lift(wire: Wire, template):
        return Wire(aggregator.lift(widen(wire.update), algorithm.zero(template)), wire.metrics)

    def reduce(terms: Wire, share, server: Server):
        metrics = jax.tree.map(lambda rows: jnp.tensordot((share > 0).astype(rows.dtype), rows, 1), terms.metrics)
        return Wire(aggregator.reduce(terms.update, share, server.state), metrics)

    def step(server: Server, term: Wire, round: Round, template):
        zero = algorithm.zero(template)
        session = Session(round, jnp.uint32(0), zero)
        update, total, state = aggregator.decode(term.update, server.state, session)
        moved, after_state = after.update(update, server.after)
        present = trees.any_present(total)
        moved = trees.where(present, moved, update)
        after_state = trees.where(present, after_state, server.after)
        learned = algorithm.apply(server.learned, moved, total, round)
        trees.expect_like(server.learned, learned, "apply: expected server state", "as it went in")
        trees.expect_like(server.state, state, "decode: expected state", "as it went in")
        return Server(learned, after_state, state)

    return Federated(
        init=init,
        enrol=enrol,
        send=lambda server: narrow(algorithm.send(server.learned)),
        watch=None if watch is None else watch.look(lambda broadcast, site: algorithm.model(broadcast, site.own)),
        release=watch.release if watch is not None else lambda looked: {},
        passes=tuple(_at_home(p) for p in algorithm.passes),
        finish=finish,
        lift=lift,
        reduce=reduce,
        step=step,
        receive=widen,
        model=lambda broadcast, site: algorithm.model(widen(broadcast), site.own),
        zero=algorithm.zero,
        additive=aggregator.additive,
    )


def _at_home(p: Pass) -> Pass:
    """A pass that is handed the whole Site and shows the algorithm its own part."""
    return Pass(
        lambda broadcast, site, found: p.begin(broadcast, site.own, found),
        lambda broadcast, site, carry, batch: p.step(broadcast, site.own, carry, batch),
        p.batches,
    )


def _narrowed(tree: PyTree, keep: Sequence[Any] = ()) -> PyTree:
    """Floating leaves of more than 16 bits as the nearest bfloat16; those to keep as they are."""
    kept = {id(leaf) for leaf in keep}

    def one(leaf):
        leaf = jnp.asarray(leaf) if id(leaf) not in kept else leaf
        if id(leaf) in kept or not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.dtype.itemsize <= 2:
            return leaf
        # a conversion there and back is nothing to XLA, which may keep what it should round
        return jax.lax.reduce_precision(leaf, exponent_bits=8, mantissa_bits=7).astype(jnp.bfloat16)

    return jax.tree.map(one, tree)


def _widened(tree: PyTree) -> PyTree:
    """bfloat16 leaves as float32, or float64 where all is."""
    wide = jnp.result_type(float)
    return jax.tree.map(lambda leaf: leaf.astype(wide) if leaf.dtype == jnp.bfloat16 else leaf, tree)


__all__ = ["Federated", "Server", "Site", "Watch", "Wire", "federate"]
