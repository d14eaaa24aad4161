"""Models that are told what is not known, and one that reads events in time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import learner_jax as lr
from learner_jax import trees
from learner_jax.data.told_events import written
from learner_jax.errors import ConfigError, DataError, StudyError
from learner_jax.models import masked_mlp, transformer
from learner_jax.specs import Data, Spec, Study

LONG = 12


def _rows(seed: int = 0, codes: int = 50) -> dict:
    draw = np.random.default_rng(seed)
    x = {
        "table": jnp.asarray(draw.normal(size=(8, 5)), jnp.float32),
        "code": jnp.asarray(draw.integers(1, codes, (8, LONG)), jnp.int32),
        "days": jnp.asarray(draw.uniform(0, 300, (8, LONG)), jnp.float32),
    }
    return {"x": x, "y": jnp.zeros(8)}


def _of(model, rows, key=None):
    params, stats = model.init(jax.random.key(0), rows)
    return np.asarray(model.apply(params, stats, rows, key, key is not None)[0])


def _with(rows: dict, **x) -> dict:
    return {**rows, "x": {**rows["x"], **x}}


def test_the_order_of_events_says_nothing_and_their_time_does():
    model, rows = transformer(width=16, layers=2), _rows()
    found, order = _of(model, rows), np.random.default_rng(1).permutation(LONG)
    turned = _with(rows, code=rows["x"]["code"][:, order], days=rows["x"]["days"][:, order])
    np.testing.assert_allclose(_of(model, turned), found, atol=2e-6)
    later = _of(model, _with(rows, days=rows["x"]["days"] + 100))
    assert (np.abs(later - found) > 1e-4).all()


def test_places_without_an_event_change_nothing():
    model, rows = transformer(width=16, layers=2), _rows()
    longer = _with(
        rows,
        code=jnp.pad(rows["x"]["code"], ((0, 0), (0, 5))),
        days=jnp.pad(rows["x"]["days"], ((0, 0), (0, 5)), constant_values=7.0),
    )
    np.testing.assert_allclose(_of(model, longer), _of(model, rows), atol=2e-6)
    none = _with(rows, code=jnp.zeros_like(rows["x"]["code"]))
    assert np.isfinite(_of(model, none)).all()  # a patient of whom nothing is known


def test_more_layers_are_more_weights_and_no_more_program():
    rows, sizes = _rows(), []
    for layers in (2, 8):
        model = transformer(width=16, layers=layers)
        params, stats = model.init(jax.random.key(0), rows)
        assert params["blocks"]["qkv"]["kernel"].shape == (layers, 16, 48)

        def loss(params, model=model, stats=stats):
            return model.apply(params, stats, rows, jax.random.key(1), True)[0].sum()

        sizes.append(len(jax.jit(jax.grad(loss)).lower(params).as_text().splitlines()))
    assert sizes[1] < 1.2 * sizes[0]  # one that is written out would be more than twice as long


@pytest.mark.soak
def test_remat_gives_the_same_slopes():
    rows, found = _rows(), []
    for remat in (False, True):
        model = transformer(width=16, layers=3, remat=remat)
        params, stats = model.init(jax.random.key(0), rows)

        def loss(params, model=model, stats=stats):
            return model.apply(params, stats, rows, jax.random.key(1), True)[0].sum()

        found.append(jax.grad(loss)(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *found)


def test_a_width_that_heads_do_not_divide_and_rows_without_events_are_refused():
    with pytest.raises(ConfigError, match=r"model.width: expected a multiple of heads=4, got 30"):
        transformer(width=30)
    with pytest.raises(DataError, match=r"expected rows with events .* got none"):
        transformer().init(jax.random.key(0), {"x": jnp.zeros((2, 3))})


@pytest.mark.parametrize("of", ["mlp", "transformer"])
def test_what_is_not_known_is_told_and_is_not_a_zero(of):
    rows, model = _rows(), masked_mlp(hide=0.5) if of == "mlp" else transformer(width=16)
    table = rows["x"]["table"]
    tables = (table.at[0, 0].set(jnp.nan), table.at[0, 0].set(0.0), table)
    outputs = [_of(model, {"x": one} if of == "mlp" else _with(rows, table=one)) for one in tables]
    assert all(np.isfinite(one).all() for one in outputs)
    assert abs(outputs[0][0] - outputs[1][0]) > 1e-5
    np.testing.assert_array_equal(outputs[0][1:], outputs[2][1:])


def test_known_values_are_hidden_while_training_alone():
    rows = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(64, 5)), jnp.float32)}
    model = masked_mlp(hide=0.5)
    assert (_of(model, rows, jax.random.key(1)) != _of(model, rows, jax.random.key(2))).any()
    never = masked_mlp(hide=0.0)
    np.testing.assert_array_equal(_of(model, rows), _of(never, rows))
    np.testing.assert_array_equal(_of(never, rows, jax.random.key(1)), _of(never, rows))


COLUMNS = (
    {"name": "patient", "kind": "id"},
    {"name": "age", "kind": "number", "low": 0, "high": 130, "missing": "masked"},
    {"name": "history", "kind": "events", "keep": 16},
    {"name": "outcome", "kind": "flag"},
)


def _study(model: Spec, data: Data, columns=COLUMNS, rounds: int = 8) -> Study:
    return Study(
        name="events",
        question="Does it read when?",
        task=Spec("tasks", "table", {"columns": columns, "label": "outcome", "patient": "patient"}),
        model=model,
        algorithm=Spec("algorithms", "fedavg", {"local": Spec("optimizers", "adam", {"learning_rate": 3e-3})}),
        rounds=rounds,
        batch_size=32,
        epochs=1,
        target="valid/auroc",
        references=(),
        data=data,
    )


def _table(seed: int, rows: int = 500) -> pd.DataFrame:
    """The outcome is of those with code A3 within the last 60 days; each code is as frequent with both outcomes."""
    draw, found = np.random.default_rng(seed), []
    for _ in range(rows):
        number = draw.integers(3, 16)
        codes, days = draw.integers(0, 6, number), draw.uniform(0, 300, number).round(2)
        recent = ((codes == 3) & (days < 60)).any()
        history = written((when, f"ICD10CM//A{code}") for when, code in zip(days, codes, strict=True))
        age = draw.normal(70, 10) if draw.random() > 0.3 else np.nan
        found.append({"patient": int(draw.integers(1 << 40)), "age": age, "history": history, "outcome": int(recent)})
    return pd.DataFrame(found)


def _folder(path):
    for seed, name in enumerate(("east", "west")):
        _table(seed).to_csv(path / f"{name}.csv", index=False)
    return Data(source=str(path), site_column=None, split_column=None)


@pytest.mark.soak
def test_a_federation_learns_what_only_time_tells(tmp_path):
    model = Spec("models", "transformer", {"width": 16, "layers": 1, "heads": 2, "dropout": 0.0})
    run = lr.simulate(_study(model, _folder(tmp_path), rounds=25))
    figures = run.result["evaluation"]["cohorts"][0]["all"]["models"]["federated"]
    assert figures["auroc"]["value"] > 0.85  # which codes there are, without when, cannot tell: about 0.6
    table = pd.read_csv(tmp_path / "east.csv")
    run.model.save(tmp_path / "model")
    np.testing.assert_array_equal(lr.load(tmp_path / "model").predict(table), run.model.predict(table))
    with pytest.raises(DataError, match=r"contributions: expected rows of numbers, .* got events in time"):
        run.model.contributions(table)


def test_a_column_that_a_site_lacks_and_a_masked_model(tmp_path):
    columns = tuple(one for one in COLUMNS if one["kind"] != "events")
    columns = tuple({**one, "required": False} if one["name"] == "age" else one for one in columns)
    data = _folder(tmp_path)
    west = pd.read_csv(tmp_path / "west.csv").drop(columns=["age", "history"])
    west.to_csv(tmp_path / "west.csv", index=False)
    run = lr.simulate(_study(Spec("models", "masked_mlp"), data, columns, rounds=2))
    assert all(np.isfinite(leaf).all() for leaf in trees.named_leaves(run.model.weights).values())
    assert np.isfinite(run.model.predict(west)).all()
    told = run.model.contributions(west)
    typical = run.model.predict(pd.DataFrame({"age": [(run.model.fitted or {})["mean"]["age"]], "outcome": [0]}))
    apart = [np.log(one / (1 - one)) for one in (run.model.predict(west), typical)]
    np.testing.assert_allclose(told.sum(axis=1), apart[0] - apart[1], atol=1e-4)
    assert (told["age"].abs() > 1e-6).all()  # that it is not known says something


def test_a_model_with_fewer_places_than_the_codes_is_refused_before_the_first_round(tmp_path):
    model = Spec("models", "transformer", {"codes": 100})
    with pytest.raises(StudyError, match=r"model.codes: expected at least 4096, the places of column 'history'"):
        lr.simulate(_study(model, _folder(tmp_path), rounds=1))


@pytest.mark.parametrize("fields", [{"heads": 0}, {"width": 0}, {"layers": -1}, {"dropout": 1.0}, {"codes": 0}])
def test_fields_out_of_range_are_refused(fields):
    with pytest.raises(ConfigError, match="expected"):
        transformer(**fields)
    with pytest.raises(ConfigError, match=r"model.hide: expected a share from 0 to under 1, got 1.5"):
        masked_mlp(hide=1.5)


def test_a_model_that_cannot_take_gaps_is_refused_before_the_first_round(tmp_path):
    columns = tuple(one for one in COLUMNS if one["kind"] != "events")
    with pytest.raises(StudyError, match=r"'age' is declared with missing='masked', .* choose model masked_mlp"):
        lr.simulate(_study(Spec("models", "mlp"), _folder(tmp_path), columns, rounds=1))
