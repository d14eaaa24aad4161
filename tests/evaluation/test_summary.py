"""A study judged from rows, a site judged at home, and sites joined from their figures alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from learner_jax.errors import DataError
from learner_jax.evaluation import evaluate, join_sites, summarise_site
from learner_jax.evaluation.summary import check_summary


def study(seed=0, sizes=(900, 500, 260, 25)):
    """Synthetic: four sites, two cohorts, three models of falling quality; the last site is tiny."""
    rng = np.random.default_rng(seed)
    site = np.repeat([f"h{i:02d}" for i in range(len(sizes))], sizes)
    n = len(site)
    truth = rng.normal(-1.5, 1, n)
    y = (rng.random(n) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    told = {
        name: 1 / (1 + np.exp(-(truth + noise * rng.normal(size=n))))
        for name, noise in (("pooled", 0.3), ("federated", 0.4), ("local_only", 1.5))
    }
    group = rng.integers(0, n * 2 // 3, n)
    cohorts = {"heart failure": rng.random(n) < 0.5, "everyone": np.ones(n, bool)}
    return told, y, group, site, cohorts


@pytest.fixture(scope="module")
def case():
    told, y, group, site, cohorts = study()
    return told, y, group, site, cohorts, evaluate(told, y, group, site, cohorts, 7, draws=200)


def test_figures_are_those_of_scikit_learn(case):
    told, y, _, site, cohorts, found = case
    assert [c["name"] for c in found["cohorts"]] == ["heart failure", "everyone"]
    for cohort in found["cohorts"]:
        mask = cohorts[cohort["name"]]
        assert [s["name"] for s in cohort["sites"]] == ["h00", "h01", "h02", "h03"]
        for record in [cohort["all"], *cohort["sites"]]:
            mine = mask if record["name"] == "all sites" else mask & (site == record["name"])
            assert (record["rows"], record["events"]) == (mine.sum(), y[mine].sum())
            assert list(record["models"]) == ["federated", "pooled", "local_only"]
            for model, row in record["models"].items():
                assert row["brier"]["value"] == pytest.approx(brier_score_loss(y[mine], told[model][mine]))
                if record["name"] != "h03":
                    assert row["auroc"]["value"] == pytest.approx(roc_auc_score(y[mine], told[model][mine]))
                    assert row["auprc"]["value"] == pytest.approx(average_precision_score(y[mine], told[model][mine]))
                    assert row["auroc"]["low"] < row["auroc"]["value"] < row["auroc"]["high"]
            if record["name"] != "h03":
                gain = record["gain"]["federated-local_only"]["auroc"]
                apart = (
                    record["models"]["federated"]["auroc"]["value"] - record["models"]["local_only"]["auroc"]["value"]
                )
                assert gain["value"] == pytest.approx(apart)
                assert gain["low"] < gain["value"] < gain["high"]
        assert cohort["all"]["how"] == "all rows together"
        assert sum(row["rows"] for row in cohort["calibration"]) == mask.sum()
        assert 0.5 < cohort["slope"] < 1.2


def test_differences_are_paired(case):
    """Models that nearly agree: the interval of the difference is far narrower than of either figure."""
    found = case[-1]["cohorts"][1]["all"]
    width = lambda figure: figure["high"] - figure["low"]  # noqa: E731
    alone = width(found["models"]["federated"]["auroc"])
    assert width(found["gain"]["federated-pooled"]["auroc"]) < 0.6 * alone


def test_patients_of_two_sites_with_the_same_number_are_two():
    y = np.tile([0, 1], 40)
    found = evaluate({"m": np.full(80, 0.5)}, y, np.tile(np.arange(20), 4), np.repeat(["a", "b"], 40), None, 0, draws=5)
    assert found["cohorts"][0]["all"]["patients"] == 40
    assert [s["patients"] for s in found["cohorts"][0]["sites"]] == [20, 20]


def test_too_few_to_judge_has_no_ranking(case):
    for cohort in case[-1]["cohorts"]:
        tiny = cohort["sites"][3]
        assert tiny["events"] < 10
        for row in tiny["models"].values():
            assert row.get("auroc") is None
            assert row["brier"] is not None


def test_a_hospital_at_home_finds_what_the_simulator_found(case):
    told, y, group, site, cohorts, found = case
    mine = site == "h01"
    home = summarise_site(
        {m: s[mine] for m, s in told.items()},
        y[mine],
        group[mine],
        {name: mask[mine] for name, mask in cohorts.items()},
        7,
        name="h01",
        draws=200,
    )
    for cohort in found["cohorts"]:
        assert home[cohort["name"]] == cohort["sites"][1]


def homes(case, floor=10):
    told, y, group, site, cohorts, _ = case
    for name in np.unique(site):
        mine = site == name
        scores = {m: s[mine] for m, s in told.items() if m != "pooled"}
        masks = {cohort: mask[mine] for cohort, mask in cohorts.items()}
        yield summarise_site(scores, y[mine], group[mine], masks, 7, name=str(name), draws=200, floor=floor)


def test_small_counts_stay_at_home(case):
    tiny = list(homes(case))[3]["everyone"]
    assert tiny["events"] is None
    assert tiny["models"] == {}
    assert tiny["gain"] == {}
    assert tiny["rows"] == 25
    nearly = summarise_site({"m": [0.5] * 25}, [1] * 20 + [0] * 5, None, None, 0, name="x", draws=5)["everyone"]
    assert nearly["events"] is None  # rows - events would tell the 5


def test_join_averages_sites_and_says_so(case):
    _, y, _, site, cohorts, _ = case
    joined = join_sites(list(homes(case)))
    for cohort in joined["cohorts"]:
        mask = cohorts[cohort["name"]]
        row = cohort["all"]
        assert row["how"] == "average over sites"
        assert (row["rows"], row["withheld"], row["judged"]) == (mask.sum(), 1, 3)
        assert row["events"] == y[mask & (site != "h03")].sum()
        judged = cohort["sites"][:3]
        weights = [s["models"]["federated"]["auroc"]["se"] ** -2 for s in judged]
        for model in ("federated", "local_only"):
            known = [s["models"][model]["auroc"]["value"] for s in judged]
            assert row["models"][model]["auroc"]["value"] == pytest.approx(np.average(known, weights=weights))
        joint = row["models"]["federated"]["auroc"]
        assert joint["se"] == pytest.approx(sum(weights) ** -0.5)
        assert joint["high"] - joint["low"] == pytest.approx(2 * 1.959964 * joint["se"])
        gain = row["gain"]["federated-local_only"]["auroc"]["value"]
        assert gain == pytest.approx(joint["value"] - row["models"]["local_only"]["auroc"]["value"])
        assert "pooled" not in row["models"]


def test_joined_brier_is_that_of_all_rows_together(case):
    told, y, *_ = case
    joined = join_sites(list(homes(case, floor=0)))["cohorts"][1]["all"]
    expected = brier_score_loss(y, told["federated"])
    assert joined["models"]["federated"]["brier"]["value"] == pytest.approx(expected, rel=1e-6)
    assert joined["models"]["federated"]["told"] == pytest.approx(told["federated"].mean(), rel=1e-6)


def test_average_is_that_of_the_simulator(case):
    joined = join_sites(list(homes(case, floor=0)))
    for mine, simulated in zip(joined["cohorts"], case[-1]["cohorts"], strict=True):
        assert mine["all"]["models"]["federated"] == simulated["average"]["models"]["federated"]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_one_class_and_empty_sites_are_judged_as_far_as_they_go(share):
    told, y, group, site, cohorts = study()
    y = np.where(site == "h02", share, y)
    cohorts["heart failure"] &= site != "h01"  # no row of h01
    found = evaluate(told, y, group, site, cohorts, 1, draws=20)
    assert found["cohorts"][0]["sites"][1]["rows"] == 0
    assert found["cohorts"][0]["sites"][1]["models"] == {}
    assert found["cohorts"][1]["sites"][2]["models"]["federated"].get("auroc") is None
    assert "NaN" not in json.dumps(found)
    empty = evaluate(told, y, group, site, {"nobody": np.zeros(len(y), bool)}, 1, draws=20)
    assert empty["cohorts"][0]["all"]["rows"] == 0


def test_joining_nothing():
    assert join_sites([]) == {"cohorts": []}
    only = summarise_site({"m": [0.1, 0.2]}, [0, 1], None, None, 0, name="a", draws=5)
    assert join_sites([only])["cohorts"][0]["all"]["models"] == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": [0, 2]}, "expected outcomes 0 or 1, got 2"),
        ({"y": [0, float("nan")]}, "0 or 1, got nan"),
        ({"scores": {}}, "at least one model"),
        ({"scores": {"m": [0.1]}}, "expected 2 rows in 'm'"),
        ({"scores": {"m": [0.1, -3.0]}}, r"told chances of 'm' in \[0, 1\].*got -3.0 in row 1"),
        ({"scores": {"m": [float("nan"), 0.1]}}, "got nan in row 0"),
        ({"cohorts": {"c": [True]}}, "expected 2 rows in 'c'"),
        ({"site": ["a"]}, "a site for each of 2 rows"),
    ],
)
def test_wrong_rows_are_one_clear_line(change, words):
    given = {"scores": {"m": [0.1, 0.2]}, "y": [0, 1], "group": None, "site": ["a", "a"], "cohorts": None, "seed": 0}
    with pytest.raises(DataError, match=words) as caught:
        evaluate(**(given | change))
    assert "\n" not in str(caught.value)


def test_histograms_that_sites_let_leave_tell_what_all_rows_together_do():
    """Within the bound; exact where a decision is made; and only where it was asked for and enough rows are there."""
    draw = np.random.default_rng(4)
    site = np.repeat(["a", "b", "c", "few"], [700, 500, 300, 15])
    z = draw.normal(-1.5, 0.8, len(site)) + (site == "b") * 0.7
    told, y = 1 / (1 + np.exp(-z)), (draw.random(len(site)) < 1 / (1 + np.exp(-z))).astype(float)
    group = np.arange(len(site))
    homes = []
    for name in ("a", "b", "c", "few"):
        m = site == name
        scores = {"federated": told[m], "local_only": told[m]}
        homes.append(summarise_site(scores, y[m], group[m], None, 0, name=name, draws=20, release=True))
    assert "histogram" not in homes[3]["everyone"]  # too few to judge: nothing leaves
    told_ = [check_summary(json.loads(json.dumps(home)), release=True) for home in homes]
    (joint,) = join_sites(told_)["cohorts"]
    sent = site != "few"
    assert joint["together"]["sites"] == 3 and joint["together"]["rows"] == sent.sum()
    value, bound = joint["together"]["auroc"]["value"], joint["together"]["auroc"]["bound"]
    assert abs(value - roc_auc_score(y[sent], told[sent])) <= bound < 0.01
    assert value != pytest.approx(
        joint["all"]["models"]["federated"]["auroc"]["value"], abs=1e-3
    )  # no average of sites
    for one in joint["decisions"]["thresholds"]:
        called = told[sent] >= one["threshold"]
        odds = one["threshold"] / (1 - one["threshold"])
        exact = ((called & (y[sent] == 1)).sum() - odds * (called & (y[sent] == 0)).sum()) / sent.sum()
        assert one["net_benefit"] == pytest.approx(exact, abs=1e-12)
    assert sum(row["rows"] for row in joint["calibration"]) == sent.sum()
    assert all("histogram" not in one for one in joint["sites"])
    quiet = summarise_site({"federated": told[:700]}, y[:700], group[:700], None, 0, name="a", draws=20)
    assert "histogram" not in quiet["everyone"] and "together" not in join_sites([quiet])["cohorts"][0]


@pytest.mark.parametrize("part, value", [("edges", [0.5]), ("events", "many"), ("others", [1]), ("others", None)])
def test_a_histogram_that_is_none_is_refused(part, value):
    draw = np.random.default_rng(0)
    told, y = draw.random(300), draw.integers(0, 2, 300).astype(float)
    home = summarise_site({"federated": told}, y, None, None, 0, name="a", draws=20, release=True)
    home["everyone"]["histogram"][part] = value
    with pytest.raises(ValueError, match="histogram"):
        check_summary(home, release=True)


def test_a_histogram_of_other_rows_than_are_told_is_refused():
    draw = np.random.default_rng(0)
    told, y = draw.random(300), draw.integers(0, 2, 300).astype(float)
    home = summarise_site({"federated": told}, y, None, None, 0, name="a", draws=20, release=True)
    home["everyone"]["histogram"]["events"][3] += 1
    with pytest.raises(ValueError, match="as many events as are told"):
        check_summary(home, release=True)


def test_what_leaves_is_counts_of_one_cohort_and_only_where_it_was_asked_for():
    draw = np.random.default_rng(0)
    told, y = draw.random(300), draw.integers(0, 2, 300).astype(float)
    cohorts = {"nearly all": np.arange(300) > 1, "everyone": np.ones(300, bool)}
    home = summarise_site({"federated": told}, y, None, cohorts, 0, name="a", draws=20, release=True)
    assert "histogram" not in home["nearly all"]  # its difference from the other would be two patients
    assert set(home["everyone"]["histogram"]) == {"edges", "events", "others"}  # no told chance
    assert "histogram" in check_summary(home, release=True)["everyone"]
    assert "histogram" not in check_summary(home)["everyone"]


def test_a_histogram_beside_nothing_is_refused():
    draw = np.random.default_rng(0)
    told, y = draw.random(300), draw.integers(0, 2, 300).astype(float)
    home = summarise_site({"federated": told}, y, None, None, 0, name="a", draws=20, release=True)
    home["everyone"] |= {"models": {}, "gain": {}}
    with pytest.raises(ValueError, match="figures beside a histogram"):
        check_summary(home, release=True)
