"""Named leaves: bytes and back, schemas that refuse, digests."""

from __future__ import annotations

import hashlib
import io
import itertools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from learner_jax import leaves
from learner_jax.errors import DataError, RemoteProtocolError
from learner_jax.leaves import LeafSpec

DTYPES = ("float64", "float32", "float16", "int64", "int32", "int8", "uint32", "uint16", "bool")
TREES = st.dictionaries(
    st.text("abcdefg/_", min_size=1, max_size=8),
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    ),
    max_size=5,
)


@given(TREES)
def test_bytes_and_back(tree):
    schema = leaves.schema_of(tree)
    data = leaves.pack(tree)
    assert len(data) == leaves.schema_bytes(schema)
    back = leaves.unpack(data, schema)
    assert back.keys() == tree.keys()
    for name, leaf in tree.items():
        assert back[name].dtype == leaf.dtype
        assert back[name].shape == leaf.shape
        assert back[name].tobytes() == leaf.tobytes()  # NaN and -0.0 as they were


@given(TREES, st.data())
def test_packed_leaves_are_sliced_as_their_bytes_are(tree, data):
    whole, packed = leaves.pack(tree), leaves.Packed(tree)
    assert len(packed) == len(whole) and packed.sha256 == hashlib.sha256(whole).hexdigest()
    start, stop = (data.draw(st.integers(0, len(whole) + 3)) for _ in range(2))
    assert bytes(packed[start:stop]) == whole[start:stop] and bytes(packed[:]) == whole


@given(TREES)
def test_a_file_is_read_leaf_by_leaf(tree):
    schema, data = leaves.schema_of(tree), leaves.pack(tree)
    back = dict(leaves.read_leaves(io.BytesIO(data), schema))
    assert list(back) == sorted(tree)
    for name, leaf in tree.items():
        assert back[name].dtype == leaf.dtype and back[name].shape == leaf.shape
        assert back[name].tobytes() == leaf.tobytes()
        assert back[name].ctypes.data % 64 == 0 or not leaf.size
    for other, words in ([(data[:-1], "got less")] if data else []) + [(data + b"x", "got more")]:
        with pytest.raises(RemoteProtocolError, match=f"h01: expected {len(data)} bytes .* {words}"):
            dict(leaves.read_leaves(io.BytesIO(other), schema, "h01"))


def test_bfloat16_travels_as_uint16_and_names_its_type():
    leaf = np.arange(6).astype(ml_dtypes.bfloat16).reshape(2, 3)
    back = leaves.unpack(leaves.pack({"w": leaf}), (LeafSpec("w", "bfloat16", (2, 3)),))
    assert back["w"].dtype == leaf.dtype
    assert (back["w"] == leaf).all()


def test_wrong_leaves_are_named():
    expected = leaves.schema_of({"b": np.zeros(2, np.float32), "w": np.zeros((784, 10), np.float32)})

    def refused(leaves_, expect):
        with pytest.raises(RemoteProtocolError) as error:
            leaves.check_schema(leaves.schema_of(leaves_), expected, "h03")
        assert str(error.value) == f"h03: {expect}"

    good = {"b": np.zeros(2, np.float32), "w": np.zeros((784, 10), np.float32)}
    leaves.check_schema(leaves.schema_of(good), expected, "h03")
    refused({**good, "w": np.zeros((784, 12), np.float32)}, "expected leaf 'w' float32[784, 10], got float32[784, 12]")
    refused({**good, "w": np.zeros((784, 10))}, "expected leaf 'w' float32[784, 10], got float64[784, 10]")
    refused({"b": good["b"]}, "expected leaf 'w' float32[784, 10], which is missing")
    refused({**good, "z": np.zeros(1)}, "unexpected leaf 'z' float64[1]")
    with pytest.raises(RemoteProtocolError, match="expected 31368 bytes for 2 leaves, got 31367"):
        leaves.unpack(leaves.pack(good)[:-1], expected, "h03")


def check(tree, schema=None):
    leaves.check_file(io.BytesIO(leaves.pack(tree)), schema or leaves.schema_of(tree), "h01")


def test_numbers_that_are_not_finite_are_refused_and_counted():
    check({"w": np.ones(3), "n": np.ones(2, np.int32)})
    for bad in (np.array([1, np.nan, np.inf]), np.array([np.nan, np.inf]).astype(ml_dtypes.bfloat16)):
        with pytest.raises(RemoteProtocolError, match="h01: expected finite numbers in leaf 'w', got 2 that are not"):
            check({"w": bad})


def test_a_file_is_checked_block_by_block(monkeypatch):
    monkeypatch.setattr(leaves, "_BLOCK", 64)
    tree = {"a": np.arange(100.0), "b": np.ones(7, np.int32), "c": np.ones(40, ml_dtypes.bfloat16)}
    schema = leaves.schema_of(tree)
    check(tree)
    tree["a"][[3, 99]] = np.nan, -np.inf
    with pytest.raises(RemoteProtocolError, match="in leaf 'a', got 2 that are not"):
        check(tree)
    with pytest.raises(RemoteProtocolError, match="got less"):
        leaves.check_file(io.BytesIO(leaves.pack({**tree, "a": np.ones(100)})[:-1]), schema)


def test_an_object_may_not_travel():
    with pytest.raises(DataError, match="expected leaf 'w' of a numeric dtype, got object"):
        leaves.schema_of({"w": np.array([{}])})


@given(TREES, st.randoms())
def test_a_sha256_is_of_the_weights_alone(tree, random):
    names = list(tree)
    random.shuffle(names)
    assert leaves.weights_sha256(tree) == leaves.weights_sha256({name: tree[name] for name in names})


def test_a_sha256_tells_names_types_shapes_and_bits_apart():
    base = {"w": np.zeros((2, 3), np.float32)}
    others = [
        {"v": base["w"]}, {"w": base["w"].astype(np.int32)}, {"w": base["w"].reshape(3, 2)},
        {"w": -base["w"]}, {"w": base["w"], "x": np.zeros(0, np.float32)},
    ]  # fmt: skip
    assert len({leaves.weights_sha256(tree) for tree in [base, *others]}) == 6


def test_site_ids_ascend_and_refuse_names_that_clash(monkeypatch):
    ids = leaves.site_ids(["b", "a", "c"])
    assert list(ids.values()) == sorted(ids.values())
    assert ids == {name: leaves.site_id(name) for name in ids}
    with pytest.raises(DataError, match="'a' is there twice"):
        leaves.site_ids(["a", "b", "a"])
    monkeypatch.setattr(leaves, "site_id", lambda name: 7)
    with pytest.raises(DataError, match="'b' has the same id as 'a': rename one"):
        leaves.site_ids(["a", "b"])


def sizes_of(table: bytes) -> list[int]:
    return [length for length, _ in leaves.read_pieces(table)]


def test_a_table_has_a_piece_a_leaf_and_short_ones_go_with_their_neighbours():
    parts = [bytes(300), bytes(10), bytes(20), bytes(1000), bytes(5)]
    assert sizes_of(leaves.pieces(parts)) == [300, 1035] and leaves.pieces([bytes(3)]) == leaves.piece(bytes(3))
    assert leaves.pieces([]) == leaves.pieces([b"", b""]) == b""
    first, second = (leaves.read_pieces(leaves.pieces([bytes(300), tail * 300])) for tail in (b"a", b"b"))
    assert first[0] == second[0] and first[1] != second[1]
    assert first[0] == (300, hashlib.sha256(bytes(300)).digest()[:16])


@given(st.lists(st.integers(0, 700), max_size=60))
def test_the_pieces_of_a_table_are_all_of_the_bytes_in_order(sizes):
    data = bytes(i % 251 for i in range(sum(sizes)))
    starts = np.cumsum([0, *sizes])
    table, at = leaves.pieces(data[a:b] for a, b in itertools.pairwise(starts)), 0
    for length, digest in leaves.read_pieces(table):
        assert hashlib.sha256(data[at : at + length]).digest()[:16] == digest
        at += length
    assert at == len(data)


def test_a_model_of_many_leaves_has_a_table_that_fits_a_header():
    table = leaves.pieces(bytes(256) for _ in range(10_000))
    assert len(table) <= leaves.PIECES * leaves.PIECE_ENTRY and sum(sizes_of(table)) == 2_560_000
    assert max(sizes_of(table)) == 20 * 256


def test_a_long_leaf_is_several_pieces_of_which_one_may_be_new():
    old, new = bytes(10 * 2**20), bytearray(10 * 2**20)
    new[-1] = 1
    first, second = (leaves.read_pieces(leaves.pieces([bytes(300), data])) for data in (old, bytes(new)))
    assert [size for size, _ in first] == [300, 2**22, 2**22, 2**21] and first[:3] == second[:3] != second[1:]
    assert len(leaves.pieces([bytes(2**22)] * 3)) == 3 * leaves.PIECE_ENTRY


@given(st.lists(st.integers(0, 2**36), max_size=4000))
def test_no_table_is_longer_than_it_may_be(sizes):
    cuts = leaves._cuts(sizes)
    assert len(cuts) <= leaves.PIECES + 1 and cuts == sorted(set(cuts)) and cuts[-1] == sum(sizes)


@given(st.lists(st.binary(min_size=256, max_size=300), max_size=5), st.integers(0, 1600))
def test_what_fits_is_the_pieces_with_which_the_bytes_begin(parts, kept):
    table, whole = leaves.pieces(parts), b"".join(parts)
    found = leaves.fitting(table, whole[:kept])
    there = sum(sizes_of(found))
    assert table.startswith(found) and there <= kept and (kept < len(whole) or found == table)
    assert not kept or leaves.fitting(table, bytes([whole[0] ^ 1]) + whole[1:kept] if whole else b"") == b""


def test_packed_and_packed_bytes_have_the_same_table():
    tree = {"a": np.arange(100, dtype=np.float32), "b": np.float64(2), "c": np.ones((40, 9), np.float32)}
    packed = leaves.Packed(tree)
    assert packed.pieces == leaves.leaf_pieces(leaves.pack(tree), leaves.schema_of(tree))
