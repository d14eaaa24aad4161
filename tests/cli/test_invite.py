"""`learner invite`: what it says of a code, where nothing runs, and of a folder that is none of a coordinator's."""

from __future__ import annotations

from pathlib import Path

import pytest

from learner_jax.cli import doors
from learner_jax.cli.main import main


def test_it_says_where_the_code_lies_and_when_there_will_be_one(monkeypatch, capsys):
    for code, words in ((Path("run/join/east.code"), "works once: run/join/east.code"), (None, "Nothing runs in run")):
        monkeypatch.setattr(doors, "invite", lambda folder, site, code=code: code)
        assert main(["invite", "east", "--workdir=run"]) == 0
        assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["invite"], "expected one site and its coordinator's folder"),
        (["invite", "east"], "expected one site and its coordinator's folder"),
        (["invite", "east", "--workdir=nowhere"], "expected the folder of a coordinator's run, got nowhere"),
    ],
)
def test_a_mistake_is_one_line(given, words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(given) != 0
    said = capsys.readouterr().err.strip()
    assert words in said and "\n" not in said
