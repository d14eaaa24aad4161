"""Tables in plain text: columns, the order of sites, and names that are cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def grid(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns in plain text: the first `left` ones start left, the others end right.

    Args:
      header: one word or two for each column.
      rows: cells; () draws a line.
      left: how many columns hold words.
    """
    widths = [max(len(str(row[at])) for row in [header, *filter(len, rows)]) for at in range(len(header))]
    rule = "  ".join("-" * width for width in widths)

    def lay(row: Sequence[str]) -> str:
        cells = [
            f"{cell:<{width}}" if at < left else f"{cell:>{width}}"
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([lay(header), rule, *(lay(row) if row else rule for row in rows)])


def by_size(sites: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The largest site first; a withheld count is small; equals by name."""
    return sorted(sites, key=lambda site: (-(site.get("rows") or 0), site["name"]))


def clip(name: str, width: int = 26) -> str:
    """A name that fits a column: its end gives way, control characters too."""
    name = "".join(c if c.isprintable() else "?" for c in name)
    return name if len(name) <= width else name[: width - 1] + "…"
