"""The TRIPOD+AI items, filled as far as a run knows them, for those who write its paper.

An item's text says what *this* run did, from its result alone: what is not in the result is not claimed. None: it is
the authors' to write.

Reference: Collins et al., "TRIPOD+AI statement", BMJ 2024;385:e078378 (27 items, 52 with their parts; the words here
are our own, short ones).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from learner_jax.reports import included, words
from learner_jax.reports.numerals import count, many, spelled
from learner_jax.reports.result import asked_ways, cohorts, figure, joint, kept_at_sites
from learner_jax.reports.written import written

UNKNOWN = "Not known to LEARNER: to be written by the study’s authors."

TITLES: dict[str, dict[str, str]] = {
    "Title and abstract": {
        "1": "Title: development or evaluation, of which model, for whom, of what outcome",
        "2": "Abstract, by its own checklist",
    },
    "Introduction": {
        "3a": "Healthcare context and reasons, with models that there are",
        "3b": "Patients it is meant for, its purpose in their care, its users",
        "3c": "Known health inequalities between groups of people",
        "4": "Objectives",
    },
    "Methods": {
        "5a": "Source of the data, and whom they stand for",
        "5b": "Dates of the participants’ data",
        "6a": "Setting: kind, number and place of centres",
        "6b": "Who was eligible",
        "6c": "Treatments, and how they were dealt with",
        "7": "Preparing and checking the data",
        "8a": "Outcome, its time horizon, how it was assessed",
        "8b": "Who assessed an outcome that needs judgement",
        "8c": "Blinding of that assessment",
        "9a": "Choice of predictors before modelling",
        "9b": "Every predictor, how and when it was measured",
        "9c": "Who assessed predictors that need judgement",
        "10": "Sample size, and its justification",
        "11": "Missing data",
        "12a": "How the data were used and parted",
        "12b": "How predictors were handled in the analysis",
        "12c": "Kind of model, how it was built, hyperparameters, internal validation",
        "12d": "Differences between clusters, as hospitals: how they were handled and measured",
        "12e": "Measures and plots of performance, comparison of models",
        "12f": "Updating of the model after evaluation: methods",
        "12g": "How predictions were computed for the evaluation",
        "13": "Class imbalance",
        "14": "Fairness: approaches and reasons",
        "15": "What the model gives; thresholds",
        "16": "Differences between training and evaluation data",
        "17": "Ethical approval and consent",
    },
    "Open science": {
        "18a": "Funding",
        "18b": "Conflicts of interest",
        "18c": "Protocol",
        "18d": "Registration",
        "18e": "Availability of the data",
        "18f": "Availability of the code",
    },
    "Patients and public": {
        "19": "Involvement of patients and the public",
    },
    "Results": {
        "20a": "Flow of participants, with and without the outcome",
        "20b": "Their characteristics, in all and by source; missing data",
        "20c": "Predictors in evaluation against training data",
        "21": "Participants and events in each analysis",
        "22": "The whole model, so that others can use and test it",
        "23a": "Performance with intervals, also in key subgroups",
        "23b": "Differences of performance between clusters",
        "24": "Updating of the model: results",
    },
    "Discussion": {
        "25": "Interpretation, with fairness",
        "26": "Limitations",
        "27a": "Poor or missing input when the model is used",
        "27b": "What users must do and know",
        "27c": "Next steps; where it applies",
    },
}
"""Section -> number -> title, in the order of the statement."""


class Item(NamedTuple):
    """An item of the checklist; text None: not known to the run."""

    number: str
    title: str
    text: str | None


def items(result: Mapping[str, Any]) -> list[Item]:
    """All items in their order, each filled as far as the run knows it.

    Args:
      result: laid out as `result.ResultFields`; parts may be missing, and then nothing is claimed of them.
    """
    run = dict(result)
    told = {**_introduction(run), **_data(run), **_methods(run), **_judging(run), **_results(run)}
    return [Item(number, title, told.get(number) or None) for part in TITLES.values() for number, title in part.items()]


def checklist(result: Mapping[str, Any]) -> dict[str, Any]:
    """The page's section: how many items are filled, and the items by section of the statement."""
    found = {item.number: item for item in items(result)}
    known = sum(item.text is not None for item in found.values())
    parts = [(part, [found[number] for number in titles]) for part, titles in TITLES.items()]
    say = words.Say("Of 52 items and parts of items, the run fills ", f"{known}", ", in part or as a whole.")
    return {"say": say, "parts": parts, "unknown": UNKNOWN}


# ---- what the study is about -----------------------------------------------------------------------------------------


def _introduction(run: dict[str, Any]) -> dict[str, str]:
    study = run.get("study") or {}
    question = study.get("question")
    if not question:
        return {}
    judged = "its evaluation on held-back rows"
    if not _figures(run):
        judged = f"{judged} at each site" if kept_at_sites(run) else "it was not evaluated on held-back rows"
    return {
        "1": f"Development of a prediction model; the question: {question} Whom it is for is the authors’ to say.",
        "4": f"Development of a model, and {judged}. The question: {question}",
    }


# ---- data ------------------------------------------------------------------------------------------------------------


def _data(run: dict[str, Any]) -> dict[str, str]:
    noun, data, found = words.nouns(run), run.get("data") or {}, _chosen(run)
    told: dict[str, str] = {}
    names = [site["name"] for site in (cohorts(run) or [{}])[0].get("sites") or []]
    made_up = " ".join(note for note in run.get("notes") or [] if "artificial" in str(note).lower())
    if names:
        listed = f" ({', '.join(names)})" if len(names) <= 12 else ""
        told["6a"] = f"{many(len(names), noun.site, noun.sites).capitalize()}{listed}. {made_up}".strip()
        told["6a"] += " Their kind and place are the authors’ to say."
    if found:
        doors = sorted({included.door(one) for one in found})
        tables = many(len(found), "table", "tables")
        told["5a"] = f"Health records, read as {', '.join(doors)}, {tables}. {made_up}".strip()
        rules = [one["rule"] for one in found]
        same = all(rule == rules[0] for rule in rules)
        told["6b"] = ". ".join(f"{label}: {text}" for label, text in included.in_words(rules[0])) + "."
        told["6b"] += "" if same else " Not all tables are by this rule: see “Who is in it”."
        told["20a"] = f"{included.summary(found)} What each step left stands under “Who is in it”."
    elif data.get("source"):
        told["5a"] = f"The tables of {data['source']}. {made_up}".strip()
    known = data.get("inputs") or {}
    if known.get("tables"):
        told["7"] = (
            "Each table was checked before the first round against what the study declares: types, ranges, codes."
        )
        told["9b"] = "Each is listed, with its unit, under “What the data looked like”."
        if found:
            told["9b"] += " Each is of what was known at the discharge of the index stay."
        told["20b"] = (
            f"Of the {count(known['rows'])} {noun.rows} to learn from, under “What the data looked like”: mean and "
            "deviation or share, and what is missing, of all together."
        )
    outcome = _outcome(run)
    if found:
        outcome = f"{outcome} Readmission: {included.outcome(found[0]['rule'])}.".strip()
    told |= {"8a": outcome} if outcome else {}
    return told | _sizes(run)


def _chosen(run: dict[str, Any]) -> list[Mapping[str, Any]]:
    chosen = (run.get("data") or {}).get("chosen") or []
    return [] if run.get("kind") == "federation" else [one for one in chosen if "problem" not in one]


def _task(run: dict[str, Any]) -> tuple[str, Mapping[str, Any]]:
    task = (run.get("study") or {}).get("task") or {}
    return str(task.get("name", "")), task.get("fields") or {}


def _outcome(run: dict[str, Any]) -> str:
    name, fields = _task(run)
    if name == "readmission":
        return "A further inpatient stay within 30 days (column readmitted: <30)."
    if name != "table" or not fields.get("label"):
        return ""
    about = next((one.get("about") for one in fields.get("columns") or [] if one.get("name") == fields["label"]), "")
    positive = fields.get("positive")
    positive = " or ".join(positive) if isinstance(positive, list | tuple) else positive
    counts = f", where it is {positive}" if positive else ""
    return f"Column {fields['label']}{counts}{f': {about}' if about else ''}."


def _sizes(run: dict[str, Any]) -> dict[str, str]:
    """Items that count rows."""
    noun, data = words.nouns(run), run.get("data") or {}
    dealt, rows = data.get("dealt") or {}, (data.get("inputs") or {}).get("rows")
    words_ = {"train": "to learn from", "valid": "set aside for watching", "test": "held back to judge on"}
    parts = []
    for key, word in words_.items():
        part = dealt.get(key)
        if part:
            events = f", {part['events']:,} {noun.having}" if "events" in part else ""
            parts.append(f"{part['rows']:,} {noun.rows} {word} ({part['patients']:,} patients{events})")
    if not dealt and rows:
        parts.append(f"{rows:,} {noun.rows} to learn from (how many {noun.having} stays at the {noun.sites})")
    if not dealt:
        parts += [
            f"{count((cohort.get('all') or {}).get('rows'))} {noun.rows} held back to judge on ({cohort['name']})"
            for cohort in cohorts(run)
        ]
        if parts and str((run.get("study") or {}).get("target", "")).startswith("valid/"):
            parts.insert(1 if rows else 0, f"how many were set aside for watching stays at the {noun.sites}")
    if not parts:
        return {}
    whole = "; ".join(parts) + "."
    return {
        "10": f"{whole} It is what the {noun.sites} had: no sample size was calculated. Whether it is enough is the "
        "authors’ to say.",
        "21": whole,
    }


# ---- methods ---------------------------------------------------------------------------------------------------------


def _methods(run: dict[str, Any]) -> dict[str, str]:
    study, told = run.get("study") or {}, dict[str, str]()
    name, fields = _task(run)
    if study.get("model") and study.get("algorithm"):
        told["12c"] = _model(run)
    if name in ("table", "readmission") and (run.get("data") or {}).get("inputs"):
        told |= _handled(name, fields)
        told["13"] = "No row was drawn more often and no class weighted more for it."
        if study.get("target", "").startswith("valid/"):
            held, valid = fields.get("test_share"), fields.get("valid_share")
            if held is not None and valid is not None:
                column = "as a column says, else " if (study.get("data") or {}).get("split_column") else ""
                told["12a"] = (
                    f"By patient: held back to judge on, {column}{100 * held:g} of 100 drawn; of the "
                    f"others {100 * valid:g} of 100 set aside for watching, by which the round was chosen; the rest to "
                    "learn from."
                )
                if name == "table" and not fields.get("patient"):
                    told["12a"] = told["12a"].replace("By patient", "By row, each taken as another patient")
    version = (run.get("versions") or {}).get("learner") or (run.get("versions") or {}).get("learner-jax")
    if version:
        told["18f"] = f"LEARNER {version}, Apache-2.0; command, versions and config stand at the end of this report."
    return told


def _model(run: dict[str, Any]) -> str:
    study = run["study"]
    passes = f"{study['steps']} steps" if study.get("steps") else many(study.get("epochs") or 1, "epoch", "epochs")
    parts = [f"{written(study['model'])}, trained by {written(study['algorithm'])} over {run.get('rounds')} rounds"]
    if study.get("batch_size"):
        parts.append(f"{passes} a round, batches of {study['batch_size']} rows")
    if study.get("seed") is not None:
        parts.append(f"seed {study['seed']}")
    text = ", ".join(parts) + ". "
    if run.get("best_round"):
        text += f"The model is that of round {run['best_round']}, by {study.get('target')}. "
    text += "Hyperparameters were given in the config; this run searched for none. "
    judged = "Internal validation: rows of the same sites, held back."
    if kept_at_sites(run):
        return f"{text}{judged} {words.kept(words.nouns(run))}"
    return text + (judged if _figures(run) else "There was no internal validation on held-back rows.")


def _handled(name: str, fields: Mapping[str, Any]) -> dict[str, str]:
    """Items on predictors, of the tasks that we know from inside."""
    if name == "readmission":
        return {
            "9a": "All that the task declares; of diagnoses the most frequent over all sites’ rows to learn from, "
            f"{fields.get('codes', 'some')} at most. The outcome chose none of them.",
            "12b": "Numbers as they are, by logarithm or by thresholds, categories as 0 or 1; each less its mean and "
            f"divided by its deviation, or by {fields.get('scale_floor', 'a floor')} where that is smaller, over all "
            "sites’ rows to learn from.",
        }
    columns = [one for one in fields.get("columns") or [] if one.get("kind") != "id"]
    columns = [one for one in columns if one.get("name") != fields.get("label")]
    found = Counter(one.get("missing", "typical") for one in columns)
    said = {
        "typical": "the mean of all sites’ rows to learn from was put in its place (of a category or code: none)",
        "indicator": "the same, and an input says so",
        "refuse": "a table with such a row was refused",
    }
    missing = "; ".join(
        f"in {many(found[key], 'column', 'columns')} {text}" for key, text in said.items() if found[key]
    )
    kinds = {one.get("kind") for one in columns}
    handled = {
        "number": "Numbers less their mean and divided by their deviation over all sites’ rows to learn from, cut at 8 "
        "deviations.",
        "flag": "Flags as 0 or 1.",
        "category": "An input for each code of a category.",
        "code": "Of open codes, an input for each of the most frequent ones.",
    }
    return {
        "9a": f"All {len(columns)} columns that the config declares, which it did before training. The outcome chose "
        "none of them. Why these is the authors’ to say.",
        "11": f"Where a value was missing: {missing}. No row was left out for it.",
        "12b": " ".join(text for kind, text in handled.items() if kind in kinds),
    }


# ---- evaluation ------------------------------------------------------------------------------------------------------

_MEASURES = {"auroc": "AUROC", "auprc": "AUPRC", "brier": "Brier score"}
_OTHERS = {"local_only": "models of each site alone", "pooled": "a model of all rows in one place",
           "all_but_me": "the study once more without each site"}  # fmt: skip


def _figures(run: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Measures of the first cohort that has any: name -> figure of the study's own model."""
    for cohort in cohorts(run):
        whole = cohort.get("all") or {}
        found = {key: told for key in _MEASURES if (told := figure(whole, joint(whole), key))}
        if found:
            return found
    return {}


def _intervals(run: dict[str, Any]) -> bool:
    return any("low" in told and "high" in told for told in _figures(run).values())


def _calibrated(run: dict[str, Any]) -> list[str]:
    """What of calibration was measured."""
    judged = cohorts(run)
    groups = dict.fromkeys(len(one["calibration"]) for one in judged if one.get("calibration"))
    found = [f"told against observed chances, in {' or '.join(map(spelled, groups))} groups"] if groups else []
    if any(one.get("slope") is not None for one in judged):
        found.append("calibration slope")
    return found + (["calibration intercept"] if any(one.get("intercept") is not None for one in judged) else [])


def _ways(run: dict[str, Any]) -> str:
    """By what the model was judged apart."""
    ways = [way for cohort in cohorts(run) for way in cohort.get("subgroups") or []]
    names = [way["name"].replace("_", " ") for way in ways if any("rows" in level for level in way["levels"])]
    return ", ".join(dict.fromkeys(names))


def _fair(run: dict[str, Any]) -> str:
    """Item 14: by which subgroups the model was judged, or was to be."""
    if ways := _ways(run):
        return f"Judged apart by {ways}: see “For whom does it work?”. Nothing was done to make it fairer."
    if asked := asked_ways(run):
        return f"Asked for: {', '.join(asked)}; too few to tell any. Nothing was done to make it fairer."
    none = "No subgroups of people were compared, as far as this run knows."
    return f"{none} Approaches to fairness are the authors’ to say."


def _decided(run: dict[str, Any]) -> bool:
    return any((one.get("decisions") or {}).get("thresholds") for one in cohorts(run))


def _judging(run: dict[str, Any]) -> dict[str, str]:
    if kept_at_sites(run):
        kept = words.kept(words.nouns(run))
        return {"12e": kept, "23a": kept, **({"14": _fair(run)} if asked_ways(run) else {})}
    if not _figures(run):
        return {
            "12e": "No measure was computed on held-back rows: no discrimination, no intervals, no calibration.",
            "23a": "Not measured on held-back rows.",
        }
    noun, judged = words.nouns(run), cohorts(run)
    sites = judged[0].get("sites") or []
    measures = ", ".join(_MEASURES[key] for key in _figures(run))
    calibrated = _calibrated(run)
    bootstrap = "95 % intervals by bootstrap of whole patients" if _intervals(run) else "no intervals were computed"
    if _intervals(run) and str((judged[0].get("all") or {}).get("how", "")).startswith("average"):
        bootstrap += f" at each {noun.site}, of their average from its errors"
    decided = "net benefit (decision curve)" if _decided(run) else "net benefit was not measured"
    beside = [text for key, text in _OTHERS.items() if any(key in _models(one) for one in judged)]
    told = {
        "12e": f"{measures}; {bootstrap}; {', '.join(calibrated) or 'calibration was not measured'}; {decided}. "
        + (f"Compared with {' and '.join(beside)}." if beside else "Compared with no other model."),
        "12f": "Not done: the model was neither updated nor recalibrated in this run.",
        "12g": "Each site’s held-back rows went through the trained model at once; its output became a chance by the "
        "logistic function.",
        "14": _fair(run),
        "15": "A chance from 0 to 1 for each row. No threshold is part of the model."
        + (" Thresholds from which one might act stand under “Is it worth acting on?”." if _decided(run) else ""),
        "16": f"The same {noun.sites} and the same inputs; rows that were held back had no part in training. The model "
        f"was not judged at {noun.sites} that had no part in it.",
    }
    if any("all_but_me" in _models(one) for one in judged):
        told["16"] = (
            f"The same {noun.sites} and the same inputs; rows that were held back had no part in training. It "
            f"was also trained without each {noun.site}, and judged at the one that had no part in it."
        )
    if len(sites) > 1:
        each = [one for one in sites if figure(one, joint(one), "auroc")]
        own = ", beside a model of its own" if any(figure(one, "local_only", "auroc") for one in each) else ""
        at = f"It was judged at {len(each)} of {len(sites)} {noun.sites} by its own {noun.rows}{own}." if each else ""
        few = f" The others have too few {noun.rows} to judge." if len(each) < len(sites) else ""
        none = f"No {noun.site} has enough {noun.rows} to judge it there."
        told["12d"] = f"One model for all {noun.sites}. {at + few if each else none}"
    return told


def _models(cohort: Mapping[str, Any]) -> set[str]:
    """Models that a cohort has figures of, of all rows or at any site."""
    everyone = [cohort.get("all") or {}, cohort.get("average") or {}, *(cohort.get("sites") or [])]
    return {name for one in everyone for name in one.get("models") or {}}


def _results(run: dict[str, Any]) -> dict[str, str]:
    told = {}
    noun = words.nouns(run)
    if run.get("weights_sha256"):
        told["22"] = (
            f"Weights (sha256 of the last round’s: {str(run['weights_sha256'])[:12]}...) and what was fitted are kept "
            "in the run’s folder under model/, for `learner_jax.load(...).predict(table)`. Who gets them is the "
            "authors’ to say."
        )
    if _figures(run):
        told["23a"] = " ".join(filter(None, (_performance(cohort) for cohort in cohorts(run))))
        told["24"] = "Not done, so there are no results of it."
        if len(cohorts(run)[0].get("sites") or []) > 1:
            verdicts = f"{words.by_site(cohorts(run)[0], noun)} " if _intervals(run) else ""
            told["23b"] = f"{verdicts}Each stands under “Results by {noun.site}”."
    notes = spelled(len(run.get("notes") or []))
    told["26"] = (
        "Those that the run knows of stand under “Limits”; those of the data and the question are the authors’."
    )
    told["26"] += f" Notes of the run among them: {notes}." if run.get("notes") else ""
    if _task(run)[0] in ("table", "readmission"):
        told["27a"] = (
            "A table to predict from is checked like those to learn from: what is of another type, range or code is "
            "refused, and a missing value is handled as in training."
        )
    return told


def _performance(cohort: dict[str, Any]) -> str:
    """A cohort's figures, with intervals where there are any."""
    whole = cohort.get("all") or {}
    parts = []
    for key, name in _MEASURES.items():
        told = figure(whole, joint(whole), key)
        if told:
            around = f" ({told['low']:.3f} to {told['high']:.3f})" if "low" in told and "high" in told else ""
            parts.append(f"{name} {told['value']:.3f}{around}")
    if cohort.get("slope") is not None:
        parts.append(f"calibration slope {cohort['slope']:.2f}")
    how = f", {whole['how']}" if whole.get("how") else ""
    return f"{str(cohort['name']).capitalize()}{how}: {', '.join(parts)}." if parts else ""
