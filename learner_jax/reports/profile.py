"""Where the time of profiled rounds went: a table in plain text, and several profiles side by side."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from learner_jax.reports.numerals import size
from learner_jax.reports.plain import clip, grid
from learner_jax.spans import PHASES

Profile = Mapping[str, Any]
_ROUNDS, _LEAST, _SMALL = 5, 0.05, 0.01
"""A phase has changed if all its rounds of one run lie apart from all of the other, with so many rounds each, by this
share of the shorter middle, and by this share of a round."""


def text(profile: Profile) -> str:
    """The table and its sentences.

    Args:
      profile: as `engines.profiler` writes it.
    """
    walls = profile["wall_s"]
    wall, unnamed = sum(walls), sum(profile["unnamed_s"])
    rows = [
        [name, _ms(statistics.median(took)), _share(sum(took), wall), PHASES.get(name, "")]
        for name, took in sorted(profile["phases_s"].items(), key=lambda item: -sum(item[1]))
    ]
    rows.append(["(no phase)", _ms(statistics.median(profile["unnamed_s"])), _share(unnamed, wall), ""])
    rows += [[], ["a round", _ms(statistics.median(walls)), "100.0 %", ""]]
    first, last = profile["rounds"][0], profile["rounds"][-1]
    which = f"round {first}" if first == last else f"rounds {first} to {last}"
    head = [f"{profile['who']}, {which}", "a round", "share", "what it is"]
    width = max(len(str(row[0])) for row in [head, *filter(len, rows)])
    lines = grid([*head[:3]], [row[:3] for row in rows]).splitlines()
    told = [
        f"{line:<{width + 24}}  {what}".rstrip()
        for line, what in zip(lines, [head[3], "", *(row[3] if row else "" for row in rows)], strict=True)
    ]
    return "\n".join([*told, "", *sentences(profile)])


def sentences(profile: Profile) -> list[str]:
    """What else there is to say, a line each."""
    said = []
    step, cost, streams, padding = (profile.get(key) for key in ("step", "cost", "streams", "padding"))
    if step:
        said.append(f"A step took {_ms(step['p50_s'])} in the middle, {_ms(step['p95_s'])} at the 95th percentile "
                    f"({step['n']:,} steps).")  # fmt: skip
    if cost:
        intensity = cost["intensity"]
        more = f", {intensity:.1f} operations a byte" if intensity else ""
        said.append(
            f"It does {_count(cost['flops_a_step'])} floating-point operations over {size(cost['bytes_a_step'])}{more}"
            f": {_count(cost['flops_s'])} a second and device, {100 * cost['mfu']:.1f} % of what a product of matrices "
            f"reaches here ({_count(cost['peak_flops_s'])})."
        )
    if padding is not None:
        said.append(f"{100 * padding:.1f} % of the places in batches held no row.")
    if streams and len(streams["busy_s"]) > 1:
        said.append(f"{len(streams['busy_s'])} devices; the busiest had {100 * streams['imbalance']:.1f} % more to do "
                    "than their mean.")  # fmt: skip
    said += _compiled(profile["compile"])
    memory = profile["memory"]
    device = memory.get("device_peak_bytes")
    said.append(f"Memory at its highest: {size(memory['host_peak_bytes'])} on the host"
                + (f", {size(device)} on the device." if device else "."))  # fmt: skip
    return said + _timeline(profile.get("sites") or {})


def _compiled(told: Mapping[str, Any]) -> list[str]:
    found = [f"The run compiled {told['count']} programs in {told['seconds']:.1f} s "
             f"({told['cache_hits']} read from the cache)."]  # fmt: skip
    if told["in_these_rounds"]:
        found.append(f"Compiled in these rounds: {', '.join(told['in_these_rounds'])}.")
    for cause in told["causes"]:
        found.append(f"Round {cause['round']} was compiled again: {cause['argument']} was {cause['was']}, "
                     f"is {cause['is']}.")  # fmt: skip
    return found


def _timeline(sites: Mapping[str, Any]) -> list[str]:
    """Each site's part in the middle round, who was waited for longest first, and who that was."""
    if not sites:
        return []

    def late(one: Mapping[str, Any]) -> tuple[float, float]:
        return one["last"], float("inf") if one["answered_s"] is None else one["answered_s"]

    rows = [
        [clip(name), _ms(one["answered_s"]), _ms(one["work_s"]), f"{one['last']} of {one['rounds']}", str(one["lost"])]
        for name, one in sorted(sites.items(), key=lambda item: late(item[1]), reverse=True)
    ]
    name, worst = max(sites.items(), key=lambda item: late(item[1]))
    said = ["", grid(["site", "answered after", "its own work", "was the last", "lost"], rows)]
    others = [one["answered_s"] for site, one in sites.items() if site != name and one["answered_s"] is not None]
    text = f"Waited for most often: {clip(name)}, the last in {worst['last']} of {worst['rounds']} rounds"
    if worst["answered_s"] is None:
        text += ", of which none counted"
    elif others:
        later = worst["answered_s"] - statistics.median(others)
        text += f", {_ms(abs(later))} {'after' if later >= 0 else 'before'} the others' middle"
    return [*said, "", text + "."]


def changes(profiles: Sequence[Profile]) -> list[tuple[str, list[str], list[str]]]:
    """Profiles side by side.

    Args:
      profiles: two or more; the first is what the others are held against.

    Returns:
      [(phase, one time a profile, what changed in each after the first)]. "Beyond noise" is: the rounds of one lie
      wholly apart from those of the other, five rounds each at least (by chance: 8 in 1,000), their middles differ by
      5 % or more, and by 1 % of a round.
    """
    names = dict.fromkeys(name for name in PHASES if any(name in one["phases_s"] for one in profiles))
    rows = [(name, [one["phases_s"].get(name, []) for one in profiles]) for name in names]
    rows.append(("a round", [one["wall_s"] for one in profiles]))
    least = _SMALL * min(statistics.median(one["wall_s"]) for one in profiles)
    return [
        (
            name,
            [_ms(statistics.median(took) if took else None) for took in each],
            [_verdict(each[0], other, least) for other in each[1:]],
        )
        for name, each in rows
    ]


def _verdict(before: Sequence[float], now: Sequence[float], least: float) -> str:
    if not before or not now:
        return "only in one"
    if min(len(before), len(now)) < _ROUNDS:
        return "too few rounds to tell"
    middle, other = statistics.median(before), statistics.median(now)
    apart = min(now) > max(before) or max(now) < min(before)
    if not apart or abs(other - middle) < max(least, _LEAST * min(middle, other)):
        return "within noise"
    factor = f" (x {other / middle:.2f})" if middle else ""
    return f"{_ms(abs(other - middle))} {'more' if other > middle else 'less'}{factor}"


def compared(profiles: Sequence[Profile]) -> str:
    """Profiles side by side, as plain text."""
    rows = [[name, *each, *verdicts] for name, each, verdicts in changes(profiles)]
    names = [f"run {at}" for at in range(1, len(profiles) + 1)]
    return "Where a round's time went\n" + grid(["", *names, *(f"{name} beside run 1" for name in names[1:])], rows)


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if abs(seconds) >= 10:
        return f"{seconds:.1f} s"
    return f"{1000 * seconds:.1f} ms" if abs(seconds) >= 1e-3 else f"{1e6 * seconds:.0f} us"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %"


def _count(number: float) -> str:
    for factor, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.1f} {name}"
    return f"{number:.0f}"
