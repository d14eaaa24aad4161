"""The report of a run as one web page: no script, no other file, light and dark, on a phone and on paper.

`page` computes what is said and where each mark lies; `page/report.html` lays it out and `page/style.css` draws it,
inlined. The page forbids itself everything but its own style sheet (`default-src 'none'`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any

from learner_jax.reports import words
from learner_jax.reports.charts import Scale, line, rounds, scale, thin
from learner_jax.reports.result import cohorts, figure, gain, joint, within
from learner_jax.reports.sections import per_round, results_by_site
from learner_jax.reports.words import Nouns, hundred


def page(result: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
      result: laid out as `result.ResultFields`; parts may be missing, and are then not shown.

    Returns:
      HTML, UTF-8.
    """
    result = dict(result)
    noun = words.nouns(result)
    study = result.get("study") or {}
    context = {
        "name": study.get("name") or "Study",
        "title": study.get("question") or f"What the {noun.sites} learned together",
        "lead": _lead(result, noun),
        "banners": _banners(result),
        "short": _short(result, noun),
        "curve": _curve(result, noun),
        "results": [
            results_by_site(cohort, at, len(cohorts(result)), noun) for at, cohort in enumerate(cohorts(result))
        ],
        "told": _told(result, noun),
        "took": per_round(result, noun),
        "limits": _limits(result, noun),
        "facts": _facts(result),
        "config": json.dumps(study, indent=2, sort_keys=True, ensure_ascii=False),
        "made": f"Made by LEARNER {(result.get('versions') or {}).get('learner', '')}".rstrip() + ".",
    }
    template, css = _template()
    return template.render(css=css, **context)


@cache
def _template() -> tuple[Any, Any]:
    import jinja2
    from markupsafe import Markup

    folder = resources.files("learner_jax.reports") / "page"
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    css = Markup((folder / "style.css").read_text(encoding="utf-8").strip())
    return environment.from_string((folder / "report.html").read_text(encoding="utf-8")), css


# ---------------------------------------------------------------------------------------------- the top


def _lead(result: dict[str, Any], noun: Nouns) -> str:
    judged = cohorts(result)
    parts = []
    if judged:
        whole = judged[0].get("all") or {}
        count = words.many(len(judged[0].get("sites", [])), noun.site, noun.sites)
        rows = f"{words.count(whole.get('rows'))} held-back {noun.rows}"
        patients = whole.get("patients")
        of = f" of {words.count(patients)} patients" if patients and patients != whole.get("rows") else ""
        parts.append(f"{count.capitalize()}; judged on {rows}{of} ({judged[0]['name']}).")
    kind = {
        "simulation": f"Simulated: all {noun.sites} in one process.",
        "federation": "Run as a federation of processes.",
    }
    parts.append(kind.get(str(result.get("kind")), ""))
    parts.append(f"Started {_when(result['started'])}." if result.get("started") else "")
    return " ".join(part for part in parts if part)


def _when(text: str) -> str:
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return str(text)
    zone = f" {at.tzname()}" if at.tzinfo else ""
    return f"{at.day} {at:%B %Y, %H:%M}{zone}"


def _banners(result: dict[str, Any]) -> list[str]:
    """Notes that must be read before any figure: that sites or data are made up."""
    telling = ("artificial", "synthetic", "made up", "invented", "mock")
    return [str(note) for note in result.get("notes") or [] if any(word in str(note).lower() for word in telling)]


def _short(result: dict[str, Any], noun: Nouns) -> dict[str, Any]:
    judged = cohorts(result)
    whole = (judged[0].get("all") or {}) if judged else {}
    area = figure(whole, joint(whole), "auroc")
    around, terms = "", []
    if area and judged:
        alone = figure(within(judged[0]), "local_only", "auroc")
        others = f", a {noun.site} learning alone {hundred(alone['value'])} times on average" if alone else ""
        around = f"A coin would be right 50 times{others}. The true figure very probably lies between {hundred(area['low'])} and {hundred(area['high'])}."
        terms = [
            f"On {words.count(whole.get('rows'))} {noun.rows} that the model never learned from, at their own {noun.sites}; "
            f"{words.count(whole.get('events'))} {noun.came}. The usual name of the figure is AUROC, here {area['value']:.3f} "
            f"(95 % interval {area['low']:.3f} to {area['high']:.3f}; {whole.get('how') or 'all rows together'})."
        ]
        for other, label in (("local_only", "learning alone"), ("pooled", "all data in one place")):
            where = within(judged[0]) if other == "local_only" else whole
            apart = gain(where, other)
            if apart:
                kind = ", average over sites" if other == "local_only" else ""
                terms.append(
                    f"AUROC of the joint model less that of {label}: {apart['value']:+.4f} "
                    f"(95 % interval {apart['low']:+.4f} to {apart['high']:+.4f}, paired{kind})."
                )
    more = [part for part in (words.gained(result), words.against_pooled(result)) if part is not None]
    facts = [("Learning rounds", words.count(result.get("rounds")))]
    if result.get("best_round"):
        facts.append(("Best round", words.count(result["best_round"])))
    if result.get("seconds") is not None:
        facts.append(("Time", words.duration(float(result["seconds"]))))
    if result.get("bytes_up"):
        facts += [
            ("Sent by the " + noun.sites, words.size(result["bytes_up"])),
            ("Sent to them", words.size(result.get("bytes_down") or 0)),
        ]
    return {
        "whom": f"Judged on: {judged[0]['name']}." if judged else "",
        "say": words.headline(result),
        "around": around,
        "more": more,
        "terms": terms,
        "facts": facts,
    }


# ---------------------------------------------------------------------------------------------- the curve


def _curve(result: dict[str, Any], noun: Nouns) -> dict[str, Any] | None:
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
    dots = [_dot(xs[-1], ys[-1], along, up, f"{ys[-1]:.{digits}f}")]
    if best is not None and result["best_round"] != xs[-1]:
        dots.append(_dot(result["best_round"], best, along, up, f"best {best:.{digits}f}"))
    what = {"auroc": "Of 100 pairs, how many it ranks correctly.", "accuracy": "Of 100 answers, how many are right."}
    kind = name.split("/")[-1]
    held = f"{noun.rows} set aside for watching" if name.startswith("valid/") else f"the {noun.rows} it learns from"
    shade = " Shade: 95 % uncertainty." if band else ""
    label = ", ".join(f"{ys[at]:.{digits}f} at round {xs[at]}" for at in thin(len(xs), 4))
    against = "".join(f" {text}." for _, text in refs)
    return {
        "what": what.get(
            kind, f"{words.short(name).capitalize()}: {'more' if words.rising(name) else 'less'} is better."
        ),
        "say": words.learning(result),
        "key": f"Line: the joint model, on {held} ({words.short(name)}).{shade}",
        "plot": {
            **_axes(along, up, "learning round"),
            "label": f"{words.short(name)} by learning round: {label}.{against} The table below has the numbers.",
            "refs": [
                {"at": round(100 - up.at(v), 2), "text": text, "dy": dy}
                for (v, text), dy in zip(refs, _lifts(refs, up))
            ],
            "line": line(xs, ys, along, up),
            "band": band,
            "second": "",
            "dots": dots,
        },
        "table": _curve_table(result, name),
    }


def _references(result: dict[str, Any], noun: Nouns) -> list[tuple[float, str]]:
    """Lines to hold the curve against: a coin, and the average site alone on the widest cohort."""
    lines = [(50.0, "coin toss 50")]
    if judged := cohorts(result):
        widest = max(judged, key=lambda cohort: (cohort.get("all") or {}).get("rows") or 0)
        if alone := figure(within(widest), "local_only", "auroc"):
            lines.append(
                (100 * alone["value"], f"a {noun.site} alone, in the end, on average {hundred(alone['value'])}")
            )
    return lines


def _lifts(refs: list[tuple[float, str]], up: Scale) -> list[int]:
    """The text of the lower line goes under it where the two lie close."""
    close = len(refs) > 1 and abs(up.at(refs[0][0]) - up.at(refs[1][0])) < 9
    return [16 if close and at == 0 else -7 for at in range(len(refs))]


def _axes(along: Scale, up: Scale, x_name: str) -> dict[str, Any]:
    return {
        "x_ticks": [{"at": along.at(t), "text": along.label(t)} for t in along.ticks],
        "y_ticks": [{"at": round(100 - up.at(t), 2), "text": up.label(t)} for t in up.ticks],
        "x_name": x_name,
    }


def _dot(x: float, y: float, along: Scale, up: Scale, text: str) -> dict[str, Any]:
    left = along.at(x)
    high = up.at(y) > 90
    anchor = "end" if left > 85 else "start" if left < 15 else "middle"
    return {
        "x": left,
        "y": round(100 - up.at(y), 2),
        "dx": 0,
        "dy": 22 if high else -12,
        "anchor": anchor,
        "text": text,
    }


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
        "reflow": False,
    }


# ---------------------------------------------------------------------------------------------- calibration


def _told(result: dict[str, Any], noun: Nouns) -> dict[str, Any] | None:
    judged = cohorts(result)
    if not judged or not (judged[0].get("all") or {}).get("models"):
        return None
    cohort = judged[0]
    table = cohort.get("calibration") or []
    say, note = words.calibrated(cohort, noun)
    terms = ""
    if cohort.get("slope") is not None:
        intercept = (
            f" Intercept {cohort['intercept']:+.2f}: below 0, too much is told."
            if cohort.get("intercept") is not None
            else ""
        )
        terms = f"The usual name for this is calibration. Slope {cohort['slope']:.2f}: 1 is right, below 1 the percentages are too extreme.{intercept}"
    found: dict[str, Any] = {"say": say, "note": note, "terms": terms, "came": noun.came, "rows_word": noun.rows}
    found |= {"whom": f"Judged on: {cohort['name']}." if len(judged) > 1 else "", "table": None, "plot": None}
    if not table:
        return found
    found["table"] = {
        "caption": "Told and observed",
        "head": ["Told", f"{noun.came.capitalize()} of 100", "Uncertainty", noun.rows.capitalize()],
        "rows": [
            {
                "cells": [
                    f"about {hundred(row['told'])} %",
                    hundred(row["observed"]),
                    f"{hundred(row['low'])} – {hundred(row['high'])}" if "low" in row else "–",
                    words.count(row["rows"]),
                ],
                "all": False,
            }
            for row in table
        ],
        "reflow": False,
    }
    both = scale(
        [0.0, *(100 * max(row["told"], row["observed"], row.get("high", 0)) for row in table)],
        5,
        floor=0.0,
        ceiling=100.0,
    )
    points = [
        {
            "x": both.at(100 * row["told"]),
            "y": round(100 - both.at(100 * row["observed"]), 2),
            "low": round(100 - both.at(100 * row["low"]), 2) if "low" in row else None,
            "high": round(100 - both.at(100 * row["high"]), 2) if "high" in row else None,
        }
        for row in table
    ]
    label = ", ".join(f"told {hundred(row['told'])} %, {hundred(row['observed'])} {noun.came}" for row in table)
    found["plot"] = {
        **_axes(both, both, "told, %"),
        "points": points,
        "label": f"Of 100: {label}. The table has the numbers.",
    }
    return found


# ---------------------------------------------------------------------------------------------- the end


def _limits(result: dict[str, Any], noun: Nouns) -> list[str]:
    found = [str(note) for note in result.get("notes") or []]
    judged = cohorts(result)
    if judged:
        found.append(
            "Uncertainty: in 95 of 100 such studies the interval would hold the true value. It comes from drawing whole "
            "patients again and again (bootstrap); it knows nothing of other years, other "
            f"{noun.sites}, or another start of the learning."
        )
        found.append(
            f"A {noun.site} with fewer than 10 {noun.rows} with the outcome, or fewer than 10 without, is not judged. "
            "Not judged does not mean equal."
        )
        if any(
            "average" in cohort or str(cohort.get("all", {}).get("how", "")).startswith("average") for cohort in judged
        ):
            found.append(
                f"An average {noun.site} compares patients only within each {noun.site}, weighted by certainty. "
                f"All {noun.rows} together also compares patients of different {noun.sites}; the two differ by nature."
            )
        if not any("pooled" in (cohort.get("all") or {}).get("models", {}) for cohort in judged):
            found.append("What all data in one place would have given is not known: they never were in one place.")
        if len(judged) > 1:
            found.append("The groups of patients overlap, so their results are not independent.")
    best = result.get("best_round")
    if best and str((result.get("study") or {}).get("target", "")).startswith("valid/"):
        found.append(
            f"Round {best} was chosen as the best on {noun.rows} set aside for watching, which are not those it is judged on."
        )
    found.append(
        "A model update is not proof against all prying: that only updates leave is no privacy guarantee by itself."
    )
    return found


def _facts(result: dict[str, Any]) -> list[tuple[str, str, bool]]:
    study = result.get("study") or {}

    def spec(key: str) -> str:
        part = study.get(key)
        if not isinstance(part, dict):
            return str(part) if part else ""
        fields = ", ".join(f"{name} {value}" for name, value in (part.get("fields") or {}).items())
        return f"{part.get('name', '')}{f' ({fields})' if fields else ''}"

    found = [
        (label, spec(key), False)
        for label, key in (
            ("Algorithm", "algorithm"),
            ("Aggregator", "aggregator"),
            ("Model", "model"),
            ("Task", "task"),
        )
    ]
    found.append(("Command", str(result.get("command") or ""), True))
    found.append(("Weights, sha256", str(result.get("weights_sha256") or ""), True))
    found.append(("Machine", str(result.get("device") or ""), False))
    found.append(("Versions", ", ".join(f"{k} {v}" for k, v in (result.get("versions") or {}).items()), False))
    return [(label, text, mono) for label, text, mono in found if text]
