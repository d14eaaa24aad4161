"""`learner simulate` that asks the sites of a file in each round: `python -m tests.endurance.replay FILE FLAGS...`

The file maps a round's number to the names of the sites that counted in a federation's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from learner_jax.cli.main import main
from learner_jax.data import plans
from learner_jax.leaves import site_ids


def replay(path: Path, flags: list[str]) -> int:
    """Simulates with these sites; as `main` returns."""
    asked = {int(number): names for number, names in json.loads(path.read_text()).items()}

    def cohort(seed: int, number: int, ids: np.ndarray, size: int) -> np.ndarray:
        return np.fromiter(site_ids(asked[number]).values(), np.uint32)

    plans.cohort = cohort
    return main(["simulate", *flags])


if __name__ == "__main__":
    raise SystemExit(replay(Path(sys.argv[1]), sys.argv[2:]))
