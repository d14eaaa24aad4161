"""Rounds over slow lines, beside the forecast: eight sites, a model of 10 MB, each site on a line of its own.

    python -m benchmarks.shaped                 a hundred rounds at 20 Mbit/s; one JSON line (15 minutes; Linux)
    python -m benchmarks.shaped --rounds=15     a part of them
    python -m benchmarks.shaped --quick         two rounds of 1 MB, two sites: does it run

The lines are veth pairs shaped by tbf, each site in a network namespace of its own (`tests/federation/shaped.py`). The
sites compute nothing, so what is compared is the time on the line, and that the disk takes. The lines delay nothing but
by their queues, while the forecast reckons with 40 ms there and back: 0.16 s of a round.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import common
from learner_jax.engines.forecast import OVERHEAD_S, Line, Sizes, forecast
from tests.federation.shaped import STUDY, missing, shaped


def foretold(sites: int, size: int, rounds: int, rate: float) -> dict[str, Any]:
    """The forecast of the same rounds; of the compute it is told that there is none."""
    names = tuple(f"h{number:02d}" for number in range(1, sites + 1))
    about = Sizes(STUDY, names, rounds, lambda _: names, size, size, size // 4, 0.0, 1)
    return forecast(about, Line(rate), OVERHEAD_S)


def main() -> None:
    """Runs the rounds, and prints one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--rate", type=float, default=20.0, help="Mbit/s of each line, each way")
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--size", type=int, default=10_000_000, help="bytes of the model")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=None, help="a file to add the line to")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.sites, given.size = 2, 2, 1_000_000
    why = missing()
    if why:
        raise SystemExit(f"not run: lines cannot be shaped here: {why}")
    told, load = foretold(given.sites, given.size, given.rounds, given.rate), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        about = {"mbit": given.rate, "sites": given.sites, "size": given.size, "count": given.rounds}
        took = shaped("rounds", Path(folder) / "study", 600 + 20 * told["seconds"], **about)["seconds"]
    line = {
        "benchmark": "shaped",
        **common.machine(),
        **common.versions("pyzmq", "numpy"),
        "load": [round(one, 1) for one in (load, os.getloadavg()[0])],
        **about,
        "part": given.rounds < 100,
        "forecast_round_s": common.rounded(told["round_s"]),
        "forecast_s": common.rounded(told["seconds"]),
        "round_s": common.summary(took),
        "seconds": common.rounded(sum(took)),
        "ratio": common.rounded(sum(took) / told["seconds"]),
        "within_15_percent": abs(sum(took) / told["seconds"] - 1) <= 0.15,
    }
    common.emit(line, given.out)


if __name__ == "__main__":
    main()
