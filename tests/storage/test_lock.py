"""A folder has one holder; its lock goes when it does."""

from __future__ import annotations

import threading
import time

import pytest

from learner_jax.errors import StudyError
from learner_jax.storage.lock import only_one


def test_a_second_holder_is_refused_in_one_line(tmp_path):
    second = only_one(tmp_path, "worker", wait_s=0.2)
    with only_one(tmp_path, "worker"), pytest.raises(StudyError, match="another is running in"), second:
        pass
    with only_one(tmp_path, "worker", wait_s=0.0):
        pass


def test_one_that_is_just_leaving_is_waited_for(tmp_path):
    inside = threading.Event()

    def hold() -> None:
        with only_one(tmp_path, "worker"):
            inside.set()
            time.sleep(0.3)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(10)
    with only_one(tmp_path, "worker", wait_s=30.0):
        pass
    holder.join(10)
