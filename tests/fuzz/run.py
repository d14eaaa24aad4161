"""Coverage-guided fuzzing: `python -m tests.fuzz.run TARGET SECONDS`; needs the extra `fuzz` (Linux).

atheris watches which branches of our code an input reaches and changes those that reached new ones. An exception, an
assertion, or an input that takes over a second is written to a file here and ends the run with an error. Its last
lines count the executions and name the slowest.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

LONGEST = 4096
"""Bytes of an input at most: what is longer is refused by its length."""


def main() -> None:
    """Fuzzes one target for so long."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(
        include=["learner_jax.protocol", "learner_jax.network.keys", "learner_jax.network.seal"]
    ):
        targets = importlib.import_module("tests.fuzz.targets")
    name, seconds = sys.argv[1], int(sys.argv[2])
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    for number, seed in enumerate(targets.seeds(name)):
        (folder / f"seed-{number}").write_bytes(seed)
    limits = [f"-max_total_time={seconds}", "-timeout=1", f"-max_len={LONGEST}", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={Path.cwd()}/", str(folder)], targets.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
