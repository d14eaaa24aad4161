"""The records that everything else is made of: pure functions over pytrees, and what they hand to each other.

An `Algorithm` says *what* is learned, an `Aggregator` *how* updates cross the wire and meet. Both are NamedTuples of
pure functions made by a factory, like an optax transformation; `learner_jax.federate.federate` joins the two, and an
engine runs the result. Nothing here imports jax, so that the broker and the terminal stay light.

In every local function the two things that are fixed during a round, `(broadcast, site)`, come first; the carry is
what changes. Steps and rows are counted in the carry, so that weights stay true when an engine stops early.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

PyTree = Any
Array = Any


class Batch(NamedTuple):
    """One step's rows.

    Attributes:
      rows: pytree of arrays [B, ...].
      mask: bool[B]; False marks padding. At least one True, except in poisson plans.
      key: PRNG key, fold_in(round_key, site id, pass, step); for dropout and noise.
      step: int32, 0.. within this pass.
      given: frozen weights (a base under adapters) as an argument of the jitted pass; never sent, stacked or updated.
    """

    rows: PyTree
    mask: Array
    key: Array
    step: Array
    given: PyTree = ()


class Pass(NamedTuple):
    """One fold over a site's batches.

    Attributes:
      begin: (broadcast, site, found) -> carry. found: the last carry of the pass before; () for the first pass.
      step: (broadcast, site, carry, batch) -> carry.
      batches: which plan draws them: "train" (shuffled epochs), "look" (every training row once, in order),
        "valid" (every validation row once).
    """

    begin: Callable[[PyTree, PyTree, PyTree], PyTree]
    step: Callable[[PyTree, PyTree, PyTree, Batch], PyTree]
    batches: str = "train"


class Report(NamedTuple):
    """What a site found in one round.

    Attributes:
      update: pytree like `zero(params)`.
      weight: a prefix of update; each leaf broadcasts (NumPy rules, trailing axes) into the leaves under it.
        0 means "not mine".
      metrics: pytree of sums, so that they add over sites.
    """

    update: PyTree
    weight: PyTree
    metrics: PyTree


class Round(NamedTuple):
    """One round, frozen when it opens.

    Attributes:
      study: uint32, from the study's name.
      number: int32, from 1.
      key: PRNG key of the round.
      cohort: int32, sites asked this round.
      enrolled: int32, N, sites known to the study.
    """

    study: Array
    number: Array
    key: Array
    cohort: Array
    enrolled: Array


class Algorithm(NamedTuple):
    """What is learned, as pure functions.

    Attributes:
      init: (params, key) -> server. The coordinator's lasting state.
      enrol: (params) -> site. One site's lasting state, never sent; () if none.
      zero: (params) -> update. Schema of an update; also the start of a sum.
      send: (server) -> broadcast.
      passes: what a site does with its rows, in order.
      finish: (broadcast, site, carry) -> (Report, site). carry: that of the last pass.
      apply: (server, update, total, round) -> server. total: summed weights, the same prefix as Report.weight.
      model: (broadcast, site) -> params that this site predicts with.
    """

    init: Callable[[PyTree, Array], PyTree]
    enrol: Callable[[PyTree], PyTree]
    zero: Callable[[PyTree], PyTree]
    send: Callable[[PyTree], PyTree]
    passes: tuple[Pass, ...]
    finish: Callable[[PyTree, PyTree, PyTree], tuple[Report, PyTree]]
    apply: Callable[[PyTree, PyTree, PyTree, Round], PyTree]
    model: Callable[[PyTree, PyTree], PyTree]


class Session(NamedTuple):
    """What `encode` and `decode` may know.

    Attributes:
      round: the Round.
      site: uint32 site id at a site; 0 at the coordinator.
      zero: schema of an update.
    """

    round: Round
    site: Array
    zero: PyTree


class Aggregator(NamedTuple):
    """How updates cross the wire and meet.

    Attributes:
      start: (zero) -> (memory, state). memory: one site's (error feedback); state: the coordinator's (a last centre).
      encode: (update, weight, memory, session) -> (wire, memory). At the site; multiplies by the weight.
      lift: (wire, zero) -> term. At the coordinator: int8 or top-k to dense; the identity for most.
      reduce: (terms [S, ...], share float[S], state) -> term. share: 0 absent, 1 fresh, less for stale.
      decode: (term, state, session) -> (update, total, state). update is 0 where total is 0.
      additive: reduce is sum(share * term): it may be streamed, sharded, masked.
    """

    start: Callable[[PyTree], tuple[PyTree, PyTree]]
    encode: Callable[[PyTree, PyTree, PyTree, Session], tuple[PyTree, PyTree]]
    lift: Callable[[PyTree, PyTree], PyTree]
    reduce: Callable[[PyTree, Array, PyTree], PyTree]
    decode: Callable[[PyTree, PyTree, Session], tuple[PyTree, PyTree, PyTree]]
    additive: bool


class Model(NamedTuple):
    """A network, as two pure functions.

    Attributes:
      init: (key, rows) -> (params, stats). rows: one example batch, for the shapes only. stats: {} if none.
      apply: (params, stats, rows, key, train) -> (output, stats). train is a Python bool.
    """

    init: Callable[[Array, PyTree], tuple[PyTree, PyTree]]
    apply: Callable[[PyTree, PyTree, PyTree, Array, bool], tuple[PyTree, PyTree]]


class Metric(NamedTuple):
    """A figure computed by a fold over rows at a site, of which only `release` leaves.

    Attributes:
      name: as shown, "auroc".
      zero: () -> carry.
      step: (carry, output, target, mask bool[B]) -> carry.
      release: (carry) -> sums, a pytree of scalars or small arrays that add over sites: all that leaves the site.
      value: (sums, NumPy) -> float; nan where nothing can be said.
      higher_is_better: which way is up, for "best round".
    """

    name: str
    zero: Callable[[], PyTree]
    step: Callable[[PyTree, PyTree, PyTree, Array], PyTree]
    release: Callable[[PyTree], PyTree]
    value: Callable[[PyTree], float]
    higher_is_better: bool = True


class Calibrating(NamedTuple):
    """What is set right on the watched rows when the weights are the last word, by sums over sites.

    Attributes:
      zero: () -> path -> zeros, of the shapes and dtypes that `tally` gives.
      tally: (output, rows) -> path -> integers, of one site's watched rows.
      fit: (their sum over sites) -> float64[k], what the output is moved by.
      move: (output, what was fitted) -> output.
    """

    zero: Callable[[], dict[str, Any]]
    tally: Callable[[PyTree, PyTree], dict[str, Any]]
    fit: Callable[[Mapping[str, Any]], Any]
    move: Callable[[PyTree, Any], PyTree]


class Judging(NamedTuple):
    """How models are judged on held-back rows, where it is not by the ranking of chances.

    Attributes:
      evaluate: (told: model -> its outputs, one a site; rows, one a site; name of a site -> `SiteData.about`, in the
        same order; fitted; seed) -> the "evaluation" of a result.
      summarise: (told: model -> output, rows, name of the site, its `SiteData.about`, fitted, seed) -> figures of one
        site that may leave it, as JSON holds them; {} for none.
      check: (what came as such figures, name of the site) -> the same, without what is not known; raises ValueError.
      join: (the sites' figures) -> the "evaluation" of a result.
      told: (output, fitted) -> the output in the units in which it is judged.
      calibrating: of the output, or None. `told` moves by fitted["moved"], where it is; the others are given outputs
        that are moved already.
    """

    evaluate: Callable[..., dict[str, Any]]
    summarise: Callable[..., dict[str, Any]]
    check: Callable[[Any, str], dict[str, Any]]
    join: Callable[[list[dict[str, Any]]], dict[str, Any]]
    told: Callable[[PyTree, Any], PyTree]
    calibrating: Calibrating | None = None


class Task(NamedTuple):
    """What is predicted from what.

    Attributes:
      model: a Model, or a Flax module (NNX instance or Linen) that the build step turns into one.
      loss: (output, target) -> float[B], one loss a row.
      metrics: tuple of Metric, watched each round on the validation rows.
      checklist: what a site's table must hold and how it becomes arrays (`learner_jax.data.Checklist`), or None
        where the sites already hand over arrays.
      judging: how its models are judged; None: by the ranking of chances, where outcomes are 0 or 1.
    """

    model: Any
    loss: Callable[[PyTree, PyTree], Array]
    metrics: tuple[Metric, ...] = ()
    checklist: Any = None
    judging: Judging | None = None
