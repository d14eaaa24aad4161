"""Predicted proteins judged: against scipy, scikit-learn and loops by hand, at home and from figures alone."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import root_mean_squared_error

from learner_jax.errors import DataError
from learner_jax.evaluation import bootstrap
from learner_jax.evaluation import correlation as c
from learner_jax.evaluation.proteins import check_summary, evaluate, join_sites, summarise_site

NAMES = ("CD3", "CD4", "CD8", "CD19", "PD-1")


pearsonr: Any = stats.pearsonr


def study(seed=0, sizes=(400, 150, 60, 6)):
    """Synthetic: four sites, five proteins, three models of falling quality; site s1 lacks CD8; s3 is tiny."""
    rng = np.random.default_rng(seed)
    site = np.repeat([f"s{at}" for at in range(len(sizes))], sizes)
    n = len(site)
    kind = rng.choice(["B", "T", "rare"], n, p=[0.4, 0.58, 0.02])
    y = rng.normal(size=(n, 5)) + 2 * (kind == "B")[:, None] * np.array([-1, -1, 0, 2, 0])
    seen = np.ones((n, 5), bool)
    seen[site == "s1", 2] = False
    told = {}
    for model, noise in (("pooled", 0.45), ("federated", 0.5), ("local_only", 1.5)):
        mean = y + noise * rng.normal(size=(n, 5))
        told[model] = {"mean": mean, "low": mean - 1.2816 * noise, "high": mean + 1.2816 * noise}
    y = np.where(seen, y, np.nan)  # what was not measured is not read
    return told, y, seen, site, kind


@pytest.fixture(scope="module")
def case():
    told, y, seen, site, kind = study()
    return told, y, seen, site, kind, evaluate(told, y, seen, site, kind, NAMES, 7, draws=300)["proteins"]


def masked(seed, n, count):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n, count)) * 10 ** rng.uniform(-3, 3, count) + rng.normal(size=count) * 100
    told = y * rng.normal(size=count) + rng.normal(size=(n, count))
    return y, told, rng.random((n, count)) < rng.uniform(0.2, 1.0, count)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 4))
def test_pearson_is_that_of_scipy(seed, n, count):
    y, told, seen = masked(seed, n, count)
    for at, figure in enumerate(c.pearson(y, told, seen)):
        rows = seen[:, at]
        if rows.sum() < 10:
            assert figure is None
            continue
        assert figure is not None
        oracle = pearsonr(y[rows, at], told[rows, at])
        ends = oracle.confidence_interval(0.95)
        assert figure["value"] == pytest.approx(oracle.statistic, abs=1e-9)
        assert (figure["low"], figure["high"]) == pytest.approx((ends.low, ends.high), abs=1e-7)
        assert figure["low"] <= figure["value"] <= figure["high"]


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 4))
def test_errors_and_coverage_are_those_of_loops(seed, n, count):
    y, told, seen = masked(seed, n, count)
    error, inside = c.rmse(y, told, seen), c.coverage(y, told - 1, told + 1, seen)
    for at in range(count):
        rows = np.flatnonzero(seen[:, at])
        if len(rows) >= 2:
            found = error[at]
            assert found is not None
            assert found["value"] == pytest.approx(root_mean_squared_error(y[rows, at], told[rows, at]))
        else:
            assert error[at] is None
        figure = inside[at]
        if len(rows) >= 10:
            hits = sum(1 for row in rows if told[row, at] - 1 <= y[row, at] <= told[row, at] + 1)
            oracle = stats.binomtest(hits, len(rows)).proportion_ci(method="wilson")
            assert figure is not None
            assert figure["value"] == hits / len(rows)
            assert (figure["low"], figure["high"]) == pytest.approx((oracle.low, oracle.high), abs=1e-9)
        else:
            assert figure is None


def test_no_correlation_with_what_does_not_vary():
    rng = np.random.default_rng(0)
    y, told, seen = rng.normal(size=(50, 3)), rng.normal(size=(50, 3)), np.ones((50, 3), bool)
    y[:, 0], told[:, 1] = 0.1, 1e8 + 0.1
    first, second, third = c.pearson(y, told, seen)
    assert first is None and second is None and third is not None


def test_perfect_is_one_and_inverted_is_minus_one():
    y, seen = np.random.default_rng(0).normal(size=(30, 1)), np.ones((30, 1), bool)
    for sign in (1, -1):
        figure = c.pearson(y, sign * 3 * y + 7, seen)[0]
        assert figure is not None
        assert figure["value"] == pytest.approx(sign)
        assert figure["low"] <= figure["value"] <= figure["high"]


def test_draws_are_those_of_a_loop_over_drawn_cells():
    """Each draw takes whole cells, the same for every model."""
    told, y, seen, _, _ = study()
    y, seen = y[:60].copy(), seen[:60].copy()
    seen[::3, 1] = False
    told = {m: {part: x[:60] for part, x in told[m].items()} for m in ("federated", "pooled")}
    found = c.resample(told, y, seen, bootstrap.generator(3, "a"), 40)
    counts = np.hstack(list(bootstrap.patient_counts(60, 300, bootstrap.generator(3, "a"), 40)))
    for draw in range(40):
        rows = np.repeat(np.arange(60), counts[:, draw])
        assert len(rows) == 60
        for model, one in told.items():
            for at in range(5):
                use = rows[seen[rows, at]]
                r = np.corrcoef(y[use, at], one["mean"][use, at])[0, 1]
                assert found[model]["r"][draw, at] == pytest.approx(r, abs=1e-9)
            each = seen[rows]
            assert found[model]["rmse"][draw] == pytest.approx(
                root_mean_squared_error(y[rows][each], one["mean"][rows][each])
            )
            hit = (one["low"][rows] <= y[rows]) & (y[rows] <= one["high"][rows])
            assert found[model]["coverage"][draw] == pytest.approx(hit[each].mean())


def test_figures_of_each_site_and_of_all(case):
    told, y, seen, site, kind, found = case
    assert found["names"] == list(NAMES)
    assert found["models"] == ["federated", "pooled", "local_only"]
    assert [one["name"] for one in found["sites"]] == ["s0", "s1", "s2", "s3"]
    for record in [found["all"], *found["sites"]]:
        rows = np.ones(len(y), bool) if record["name"] == "all sites" else site == record["name"]
        assert record["cells"] == rows.sum()
        assert record["measured"] == {p: n for p, n in zip(NAMES, seen[rows].sum(0)) if n}
        for model, one in record["models"].items():
            mean, low, high = (told[model][part][rows] for part in ("mean", "low", "high"))
            each, mine = seen[rows], y[rows]
            assert one["rmse"]["value"] == pytest.approx(root_mean_squared_error(mine[each], mean[each]))
            assert one["proteins"].keys() == record["measured"].keys()
            if record["name"] == "s3":
                assert one["r"] is None and one["coverage"] is None
                assert all(p["r"] is None for p in one["proteins"].values())
                continue
            r = {
                p: pearsonr(mine[each[:, at], at], mean[each[:, at], at]).statistic
                for at, p in enumerate(NAMES)
                if each[:, at].any()
            }
            assert {p: v["r"]["value"] for p, v in one["proteins"].items()} == pytest.approx(r)
            assert one["r"]["value"] == pytest.approx(np.mean(list(r.values())))
            assert one["coverage"]["value"] == pytest.approx(((low <= mine) & (mine <= high))[each].mean())
            assert one["r"]["low"] < one["r"]["value"] < one["r"]["high"]
        for one, means in record["cell_types"].items():
            of = rows & (kind == one)
            assert means["cells"] == of.sum()
            if of.sum() >= 10:
                for at, protein in enumerate(NAMES):
                    use = of & seen[:, at]
                    if use.sum() >= 10:
                        assert means["measured"][protein] == pytest.approx(y[use, at].mean())
                        assert means["predicted"][protein] == pytest.approx(told["federated"]["mean"][use, at].mean())
            else:
                assert means["measured"] == {}
    assert 0.75 < found["all"]["models"]["federated"]["coverage"]["value"] < 0.85


def test_a_gain_is_the_paired_difference(case):
    found = case[-1]
    for record in (found["all"], *found["sites"][:3], found["average"]):
        for other in ("pooled", "local_only"):
            gain = record["gain"][f"federated-{other}"]
            apart = record["models"]["federated"]["r"]["value"] - record["models"][other]["r"]["value"]
            assert gain["value"] == pytest.approx(apart)
            assert gain["low"] < gain["value"] < gain["high"]
    ours = found["all"]["models"]["federated"]["r"]
    gain = found["all"]["gain"]["federated-pooled"]
    assert gain["se"] < ours["se"] * 1.2  # two independent samples would have sqrt(2)


def test_intervals_of_r_hold_the_truth_as_often_as_they_say():
    """Bivariate normal with r = 0.8, 400 studies of 60 cells: 95 % by Fisher, about so by the bootstrap."""
    rng = np.random.default_rng(1)
    fisher = drawn = 0
    for at in range(400):
        y = rng.normal(size=(60, 1))
        told = 0.8 * y + 0.6 * rng.normal(size=(60, 1))
        record = evaluate({"m": {"mean": told}}, y, np.ones((60, 1), bool), ["a"] * 60, None, ["p"], at, draws=200)
        one = record["proteins"]["all"]["models"]["m"]
        fisher += one["proteins"]["p"]["r"]["low"] <= 0.8 <= one["proteins"]["p"]["r"]["high"]
        drawn += one["r"]["low"] <= 0.8 <= one["r"]["high"]
    assert 0.92 <= fisher / 400 <= 0.98
    assert 0.88 <= drawn / 400 <= 0.98


def test_json_without_nan(case):
    text = json.dumps(case[-1], allow_nan=False)
    assert json.loads(text) == case[-1]
    nothing = evaluate({"m": {"mean": np.zeros((3, 2))}}, np.ones((3, 2)), np.zeros((3, 2), bool), list("abc"), None,
                       ["p", "q"], 0)  # fmt: skip
    assert json.loads(json.dumps(nothing, allow_nan=False))["proteins"]["all"]["models"] == {}


def homes(case, **more):
    told, y, seen, site, kind, _ = case
    for name in sorted(set(site)):
        mine = site == name
        own = {m: {part: x[mine] for part, x in one.items()} for m, one in told.items() if m != "pooled"}
        yield summarise_site(own, y[mine], seen[mine], kind[mine], NAMES, 7, name=name, draws=300, **more)


def test_a_laboratory_at_home_finds_what_the_simulator_found(case):
    told, y, seen, site, kind, found = case
    mine = site == "s1"
    own = {m: {part: x[mine] for part, x in one.items()} for m, one in told.items()}
    home = summarise_site(own, y[mine], seen[mine], np.where(kind == "rare", "B", kind)[mine], NAMES, 7, name="s1",
                          draws=300)  # fmt: skip
    there = {key: value for key, value in found["sites"][1].items() if key != "cell_types"}
    assert {key: value for key, value in home.items() if key != "cell_types"} == there
    assert home["cell_types"]["T"] == found["sites"][1]["cell_types"]["T"]


def test_what_leaves_has_no_small_counts(case):
    tiny = list(homes(case))[3]
    nothing = {"measured": {}, "background": [], "models": {}, "gain": {}, "cell_types": {}}
    assert tiny == {"name": "s3", "cells": None, **nothing}
    site, kind = case[3], case[4]
    assert 0 < (kind[site == "s1"] == "rare").sum() < 10
    for record in list(homes(case))[:3]:
        kinds = {kind: one["cells"] for kind, one in record["cell_types"].items()}
        assert record["name"] != "s1" or "rare" not in kinds
        assert all(n >= 10 for n in kinds.values())
        left = record["cells"] - sum(kinds.values())
        assert left == 0 or left >= 10, "what is withheld can be had by taking away"


def test_few_cells_of_a_type_take_the_next_type_with_them():
    y = np.random.default_rng(0).normal(size=(60, 1))
    kind = ["A"] * 35 + ["B"] * 20 + ["C"] * 5
    found = summarise_site({"m": {"mean": y}}, y, np.ones((60, 1), bool), kind, ["p"], 0, draws=5)
    assert list(found["cell_types"]) == ["A"]
    unknown = [None] * 3 + kind[:-5] + ["A"] * 2
    found = summarise_site({"m": {"mean": y}}, y, np.ones((60, 1), bool), unknown, ["p"], 0, draws=5)
    assert list(found["cell_types"]) == ["A"]


def test_a_protein_measured_in_few_cells_does_not_leave():
    y = np.random.default_rng(0).normal(size=(60, 2))
    seen = np.ones((60, 2), bool)
    seen[9:, 1] = False
    found = summarise_site({"m": {"mean": y + 1}}, y, seen, None, ["p", "q"], 0, draws=5)
    assert found["measured"] == {"p": 60}
    assert list(found["models"]["m"]["proteins"]) == ["p"]
    assert check_summary(found) == found


def test_joined_sites_are_the_average_of_the_simulator(case):
    told, y, seen, site, kind, _ = case
    big = site != "s3"
    both = {m: {part: x[big] for part, x in told[m].items()} for m in ("federated", "local_only")}
    mild = np.where(kind == "rare", "T", kind)
    whole = evaluate(both, y[big], seen[big], site[big], mild[big], NAMES, 7, draws=300)["proteins"]
    joined = join_sites(
        [check_summary(json.loads(json.dumps(one))) for one in homes((told, y, seen, site, mild, None))]
    )
    joined = joined["proteins"]
    assert joined["all"] is None
    assert joined["names"] == list(NAMES)
    assert joined["average"]["withheld"] == 1
    assert whole["average"]["withheld"] == 0
    assert joined["average"] | {"withheld": 0} == whole["average"]
    average = joined["average"]["models"]["federated"]
    each = [one["models"]["federated"] for one in joined["sites"][:3]]
    assert average["r"]["value"] == pytest.approx(np.mean([one["r"]["value"] for one in each]))
    assert average["r"]["se"] == pytest.approx(np.sqrt(sum(one["r"]["se"] ** 2 for one in each)) / 3)
    assert average["proteins"]["CD8"]["r"]["value"] == pytest.approx(
        np.mean([each[at]["proteins"]["CD8"]["r"]["value"] for at in (0, 2)])  # s1 lacks it
    )
    entries = seen & big[:, None]
    mean = told["federated"]["mean"]
    assert average["rmse"]["value"] == pytest.approx(root_mean_squared_error(y[entries], mean[entries]))
    hit = (told["federated"]["low"] <= y) & (y <= told["federated"]["high"])
    assert average["coverage"]["value"] == pytest.approx(hit[entries].mean())
    t = entries[:, 0] & (mild == "T")
    assert joined["average"]["cell_types"]["T"]["measured"]["CD3"] == pytest.approx(y[t, 0].mean())


def test_antibodies_that_show_their_background_alone_are_named(case):
    told, y, seen, site, kind, _ = case
    flagged = {"s0": ["CD8", "PD-1"], "s1": ["CD8", "PD-1"], "s2": ["CD8"]}
    found = evaluate(told, y, seen, site, kind, NAMES, 7, draws=5, background=flagged)["proteins"]
    assert [one["background"] for one in found["sites"]] == [["CD8", "PD-1"], ["PD-1"], ["CD8"], []]
    assert found["all"]["background"] == []  # s3 measured both, and found them
    mine = site == "s0"
    own = {m: {part: x[mine] for part, x in one.items()} for m, one in told.items()}
    home = summarise_site(own, y[mine], seen[mine], None, NAMES, 7, name="s0", draws=5, background=["PD-1", "IgG1"])
    assert home["background"] == ["PD-1"]
    assert check_summary(home)["background"] == ["PD-1"]
    assert join_sites([home])["proteins"]["average"]["background"] == ["PD-1"]


def test_no_value_of_a_cell_leaves(case):
    """No measured value stands in what leaves, and its length does not grow with the cells."""
    told, y, seen, site, kind, _ = case
    for record in homes(case):
        flat = json.dumps(record)
        for row in np.flatnonzero(site == record["name"])[:20]:
            assert not any(f"{value!r}" in flat for value in y[row][seen[row]].tolist())
        assert len(flat) < 20_000


def honest(cells=120) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    y = rng.normal(size=(cells, 2))
    told = {
        m: {"mean": y + e * rng.normal(size=y.shape), "low": y - 1, "high": y + 1}
        for m, e in (("federated", 0.5), ("local_only", 1.0))
    }
    found = summarise_site(
        told, y, np.ones(y.shape, bool), ["A", "B"] * (cells // 2), ["p", "q"], 0, name="a", draws=20
    )
    return json.loads(json.dumps(found))


def test_what_sites_say_is_taken_and_what_they_add_goes_no_further():
    for cells in (0, 6, 10, 120):
        assert check_summary(honest(cells), ["p", "q"]) == honest(cells)
    more = honest()
    more["cell"], more["cell_types"]["A"]["each"] = [1.0], [0.1, 0.2]
    more["models"]["federated"]["proteins"]["p"]["r"]["values"] = [0.1]
    assert check_summary(more) == honest()


@pytest.mark.parametrize(
    "path, value",
    [
        ((), []), (("name",), None), (("cells",), 9), (("cells",), True), (("cells",), 10**20), (("cells",), None),
        (("measured",), []), (("background",), ["zz"]),
        (("background",), {}), (("background",), [1]), (("measured", "p"), 5), (("measured", "p"), 121),
        (("measured", "zz"), 50),
        (("models",), None), (("models", "federated"), {}), (("models", "federated", "r"), 0.5),
        (("models", "federated", "r", "value"), float("nan")), (("models", "federated", "r", "value"), 1.2),
        (("models", "federated", "rmse", "value"), -0.1), (("models", "federated", "coverage", "value"), 1.1),
        (("models", "federated", "r", "se"), -1.0), (("models", "federated", "r", "low"), 2),
        (("models", "federated", "proteins", "p"), None), (("models", "federated", "proteins", "p", "r"), "x"),
        (("models", "federated", "proteins"), {}), (("models", "x\n"), {}),
        (("gain", "federated-other"), None), (("gain", "federated-local_only"), {"value": 0.1}),
        (("cell_types", "A", "cells"), 3), (("cell_types", "A", "cells"), 100),
        (("cell_types", "A", "measured", "p"), float("inf")), (("cell_types", "A", "measured", "zz"), 1.0),
        (("cell_types", "A"), 7), (("cell_types", "x" * 121), {}),
    ],
)  # fmt: skip
def test_what_cannot_be_joined_is_refused(path, value):
    found: Any = honest()
    if not path:
        found = value
    else:
        place = found
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
    with pytest.raises(ValueError, match="in a site's summary of proteins"):
        check_summary(found)


def test_proteins_of_another_study_are_refused():
    with pytest.raises(ValueError, match="proteins of the study"):
        check_summary(honest(), ["p"])


def test_any_two_honest_summaries_can_be_joined():
    a, b = honest(), honest(6)
    b["name"] = "b"
    joined = join_sites([copy.deepcopy(b), a], ["q", "p"])["proteins"]
    assert joined["names"] == ["q", "p"]
    assert [one["name"] for one in joined["sites"]] == ["a", "b"]
    assert joined["average"]["models"]["federated"]["r"]["value"] == a["models"]["federated"]["r"]["value"]
    assert join_sites([])["proteins"]["average"]["models"] == {}


@pytest.mark.parametrize(
    "change, said",
    [
        ({"y": np.zeros((4, 3))}, r"2 proteins, \[cells, proteins\], got \(4, 3\)"),
        ({"seen": np.ones((3, 2), bool)}, "4 cells x 2 proteins in seen"),
        ({"predicted": {}}, "at least one model"),
        ({"predicted": {"m": {"mean": np.zeros((4, 1))}}}, "in 'm' mean"),
        ({"predicted": {"m": {"low": np.zeros((4, 2))}}}, "of 'm', got"),
        (
            {"predicted": {"m": {"mean": np.full((4, 2), np.nan)}}},
            "finite values in 'm' mean, got none for p in cell 0",
        ),
        ({"y": np.array([[1, 2], [3, np.nan], [1, 2], [1, 2]])}, "finite values in measured, got none for q in cell 1"),
        ({"site": ["a"]}, "a site for each of 4 cells"),
        ({"cell_type": ["a"]}, "a cell type for each of 4 cells"),
        ({"proteins": ["p", "p"]}, "name once"),
    ],
)
def test_bad_input_is_one_line(change, said):
    given: Any = {
        "predicted": {"m": {"mean": np.zeros((4, 2))}}, "y": np.ones((4, 2)), "seen": np.ones((4, 2), bool),
        "site": ["a"] * 4, "cell_type": None, "proteins": ["p", "q"], "seed": 0,
    }  # fmt: skip
    with pytest.raises(DataError, match=said) as found:
        evaluate(**(given | change))
    assert "\n" not in str(found.value)
