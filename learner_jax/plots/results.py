"""Figures of a result: what a study found of each protein, site and model. They need no cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learner_jax.errors import DataError
from learner_jax.plots import style
from learner_jax.plots.measured import judged

MOST = 12
"""Sites that are drawn one by one; of more, the largest."""


def found(result: Any) -> dict[str, Any]:
    """The evaluation of proteins in a result.

    Args:
      result: a run's result, its "evaluation", or what `learner_jax.evaluation.proteins` gave; or an AnnData with
        predictions, which are judged on all of its cells (`measured.judged`).

    Raises:
      DataError: there is none in it.
    """
    if hasattr(result, "obsm"):
        return dict(judged(result)["proteins"])
    for place in (result, result.get("evaluation") or {}):
        inner = place.get("proteins")
        if isinstance(inner, Mapping) and {"sites", "average"} <= set(inner):
            return dict(inner)
    raise DataError(
        f"expected a result with an evaluation of proteins, got one with {', '.join(sorted(result)) or 'nothing'}"
    )


def correlation_bars(
    result: Any,
    *,
    model: str | None = None,
    background: Sequence[str] | None = None,
    ax: Any = None,
    save: str | Path | None = None,
    show: bool | None = None,
) -> Any:
    """Pearson's r of each protein as bars, the best first, with each site as a dot.

    Args:
      result: as `found`.
      model: which; None for the study's own.
      background: proteins whose antibody shows its background alone: hatched, and said so; None for those that the
        result names at every site that measured them.
      ax: where to draw; None for a new figure.
      save: file to write.
      show: True to open a window.

    Returns:
      matplotlib Axes. A bar is the mean over the sites, the dots the sites' own; of one site, the line is its 95 %
      interval.

    Raises:
      DataError: no such model, or nothing in it could be judged; matplotlib is not installed.
    """
    proteins = found(result)
    model = _model(proteins, model)
    mean = proteins["average"]["models"].get(model, {}).get("proteins", {})
    known = sorted(((p, one["r"]["value"]) for p, one in mean.items() if one["r"]), key=lambda one: (-one[1], one[0]))
    if not known:
        raise DataError(f"expected a protein of '{model}' that could be judged, got none")
    with style.styled():
        ax = style.axes(ax, max(4.0, 1.4 + (0.42 if len(known) <= 30 else 0.22) * len(known)), 3.6)
        weak = set(proteins["average"].get("background", ()) if background is None else background)
        flagged = [p in weak for p, _ in known]
        for at, ((protein, r), flag) in enumerate(zip(known, flagged)):
            ax.bar(at, r, 0.72, color="white" if flag else style.SKY, edgecolor=style.SKY, hatch="///" if flag else "")
            dots = [s["models"][model]["proteins"][protein]["r"] for s in _telling(proteins, model, protein)]
            if len(dots) == 1:
                one = dots[0]
                ax.plot([at, at], [one["low"], one["high"]], color=style.INK, lw=1.2)
            else:
                spread = [0.36 * (k / (len(dots) - 1) - 0.5) for k in range(len(dots))]
                ax.plot(
                    [at + s for s in spread],
                    [one["value"] for one in dots],
                    "o",
                    color=style.INK,
                    ms=3.2,
                    mew=0,
                    clip_on=False,
                )
        ax.set_xticks(range(len(known)), [p for p, _ in known], rotation=45, ha="right", rotation_mode="anchor")
        ax.set_xlim(-0.6, len(known) - 0.4)
        ax.set_ylim(min(0.0, *(r for _, r in known)), 1.0)
        ax.set_ylabel("Pearson correlation,\nmeasured with predicted")
        style.across(ax)
        sites = len([s for s in proteins["sites"] if s["models"]])
        whole = proteins["average"]["models"][model]["r"]
        title = f"Mean over the proteins {whole['value']:.3f}" if whole else ""
        key = f"bar: mean of {sites} sites; dot: one site" if sites > 1 else "bar: one site; line: 95 % interval"
        key += "; hatched: antibody shows background only" if any(flagged) else ""
        ax.set_title(f"{title}\n{key}", loc="left", color=style.INK)
        style.done(ax.figure, save, show)
    return ax


def coverage(
    result: Any,
    *,
    model: str | None = None,
    aim: float = 0.8,
    band: tuple[float, float] = (0.75, 0.85),
    ax: Any = None,
    save: str | Path | None = None,
    show: bool | None = None,
) -> Any:
    """How many held-out cells lie in their predicted interval, by protein, with 95 % uncertainty, and overall.

    Args:
      result: as `found`.
      model: which; None for the study's own.
      aim: the share that was promised.
      band: what is near enough, shaded.
      ax, save, show: as `correlation_bars`.

    Returns:
      matplotlib Axes.

    Raises:
      DataError: as `correlation_bars`; or the model gave no intervals.
    """
    proteins = found(result)
    model = _model(proteins, model)
    one = (proteins["all"] or proteins["average"])["models"].get(model, {})
    rows = [(p, of["coverage"]) for p, of in one.get("proteins", {}).items() if of["coverage"]]
    if not rows or not one.get("coverage"):
        raise DataError(f"expected intervals predicted by '{model}', got none")
    rows = [("all proteins", one["coverage"]), *sorted(rows, key=lambda row: row[1]["value"])]
    with style.styled():
        ax = style.axes(ax, 5.2, 1.2 + 0.27 * len(rows))
        ax.axvspan(100 * band[0], 100 * band[1], color=style.RULE, alpha=0.6, lw=0)
        ax.axvline(100 * aim, color=style.SOFT, lw=1, ls=(0, (4, 3)))
        for at, (_, share) in enumerate(rows):
            ends = [100 * share["low"], 100 * share["high"]]
            ax.plot(ends, [at, at], color=style.BLUE, lw=1.6)
            ax.plot(100 * share["value"], at, "D" if at == 0 else "o", color=style.BLUE, ms=6 if at == 0 else 5)
        ax.set_yticks(range(len(rows)), [p for p, _ in rows])
        ax.get_yticklabels()[0].set_fontweight("bold")
        ends = [100 * share[key] for _, share in rows for key in ("low", "high")]
        ax.set_xlim(max(0.0, min(72.0, *ends) - 2), min(100.0, max(88.0, *ends) + 2))
        ax.set_ylim(-0.7, len(rows) - 0.3)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set_xlabel("held-out cells inside their predicted interval, %")
        style.across(ax)
        ax.set_title(
            f"{100 * one['coverage']['value']:.1f} % of all values; promised {100 * aim:.0f} %",
            loc="left",
            color=style.INK,
        )
        style.done(ax.figure, save, show)
    return ax


def compared(result: Any, *, ax: Any = None, save: str | Path | None = None, show: bool | None = None) -> Any:
    """Each site alone, the federation, and all data in one place: mean correlation at each site, as bars.

    Args:
      result: as `found`.
      ax, save, show: as `correlation_bars`.

    Returns:
      matplotlib Axes. Lines are 95 % intervals; the last group is the mean over the sites.

    Raises:
      DataError: nothing could be judged; matplotlib is not installed.
    """
    proteins = found(result)
    order = ("local_only", "federated", "pooled")
    models = sorted(proteins["models"], key=lambda m: order.index(m) if m in order else len(order))
    groups = [site for site in proteins["sites"] if any(one["r"] for one in site["models"].values())]
    if not groups:
        raise DataError("expected a site that could be judged, got none")
    left_out = len(groups) - MOST
    if left_out > 0:
        largest = sorted(groups, key=lambda site: -site["cells"])[:MOST]
        groups = [site for site in groups if site in largest]
    shown = [(site["name"], site) for site in groups]
    if len(groups) > 1:
        shown.append(("mean of\nthe sites", proteins["average"]))
    with style.styled():
        ax = style.axes(ax, max(4.6, 1.6 + 0.42 * len(models) * len(shown)), 3.6)
        width = 0.8 / len(models)
        lows = []
        for place, model in enumerate(models):
            for at, (_, site) in enumerate(shown):
                r = site["models"].get(model, {}).get("r")
                if not r:
                    continue
                x = at + (place - (len(models) - 1) / 2) * width
                label = (
                    style.name(model) if at == next(k for k, (_, s) in enumerate(shown) if _known(s, model)) else None
                )
                ax.bar(x, r["value"], width * 0.92, color=style.colour(model, models), label=label)
                ax.plot([x, x], [r["low"], r["high"]], color=style.INK, lw=1.1)
                ax.text(x, max(r["high"], r["value"], 0) + 0.012, f"{r['value']:.3f}".replace("0.", "."), ha="center",
                        va="bottom", fontsize=7.5, color=style.INK)  # fmt: skip
                lows.append(r["value"])
        if len(groups) > 1:
            ax.axvline(len(groups) - 0.5, color=style.RULE, lw=1)
        ax.set_xticks(range(len(shown)), [f"{name}\n{site['cells']:,} cells" if at < len(groups) else name
                                          for at, (name, site) in enumerate(shown)])  # fmt: skip
        ax.set_xlim(-0.55, len(shown) - 0.45)
        ax.set_ylim(min(0.0, *lows), 1.0)
        ax.set_ylabel("mean correlation over\nthe proteins")
        if left_out > 0:
            ax.set_xlabel(f"the {MOST} largest of {MOST + left_out} sites; the mean is of all")
        style.across(ax)
        ax.legend(ncols=len(models), loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2, handlelength=1.2)
        style.done(ax.figure, save, show)
    return ax


def round_curve(
    result: Mapping[str, Any],
    *,
    metric: str | None = None,
    ax: Any = None,
    save: str | Path | None = None,
    show: bool | None = None,
) -> Any:
    """A figure by learning round, with the round that was kept.

    Args:
      result: a run's result: "curve", a list of {"round", figure: value, perhaps "figure/se"}, and "best_round".
      metric: which figure; None for the first of a correlation, else the first watched on cells set aside.
      ax, save, show: as `correlation_bars`.

    Returns:
      matplotlib Axes.

    Raises:
      DataError: the result has no such figure by round.
    """
    curve = [row for row in result.get("curve") or [] if "round" in row]
    names = list(dict.fromkeys(key for row in curve for key in row if "/" in key and not key.endswith("/se")))
    if metric is None:
        watched = [n for n in names if n.startswith("valid/")] or names
        metric = str(next((n for n in watched if "pearson" in n or "correlation" in n), next(iter(watched), "")))
    values = [
        (row["round"], float(row[metric]), row.get(f"{metric}/se")) for row in curve if row.get(metric) is not None
    ]
    if not values:
        raise DataError(
            f"expected '{metric or 'a figure'}' by learning round in the result, got {', '.join(names) or 'none'}"
        )
    with style.styled():
        ax = style.axes(ax, 5.2, 3.2)
        xs, ys = [x for x, _, _ in values], [y for _, y, _ in values]
        if all(se is not None for _, _, se in values):
            half = [1.96 * float(se or 0) for _, _, se in values]
            ax.fill_between(xs, [y - h for y, h in zip(ys, half)], [y + h for y, h in zip(ys, half)], color=style.BLUE,
                            alpha=0.15, lw=0)  # fmt: skip
        ax.plot(xs, ys, color=style.BLUE, lw=2, marker="o" if len(xs) < 3 else None)
        best = result.get("best_round")
        if best in xs:
            y = ys[xs.index(best)]
            ax.plot(best, y, "o", color=style.BLUE, ms=7, clip_on=False)
            side = "right" if xs.index(best) > len(xs) / 2 else "left"
            ax.annotate(f"kept: round {best}, {y:.3f}", (best, y), xytext=(0, -26), textcoords="offset points", ha=side,
                        color=style.INK, fontsize=9)  # fmt: skip
        ax.set_xlabel("learning round")
        ax.set_ylabel(_words(metric))
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.margins(x=0.02 if len(xs) > 1 else None, y=0.15)
        style.across(ax)
        style.done(ax.figure, save, show)
    return ax


def _words(metric: str) -> str:
    part, _, name = metric.partition("/")
    named = {"pearson": "mean correlation over the proteins", "rmse": "root mean squared error", "loss": "loss"}
    on = {"valid": "on cells set aside", "train": "on the cells it learns from", "test": "on held-out cells"}
    return f"{named.get(name, name.replace('_', ' '))},\n{on[part]}" if part in on else metric.replace("_", " ")


def _model(proteins: Mapping[str, Any], model: str | None) -> str:
    models = list(proteins["models"])
    if model is None and models:
        return models[0]
    if model not in models:
        raise DataError(f"expected a model among {', '.join(models) or 'none'}, got '{model}'")
    return str(model)


def _telling(proteins: Mapping[str, Any], model: str, protein: str) -> list[Mapping[str, Any]]:
    """Sites that could judge the protein."""
    return [
        s for s in proteins["sites"] if (s["models"].get(model, {}).get("proteins", {}).get(protein) or {}).get("r")
    ]


def _known(site: Mapping[str, Any], model: str) -> bool:
    return bool(site["models"].get(model, {}).get("r"))
