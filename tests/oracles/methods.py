"""The methods as float64 loops, from their papers' boxes: NumPy only, and nothing of the package.

All of them take

    weights   name -> float64 array, the common start
    x, y      every row of every site, flat
    rounds    for each round {site: int[T, B]}, the batches of each site that was asked; an entry is a row's place in
              x and y, -1 pads the end of a batch

and give the weights after the last round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tests.oracles.networks import Weights, gradient

Rounds = Sequence[Mapping[int, np.ndarray]]
Turn = Callable[[Weights, Weights], Weights]
Server = Callable[[Weights, Weights], Weights]


def zeros(weights: Weights) -> Weights:
    return {name: np.zeros_like(leaf) for name, leaf in weights.items()}


def combine(a: Weights, b: Weights, factor: float = 1.0) -> Weights:
    """a + factor * b."""
    return {name: a[name] + factor * b[name] for name in a}


# ---- at a site -------------------------------------------------------------------------------------------------------


def sgd(weights, x, y, plan, lr: float, turn: Turn = lambda grads, weights: grads) -> tuple[Weights, int, int]:
    """(weights, steps, rows seen) after plain descent over the batches of a plan."""
    steps = seen = 0
    for batch in plan:
        rows = batch[batch >= 0]
        weights = combine(weights, turn(gradient(weights, x[rows], y[rows])[1], weights), -lr)
        steps, seen = steps + 1, seen + len(rows)
    return weights, steps, seen


def local_adam(weights, x, y, plan, lr: float, decay: float = 0.0) -> tuple[Weights, int, int]:
    """The same with Adam (Kingma and Ba 2015, Algorithm 1), started afresh; decay: AdamW's, decoupled."""
    m, v, seen = zeros(weights), zeros(weights), 0
    for t, batch in enumerate(plan, 1):
        rows = batch[batch >= 0]
        grads = gradient(weights, x[rows], y[rows])[1]
        for name, g in grads.items():
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g**2
        move = {n: m[n] / (1 - 0.9**t) / (np.sqrt(v[n] / (1 - 0.999**t)) + 1e-8) + decay * weights[n] for n in m}
        weights, seen = combine(weights, move, -lr), seen + len(rows)
    return weights, len(plan), seen


# ---- server optimizers: (weights, D) -> weights, their state inside --------------------------------------------------


def average(lr: float = 1.0) -> Server:
    return lambda weights, d: combine(weights, d, lr)


def heavy_ball(lr: float, momentum: float) -> Server:
    """FedAvgM: v = momentum v + D, w = w + lr v."""
    v: Weights = {}

    def step(weights, d):
        v.update({n: momentum * v.get(n, 0.0) + d[n] for n in d})
        return combine(weights, v, lr)

    return step


def nesterov(lr: float, momentum: float) -> Server:
    """DiLoCo's outer optimizer: v = momentum v + D, w = w + lr (D + momentum v)."""
    v: Weights = {}

    def step(weights, d):
        v.update({n: momentum * v.get(n, 0.0) + d[n] for n in d})
        return combine(weights, {n: d[n] + momentum * v[n] for n in d}, lr)

    return step


def adam(lr: float, b1: float = 0.9, b2: float = 0.99, tau: float = 1e-3) -> Server:
    """FedAdam with both averages' bias corrected."""
    m, v, count = {}, {}, [0]

    def step(weights, d):
        count[0] += 1
        for n in d:
            m[n] = b1 * m.get(n, 0.0) + (1 - b1) * d[n]
            v[n] = b2 * v.get(n, 0.0) + (1 - b2) * d[n] ** 2
        hat = {n: m[n] / (1 - b1 ** count[0]) / (np.sqrt(v[n] / (1 - b2 ** count[0])) + tau) for n in d}
        return combine(weights, hat, lr)

    return step


def yogi(lr: float, b1: float = 0.9, b2: float = 0.99, tau: float = 1e-3, start: float = 1e-6) -> Server:
    """FedYogi: v = v - (1 - b2) D^2 sign(v - D^2); averages start as told, bias corrected.

    optax starts both at `start` for a *gradient*, and is handed -D: so m starts at -start, seen from D.
    """
    m, v, count = {}, {}, [0]

    def step(weights, d):
        count[0] += 1
        for n in d:
            m[n] = b1 * m.get(n, -start) + (1 - b1) * d[n]
            old = v.get(n, np.full_like(d[n], start))
            v[n] = old - (1 - b2) * d[n] ** 2 * np.sign(old - d[n] ** 2)
        hat = {n: m[n] / (1 - b1 ** count[0]) / (np.sqrt(v[n] / (1 - b2 ** count[0])) + tau) for n in d}
        return combine(weights, hat, lr)

    return step


def adagrad(lr: float, start: float = 1e-6, tau: float = 1e-3) -> Server:
    """FedAdagrad: v = v + D^2, w = w + lr D / sqrt(v + tau^2)."""
    v: Weights = {}

    def step(weights, d):
        v.update({n: v.get(n, start) + d[n] ** 2 for n in d})
        return combine(weights, {n: d[n] / np.sqrt(v[n] + tau**2) for n in d}, lr)

    return step


# ---- how updates meet ------------------------------------------------------------------------------------------------


def weighted_mean(updates: Sequence[Weights], weights: Sequence[float]) -> Weights:
    total = float(sum(weights))
    return {n: np.sum([w * u[n] for w, u in zip(weights, updates, strict=True)], 0) / total for n in updates[0]}


def coordinate_median(updates: Sequence[Weights], weights: Sequence[float]) -> Weights:
    """Of those with weight above 0."""
    there = [u for u, w in zip(updates, weights, strict=True) if w > 0]
    return {n: np.median([u[n] for u in there], axis=0) for n in updates[0]}


# ---- the methods -----------------------------------------------------------------------------------------------------


def fedavg(
    weights, x, y, rounds: Rounds, lr, server: Server = average(), local=sgd, meet=weighted_mean, share: float = 0.0
) -> Weights:
    """McMahan et al. 2017, Algorithm 1, with a server optimizer as Reddi et al. 2021, Algorithm 1.

    With a share above 0, the average over rounds that keeps so much of itself each round, in place of the weights.
    """
    mean, counted = weights, 0
    for asked in rounds:
        found = [local(weights, x, y, plan, lr) for plan in asked.values()]
        rows = [seen for _, _, seen in found]
        if sum(rows) > 0:
            weights = server(weights, meet([combine(w_k, weights, -1) for w_k, _, _ in found], rows))
            part = max(1 - share, 1 / (counted + 1))
            mean, counted = combine(mean, combine(weights, mean, -1), part), counted + 1
    return mean if share else weights


def fedprox(weights, x, y, rounds: Rounds, lr, mu: float, meet=weighted_mean) -> Weights:
    """Li et al. 2020, Algorithm 2: each site descends loss(w) + mu/2 |w - w_t|^2."""

    def local(start, x, y, plan, lr):
        return sgd(start, x, y, plan, lr, lambda g, w: combine(g, combine(w, start, -1), mu))

    return fedavg(weights, x, y, rounds, lr, local=local, meet=meet)


def scaffold(weights, x, y, rounds: Rounds, lr, enrolled: int, server_lr: float = 1.0) -> tuple[Weights, dict]:
    """Karimireddy et al. 2020, Algorithm 1, option II; sites are weighed alike. ({site: c_i} beside the weights)"""
    c, kept = zeros(weights), {}
    for asked in rounds:
        moves, drifts = [], []
        for site, plan in asked.items():
            c_i = kept.get(site, zeros(weights))
            shift = combine(c, c_i, -1)
            y_i, steps, _ = sgd(weights, x, y, plan, lr, lambda g, w, shift=shift: combine(g, shift))
            if not steps:
                continue
            moved = combine(y_i, weights, -1)
            fresh = combine(combine(c_i, c, -1), moved, -1 / (steps * lr))
            moves.append(moved)
            drifts.append(combine(fresh, c_i, -1))
            kept[site] = fresh
        if moves:
            weights = combine(weights, weighted_mean(moves, [1] * len(moves)), server_lr)
            for drift in drifts:
                c = combine(c, drift, 1 / enrolled)
    return weights, {"c": c, "sites": kept}


def ifca(clusters: list[Weights], x, y, rounds: Rounds, train, lr) -> tuple[list[Weights], set[int]]:
    """Ghosh et al. 2020, Algorithm 1, sites weighed by rows. train: site -> its rows. (clusters, those ever trained)"""
    clusters, chosen = list(clusters), set()
    for asked in rounds:
        found: list[list] = [[] for _ in clusters]
        for site, plan in asked.items():
            mine = train[site]
            best = int(np.argmin([gradient(w, x[mine], y[mine])[0] for w in clusters])) if len(mine) else 0
            w, _, seen = sgd(clusters[best], x, y, plan, lr)
            found[best] += [(combine(w, clusters[best], -1), seen)] if seen else []
        for k, reports in enumerate(found):
            if reports:
                clusters[k] = combine(clusters[k], weighted_mean(*zip(*reports, strict=True)))
                chosen.add(k)
    return clusters, chosen


def fedrep(weights, x, y, passes: Sequence[Rounds], lr) -> tuple[Weights, dict[int, Weights]]:
    """Collins et al. 2021, Algorithm 1; layer 1 is the head, layer 0 the body. passes: of the head, of the body.

    Returns:
      The body, and {site: its head}.
    """
    body, heads = {n: v for n, v in weights.items() if n[0] == "0"}, {}
    for on_head, on_body in zip(*passes, strict=True):
        updates, rows = [], []
        for site in on_head:
            w, seen = {**weights, **heads.get(site, {}), **body}, 0
            for part, plan in (("1", on_head[site]), ("0", on_body[site])):
                w, _, seen = sgd(w, x, y, plan, lr, lambda g, w, part=part: {n: g[n] * (n[0] == part) for n in g})
            heads[site] = {n: v for n, v in w.items() if n[0] == "1"}
            updates, rows = [*updates, {n: w[n] - body[n] for n in body}], [*rows, seen]
        body = combine(body, weighted_mean(updates, rows)) if sum(rows) else body
    return body, heads


def diloco(weights, x, y, rounds: Rounds, lr, decay: float, server: Server) -> Weights:
    """Douillard et al. 2023, Algorithm 1: AdamW inside, whose averages each worker keeps; plain mean outside."""
    kept: dict[int, tuple[Weights, Weights, int]] = {}
    for asked in rounds:
        moves = []
        for site, plan in asked.items():
            m, v, t = kept.get(site, (zeros(weights), zeros(weights), 0))
            w = weights
            for batch in plan:
                g, t = gradient(w, x[batch[batch >= 0]], y[batch[batch >= 0]])[1], t + 1
                m, v = ({n: b * a[n] + (1 - b) * g[n] ** p for n in g} for a, b, p in ((m, 0.9, 1), (v, 0.999, 2)))
                step = {n: m[n] / (1 - 0.9**t) / (np.sqrt(v[n] / (1 - 0.999**t)) + 1e-8) + decay * w[n] for n in g}
                w = combine(w, step, -lr)
            kept[site] = m, v, t
            moves += [combine(w, weights, -1)] if len(plan) else []
        weights = server(weights, weighted_mean(moves, [1] * len(moves))) if moves else weights
    return weights
