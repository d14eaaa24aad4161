"""Arrays told in JSON come back to the bit."""

from __future__ import annotations

import base64
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner_jax.data.told_arrays import KINDS, array, told


@given(st.integers(0, 2**32 - 1), st.sampled_from(KINDS), st.lists(st.integers(0, 4), max_size=3))
@settings(max_examples=60, deadline=None)
def test_any_bits_come_back(seed, kind, shape):
    dtype, rng = np.dtype(kind), np.random.default_rng(seed)
    size = int(np.prod(shape, dtype=int))
    bits = rng.integers(0, 2, size, np.uint8) if kind == "bool" else rng.bytes(size * dtype.itemsize)
    given_ = np.frombuffer(bytes(bits), dtype).reshape(shape)  # of floats: any nan, infinities, -0.0
    back = array(json.loads(json.dumps(told(given_))))
    assert back.dtype == dtype and back.shape == given_.shape
    assert back.tobytes() == given_.tobytes()


def test_bytes_are_little_endian_in_rows_whatever_the_array_in_memory():
    table = np.arange(6, dtype=">f8").reshape(2, 3).T  # big-endian, in columns
    said = told(table)
    assert base64.b64decode(said["base64"]) == struct.pack("<6d", 0, 3, 1, 4, 2, 5)
    assert said["dtype"] in KINDS and said["shape"] == [3, 2]
    np.testing.assert_array_equal(array(said), table)


def test_what_comes_back_may_be_written_to():
    back = array(told(np.zeros(3)))
    back[0] = 1


@pytest.mark.parametrize(
    "changed",
    [{"dtype": "object"}, {"dtype": "float16"}, {"dtype": "<U9"}, {"shape": [4]}, {"base64": "!"}, {"base64": "AAA="}],
)
def test_what_is_no_array_is_refused(changed):
    with pytest.raises(ValueError):
        array({**told(np.zeros(3)), **changed})
