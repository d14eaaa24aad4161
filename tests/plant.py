"""What a planted fault is."""

from __future__ import annotations

from typing import NamedTuple


class Plant(NamedTuple):
    """One fault.

    Attributes:
      name: what goes wrong.
      file: which file, under the root.
      old: the place, which is in the file once.
      new: what stands there instead.
      tests: arguments of pytest; or of a script, where the first ends in ".py" and the second is a number.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
