"""A multilayer perceptron with one logit, its mean log loss and its gradient by hand: float64, NumPy only.

Weights are a dict: "0/kernel" [in, out], "0/bias" [out], "1/kernel", ...; one layer is logistic regression.
"""

from __future__ import annotations

import numpy as np

Weights = dict[str, np.ndarray]


def gradient(weights: Weights, x: np.ndarray, y: np.ndarray) -> tuple[float, Weights]:
    """(mean loss, its gradient) over rows x float64[n, d], y {0, 1}[n]."""
    layers = len(weights) // 2
    inputs = [x]
    for k in range(layers):
        z = inputs[-1] @ weights[f"{k}/kernel"] + weights[f"{k}/bias"]
        inputs.append(z if k == layers - 1 else np.where(z > 0, z, 0.0))
    logit = inputs[-1][:, 0]
    loss = np.mean(np.maximum(logit, 0) - logit * y + np.log1p(np.exp(-np.abs(logit))))
    back = ((1 / (1 + np.exp(-logit)) - y) / len(y))[:, None]
    grads = {}
    for k in reversed(range(layers)):
        grads[f"{k}/kernel"] = inputs[k].T @ back
        grads[f"{k}/bias"] = back.sum(0)
        back = (back @ weights[f"{k}/kernel"].T) * (inputs[k] > 0)
    return float(loss), grads
