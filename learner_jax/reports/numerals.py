"""Figures as people read them."""

from __future__ import annotations

WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
MINUS = "\N{MINUS SIGN}"


def count(number: float | None) -> str:
    """1234 -> "1,234"; None, a count that stays at its site, -> "few"."""
    return "few" if number is None else f"{number:,.0f}"


def spelled(number: int) -> str:
    """0 to 12 as a word."""
    return WORDS[number] if 0 <= number < len(WORDS) else f"{number:,}"


def many(number: int, one: str, more: str) -> str:
    """two hospitals."""
    return f"{spelled(number)} {one if number == 1 else more}"


def hundred(share: float, digits: int = 0) -> str:
    """0.613 -> "61"."""
    return f"{100 * share:.{digits}f}"


def span(low: float, high: float, digits: int = 0) -> str:
    """0.59, 0.64 -> "59 to 64"."""
    return f"{signed(low, digits, plus='')} to {signed(high, digits, plus='')}"


def signed(share: float, digits: int = 1, plus: str = "+") -> str:
    """0.032 -> "+3.2", in hundredths, with a real minus sign."""
    text = f"{100 * abs(share):.{digits}f}"
    if not text.strip("0."):
        return text
    return (MINUS if share < 0 else plus) + text


def size(number: float) -> str:
    """Bytes for people: "2.8 MB"."""
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= step:
            return f"{number / step:.{0 if number >= 99.5 * step else 1}f} {unit}"
    return f"{number:.0f} bytes"


def duration(seconds: float) -> str:
    """Seconds for people: "1 h 10 min", "2 min 5 s", "0.31 s", "12 ms"."""
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
