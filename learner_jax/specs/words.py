"""How mistakes are put into words: near names, types, values."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable


def near(word: str, known: Iterable[str], show: Callable[[str], str] = str) -> str:
    """The words " (did you mean a or b?)" for a misspelt one, "" where nothing is near; show: how each is written."""
    found = difflib.get_close_matches(word.lower(), list(known), n=3, cutoff=0.55)
    return f" (did you mean {either(show(one) for one in found)}?)" if found else ""


def no_field(of: str, name: str, fields: Iterable[str]) -> str:
    """The words for a field that is not there: near ones, else all that there are."""
    names = list(fields)
    return f"{of} has no field {name!r}" + (near(name, names) or f" (it has {', '.join(names) or 'none'})")


def either(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def singular(kind: str) -> str:
    return kind.removesuffix("s")


def article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
