"""The page of predicted proteins: its figures are those of the evaluation, in words, tables and plots."""

from __future__ import annotations

import re

import numpy as np
import pytest

from learner_jax.evaluation.proteins import evaluate, join_sites, summarise_site
from learner_jax.reports import proteins, words
from learner_jax.reports.html import page
from tests.reports.test_page import read

NAMES = ["CD3", "CD4", "CD19", "PD-1"]


def cells(sites=3, each=120):
    """Synthetic: models of falling quality, proteins of falling quality; the last site has few cells."""
    rng = np.random.default_rng(2)
    site = np.concatenate([np.repeat([f"lab{at}"], each if at + 1 < sites else 6) for at in range(sites)])
    y = rng.normal(size=(len(site), 4))
    told = {}
    for model, noise in (("federated", 0.5), ("local_only", 1.3), ("pooled", 0.48)):
        mean = y + noise * np.array([0.3, 0.6, 1.0, 3.0]) * rng.normal(size=y.shape)
        wide = 1.2816 * noise * np.array([0.3, 0.6, 1.0, 1.5])  # too narrow for PD-1
        told[model] = {"mean": mean, "low": mean - wide, "high": mean + wide}
    seen = np.ones(y.shape, bool)
    seen[site == "lab1", 1] = False
    kind = np.where(y[:, 2] > 0, "B", "T <1>")
    return told, y, seen, site, kind


def whole(make, federation=False, **more):
    told, y, seen, site, kind = cells(**more)
    flagged = {"lab0": ["PD-1"]}
    if federation:
        homes = []
        for name in sorted(set(site)):
            mine = site == name
            own = {m: {part: x[mine] for part, x in told[m].items()} for m in ("federated", "local_only")}
            homes.append(summarise_site(own, y[mine], seen[mine], kind[mine], NAMES, 1, name=name, draws=50,
                                        background=flagged.get(name, ())))  # fmt: skip
        found = join_sites(homes)
    else:
        found = evaluate(told, y, seen, site, kind, NAMES, 1, draws=50, background=flagged)
    return make(judged=False, federation=federation, task="proteins") | {"evaluation": {"cohorts": [], **found}}


@pytest.mark.parametrize("federation", [False, True], ids=["simulation", "federation"])
def test_figures_of_the_page_are_those_of_the_evaluation(make, federation):
    result = whole(make, federation)
    found = result["evaluation"]["proteins"]
    reader, text = read(page(result))
    mean = found["average"]
    assert "Proteins, measured and predicted" in text
    assert f"correlate at {mean['models']['federated']['r']['value']:.3f} on average" in text
    for model in found["models"]:
        assert f"{mean['models'][model]['r']['value']:.3f}" in text
    alone = mean["gain"]["federated-local_only"]
    assert (
        f"{alone['value']:+.3f} (95 % interval {alone['low']:+.3f} to {alone['high']:+.3f}, paired): it gains" in text
    )
    assert ("All data in one place" in text) == (not federation)
    for site in found["sites"]:
        assert site["name"] in text
        if site["models"] and (r := site["models"]["federated"]["r"]):
            assert f"{r['value']:.3f} {r['low']:.3f} to {r['high']:.3f}" in text
    order = sorted(NAMES, key=lambda p: -mean["models"]["federated"]["proteins"][p]["r"]["value"])
    rows = re.findall(r"(CD3|CD4|CD19|PD-1) (\d\.\d\d) ", text[text.index("Each protein, the best first") :])
    assert [name for name, _ in rows] == order
    assert [r for _, r in rows] == [f"{mean['models']['federated']['proteins'][p]['r']['value']:.2f}" for p in order]
    share = (mean if federation else found["all"])["models"]["federated"]["coverage"]["value"]
    assert f"Its 80 % intervals hold {100 * share:.1f} % of the measured values; not so for PD-1" in text
    assert "Background only at lab0" in text
    assert "Not every laboratory measured every protein" in text
    assert ("kept all figures at home" in text) == federation
    assert "T <1>" in text  # a name is a name
    assert not [tag for tag, attributes in reader.seen if "style" in attributes]


def test_marks_lie_where_the_figures_are(make):
    block = proteins.section(whole(make), words.Nouns())
    assert block is not None
    found = whole(make)["evaluation"]["proteins"]
    for row in block["rows"]:
        mean = found["average"]["models"]["federated"]["proteins"][row["name"]]["r"]["value"]
        assert row["zero"] == 0
        assert row["mean"] == pytest.approx(100 * mean, abs=0.01)
        share = found["all"]["models"]["federated"]["proteins"][row["name"]]["coverage"]
        low = block["share_ticks"][0]
        across = 100 - float(low["text"])
        assert row["share"] == pytest.approx(100 * (100 * share["value"] - float(low["text"])) / across, abs=0.01)
        assert row["low"] <= row["share"] <= row["high"]
        assert len(row["sites"]) == (0 if row["name"] == "CD4" else 2)
    assert [row["flag"] for row in block["rows"]] == ["", "", "", "at lab0"]


def test_the_end_of_a_run_in_plain_text(make):
    text = proteins.text(whole(make), words.Nouns())
    assert all(len(line) <= 120 for line in text.splitlines() if line.startswith(("Site", "lab", "Average", "-")))
    assert "Average site" in text and "lab2" in text
    assert text.isprintable() or all(c.isprintable() or c == "\n" for c in text)
    assert "it gains" in text


def test_without_proteins_there_is_nothing_of_it(make):
    assert proteins.section(make(), words.Nouns()) is None
    assert proteins.headline(make(), words.Nouns()) is None
    assert proteins.text(make(), words.Nouns()) == ""
    assert "Proteins, measured" not in read(page(make()))[1]


def test_too_few_cells_everywhere_is_said(make):
    told, y, seen, site, _ = cells(sites=1)
    found = evaluate(told, y, seen, site, None, NAMES, 1, draws=5)
    text = read(page(make(judged=False) | {"evaluation": found}))[1]
    assert "Too few cells to say how well the proteins are predicted" in text
    assert "No protein was measured in enough cells" in text
    homes = [summarise_site(told, y, seen, None, NAMES, 1, name="a", draws=5)]
    assert proteins.section({"evaluation": join_sites(homes)}, words.Nouns()) is None
