"""What a run was told to take, in words; and what it took. From the dicts of `engines.forecast`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from learner_jax.reports.numerals import duration, many, size


def told(forecast: Mapping[str, Any]) -> list[str]:
    """Two or three plain sentences: what travels, how long it takes, what memory it needs.

    Args:
      forecast: as `engines.forecast.forecast` gives it.
    """
    sites, cohort, rounds = forecast["sites"], forecast["cohort"], forecast["rounds"]
    whom = f"each of {many(sites, 'site', 'sites')}" if cohort == sites else f"each of {cohort} sites out of {sites}"
    whole = f"{size(forecast['bytes_up'])} up and {size(forecast['bytes_down'])} down"
    line = forecast["line_mbit"]
    where = "In a local network" if line is None else f"On lines of {line:g} Mbit/s"
    moving = duration(forecast["transfer_s"])
    guess = "" if forecast["measured"] else ", as far as can be guessed before one was seen"
    return [
        f"In a round {whom} gets at most {size(forecast['down'])} and sends at most {size(forecast['up'])}: "
        f"over {many(rounds, 'round', 'rounds')} {whole}.",
        f"{where} a round takes about {duration(forecast['round_s'])}, {moving} of it on the line{guess}; "
        f"all of them about {duration(forecast['seconds'])}.",
        f"The coordinator needs about {size(forecast['coordinator_bytes'])} of memory, "
        f"a site's worker {size(forecast['worker_bytes'])} and its rows.",
    ]


def measured(forecast: Mapping[str, Any]) -> str:
    """One sentence, once the first rounds were seen."""
    return (
        f"By its first rounds, a round takes about {duration(forecast['round_s'])}; "
        f"all of them about {duration(forecast['seconds'])}."
    )


def compared(result: Mapping[str, Any]) -> str:
    """One sentence that holds the run against its forecast; "" where there was none.

    Args:
      result: laid out as `result.ResultFields`.
    """
    forecast = result.get("forecast") or {}
    was = forecast.get("was")
    if not was:
        return ""
    shown = {
        "up": lambda one: f"{size(one)} up",
        "down": lambda one: f"{size(one)} down a site and round",
        "round_s": lambda one: f"{duration(one)} a round",
        "seconds": lambda one: f"{duration(one)} in all",
        "coordinator_bytes": lambda one: f"{size(one)} of memory at the coordinator",
    }
    before, after = (", ".join(say(one[name]) for name, say in shown.items()) for one in (forecast, was))
    return f"Told beforehand: {before}. It was: {after}."
