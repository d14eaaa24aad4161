"""Two runs, or more, side by side: what they were asked to do differently, and what came of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from learner_jax.reports import html, words
from learner_jax.reports.numerals import duration, size
from learner_jax.reports.plain import clip, grid
from learner_jax.reports.result import cohorts, figure, joint, rounds_seconds, within

FIGURES = (("auroc", "AUROC"), ("auprc", "AUPRC"), ("brier", "Brier"))


def settings(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """The settings in which studies differ.

    Args:
      results: of runs.

    Returns:
      [(path such as "algorithm.local_lr", one value a run, "-" where a run has no such setting)], in order.
    """
    flat = [_flat(result.get("study") or {}) for result in results]
    paths = dict.fromkeys(path for one in flat for path in one)
    rows = [(path, [one.get(path, "-") for one in flat]) for path in paths]
    return [(path, values) for path, values in rows if len(set(values)) > 1]


def outcomes(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """What came of each run.

    Args:
      results: of runs.

    Returns:
      [(what, one text a run)].
    """
    runs = [dict(result) for result in results]
    rows: list[tuple[str, list[str]]] = [
        ("kind", [str(r.get("kind", "-")) for r in runs]),
        ("rounds", [str(r.get("rounds", "-")) for r in runs]),
        ("best round", [str(r.get("best_round") or "-") for r in runs]),
        ("rounds took", ["-" if (took := rounds_seconds(r)) is None else duration(took) for r in runs]),
        ("whole run", ["-" if r.get("seconds") is None else duration(float(r["seconds"])) for r in runs]),
        ("bytes up", [size(r.get("bytes_up") or 0) for r in runs]),
        ("bytes down", [size(r.get("bytes_down") or 0) for r in runs]),
        ("weights", [str(r.get("weights_sha256") or "-")[:12] for r in runs]),
    ]
    for name in dict.fromkeys(cohort["name"] for r in runs for cohort in cohorts(r)):
        found = [next((c for c in cohorts(r) if c["name"] == name), {}) for r in runs]
        for key, label in FIGURES:
            cells = [_cell(figure(c.get("all"), joint(c.get("all")), key)) for c in found]
            rows.append((f"{name}: {label}", cells))
        rows.append((f"{name}: alone, average AUROC", [_cell(figure(within(c), "local_only", "auroc")) for c in found]))
    watched = [words.watched_metric(r) for r in runs]
    for name in dict.fromkeys(name for name, values in watched if values):
        cells = [f"{words.best_value(r):.4f}" if n == name else "-" for r, (n, _) in zip(runs, watched, strict=True)]
        rows.append((f"watched: {name}", cells))
    return [(what, cells) for what, cells in rows if set(cells) != {"-"}]


def text(results: Sequence[Mapping[str, Any]]) -> str:
    """Runs side by side, as plain text.

    Args:
      results: two or more, laid out as `result.ResultFields`.
    """
    header = ["", *(_name(result, at) for at, result in enumerate(results, 1))]
    parts = []
    different = settings(results)
    if different:
        parts.append("Asked differently\n" + grid(header, [[clip(p, 44), *map(_short, v)] for p, v in different]))
    else:
        parts.append("The studies ask for the same.")
    parts.append("What came of it\n" + grid(header, [[what, *cells] for what, cells in outcomes(results)]))
    parts.extend(_remarks(results))
    return "\n\n".join(parts)


def page(results: Sequence[Mapping[str, Any]], folders: Sequence[str]) -> str:
    """Runs side by side, as one HTML page that needs nothing else.

    Args:
      results: two or more, laid out as `result.ResultFields`.
      folders: of the runs, for people to know them by.

    Returns:
      HTML, UTF-8.
    """
    head = [f"Run {at}" for at in range(1, len(results) + 1)]
    found = outcomes(results)
    groups: dict[str, list[tuple[str, list[tuple[str, str]]]]] = {}
    for what, cells in found:
        group, colon, name = what.partition(": ")
        part, name = (group, name) if colon else ("The run itself", group)
        groups.setdefault(part, []).append(
            (name if "/" in name else name[:1].upper() + name[1:], [*map(_halves, cells)])
        )
    names = dict.fromkeys(str((result.get("study") or {}).get("name") or "run") for result in results)
    return html.rendered(
        "compare.html",
        title=f"{len(results)} runs side by side",
        names=", ".join(names),
        banners=list(dict.fromkeys(note for result in results for note in html.banners(result))),
        runs=list(zip(head, map(_about, results, folders), strict=True)),
        asked={
            "caption": "Asked differently",
            "first": "Setting",
            "head": head,
            "rows": [(path, [(clip(value, 60), "") for value in values]) for path, values in settings(results)],
        },
        came=[
            {"caption": part[:1].upper() + part[1:], "first": "", "head": head, "rows": rows}
            for part, rows in groups.items()
        ],
        remarks=[" ".join(remark.split()) for remark in _remarks(results)],
    )


def _about(result: Mapping[str, Any], folder: str) -> str:
    """'runs/demo: readmission by fedprox, a simulation'."""
    study = result.get("study") or {}
    method = (study.get("algorithm") or {}).get("name")
    by = f" by {method}" if method else ""
    return f"{folder}: {study.get('name') or 'run'}{by}, a {result.get('kind')}"


def _halves(cell: str) -> tuple[str, str]:
    """'0.61 (0.60 to 0.62)' as a figure and its interval."""
    found = re.fullmatch(r"(\S+) \((.+)\)", cell)
    return (found[1], found[2]) if found else (cell, "")


def _remarks(results: Sequence[Mapping[str, Any]]) -> list[str]:
    found = []
    weights = {result.get("weights_sha256") for result in results}
    if len(weights) == 1 and None not in weights:
        found.append("The weights at the end are equal to the bit.")
    if any(cohorts(dict(result)) for result in results):
        found.append(
            "Each interval is of one run by itself. Whether two runs differ is a paired question: intervals that "
            "overlap do not\nshow that the runs are equally good."
        )
    if any(
        (cohort.get("all") or {}).get("how", "").startswith("average") for r in results for cohort in cohorts(dict(r))
    ):
        kinds = {(c.get("all") or {}).get("how") for r in results for c in cohorts(dict(r))}
        if len(kinds) > 1:
            found.append(
                "Note: one AUROC is of all rows together, another an average over sites; they differ by nature."
            )
    return found


def _name(result: Mapping[str, Any], at: int) -> str:
    return clip(f"{at}: {(result.get('study') or {}).get('name') or 'run'}", 24)


def _cell(found: Mapping[str, float] | None) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})" if found else "-"


def _short(value: str) -> str:
    return clip(value, 30)


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """Settings by the path at which `--config.` reaches them: a named thing's own fields stand right under it."""
    if isinstance(value, Mapping) and {"kind", "name", "fields"} <= set(value):
        return {path: str(value["name"]), **(_flat(value["fields"], path) if value["fields"] else {})}
    if isinstance(value, Mapping) and value:
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{path}.{key}" if path else key).items()}
    return {path: value if isinstance(value, str) else json.dumps(value)}
