"""`--config` and its overrides: what a command line means, whatever its order, and what is said where it is wrong."""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learner_jax import specs
from learner_jax.cli import config
from learner_jax.cli.flags import parse
from learner_jax.errors import ConfigError
from learner_jax.specs import Spec, Study, files, names

CONFIG = """
    from learner_jax.specs import Data, Spec, Study

    def study():
        return Study(
            name="test",
            task=Spec("tasks", "readmission"),
            algorithm=Spec("algorithms", "fedavg", {
                "server_lr": 0.5, "local": Spec("optimizers", "adam", {"b1": 0.8})
            }),
            rounds=20,
        )
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(CONFIG))
    return path


def load(file: Path | str, *arguments: str) -> Study:
    parsed = parse([f"--config={file}", *arguments], ())
    return config.load(parsed.config, parsed.overrides)


def refusal(file: Path | str, *arguments: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(file, *arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        (["--config.rounds=100"], "rounds", 100),
        (["--config.rounds", "100"], "rounds", 100),
        (["-config.rounds=100"], "rounds", 100),
        (["--config.cohort=0.5"], "cohort", 0.5),
        (["--config.cohort=4", "--config.cohort=None"], "cohort", None),
        (["--config.patience", "None"], "patience", None),
        (["--config.data.sites=h00,h01"], "data.sites", ("h00", "h01")),
        (["--config.data.sites=('h00', 'h01')"], "data.sites", ("h00", "h01")),
        (["--config.data.sites=[01]"], "data.sites", ("01",)),
        (["--config.data.sites=None"], "data.sites", None),
        (["--config.data.site_column=None"], "data.site_column", None),
        (["--config.references=()"], "references", ()),
        (["--config.references=pooled"], "references", ("pooled",)),
        (["--config.name=2024"], "name", "2024"),
        (["--config.question=What, then?"], "question", "What, then?"),
        (["--config.checkpoint.wait"], "checkpoint.wait", True),
        (["--config.checkpoint.wait=false"], "checkpoint.wait", False),
        (["--config.federation.deadline_s=5"], "federation.deadline_s", 5.0),
        (["--config.algorithm.local_lr=1"], "algorithm.fields.local_lr", 1.0),
        (["--config.algorithm.local_lr", "1e-3"], "algorithm.fields.local_lr", 1e-3),
        (["--config.algorithm.local=sgd"], "algorithm.fields.local", Spec("optimizers", "sgd")),
        (
            ["--config.algorithm.local.learning_rate=1"],
            "algorithm.fields.local",
            Spec("optimizers", "adam", {"b1": 0.8, "learning_rate": 1.0}),
        ),
        (
            ["--config.algorithm.server.momentum=0.9"],  # the default is a bare name
            "algorithm.fields.server",
            Spec("optimizers", "sgd", {"momentum": 0.9}),
        ),
        (
            ["--config.algorithm.server=adam(b1=0.5, eps=1e-4)"],
            "algorithm.fields.server",
            Spec("optimizers", "adam", {"b1": 0.5, "eps": 1e-4}),
        ),
        (
            ["--config.before=clip_by_global_norm(max_norm=1.0),zero_nans"],
            "before",
            (Spec("transforms", "clip_by_global_norm", {"max_norm": 1.0}), Spec("transforms", "zero_nans")),
        ),
        (
            ["--config.before.0.max_norm=2.0", "--config.before=clip_by_global_norm(max_norm=1.0)"],
            "before",
            (Spec("transforms", "clip_by_global_norm", {"max_norm": 2.0}),),
        ),
        (["--config.model=mlp", "--config.model.hidden=8"], "model.fields.hidden", (8,)),
        (["--config.model.hidden=(8, 4)", "--config.model=mlp"], "model.fields.hidden", (8, 4)),
        (
            ["--config.data.partition=dirichlet(label='readmitted')", "--config.data.partition.alpha=1"],
            "data.partition",
            Spec("partitions", "dirichlet", {"alpha": 1.0, "group": None, "label": "readmitted", "sites": 10}),
        ),
        (["--config.aggregator=median"], "aggregator", Spec("aggregators", "median")),
    ],
)
def test_a_value_is_what_was_typed(file, arguments, path, value):
    found = load(file, *arguments)
    for part in path.split("."):
        found = found[part] if isinstance(found, specs.Fields) else getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_an_old_method_takes_its_fields_along(file):
    study = load(file, "--config.algorithm=scaffold")
    defaults = {name: field.default for name, field in specs.schema("algorithms", "scaffold").items()}
    assert study.algorithm == Spec("algorithms", "scaffold", defaults)  # server_lr=0.5 was the file's, for fedavg


def test_a_field_of_both_methods_stays_if_the_command_line_set_it(file):
    study = load(file, "--config.algorithm.local_lr=0.25", "--config.algorithm=scaffold")
    assert study.algorithm.fields["local_lr"] == 0.25


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["readmission", "--config.algorithm.local_lr=0.05"],
         "algorithm.local_lr: expected it once, got 0.05 here and 0.0026 in algorithm.local.learning_rate"),
        (["heart_disease", "--config.algorithm.local_lr=0.1"],  # its default, and yet typed
         "algorithm.local_lr: expected it once, got 0.1 here and 0.01 in algorithm.local.learning_rate"),
        (["readmission", "--config.algorithm=fedavg", "--config.algorithm.server_lr=0.5",
          "--config.algorithm.server=adam(learning_rate=0.01)"],
         "algorithm.server_lr: expected it once, got 0.5 here and 0.01 in algorithm.server.learning_rate"),
    ],
)  # fmt: skip
def test_a_learning_rate_that_would_say_nothing_is_refused(arguments, words):
    assert refusal(*arguments) == words


def test_a_learning_rate_said_once_passes():
    assert load("readmission").algorithm.fields["local_lr"] == 0.1  # the default beside a rate of the optimizer's own
    assert load("readmission", "--config.algorithm=scaffold", "--config.algorithm.local_lr=0.05")
    changed = ("--config.algorithm.local_lr=0.05", "--config.algorithm.local=adam")
    assert load("readmission", *changed).algorithm.fields["local_lr"] == 0.05


def test_the_same_method_again_changes_nothing(file):
    assert load(file, "--config.algorithm=fedavg") == load(file)


def test_a_field_of_the_old_method_is_refused_after_a_change(file):
    words = refusal(file, "--config.algorithm=scaffold", "--config.algorithm.local=adam")
    assert words.startswith("algorithm.local: scaffold has no field 'local' (did you mean local_lr?)")


LINE = [
    "--config.algorithm=fedprox",
    "--config.algorithm.mu=0.5",
    "--config.algorithm.local=adam",
    "--config.algorithm.local.b1=0.7",
    "--config.engine.plan=sequential",
]


def test_the_order_of_arguments_does_not_matter(file):
    studies = {load(file, *line) for line in itertools.permutations(LINE)}
    assert len(studies) == 1
    (study,) = studies
    assert study.algorithm.fields["local"] == Spec("optimizers", "adam", {"b1": 0.7})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.none()))
def test_any_number_survives_the_command_line(file, number):
    problems: list[str] = []
    study = specs.read(str(file))
    typed = parse([f"--config.cohort={number!r}"], ()).overrides
    assert config.override(study, typed, problems).cohort == number
    assert not problems


def test_the_engine_is_known_before_any_name_is_resolved(file, monkeypatch):
    heard = []
    monkeypatch.setattr(names, "resolve", lambda kind, name: heard.append("resolve") or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        parsed = parse(["--config.algorithm.local_lr=1", "--config.engine.streams=7"], ())
        config.load(str(file), parsed.overrides, lambda study: heard.append(study.engine.streams))
    assert heard[:2] == [7, "resolve"]


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config.rouds=3"], "rouds: a study has no field 'rouds' (did you mean rounds?)"),
        (["--config.engine.pln=auto"], "engine.pln: engine has no field 'pln' (did you mean plan"),
        (["--config.algorithm=scafold"], "algorithm: no algorithm 'scafold' (did you mean scaffold?)"),
        (["--config.algorithm.locl_lr=1"], "algorithm.locl_lr: fedavg has no field 'locl_lr' (did you mean local_lr"),
        (["--config.algorithm.local=adm"], "algorithm.local: no optimizer 'adm' (did you mean"),
        (["--config.algorithm.local.b11=1"], "algorithm.local.b11: adam has no field 'b11' (did you mean b1"),
        (
            ["--config.engine.plan=lane"],
            "engine.plan: expected auto, sequential, streams or lanes, got 'lane'",
        ),
        (["--config.data.partition=dirchlet"], "data.partition: no partition 'dirchlet' (did you mean dirichlet?)"),
        (["--config.data.partition=dirichlet"], "data.partition.label: dirichlet needs text here, got nothing"),
        (["--config.rounds=ten"], "rounds: expected a whole number, got 'ten'"),
        (["--config.rounds=None"], "rounds: expected a whole number, got None"),
        (["--config.rounds"], "rounds: expected a value, got nothing"),
        (["--config.model.hidden=8"], "model.hidden: model is None; name one first: --config.model=NAME"),
        (["--config.engine=fast"], "engine: expected one of its fields, such as --config.engine.plan=VALUE"),
        (["--config.rounds.x=1"], "rounds.x: expected a field of rounds, which is 20 and has none"),
        (["--config.algorithm.local=adam(1e-3)"], "algorithm.local: expected NAME or NAME(field=value, ...)"),
        (["--config.algorithm.local=adam(b1=__import__('os'))"], "algorithm.local: expected NAME or NAME(field=value"),
    ],
)
def test_a_misspelt_field_or_value_is_one_line_with_near_names(file, arguments, words):
    assert refusal(file, *arguments).startswith(words)


def test_all_mistakes_of_a_line_are_told_once(file):
    wrong = ("--config.rouds=3", "--config.algorithm=scafold", "--config.algorithm.x=1", "--config.epochs=x")
    words = refusal(file, *wrong)
    for place in ("rouds:", "algorithm:", "epochs:"):
        assert words.count(place) == 1
    assert words.count("scafold") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\ndef study(:\n", "mine.py:2: SyntaxError: "),
        ("x = 1\ny = x / 0\n", "mine.py:2: ZeroDivisionError: division by zero"),
        ("def study():\n    return wrong()\n", "mine.py:2: NameError: name 'wrong' is not defined"),
        ("def f():\n    return 1 / 0\n\ndef study():\n    return f()\n", "mine.py:2: ZeroDivisionError"),
        ("import nothing_of_this_name\n", "mine.py:1: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        (
            "from learner_jax.specs import *\n\nstudy = Study(\n    name='x', task=Spec('tasks', 't'), round=3)\n",
            "mine.py:3: Study has no field 'round' (did you mean rounds?)",
        ),
        (
            "from learner_jax.specs import *\ndata = Data(sorce='x')\n",
            "mine.py:2: Data has no field 'sorce' (did you mean source?)",
        ),
        ("x = 1\n", "mine.py: expected `def study():` that returns a learner_jax.Study, got nothing of that name"),
        ("def study():\n    return 3\n", "mine.py: expected `def study():` that returns a learner_jax.Study, got int"),
    ],
)
def test_an_error_in_a_config_names_file_and_line(file, text, words):
    file.write_text(text)
    assert refusal(file).startswith(f"{file.parent}/{words}")


def test_a_module_level_study_will_do(file):
    file.write_text("from learner_jax.specs import *\nstudy = Study(name='x', task=Spec('tasks', 'readmission'))\n")
    assert load(file).name == "x"


def test_a_json_that_is_no_study_is_refused(tmp_path):
    left = tmp_path / "config.json"
    left.write_text("{")
    assert refusal(left).startswith(f"{left}: expected the JSON of a study")


def test_names_of_shipped_configs_and_near_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a name is found from anywhere
    assert "readmission" in specs.shipped()
    assert load("readmission").name == "readmission"
    assert "(did you mean readmission?)" in refusal("readmision")
    (tmp_path / "mine.py").write_text("x")
    assert "(did you mean mine.py?)" in refusal("mien.py")
    with pytest.raises(ConfigError, match=r"--config is missing.*shipped configs: .*readmission"):
        config.load(None)


def test_every_shipped_config_passes_its_check():
    for name in specs.shipped():
        study = load(name)
        assert specs.check(study) == study
        assert specs.from_json(study.to_json()) == study


def test_in_a_wheel_the_configs_lie_in_the_package(tmp_path, monkeypatch):
    for place in ("learner_jax/configs", "configs"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / f"of_{place.split('/')[0]}.py").touch()
    monkeypatch.setattr(files, "__file__", str(tmp_path / "learner_jax" / "specs" / "files.py"))
    assert list(specs.shipped()) == ["of_learner_jax"]  # what others put into site-packages/configs is not ours
    (tmp_path / "learner_jax/configs/of_learner_jax.py").unlink()
    assert list(specs.shipped()) == ["of_configs"]  # a checkout
