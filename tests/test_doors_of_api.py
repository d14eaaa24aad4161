"""What the api refuses before anything runs, and what a join code carries."""

from __future__ import annotations

import inspect
import json

import pytest

import learner_jax as lr
from learner_jax import specs
from learner_jax.build import build
from learner_jax.engines import serving
from learner_jax.errors import ConfigError
from learner_jax.network.keys import parse_join_code


@pytest.mark.parametrize("make", [lr.scaffold, lr.fedavg, lr.mlp, lr.readmission])
def test_a_field_without_its_name_is_refused(make):
    with pytest.raises(ConfigError, match="expected its fields by name"):
        make(0.05)


@pytest.mark.parametrize(
    ("call", "args", "fields", "words"),
    [
        (lr.Study, (), {"name": "s", "task": "readmission", "rouns": 3}, "Study has no field 'rouns' (did you mean ro"),
        (lr.Study, (), {"rouns": 3}, "Study has no field 'rouns' (did you mean rounds?); Study needs name and task, "),
        (lr.Engine, (), {"plann": "auto"}, "Engine has no field 'plann' (did you mean plan or lanes?)"),
        (lr.Study, ("readmission",), {}, "Study: expected its fields by name, such as name=..., got 1 without a name"),
        (lr.simulate, ("readmission",), {"rouns": 3}, "a study has no field 'rouns' (did you mean rounds?)"),
        (lr.scaffold, (), {"locl_lr": 0.1}, "scaffold has no field 'locl_lr' (did you mean local_lr?)"),
        (lr.optimizer, ("sgd",), {"learing_rate": 0.1}, "sgd has no field 'learing_rate' (did you mean learning_rate?"),
    ],
)
def test_a_misspelt_field_is_answered_with_the_near_ones_in_one_line(call, args, fields, words):
    with pytest.raises(ConfigError) as error:
        call(*args, **fields)
    assert str(error.value).startswith(words)
    assert "\n" not in str(error.value)


def test_a_method_shows_its_own_fields_and_no_loss():
    assert list(inspect.signature(lr.scaffold).parameters) == ["local_lr", "server_lr", "by_rows"]
    words = lr.scaffold.__doc__ or ""
    assert "loss:" not in words and "local_lr: lr_l" in words


@pytest.mark.parametrize("count", [0, 11])
def test_a_number_of_sites_that_the_study_does_not_have(tmp_path, count):
    with pytest.raises(ConfigError, match=f"expected 1 to 10, the sites of study 'readmission', got {count}"):
        lr.local("readmission", sites=count, workdir=tmp_path)


@pytest.mark.parametrize(("sites", "got"), [((), "got none"), (("a", "b", "a"), "got 'a' twice")])
def test_sites_that_cannot_take_part(tmp_path, sites, got):
    with pytest.raises(ConfigError, match=got):
        lr.coordinate("readmission", sites=sites, workdir=tmp_path)


def test_a_host_that_is_no_place_to_dial_needs_an_address(tmp_path):
    with pytest.raises(ConfigError, match="expected the address that sites dial"):
        lr.coordinate("readmission", sites=("a",), workdir=tmp_path / "run", host="0.0.0.0", references=())


@pytest.mark.parametrize(
    ("address", "dialled"),
    [
        ("there.example", "tcp://there.example:{port}"),
        ("there.example:443", "tcp://there.example:443"),
        ("tcp://10.1.2.3:443", "tcp://10.1.2.3:443"),
        (None, "tcp://127.0.0.1:{port}"),
    ],
)
def test_a_join_code_carries_what_sites_dial(tmp_path, monkeypatch, address, dialled):
    class Enough(Exception):
        pass

    found = {}

    def invited(files, told):
        code = parse_join_code(files["north"].read_text())
        found.update(code=code.address, told=told, mode=files["north"].stat().st_mode & 0o777)
        raise Enough

    parts = build(specs.check(lr.Study(name="s", task=lr.Spec("tasks", "readmission"), references=())))
    folder = tmp_path / "run"
    with pytest.raises(Enough):
        serving.serve(parts, ("north",), folder, print, "127.0.0.1", 0, invited, address=address)
    expected = dialled.format(port=json.loads((folder / "address.json").read_text())["port"])
    assert found == {"code": expected, "told": expected, "mode": 0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
