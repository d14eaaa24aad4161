"""Lists of codes as files: what ships with the package, and how any of them is read.

A list is a CSV; lines that begin with # are remarks, such as its source and what its licence asks for.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from learner_jax.errors import ConfigError


class Code(NamedTuple):
    """A line of a code list."""

    vocabulary: str
    code: str
    prefix: bool


def shipped(folder: str, suffix: str) -> dict[str, Path]:
    """Name -> file of what comes with the package, in `configs/` of it or beside it.

    Args:
      folder: "cohorts" or "codes".
      suffix: ".yaml" or ".csv".
    """
    package = Path(__file__).resolve().parents[1]
    for configs in (package / "configs", package.parent / "configs"):
        found = {path.stem: path for path in sorted((configs / folder).glob(f"*{suffix}"))}
        if found:
            return found
    return {}


def lines(path: Path, what: str, columns: Sequence[str], make: Callable[[Mapping[str, str]], Any]) -> list[Any]:
    """What is made of each line of a list, in the file's order.

    Args:
      path: of the file.
      what: it lists, for messages: "groups of medicines".
      columns: it must have.
      make: of a line.

    Raises:
      ConfigError: it cannot be read, lacks a column, or a line is none that `make` takes.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [make(row) for row in csv.DictReader(line for line in file if not line.startswith("#"))]
    except OSError as error:
        raise ConfigError(f"{path}: expected {what}, got: {error.strerror}") from None
    except (KeyError, ValueError, TypeError, AttributeError, csv.Error):  # ValueError: of numbers, and of the encoding
        *others, last = columns
        raise ConfigError(f"{path}: expected columns {', '.join(others)} and {last}, got others") from None


def a_code(row: Mapping[str, str]) -> Code:
    """The code of a line with vocabulary, code and match."""
    return Code(row["vocabulary"], plain_code(row["code"]), row["match"] == "prefix")


def read_codes(path: Path) -> tuple[Code, ...]:
    """A code list: vocabulary, code and match ("exact" or "prefix").

    Raises:
      ConfigError: it is not that.
    """
    return tuple(lines(path, "a code list", ("vocabulary", "code", "match"), a_code))


def plain_code(code: str) -> str:
    """A code in capitals, without blanks and points."""
    return "".join(code.split()).replace(".", "").upper()
