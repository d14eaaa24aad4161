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

from learner_jax.reports import proteins, tripod, words
from learner_jax.reports.acted import acted_on
from learner_jax.reports.by_round import learning_curve, per_round
from learner_jax.reports.by_site import results_by_site
from learner_jax.reports.included import included, section
from learner_jax.reports.inputs import looked_like
from learner_jax.reports.numerals import count, duration, hundred, many, size
from learner_jax.reports.parted import parted
from learner_jax.reports.result import (
    cohorts,
    few_watching,
    figure,
    gain,
    has_intervals,
    joint,
    kept_at_sites,
    rounds_seconds,
    watching,
    within,
)
from learner_jax.reports.told import told_and_observed
from learner_jax.reports.words import Nouns
from learner_jax.reports.written import written

FEW_SITES = 10


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
    versions = result.get("versions") or {}
    version = versions.get("learner") or versions.get("learner-jax")
    of_cells = (
        proteins.told(result) is not None
    )  # who was chosen, and a checklist for models of patients, are not asked
    context = {
        "name": study.get("name") or "Study",
        "title": study.get("question") or f"What the {noun.sites} learned together",
        "lead": _lead(result, noun),
        "banners": banners(result),
        "short": _short(result, noun),
        "curve": learning_curve(result, noun),
        "results": [
            results_by_site(cohort, at, len(cohorts(result)), noun) for at, cohort in enumerate(cohorts(result))
        ],
        "proteins": proteins.section(result, noun),
        "told": told_and_observed(result, noun),
        "acted": acted_on(result, noun),
        "parted": parted(result, noun),
        "took": per_round(result, noun),
        "included": None if of_cells else included(result, noun),
        "inputs": looked_like(result, noun),
        "limits": _limits(result, noun),
        "tripod": None if of_cells else tripod.checklist(result),
        "facts": _facts(result),
        "config": json.dumps(study, indent=2, sort_keys=True, ensure_ascii=False),
        "made": _made(version),
    }
    return rendered("report.html", **context)


def cohort_page(chosen: Mapping[str, Any]) -> str:
    """A page of one hospital's cohort, for the hospital itself.

    Args:
      chosen: as `learner_jax.data.cohort_file.of_table` gives it.
    """
    part = section([chosen], words.Nouns(site="hospital", sites="hospitals"))
    return rendered("cohort.html", name=chosen["name"], included=part, made=_made(None))


def _made(version: str | None) -> str:
    return " ".join(["Made by LEARNER", *([str(version)] if version else [])]) + "."


def rendered(template: str, **context: Any) -> str:
    """A template of `page/`, filled in, with the style sheet inside it."""
    page, css = _template(template)
    return page.render(css=css, **context)


@cache
def _template(name: str) -> tuple[Any, Any]:
    import jinja2
    from markupsafe import Markup

    folder = resources.files("learner_jax.reports") / "page"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda part: (folder / part).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    css = Markup((folder / "style.css").read_text(encoding="utf-8").strip())
    return environment.get_template(name), css


# ---------------------------------------------------------------------------------------------- the top


def _lead(result: dict[str, Any], noun: Nouns) -> str:
    judged = cohorts(result)
    parts = []
    if judged:
        whole = judged[0].get("all") or {}
        number = many(len(judged[0].get("sites", [])), noun.site, noun.sites)
        rows = f"{count(whole.get('rows'))} held-back {noun.rows}"
        patients = whole.get("patients")
        of = f" of {count(patients)} patients" if patients and patients != whole.get("rows") else ""
        if kept_at_sites(result):
            parts.append(f"{number.capitalize()}. {words.kept(noun)}")
        else:
            parts.append(f"{number.capitalize()}; judged on {rows}{of} ({judged[0]['name']}).")
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


def banners(result: Mapping[str, Any]) -> list[str]:
    """Notes that must be read before any figure: that sites or data are made up."""
    telling = ("artificial", "synthetic", "made up", "invented", "mock")
    return [_begun(note) for note in result.get("notes") or [] if any(word in str(note).lower() for word in telling)]


def _begun(note: Any) -> str:
    """A note as a sentence; one that begins with a name ("h01: ...") stays as it is."""
    text = str(note)
    return text if text.split(" ", 1)[0].endswith(":") else text[:1].upper() + text[1:]


def _short(result: dict[str, Any], noun: Nouns) -> dict[str, Any]:
    judged = cohorts(result)
    whole = (judged[0].get("all") or {}) if judged else {}
    area = figure(whole, joint(whole), "auroc")
    around, terms = words.kept(noun) if kept_at_sites(result) else "", []
    if area and judged:
        low, high = hundred(area["low"]), hundred(area["high"])
        around = f"A coin would be right 50 times. The true figure very probably lies between {low} and {high}."
        around += _alone(judged[0], noun)
        told = f" at the {noun.sites} that told their counts" if whole.get("withheld") else ""
        terms = [
            f"On {count(whole.get('rows'))} {noun.rows} that the model never learned from, at their own "
            f"{noun.sites}; {count(whole.get('events'))} {noun.came}{told}.",
            f"The usual name of the figure is AUROC, here {area['value']:.3f} (95 % interval {area['low']:.3f} to "
            f"{area['high']:.3f}; {whole.get('how') or 'all rows together'}).",
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
    facts = [("Learning rounds", count(result.get("rounds")))]
    if result.get("best_round"):
        facts.append(("Best round", count(result["best_round"])))
    if (took := rounds_seconds(result)) is not None:
        facts.append(("The rounds took", duration(took)))
    if result.get("seconds") is not None:
        facts.append(("The whole run", duration(float(result["seconds"]))))
    if result.get("bytes_up"):
        facts += [
            ("Sent by the " + noun.sites, size(result["bytes_up"])),
            ("Sent to them", size(result.get("bytes_down") or 0)),
        ]
    beside = proteins.sentences(result, noun)
    return {
        "whom": f"Judged on: {judged[0]['name']}." if judged else "",
        "say": proteins.headline(result, noun) or words.headline(result),
        "around": around or " ".join(beside[1:]),
        "more": more,
        "terms": terms or beside[:1],
        "facts": facts,
    }


def _alone(cohort: dict[str, Any], noun: Nouns) -> str:
    """The joint model and those of each site alone by one measure: within the average site, never of all rows."""
    mean = within(cohort)
    both = [figure(mean, model, "auroc") for model in (joint(mean), "local_only")]
    if not both[0] or not both[1]:
        return ""
    ours, alone = (hundred(one["value"]) for one in both if one)
    over = words.averaged(cohort)
    some = f" ({over.judged} of {over.of} {noun.sites} could be judged)" if over.judged < over.of else ""
    return f" Within the average {noun.site}{some} it is right {ours} times, and a {noun.site} learning alone {alone}."


# ---------------------------------------------------------------------------------------------- the end


def _limits(result: dict[str, Any], noun: Nouns) -> list[str]:
    found = [_begun(note) for note in result.get("notes") or []]
    judged = cohorts(result)
    found += proteins.limits(result, noun)
    if has_intervals(result):
        found.append(
            "Uncertainty: in 95 of 100 such studies the interval would hold the true value. It comes from drawing "
            "whole patients again and again (bootstrap); it knows nothing of other years, other "
            f"{noun.sites}, or another start of the learning."
        )
    if judged:
        found.append(
            f"A {noun.site} with fewer than 10 {noun.rows} with the outcome, or fewer than 10 without, is not judged. "
            "Not judged does not mean equal."
        )
        average = f"An average {noun.site} compares patients only within each {noun.site}, weighted by certainty."
        if any("average" in cohort for cohort in judged):
            other = f"All {noun.rows} together also compares patients of different {noun.sites}"
            found.append(f"{average} {other}; the two differ by nature.")
        elif any(str((cohort.get("all") or {}).get("how", "")).startswith("average") for cohort in judged):
            found.append(f"{average} It is not the figure of all {noun.rows} in one place, which nobody here can know.")
        if not any("pooled" in (cohort.get("all") or {}).get("models", {}) for cohort in judged):
            found.append("What all data in one place would have given is not known: they never were in one place.")
        over = words.averaged(judged[0])
        if 0 < over.judged < FEW_SITES and over.of > 1:
            found.append(
                f"The average {noun.site} is of {over.judged} of {over.of} {noun.sites}, each weighted by 1 / (standard"
                f" error)²: with so few, that favours a {noun.site} that ranks well by luck."
            )
        if len(judged) > 1:
            found.append("The groups of patients overlap, so their results are not independent.")
    best = result.get("best_round")
    if (
        best
        and len(result.get("curve") or []) > 1
        and str((result.get("study") or {}).get("target", "")).startswith("valid/")
    ):
        known = watching(result)
        by = words.set_aside(known, noun) if known else f"{noun.rows} set aside for watching"
        if known and few_watching(result):
            found.append(
                f"Round {best} was chosen by {by}: too few to choose by. They are not those that it is judged on."
            )
        else:
            found.append(f"Round {best} was chosen as the best on {by}, which are not those it is judged on.")
    study = result.get("study") or {}
    beside = {name for cohort in judged for name in (within(cohort).get("models") or {})}
    if study.get("patience") and beside & {"local_only", "pooled"}:
        found.append(_stopped_alike(study["patience"], study.get("rounds") or result.get("rounds")))
    found.append(
        "A model update is not proof against all prying: that only updates leave is no privacy guarantee by itself."
    )
    return found


def _stopped_alike(patience: int, rounds: int | None) -> str:
    """How long the models that a study is compared with were trained, where the study may stop early."""
    without = f"{patience} learning round{'' if patience == 1 else 's'}"
    return (
        "The models it is compared with stopped by the same rule as the study itself, each by its own data set aside "
        f"for watching: after {without} without a better model, at the latest after {rounds}; one without such data "
        f"learned for all {rounds}."
    )


def _facts(result: dict[str, Any]) -> list[tuple[str, str, bool]]:
    study = result.get("study") or {}
    found = [
        (label, written(study[key]) if study.get(key) else "", False)
        for label, key in (
            ("Algorithm", "algorithm"),
            ("Aggregator", "aggregator"),
            ("Model", "model"),
            ("Task", "task"),
        )
    ]
    found.append(("Command", str(result.get("command") or ""), True))
    found.append(("Weights, sha256", str(result.get("weights_sha256") or ""), True))
    found += [(label, text, label == "XLA flags") for label, text in _machine(result)]
    found.append(("Versions", ", ".join(f"{k} {v}" for k, v in (result.get("versions") or {}).items()), False))
    return [(label, text, mono) for label, text, mono in found if text]


def _machine(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What computed it: of a federation, the coordinator's machine."""
    told = result.get("machine") or {}
    label = "Coordinator's machine" if result.get("kind") == "federation" else "Machine"
    parts = [str(told.get("cpu") or ""), str(result.get("device") or "")]
    if told.get("threads"):
        parts.append(f"threads of a device: {told['threads']}, cores: {told.get('cores')}")
    return [(label, "; ".join(part for part in parts if part)), ("XLA flags", str(told.get("xla_flags") or ""))]
