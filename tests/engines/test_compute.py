"""bfloat16, rematerialisation and parts of a batch: the same learning, with other arithmetic or less memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import learner_jax as lr
from learner_jax import algorithms, models
from learner_jax.engines.parts import objective
from learner_jax.errors import ConfigError, StudyError
from learner_jax.federate import federate
from learner_jax.models import from_flax
from learner_jax.specs import Compute, Spec, Study, check, manifest, manifest_digest
from learner_jax.types import Batch
from tests.algorithms.studies import LOCAL, cohorts, furthest, learned, rounds_of, start

CROSS = optax.sigmoid_binary_cross_entropy
MODEL = models.mlp(hidden=(6,))
PLAIN = Study(name="s", task=Spec("tasks", "readmission"))


def ended(compute: Compute):
    """Weights after five rounds of SCAFFOLD in float64, from one start."""
    with jax.enable_x64(True):
        study = start(federate(algorithms.scaffold(objective(MODEL, CROSS, compute))), model=MODEL, local=LOCAL)
        *_, last = rounds_of(study, cohorts(study.world, 5))
        return learned(study, last.server)


@pytest.fixture(scope="module")
def plain():
    return ended(Compute())


@pytest.mark.parametrize("compute", [Compute(microbatches=2), Compute(microbatches=8), Compute(remat=True),
                                     Compute(remat=True, microbatches=4)], ids=str)  # fmt: skip
def test_parts_and_remat_learn_the_same(plain, compute):
    assert furthest(ended(compute), plain) < 1e-12


def batch(rows: int = 64, inputs: int = 32, there: int = 50) -> Batch:
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=(rows, inputs)), jnp.float32)
    y = jnp.asarray(draw.integers(0, 2, rows), jnp.float32)
    return Batch({"x": x, "y": y}, jnp.arange(rows) < there, jax.random.key(0), jnp.int32(0))


def gradient(model, compute: Compute, rows: int = 64):
    """(a jitted gradient of (weights, batch), weights, batch)."""
    given = batch(rows)
    params, stats = model.init(jax.random.key(1), given.rows)
    loss = objective(model, CROSS, compute)
    return jax.jit(jax.grad(lambda w, b: loss(w, b)[0])), {"params": params, "stats": stats}, given


def temporary(model, compute: Compute) -> int:
    """Bytes that the compiled gradient holds beside its arguments and results."""
    program, weights, given = gradient(model, compute, 8192)
    told = program.lower(weights, given).compile().memory_analysis()
    assert told is not None
    return told.temp_size_in_bytes


def test_parts_take_less_memory():
    wide = models.mlp(hidden=(256, 256))
    assert temporary(wide, Compute(microbatches=16)) < 0.25 * temporary(wide, Compute())


def equations(jaxpr):
    for line in jaxpr.eqns:
        yield line
        for value in line.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def test_bfloat16_is_what_the_products_are_of_and_weights_stay_as_they_are():
    def products(compute: Compute) -> set[str]:
        program, weights, given = gradient(MODEL, compute)
        found = equations(jax.make_jaxpr(program)(weights, given).jaxpr)
        return {str(v.aval.dtype) for line in found if line.primitive.name == "dot_general" for v in line.invars}

    assert products(Compute()) == {"float32"} and products(Compute(dtype="bfloat16")) == {"bfloat16"}
    program, weights, given = gradient(MODEL, Compute(dtype="bfloat16"))
    lower, (full, *_) = program(weights, given), gradient(MODEL, Compute())
    for a, b in zip(jax.tree.leaves(lower), jax.tree.leaves(full(weights, given)), strict=True):
        assert a.dtype == b.dtype == jnp.float32
        assert 0 < float(jnp.linalg.norm(a - b)) < 0.05 * float(jnp.linalg.norm(b))


def test_remat_computes_the_forward_pass_again():
    def names(compute: Compute) -> set[str]:
        program, weights, given = gradient(MODEL, compute)
        return {line.primitive.name for line in equations(jax.make_jaxpr(program)(weights, given).jaxpr)}

    assert any("remat" in name or "checkpoint" in name for name in names(Compute(remat=True)))
    assert not any("remat" in name or "checkpoint" in name for name in names(Compute()))


class Normed(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.norm, self.head = nnx.BatchNorm(32, rngs=rngs), nnx.Linear(32, 1, rngs=rngs)

    def __call__(self, x, mask=None):
        return self.head(self.norm(x, mask=None if mask is None else mask[:, None]))[:, 0]


def test_statistics_of_batches_are_kept_in_bfloat16_and_refused_in_parts():
    model = from_flax(lambda rngs, rows: Normed(rngs))
    given = batch()
    params, stats = model.init(jax.random.key(1), given.rows)
    weights = {"params": params, "stats": stats}
    (_, full), (_, low) = (objective(model, CROSS, Compute(dtype=d))(weights, given) for d in ("full", "bfloat16"))
    for a, b in zip(jax.tree.leaves(full), jax.tree.leaves(low), strict=True):
        assert a.dtype == b.dtype == jnp.float32
        np.testing.assert_allclose(a, b, atol=0.02)
    with pytest.raises(StudyError, match=r"^compute\.microbatches: expected a model without batch statistics"):
        objective(model, CROSS, Compute(microbatches=2))(weights, given)


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"compute": Compute(microbatches=3)}, r"compute\.microbatches: expected a divisor of batch_size 64, got 3"),
        ({"compute": Compute(microbatches=0)}, r"compute\.microbatches: expected at least 1, got 0"),
        ({"compute": Compute(dtype="half")}, r"compute\.dtype: expected .*bfloat16"),  # type: ignore[arg-type]
        ({"compute": Compute(dtype="bfloat16"), "precision": "float64"}, r"compute\.dtype: expected full beside"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(fields, said):
    with pytest.raises(ConfigError, match=said):
        check(Study(name="s", task=Spec("tasks", "readmission"), **fields))


def test_a_study_without_it_is_the_study_of_before():
    study, other = check(PLAIN), check(Study(name="s", task=Spec("tasks", "readmission"), compute=Compute(remat=True)))
    assert "compute" not in manifest(study) and "compute" in manifest(other)
    assert manifest_digest(study) != manifest_digest(other)
    assert Study.from_json(manifest(study)) == study and Study.from_json(manifest(other)) == other


def test_a_study_learns_in_bfloat16_what_it_learns_in_full():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(900, 3)).astype(np.float32)
    y = (x[:, 0] + 0.5 * draw.normal(size=900) > 0).astype(np.float32)
    task = lr.Task(models.logistic(), CROSS, (lr.auroc,))
    full, low = (
        lr.simulate(task, sites={"a": (x[:500], y[:500]), "b": (x[500:], y[500:])}, rounds=4, references=(),
                    target="valid/auroc", algorithm=lr.fedavg(local_lr=0.1), compute=lr.Compute(dtype=dtype))
        for dtype in ("full", "bfloat16")
    )  # fmt: skip
    assert full.weights_sha256 != low.weights_sha256
    assert abs(full.metrics["valid/auroc"].iloc[-1] - low.metrics["valid/auroc"].iloc[-1]) < 0.02
