"""Adding up what the sites measured: a plain sum in the order given, so that it is the same wherever it is done."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from learner_jax.errors import DataError


def combine(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Total of the sites' sums.

    Args:
      parts: one dict a site, in ascending order of site id; the same names, shapes and dtypes (int64 or float64) in
        each. Integers add exactly in any order, floats to the bit only in this one.

    Returns:
      One dict of the same names, shapes and dtypes.

    Raises:
      DataError: no site, or two sites that measured different things.
    """
    if not parts:
        raise DataError("expected the sums of at least one site, got none")
    schema = _schema(parts[0])
    total = {name: np.array(value) for name, value in parts[0].items()}
    for place, part in enumerate(parts[1:], 1):
        if _schema(part) != schema:
            odd = sorted(set(schema.items()) ^ set(_schema(part).items()))[0][0]
            raise DataError(
                f"expected '{odd}' to be {schema.get(odd, 'absent')} as at the first site, "
                f"got {_schema(part).get(odd, 'none')} from site number {place + 1}"
            )
        for name in total:
            total[name] = np.asarray(total[name] + part[name])
    return total


def _schema(part: dict[str, np.ndarray]) -> dict[str, str]:
    return {name: f"{np.asarray(value).dtype}{list(np.shape(value))}" for name, value in part.items()}
