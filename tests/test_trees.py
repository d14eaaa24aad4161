"""Trees: names, weights by prefix, and a digest that every bit moves."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner_jax import trees
from learner_jax.errors import DataError
from learner_jax.leaves import LeafSpec


class Pair(NamedTuple):
    weights: dict
    control: tuple


TREE = Pair({"dense": {0: np.arange(6, dtype=np.float32).reshape(2, 3), 1: np.float32(2)}}, (np.arange(3),))


def test_names_are_paths_and_rebuild_undoes_named_leaves():
    assert trees.names(TREE) == ["weights/dense/0", "weights/dense/1", "control/0"]
    assert trees.names(np.zeros(1)) == ["value"]
    back = trees.rebuild(TREE, trees.named_leaves(TREE))
    assert jax.tree.structure(back) == jax.tree.structure(TREE)
    jax.tree.map(np.testing.assert_array_equal, back, TREE)
    with pytest.raises(DataError, match="'a/b' is there twice"):
        trees.names({"a/b": 1, "a": {"b": 2}})


def test_a_schema_is_in_path_order():
    found = trees.schema(TREE)
    assert found == trees.schema(trees.shapes(TREE))
    assert [spec.name for spec in found] == sorted(trees.names(TREE))
    assert LeafSpec("weights/dense/0", "float32", (2, 3)) in found


def test_a_weight_is_a_prefix_and_broadcasts_by_trailing_axes():
    update = {"a": jnp.ones((2, 3)), "b": {"c": jnp.ones(3), "d": jnp.ones((4, 3))}}
    weight = {"a": jnp.float32(2), "b": jnp.array([1.0, 0.0, 3.0])}  # one number, and one a column
    weighted = trees.weigh(weight, update)
    np.testing.assert_array_equal(weighted["a"], np.full((2, 3), 2))
    np.testing.assert_array_equal(weighted["b"]["d"], np.tile([1, 0, 3], (4, 1)))
    mean = trees.divide(weighted, weight)
    np.testing.assert_array_equal(mean["a"], update["a"])
    np.testing.assert_array_equal(mean["b"]["c"], [1, 0, 1])  # 0 where the total is 0, not NaN


@pytest.fixture(scope="module")
def digest():
    return jax.jit(trees.digest)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.data())
def test_any_bit_moves_the_digest(digest, seed, data):
    draw = np.random.default_rng(seed)
    tree = {
        "f": draw.normal(size=(5, 3)).astype(np.float32),
        "h": draw.normal(size=7).astype(np.float16),
        "i": draw.integers(-9, 9, 4).astype(np.int32),
        "k": draw.integers(0, 255, 3).astype(np.uint8),
        "q": draw.random(6) > 0.5,
    }
    name = data.draw(st.sampled_from(sorted(tree)))
    before = trees.digest_hex(digest(tree))
    assert before == trees.digest_hex(digest(jax.tree.map(np.copy, tree)))
    changed = tree[name].copy()
    if name == "q":
        changed[data.draw(st.integers(0, 5))] ^= True
    else:
        raw = changed.reshape(-1).view(np.uint8)
        bit = data.draw(st.integers(0, raw.size * 8 - 1))
        raw[bit // 8] ^= np.uint8(1 << bit % 8)
    assert trees.digest_hex(digest({**tree, name: changed})) != before


def test_a_digest_tells_order_place_and_sign_of_zero():
    def of(*leaves):
        return trees.digest_hex(trees.digest([jnp.asarray(leaf) for leaf in leaves]))

    one = np.array([1.0, 2.0], np.float32)
    found = [
        of(one), of(one[::-1].copy()), of(one, one), of(one, 2 * one), of(2 * one, one), of(np.zeros(2, np.float32)),
        of(-np.zeros(2, np.float32)), of(np.zeros(3, np.float32)), of(np.zeros(2, np.float32), np.zeros(1, np.float32)),
    ]  # fmt: skip
    assert len(set(found)) == len(found)
    assert all(len(words) == 32 for words in found)


def test_float64_digests_see_the_low_bits():
    with jax.enable_x64(True):
        one = trees.digest_hex(trees.digest(jnp.float64(1.0)))
        assert one != trees.digest_hex(trees.digest(jnp.nextafter(jnp.float64(1.0), 2.0)))


def test_states_that_must_not_move_stay():
    kept = trees.where(jnp.bool_(False), {"a": jnp.ones(2)}, {"a": jnp.zeros(2)})
    np.testing.assert_array_equal(kept["a"], np.zeros(2))
    assert not jax.tree.leaves(trees.strong({"a": 1.0}))[0].weak_type
