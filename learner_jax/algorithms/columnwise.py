"""FedAvg where each column of the target is averaged over those sites alone that measure it.

Sites measure different panels. A site that does not measure a column has nothing to say of the weights that lead to it
alone; averaged over all sites, that column would move by a fraction of what those that measure it found. Here a column
counts with the rows in which it was seen, and all other weights with those that teach anything, a column or a known
type: a site that measures nothing has no say.

    site k:  w_k as in FedAvg;  n_k rows that teach anything, n_kc in which column c was seen
    server:  w_{t+1}[c] = w_t[c] + sum_k n_kc (w_k[c] - w_t[c]) / sum_k n_kc       leaves under `columns`
             w_{t+1}    = w_t    + sum_k n_k  (w_k    - w_t)    / sum_k n_k        the others

Leaves named by `home` stay at the site, are never sent, and begin anew nowhere: FedPer's personal layers.

References: McMahan et al., AISTATS 2017 (FedAvg); Arivazhagan et al., "Federated learning with personalization layers",
arXiv:1912.00818 (2019).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from learner_jax import trees
from learner_jax.algorithms.averaged import averaged
from learner_jax.algorithms.local import Local, Loss, begin, descend, optimizer, server_step
from learner_jax.errors import StudyError
from learner_jax.specs import Optimizer
from learner_jax.types import Algorithm, Pass, PyTree, Report


class ColumnServer(NamedTuple):
    """weights w_t that are shared, and the server optimizer's state."""

    weights: PyTree
    optimizer: PyTree


class ColumnLocal(NamedTuple):
    """Local training; in how many rows each column was seen, int32[C]; how many rows taught anything, int32."""

    local: Local
    seen: Any
    taught: Any


def columnwise(
    loss: Loss,
    *,
    columns: tuple[str, ...] = ("head", "skip"),
    home: str = "",
    local_lr: float = 0.1,
    local: Optimizer = "sgd",
    server_lr: float = 1.0,
    server: Optimizer = "sgd",
    average: float = 0.0,
    mu: float = 0.0,
) -> Algorithm:
    """FedAvg with a weight for each column of the target; rows say in rows["y"]["seen"], [B, C], which were measured.

    Args:
      loss: (weights, batch) -> (mean loss, kept).
      columns: parts of the paths of leaves whose last axis is the target's columns.
      home: a part of the paths of leaves that each site keeps for itself; "" for none.
      local_lr: the sites' learning rate, where `local` does not say its own.
      local: the sites' optimizer; its state starts afresh each round.
      server_lr: the server's learning rate.
      server: the server's optimizer.
      average: share of the average over rounds that is kept each round, and is the model, as in `fedavg`.
      mu: of a proximal term that ties each site to where the round began, as in `fedprox`; 0 for none.
    """
    client_opt, server_opt = optimizer(local, local_lr), optimizer(server, server_lr)

    def whole(broadcast: PyTree, site: PyTree) -> PyTree:
        return joined(broadcast, site) if home else broadcast

    def shared(weights: PyTree) -> PyTree:
        return parted(weights, home)[0] if home else weights

    def start(broadcast, site, found):
        none = jnp.zeros(width(broadcast, columns), jnp.int32)
        return ColumnLocal(begin(client_opt, whole(broadcast, site)), none, jnp.int32(0))

    def step(broadcast, site, carry: ColumnLocal, batch):
        y = batch.rows["y"]
        seen = (y["seen"] > 0) & batch.mask[:, None]
        taught = jnp.any(seen, axis=1) | ((y["type"] >= 0) & batch.mask if "type" in y else False)
        begun = whole(broadcast, site) if mu else ()

        def pull(grads, weights):
            return jax.tree.map(lambda g, w, w_t: g + mu * (w - w_t), grads, weights, begun) if mu else grads

        return ColumnLocal(
            descend(loss, client_opt, carry.local, batch, pull),
            carry.seen + jnp.sum(seen, axis=0, dtype=jnp.int32),
            carry.taught + jnp.sum(taught, dtype=jnp.int32),
        )

    def finish(broadcast, site, carry: ColumnLocal):
        local, kind = carry.local, carry.local.loss.dtype
        update = trees.subtract(shared(local.weights), broadcast)
        weight = jax.tree_util.tree_map_with_path(
            lambda path, leaf: (carry.seen if _under(path, columns) else carry.taught).astype(kind), update
        )
        return Report(update, weight, local.metrics()), parted(local.weights, home)[1] if home else site

    def apply(server: ColumnServer, update, total, round: Any):
        present = jnp.float32(trees.any_present(total))  # columns that nobody measured have update 0
        return ColumnServer(*server_step(server_opt, server.weights, server.optimizer, update, present))

    def enrol(weights):
        return parted(weights, home)[1] if home else ()

    method = Algorithm(
        init=lambda weights, key: ColumnServer(shared(weights), server_opt.init(shared(weights))),
        enrol=enrol,
        zero=lambda weights: trees.zeros_like(shared(weights)),
        send=lambda server: server.weights,
        passes=(Pass(start, step),),
        finish=finish,
        apply=apply,
        model=whole,
    )
    if average and home:
        raise StudyError("algorithm.average: expected 0 beside home, whose leaves no server has, got both")
    return averaged(method, average)


def width(weights: PyTree, columns: tuple[str, ...]) -> int:
    """How many columns the target has.

    Raises:
      StudyError: no leaf has one of these names in its path, or their last axes differ.
    """
    leaves = jax.tree_util.tree_flatten_with_path(weights)[0]
    found = sorted({leaf.shape[-1] for path, leaf in leaves if _under(path, columns) and leaf.ndim})
    if len(found) != 1:
        raise StudyError(
            f"algorithm.columns: expected leaves of one last axis under {' or '.join(columns)}, got axes {found}"
        )
    return found[0]


def _under(path: Any, parts: tuple[str, ...]) -> bool:
    """Whether one of the folders of a leaf's path has one of these names."""
    return bool(set(parts) & set(jax.tree_util.keystr(path, simple=True, separator="/").split("/")))


def parted(weights: PyTree, home: str) -> tuple[PyTree, PyTree]:
    """(what is shared, what stays at home) of a tree of dicts; the second holds the subtrees of this name alone.

    Raises:
      StudyError: no leaf has this name in its path.
    """
    shared, kept = _cut(weights, home)
    if not jax.tree.leaves(kept):
        raise StudyError(f"algorithm.home: expected a part of a path of the model's weights, got '{home}'")
    return shared, kept


def _cut(tree: Any, name: str) -> tuple[Any, Any]:
    if not isinstance(tree, dict):
        return tree, {}
    shared, kept = {}, {}
    for key, branch in tree.items():
        if key == name:
            kept[key] = branch
            continue
        shared[key], inside = _cut(branch, name)
        if jax.tree.leaves(inside):
            kept[key] = inside
    return shared, kept


def joined(shared: PyTree, kept: PyTree) -> PyTree:
    """The tree that was parted."""
    if not isinstance(shared, dict):
        return shared
    both = {key: joined(branch, kept[key]) if key in kept else branch for key, branch in shared.items()}
    return {**both, **{key: branch for key, branch in kept.items() if key not in shared}}
