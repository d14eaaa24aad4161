"""A loss is known again in another process, and told from another one by what it computes."""

from __future__ import annotations

import functools
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import learner_jax as lr
from learner_jax.engines.identity import given_task, identity

FACTOR = 2.0


def named(output, target):
    return FACTOR * optax.l2_loss(output, target)


def weighted(factor, weights=(1.0,)):
    def loss(output, target):
        return factor * jnp.asarray(weights) * optax.l2_loss(output, target)

    return loss


class Focal:
    def __init__(self, gamma):
        self.gamma = gamma

    def __call__(self, output, target):
        return jnp.abs(output - target) ** self.gamma


def itself():
    def loss(output, target, depth=1):
        return loss(output, target, depth - 1) if depth else optax.l2_loss(output, target)

    return loss


DIFFERENT = {
    "functions by name": (optax.l2_loss, optax.huber_loss),
    "constants": (lambda o, t: 2.0 * (o - t) ** 2, lambda o, t: 3.0 * (o - t) ** 2),
    "instructions": (lambda o, t: (o - t) ** 2, lambda o, t: (o + t) ** 2),
    "names that are called": (lambda o, t: optax.l2_loss(o, t), lambda o, t: optax.huber_loss(o, t)),
    "defaults": (lambda o, t, by=1.0: by * (o - t), lambda o, t, by=2.0: by * (o - t)),
    "inner functions": (lambda o, t: (lambda x: x * 2)(o - t), lambda o, t: (lambda x: x * 3)(o - t)),
    "values closed over": (weighted(1.0), weighted(2.0)),
    "lists closed over": (weighted(1.0, [1.0, 2.0]), weighted(1.0, [1.0, 3.0])),
    "arrays closed over": (weighted(1.0, np.ones(2)), weighted(1.0, np.zeros(2))),
    "arguments fixed": tuple(functools.partial(optax.huber_loss, delta=delta) for delta in (1.0, 2.0)),
    "objects that are called": (Focal(1.0), Focal(2.0)),
    "compiled": (jax.jit(lambda o, t: (o - t) ** 2), jax.jit(lambda o, t: (o + t) ** 2)),
}


@pytest.mark.parametrize("pair", DIFFERENT)
def test_two_losses_are_told_apart(pair):
    one, other = DIFFERENT[pair]
    assert identity(one) != identity(other)


def test_the_same_loss_is_known_again():
    assert identity(named) == f"{__name__}.named"
    assert identity(weighted(1.0, [1.0])) == identity(weighted(1.0, [1.0]))
    assert identity(Focal(2.0)) == identity(Focal(2.0))
    assert identity(itself()) == identity(itself())
    assert identity(functools.partial(optax.huber_loss, delta=1.0)) == identity(
        functools.partial(optax.huber_loss, delta=1.0)
    )
    assert " at 0x" not in "".join(identity(one) for pair in DIFFERENT.values() for one in pair)


def test_a_number_beside_a_lambda_counts(monkeypatch):
    loss = lambda output, target: FACTOR * (output - target) ** 2  # noqa: E731
    before = identity(loss)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert identity(loss) != before


def test_metrics_count_by_name_and_by_what_they_compute():
    def of(*metrics):
        return given_task(lr.Task(lr.logistic(), optax.l2_loss, metrics)).fields["metrics"]

    assert of(lr.auroc) == of(lr.auroc) != of(lr.brier)
    assert of(lr.brier) != of(lr.brier._replace(value=lambda sums: 0.0))
    assert of(lr.brier) != of(lr.brier._replace(higher_is_better=True))
    assert of(lr.brier, lr.auroc) != of(lr.auroc, lr.brier)


def test_another_process_gives_the_same_text():
    """The order of a set's members, and addresses, change from process to process."""
    code = textwrap.dedent("""
        from learner_jax.engines.identity import identity
        def make(by):
            def loss(output, target):
                return by * sum(name in {"a", "b", "c"} for name in (output, target)) + (lambda x: x)(1)
            return loss
        print(identity(make(2.0)), identity(make))
    """)
    found = [
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"}, check=True,
                       capture_output=True, text=True).stdout for seed in ("1", "2")
    ]  # fmt: skip
    assert found[0] == found[1]
    assert "__main__.make.<locals>.loss " in found[0]
    assert found[0].count(" ") == 3  # one typed into a notebook has its code's digest too
