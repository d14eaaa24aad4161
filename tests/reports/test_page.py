"""The web page: whole, valid, alone in its file, true to the figures, and safe with any name."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from learner_jax.reports import table
from learner_jax.reports.html import page
from learner_jax.reports.written import written
from tests.reports.test_words import judged_at

CASES = {
    "ten": {},
    "four": {"sites": 4, "whom": ("everyone",)},
    "two hundred": {"sites": 200, "whom": ("everyone",)},
    "federation": {"federation": True},
    "one round": {"rounds": 1, "sites": 4},
    "numbers": {"judged": False, "task": "x", "metric": "mse"},
    "classes": {"judged": False, "task": "x", "metric": "accuracy", "rounds": 120},
}
SGD = {"kind": "optimizers", "name": "sgd", "fields": {}}
VOID = {"meta", "br", "link", "line", "circle", "path", "polyline", "polygon", "rect"}


class Reader(HTMLParser):
    """Keeps what the tests ask for, and that every element is closed where it should be."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text, self.problems = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if len({name for name, _ in attrs}) < len(attrs):
            self.problems.append(f"an attribute twice in {self.get_starttag_text()}")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.problems == []
    assert reader.open == []
    return reader, " ".join(" ".join(reader.text).split())


def first(pattern, text):
    """The first match, which must be there."""
    found = re.search(pattern, text)
    assert found, pattern
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_file_that_needs_nothing(make, case):
    html = page(make(**CASES[case]))
    reader, text = read(html)
    assert html.startswith("<!doctype html>")
    assert "default-src 'none'; style-src 'unsafe-inline'" in html
    tags = [tag for tag, _ in reader.seen]
    assert not {"script", "link", "img", "iframe", "object", "form", "base"} & set(tags)
    for tag, attributes in reader.seen:
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag
        assert attributes.get("href", "#").startswith("#"), tag
        assert "src" not in attributes, tag
    css = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in css
    assert "@import" not in css
    assert not re.search(r"\b(nan|None|inf)\b|\{\{|%\}", html.split("</style>")[1])
    ids = [attributes["id"] for _, attributes in reader.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for _, a in reader.seen if "aria-labelledby" in a} <= set(ids)
    assert tags.count("h1") == 1
    heads = [int(tag[1]) for tag in tags if re.fullmatch(r"h\d", tag)]
    assert all(b <= a + 1 for a, b in pairwise(heads))
    assert "Synthetic figures" in text


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_chart_has_words_and_a_table(make, case):
    reader, _ = read(page(make(**CASES[case])))
    charts = [attributes for tag, attributes in reader.seen if tag == "svg" and "plot" in attributes.get("class", "")]
    assert charts
    for chart in charts:
        assert chart["role"] == "img"
        assert len(chart["aria-label"]) > 20
        assert "table" in chart["aria-label"]
    for _, attributes in reader.seen:
        for name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy"):
            if attributes.get(name, "").endswith("%"):
                assert 0 <= float(attributes[name][:-1]) <= 100


def test_the_figures_are_those_of_the_result(make):
    result = make()
    html = page(result)
    _, text = read(html)
    for cohort in result["evaluation"]["cohorts"]:
        for site in cohort["sites"]:
            assert site["name"] in text
            for model in ("federated", "local_only", "pooled"):
                for key in ("auroc", "auprc", "brier"):
                    found = site["models"][model].get(key)
                    if found and "auroc" in site["models"][model]:
                        assert f"{found['value']:.3f} {found['low']:.3f} to {found['high']:.3f}" in text
            apart = site["gain"]["federated-local_only"].get("auroc")
            if apart:
                low, high = (f"{apart[end]:+.3f}".replace("-", "−") for end in ("low", "high"))
                assert f"{low} to {high}" in text
    for row in result["curve"]:
        assert f"{row['seconds']:.3g}" in text
    for told in result["evaluation"]["cohorts"][0]["calibration"]:
        assert f"about {100 * told['told']:.0f} % {100 * told['observed']:.0f} " in text
    for word in (result["weights_sha256"], result["command"], "0.10.2", "cpu x 2", "local_lr", "37.0 MB", "round 43"):
        assert word.lower() in text.lower()


def test_each_verdict_is_that_of_its_interval(make):
    result = make()
    html = page(result)
    rows = re.findall(
        r"<tr role=\"row\"[^>]*><th scope=\"row\"[^>]*>([^<]+)</th>\s*<td class=\"plotcell\".*?</tr>", html, re.S
    )
    words = re.findall(r"<td role=\"cell\" data-label=\"In words\"><span class=\"pill ([a-z]*)\">([^<]+)</span>", html)
    cohort = result["evaluation"]["cohorts"][0]
    by_name = {site["name"]: site["gain"].get("federated-local_only", {}).get("auroc") for site in cohort["sites"]}
    judged = 0
    for name, (pill, word) in zip(rows[:10], words[:10], strict=True):
        apart = by_name[name]
        if apart is None:
            assert (pill, word) == ("", "Too few to judge")
        else:
            assert (word == "Gained") == (pill == "ok") == (apart["low"] > 0)
            judged += 1
    assert judged == 8


def test_the_dot_lies_where_its_figure_says(make):
    html = page(make(sites=4, whom=("everyone",)))
    low, high = first(r"Plot, (\d+) to (\d+) of 100", html).groups()
    site = max(make(sites=4, whom=("everyone",))["evaluation"]["cohorts"][0]["sites"], key=lambda s: s["rows"])
    row = html[html.index(f">{site['name']}</th>") :]
    drawn = float(first(r'class="dot" cx="([\d.]+)%"', row).group(1))
    value = 100 * site["models"]["federated"]["auroc"]["value"]
    assert drawn == pytest.approx(100 * (value - float(low)) / (float(high) - float(low)), abs=0.01)


def test_the_curve_rises_on_the_page(make):
    html = page(make())
    points = first(r'<polyline class="curve" points="([^"]+)"', html).group(1)
    pairs = [tuple(map(float, point.split(","))) for point in points.split()]
    assert len(pairs) == 50
    assert pairs[0][1] > pairs[-1][1]  # y counts downward
    assert [x for x, _ in pairs] == sorted(x for x, _ in pairs)


def test_the_curve_and_the_line_of_a_site_alone_say_of_which_rows_they_are(make):
    _, text = read(page(make()))
    assert "Line: the joint model, on stays set aside for watching (auroc)." in text
    assert "a hospital alone, held back: " in text
    assert "on held-back stays (everyone), what a hospital alone had in the end" in text  # the widest of two cohorts
    assert "curve and dashes are of different stays" in text
    assert "of different stays" not in read(page(make(judged=False)))[1]  # no such line there


def test_the_time_of_the_rounds_and_of_the_whole_run_stand_apart(make):
    result = {**make(), "seconds": 111.0}
    for row in result["curve"]:
        row["seconds"] = 0.75
    _, text = read(page(result))
    assert "The rounds took 38 s The whole run 1 min 51 s" in text
    assert "50 learning rounds took 38 s" in text


def test_a_method_is_written_as_one_would_write_it(make):
    result = make()
    adamw = {"kind": "optimizers", "name": "adamw", "fields": {"learning_rate": 0.0026, "weight_decay": 0.3}}
    fields = {"local": adamw, "local_lr": 0.1, "mu": 0.041, "server": SGD, "server_lr": 1.0}
    result["study"]["algorithm"] = {"kind": "algorithms", "name": "fedprox", "fields": fields}
    html = page(result)
    assert "<dd>fedprox (mu 0.041, local adamw (learning rate 0.0026, weight decay 0.3))</dd>" in html
    assert "<dd>mlp (hidden (64, 32))</dd>" in html


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"local_lr": 0.05, "server_lr": 1.0, "by_rows": False},
         "m (local learning rate 0.05, server learning rate 1, by rows no)"),
        ({"local_lr": 0.05, "local": SGD, "server": SGD, "server_lr": 0.5},
         "m (local sgd (learning rate 0.05), server sgd (learning rate 0.5))"),
        ({"columns": [{"name": "age", "kind": "number"}] * 14, "label": "num", "aliases": None},
         "m (columns 14 of them, label num)"),
        ({"label": "num", "positive": "", "patient": "patient", "subgroups": []},
         "m (label num, patient, subgroups none)"),
        ({}, "m"),
    ],
)  # fmt: skip
def test_settings_in_words(fields, said):
    assert written({"kind": "algorithms", "name": "m", "fields": fields}) == said


def test_names_are_told_and_never_run(make):
    result = copy.deepcopy(make(sites=4, whom=("everyone",)))
    names = ["<script>alert(1)</script>", '" onload="x', "O'Brien & Söhne", "日本語 病院 " + "x" * 90]
    for site, name in zip(result["evaluation"]["cohorts"][0]["sites"], names):
        site["name"] = name
    result["evaluation"]["cohorts"][0]["name"] = "<i>all</i>"
    result["study"] |= {"name": "</title><script>1</script>", "question": "</style><b onclick=x>why"}
    result["notes"] = ["</ul><script>2</script>"]
    result["command"] = "x --y='<img src=x onerror=alert(1)>'"
    result["curve"][0]["lost"] = ["<svg onload=x>"]
    reader, text = read(page(result))
    tags = {tag for tag, _ in reader.seen}
    assert not {"script", "img", "b", "i"} & tags
    assert all(name in text for name in names)
    assert not [name for _, attributes in reader.seen for name in attributes if name.startswith("on")]


def test_the_largest_sites_first_and_the_rest_folded(make):
    result = make(sites=200, whom=("everyone",))
    html = page(result)
    section = html[html.index('id="by1"') : html.index('id="told"')]
    first, rest = section.split("188 more hospitals", 1)
    sizes = {site["name"]: site["rows"] for site in result["evaluation"]["cohorts"][0]["sites"]}
    shown = re.findall(r">(h\d{3})</th>", first)
    assert len(shown) == 12
    assert min(sizes[name] for name in shown) >= max(sizes[name] for name in set(sizes) - set(shown))
    assert {name for name in sizes if f">{name}</th>" in rest} >= set(sizes) - set(shown)
    assert "by luck alone" in section
    assert len(html) < 1_000_000
    assert "more hospitals" not in page(make())


def test_a_federation_is_labelled_an_average(make):
    _, text = read(page(make(federation=True)))
    assert "Average hospital" in text
    assert "average over sites" in text
    assert "In one place" not in text
    assert "they never were in one place" in text
    assert "kept small counts" in text
    assert "All stays together" not in text


def test_all_rows_together_are_not_compared_with_mixed_models(make):
    html = page(make(sites=4, whom=("everyone",)))
    row = html[html.index(">All stays together</th>") :]
    row = row[: row.index("</tr>")]
    assert "Gained" not in row
    assert re.search(r'data-label="Alone">–<', row)


def test_bare_results_still_make_a_page():
    _, text = read(page({"study": {}, "kind": "simulation", "rounds": 0, "curve": []}))
    assert "Nothing was watched" in text
    few = {"name": "all sites", "rows": 3, "patients": 3, "events": 1, "models": {"federated": {}}, "gain": {}}
    cohort = {"name": "everyone", "sites": [], "all": few, "calibration": [], "intercept": None, "slope": None}
    result = {"study": {"task": {"name": "readmission"}}, "kind": "federation", "rounds": 2, "seconds": None}
    _, text = read(page({**result, "curve": [{"round": 1}], "evaluation": {"cohorts": [cohort]}}))
    assert "too few stays to judge" in text


def test_a_site_with_few_rows_has_no_figure(make):
    html = page(make())
    row = html[html.index(">Harbour Clinic</th>") :]
    row = row[: row.index("</tr>")]
    assert "Too few to judge" in row
    assert 'class="dot"' not in row
    assert "<strong>" not in row


def test_alone_and_one_place_stand_in_their_own_columns(make):
    result = make()
    html = page(result)
    cohort = result["evaluation"]["cohorts"][0]
    differ = 0
    for site in cohort["sites"]:
        row = html[html.index(f">{site['name'].replace('&', '&amp;')}</th>") :]
        row = row[: row.index("</tr>")]
        for model, label in (("local_only", "Alone"), ("pooled", "In one place")):
            found = site["models"][model].get("auroc")
            if found:
                assert f'data-label="{label}">{100 * found["value"]:.0f}<' in row
        alone, one = (site["models"][model].get("auroc") for model in ("local_only", "pooled"))
        differ += bool(alone and one and f"{alone['value']:.2f}" != f"{one['value']:.2f}")
    assert differ >= 5


def test_how_long_references_ran_is_told_where_patience_may_end_them(make):
    result = make()
    assert "stopped by the same rule" not in page(result)
    result["study"] = {**result["study"], "patience": 7}
    assert "after 7 learning rounds without a better model, at the latest after 50;" in page(result)
    assert "stopped by the same rule" not in page({**result, "evaluation": {"cohorts": []}})


def test_what_is_known_of_one_cohort_alone_is_shown_with_its_name(make):
    """In a federation, of that whose histogram sites let leave."""
    result = copy.deepcopy(make())
    first, *rest = result["evaluation"]["cohorts"]
    first["decisions"], first["calibration"] = {}, []
    rest[-1]["together"] = {"sites": 7, "rows": 900, "auroc": {"value": 0.7, "bound": 0.002},
                            "auprc": {"value": 0.3, "bound": 0.02}}  # fmt: skip
    _, text = read(page(result))
    assert "Is it worth acting on?" in text and f"Judged on: {rest[0]['name']}." in text
    for cohort in rest[:-1]:
        cohort["decisions"], cohort["calibration"] = {}, []
    _, text = read(page(result))
    assert f"Judged on: {rest[-1]['name']}. Of 7 of" in text and "Told and observed" in page(result)
    for cohort in rest:
        cohort["decisions"] = {}
    assert "Is it worth acting on?" not in read(page(result))[1]


def test_a_site_alone_stands_beside_the_joint_model_by_the_same_measure(make):
    result = make()
    mean = result["evaluation"]["cohorts"][0]["average"]
    mean["models"]["federated"]["auroc"]["value"], mean["models"]["local_only"]["auroc"]["value"] = 0.914, 0.871
    _, text = read(page(result))
    told = (
        "Within the average hospital (8 of 10 hospitals could be judged) it is right 91 times, and a hospital learning"
    )
    assert f"{told} alone 87." in text
    coin = first(r"A coin would be right 50 times[^.]*\.", text).group()
    assert coin == "A coin would be right 50 times."  # of all rows: no figure of average sites stands there
    for model in ("federated", "local_only"):
        lacking = copy.deepcopy(result)
        del lacking["evaluation"]["cohorts"][0]["average"]["models"][model]["auroc"]
        assert "learning alone" not in first(r"In short(.*?)What is this", read(page(lacking))[1]).group()


def test_an_average_is_of_the_sites_that_are_judged_and_of_their_rows(make):
    names = ("Riverside University", "Holy Cross")
    result = judged_at(make(), names)
    rows = sum(site["rows"] for site in result["evaluation"]["cohorts"][0]["sites"] if site["name"] in names)
    html = page(result)
    row = html[html.index(">Average hospital (2 of 10 hospitals)</th>") :]
    assert f'data-label="Stays">{rows:,}</td>' in row[: row.index("</tr>")]
    assert "is of 2 of 10 hospitals, each weighted by 1 / (standard error)²: with so few" in html
    assert "with so few" not in page(make(sites=200, whom=("everyone",)))
    assert "average, 2 of 10" in table.text(result) and f"{rows:,}" in table.text(result)
    nowhere = judged_at(make(), ())
    assert "average," not in table.text(nowhere) and "Average hospital (" not in page(nowhere)


def test_on_paper_a_plot_is_whole_and_the_config_left_out():
    css = page({"study": {}, "kind": "simulation", "rounds": 0, "curve": []})
    paper = css[css.index("@media print") : css.index("</style>")]
    assert re.search(r"figure, svg[^{]*{ break-inside: avoid; }", paper)
    assert re.search(r"figure { padding-top: ", paper) and ".config { display: none; }" in paper


def test_a_note_begins_as_a_sentence_does(make):
    _, text = read(page({**make(), "notes": ["the sites are artificial", "h01: no row has a value"]}))
    assert text.count("The sites are artificial") == 2  # over the figures, and under Limits
    assert "h01: no row" in text


def test_no_figure_is_told_of_a_site_that_is_not_judged(make):
    html = page(make())
    for part in html.split('aria-label="Brier score by hospital')[1:]:
        row = part[part.index(">Harbour Clinic</th>") :]
        assert not re.search(r"\d\.\d", row[: row.index("</tr>")])
