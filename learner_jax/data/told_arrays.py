"""Arrays in JSON, to the bit: base64 of their little-endian bytes."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

KINDS = ("float32", "float64", "int32", "int64", "bool")


def told(array: Any) -> dict[str, Any]:
    """An array as JSON can hold it.

    Args:
      array: of a dtype in KINDS.

    Returns:
      {"dtype", "shape", "base64"}.
    """
    array = np.asarray(array)
    data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return {"dtype": array.dtype.name, "shape": list(array.shape), "base64": base64.b64encode(data.tobytes()).decode()}


def array(said: dict[str, Any]) -> np.ndarray:
    """The array that was told.

    Raises:
      ValueError: it is not one.
    """
    if said["dtype"] not in KINDS:
        raise ValueError(f"expected a dtype of {', '.join(KINDS)}, got {str(said['dtype'])[:20]}")
    data = base64.b64decode(said["base64"], validate=True)
    return np.frombuffer(data, np.dtype(said["dtype"]).newbyteorder("<")).reshape(said["shape"]).copy()
