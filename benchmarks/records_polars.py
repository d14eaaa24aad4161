"""From Parquet files to a cohort and its plain features: LEARNER beside what a good analyst writes with polars.

    python -m benchmarks.records_polars --polars_python=PATH      100,000 patients; one JSON line (some minutes)
    python -m benchmarks.records_polars --polars_python=PATH --patients=2000 --repeats=3     does it run

The arm by hand is `benchmarks.polars_by_hand`, in a Python that has polars (this one, where it has). Both start at the
same MEDS or OMOP files, each time in a process of its own, in an order shuffled anew in each repeat. Their cohorts
(stays, times, outcomes) and features must be equal, else the run ends. Ours goes through its doors and its rule's file,
reads every event, and also makes the features in `ALSO`; laboratory results are left out of both.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import common, population

RULE = "heart_failure_readmission"
PLAIN = ("age", "female", "stay_days", "stays_180", "stays_365", "days_since_stay")
ALSO = ("emergency", "days_in_stays_365", "emergency_180", "counts of codes", "LACE")
DOORS = ("meds", "omop")
SAME = ("cohort_sha256", "features_sha256", "index", "features")
"""What both arms must say alike."""


def peak() -> int:
    """Bytes that this process has had in memory at most."""
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def ours(folder: str) -> dict[str, Any]:
    """Files to features through the door, in this process, timed; what was found, as digests. "" only imports."""
    import duckdb  # noqa: F401  what is measured is the reading
    import pyarrow  # noqa: F401

    from learner_jax.data import cohorts, features
    from learner_jax.data.doors import open_records

    if not folder:
        return {"peak": peak()}
    begun, used = time.perf_counter(), time.process_time()
    rule, codes = cohorts.load(RULE)
    groups = features.charlson()
    with open_records(folder) as records:
        found = cohorts.find(records, rule, codes)
        chosen = time.perf_counter() - begun
        known = features.find(records, groups, quantities=())
    told: dict[str, Any] = {"wall_s": time.perf_counter() - begun, "cpu_s": time.process_time() - used}
    told |= {"cohort_s": chosen, "peak": peak(), "index": len(found.stays)}
    names = [*PLAIN, *(group.name for group in groups), "charlson"]
    places = [known.names.index(name) for name in names]
    stays = [(row.encounter, str(row.admit), str(row.discharge), row.outcome) for row in found.stays]
    values = [(stay.encounter, *(row[place] for place in places))
              for stay, row in zip(found.stays, known.rows, strict=True)]  # fmt: skip
    return told | {"features": len(names), "cohort_sha256": digest(stays), "features_sha256": digest(values)}


def digest(rows: list[tuple[Any, ...]]) -> str:
    """Of rows, whatever their order; numbers to nine places, since polars divides by multiplying with a reciprocal."""
    told = sorted(tuple(round(one, 9) if isinstance(one, float) else one for one in row) for row in rows)
    return hashlib.sha256(repr(told).encode()).hexdigest()


def child(command: list[str]) -> dict[str, Any]:
    """A process of its own that prints one JSON line."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=common.ROOT, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise SystemExit(f"{' '.join(command[1:3])}: {last}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def agree(door: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Both arms have found the same.

    Raises:
      SystemExit: they have not.
    """
    unlike = [name for name in SAME if ours[name] != theirs[name]]
    if unlike:
        raise SystemExit(f"{door}: expected the same of both arms, got another {', '.join(unlike)}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--patients", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--polars_python", default=sys.executable, help="a Python that has polars")
    parser.add_argument("--out", type=Path, help="a file that the JSON line is added to")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(ours(given.one)))
        return
    by_hand = [given.polars_python, "-m", "benchmarks.polars_by_hand"]
    own = [sys.executable, "-m", "benchmarks.records_polars"]
    imports = {"learner": child([*own, "--one="])["peak"], "polars": child(by_hand)}
    people = population.make(given.patients)
    with tempfile.TemporaryDirectory() as place:
        population.to_meds(people, Path(place) / "meds")
        population.to_omop(people, Path(place) / "omop", "parquet")
        arms = {}
        for door in DOORS:
            where = str(Path(place) / door)
            arms[f"learner {door}"] = lambda where=where: child([*own, f"--one={where}"])
            arms[f"polars {door}"] = lambda where=where, door=door: child(
                [*by_hand, f"--door={door}", f"--folder={where}"]
            )
        found = common.interleave(arms, given.repeats)
    told: dict[str, Any] = {}
    for door in DOORS:
        mine, hand = found[f"learner {door}"], found[f"polars {door}"]
        for one, other in zip(mine, hand, strict=True):
            agree(door, one, other)
        told[door] = {"ratio": common.ratio(mine, hand), **{name: mine[0][name] for name in SAME}}
        for arm, runs in (("learner", mine), ("polars", hand)):
            spread = {key: common.summary([run[key] for run in runs]) for key in ("wall_s", "cpu_s", "cohort_s")}
            told[door][arm] = {**spread, "peak": max(run["peak"] for run in runs)}
    about = {"benchmark": "records_polars", "patients": given.patients, "synthetic": True, "stays": len(people.stays)}
    about |= {"rule": RULE, "n": given.repeats, "learner_also_makes": ALSO, "machine": common.machine()}
    peaks = {"learner": imports["learner"], "polars": imports["polars"]["peak"]}
    versions = {**common.versions("duckdb", "pyarrow"), "polars": imports["polars"]["polars"]}
    common.emit({**about, "imports_peak": peaks, "doors": told, "versions": versions}, given.out)


if __name__ == "__main__":
    main()
