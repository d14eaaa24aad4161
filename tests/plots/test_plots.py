"""Figures: is what is drawn what was found? Read back from the axes, not from the picture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from scipy.stats import pearsonr

from learner_jax import plots as pl
from learner_jax.data.samples import sample_path
from learner_jax.errors import DataError
from learner_jax.evaluation.proteins import evaluate, join_sites, summarise_site
from learner_jax.plots.cells import otsu
from learner_jax.plots.measured import judged, pairs

DRAW: dict[str, Any] = {
    "measured_against_predicted": pl.measured_against_predicted, "umap_pairs": pl.umap_pairs,
    "by_cell_type": pl.by_cell_type, "correlation_bars": pl.correlation_bars, "coverage": pl.coverage,
    "compared": pl.compared, "round_curve": pl.round_curve,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _closed():
    """The user's settings stay as they were; figures are closed."""
    before = dict(plt.rcParams)
    yield
    plt.close("all")
    assert dict(plt.rcParams) == before


@pytest.fixture(scope="module")
def cells() -> Any:
    """The shipped sample, with predictions that are its measured values and noise: real cells, made-up predictions."""
    found: Any = anndata.read_h5ad(sample_path("pbmc10k"))
    counts = found.obsm["protein_expression"].to_numpy(float)
    logs, site = np.log1p(counts), found.obs["site"].to_numpy()
    y = np.empty_like(logs)
    for name in set(site):
        y[site == name] = (logs[site == name] - logs[site == name].mean(0)) / logs[site == name].std(0)
    told = y + np.linspace(0.2, 2.0, y.shape[1]) * np.random.default_rng(0).normal(size=y.shape)
    names = found.obsm["protein_expression"].columns
    found.obsm["protein_predicted"] = pd.DataFrame(told, index=found.obs_names, columns=names)
    found.obsm["protein_interval"] = np.stack([told - 1, told + 1], -1)
    found.obsm["X_umap"] = np.random.default_rng(1).normal(size=(len(y), 2))
    found.obs["cell_type"] = found.obs["protein_cluster"]
    found.uns["z"] = y
    return found


def study(seed=0, sites=3, model="federated"):
    rng = np.random.default_rng(seed)
    site = np.repeat([f"s{at:02d}" for at in range(sites)], 60)
    y = rng.normal(size=(len(site), 4))
    told = {}
    for name, noise in ((model, 0.5), ("local_only", 1.2), ("pooled", 0.45)):
        mean = y + noise * np.array([0.2, 1, 2, 4]) * rng.normal(size=y.shape)
        told[name] = {"mean": mean, "low": mean - 1.28 * noise, "high": mean + 1.28 * noise}
    seen = np.ones(y.shape, bool)
    seen[:60, 1] = False
    return evaluate(told, y, seen, site, None, ["CD3", "CD4", "CD8", "CD19"], 0, draws=50)


@pytest.fixture(scope="module")
def result():
    return study()


def texts(ax) -> str:
    found = [ax.get_title(loc=loc) for loc in ("left", "center", "right")] + [ax.get_xlabel(), ax.get_ylabel()]
    return " | ".join(found + [one.get_text() for one in ax.texts])


def test_hexagons_hold_every_cell_and_the_title_its_r(cells):
    grid = pl.measured_against_predicted(cells)
    names = list(cells.obsm["protein_expression"].columns)
    assert len(grid) == len(names) == 14
    for at, (ax, name) in enumerate(zip(grid, names)):
        y, told = cells.uns["z"][:, at], cells.obsm["protein_predicted"].to_numpy()[:, at]
        r: Any = pearsonr(y, told)
        assert ax.get_title(loc="left") == f"{name}   r = {r.statistic:.2f}"
        drawn = np.asarray(ax.collections[0].get_array())
        middle = np.average(np.asarray(ax.collections[0].get_offsets()), axis=0, weights=drawn)
        assert middle == pytest.approx([told.mean(), y.mean()], abs=0.1)
        spread = np.average((np.asarray(ax.collections[0].get_offsets()) - middle) ** 2, axis=0, weights=drawn)
        assert spread == pytest.approx([told.var(), y.var()], rel=0.25)
        inside = ax.get_xlim()[0] < told
        assert 0.99 * len(y) <= drawn.sum() <= inside.sum()
        assert ax.get_xlim() == ax.get_ylim()
        line = ax.lines[0]
        assert np.array_equal(line.get_xdata(), line.get_ydata())


def test_cells_that_were_not_measured_are_not_drawn(cells):
    some: Any = cells.copy()
    frame = some.obsm["protein_expression"].astype(float)
    frame.loc[(some.obs["site"] == "s1").to_numpy(), "CD3"] = np.nan
    some.obsm["protein_expression"] = frame
    rows = (some.obs["site"] != "s1").to_numpy()
    found = pairs(some, proteins=["CD3"])
    assert np.array_equal(np.isfinite(found.y[:, 0]), rows)
    ax = pl.measured_against_predicted(some, proteins=["CD3"])[0]
    assert 0.99 * rows.sum() <= np.asarray(ax.collections[0].get_array()).sum() <= rows.sum()
    top, bottom = pl.umap_pairs(some, ["CD3"])
    assert sorted(len(one.get_offsets()) for one in top[0].collections) == sorted([rows.sum(), (~rows).sum()])
    assert [len(one.get_offsets()) for one in bottom[0].collections] == [2000]


def test_arrays_will_do_and_a_single_protein_takes_given_axes(cells):
    y, told = cells.uns["z"], cells.obsm["protein_predicted"].to_numpy()
    grid = pl.measured_against_predicted(y, told, proteins=[f"p{at}" for at in range(14)])
    assert grid[3].get_title(loc="left").startswith("p3   r = ")
    _, ax = plt.subplots()
    assert pl.measured_against_predicted(cells, proteins=["CD4"], ax=ax)[0] is ax
    assert "z-scored within site" in ax.get_ylabel()
    with pytest.raises(DataError, match="one protein to draw on the axes given, got 14"):
        pl.measured_against_predicted(cells, ax=ax)


@pytest.mark.parametrize("target", ["within_site", "clr_per_cell", "log1p", "none"])
def test_counts_come_into_the_units_of_the_predictions(cells, target):
    counts = cells.obsm["protein_expression"].to_numpy(float)
    logs = np.log1p(counts)
    oracle = {
        "within_site": cells.uns["z"],
        "clr_per_cell": logs - logs.mean(1, keepdims=True),
        "log1p": logs,
        "none": counts,
    }
    assert pairs(cells, target=target).y == pytest.approx(oracle[target])
    some = cells.copy()
    some.uns["protein_target"] = target
    assert pairs(some).y == pytest.approx(oracle[target])


def test_bars_are_the_means_and_dots_the_sites(result):
    ax = pl.correlation_bars(result, background=["CD19"])
    average = result["proteins"]["average"]["models"]["federated"]["proteins"]
    order = sorted(average, key=lambda p: -average[p]["r"]["value"])
    assert [label.get_text() for label in ax.get_xticklabels()] == order == ["CD3", "CD4", "CD8", "CD19"]
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([average[p]["r"]["value"] for p in order])
    for at, protein in enumerate(order):
        sites = [s["models"]["federated"]["proteins"].get(protein) for s in result["proteins"]["sites"]]
        assert list(ax.lines[at].get_ydata()) == pytest.approx([one["r"]["value"] for one in sites if one])
    assert len(ax.lines[1].get_ydata()) == 2  # the first site has no CD4
    assert [bool(bar.get_hatch()) for bar in ax.patches] == [False, False, False, True]
    assert "background only" in texts(ax)
    assert "background only" not in texts(pl.correlation_bars(result))
    named = {"proteins": result["proteins"] | {"average": result["proteins"]["average"] | {"background": ["CD4"]}}}
    assert [bool(bar.get_hatch()) for bar in pl.correlation_bars(named).patches] == [False, True, False, False]
    assert f"{result['proteins']['average']['models']['federated']['r']['value']:.3f}" in texts(ax)


def test_of_one_site_the_line_is_its_interval():
    found = study(sites=1)
    found["proteins"]["sites"][0]["models"]["federated"]["proteins"].pop("CD4", None)
    ax = pl.correlation_bars(found)
    one = found["proteins"]["sites"][0]["models"]["federated"]["proteins"]["CD3"]["r"]
    assert list(ax.lines[0].get_ydata()) == pytest.approx([one["low"], one["high"]])


def test_coverage_of_each_protein_and_of_all(result):
    ax = pl.coverage({"evaluation": result})
    one = result["proteins"]["all"]["models"]["federated"]
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[0] == "all proteins"
    assert set(names[1:]) == set(one["proteins"])
    dots = [line for line in ax.lines if len(line.get_xdata()) == 1]
    assert dots[0].get_xdata()[0] == pytest.approx(100 * one["coverage"]["value"])
    for name, dot in zip(names[1:], dots[1:]):
        assert dot.get_xdata()[0] == pytest.approx(100 * one["proteins"][name]["coverage"]["value"])
    low, high = ax.get_xlim()
    assert all(low <= dot.get_xdata()[0] <= high for dot in dots)


def test_compared_shows_each_model_at_each_site_and_their_mean(result):
    ax = pl.compared(result)
    proteins = result["proteins"]
    heights = sorted(bar.get_height() for bar in ax.patches)
    rows = [*proteins["sites"], proteins["average"]]
    assert heights == pytest.approx(sorted(one["r"]["value"] for row in rows for one in row["models"].values()))
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        "each site alone",
        "federated",
        "all data in one place",
    ]
    assert [label.get_text().split("\n")[0] for label in ax.get_xticklabels()] == ["s00", "s01", "s02", "mean of"]


def test_of_many_sites_the_largest_are_drawn_and_that_is_said():
    ax = pl.compared(study(sites=20))
    assert len(ax.get_xticks()) == 13
    assert "12 largest of 20 sites" in ax.get_xlabel()


def test_what_a_federation_joined_is_drawn_too():
    rng = np.random.default_rng(0)
    homes = []
    for name in ("a", "b", "tiny"):
        y = rng.normal(size=(5 if name == "tiny" else 80, 2))
        told = {
            m: {"mean": y + rng.normal(size=y.shape), "low": y - 1, "high": y + 1} for m in ("federated", "local_only")
        }
        homes.append(summarise_site(told, y, np.ones(y.shape, bool), None, ["p", "q"], 0, name=name, draws=20))
    joined = join_sites(homes)
    assert len(pl.correlation_bars(joined).patches) == 2
    assert len(pl.compared(joined).get_xticks()) == 3
    assert pl.coverage(joined).get_yticks().shape == (3,)


def test_round_curve_marks_what_was_kept():
    curve = [{"round": r, "valid/loss": 1.0, "valid/pearson": r / 10, "valid/pearson/se": 0.01} for r in range(1, 9)]
    curve.append({"round": 9})
    ax = pl.round_curve({"curve": curve, "best_round": 7})
    assert list(ax.lines[0].get_xdata()) == list(range(1, 9))
    assert list(ax.lines[0].get_ydata()) == pytest.approx([r / 10 for r in range(1, 9)])
    assert "kept: round 7, 0.700" in texts(ax)
    assert "mean correlation" in ax.get_ylabel()
    assert "loss" in pl.round_curve({"curve": curve}, metric="valid/loss").get_ylabel()
    with pytest.raises(DataError, match="expected 'valid/auroc' by learning round"):
        pl.round_curve({"curve": curve}, metric="valid/auroc")
    with pytest.raises(DataError, match="by learning round in the result, got none"):
        pl.round_curve({})


def test_dots_by_cell_type_are_means_and_shares(cells):
    measured, predicted = pl.by_cell_type(cells, proteins=["CD3", "CD19"])
    kinds = sorted(set(cells.obs["cell_type"]))
    assert [one.get_text().split(" ")[0] for one in measured.get_yticklabels()] == kinds
    names = list(cells.obsm["protein_expression"].columns)
    y, told = cells.uns["z"], cells.obsm["protein_predicted"].to_numpy()
    for at, protein in enumerate(("CD3", "CD19")):
        column = names.index(protein)
        cut = otsu(y[:, column])
        means = {word: [v[(cells.obs["cell_type"] == k).to_numpy(), column].mean() for k in kinds]
                 for word, v in (("measured", y), ("predicted", told))}  # fmt: skip
        low, high = np.min(list(means.values())), np.max(list(means.values()))
        for ax, word, values in ((measured, "measured", y), (predicted, "predicted", told)):
            dots: Any = next(one for one in ax.collections if isinstance(one, PathCollection))
            mine = np.asarray(dots.get_offsets())[:, 0] == at
            assert ax.get_title(loc="left") == word
            assert np.asarray(dots.get_array())[mine] == pytest.approx((np.array(means[word]) - low) / (high - low))
            share = [(values[(cells.obs["cell_type"] == k).to_numpy(), column] > cut).mean() for k in kinds]
            assert (dots.get_sizes()[mine] - 4) / 150 == pytest.approx(share)


def test_otsu_parts_two_groups_and_is_that_of_a_search():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 700), rng.normal(8, 1, 300)])
    cut = otsu(values)
    assert 2.5 < cut < 5.5
    within = {c: (values <= c).mean() * values[values <= c].var() + (values > c).mean() * values[values > c].var()
              for c in np.linspace(values.min() + 0.01, values.max() - 0.01, 400)}  # fmt: skip
    assert (values <= cut).mean() * values[values <= cut].var() + (values > cut).mean() * values[
        values > cut
    ].var() == pytest.approx(min(within.values()), rel=0.01)
    assert np.isnan(otsu(np.array([])))


def test_umap_pairs_share_a_scale(cells):
    top, bottom = pl.umap_pairs(cells, ["CD3", "PD-1"])
    for at, protein in enumerate(("CD3", "PD-1")):
        assert top[at].get_title(loc="left").startswith(f"{protein}   r = ")
        column = list(cells.obsm["protein_expression"].columns).index(protein)
        y, told = cells.uns["z"][:, column], cells.obsm["protein_predicted"].to_numpy()[:, column]
        low, high = np.percentile(np.concatenate([y, told]), [1, 99])
        for ax, values in ((top[at], y), (bottom[at], told)):
            dots = ax.collections[0]
            assert dots.get_clim() == (0, 1)
            assert np.sort(np.asarray(dots.get_array())) == pytest.approx(
                np.sort((np.clip(values, low, high) - low) / (high - low))
            )
    assert (top[0].get_ylabel(), bottom[0].get_ylabel()) == ("measured", "predicted")
    five = pl.umap_pairs(cells, list(cells.obsm["protein_expression"].columns[:5]))
    assert five.shape == (2, 5)
    assert len(five[0, 0].figure.axes) == 11  # with the colour bar: no empty axes are left
    best = pl.umap_pairs(cells)
    assert best.shape == (2, 4)
    assert best[0, 0].get_title(loc="left").startswith("CD127")  # the least noise


def test_without_a_map_or_scanpy_one_line_says_what_to_do(cells, monkeypatch):
    some = cells.copy()
    del some.obsm["X_umap"]
    monkeypatch.setitem(sys.modules, "scanpy", None)
    with pytest.raises(DataError, match=r"obsm\['X_umap'\], or scanpy to compute it, got neither"):
        pl.umap_pairs(some)


def test_an_anndata_is_judged_where_a_result_is_asked_for(cells):
    found = judged(cells)["proteins"]
    assert [one["name"] for one in found["sites"]] == ["s0", "s1", "s2", "s3"]
    ax = pl.correlation_bars(cells)
    assert ax.patches[0].get_height() == pytest.approx(
        max(one["r"]["value"] for one in found["average"]["models"]["predicted"]["proteins"].values())
    )
    y, told = cells.uns["z"], cells.obsm["protein_predicted"].to_numpy()
    share = found["all"]["models"]["predicted"]["coverage"]["value"]
    assert share == pytest.approx((np.abs(y - told) <= 1).mean(), abs=1e-3)
    columns: Any = cells.copy()
    names = cells.obsm["protein_predicted"].columns
    ends = {f"{p}_{end}": cells.obsm["protein_interval"][:, at, k]
            for at, p in enumerate(names) for k, end in enumerate(("low", "high"))}  # fmt: skip
    columns.obsm["protein_interval"] = pd.DataFrame(ends, index=cells.obs_names)
    assert judged(columns) == judged(cells)


@pytest.mark.parametrize("name", sorted(DRAW))
def test_each_is_written_to_a_file_without_a_warning(name, cells, result, tmp_path):
    of = cells if name in ("measured_against_predicted", "umap_pairs", "by_cell_type") else result
    if name == "round_curve":
        of = {"curve": [{"round": 1, "valid/pearson": 0.5}]}
    DRAW[name](of, save=tmp_path / "figure.png")
    DRAW[name](of, save=str(tmp_path / "figure.svg"))
    assert (tmp_path / "figure.png").stat().st_size > 5000
    assert (tmp_path / "figure.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda a: a.obsm.pop("protein_predicted"), r"expected obsm\['protein_predicted'\] in the AnnData"),
        (lambda a: a.uns.update(protein_target="clr"), "expected a target among within_site, .*, got 'clr'"),
        (lambda a: a.obs.drop(columns="cell_type", inplace=True), "expected a column 'cell_type' in obs"),
        (lambda a: a.obs.insert(0, "cell_type", a.obs.pop("cell_type").str[:0]), "a cell type with at least 10 cells"),
        (lambda a: a.obsm["protein_predicted"].rename(columns=str.lower, inplace=True), "and obsm.*, got none"),
        (lambda a: a.obsm.update(protein_expression=a.obsm["protein_expression"] - 9.0), "expected antibody counts"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(cells, change, said):
    some = cells[:300].copy()
    some.obs["cell_type"] = some.obs["cell_type"].astype(str)
    change(some)
    with pytest.raises(DataError, match=said) as found:
        pl.by_cell_type(some)
    assert "\n" not in str(found.value)


def test_results_without_what_is_asked_for_are_refused(result):
    with pytest.raises(DataError, match="a result with an evaluation of proteins, got one with cohorts"):
        pl.compared({"cohorts": []})
    with pytest.raises(DataError, match="a model among federated, local_only, pooled, got 'mine'"):
        pl.coverage(result, model="mine")
    with pytest.raises(DataError, match=r"of one shape \[cells, proteins\], got \(3, 2\) and \(3, 3\)"):
        pl.measured_against_predicted(np.zeros((3, 2)), np.zeros((3, 3)))


def test_the_room_opens_without_matplotlib():
    code = (
        "import sys, learner_jax.plots as pl; pl.compared; assert 'matplotlib' not in sys.modules; "
        "assert 'jax' not in sys.modules; sys.modules['matplotlib.pyplot'] = None\n"
        "try: pl.compared({'proteins': {'sites': [{'name': 'a', 'cells': 10, 'models': {'m': {'r': 1}}}], "
        "'average': {}, 'models': ['m']}})\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert ran.stdout.strip() == (
        "DataError expected the package matplotlib, got none: pip install 'learner-jax[cells]'"
    )
