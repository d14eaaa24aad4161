"""An event in words: what a terminal says of a running study, one sentence an event."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from learner_jax.events import Event
from learner_jax.reports import foretold


def size(count: float) -> str:
    """Bytes for people: 950 B, 1.2 MB."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def figures(metrics: Mapping[str, Any], target: str = "", number: int | None = None) -> str:
    """'valid/auroc 0.643 after round 4, train/loss 0.312': the target first, then losses.

    Args:
      metrics: of a round that closed, or of an evaluation.
      target: the study's.
      number: the round that closed, in which the model of the round before was watched; None: of no round.
    """
    first = [name for name in (target, "valid/loss", "train/loss") if name in metrics]
    names = list(dict.fromkeys(first)) or list(metrics)[:2]
    values = [(name, metrics[name]) for name in names[:2]]
    known = ((name, value) for name, value in values if isinstance(value, int | float) and not isinstance(value, bool))
    late = "" if number is None else f" after round {number - 1}" if number > 1 else " at the start"
    return ", ".join(f"{name} {value:.4g}{late if name.startswith('valid/') else ''}" for name, value in known)


def sentence(event: Event, rounds: int | None = None, target: str = "") -> str:
    """One event in words, in one line without the study's name; "" where it needs none."""
    words = _sentence(event, rounds, target)
    return "".join(letter if letter.isprintable() else " " for letter in words)


def _sentence(event: Event, rounds: int | None, target: str) -> str:
    data = event.data
    if event.site and event.kind in ("start", "site_done", "done"):
        return _at_a_site(event)
    number = f"round {event.round}" + (f" of {rounds}" if rounds and event.round else "")
    if event.kind in ("start", "evaluation"):
        words = {"start": "begins", "evaluation": "evaluation"}[event.kind]
        told = figures(data.get("metrics", {}), target)
        return f"{words}: {told}" if told else words
    if event.kind == "statistics":
        return "sites agree on means, scales and codes: sums only"
    if event.kind == "forecast":
        return foretold.measured(data) if data.get("measured") else " ".join(foretold.told(data))
    if event.kind == "round_closed":
        sites, lost = data.get("sites", ()), data.get("lost", ())
        parts = [
            figures(data.get("metrics", {}), target, event.round),
            sites_of(sites),
            f"{data.get('seconds', 0.0):.2f} s",
        ]
        parts += [f"{size(data['bytes_up'])} up"] if data.get("bytes_up") else []
        parts += [f"without {', '.join(lost)}"] if lost else []
        return f"{number}: " + ", ".join(part for part in parts if part)
    if event.kind == "site_back" and data.get("first"):
        return f"{event.site} is here"
    if event.kind in ("site_lost", "site_back"):
        told = f"{event.site} is {event.kind.removeprefix('site_')}"
        told += f", {data['reason']}" if event.kind == "site_lost" and data.get("reason") else ""
        return f"{number}: {told}" if event.round else told
    if event.kind == "resumed":
        return f"goes on after {number}"
    if event.kind == "reference":
        return f"reference {data.get('name')}: round {reached(event)} of {data.get('rounds')}"
    if event.kind == "note":
        return str(data.get("text", ""))
    return ""


_ASKED = {
    ("statistics", True): "sums over this table",
    ("look", True): "the table encoded as all sites agreed",
    ("look", False): "the last model watched",
    ("calibrate", False): "how far this site's values are from what was told",
    ("finish", False): "this site's figures",
}
"""(phase, before round 1) -> what a site answers there."""


def own_answer(event: Event) -> bool:
    """Whether a site tells of its own answer, or of what it is at; a coordinator tells of the sites that it asks."""
    return event.kind in ("round_open", "site_done") and "phase" in event.data and "sites" not in event.data


def answered(event: Event) -> str:
    """'answered, 118 kB, 0.8 s' of a site's own answer."""
    seconds = event.data.get("seconds")
    parts = ["answered", size(event.data.get("bytes", 0)), *([] if seconds is None else [f"{seconds:.1f} s"])]
    return ", ".join(parts)


def _at_a_site(event: Event) -> str:
    """What a site says of itself; "" where a coordinator speaks of one."""
    data, rounds = event.data, event.data.get("rounds")
    if event.kind == "start":
        return f"takes part in {rounds} rounds of {data.get('algorithm')}"
    if event.kind == "done":
        return f"the study is over: weights {str(data.get('result', {}).get('weights_sha256'))[:12]}"
    if not own_answer(event):
        return ""
    what = _ASKED.get((data["phase"].rstrip("0123456789"), event.round == 0), data["phase"])
    if data["phase"] == "train":
        what = f"round {event.round}" + (f" of {rounds}" if rounds else "")
    return f"{what}: {answered(event)}"


def sites_of(sites: Any) -> str:
    count = sites if isinstance(sites, int) else len(sites)
    return f"{count} site{'s' if count != 1 else ''}" if count else ""


def reached(event: Event) -> int | None:
    """The round of a reference, which is none of the study's."""
    return event.data.get("round", event.round)


def wrapped(text: str, width: int) -> str:
    """The same text with long sentences broken between words; lines of a table (two spaces in them) stay."""
    return "\n".join(line if "  " in line else textwrap.fill(line, width) for line in text.split("\n"))
