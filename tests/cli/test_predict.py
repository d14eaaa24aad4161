"""`learner predict`: a line for each mistake, answers asked for again, files for one user alone."""

from __future__ import annotations

import csv
import json
import os

import numpy as np
import pandas as pd
import pytest

import learner_jax as lr
from learner_jax.cli.main import main
from learner_jax.engines.trained import OfRecords

COLUMNS = (
    {"name": "patient", "kind": "id"},
    {"name": "age", "kind": "number", "unit": "years", "low": 18, "high": 120, "about": "at admission"},
    {"name": "stay_days", "kind": "number", "low": 0},
    {"name": "ward", "kind": "category", "codes": ("a", "b"), "missing": "refuse"},
    {"name": "back", "kind": "flag"},
)


@pytest.fixture(autouse=True)
def aside():
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on a table of its own, and that table."""
    place, draw = tmp_path_factory.mktemp("cli"), np.random.default_rng(0)
    frame = pd.DataFrame({"patient": range(60), "age": draw.integers(20, 90, 60), "stay_days": draw.random(60).round(3),
                          "ward": list("ab") * 30, "back": draw.integers(0, 2, 60)})  # fmt: skip
    frame.to_csv(place / "table.csv", index=False)
    task = lr.table(columns=COLUMNS, label="back", patient="patient")
    study = lr.Study(name="s", task=task, target="valid/loss", references=(), rounds=1, model=lr.logistic(),
                     algorithm=lr.fedavg(local=lr.optimizer("sgd", learning_rate=0.1)))  # fmt: skip
    lr.simulate(study, sites={"a": frame, "b": frame}, workdir=place / "run")
    return place


@pytest.fixture
def ask(folder, capsys):
    def asked(*arguments: str) -> tuple[int, str, str]:
        code = main(["predict", str(folder / "run"), *arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return asked


@pytest.mark.parametrize(
    "line, code, words",
    [
        ("", 2, "expected one of --records, --data, --form and --value, got none"),
        ("--form --value=age=3", 2, "got --form and --value"),
        ("--value=age", 2, "--value: expected NAME=VALUE, got 'age'"),
        ("--value=age=1 --value=age=2", 2, "--value: age is given twice"),
        ("--value=age=40 --cohort=x", 2, "--cohort goes with --records, got --value"),
        ("--value=age=40 --out=x.csv", 2, "--out goes with --records and --data, got --value"),
        ("--records=x --at=yesterday", 2, "--at: expected a time such as 2026-03-01T12:00, got 'yesterday'"),
        ("--records=x --at=2026-03-01T12:00+01:00", 2, "expected the hospital's own clock, without a zone"),
        ("--form", 2, "--form: expected a terminal to ask at"),
        ("--value=agee=3", 1, "form: no column 'agee' (did you mean age?)"),
        (
            "--value=age=3 --value=ward=a",
            1,
            "form: column 'age': expected a number, 18 to 120 years, got a number below",
        ),
        ("--value=age=30", 1, "form: column 'ward': expected one of 'a', 'b', got no value"),
        ("--data=nowhere.csv", 1, "expected a file, a folder or a sample's name, got 'nowhere.csv'"),
        ("--records=nowhere", 1, "nowhere: expected a file or a folder of health records, got nothing there"),
        ("again --value=age=3", 2, "expected one run's folder, got 2"),
    ],
)
def test_a_mistake_is_a_line(ask, line, code, words):
    got, out, err = ask(*line.split())
    assert (got, out) == (code, "") and words in err and err.count("\n") == 1


def test_a_folder_without_a_model_is_a_line(tmp_path, capsys):
    assert main(["predict", str(tmp_path), "--value=age=3"]) == 1
    assert "expected a saved model in" in capsys.readouterr().err


def test_values_and_tables_give_the_same_chance(ask, folder, tmp_path):
    out = tmp_path / "chances.csv"
    assert ask(f"--data={folder}/table.csv", f"--out={out}")[0] == 0
    rows, told = (list(csv.DictReader(path.read_text().splitlines())) for path in (folder / "table.csv", out))
    assert [row["patient"] for row in told] == [row["patient"] for row in rows] and len(told) == 60
    assert out.stat().st_mode & 0o777 == 0o600
    row = rows[7]
    values = [f"--value={name}={row[name]}" for name in ("age", "stay_days", "ward")]
    found = json.loads(ask(*values, "--json")[1])
    assert repr(found["chance"]) == told[7]["chance"] and found["notes"] == []
    assert set(found["contributions"]) == {"age", "stay_days", "ward = a", "ward = b"}
    assert json.loads(ask(f"--data={folder}/table.csv", "--json")[1])["rows"][7]["chance"] == found["chance"]
    code, words, _ = ask("--value=age=71", "--value=ward=b")
    assert (
        code == 0 and words.startswith("chance 0.") and "Note: not given: stay_days (" in words and "ward = b" in words
    )


def test_the_form_asks_again_until_an_answer_fits(ask, monkeypatch):
    answers = iter(["seventy", "710", "71", "", "", "c", "b"])
    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or next(answers))
    code, out, _ = ask("--form")
    assert code == 0 and next(answers, None) is None
    names = [prompt.partition(" ")[0] for prompt in asked]
    assert names == ["age", "age", "age", "stay_days", "ward", "ward", "ward"]  # never the outcome or the patient
    assert asked[0] == "age (a number, 18 to 120 years; at admission): "
    assert "column 'ward': expected one of 'a', 'b', got no value" in out and "column 'age': expected" in out
    chance = out.split("chance ")[1][:5]
    assert chance == ask("--value=age=71", "--value=ward=b")[1].split("chance ")[1][:5]


def test_a_form_that_is_cut_short_is_a_line(ask, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt: (_ for _ in ()).throw(EOFError))
    code, _, err = ask("--form")
    assert code == 1 and "the answers ended before the last question" in err


def test_a_study_of_another_table_says_so_of_records(ask, tmp_path):
    (tmp_path / "stays.csv").write_text("patient,encounter,admit,discharge\n1,2,2020-01-01,2020-01-03\n")
    (tmp_path / "events.csv").write_text("patient,code\n1,X\n")
    code, _, err = ask(f"--records={tmp_path}")
    assert code == 1 and "the study asks for column 'ward', which is no feature of health records" in err


@pytest.mark.parametrize("rows", [1, 3])
def test_stays_are_printed_or_written(ask, monkeypatch, tmp_path, rows):
    """One stay in words, more as a CSV; notes stand beside the rows, not among them."""
    when = pd.Timestamp("2020-06-07 12:00")
    table = pd.DataFrame({"patient": ["7"] * rows, "encounter": [str(k) for k in range(rows)], "admit": [when] * rows,
                          "until": [when] * rows, "chance": [0.25 + k for k in range(rows)]})  # fmt: skip
    features = pd.DataFrame({"age": [50.0] * rows, "stay_days": [1.0] * rows, "ward": ["a"] * rows})
    given = {}

    def predicted(self, source, **asked):
        given.update(asked, source=source)
        return OfRecords(table, features, ("something to know",))

    monkeypatch.setattr("learner_jax.engines.trained.TrainedModel.predict_records", predicted)
    code, out, err = ask("--records=here", "--every", "--at=2020-06-08T01:00", "--patient=7")
    assert code == 0 and given["every"] is True and given["at"].hour == 1 and given["patient"] == "7"
    if rows == 1:
        assert out.startswith("patient 7, stay 0, as of 2020-06-07 12:00: chance 0.250\n") and "Note: something" in out
    else:
        assert out == "patient,encounter,chance\n7,0,0.25\n7,1,1.25\n7,2,2.25\n" and "Note: something to know." in err
    assert ask("--records=here", f"--out={tmp_path}/c.csv")[0] == 0
    assert (tmp_path / "c.csv").read_text().splitlines()[:2] == ["patient,encounter,chance", "7,0,0.25"]
    told = json.loads(ask("--records=here", "--json")[1])
    assert len(told["stays"]) == rows and told["notes"] == ["something to know"]
