"""Where things lie in a chart: numbers only. The page draws them; every place is a per cent of the plot's own box.

Words are placed by `lifts`, in ems from the point that they belong to, so that none overlaps another, a dot or a line
of reference. The box is 16 rem high (`style.css`) and at least as wide as on a telephone of 320 pixels.
"""

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


# ---------------------------------------------------------------------------------------------- words in a chart

EM = 13 / 16  # rem: the size of a chart's words
HEIGHT, LOW, WIDTH = 16 / EM, 9 / EM, 18.0  # ems: of a plot, of a low one; the least width of either
ASCENT, DESCENT, LETTER = 0.9, 0.35, 0.6  # ems: over and under the base line; the width of a letter, rather too wide
DOT = 0.45  # ems: a dot's radius and a little air


class Words(NamedTuple):
    """Words that belong to a point of a chart.

    Attributes:
      x: per cent from the left.
      y: per cent from the top.
      anchor: "start", "middle" or "end": which part of the words lies at x.
      text: what is written.
      over: how far the base line would best lie over y, in ems.
    """

    x: float
    y: float
    anchor: str
    text: str
    over: float


class Box(NamedTuple):
    """A place that is taken, in ems from the upper left corner."""

    left: float
    right: float
    top: float
    bottom: float

    def meets(self, other: Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def box(words: Words, lift: float, height: float = HEIGHT, width: float = WIDTH) -> Box:
    """Where words lie that are lifted by so many ems (downward is positive)."""
    long, at = LETTER * len(words.text), words.x / 100 * width
    left = {"start": at, "middle": at - long / 2, "end": at - long}[words.anchor]
    base = words.y / 100 * height + lift
    return Box(left, left + long, base - ASCENT, base + DESCENT)


def lifts(
    all_words: Sequence[Words], dots: Sequence[tuple[float, float]] = (), lines: Sequence[float] = (),
    height: float = HEIGHT,
) -> list[float]:  # fmt: skip
    """Where the base line of each goes, in ems below its point, so that nothing overlaps.

    The first has the first choice: over its point, else under it, else the nearest free place. What does not overlap in
    the narrowest chart does not in a wider one: two that lie apart move further apart with it.

    Args:
      all_words: those whose place matters most first.
      dots: (x, y) of dots, per cent from the left and from the top.
      lines: y of lines across the chart.
      height: of the plot, ems.
    """
    taken = [Box(-math.inf, math.inf, y / 100 * height, y / 100 * height + 1e-9) for y in lines]
    for x, y in dots:
        across, down = x / 100 * WIDTH, y / 100 * height
        taken.append(Box(across - DOT, across + DOT, down - DOT, down + DOT))
    found = []
    for words in all_words:
        lift = next((lift for lift in _choices(words, height) if _free(box(words, lift, height), taken)), -words.over)
        taken.append(box(words, lift, height))
        found.append(round(lift, 2))
    return found


def _choices(words: Words, height: float) -> list[float]:
    """Over the point, under it, then every place from which the words stay in the plot, the nearest first."""
    base = words.y / 100 * height
    steps = [0.1 * n - base for n in range(math.floor(height * 10) + 1)]
    middle = (ASCENT - DESCENT) / 2  # of the words, over their base line
    under = words.over + ASCENT - DESCENT
    first = [lift for lift in (-words.over, under) if 0 <= base + lift <= height - DESCENT]
    return first + sorted((s for s in steps if base + s <= height - DESCENT), key=lambda s: abs(s - middle))


def _free(wanted: Box, taken: Sequence[Box]) -> bool:
    return not any(wanted.meets(other) for other in taken)
