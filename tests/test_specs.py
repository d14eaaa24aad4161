"""The config: resolved by name, one JSON form, every mistake at once."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner_jax import specs
from learner_jax.errors import ConfigError
from learner_jax.specs import Data, Engine, Federation, Fields, Optimizer, Spec, Study, Transform, names

# ---- factories to resolve, in place of those of the package ----------------------------------------------------------


def average(
    loss: Callable,
    *,
    rate: float = 0.1,
    local_lr: float = 0.1,
    inner: Optimizer = "sgd",
    outer: Optimizer | None = None,
    hidden: tuple[int, ...] = (64, 32),
    window: tuple[float, float] = (0.0, 1.0),
    mode: typing.Literal["fast", "exact"] = "fast",
    clip: float | None = None,
    steps: int | None = None,
    flag: bool = False,
    label: str = "",
    clips: tuple[Transform, ...] = (),
): ...


def needy(loss: Callable, strength: float): ...


def plain(): ...


def cleaner(*, cohort: str = "everyone"): ...


FAKES = {
    ("algorithms", "average"): average,
    ("algorithms", "needy"): needy,
    ("aggregators", "mean"): plain,
    ("tasks", "cleaner"): cleaner,
}


@pytest.fixture
def fakes(monkeypatch):
    """`resolve` finds the factories above; optax's are the real ones."""
    real = specs.resolve

    def resolve(kind, name):
        if kind in ("optimizers", "transforms"):
            return real(kind, name)
        if (kind, name) in FAKES:
            return FAKES[kind, name]
        ours = [one for of, one in FAKES if of == kind]
        raise ConfigError(f"no {kind.removesuffix('s')} {name!r}{specs.near(name, ours)}")

    monkeypatch.setattr(names, "resolve", resolve)


def a_study(**fields: typing.Any) -> Study:
    new = {"algorithm": Spec("algorithms", "average"), "aggregator": Spec("aggregators", "mean"), **fields}
    return Study(**{"name": "test", "task": Spec("tasks", "cleaner"), **new})


def an_engine(plan: typing.Any) -> Engine:
    return Engine(plan=plan)


def told(**fields: typing.Any) -> list[str]:
    return specs.mistakes(a_study(**fields))[1]


def method(**fields: typing.Any) -> Spec:
    return Spec("algorithms", "average", fields)


# ---- the check -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fakes")
def test_a_checked_study_says_all_its_defaults():
    study = specs.check(a_study())
    assert study.algorithm.fields["rate"] == 0.1
    assert study.algorithm.fields["inner"] == Spec("optimizers", "sgd")
    assert study.task.fields == {"cohort": "everyone"}
    assert specs.check(study) == study


@pytest.mark.parametrize(
    ("field", "given_", "kept"),
    [
        ("rate", 1, 1.0),
        ("clip", 2, 2.0),
        ("clip", None, None),
        ("steps", 3, 3),
        ("hidden", [8, 4], (8, 4)),
        ("window", [1, 2], (1.0, 2.0)),
        ("outer", None, None),
        ("outer", "adam", Spec("optimizers", "adam")),
        ("clips", ["zero_nans"], (Spec("transforms", "zero_nans"),)),
    ],
)
@pytest.mark.usefixtures("fakes")
def test_values_are_fitted_to_their_type(field, given_, kept):
    value = specs.check(a_study(algorithm=method(**{field: given_}))).algorithm.fields[field]
    assert value == kept
    assert type(value) is type(kept)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rate": "fast"}, "algorithm.rate: expected a number, got 'fast'"),
        ({"rate": True}, "algorithm.rate: expected a number, got True"),
        ({"steps": 1.5}, "algorithm.steps: expected a whole number or None, got 1.5"),
        ({"steps": True}, "algorithm.steps: expected a whole number or None, got True"),
        ({"flag": 1}, "algorithm.flag: expected True or False, got 1"),
        ({"label": 3}, "algorithm.label: expected text, got 3"),
        ({"mode": "exat"}, "algorithm.mode: expected fast or exact, got 'exat' (did you mean exact?)"),
        ({"hidden": (8, "x")}, "algorithm.hidden.1: expected a whole number, got 'x'"),
        ({"hidden": 8}, "algorithm.hidden: expected a list (a whole number each), got 8"),
        ({"window": (1.0,)}, "algorithm.window: expected 2 values, got 1"),
        ({"rate": float("nan")}, "algorithm.rate: expected a finite number, got nan"),
        ({"ratee": 1.0}, "algorithm.ratee: average has no field 'ratee' (did you mean rate?)"),
        ({"inner": "adma"}, "algorithm.inner: no optimizer 'adma' (did you mean adamax, adan or adam?)"),
        ({"inner": 3}, "algorithm.inner: expected an optimizer, got 3"),
        ({"inner": Spec("tasks", "cleaner")}, "algorithm.inner: expected an optimizer, got the task cleaner"),
        (
            {"inner": Spec("optimizers", "adam", {"b3": 1})},
            "algorithm.inner.b3: adam has no field 'b3' (it has learning_rate, b1",
        ),
    ],
)
@pytest.mark.usefixtures("fakes")
def test_a_mistake_in_a_method_is_told_with_its_place(fields, words):
    (problem,) = told(algorithm=method(**fields))
    assert problem.startswith(words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rounds": 0}, "rounds: expected at least 1, got 0"),
        ({"rounds": 2.0}, "rounds: expected a whole number, got 2.0"),
        ({"cohort": 1.5}, "cohort: expected a share up to 1.0 (or a whole number of sites), got 1.5"),
        ({"cohort": 0}, "cohort: expected at least one site, got 0"),
        ({"precision": "float46"}, "precision: expected float32 or float64, got 'float46' (did you mean float64"),
        (
            {"references": ("poold",)},
            "references.0: expected local_only, pooled or all_but_me, got 'poold' (did you mean pooled?)",
        ),
        ({"engine": an_engine("stream")}, "engine.plan: expected auto, sequential, streams or lanes, got 'stream'"),
        ({"loader": "lasting"}, "loader: expected steps beside lasting"),
        ({"federation": Federation(port=70000)}, "federation.port: expected at most 65535, got 70000"),
        ({"name": "../up"}, "name: expected 1 to 64 letters"),
        ({"name": ""}, "name: expected 1 to 64 letters"),
        ({"algorithm": Spec("algorithms", "avrage")}, "algorithm: no algorithm 'avrage' (did you mean average?)"),
        ({"algorithm": Spec("algorithms", "needy")}, "algorithm.strength: needy needs a number here, got nothing"),
        ({"algorithm": Spec("tasks", "cleaner")}, "algorithm: expected an algorithm, got the task cleaner"),
        (
            {"before": (Spec("transforms", "clip_by_globl_norm"),)},
            "before.0: no transform 'clip_by_globl_norm' (did you",
        ),
        ({"before": (Spec("transforms", "clip"),)}, "before.0.max_delta: clip needs"),
    ],
)
@pytest.mark.usefixtures("fakes")
def test_a_mistake_in_a_study_is_told_with_its_place(fields, words):
    (problem,) = told(**fields)
    assert problem.startswith(words)


@pytest.mark.usefixtures("fakes")
def test_all_mistakes_are_told_at_once():
    wrong = a_study(rounds=0, epochs="two", algorithm=method(ratee=1, mode="exat"), engine=an_engine("lane"))
    with pytest.raises(ConfigError) as error:
        specs.check(wrong)
    line = str(error.value)
    assert "\n" not in line
    for place in ("rounds:", "epochs:", "algorithm.ratee:", "algorithm.mode:", "engine.plan:"):
        assert place in line


@pytest.mark.usefixtures("fakes")
def test_an_optimizer_needs_its_learning_rate_unless_the_method_has_one():
    def bare(loss, *, inner: Optimizer = "sgd"): ...

    FAKES["algorithms", "bare"] = bare
    try:
        assert told(algorithm=Spec("algorithms", "bare")) == []  # its own default is its own affair
        (problem,) = told(algorithm=Spec("algorithms", "bare", {"inner": "adam"}))
        assert problem.startswith("algorithm.inner.learning_rate: adam needs")
    finally:
        del FAKES["algorithms", "bare"]
    assert told(algorithm=method(inner="adam")) == []  # average has local_lr


def test_a_rate_beside_an_optimizer_with_its_own_is_refused_unless_it_is_the_default():
    adam = Spec("optimizers", "adam", {"learning_rate": 0.01})

    def study(**fields):
        return a_study(
            task=Spec("tasks", "readmission"), algorithm=Spec("algorithms", "fedprox", {"local": adam, **fields})
        )

    (problem,) = specs.mistakes(study(local_lr=0.5))[1]
    assert problem == "algorithm.local_lr: expected it once, got 0.5 here and 0.01 in algorithm.local.learning_rate"
    checked = specs.check(study())
    assert specs.check(specs.from_json(checked.to_json())) == checked  # where the default has been filled in


@pytest.mark.usefixtures("fakes")
def test_the_alias_is_known_by_its_name_alone():
    """Where the factory's module cannot say what `Optimizer` is (imported for type checkers only, or another thing)."""
    source = "from __future__ import annotations\ndef hidden(loss, *, inner: Optimizer | None = None): ..."
    for space in ({}, {"Optimizer": typing.Any}):
        exec(source, space)
        FAKES["algorithms", "hidden"] = typing.cast(Callable, space["hidden"])
        try:
            study = specs.check(a_study(algorithm=Spec("algorithms", "hidden", {"inner": "zero"})))
        except ConfigError as error:
            assert "algorithm.inner: no optimizer 'zero'" in str(error)
        else:
            pytest.fail(f"expected a refusal, got {study.algorithm}")
        finally:
            del FAKES["algorithms", "hidden"]


# ---- names -----------------------------------------------------------------------------------------------------------


def test_our_own_names_resolve_and_helpers_do_not():
    from learner_jax.algorithms.scaffold import scaffold

    assert specs.resolve("algorithms", "scaffold") is scaffold
    assert next(iter(specs.schema("algorithms", "scaffold"))) == "local_lr"
    assert {"fedavg", "fedprox", "scaffold"} <= set(specs.known("algorithms"))
    for helper in ("local", "look", "annotations", "__name__", "os"):
        with pytest.raises(ConfigError, match="no algorithm"):
            specs.resolve("algorithms", helper)


def test_a_submodule_that_hides_its_factory_is_looked_into(monkeypatch):
    """`import learner_jax.aggregators.mean` puts the module where a lazy package would have offered the function."""
    package = importlib.import_module("learner_jax.aggregators")
    module = importlib.import_module("learner_jax.aggregators.mean")
    monkeypatch.setattr(package, "mean", module)
    assert specs.resolve("aggregators", "mean") is module.mean


def test_optimizers_are_those_of_optax_that_take_a_learning_rate():
    import optax

    assert specs.resolve("optimizers", "adam") is optax.adam
    assert specs.resolve("transforms", "clip_by_global_norm") is optax.clip_by_global_norm
    assert specs.make("sgd", learning_rate=0.1).update is not None
    for kind, name in (("optimizers", "clip"), ("optimizers", "apply_updates"), ("transforms", "chain")):
        with pytest.raises(ConfigError):
            specs.resolve(kind, name)


def test_a_method_of_another_package_is_found_by_its_entry_point(tmp_path, monkeypatch):
    (tmp_path / "ours.py").write_text("def reset(loss, *, momentum: float = 0.9): return ('made', loss, momentum)\n")
    folder = tmp_path / "ours-1.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1.2\n")
    (folder / "entry_points.txt").write_text(
        "[learner.algorithms]\nreset = ours:reset\nbroken = ours:nothing\nfedavg = ours:reset\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert specs.make(Spec("algorithms", "reset", {"momentum": 0.5}), "loss") == ("made", "loss", 0.5)
    assert list(specs.schema("algorithms", "reset")) == ["momentum"]
    assert "reset" in specs.known("algorithms")
    with pytest.raises(ConfigError, match="broken of package ours cannot be loaded"):
        specs.resolve("algorithms", "broken")
    with pytest.raises(ConfigError, match=r"did you mean reset\?"):
        specs.resolve("algorithms", "rest")
    assert specs.resolve("algorithms", "fedavg").__module__ != "ours"  # ours come first


# ---- JSON ------------------------------------------------------------------------------------------------------------

words = st.text("abcdefgh_", min_size=1, max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.builds(Spec, st.just("optimizers"), words, st.dictionaries(words, inner))
    ),
    max_leaves=8,
)


@given(fields=st.dictionaries(words, values), rounds=st.integers(1, 100), question=st.text(max_size=20))
def test_json_goes_there_and_back(fields, rounds, question):
    study = a_study(algorithm=Spec("algorithms", "average", fields), rounds=rounds, question=question)
    again = specs.from_json(specs.to_json(study))
    assert again == study
    assert hash(again) == hash(study)
    assert specs.to_json(again) == specs.to_json(study)
    assert json.loads(specs.to_json(study))["rounds"] == rounds


@given(st.dictionaries(words, values, min_size=2))
def test_the_order_in_which_fields_were_set_does_not_matter(fields):
    turned = dict(reversed(list(fields.items())))
    assert Spec("algorithms", "a", fields) == Spec("algorithms", "a", turned)
    assert specs.to_json(Fields(fields)) == specs.to_json(Fields(turned))


def test_the_canonical_form_is_pinned():
    text = specs.to_json(Spec("optimizers", "adam", {"b1": 0.9, "learning_rate": 1e-3}))
    assert text == '{"fields":{"b1":0.9,"learning_rate":0.001},"kind":"optimizers","name":"adam"}'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "expected the JSON of a study"),
        ("[]", "study: expected a JSON object"),
        ('{"name": "x", "taks": 1}', r"taks: no such field \(did you mean task\?\); task: missing"),
        ('{"name": "x", "task": {"kind": "tasks", "name": "t", "fields": {}}, "data": {"sorce": 1}}', "data.sorce"),
    ],
)
def test_json_that_is_no_study_is_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        specs.from_json(text)


@pytest.mark.usefixtures("fakes")
def test_what_json_cannot_hold_is_refused():
    with pytest.raises(ConfigError, match="expected plain values"):
        specs.to_json(a_study(algorithm=method(rate=object())))
    (problem,) = told(algorithm=Spec("algorithms", "average", {"rate": 1.0}), question=object())
    assert problem.startswith("question: expected text")


def test_specs_cannot_be_changed_behind_their_hash():
    fields = {"rate": [1, 2]}
    spec = Spec("algorithms", "average", fields)
    fields["rate"].append(3)
    assert spec.fields == {"rate": (1, 2)}
    with pytest.raises(TypeError):
        typing.cast(typing.Any, spec.fields)["rate"] = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        typing.cast(typing.Any, spec).name = "other"


# ---- the manifest ----------------------------------------------------------------------------------------------------


def test_the_manifest_is_what_a_study_means():
    base = specs.manifest_digest(a_study())
    same = (
        {"engine": Engine(plan="lanes", lanes=4)},
        {"data": Data(source="elsewhere.csv")},
        {"federation": Federation(host="0.0.0.0", port=7443)},
        {"checkpoint": specs.Checkpoint(every=5)},
    )
    other = (
        {"question": "Another one?"},
        {"rounds": 51},
        {"algorithm": method(rate=0.2)},
        {"before": (Spec("transforms", "clip", {"max_delta": 1.0}),)},
        {"federation": Federation(quorum=2)},
        {"seed": 1},
    )
    assert len(base) == 64
    assert all(specs.manifest_digest(a_study(**fields)) == base for fields in same)
    digests = {specs.manifest_digest(a_study(**fields)) for fields in other}
    assert len(digests | {base}) == len(other) + 1


def by_dict(**fields: typing.Any) -> Study:
    return Study(name="s", task=Spec("tasks", "readmission"), **fields)


def test_a_record_may_be_given_as_a_dict():
    made: Study = by_dict(engine={"plan": "lanes", "lanes": 2})
    assert made.engine == Engine(plan="lanes", lanes=2)
    with pytest.raises(ConfigError, match=r"^Engine has no field 'lane' \(did you mean lanes"):
        by_dict(engine={"lane": 2})


def test_the_cache_follows_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert specs.cache_folder(Engine()) == tmp_path / "learner"
    assert specs.cache_folder(Engine(cache=None)) is None
    assert specs.cache_folder(Engine(cache="/x")) == Path("/x")


def test_a_study_is_made_without_jax():
    code = (
        "import sys; from learner_jax import specs\n"
        "s = specs.Study(name='x', task=specs.Spec('tasks', 't')); specs.from_json(s.to_json())\n"
        "assert not {'jax', 'numpy', 'optax', 'pandas'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
