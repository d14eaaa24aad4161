"""The table and the three sentences at the end of a run, as plain text for any terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from learner_jax.reports import foretold, proteins, words
from learner_jax.reports.numerals import count
from learner_jax.reports.plain import by_size, clip, grid
from learner_jax.reports.result import cohorts, figure, gain, joint, within

LONG = 16  # so many sites are listed in full; of more, the largest 12
FIRST = 12


def text(result: Mapping[str, Any]) -> str:
    """The end of a run: a table for each cohort, three plain sentences, and how its forecast came out, if it had one.

    Args:
      result: laid out as `result.ResultFields`.

    Returns:
      Lines without colours or control characters, at most 100 columns wide.
    """
    result = dict(result)
    told = of_proteins(result)
    if told:
        costs = [str(say) for say in (words.cost(result), words.learning(result)) if say is not None]
        return "\n".join([told, *costs, *filter(None, [foretold.compared(result)])])
    parts = [_cohort(cohort, words.nouns(result)) for cohort in cohorts(result)]
    if not parts:
        parts = [_watched(result)]
    parts = [part for part in parts if part]
    ends = [*words.sentences(result), foretold.compared(result)]
    return "\n\n".join([*parts, "\n".join(line for line in ends if line)])


def of_proteins(result: Mapping[str, Any]) -> str:
    """What a result of proteins says; "" of any other."""
    return proteins.text(result, words.nouns(dict(result)))


def _cohort(cohort: dict[str, Any], noun: words.Nouns) -> str:
    sites = by_size(cohort.get("sites", []))
    models = list(
        dict.fromkeys(model for site in [*sites, cohort.get("all") or {}] for model in site.get("models", {}))
    )
    others = [model for model in ("local_only", "pooled") if model in models]
    names = {"local_only": "alone", "pooled": "pooled"}
    if not any(figure(site, model, "auroc") for site in [*sites, cohort.get("all")] for model in models):
        return ""
    header = [noun.site.capitalize(), noun.rows, "AUROC", "95 %", *(names[m] for m in others), "gain", "in words"]
    alone = words.compared(cohort)

    def row(site: dict[str, Any], name: str, mixed: bool = False) -> list[str]:
        rows = words.averaged(cohort).rows if words.is_average(site) else site.get("rows")
        area, difference = figure(site, joint(site), "auroc"), gain(site, "local_only")
        cells = {m: figure(site, m, "auroc") for m in others}
        if (
            mixed
        ):  # no model is "alone" on all rows together: each row would be ranked by its own site's, against others'
            cells["local_only"], difference = None, None
        return [
            name,
            count(rows),
            f"{area['value']:.3f}" if area else "-",
            f"{area['low']:.2f}-{area['high']:.2f}" if area else "-",
            *(f"{found['value']:.3f}" if (found := cells[m]) else "-" for m in others),
            f"{difference['value']:+.3f} ({difference['low']:+.2f} to {difference['high']:+.2f})"
            if difference
            else "-",
            words.verdict(site, alone and not mixed),
        ]

    shown = sites if len(sites) <= LONG else sites[:FIRST]
    rows: list[list[str]] = [row(site, clip(site["name"])) for site in shown]
    if len(shown) < len(sites):
        rows.append([f"and {len(sites) - len(shown)} more", *[""] * (len(header) - 1)])
    rows.append([])
    mean = within(cohort)
    if mean is not cohort.get("all"):
        rows += [row(mean, _short_name(mean, cohort, noun))] if words.averaged(cohort).judged else []
        rows.append(row(cohort["all"], f"all {noun.rows} together", mixed=True))
    elif cohort.get("all"):
        rows.append(row(cohort["all"], _short_name(cohort["all"], cohort, noun)))
    title = f"{cohort['name'].capitalize()}, held-back {noun.rows}"
    return f"{title}\n{grid(header, rows)}"


def _short_name(site: dict[str, Any], cohort: dict[str, Any], noun: words.Nouns) -> str:
    """A last row's name in few columns: "average, 2 of 5"."""
    over = words.averaged(cohort)
    if words.is_average(site) and over.judged < over.of:
        return f"average, {over.judged} of {over.of}"
    return words.whole_name(site, cohort, noun)


def _watched(result: dict[str, Any]) -> str:
    """Without an evaluation: the first, the best and the last round."""
    curve = result.get("curve") or []
    names = [n for n in dict.fromkeys(name for row in curve for name in row) if "/" in n and not n.endswith("/se")]
    if not curve or not names:
        return ""
    best = next((row for row in curve if row.get("round") == result.get("best_round")), None)
    chosen = {"first round": curve[0], "best round": best, "last round": curve[-1]}
    rows = [
        [name, str(row["round"]), *(f"{row[n]:.4g}" if row.get(n) is not None else "-" for n in names)]
        for name, row in chosen.items()
        if row
    ]
    return grid(["", "round", *names], rows)
