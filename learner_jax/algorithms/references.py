"""What a federation is compared with: each site alone, and all rows in one place.

*Local only* is an algorithm like any other, in which every site's weight is 0 and its model is its own lasting state.
*Pooled* is FedAvg of a single site that holds every row, which only a simulation can have.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from learner_jax import trees
from learner_jax.algorithms.averaged import averaged, into
from learner_jax.algorithms.fedavg import fedavg
from learner_jax.algorithms.local import Local, Loss, begin, descend, optimizer
from learner_jax.specs import Optimizer
from learner_jax.types import Algorithm, Pass, Report, Round


def local_only(loss: Loss, *, local_lr: float = 0.1, local: Optimizer = "sgd", average: float = 0.0) -> Algorithm:
    """Each site trains its own model on its own rows, from the common start; nothing is averaged.

    The local optimizer's state is lasting, so that rounds are only a way to count epochs.

    Args:
      loss: (weights, batch) -> (mean loss, kept).
      local_lr: the learning rate.
      local: the optimizer.
      average: share of the average over rounds that is kept each round, and is the model, as in `fedavg`; 0 for none.
    """
    client_opt = optimizer(local, local_lr)

    def start(broadcast, site, found):
        return begin(client_opt, site[0])._replace(optimizer=site[1])

    def step(broadcast, site, carry, batch):
        return descend(loss, client_opt, carry, batch)

    def finish(broadcast, site, carry: Local):
        nothing = trees.zeros_like(broadcast)
        report = Report(nothing, jnp.zeros_like(carry.loss), carry.metrics())
        if not average:
            return report, (carry.weights, carry.optimizer)
        _, _, mean, rounds = site
        fresh = (into(mean, carry.weights, rounds, average), rounds + 1)
        return report, (carry.weights, carry.optimizer, *trees.where(carry.steps > 0, fresh, (mean, rounds)))

    return Algorithm(
        init=lambda weights, key: weights,
        enrol=lambda weights: (weights, client_opt.init(weights), *((weights, jnp.int32(0)) if average else ())),
        zero=trees.zeros_like,
        send=lambda server: server,
        passes=(Pass(start, step),),
        finish=finish,
        apply=lambda server, update, total, round: server,
        model=lambda broadcast, site: site[2] if average else site[0],
    )


def pooled(loss: Loss, *, local_lr: float = 0.1, local: Optimizer = "sgd", average: float = 0.0) -> Algorithm:
    """Training on all rows in one place, its optimizer's state lasting from epoch to epoch.

    To be run with one site that holds every site's rows.
    """
    alone = local_only(loss, local_lr=local_lr, local=local)
    base = fedavg(loss, local_lr=local_lr, local=local)

    def finish(broadcast, site, carry: Local):
        _, site = alone.finish(broadcast, site, carry)
        return Report(trees.subtract(carry.weights, broadcast), jnp.ones_like(carry.loss), carry.metrics()), site

    return averaged(base._replace(enrol=alone.enrol, passes=alone.passes, finish=finish), average)


def alone(algorithm: Algorithm) -> Algorithm:
    """A method run by each site as if it were the only one: *local only* for methods without a local optimizer.

    A site's state is the server that it would be; each round it takes its own update as the total.

    Args:
      algorithm: one that draws nothing from the round: its `apply` is handed a round of one site, without a number.
    """
    one = Round(jnp.uint32(0), jnp.int32(0), jax.random.key(0), jnp.int32(1), jnp.int32(1))

    def at_home(p: Pass) -> Pass:
        def begin(broadcast, site, found):
            server, own = site
            return p.begin(algorithm.send(server), own, found)

        def step(broadcast, site, carry, batch):
            server, own = site
            return p.step(algorithm.send(server), own, carry, batch)

        return p._replace(begin=begin, step=step)

    def finish(broadcast, site, carry):
        server, own = site
        report, own = algorithm.finish(algorithm.send(server), own, carry)
        moved = algorithm.apply(server, report.update, report.weight, one)
        nothing = jax.tree.map(jnp.zeros_like, report.weight)
        return Report(trees.zeros_like(broadcast), nothing, report.metrics), (moved, own)

    def model(broadcast, site):
        server, own = site
        return algorithm.model(algorithm.send(server), own)

    return Algorithm(
        init=lambda weights, key: weights,
        enrol=lambda weights: (algorithm.init(weights, jax.random.key(0)), algorithm.enrol(weights)),
        zero=trees.zeros_like,
        send=lambda server: server,
        passes=tuple(map(at_home, algorithm.passes)),
        finish=finish,
        apply=lambda server, update, total, round: server,
        model=model,
    )
