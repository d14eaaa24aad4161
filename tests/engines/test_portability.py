"""What is compiled here lowers for GPU and TPU as well: local pass, round, aggregation, the look and prediction.

None of those devices is needed: `jax.export` lowers a program for a platform on any machine. It fails where an
operation has no rule for one of them, and where a program calls back into Python, which is then part of no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export

from learner_jax import aggregators, algorithms, models, trees
from learner_jax.engines.judge import compiled
from learner_jax.engines.parts import objective, watching
from learner_jax.engines.program import Plan, wire_shape
from learner_jax.engines.reducer import Reducer
from learner_jax.federate import federate
from learner_jax.tasks.proteins import _loss
from learner_jax.types import Model
from tests.algorithms.studies import LOCAL, LOSS, MODEL, Study, make_sites, start
from tests.algorithms.test_columnwise import sites as protein_sites

PLATFORMS = ("cpu", "cuda", "tpu")
CROSS = optax.sigmoid_binary_cross_entropy
FLAT, LINEAR = models.logistic(), models.protein_net(hidden=())
FLAT_LOSS, PROTEIN_LOSS = objective(FLAT, CROSS), objective(LINEAR, _loss(0.5))
METHODS: dict[str, Callable[[], Any]] = {
    "fedavg": lambda: algorithms.fedavg(LOSS, local_lr=0.05, local="adam"),
    "fedadam": lambda: algorithms.fedadam(LOSS, server_lr=0.03),
    "fedadagrad": lambda: algorithms.fedadagrad(LOSS, server_lr=0.03),
    "fedavgm": lambda: algorithms.fedavgm(LOSS, server_lr=1.0),
    "fedyogi": lambda: algorithms.fedyogi(LOSS, server_lr=0.03),
    "fedprox": lambda: algorithms.fedprox(LOSS, mu=0.1),
    "scaffold": lambda: algorithms.scaffold(LOSS),
    "newton": lambda: algorithms.newton(FLAT_LOSS),
    "columnwise": lambda: algorithms.columnwise(PROTEIN_LOSS, local_lr=0.05),
    "ridge": lambda: algorithms.ridge(PROTEIN_LOSS),
}
MODELS = {"newton": FLAT, "columnwise": LINEAR, "ridge": LINEAR}


def _first(names: Iterable[str], quick: Sequence[str]) -> list[Any]:
    """All of them as parameters; those that are not quick in the soak."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.soak) for name in names]


def exported(program: Any, *arguments: Any) -> export.Exported:
    """The program lowered for all three platforms."""
    return export.export(program, platforms=PLATFORMS)(*arguments)


def begun(method: str, plan: Plan = Plan(), rule: Callable[[], Any] = aggregators.mean, watch: Any = None) -> Study:
    """A method's study at its start, with proteins for those that learn proteins."""
    proteins = method in ("columnwise", "ridge")
    federated = federate(METHODS[method](), rule(), watch=watch)
    sites = protein_sites() if proteins else make_sites()
    return start(federated, sites, plan, LOCAL, MODELS.get(method, MODEL))


def round_of(study: Study) -> tuple[Any, tuple[Any, ...]]:
    """The compiled round, and what it is given."""
    program = study.program
    planned = program._planned(1, np.arange(len(study.world.names), dtype=np.int32))
    return program._simulate, (study.server, study.states, program._rows, *planned.given)


@pytest.mark.parametrize("method", _first(METHODS, ("fedavg", "scaffold", "columnwise")))
def test_every_methods_round_local_pass_and_sum_lower_for_every_platform(method):
    study = begun(method)
    program, given = round_of(study)
    assert exported(program, *given).platforms == PLATFORMS
    # ---- a worker's pass
    federated, template, count = study.federated, trees.shapes(study.weights), len(study.world.names)
    _, arguments = _passed(study)
    assert exported(study.program._local, *arguments).platforms == PLATFORMS
    # ---- the coordinator's sum and step
    wire = wire_shape(federated, template, trees.shapes(study.world.rows), LOCAL)
    reducer = Reducer(federated, template, wire, 0, LOCAL.seed, count, count)
    total = jax.eval_shape(lambda wire: federated.lift(wire, template), wire)
    one = jax.ShapeDtypeStruct((), np.int32)
    assert exported(reducer._add, total, wire).platforms == PLATFORMS
    server = trees.shapes(study.server)
    form, given, others = reducer.apart(server, total)
    assert exported(reducer._step, form, server, given, others, one, one, one).platforms == PLATFORMS


def _passed(study: Study) -> tuple[Any, tuple[Any, ...]]:
    """What a worker's pass is given, caught on its way."""
    caught: list[tuple[Any, ...]] = []

    def catch(program, again, names, given, slots, draws):
        caught.append(given)
        return program(*given)

    program, state = study.program, jax.tree.map(lambda leaf: leaf[0], study.states)
    program.size = 1
    with mock.patch.object(program, "_ran", catch):
        found = program.local_round(jax.jit(study.federated.send)(study.server), state, 1, 1)
    return found, caught[0]


RULES = {"mean": aggregators.mean, "median": aggregators.median}
PLANS = {f"{rule}-{plan.said()}": (rule, plan) for plan in (Plan(1, 3), Plan(2, 1), Plan(2, 2)) for rule in RULES}


@pytest.mark.parametrize("case", _first(PLANS, (f"median-{Plan(1, 3).said()}", f"mean-{Plan(2, 2).said()}")))
def test_every_plan_lowers_for_every_platform_with_a_look_and_a_rule_that_is_no_sum(case):
    rule, plan = PLANS[case]
    study = begun("scaffold", plan, RULES[rule], watching(MODEL, CROSS, ()))
    program, given = round_of(study)
    lowered = exported(program, *given)
    assert lowered.platforms == PLATFORMS and lowered.nr_devices == plan.streams


def test_a_program_that_was_lowered_for_all_says_the_same():
    """To rounding: where platforms differ the program has a branch, and XLA fuses what is around it another way."""
    study = begun("fedavg")
    program, given = round_of(study)
    lowered = exported(program, *given)
    direct = program(given[0], jax.tree.map(jnp.copy, given[1]), *given[2:])
    again = jax.jit(lowered.call)(*given)
    for a, b in zip(jax.tree.leaves(direct.server), jax.tree.leaves(again.server), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


EVENTS = {
    "code": np.zeros((3, 4), np.int32),
    "days": np.zeros((3, 4), np.float32),
    "table": np.ones((3, 5), np.float32),
}


@pytest.mark.parametrize(
    "name, model, x",
    [
        ("logistic", models.logistic(), np.ones((3, 5), np.float32)),
        ("mlp", models.mlp(hidden=(8,), dropout=0.3), np.ones((3, 5), np.float32)),
        ("masked_mlp", models.masked_mlp(hidden=(8,)), np.ones((3, 5), np.float32)),
        ("protein_net", models.protein_net(hidden=(8,), dropout=0.3), np.ones((3, 5), np.float32)),
        ("transformer", models.transformer(width=16, heads=2, layers=2), EVENTS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_models_prediction_and_gradient_lower_for_every_platform(name: str, model: Model, x: Any):
    rows = {"x": jax.tree.map(jnp.asarray, x), "y": jnp.ones(3)}
    if name == "protein_net":
        rows["y"] = {"value": jnp.ones((3, 4)), "seen": jnp.ones((3, 4)), "site": jnp.zeros((3, 1))}
    made = jax.eval_shape(lambda rows: model.init(jax.random.key(0), rows), rows)
    weights = dict(zip(("params", "stats"), made, strict=True))
    assert exported(compiled(model), weights, rows).platforms == PLATFORMS

    def learned(params: Any, key: Any) -> Any:
        told = model.apply(params, weights["stats"], rows, key, True)[0]
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(told))

    assert exported(jax.jit(jax.grad(learned)), weights["params"], jax.random.key(1)).platforms == PLATFORMS


def test_what_runs_on_one_platform_alone_is_refused():
    """The fault that must turn the tests above red: an operation that TPU has not, and a call back into Python."""
    with pytest.raises(NotImplementedError, match=r"tpu|MLIR translation rule"):
        exported(jax.jit(lambda x: jnp.linalg.eig(x)[0]), jnp.eye(3))

    def seen(x):
        return jax.pure_callback(np.asarray, jax.ShapeDtypeStruct((3, 3), np.float32), x)

    with pytest.raises(NotImplementedError, match="callback"):
        exported(jax.jit(seen), jnp.eye(3))
