"""Figures of ranked rows by counting pairs, and their clustered standard error, as the papers have them."""

from __future__ import annotations

import numpy as np


def pairs(told, y) -> float:
    """AUROC: each pair by itself."""
    told, y = np.asarray(told, float), np.asarray(y, bool)
    apart = told[y][:, None] - told[~y][None, :]
    return float(((apart > 0) + 0.5 * (apart == 0)).mean())


def delong(told, y) -> float:
    """Variance of an AUROC, each row another patient. DeLong et al., Biometrics 44 (1988)."""
    told, y = np.asarray(told, float), np.asarray(y, bool)
    apart = told[y][:, None] - told[~y][None, :]
    right = (apart > 0) + 0.5 * (apart == 0)
    return float(right.mean(1).var(ddof=1) / y.sum() + right.mean(0).var(ddof=1) / (~y).sum())


def obuchowski(told, y, group) -> float:
    """Variance of an AUROC by patient. Obuchowski, Biometrics 53 (1997), patient by patient."""
    told, y, group = np.asarray(told, float), np.asarray(y, bool), np.asarray(group)
    events, others = told[y], told[~y]
    area = pairs(told, y)
    firsts, seconds, has_events, has_others = [], [], 0, 0
    for patient in sorted(set(group.tolist())):
        mine = group == patient
        x, z = told[mine & y], told[mine & ~y]
        first = sum(np.mean((others < score) + 0.5 * (others == score)) - area for score in x)
        second = sum(np.mean((events > score) + 0.5 * (events == score)) - area for score in z)
        firsts.append(first)
        seconds.append(second)
        has_events += len(x) > 0
        has_others += len(z) > 0
    firsts, seconds, i = np.array(firsts, float), np.array(seconds, float), len(firsts)
    m, n = len(events), len(others)
    s10 = has_events / ((has_events - 1) * m) * (firsts**2).sum()
    s01 = has_others / ((has_others - 1) * n) * (seconds**2).sum()
    s11 = i / (i - 1) * (firsts * seconds).sum()
    return float(s10 / m + s01 / n + 2 * s11 / (m * n))


def net_benefit(told, y, threshold: float) -> float:
    """Vickers and Elkin, Medical Decision Making 26 (2006)."""
    called = np.asarray(told) >= threshold
    y = np.asarray(y, bool)
    return float((called & y).mean() - (called & ~y).mean() * threshold / (1 - threshold))
