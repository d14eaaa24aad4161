"""What a run's folder holds before its first round, that its config runs again, and that nobody goes on unasked."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

import learner_jax as lr
from learner_jax.build import build
from learner_jax.cli import config
from learner_jax.cli.main import main
from learner_jax.engines import begun, local, outcome, serving
from learner_jax.errors import StudyError
from learner_jax.reports.html import page
from learner_jax.specs import from_json
from tests.federation.hospitals import small, write_tables


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A real run of one round: (its folder, its study, what lay in the folder as round 1 opened, its result)."""
    folder = tmp_path_factory.mktemp("begun")
    study = small(write_tables(folder / "tables", {"h00": 60, "h01": 50}), "fedavg", rounds=1, model=lr.logistic())
    there = {}

    def tell(event):
        if event.kind == "round_open" and event.round == 1:
            there.update({path.name: path.read_bytes() for path in (folder / "run").iterdir() if path.is_file()})

    return folder / "run", study, there, lr.simulate(study, workdir=folder / "run", on_event=tell).result


@pytest.fixture
def environment():
    """What a command sets for jax is put back."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_the_config_stands_there_before_the_first_round_in_canonical_form(run):
    _, study, there, _ = run
    assert there["config.json"].decode() == study.to_json()


def test_the_json_that_a_run_left_is_a_config_and_runs_again_to_the_bit(run, tmp_path, environment, capsys):
    folder, study, _, result = run
    left = str(folder / "config.json")
    assert config.load(left) == study
    assert config.load(left, [config.Override(("rounds",), "8")]).rounds == 8
    assert main(["simulate", f"--config={left}", f"--workdir={tmp_path / 'again'}", "--noreport", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["weights_sha256"] == result["weights_sha256"]


def test_versions_machine_and_checksums_of_the_data_stand_there_and_in_the_report(run, monkeypatch):
    folder, study, there, result = run
    found = json.loads(there["versions.json"])
    tables = sorted((folder.parent / "tables").iterdir())
    assert found["data"] == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tables}
    assert found["versions"] == result["versions"] and found["machine"] == result["machine"]
    assert set(found["machine"]) == {"cpu", "cores", "threads", "devices", "xla_flags"}
    assert found["machine"]["cpu"] and found["machine"]["devices"] == result["device"]
    monkeypatch.setenv("NPROC", "3")
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1")
    told = page({**result, "machine": outcome.machine()})
    for words in (
        found["machine"]["cpu"].split(" @")[0],
        "threads of a device: 3",
        '<span class="mark">--xla_a=1</span>',
    ):
        assert words in told
    assert "Coordinator&#39;s machine" in page({**result, "kind": "federation"})


def test_going_on_under_another_version_is_said_and_leaves_the_files(run, monkeypatch):
    folder, study, there, _ = run
    assert begun.write_begun(folder, study, {}) == ""
    monkeypatch.setattr(begun, "versions", lambda: {**outcome.versions(), "jaxlib": "0.0.1"})
    said = begun.write_begun(folder, study, {})
    assert said.startswith("this run was begun with jaxlib ") and ", now 0.0.1: rounds" in said
    assert (folder / "versions.json").read_bytes() == there["versions.json"]


class Enough(Exception):
    """Far enough: what comes next is the engine's."""


@pytest.mark.parametrize("kind", ["local", "coordinate"])
def test_a_federation_leaves_its_config_before_anybody_is_invited(kind, run, tmp_path, monkeypatch):
    study, folder = run[1], tmp_path / "run"

    def stop(*ignored, **more):
        raise Enough

    monkeypatch.setattr(local, "run_local", stop)
    monkeypatch.setattr(serving, "serve", stop)
    with pytest.raises(Enough):
        getattr(lr, kind)(study, workdir=folder, **({"sites": ("h00",)} if kind == "coordinate" else {}))
    left = from_json((folder / "config.json").read_text())
    assert (left.name, left.data.source) == (study.name, study.data.source)
    data = json.loads((folder / "versions.json").read_text())["data"]
    assert set(data) == ({"h00.csv", "h01.csv"} if kind == "local" else set())  # a coordinator reads no tables


@pytest.mark.parametrize("line", ["simulate", "local", "coordinator --sites=h00,h01"])
def test_noresume_refuses_a_folder_that_holds_a_run_in_one_line(line, run, capsys, environment):
    assert main([*line.split(), f"--config={run[0] / 'config.json'}", f"--workdir={run[0]}", "--noresume"]) == 1
    told = capsys.readouterr()
    assert "holds a run, and going on with it was not asked for; name a new folder\n" in told.err
    assert (told.out, told.err.count("\n")) == ("", 1)


def test_sites_are_told_the_name_of_the_data_and_not_where_they_lie(run, tmp_path, monkeypatch):
    told = []

    def keeper(name, epoch, manifest, digest, *more, **kept):
        told.append((manifest.decode(), digest))
        raise Enough

    monkeypatch.setattr(serving, "RoundKeeper", keeper)
    for source in ("here", "elsewhere/tables"):
        study = small(tmp_path / source, "fedavg")
        with pytest.raises(Enough):
            serving.serve(build(study), ("h00",), tmp_path / f"run-{len(told)}", print, "127.0.0.1", 0)
    assert not [manifest for manifest, _ in told if str(tmp_path) in manifest]
    assert [from_json(manifest).data.source for manifest, _ in told] == ["here", "tables"]
    assert told[0][1] == told[1][1]  # what is approved, and whose a folder is, do not depend on it


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(lr.LearnerError, match="expected to make the folder") as error:
        begun.write_begun(tmp_path / "file" / "run", small(tmp_path), {})
    assert "\n" not in str(error.value) and not isinstance(error.value, StudyError)
