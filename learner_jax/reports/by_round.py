"""The page's sections by learning round: how it learned, and what each round took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from learner_jax.reports import foretold, words
from learner_jax.reports.charts import LOW, Scale, Words, axes, lifts, line, rounds, scale, thin
from learner_jax.reports.numerals import hundred, size
from learner_jax.reports.result import cohorts, figure, within
from learner_jax.reports.words import Nouns


def learning_curve(result: dict[str, Any], noun: Nouns) -> dict[str, Any] | None:
    name, values = words.watched_metric(result)
    if not values:
        return None
    factor = 100.0 if words.percent(name) else 1.0
    xs, ys = [r for r, _ in values], [factor * v for _, v in values]
    errors = {row["round"]: row.get(f"{name}/se") for row in result["curve"]}
    half = [1.96 * factor * (errors.get(r) or 0.0) for r in xs]
    area = name.endswith("auroc")
    refs = _references(result, noun) if area else []
    everything = [*ys, *(y - h for y, h in zip(ys, half)), *(y + h for y, h in zip(ys, half)), *(v for v, _ in refs)]
    up = scale(
        everything, floor=0.0 if factor == 100.0 or min(ys) >= 0 else None, ceiling=100.0 if factor == 100.0 else None
    )
    along = rounds(xs)
    band = ""
    if any(half):
        upper, lower = [y + h for y, h in zip(ys, half)], [y - h for y, h in zip(ys, half)]
        band = f"{line(xs, upper, along, up)} {line(xs[::-1], lower[::-1], along, up)}"
    digits = 1 if factor == 100.0 else 3
    best = dict(zip(xs, ys)).get(result.get("best_round") or 0)
    points = [_at_dot(xs[-1], ys[-1], along, up, f"{ys[-1]:.{digits}f}")]
    if best is not None and result["best_round"] != xs[-1]:
        points.append(_at_dot(result["best_round"], best, along, up, f"best {best:.{digits}f}"))
    at_lines = [Words(100.0, round(100 - up.at(v), 2), "end", text, 0.55) for v, text in refs]
    lifted = lifts([*points, *at_lines], [(p.x, p.y) for p in points], [w.y for w in at_lines])
    what = {"auroc": "Of 100 pairs, how many it ranks correctly.", "accuracy": "Of 100 answers, how many are right."}
    kind = name.split("/")[-1]
    held = f"{noun.rows} set aside for watching" if name.startswith("valid/") else f"the {noun.rows} it learns from"
    dashes = f" Dashes: a coin toss{_alone(result, noun) if len(refs) > 1 else ''}." if refs else ""
    shade = " Shade: 95 % uncertainty." if band and len(xs) > 1 else ""
    label = ", ".join(f"{ys[at]:.{digits}f} at round {xs[at]}" for at in thin(len(xs), 4))
    against = "".join(f" {text}." for _, text in refs) + (" The caption says of which rows." if len(refs) > 1 else "")
    return {
        "what": what.get(
            kind, f"{words.short(name).capitalize()}: {'more' if words.rising(name) else 'less'} is better."
        ),
        "say": words.learning(result),
        "key": f"Line: the joint model, on {held} ({words.short(name)}).{shade}{dashes}",
        "plot": {
            **axes(along, up, "learning round"),
            "label": f"{words.short(name)} by learning round: {label}.{against} The table below has the numbers.",
            "refs": [
                {"at": words_.y, "text": words_.text, "dy": dy}
                for words_, dy in zip(at_lines, lifted[len(points) :], strict=True)
            ],
            "line": line(xs, ys, along, up),
            "band": band,
            "second": "",
            "dots": _drawn(points, lifted[: len(points)]),
        },
        "table": _curve_table(result, name),
    }


def _references(result: dict[str, Any], noun: Nouns) -> list[tuple[float, str]]:
    """Lines to hold the curve against: a coin, and the average site alone on the widest cohort."""
    lines = [(50.0, "coin toss 50")]
    if alone := figure(within(_widest(result)), "local_only", "auroc"):
        lines.append((100 * alone["value"], f"a {noun.site} alone, held back: {hundred(alone['value'])}"))
    return lines


def _widest(result: dict[str, Any]) -> dict[str, Any]:
    """The cohort of most rows: nearest to those that the curve is watched on; {} if nothing was judged."""
    return max(cohorts(result), key=lambda cohort: (cohort.get("all") or {}).get("rows") or 0, default={})


def _alone(result: dict[str, Any], noun: Nouns) -> str:
    """What the line of a site alone is, and that it is of other rows than the curve."""
    return (
        f" and, on held-back {noun.rows} ({_widest(result)['name']}), what a {noun.site} alone had in the end, on "
        f"average. So curve and dashes are of different {noun.rows}; below, both models are judged on the same ones"
    )


def _at_dot(x: float, y: float, along: Scale, up: Scale, text: str) -> Words:
    left = along.at(x)
    anchor = "end" if left > 85 else "start" if left < 15 else "middle"
    return Words(left, round(100 - up.at(y), 2), anchor, text, 0.9)


def _drawn(points: Sequence[Words], lifted: Sequence[float]) -> list[dict[str, Any]]:
    """Dots with their words, as the page draws them."""
    return [
        {"x": p.x, "y": p.y, "dy": dy, "anchor": p.anchor, "text": p.text} for p, dy in zip(points, lifted, strict=True)
    ]


def _curve_table(result: dict[str, Any], name: str) -> dict[str, Any]:
    curve = [row for row in result["curve"] if row.get(name) is not None]
    names = [
        name,
        *(
            n
            for n in dict.fromkeys(n for row in curve for n in row)
            if "/" in n and n != name and not n.endswith("/se")
        ),
    ][:6]
    best = [at for at, row in enumerate(curve) if row["round"] == result.get("best_round")]
    return {
        "caption": "Figures by learning round",
        "head": ["Learning round", *(n.replace("_", " ") for n in names)],
        "rows": [
            {
                "cells": [
                    curve[at]["round"],
                    *(f"{v:.4f}" if isinstance(v := curve[at].get(n), (int, float)) else "–" for n in names),
                ],
                "all": False,
            }
            for at in thin(len(curve), 20, best)
        ],
    }


def per_round(result: dict[str, Any], noun: Nouns) -> dict[str, Any]:
    """Seconds and bytes of each round: a sentence, two small charts, a table."""
    curve = result.get("curve") or []
    found: dict[str, Any] = {"say": words.cost(result), "lost": words.lost(result), "told": foretold.compared(result)}
    found |= {"seconds": None, "bytes": None, "table": None}
    timed = [row for row in curve if row.get("seconds") is not None]
    if not timed:
        return found
    xs = [row["round"] for row in timed]
    seconds = [float(row["seconds"]) for row in timed]
    unit, factor = ("milliseconds", 1e3) if max(seconds) < 1 else ("seconds", 1.0)
    found["seconds"] = _small(xs, [factor * s for s in seconds], None, f"{unit.capitalize()} a round", unit)
    sent = [float(row.get("bytes_up") or 0) for row in timed]
    back = [float(row.get("bytes_down") or 0) for row in timed]
    if max(sent + back) > 0:
        unit, factor = ("MB", 1e-6) if max(sent + back) >= 1e6 else ("kB", 1e-3)
        name = f"{unit} a round. Line: from the {noun.sites}. Dashes: to them"
        found["bytes"] = _small(xs, [factor * b for b in sent], [factor * b for b in back], name, unit)
    found["table"] = {
        "caption": "Seconds and bytes by learning round",
        "head": [
            "Learning round",
            "Seconds",
            f"From the {noun.sites}",
            "To them",
            noun.sites.capitalize(),
            "Waited for in vain",
        ],
        "rows": [
            {
                "cells": [
                    row["round"],
                    f"{float(row['seconds']):.3g}",
                    size(row.get("bytes_up") or 0),
                    size(row.get("bytes_down") or 0),
                    len(row["sites"]) if row.get("sites") is not None else "–",
                    ", ".join(map(str, row.get("lost") or [])) or "–",
                ],
                "all": False,
            }
            for row in timed
        ],
    }
    return found


def _small(xs: list[int], ys: list[float], second: list[float] | None, name: str, unit: str) -> dict[str, Any]:
    up = scale([0.0, *ys, *(second or [])], 3, floor=0.0)
    along = rounds(xs)
    middle = sorted(ys)[len(ys) // 2]
    points = [] if len(xs) > 1 else [_at_dot(xs[0], ys[0], along, up, f"{ys[0]:.3g}")]
    return {
        "name": name + ".",
        "label": f"{name}: first {ys[0]:.3g}, middle {middle:.3g}, last {ys[-1]:.3g} {unit}. "
        "The table below has the numbers.",
        "x_ticks": [{"at": along.at(t), "text": along.label(t)} for t in along.ticks],
        "y_ticks": [{"at": round(100 - up.at(t), 2), "text": up.label(t)} for t in up.ticks],
        "x_name": "learning round",
        "refs": [],
        "band": "",
        "line": line(xs, ys, along, up),
        "second": line(xs, second, along, up) if second else "",
        "dots": _drawn(points, lifts(points, [(p.x, p.y) for p in points], height=LOW)),
    }
