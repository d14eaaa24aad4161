"""Mean and median against loops: absent and stale sites, weights of 0, a weight a column."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner_jax import aggregators, trees
from learner_jax.types import Round, Session
from tests.oracles import medians

ZERO = {"w": jax.ShapeDtypeStruct((3, 2), np.float64), "b": jax.ShapeDtypeStruct((2,), np.float64)}
RULES = {"mean": (aggregators.mean(), medians.mean), "median": (aggregators.median(), medians.median)}


SITES = 6
ROUND = Round(0, 1, (), SITES, SITES)  # neither rule looks at it


@functools.partial(jax.jit, static_argnums=0)
def meet(name, updates, weights, share):
    """(update, total) as sites and coordinator make it: encode, lift, reduce, decode; all stacked, [S, ...]."""
    rule, session = RULES[name][0], Session(ROUND, jnp.uint32(0), trees.zeros_like(ZERO))
    _, state = rule.start(ZERO)
    terms = jax.vmap(lambda u, w: rule.lift(rule.encode(u, w, (), session)[0], ZERO))(updates, weights)
    return rule.decode(rule.reduce(terms, share, state), state, session)[:2]


@st.composite
def reports(draw):
    """Updates of 6 sites, a weight each or one a column (some 0), and shares (some absent, some stale)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    by_column, absent = draw(st.booleans()), draw(st.integers(0, SITES))
    updates = {"w": rng.normal(size=(SITES, 3, 2)), "b": rng.normal(size=(SITES, 2))}
    weights = rng.integers(0, 4, (SITES, 2) if by_column else SITES).astype(np.float64)
    share = rng.permutation(np.r_[np.zeros(absent), rng.choice([1.0, 1.0, 0.5], SITES - absent)])
    return updates, weights, share, rng.permutation(SITES)


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=40)
@given(reports())
def test_a_rule_is_its_loop_in_any_order(name, found):
    updates, weights, share, order = found
    with jax.enable_x64(True):
        got, total = meet(name, updates, weights, share)
        again, _ = meet(name, {leaf: rows[order] for leaf, rows in updates.items()}, weights[order], share[order])
    for leaf, rows in updates.items():
        wanted = RULES[name][1](rows, weights, share)
        np.testing.assert_allclose(got[leaf], wanted, rtol=0, atol=1e-14)
        np.testing.assert_allclose(again[leaf], wanted, rtol=0, atol=1e-14)
    np.testing.assert_allclose(total, np.tensordot(share, weights, 1), atol=1e-14)


def test_the_mean_may_be_streamed():
    """additive: adding lifted wires one by one gives what reduce gives."""
    rule, draw = aggregators.mean(), np.random.default_rng(1)
    assert rule.additive
    assert not aggregators.median().additive
    updates = {"w": draw.normal(size=(SITES, 3, 2)), "b": draw.normal(size=(SITES, 2))}
    weights = np.arange(SITES, dtype=np.float64)
    with jax.enable_x64(True):
        session, total = Session(ROUND, jnp.uint32(0), trees.zeros_like(ZERO)), None
        for k in range(SITES):
            wire, _ = rule.encode({leaf: rows[k] for leaf, rows in updates.items()}, weights[k], (), session)
            total = wire if total is None else trees.add(total, rule.lift(wire, ZERO))
        streamed, _, _ = rule.decode(total, (), session)
        stacked, _ = meet("mean", updates, weights, np.ones(SITES))
    for leaf in stacked:
        np.testing.assert_allclose(streamed[leaf], stacked[leaf], rtol=0, atol=1e-14)


def test_one_wild_site_does_not_move_a_median():
    column = np.array([0.9, 1.0, 1.1, 1e30, 0.8, 1.2])
    updates = {
        "w": np.broadcast_to(column[:, None, None], (SITES, 3, 2)),
        "b": np.broadcast_to(column[:, None], (SITES, 2)),
    }
    with jax.enable_x64(True):
        got, _ = meet("median", updates, np.ones(SITES), np.ones(SITES))
    np.testing.assert_allclose(got["w"], 1.05)
