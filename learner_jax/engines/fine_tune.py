"""A trained network of proteins on one laboratory's new panel: its layers stay, its head is learned anew.

The laboratory's cells go through the layers that all laboratories trained; only what leads from them to the proteins
(`head`, `skip`) is trained, from the trained columns where a protein is known and from the start where it is new. So a
few hundred cells are enough, and proteins that the study never had are predicted as well as RNA tells them.

Reference: Yosinski et al., "How transferable are features in deep neural networks?", NeurIPS 2014.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learner_jax.data import plans
from learner_jax.data.sites import TRAIN, VALID, SiteData
from learner_jax.engines.judge import take_rows
from learner_jax.engines.parts import Parts, objective, values, watching
from learner_jax.errors import DataError
from learner_jax.types import Batch, PyTree

HEADS = ("head", "skip")


def start_from(fresh: PyTree, trained: PyTree, known: Sequence[int]) -> PyTree:
    """Weights of a new panel: layers as trained, columns of known proteins too, new ones as they begin.

    Args:
      fresh: {"params", "stats"} of the new panel's network.
      trained: those of the trained one.
      known: for each protein of the new panel its place in the old one, -1 for none.
    """
    at, there = np.maximum(np.asarray(known), 0), np.asarray(known) >= 0
    old, params = trained["params"], {}
    for name, new in fresh["params"].items():
        if name in HEADS and name in old:
            params[name] = jax.tree.map(lambda a, b: jnp.where(there, jnp.asarray(b)[..., at], a), new, old[name])
        else:
            params[name] = old.get(name, new)
    return {**fresh, "params": params}


def tune_head(
    parts: Parts,
    weights: PyTree,
    site: SiteData,
    *,
    epochs: int = 100,
    learning_rate: float = 1e-3,
    patience: int = 15,
    on_epoch: Callable[[int, Mapping[str, float]], None] = lambda epoch, figures: None,
) -> PyTree:
    """Trains `head` and `skip` alone, with Adam; the epoch with the lowest loss on the validation cells is kept.

    Args:
      parts: the study with the new panel.
      weights: to start from.
      site: the laboratory's cells.
      epochs: at most.
      learning_rate: of Adam.
      patience: epochs without a lower loss after which it ends.
      on_epoch: told of each epoch.

    Raises:
      DataError: no cells to train on, or none to watch; a loss that is not finite.
    """
    train, valid = np.flatnonzero(site.split == TRAIN), np.flatnonzero(site.split == VALID)
    if not len(train) or not len(valid):
        raise DataError(f"expected cells to train on and to watch, got {len(train)} and {len(valid)}")
    loss, size = objective(parts.model, parts.task.loss, parts.study.compute), parts.study.batch_size
    watch = watching(parts.model, parts.task.loss, parts.task.metrics)
    labels = {
        part: {name: "head" if name in HEADS else "kept" for name in tree} if part == "params" else "kept"
        for part, tree in weights.items()
    }
    opt = optax.multi_transform({"head": optax.adam(learning_rate), "kept": optax.set_to_zero()}, labels)
    rows = jax.tree.map(jnp.asarray, site.rows)
    judge_pass = watch.look(lambda broadcast, own: broadcast)
    watched = take_rows(site.rows, valid)
    every = Batch(jax.tree.map(jnp.asarray, watched), jnp.ones(len(valid), bool), jax.random.key(0), jnp.int32(0))

    @jax.jit
    def epoch(weights: PyTree, state: PyTree, index: Any, key: Any) -> tuple[PyTree, PyTree]:
        def step(carry: Any, places: Any) -> tuple[Any, None]:
            weights, state, number = carry
            picked = jax.tree.map(lambda leaf: leaf[jnp.maximum(places, 0)], rows)
            batch = Batch(picked, places >= 0, jax.random.fold_in(key, number), number)
            grads = jax.grad(lambda w: loss(w, batch)[0])(weights)
            moves, state = opt.update(grads, state, weights)
            return (optax.apply_updates(weights, moves), state, number + 1), None

        (weights, state, _), _ = jax.lax.scan(step, (weights, state, jnp.int32(0)), index)
        return weights, state

    @jax.jit
    def look(weights: PyTree) -> Any:
        carry = judge_pass.step(weights, (), judge_pass.begin(weights, (), ()), every)
        return watch.release(carry)

    state, best, kept, since = opt.init(weights), np.inf, weights, 0
    for number in range(1, epochs + 1):
        draw = plans.generator(parts.study.seed, 0, number, 0)
        index = plans.train_plan(train.astype(np.int32), size, 1, None, draw)
        weights, state = epoch(weights, state, jnp.asarray(index), jax.random.key(number))
        figures = values(look(weights), parts.task.metrics)
        on_epoch(number, figures)
        if "valid/loss" not in figures:  # `values` holds no NaN
            raise DataError(
                f"expected a finite loss on the watched cells, got none in epoch {number}: a lower learning_rate?"
            )
        lower = figures["valid/loss"] < best
        best, kept, since = (figures["valid/loss"], weights, 0) if lower else (best, kept, since + 1)
        if since >= patience:
            break
    return kept
