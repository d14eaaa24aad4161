"""Sites out of one table: by a column, with a skew of the label, or with a skew of size. For simulations.

Each is a factory: `dirichlet(sites=10, alpha=0.3)` returns a function from a table and a seed to one table a site. All
rows of one `group` (a patient) go to one site. Draws come from Philox, so that they are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from learner_jax.data.schema import near
from learner_jax.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Partition = Callable[["pd.DataFrame", int], dict[str, "pd.DataFrame"]]


def by_column(*, column: str) -> Partition:
    """One site for each value of a column, which is dropped.

    Args:
      column: its name; a missing value is refused.
    """

    def partition(table: pd.DataFrame, seed: int = 0) -> dict[str, pd.DataFrame]:
        values = _column(table, column)
        if values.isna().any():
            raise DataError(f"column '{column}': expected a value in each row, got none in {int(values.isna().sum())}")
        names = values.astype(str).to_numpy()
        rest = table.drop(columns=column)
        return {name: rest.loc[names == name] for name in sorted(set(names.tolist()))}

    return partition


def dirichlet(*, sites: int = 10, alpha: float = 0.5, label: str, group: str | None = None) -> Partition:
    """Sites that differ in the mix of labels: for each label, the shares of the sites are drawn from Dirichlet(alpha).

    Args:
      sites: how many.
      alpha: small for strong skew: at 0.1 most sites lack most labels, at 100 all are alike.
      label: the column of labels.
      group: a column (the patient) whose rows stay together, by the label of the group's first row.

    Reference: Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution", arXiv 1909.06335.
    """
    _positive(sites=sites, alpha=alpha)

    def partition(table: pd.DataFrame, seed: int = 0) -> dict[str, pd.DataFrame]:
        draw = _generator(seed, "dirichlet")
        first, of_row = _groups(table, group)
        labels = _column(table, label).astype(str).to_numpy()[first]
        site = np.zeros(len(first), np.int64)
        for value in sorted(set(labels.tolist())):
            members = draw.permutation(np.flatnonzero(labels == value))
            edges = np.round(np.cumsum(draw.dirichlet(np.full(sites, alpha))) * len(members)).astype(np.int64)
            site[members] = np.searchsorted(edges[:-1], np.arange(len(members)), side="right")
        return _dealt(table, site[of_row], sites)

    return partition


def quantity(*, sites: int = 10, sigma: float = 1.0, group: str | None = None) -> Partition:
    """Sites that differ in size alone: sizes in proportion to log-normal draws.

    Args:
      sites: how many.
      sigma: of the logarithm; 0 for equal sizes.
      group: a column whose rows stay together.
    """
    _positive(sites=sites)
    if sigma < 0:
        raise DataError(f"expected sigma >= 0, got sigma={sigma}")

    def partition(table: pd.DataFrame, seed: int = 0) -> dict[str, pd.DataFrame]:
        draw = _generator(seed, "quantity")
        first, of_row = _groups(table, group)
        share = np.exp(sigma * draw.standard_normal(sites))
        edges = np.round(np.cumsum(share / share.sum()) * len(first)).astype(np.int64)
        site = np.zeros(len(first), np.int64)
        site[draw.permutation(len(first))] = np.searchsorted(edges[:-1], np.arange(len(first)), side="right")
        return _dealt(table, site[of_row], sites)

    return partition


PARTITIONS: Mapping[str, Callable[..., Partition]] = {
    "by_column": by_column,
    "dirichlet": dirichlet,
    "quantity": quantity,
}


def make(name: str, fields: Mapping[str, Any]) -> Partition:
    """The partition that a config names.

    Raises:
      DataError: no partition of that name.
    """
    if name not in PARTITIONS:
        hint = near(name, PARTITIONS) or list(PARTITIONS)
        raise DataError(f"expected a partition, got '{name}'; near: {', '.join(hint)}")
    return PARTITIONS[name](**fields)


def _generator(seed: int, purpose: str) -> np.random.Generator:
    number = int.from_bytes(purpose.encode()[:8].ljust(8, b"\0"), "little")
    return np.random.Generator(np.random.Philox(key=[seed % 2**64, number]))


def _column(table: pd.DataFrame, name: str) -> Any:
    if name not in table.columns:
        similar = near(name, [str(c) for c in table.columns])
        raise DataError(
            f"expected a column '{name}' to make sites by, got none"
            + (f" (near: {', '.join(similar)})" if similar else "")
        )
    return table[name]


def _groups(table: pd.DataFrame, group: str | None) -> tuple[np.ndarray, np.ndarray]:
    """First row of each group, int64[groups], in order of appearance, and the group of each row, int64[n]."""
    if group is None:
        rows = np.arange(len(table))
        return rows, rows
    import pandas as pd

    of_row, _ = pd.factorize(_column(table, group))
    return np.unique(of_row, return_index=True)[1], of_row


def _dealt(table: pd.DataFrame, site: np.ndarray, sites: int) -> dict[str, pd.DataFrame]:
    """One table for each site that got rows, named s00, s01, ... in the order of their numbers."""
    digits = max(2, len(str(sites - 1)))
    names = {number: f"s{number:0{digits}d}" for number in range(sites)}
    return {names[number]: table.loc[site == number] for number in range(sites) if (site == number).any()}


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise DataError(f"expected {name} > 0, got {name}={value}")
