"""A full disk is waited for; a damaged file is not."""

from __future__ import annotations

import pytest

from learner_jax.errors import CorruptError, StorageError
from learner_jax.storage.patience import patiently


def test_it_waits_says_so_once_and_goes_on():
    trials, said = [], []

    def write() -> str:
        trials.append(1)
        if len(trials) < 4:
            raise StorageError("expected to write a, got: No space left on device")
        return "written"

    assert patiently(write, said.append, retry_s=0.001) == "written"
    assert said == ["expected to write a, got: No space left on device; trying again"]


def test_what_waiting_does_not_mend_is_raised():
    def read() -> None:
        raise CorruptError("expected a, got b")

    with pytest.raises(CorruptError):
        patiently(read, pytest.fail, retry_s=0.001)
