"""Sentences: each judgement by its interval, and never more than the figures carry."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner_jax.reports import words
from learner_jax.reports.acted import acted_on
from learner_jax.reports.html import page
from learner_jax.reports.numerals import duration, hundred, many, signed, size, span, spelled


def figure(value, low, high):
    return {"value": value, "low": low, "high": high, "se": (high - low) / 4}


@pytest.mark.parametrize(
    ("difference", "word"),
    [
        (figure(0.03, 0.01, 0.05), "gained"),
        (figure(-0.03, -0.05, -0.01), "better alone"),
        (figure(0.03, -0.001, 0.061), "cannot be told"),
        (figure(-0.02, -0.05, 0.01), "cannot be told"),
        (figure(0.001, -0.004, 0.006), "as good alone"),
        (figure(0.0, 0.0, 0.0), "as good alone"),
        (None, "too few to judge"),
    ],
)
def test_a_gain_is_judged_by_its_interval(difference, word):
    assert words.judge(difference) == word


@given(st.floats(-0.5, 0.5), st.floats(0, 0.3), st.floats(0, 0.3))
def test_a_sure_word_needs_an_interval_without_zero(value, below, above):
    found = words.judge(figure(value, value - below, value + above))
    assert (found in ("gained", "better alone")) == (not value - below <= 0 <= value + above)
    assert (found == "gained") <= (value > 0)


def test_chance():
    assert words.chance(figure(0.6, 0.55, 0.65)) == "better than chance"
    assert words.chance(figure(0.6, 0.49, 0.7)) == "not yet certain"
    assert words.chance(figure(0.4, 0.3, 0.49)) == "worse than chance"
    assert words.chance(None) == "too few to judge"


def changed(result, part, pair, difference):
    """The result with another gain in the first cohort."""
    result = copy.deepcopy(result)
    result["evaluation"]["cohorts"][0][part]["gain"][pair]["auroc"] = difference
    return result


def test_three_sentences_of_a_simulation(make):
    found = words.sentences(make())
    assert len(found) == 3
    area = make()["evaluation"]["cohorts"][0]["all"]["models"]["federated"]["auroc"]
    assert found[0].startswith("Shown one patient who came back and one who did not, the model picks the right one ")
    assert f"{100 * area['value']:.0f} times in 100 ({100 * area['low']:.0f} to {100 * area['high']:.0f}" in found[0]
    assert "heart failure" in found[0]
    assert "gained by learning together" in found[1]
    assert "one place" in found[2]


@pytest.mark.parametrize(
    ("difference", "said", "unsaid"),
    [
        (figure(0.047, 0.037, 0.056), "gained by learning together: 4.7 more pairs in 100", "not"),
        (figure(-0.047, -0.056, -0.037), "did not gain: each alone ranks 4.7 more pairs in 100 correctly", "gained"),
        (figure(0.002, -0.004, 0.008), "did not gain: each alone ranks as well, to within one pair in 100", "gained"),
        (figure(0.02, -0.01, 0.05), "cannot be told from these stays: together less alone is −1.0 to 5.0", "gained by"),
        (None, "cannot be told: too few stays", "gained by"),
    ],
)
def test_whether_the_hospitals_gained(make, difference, said, unsaid):
    found = str(words.gained(changed(make(), "average", "federated-local_only", difference)))
    assert said in found
    assert unsaid not in found


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (figure(-0.014, -0.022, -0.006), "would give 1.4 more pairs in 100 ranked correctly (0.6 to 2.2)"),
        (figure(0.014, 0.006, 0.022), "would give 1.4 fewer pairs in 100 ranked correctly (0.6 to 2.2)"),
        (figure(-0.001, -0.006, 0.004), "as good as all data in one place, to within one pair in 100"),
        (figure(-0.01, -0.03, 0.01), "would do better cannot be told"),
    ],
)
def test_against_data_in_one_place(make, difference, said):
    assert said in str(words.against_pooled(changed(make(), "all", "federated-pooled", difference)))


def test_the_gain_is_that_of_the_average_site_not_of_mixed_models(make):
    """On all rows together, "alone" ranks each row by its own site's model; that comparison is not told."""
    result = changed(make(), "all", "federated-local_only", figure(0.4, 0.39, 0.41))
    assert "40" not in str(words.gained(result))


def test_a_federation_says_nothing_of_pooled_data(make):
    found = words.sentences(make(federation=True))
    assert len(found) == 3
    assert not any("one place" in sentence for sentence in found)
    assert "gained" in found[1]


def test_told_and_came_are_of_the_same_hospitals(make):
    """Hospitals that withheld their events must not count as hospitals without events."""
    cohort = make(federation=True)["evaluation"]["cohorts"][0]
    open_ = [site for site in cohort["sites"] if site["events"] is not None]
    assert len(open_) < len(cohort["sites"])
    share = sum(site["events"] for site in open_) / sum(site["rows"] for site in open_)
    say, note = words.calibrated(cohort, words.TASKS["readmission"])
    assert f"{100 * share:.1f} %" in say.figure
    assert "stay at the hospitals" in note


def test_by_site_counts_every_site_once(make):
    cohort = make()["evaluation"]["cohorts"][0]
    noun = words.TASKS["readmission"]
    verdicts = [words.verdict(site, True) for site in cohort["sites"]]
    assert len(verdicts) == 10
    found = str(words.by_site(cohort, noun))
    assert f"at {spelled(verdicts.count('gained'))} of ten hospitals" in found
    assert f"Cannot be told at {spelled(verdicts.count('cannot be told'))}." in found
    assert "Two have too few stays to judge" in found
    assert words.by_luck(cohort, noun) == ""


def test_many_sites_come_with_a_warning_about_luck(make):
    result = make(sites=200, whom=("everyone",))
    assert "by luck alone" in words.by_luck(result["evaluation"]["cohorts"][0], words.nouns(result))


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("mse", "Its error went from 1.29 to 0.408 (mse, at the best learning round)."),
        ("accuracy", "The model answers right 87 times in 100"),
    ],
)
def test_without_auroc_it_tells_what_was_watched(make, metric, said):
    found = words.sentences(make(judged=False, task="x", metric=metric))
    assert len(found) == 3
    assert said in found[0]


def test_one_round_and_nothing(make):
    assert str(words.learning(make(rounds=1))) == "There was one learning round, so there is no curve yet."
    assert "1 learning round took" in str(words.cost(make(rounds=1)))
    bare = {"study": {}, "kind": "simulation", "rounds": 0, "curve": []}
    assert len(words.sentences(bare)) == 3


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ([9.0, 0.3, 0.5, 0.4], ", a round after the first mostly 0.4 s;"),
        ([9.0, 0.3, 0.5], ", a round after the first mostly 0.4 s;"),
        ([9.0, 0.3], ", the first round 9 s with compiling and the second 0.3 s;"),
        ([9.0], ", the one round 9 s with compiling;"),
        ([], " took 0 ms;"),
    ],
)
def test_what_a_round_takes_is_told_without_the_one_that_compiles(seconds, said):
    rows = [{"round": at, "seconds": s} for at, s in enumerate(seconds, 1)]
    found = str(words.cost({"study": {}, "kind": "simulation", "rounds": len(rows), "curve": rows}))
    assert said in found


@pytest.mark.parametrize(
    ("whole", "took", "besides"),
    [
        (111.0, "3 rounds took 37 s,", " The whole run took 1 min 51 s; the rest of it is starting, waiting, judging."),
        (37.4, "3 rounds took 37 s,", ""),
        (12.0, "3 rounds took 37 s,", ""),  # went on after a stop: its whole time is only since then
    ],
)
def test_the_rounds_own_time_is_told_and_the_whole_runs_beside_it(whole, took, besides):
    rows = [{"round": at, "seconds": s} for at, s in enumerate((35.0, 1.0, 1.0), 1)]
    result = {"study": {}, "kind": "federation", "rounds": 3, "curve": rows, "seconds": whole}
    found = str(words.cost(result)).replace("learning ", "")
    assert found.startswith(took)
    assert found.partition("went to them.")[2] == besides


def curve(values, name="valid/auroc"):
    return {"study": {"target": name}, "curve": [{"round": at, name: v} for at, v in enumerate(values, 1)]}


@pytest.mark.parametrize(
    ("values", "name", "said"),
    [
        ([0.5 + 0.002 * at for at in range(40)], "valid/auroc", "still improved at the end: by 1.8 pairs in 100"),
        ([0.5] + [0.6] * 39, "valid/auroc", "had settled"),
        ([0.5, 0.7] + [0.7 - 0.004 * at for at in range(20)], "valid/auroc", "best before the end"),
        ([0.6, 0.55, 0.5, 0.5], "valid/auroc", "learned nothing"),
        ([2.0 - 0.01 * at for at in range(40)], "valid/loss", "still improved"),
        ([1.0, 0.5] + [0.5 + 0.02 * at for at in range(20)], "valid/loss", "best before the end"),
    ],
)
def test_how_the_curve_went(values, name, said):
    assert said in str(words.learning(curve(values, name)))


def test_lost_sites_are_named(make):
    found = words.lost(make(federation=True))
    assert found == "In 2 of 50 rounds an answer was waited for in vain: Harbour Clinic (2), St. Anna (1)."
    assert words.lost(make()) == ""


def test_words_of_ones_own(make):
    result = {**make(), "words": {"row": "cell", "having": "that is a T cell", "lacking": "that is not", "odd": "x"}}
    assert "Shown one cell that is a T cell and one that is not" in str(words.headline(result))


def test_numerals():
    assert [spelled(n) for n in (0, 6, 12, 13)] == ["no", "six", "twelve", "13"]
    assert many(1, "site", "sites") == "one site"
    assert hundred(0.613) == "61"
    assert signed(-0.014) == "−1.4"
    assert signed(0.00001) == "0.0"
    assert span(-0.012, 0.02, 1) == "−1.2 to 2.0"
    assert [size(n) for n in (12, 74_000, 2_800_000, 740e6, 3.1e9)] == [
        "12 bytes",
        "74.0 kB",
        "2.8 MB",
        "740 MB",
        "3.1 GB",
    ]
    found = [duration(s) for s in (0.012, 0.331, 16.4, 125, 4200)]
    assert found == ["12 ms", "0.33 s", "16 s", "2 min 5 s", "1 h 10 min"]


def judged_at(result, names):
    """The result where the joint model can be judged at these sites alone."""
    result = copy.deepcopy(result)
    for cohort in result["evaluation"]["cohorts"]:
        for site in cohort["sites"]:
            if site["name"] not in names:
                for model in site["models"].values():
                    for ranking in ("auroc", "auprc"):
                        model.pop(ranking, None)
                site["gain"] = {pair: {"brier": gain["brier"]} for pair, gain in site["gain"].items()}
    return result


def test_an_average_says_over_how_many_sites_it_is(make):
    cohort = judged_at(make(), ("Riverside University", "Holy Cross"))["evaluation"]["cohorts"][0]
    noun = words.TASKS["readmission"]
    rows = {site["name"]: site["rows"] for site in cohort["sites"]}
    of = rows["Riverside University"] + rows["Holy Cross"]
    assert words.averaged(cohort) == (2, 10, of)
    assert words.average_name(cohort, noun) == "average hospital (2 of 10 hospitals)"
    whole = make(sites=4, whom=("everyone",))["evaluation"]["cohorts"][0]
    whole["sites"] = [site for site in whole["sites"] if "auroc" in site["models"]["federated"]]
    assert words.average_name(whole, noun) == "average hospital"


@pytest.mark.parametrize(("rows", "events", "held"), [(3, 0, True), (300, 9, True), (300, 295, True), (300, 10, False)])
def test_too_few_watching_rows_hold_the_word_back(make, rows, events, held):
    values = [0.5 + 0.002 * at for at in range(40)]
    result = {**curve(values), "data": {"dealt": {"valid": {"rows": rows, "patients": 3, "events": events}}}}
    found = str(words.learning(result))
    assert ("still improved at the end: by" in found) == (not held)
    told = f"cannot be told by {rows} cases set aside for watching, {events or 'none'} with the outcome."
    assert (told in found) == held
    whole = {**make(), "data": result["data"]}
    known = f"Round 43 was chosen by {rows} stays set aside for watching, {events or 'none'} who came back: too few"
    assert (known in page(whole)) == held


@pytest.mark.parametrize(("events", "share", "held"), [(9, 0.1, True), (200, 0.1, False), (200, 0.001, True)])
def test_acting_on_the_highest_few_is_not_told_of_a_handful(make, events, share, held):
    result = make(sites=4, whom=("everyone",))
    found = result["evaluation"]["cohorts"][0]["decisions"]
    one = {"asked": 0.1, "share": share, "threshold": 0.3, "sensitivity": 0.2, "precision": 0.4}
    found |= {"rows": 1000, "events": events, "highest": [one]}
    block = acted_on(result, words.nouns(result))
    assert block
    assert ("cannot be told" in str(block["say"])) == held and ("finds" in str(block["say"])) == (not held)
    assert ("cannot be told" in block["useful"]) == (events < 10)


@pytest.mark.parametrize("models", [{}, {"federated": {"brier": {"value": 0.1}}}])
def test_where_no_site_can_be_judged_none_is_said_to_be_no_better(models):
    sites = [{"name": name, "rows": 9, "events": 3, "models": models, "gain": {}} for name in "abc"]
    said = str(words.by_site({"name": "everyone", "sites": sites}, words.Nouns()))
    assert said == "None of three sites has enough cases to judge it."


def test_one_round_is_no_rounds(make):
    assert str(words.learning(curve([0.5, 0.6]))).endswith("in the last learning round.")
