"""The end table and runs side by side, as plain text."""

from __future__ import annotations

import copy

import pytest

from learner_jax.reports import compare, table, words


def test_every_site_stands_there_with_its_figures(make):
    result = make()
    found = table.text(result)
    for cohort in result["evaluation"]["cohorts"]:
        for site in cohort["sites"]:
            own = site["models"]["federated"].get("auroc")
            row = next(line for line in found.splitlines() if line.startswith(site["name"]))
            assert f"{site['rows']:,}" in found
            assert own is None or f"{own['value']:.3f}" in found
            assert row
    tail = found.splitlines()[-3:]
    assert tail == words.sentences(result)
    assert found.isprintable() is False  # it has line ends
    assert all(line.isprintable() and len(line) <= 110 for line in found.splitlines()[:-3])


def test_all_rows_together_have_no_model_alone(make):
    row = next(line for line in table.text(make()).splitlines() if line.startswith("all stays together"))
    assert row.split()[6] == "-"  # after the name, stays, AUROC and its interval
    assert "gained" not in row


def test_two_hundred_sites_are_folded(make):
    found = table.text(make(sites=200, whom=("everyone",)))
    assert "and 188 more" in found
    assert len(found.splitlines()) < 30


def test_a_federation_and_a_task_without_auroc(make):
    assert "pooled" not in table.text(make(federation=True))
    assert "average, 8 of 10" in table.text(make(federation=True))
    found = table.text(make(judged=False, task="x", metric="accuracy"))
    assert "best round" in found
    assert "valid/accuracy" in found
    assert "87 times in 100" in found


def test_names_with_control_characters_do_no_harm(make):
    result = copy.deepcopy(make(sites=4))
    result["evaluation"]["cohorts"][0]["sites"][0]["name"] = "a\x1b[31m\nb" + "c" * 99
    found = table.text(result)
    assert "\x1b" not in found
    assert "a?[31m?b" in found


def test_compare_shows_what_differs_and_what_came(make):
    first, second = make(), copy.deepcopy(make(rounds=20))
    second["study"]["algorithm"] = {"kind": "algorithms", "name": "scaffold", "fields": {"local_lr": 0.01}}
    second["weights_sha256"] = "f" * 64
    assert dict(compare.settings([first, second])) == {
        "algorithm": ["fedavg", "scaffold"],
        "algorithm.local_lr": ["0.05", "0.01"],
        "rounds": ["50", "20"],
    }
    rows = dict(compare.outcomes([first, second]))
    area = first["evaluation"]["cohorts"][0]["all"]["models"]["federated"]["auroc"]
    assert rows["heart failure: AUROC"][0] == f"{area['value']:.3f} ({area['low']:.3f} to {area['high']:.3f})"
    assert rows["weights"] == [first["weights_sha256"][:12], "f" * 12]
    found = compare.text([first, second])
    assert "scaffold" in found
    assert "paired question" in found
    assert "equal to the bit" not in found


def test_compare_writes_a_page_with_all_of_it_and_nothing_from_elsewhere(make):
    first, second = make(), copy.deepcopy(make(rounds=20))
    second["study"]["algorithm"] = {"kind": "algorithms", "name": "scaffold", "fields": {"local_lr": "<b>"}}
    found = compare.page([first, second], ["runs/a", "runs/b"])
    for words_ in (
        "Run 2",
        "runs/b: Heart failure 2 by scaffold, a simulation",
        "algorithm.local_lr",
        "&lt;b&gt;",
    ):
        assert words_ in found, words_
    area = first["evaluation"]["cohorts"][0]["all"]["models"]["federated"]["auroc"]
    assert f'{area["value"]:.3f}<span class="tiny">{area["low"]:.3f} to {area["high"]:.3f}</span>' in found
    assert found.count("<tr") == found.count("</tr>") and found.count("<section") == found.count("</section>")
    assert "http" not in found.replace("http-equiv", "") and "<script" not in found and "<b>" not in found
    assert "The studies ask for the same." in compare.page([make(), make()], ["a", "b"])
    assert "by None" not in compare.page([make(), {"study": {}, "kind": "simulation", "rounds": 0, "curve": []}], "ab")


def test_compare_equal_and_unlike_runs(make):
    same = compare.text([make(), make()])
    assert "ask for the same" in same
    assert "equal to the bit" in same
    assert "an average over sites; they differ by nature" in compare.text([make(), make(federation=True)])
    assert compare.text([make(), {"study": {}, "kind": "simulation", "rounds": 0, "curve": []}])
    three = compare.text([make(), make(rounds=1), make(judged=False, task="x", metric="mse")])
    assert "watched: valid/mse" in three


@pytest.mark.parametrize("cells", [["a", "b"], ["a", "1,000"]])
def test_columns_line_up(cells):
    lines = table.grid(["name", "n"], [cells, [], ["longer", "2"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
