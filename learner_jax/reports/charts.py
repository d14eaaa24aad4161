"""Where things lie in a chart: numbers only. The page draws them; every place is a per cent of the plot's own box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple


class Scale(NamedTuple):
    """A range of values, ends on round numbers.

    Attributes:
      low: value at 0 %.
      high: value at 100 %.
      ticks: round values between them.
      digits: decimals that the ticks need.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    digits: int

    def at(self, value: float) -> float:
        """Per cent from the low end, kept within the box."""
        return round(min(100.0, max(0.0, 100 * (value - self.low) / (self.high - self.low))), 2)

    def label(self, value: float) -> str:
        """A tick in words."""
        return f"{value:,.{self.digits}f}"


def scale(values: Sequence[float], ticks: int = 5, floor: float | None = None, ceiling: float | None = None) -> Scale:
    """A scale that holds all values, with about so many ticks on 1, 2 or 5 times a power of ten.

    Args:
      values: finite.
      ticks: about how many.
      floor: the scale does not go below.
      ceiling: nor above.
    """
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low < 1e-6 * max(abs(low), abs(high), 1e-6):
        pad = abs(high) * 0.1 if abs(high) > 1e-6 else 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / max(1, ticks - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    first = first if floor is None else max(first, math.ceil(floor / step - 1e-9))
    last = last if ceiling is None else min(last, math.floor(ceiling / step + 1e-9))
    last = max(last, first + 1)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    marks = tuple(round(n * step, digits) for n in range(first, last + 1))
    return Scale(marks[0], marks[-1], marks, digits)


def rounds(numbers: Sequence[int]) -> Scale:
    """A scale for learning rounds: from the first to the last, ticks on round whole numbers and on the first."""
    first, last = (min(numbers), max(numbers)) if numbers else (1, 1)
    if first == last:
        return Scale(first - 1.0, last + 1.0, (float(first),), 0)
    step = max(1, round(scale([first, last], 6).ticks[1] - scale([first, last], 6).ticks[0]))
    inner = tuple(float(n) for n in range(first, last + 1) if n % step == 0 and n - first >= step / 2)
    return Scale(float(first), float(last), (float(first), *inner), 0)


def axes(along: Scale, up: Scale, x_name: str) -> dict[str, Any]:
    """Ticks of both axes, as the page draws them."""
    return {
        "x_ticks": [{"at": along.at(t), "text": along.label(t)} for t in along.ticks],
        "y_ticks": [{"at": round(100 - up.at(t), 2), "text": up.label(t)} for t in up.ticks],
        "x_name": x_name,
    }


def line(xs: Sequence[float], ys: Sequence[float], x: Scale, y: Scale) -> str:
    """Points of a polyline in a box of 100 x 100, y upward."""
    return " ".join(f"{x.at(a):g},{round(100 - y.at(b), 2):g}" for a, b in zip(xs, ys, strict=True))


def thin(count: int, keep: int, always: Sequence[int] = ()) -> list[int]:
    """Which of `count` rows to show first: about `keep` of them, evenly, with the first, the last and `always`."""
    if count <= keep:
        return list(range(count))
    step = math.ceil(count / keep)
    step = next(s for s in (1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000, 10**9) if s >= step)
    shown = {at for at in range(count) if (at + 1) % step == 0} | {0, count - 1}
    return sorted(shown | {at for at in always if 0 <= at < count})
