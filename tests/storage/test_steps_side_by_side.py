"""Two folders of steps written at once: Orbax's own state is one a process."""

from __future__ import annotations

import numpy as np

from learner_jax.storage.steps import Steps


def test_two_folders_are_written_side_by_side(tmp_path):
    leaves = {f"w{k}": np.full((300, 70), k, np.float32) for k in range(6)}
    with Steps(tmp_path / "a", keep_last=30) as one, Steps(tmp_path / "b", keep_last=30) as other:
        for number in range(12):
            one.save(number, {"server": leaves, "meta": {}})
            other.save(number, {"server": leaves, "meta": {}}, wait=True)
    assert other.all() == tuple(range(12))
    assert one.all()[0] == 0
