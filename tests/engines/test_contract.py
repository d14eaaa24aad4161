"""A method whose states change between in and out is told so in one line: which function, which leaf, what came."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learner_jax import aggregators, algorithms, trees
from learner_jax.engines.program import wire_shape
from learner_jax.engines.reducer import Reducer
from learner_jax.errors import StudyError
from learner_jax.federate import federate
from learner_jax.types import Report
from tests.algorithms.studies import LOCAL, LOSS, cohorts, rounds_of, start

GOOD = algorithms.scaffold(LOSS)
(PASS,) = GOOD.passes


def step_with(change):
    """SCAFFOLD whose step hands back another carry."""
    step = lambda broadcast, site, carry, batch: change(PASS.step(broadcast, site, carry, batch))  # noqa: E731
    return GOOD._replace(passes=(PASS._replace(step=step),))


def finish_with(update=lambda x: x, own=lambda x: x):
    """SCAFFOLD that reports another update, or keeps another state."""

    def finish(broadcast, site, carry):
        report, new = GOOD.finish(broadcast, site, carry)
        return Report(update(report.update), report.weight, report.metrics), own(new)

    return GOOD._replace(finish=finish)


def apply_with(change):
    """SCAFFOLD whose server hands on another state."""
    return GOOD._replace(apply=lambda *given: change(GOOD.apply(*given)))


def narrow(tree):
    """float32 -> float16 in each leaf."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float16), tree)


def first_row(tree):
    return jax.tree.map(lambda leaf: leaf[:1], tree)


AT_A_SITE = {
    "an int32 becomes a float32": (
        step_with(lambda carry: carry._replace(rows=carry.rows + jnp.sum(carry.loss) * 0)),
        "pass 0 step: expected carry 'rows' int32[], as it went in, got float32[]",
    ),
    "a float32 becomes narrower": (
        step_with(lambda carry: carry._replace(weights=narrow(carry.weights))),
        "pass 0 step: expected carry 'weights/params/dense/0/bias' float32[6], as it went in, got float16[6]",
    ),
    "another shape": (
        step_with(lambda carry: carry._replace(loss=carry.loss[None])),
        "pass 0 step: expected carry 'loss' float32[], as it went in, got float32[1]",
    ),
    "another structure": (
        step_with(lambda carry: carry._replace(optimizer=(*carry.optimizer, carry.loss))),
        "pass 0 step: expected carry 'optimizer/2' nothing, as it went in, got float32[]",
    ),
    "the same leaves in a list": (
        step_with(lambda carry: carry._replace(optimizer=list(carry.optimizer))),
        "pass 0 step: expected carry in the same tuples, lists and dicts, as it went in, got the same leaves in others",
    ),
    "an update": (
        finish_with(update=narrow),
        "finish: expected update 'weights/params/dense/0/bias' float32[6], as zero makes it, got float16[6]",
    ),
    "a site's state": (
        finish_with(own=first_row),
        "finish: expected site state 'params/dense/0/bias' float32[6], as it went in, got float32[1]",
    ),
}


@pytest.mark.parametrize("case", AT_A_SITE)
def test_at_a_site_before_anything_is_compiled(case):
    method, words = AT_A_SITE[case]
    study = start(federate(method))
    rows = jax.tree.map(lambda column: column[:2], study.world.rows)
    with pytest.raises(StudyError) as error:
        wire_shape(study.federated, trees.shapes(study.weights), rows, LOCAL)
    assert str(error.value) == words
    with pytest.raises(StudyError) as error:  # and in a round
        next(rounds_of(study, cohorts(study.world, 1)))
    assert str(error.value) == words


def test_at_the_coordinator_in_both_engines():
    study = start(federate(apply_with(lambda server: server._replace(control=narrow(server.control)))))
    words = "apply: expected server state 'control/params/dense/0/bias' float32[6], as it went in, got float16[6]"
    with pytest.raises(StudyError) as error:
        next(rounds_of(study, cohorts(study.world, 1)))
    assert str(error.value) == words
    shapes = trees.shapes(study.weights)
    rows = jax.tree.map(lambda column: column[:2], study.world.rows)
    wire = wire_shape(study.federated, shapes, rows, LOCAL)
    reducer = Reducer(study.federated, shapes, wire, 0, 0, 1, 1)
    with pytest.raises(StudyError) as error:
        reducer(study.server, [jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), wire)], 1, 1, 1)
    assert str(error.value) == words


def test_the_memory_and_the_state_of_an_aggregator():
    mean = aggregators.mean()
    forgets = mean._replace(
        start=lambda zero: (jnp.zeros(2), ()),
        encode=lambda update, weight, memory, session: (mean.encode(update, weight, (), session)[0], memory[:1]),
    )
    grows = mean._replace(
        start=lambda zero: ((), jnp.zeros(2)),
        decode=lambda term, state, session: (*mean.decode(term, (), session)[:2], jnp.append(state, 0.0)),
    )
    for rule, words in (
        (forgets, "encode: expected memory 'value' float32[2], as it went in, got float32[1]"),
        (grows, "decode: expected state 'value' float32[2], as it went in, got float32[3]"),
    ):
        study = start(federate(GOOD, rule))
        with pytest.raises(StudyError) as error:
            next(rounds_of(study, cohorts(study.world, 1)))
        assert str(error.value) == words


def test_float64_in_a_float64_study_is_what_went_in():
    """A number that Python made is as wide as the study; a float32 among float64 is not."""
    with jax.enable_x64(True):
        study = start(federate(step_with(lambda carry: carry._replace(loss=carry.loss * 1.0))))
        next(rounds_of(study, cohorts(study.world, 1)))
        study = start(federate(step_with(lambda carry: carry._replace(loss=carry.loss.astype(jnp.float32)))))
        with pytest.raises(StudyError, match=r"carry 'loss' float64\[\], as it went in, got float32\[\]"):
            next(rounds_of(study, cohorts(study.world, 1)))
