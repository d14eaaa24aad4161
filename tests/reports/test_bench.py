"""Tables of benchmarks: the newest line of each, and a page that holds what the results say."""

from __future__ import annotations

import json

import pytest

from learner_jax.errors import DataError
from learner_jax.reports import bench

MACHINE = {"cpu": "Some CPU (family 1, model 2)", "cores": 2}
RATIO = {"wall": {"paired": 1.5, "q1": 1.4, "q3": 1.6}}


def simulator(name: str, ms: float) -> dict:
    return {
        "benchmark": "simulator", "name": name, "n": 9, "machine": MACHINE, "versions": {"jax": "0.10.2"},
        "best_loop": {"wall": "scan"}, "arms": {"scan": {"wall_s": {"median": ms / 1e3}}},
        "ratio_to_best_loop": dict.fromkeys(("sequential", "streams_2", "lanes_4"), RATIO),
    }  # fmt: skip


def written(folder, *lines) -> None:
    (folder / "some.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_newest_line_of_each_work_is_told(tmp_path):
    written(tmp_path, simulator("W1", 100.0), simulator("W2", 7.0), simulator("W1", 1234.5), {"benchmark": "other"})
    told = bench.tables(bench.read(tmp_path))
    assert "| W1 | 1,234 (scan) | 1.50 (1.40 to 1.60) |" in told and "100.0" not in told
    assert told.count("\n| W") == 2 and "Some CPU, 2 cores, JAX 0.10.2, n = 9" in told


def test_a_page_is_changed_between_its_marks_alone(tmp_path):
    page = f"before\n{bench.BEGIN}\nold\n{bench.END}\nafter\n"
    once = bench.put(page, "new")
    assert once == f"before\n{bench.BEGIN}\n\nnew\n\n{bench.END}\nafter\n" and bench.put(once, "new") == once
    for wrong in ("no marks", bench.BEGIN, f"{bench.END}{bench.BEGIN}", page + page):
        with pytest.raises(DataError, match="once each in the page"):
            bench.put(wrong, "new")


@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_what_is_no_result_is_said_with_its_place(tmp_path, text):
    (tmp_path / "a.jsonl").write_text('{"benchmark": "x"}\n' + text + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: expected a JSON object"):
        bench.read(tmp_path)


def test_no_results_are_said(tmp_path):
    with pytest.raises(DataError, match=r"expected results of benchmarks \(\.jsonl\)"):
        bench.read(tmp_path)


def test_the_page_holds_what_the_results_say(root):
    """`learner bench table --out=docs/benchmarks.md` was run since a line was added."""
    page = (root / "docs" / "benchmarks.md").read_text()
    assert bench.put(page, bench.tables(bench.read(root / "benchmarks" / "results"))) == page
