"""Sentences computed from figures: what the table, the web page and the demo say.

A judgement is made by the interval of the *paired* difference, never by two figures side by side:

    gained          the whole interval lies above 0
    better alone    the whole interval lies below 0
    as good alone   it holds 0 and lies within 1 pair in 100
    cannot be told  it holds 0 and is wider
    too few         fewer than 10 events, or 10 rows without: there is no figure
"""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import Any, NamedTuple

from learner_jax.reports.numerals import WORDS, duration, hundred, many, size, span, spelled
from learner_jax.reports.result import (
    Result,
    cohorts,
    few_watching,
    figure,
    gain,
    joint,
    rounds_seconds,
    watching,
    within,
)

MARGIN = 0.01  # AUROC: one pair in a hundred, too little to matter


class Say(NamedTuple):
    """A sentence with one figure to be set in strong type."""

    before: str
    figure: str = ""
    after: str = ""

    def __str__(self) -> str:
        return self.before + self.figure + self.after


class Nouns(NamedTuple):
    """What is counted, and what becomes of it."""

    row: str = "case"
    rows: str = "cases"
    having: str = "with the outcome"
    lacking: str = "without"
    came: str = "had the outcome"
    site: str = "site"
    sites: str = "sites"


TASKS = {
    "readmission": Nouns("patient", "stays", "who came back", "who did not", "came back", "hospital", "hospitals"),
    "proteins": Nouns(row="cell", rows="cells", site="laboratory", sites="laboratories"),
}


def nouns(result: Result) -> Nouns:
    """Those of the task, changed by what the result itself says under "words"."""
    task = (result.get("study") or {}).get("task") or {}
    known = TASKS.get(task.get("name", "") if isinstance(task, dict) else "", Nouns())
    return known._replace(**{k: str(v) for k, v in (result.get("words") or {}).items() if k in Nouns._fields})


# ---------------------------------------------------------------------------------------------- judgements


def judge(difference: dict[str, float] | None) -> str:
    """The word for a paired difference with its interval."""
    if not difference:
        return "too few to judge"
    if difference["low"] > 0:
        return "gained"
    if difference["high"] < 0:
        return "better alone"
    return "as good alone" if max(-difference["low"], difference["high"]) <= MARGIN else "cannot be told"


def chance(area: dict[str, float] | None) -> str:
    """The word for an AUROC with its interval, against a coin toss."""
    if not area:
        return "too few to judge"
    if area["low"] > 0.5:
        return "better than chance"
    return "worse than chance" if area["high"] < 0.5 else "not yet certain"


def compared(cohort: dict[str, Any]) -> bool:
    """Whether any site has a gain over learning alone."""
    return any(gain(site, "local_only") for site in cohort.get("sites", []))


def verdict(site: dict[str, Any], against_alone: bool) -> str:
    """One site in words."""
    if against_alone:
        return judge(gain(site, "local_only"))
    return chance(figure(site, joint(site), "auroc"))


# ---------------------------------------------------------------------------------------------- sentences


def headline(result: Result) -> Say:
    """How good the model is."""
    noun, judged = nouns(result), cohorts(result)
    area = figure(judged[0].get("all"), joint(judged[0].get("all")), "auroc") if judged else None
    if area:
        shown = f"Shown one {noun.row} {noun.having} and one {noun.lacking}, the model picks the right one "
        return Say(shown, f"{hundred(area['value'])} times in 100", ".")
    if judged and (judged[0].get("all") or {}).get("models"):
        return Say(f"There were too few {noun.rows} to judge how well the model ranks them.")
    return watched(result)


def watched(result: Result) -> Say:
    """How good the model is, by what was watched each round."""
    name, values = watched_metric(result)
    if not values:
        return Say("Nothing was watched while the model learned.")
    best = best_value(result)
    if name.endswith("accuracy"):
        return Say("The model answers right ", f"{hundred(best)} times in 100", ", by what was watched as it learned.")
    first = f"from {values[0][1]:.3g} to " if len(values) > 1 else "of "
    moved = "Its error went " if not rising(name) else f"Its {short(name)} went "
    if len(values) == 1:
        moved = moved.replace("went", "after one learning round is").rstrip()
        return Say(moved + " ", f"{best:.3g}", f" ({short(name)}).")
    return Say(moved + first, f"{best:.3g}", f" ({short(name)}, at the best learning round).")


def short(name: str) -> str:
    """valid/log_loss -> "log loss"."""
    return name.split("/")[-1].replace("_", " ")


def rising(name: str) -> bool:
    """Whether more is better: of metrics by name, as nothing else is known here."""
    last = name.rsplit("/", 1)[-1]
    return not any(part in last for part in ("loss", "brier", "mse", "mae", "error", "rmse", "nll", "deviance"))


def watched_metric(result: Result) -> tuple[str, list[tuple[int, float]]]:
    """Which metric the round curve shows, and its (round, value) wherever it is known.

    The study's target, else valid/auroc, else the first under valid/, else train/loss, else any.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    for row in result.get("curve") or []:
        for name, value in row.items():
            if "/" in name and not name.endswith("/se") and isinstance(value, (int, float)) and value == value:
                found.setdefault(name, []).append((int(row["round"]), float(value)))
    target = (result.get("study") or {}).get("target")
    wanted = [target, "valid/auroc", *sorted(n for n in found if n.startswith("valid/")), "train/loss", *sorted(found)]
    name = next((name for name in wanted if name in found), "")
    return name, found.get(name, [])


def best_value(result: Result) -> float:
    """The watched metric at the best round, else the best of it."""
    name, values = watched_metric(result)
    at = dict(values).get(result.get("best_round") or 0)
    return at if at is not None else (max if rising(name) else min)(value for _, value in values)


def gained(result: Result) -> Say | None:
    """What the sites gained over learning alone, on average; None if that was not looked at."""
    judged, noun = cohorts(result), nouns(result)
    if not judged or not any("local_only" in (s.get("models") or {}) for s in judged[0].get("sites", [])):
        return None
    difference = gain(within(judged[0]), "local_only")
    word = judge(difference)
    if not difference:
        return Say(f"Whether the {noun.sites} gained cannot be told: too few {noun.rows} to judge.")
    more, either = _apart(difference)
    if word == "gained":
        lead, tail = f"On average the {noun.sites} gained by learning together: ", "ranked correctly than each alone"
        return Say(lead, f"{more} more pairs in 100", f" {tail} ({either}).")
    if word == "better alone":
        lead = f"On average the {noun.sites} did not gain: each alone ranks "
        return Say(lead, f"{more} more pairs in 100", f" correctly than all together ({either}).")
    if word == "as good alone":
        lead = f"On average the {noun.sites} did not gain: each alone ranks as well, to within "
        return Say(lead, "one pair in 100", f" (together less alone: {either}).")
    lead = f"Whether the {noun.sites} gained on average "
    return Say(lead, "cannot be told", f" from these {noun.rows}: together less alone is {either} pairs in 100.")


def against_pooled(result: Result) -> Say | None:
    """The joint model against one trained on all data in one place; None in a federation."""
    judged = cohorts(result)
    difference = gain(judged[0].get("all"), "pooled") if judged else None
    if not difference:
        return None
    word = judge(difference)
    more, either = _apart(difference)
    lead = "Brought together in one place, the same data would give "
    if word == "gained":
        return Say(lead, f"{more} fewer pairs in 100", f" ranked correctly ({either}).")
    if word == "better alone":
        return Say(lead, f"{more} more pairs in 100", f" ranked correctly ({either}).")
    if word == "as good alone":
        end = f" (together less one place: {either})."
        return Say("That is as good as all data in one place, to within ", "one pair in 100", end)
    lead = "Whether all data in one place would do better "
    return Say(lead, "cannot be told", f": together less one place is {either} pairs in 100.")


def _apart(difference: dict[str, float]) -> tuple[str, str]:
    """How large a difference is and its interval, both upright where the sign is sure; in hundredths."""
    low, high = difference["low"], difference["high"]
    if high < 0:
        low, high = -high, -low
    return hundred(abs(difference["value"]), 1), span(low, high, 1)


def by_site(cohort: dict[str, Any], noun: Nouns) -> Say:
    """How many sites gained, how many did not, how many cannot be judged."""
    alone = compared(cohort)
    found = Counter(verdict(site, alone) for site in cohort.get("sites", []))
    total = sum(found.values())
    first = "gained" if alone else "better than chance"
    lead = "Better than learning alone at " if alone else "Better than a coin toss at "
    at = spelled(found[first]) if found[first] else "none"
    if total and found["too few to judge"] == total:
        return Say("None", f" of {many(total, noun.site, noun.sites)}", f" has enough {noun.rows} to judge it.")
    more = []
    if found["better alone"]:
        more.append(f"Better alone at {spelled(found['better alone'])}.")
    if found["worse than chance"]:
        more.append(f"Worse than a coin toss at {spelled(found['worse than chance'])}.")
    if found["as good alone"]:
        more.append(f"As good alone at {spelled(found['as good alone'])}.")
    if found["cannot be told"]:
        more.append(f"Cannot be told at {spelled(found['cannot be told'])}.")
    if found["not yet certain"]:
        more.append(f"Not yet certain at {spelled(found['not yet certain'])}.")
    few = found["too few to judge"]
    if few:
        who = spelled(few).capitalize() if few < len(WORDS) else f"Another {few:,}"
        more.append(f"{who} {'has' if few == 1 else 'have'} too few {noun.rows} to judge.")
    return Say(lead, at, f" of {many(total, noun.site, noun.sites)}." + "".join(f" {part}" for part in more))


def by_luck(cohort: dict[str, Any], noun: Nouns) -> str:
    """A warning where many sites are judged at once; "" where few are."""
    judged = sum(verdict(site, compared(cohort)) != "too few to judge" for site in cohort.get("sites", []))
    if judged < 20:
        return ""
    return (
        f"Each of {judged} {noun.sites} is judged by its own 95 % interval: "
        f"about {max(1, round(judged * 0.025))} would stand out on the good side by luck alone."
    )


def learning(result: Result) -> Say:
    """How the curve went."""
    name, values = watched_metric(result)
    if not values:
        return Say("Nothing was watched while the model learned.")
    if len(values) == 1:
        return Say("There was one learning round, so there is no curve yet.")
    known, noun = watching(result), nouns(result)
    if name.startswith("valid/") and known and few_watching(result):
        of = f"by {set_aside(known, noun)}."
        return Say("Whether it still improved at the end ", "cannot be told", f" {of}")
    up = 1 if rising(name) else -1
    tail = values[-min(10, len(values) // 2 + 1) :]
    last, best = up * (tail[-1][1] - tail[0][1]), best_value(result)
    scale = abs(best - values[0][1]) or abs(best) or 1.0
    if up * (best - values[0][1]) <= 0:
        return Say("It learned nothing: no round was better than the first.")
    steps = len(tail) - 1
    where = f"in the last {spelled(steps)} learning rounds" if steps > 1 else "in the last learning round"
    amount = (
        f"{hundred(abs(last), 1)} {'pairs in 100' if name.endswith('auroc') else 'in 100'}"
        if percent(name)
        else f"{abs(last):.2g}"
    )
    if last > 0.05 * scale:
        return Say("It still improved at the end: ", f"by {amount}", f" {where}.")
    if last < -0.05 * scale:
        return Say("It was best before the end: since then it got worse ", f"by {amount}", f" {where}.")
    return Say(f"It had settled: hardly any change {where}.")


def set_aside(known: tuple[int, int], noun: Nouns) -> str:
    """Rows that a model was watched on: "3 cases set aside for watching, none with the outcome"."""
    rows, events = known
    return f"{rows:,} {noun.rows} set aside for watching, {f'{events:,}' if events else 'none'} {noun.having}"


def percent(name: str) -> bool:
    """Whether a metric is told as so many in 100."""
    return name.rsplit("/", 1)[-1] in ("auroc", "accuracy")


def calibrated(cohort: dict[str, Any], noun: Nouns) -> tuple[Say, str]:
    """Whether the told percentages come true: a sentence, and where they do not."""
    table = cohort.get("calibration") or []
    who = "patients" if noun.row == "patient" else noun.rows
    if not table:
        return _calibrated_as_a_whole(cohort, noun)
    top = table[-1]
    say = Say(f"Of 100 {who} told about {hundred(top['told'])} %, ", hundred(top["observed"]), f" {noun.came}.")
    off = [row for row in table if "low" in row and not row["low"] <= row["told"] <= row["high"]]
    if not off:
        if any("low" in row for row in table):
            return say, "In every group the told percentage lies within the uncertainty of what came."
        return say, ""
    worst = max(off, key=lambda row: abs(row["told"] - row["observed"]))
    way = "too low" if worst["told"] < worst["observed"] else "too high"
    if worst is top:
        note = f"That is told {way}, by more than chance."
    else:
        told_, came = hundred(worst["told"]), hundred(worst["observed"])
        note = f"Elsewhere it is told {way}: of 100 {who} told {told_} %, {came} {noun.came}."
    if len(off) > 1:
        note += f" In {spelled(len(off))} of {spelled(len(table))} groups the two differ by more than chance."
    return say, note


def _calibrated_as_a_whole(cohort: dict[str, Any], noun: Nouns) -> tuple[Say, str]:
    """Mean told chance against the share that came, over the sites that told both."""
    known = []
    for site in cohort.get("sites", []):
        told = site.get("models", {}).get(joint(site), {}).get("told")
        if told is not None and site.get("rows") and site.get("events") is not None:
            known.append((told * site["rows"], site["events"], site["rows"]))
    if not known:
        return Say("Whether the told percentages come true was not measured."), ""
    told, events, rows = (sum(part) for part in zip(*known))
    say = Say(
        f"Told for all together {hundred(told / rows, 1)} %; ", f"{hundred(events / rows, 1)} %", f" {noun.came}."
    )
    return say, f"Groups of told percentages stay at the {noun.sites}, so only the whole can be compared here."


def cost(result: Result) -> Say:
    """What it took: the rounds by themselves, and the whole run where the two differ."""
    noun = nouns(result)
    curve = result.get("curve") or []
    middle = _a_round([float(row["seconds"]) for row in curve if row.get("seconds") is not None])
    up, down = result.get("bytes_up") or 0, result.get("bytes_down") or 0
    rounds = result.get("rounds") or len(curve)
    whole = f"{rounds} learning round{'' if rounds == 1 else 's'} took "
    if result.get("kind") == "simulation":
        end = f"{middle}; between real {noun.sites} {size(up)} would travel up and {size(down)} down."
    else:
        end = f"{middle}; {size(up)} came from the {noun.sites} and {size(down)} went to them."
    took = rounds_seconds(result)
    took = float(result.get("seconds") or 0) if took is None else took
    return Say(whole, duration(took), end + _besides(result, took))


def _besides(result: Result, rounds_took: float) -> str:
    """What the whole run took, as a sentence; "" where the rounds are nearly all of it.

    A run that went on after a stop knows the seconds of all its rounds, but its whole time only since then.
    """
    whole = float(result.get("seconds") or 0)
    if whole < 1.05 * rounds_took or duration(whole) == duration(rounds_took):
        return ""
    rest = "starting, comparing, judging" if result.get("kind") == "simulation" else "starting, waiting, judging"
    return f" The whole run took {duration(whole)}; the rest of it is {rest}."


def _a_round(took: list[float]) -> str:
    """What a round mostly takes: the median without the first, which compiles the program before it runs."""
    if not took:
        return ""
    if len(took) == 1:
        return f", the one round {duration(took[0])} with compiling"
    if len(took) == 2:
        return f", the first round {duration(took[0])} with compiling and the second {duration(took[1])}"
    return f", a round after the first mostly {duration(median(took[1:]))}"


def lost(result: Result) -> str:
    """Which sites were waited for in vain, and how often; "" if none."""
    found = Counter(name for row in result.get("curve") or [] for name in row.get("lost") or [])
    if not found:
        return ""
    rounds = sum(bool(row.get("lost")) for row in result["curve"])
    names = ", ".join(f"{name} ({times})" for name, times in found.most_common(5))
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return f"In {rounds} of {len(result['curve'])} rounds an answer was waited for in vain: {names}{more}."


def sentences(result: Result) -> list[str]:
    """Three plain sentences: how good the model is, what the sites gained, and how it stands against pooled data.

    Where there is no reference to compare with, calibration or the cost takes the place.

    Args:
      result: laid out as `result.ResultFields`.
    """
    first = str(headline(result))
    judged, noun = cohorts(result), nouns(result)
    area = figure(judged[0].get("all"), joint(judged[0].get("all")), "auroc") if judged else None
    if area:
        whom = "" if len(judged) == 1 else f" Judged on {judged[0]['name']}."
        apart = span(area["low"], area["high"])
        first = first[:-1] + f" ({apart} with 95 % certainty; a coin: 50).{whom}"
    rest = [say for say in (gained(result), against_pooled(result)) if say is not None]
    if len(rest) < 2 and judged:
        rest.append(calibrated(judged[0], noun)[0])
    if len(rest) < 2:
        rest.append(cost(result))
    if len(rest) < 2:
        rest.append(learning(result))
    return [first, *map(str, rest[:2])]


class Averaged(NamedTuple):
    """Over which sites an average is taken: those with enough rows to judge them.

    Attributes:
      judged: how many sites.
      of: of how many.
      rows: held-back rows of those that are judged.
    """

    judged: int
    of: int
    rows: int


def averaged(cohort: dict[str, Any]) -> Averaged:
    """Over which sites the AUROC of a cohort's average site is taken."""
    sites = cohort.get("sites", [])
    judged = [site for site in sites if figure(site, joint(site), "auroc")]
    return Averaged(len(judged), len(sites), sum(site.get("rows") or 0 for site in judged))


def kept(noun: Nouns) -> str:
    """Of a federation whose sites judged the model and told no figure."""
    return (
        f"Judged at each {noun.site} on its held-back {noun.rows}; with fewer than ten {noun.having}, or without, a "
        f"{noun.site} tells no figure, and none told one."
    )


def is_average(site: dict[str, Any]) -> bool:
    """Whether a row is an average over sites, and no site or all rows."""
    return str(site.get("how", "")).startswith("average")


def average_name(cohort: dict[str, Any], noun: Nouns) -> str:
    """The average site's name: "average site (2 of 5 sites)" where not all could be judged."""
    over = averaged(cohort)
    some = f" ({over.judged} of {over.of} {noun.sites})" if over.judged < over.of else ""
    return f"average {noun.site}{some}"


def whole_name(site: dict[str, Any], cohort: dict[str, Any], noun: Nouns) -> str:
    """What the last row of a table is called: it says whether it is an average, and over how many sites."""
    return average_name(cohort, noun) if is_average(site) else f"all {noun.rows} together"
