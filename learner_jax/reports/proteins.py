"""The page's "Proteins, measured and predicted": how well surface proteins are told from RNA, by site and by protein.

For a result whose evaluation has "proteins", as `learner_jax.evaluation.proteins` gives them. The headline is of the
average over the sites, which compares cells within each site only; figures of all cells in one place are in the table
where they are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from learner_jax.reports.charts import scale
from learner_jax.reports.numerals import MINUS, count, many
from learner_jax.reports.plain import by_size, clip, grid
from learner_jax.reports.words import Nouns, Say, judge

AIM, LEAST, MOST = 0.80, 0.75, 0.85
"""Share of values that the predicted intervals promise to hold, and what is near enough to it."""
LONG = 16
"""So many sites have a row of their own; of more, the largest."""
NAMES = {"federated": "Together", "local_only": "Alone", "pooled": "In one place"}


def told(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """The evaluation of proteins in a result, or None."""
    found = (result.get("evaluation") or {}).get("proteins")
    return found if isinstance(found, dict) and found.get("models") else None


def headline(result: Mapping[str, Any], noun: Nouns) -> Say | None:
    """The first sentence of the page: the study's own model, over the sites; None where nothing was judged."""
    proteins = told(result)
    if proteins is None:
        return None
    mean = proteins["average"]
    r = _figure(mean, proteins["models"][0])
    if not r:
        return Say("Too few cells to say how well the proteins are predicted.")
    judged = sum(bool(_figure(site, proteins["models"][0])) for site in proteins["sites"])
    return Say(
        f"Of {len(mean['measured'])} proteins, at {many(judged, noun.site, noun.sites)}, predicted and measured values "
        "correlate at ",
        f"{r['value']:.3f}",
        " on average; 1 would be perfect, 0 is chance.",
    )


def sentences(result: Mapping[str, Any], noun: Nouns) -> list[str]:
    """What is to be said beside the headline: against each site alone and all data in one place, and of coverage."""
    proteins = told(result)
    if proteins is None:
        return []
    mean, ours = proteins["average"], proteins["models"][0]
    r = _figure(mean, ours)
    found = []
    if r:
        found.append(
            f"Pearson's r, over the cells of each {noun.site}, mean over the proteins and then over the {noun.sites} "
            f"(95 % interval {r['low']:.3f} to {r['high']:.3f}), on {count(mean['cells'])} cells that it never learned "
            "from."
        )
    for other, said in (("local_only", f"a {noun.site} learning alone"), ("pooled", "all data in one place")):
        one, apart = _figure(mean, other), mean["gain"].get(f"{ours}-{other}")
        if one and apart:
            found.append(
                f"{said[:1].upper()}{said[1:]}: {one['value']:.3f}. The joint model less that: "
                f"{_signed(apart['value'])} (95 % interval {_signed(apart['low'])} to {_signed(apart['high'])}, paired)"
                f": {_word(apart)}."
            )
    whole = (proteins.get("all") or mean)["models"].get(ours) or {}
    if share := whole.get("coverage"):
        parts = {p: one["coverage"]["value"] for p, one in whole["proteins"].items() if one["coverage"]}
        off = sorted((v, p) for p, v in parts.items() if not LEAST <= v <= MOST)
        ends = f"every protein between {_percent(min(parts.values()))} and {_percent(max(parts.values()))} %"
        named = ", ".join(f"{p} {_percent(v)} %" for v, p in off[:6]) + (" and others" if len(off) > 6 else "")
        found.append(
            f"Its 80 % intervals hold {_percent(share['value'])} % of the measured values; "
            + (f"not so for {named}." if off else f"{ends}.")
        )
    return found


def limits(result: Mapping[str, Any], noun: Nouns) -> list[str]:
    """What the figures do not say; [] where nothing was judged."""
    proteins = told(result)
    if proteins is None:
        return []
    found = [
        f"Uncertainty comes from drawing held-back cells again and again; it knows nothing of other donors, other "
        f"{noun.sites}, or another start of the learning. A {noun.site} with fewer than 10 of them is not judged.",
        f"An interval is learned from the {noun.sites} that took part: at another one, which stains or sequences in "
        "its own way, it is likely to be too narrow. Some cells measured there set it right: `model.calibrate(adata)`.",
        "What RNA does not tell, no model of it tells: a low correlation may be the protein's, not the model's.",
    ]
    if "pooled" not in proteins["models"]:
        found.append("What all data in one place would have given is not known: they never were in one place.")
    return found


def section(result: Mapping[str, Any], noun: Nouns) -> dict[str, Any] | None:
    """What `page/proteins.html` lays out; None where the result has no proteins.

    Args:
      result: laid out as `result.ResultFields`.
      noun: what is counted.
    """
    proteins = told(result)
    if proteins is None:
        return None
    ours, mean = proteins["models"][0], proteins["average"]
    rows = _proteins(proteins, ours)
    several = sum(bool(_figure(site, ours)) for site in proteins["sites"]) > 1
    flagged = sorted({p for site in proteins["sites"] for p in site.get("background", [])})
    block: dict[str, Any] = {
        "aside": f"Measured at each {noun.site} on its own held-back cells. Correlation: 1 is perfect, 0 is chance.",
        "say": _ends(rows),
        "site_word": noun.site,
        "site_words": noun.sites,
        "several": several,
        "sites": _sites(proteins, noun) if any(site["models"] for site in proteins["sites"]) else None,
        "rows": rows,
        "has_coverage": any(row["share"] is not None for row in rows),
        "has_flags": any(row["flag"] for row in rows),
        "notes": [],
        "types": _types(mean),
    }
    along, shares = _scales(proteins, ours)
    block |= {"ticks": _ticks(along), "share_ticks": _ticks(shares)}
    if flagged:
        block["notes"].append(
            f"Background only: the antibody shows no cells that stand out ({', '.join(flagged[:12])}), so its "
            "correlation says little of the model."
        )
    lacking = [site["name"] for site in proteins["sites"] if set(site["measured"]) < set(mean["measured"])]
    if lacking:
        block["notes"].append(
            f"Not every {noun.site} measured every protein; a {noun.site} counts for those that it measured."
        )
    if mean.get("withheld"):
        block["notes"].append(
            f"{many(mean['withheld'], noun.site, noun.sites).capitalize()} with fewer than 10 cells kept all figures "
            "at home."
        )
    return block


def _ends(rows: list[dict[str, Any]]) -> Say:
    """Which protein is predicted best, and which least."""
    known = [row for row in rows if row["mean"] is not None]
    if not known:
        return Say("No protein was measured in enough cells to judge it.")
    if len(known) == 1:
        return Say(f"{known[0]['name']}: ", known[0]["r"], ".")
    return Say(
        f"Best predicted: {known[0]['name']}, ", known[0]["r"], f"; least: {known[-1]['name']}, {known[-1]['r']}."
    )


def text(result: Mapping[str, Any], noun: Nouns) -> str:
    """The same for a terminal: a table by site and the sentences; "" where the result has no proteins.

    Returns:
      Lines without colours or control characters.
    """
    proteins = told(result)
    say = headline(result, noun)
    if proteins is None or say is None:
        return ""
    table = _sites(proteins, noun)
    rows = [[clip(str(c)) if at == 0 else c if isinstance(c, str) else c[0] for at, c in enumerate(row["cells"])]
            for row in table["rows"]]  # fmt: skip
    lines = grid(table["head"], [*rows[:-1], (), rows[-1]] if table["rows"] and table["rows"][-1]["all"] else rows)
    return "\n\n".join([lines, "\n".join([str(say), *sentences(result, noun)])])


# ---------------------------------------------------------------------------------------------- by site


def _sites(proteins: Mapping[str, Any], noun: Nouns) -> dict[str, Any]:
    ours = proteins["models"][0]
    others = [model for model in proteins["models"] if model != ours]
    pairs = [other for other in others if proteins["average"]["gain"].get(f"{ours}-{other}")]
    sites = by_size([site | {"rows": site["cells"]} for site in proteins["sites"]])
    covered = any((site["models"].get(ours) or {}).get("coverage") for site in sites)

    def row(site: Mapping[str, Any], name: str, last: bool = False) -> dict[str, Any]:
        share = (site["models"].get(ours) or {}).get("coverage")
        cells: list[Any] = [name, _cell(_figure(site, ours))]
        cells += [f"{one['value']:.3f}" if (one := _figure(site, other)) else "–" for other in others]
        cells += [_cell(site["gain"].get(f"{ours}-{other}"), sign=True) for other in pairs]
        cells += [_percent(share["value"]) if share else "–"] if covered else []
        return {"cells": [*cells, count(site["cells"])], "all": last}

    rows = [row(site, site["name"]) for site in sites[:LONG]]
    if len(sites) > 1:
        rows.append(row(proteins["average"], f"Average {noun.site}", True))
    less = [f"{_name(ours)} less {_name(other).lower()}" for other in pairs]
    head = [
        noun.site.capitalize(),
        _name(ours),
        *map(_name, others),
        *less,
        *(["Inside, %"] if covered else []),
        "Cells",
    ]
    some = f", the {LONG} largest of {len(sites)}" if len(sites) > LONG else ""
    return {
        "caption": f"Mean correlation over the proteins, by {noun.site}{some}",
        "head": head,
        "rows": rows,
        "shown": True,
    }


def _name(model: str) -> str:
    return NAMES.get(model, model.replace("_", " ").capitalize())


def _figure(site: Mapping[str, Any] | None, model: str) -> dict[str, float] | None:
    return ((site or {}).get("models") or {}).get(model, {}).get("r") or None


def _cell(figure: Mapping[str, float] | None, sign: bool = False) -> str | tuple[str, str]:
    if not figure:
        return "–"
    value, low, high = ((_signed if sign else "{:.3f}".format)(figure[key]) for key in ("value", "low", "high"))
    return value, f"{low} to {high}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", MINUS)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _word(apart: Mapping[str, float]) -> str:
    return {"gained": "it gains", "better alone": "it loses", "as good alone": "as good"}.get(
        judge(dict(apart)), "which is better cannot be told"
    )


# ---------------------------------------------------------------------------------------------- by protein


def _scales(proteins: Mapping[str, Any], ours: str) -> tuple[Any, Any]:
    every = [
        site["models"][ours]["proteins"] for site in [*proteins["sites"], proteins["average"]] if ours in site["models"]
    ]
    values = [one["r"]["value"] for part in every for one in part.values() if one["r"]]
    whole = (proteins.get("all") or proteins["average"])["models"].get(ours, {}).get("proteins", {})
    ends = [100 * one["coverage"][key] for one in whole.values() if one["coverage"] for key in ("low", "high")]
    return (
        scale([0.0, 1.0, *values], 3, floor=-1.0, ceiling=1.0),
        scale([60.0, 100.0, *ends], 3, floor=0.0, ceiling=100.0),
    )


def _proteins(proteins: Mapping[str, Any], ours: str) -> list[dict[str, Any]]:
    mean = proteins["average"]["models"].get(ours, {}).get("proteins", {})
    whole = (proteins.get("all") or proteins["average"])["models"].get(ours, {}).get("proteins", {})
    along, shares = _scales(proteins, ours)
    order = sorted(mean, key=lambda p: (-mean[p]["r"]["value"] if mean[p]["r"] else 2.0, p))
    rows = []
    for protein in order:
        r, share = mean[protein]["r"], whole.get(protein, {}).get("coverage")
        sites = [
            one["r"]["value"]
            for site in proteins["sites"]
            if (one := (site["models"].get(ours) or {}).get("proteins", {}).get(protein)) and one["r"]
        ]
        weak = [site["name"] for site in proteins["sites"] if protein in site.get("background", [])]
        rows.append(
            {
                "name": protein,
                "zero": along.at(0.0),
                "mean": along.at(r["value"]) if r else None,
                "sites": [along.at(one) for one in sites] if len(sites) > 1 else [],
                "r": f"{r['value']:.2f}".replace("-", MINUS) if r else "–",
                "span": f"{min(sites):.2f} to {max(sites):.2f}".replace("-", MINUS) if len(sites) > 1 else "",
                "aim": shares.at(100 * AIM),
                "share": shares.at(100 * share["value"]) if share else None,
                "low": shares.at(100 * share["low"]) if share else None,
                "high": shares.at(100 * share["high"]) if share else None,
                "inside": _percent(share["value"]) if share else "–",
                "flag": ("at " + ", ".join(weak[:4]) + (f" and {len(weak) - 4} more" if len(weak) > 4 else ""))
                if weak
                else "",
            }
        )
    return rows


def _ticks(along: Any) -> list[dict[str, Any]]:
    ends = {along.low: "start", along.high: "end"}
    return [{"at": along.at(t), "text": along.label(t), "anchor": ends.get(t, "middle")} for t in along.ticks]


# ---------------------------------------------------------------------------------------------- by cell type


def _types(mean: Mapping[str, Any]) -> dict[str, Any] | None:
    kinds = {kind: one for kind, one in mean.get("cell_types", {}).items() if one["measured"]}
    if not kinds:
        return None
    names = [p for p in mean["measured"] if any(p in one["measured"] for one in kinds.values())]

    def cell(one: Mapping[str, Any], protein: str) -> str | tuple[str, str]:
        if protein not in one["measured"]:
            return "–"
        measured, predicted = (f"{one[part][protein]:.2f}".replace("-", MINUS) for part in ("measured", "predicted"))
        return measured, predicted

    rows = [
        {"cells": [kind, *(cell(one, protein) for protein in names), count(one["cells"])], "all": False}
        for kind, one in kinds.items()
    ]
    return {
        "caption": "Mean measured and predicted values by cell type",
        "head": ["Cell type", *names, "Cells"],
        "rows": rows,
    }
