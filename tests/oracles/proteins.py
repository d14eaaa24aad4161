"""A network of proteins, its loss and gradient by hand, and averaging by column as a loop: float64, NumPy only.

Weights are a dict by the names of the package's leaves: "dense/0/kernel" [d, w], "dense/0/bias" [w], "head/kernel"
[w, 4, C], "head/bias" [4, C], "skip/kernel" [d, 4, C], "skip/bias" [4, C], and, where a site has its own,
"shift/own" [w]. The four parts are the mean, and what low, mid and high are made of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Weights = dict[str, np.ndarray]
SHARES = {"low": 0.1, "mid": 0.5, "high": 0.9}


def softplus(z: np.ndarray) -> np.ndarray:
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def forward(w: Weights, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(what goes into the hidden layer's relu [n, w], hidden [n, w], output [n, 4, C])."""
    into = x @ w["dense/0/kernel"] + w["dense/0/bias"] + w.get("shift/own", 0.0)
    hidden = np.maximum(into, 0)
    out = np.einsum("nw,wpc->npc", hidden, w["head/kernel"]) + w["head/bias"]
    return into, hidden, out + np.einsum("nd,dpc->npc", x, w["skip/kernel"]) + w["skip/bias"]


def gradient(w: Weights, x: np.ndarray, y: np.ndarray, seen: np.ndarray, weight: float) -> tuple[float, Weights]:
    """(loss, its gradient): over rows, the mean over seen proteins of squared error + weight * pinball losses."""
    into, hidden, out = forward(w, x)
    told = {"low": out[:, 2] - softplus(out[:, 1]), "mid": out[:, 2], "high": out[:, 2] + softplus(out[:, 3])}
    part = seen / np.maximum(seen.sum(axis=1), 1)[:, None] / len(x)
    loss = np.sum(part * (out[:, 0] - y) ** 2)
    back = np.zeros_like(out)
    back[:, 0] = 2 * part * (out[:, 0] - y)
    slope = {}
    for name, q in SHARES.items():
        away = y - told[name]
        loss += weight * np.sum(part * np.where(away > 0, q * away, (q - 1) * away))
        slope[name] = weight * part * np.where(away > 0, -q, 1 - q)
    back[:, 1] = -slope["low"] / (1 + np.exp(-out[:, 1]))
    back[:, 2] = slope["low"] + slope["mid"] + slope["high"]
    back[:, 3] = slope["high"] / (1 + np.exp(-out[:, 3]))
    down = np.einsum("npc,wpc->nw", back, w["head/kernel"]) * (into > 0)
    grads = {
        "head/kernel": np.einsum("nw,npc->wpc", hidden, back),
        "head/bias": back.sum(0),
        "skip/kernel": np.einsum("nd,npc->dpc", x, back),
        "skip/bias": back.sum(0),
        "dense/0/kernel": x.T @ down,
        "dense/0/bias": down.sum(0),
    }
    return float(loss), {**grads, "shift/own": down.sum(0)} if "shift/own" in w else grads


def columnwise(
    weights: Weights,
    x: np.ndarray,
    y: np.ndarray,
    seen: np.ndarray,
    rounds: Sequence[Mapping[int, np.ndarray]],
    lr: float,
    weight: float,
    home: bool = False,
    share: float = 0.0,
    mu: float = 0.0,
) -> tuple[Weights, dict[int, np.ndarray]]:
    """FedAvg in which each column of head and skip is averaged over the sites that measured it.

    Args:
      rounds: as in `tests.oracles.methods`.
      home: "shift/own" stays at each site.
      share: of the average over rounds that is kept each round; 0 for the last weights.
      mu: of the proximal term.

    Returns:
      (weights, {site: its own shift}).
    """
    own: dict[int, np.ndarray] = {}
    mean, counted = weights, 0
    for asked in rounds:
        moved = {name: np.zeros_like(leaf) for name, leaf in weights.items()}
        total: dict[str, np.ndarray] = {name: np.zeros(leaf.shape[-1]) for name, leaf in weights.items()}
        rows = 0
        for site, plan in asked.items():
            w = {**weights, "shift/own": own.get(site, weights["shift/own"])} if home else weights
            mine, by_column, begun = 0, np.zeros(y.shape[1]), w
            for batch in plan:
                at = batch[batch >= 0]
                _, grads = gradient(w, x[at], y[at], seen[at], weight)
                w = {name: w[name] - lr * (grads[name] + mu * (w[name] - begun[name])) for name in w}
                mine, by_column = mine + int((seen[at] > 0).any(axis=1).sum()), by_column + seen[at].sum(axis=0)
            for name in weights:
                counts = by_column if name.startswith(("head", "skip")) else np.full(weights[name].shape[-1], mine)
                moved[name] = moved[name] + counts * (w[name] - weights[name])
                total[name] = total[name] + counts
            rows += mine
            if home:
                own[site] = w["shift/own"]
        if rows:
            step = {name: moved[name] / np.maximum(total[name], 1) for name in weights}
            weights = {n: weights[n] if home and n == "shift/own" else weights[n] + step[n] for n in weights}
            part = max(1 - share, 1 / (counted + 1))
            mean, counted = {n: mean[n] + part * (weights[n] - mean[n]) for n in weights}, counted + 1
    return (mean if share else weights), own
