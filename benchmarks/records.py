"""From a hospital's files to a cohort and its features: seconds and memory of each door, on a synthetic population.

    python -m benchmarks.records                    100,000 patients; one JSON line (some minutes, 3 GB of disk)
    python -m benchmarks.records --patients=2000    does it run

Each door is opened in a process of its own, whose peak (VmHWM) is told beside that of a process that only imports what
it needs. All doors must find the same cohort and the same features.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import common, population

RULE = "heart_failure_readmission"
WRITE = {
    "meds": population.to_meds,
    "omop csv.gz": population.to_omop,
    "omop parquet": lambda found, folder: population.to_omop(found, folder, "parquet"),
    "fhir ndjson.gz": population.to_fhir,
    "tables": population.to_tables,
}


def _peak() -> int:
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split("VmHWM:")[1].split()[0])


def one(folder: str) -> dict[str, Any]:
    """Opens a door and finds the cohort, in this process; "" only imports."""
    import duckdb  # noqa: F401  what is measured is the reading

    from learner_jax.data import cohorts, features
    from learner_jax.data.doors import open_records

    rule, codes = cohorts.load(RULE)
    if not folder:
        return {"peak": _peak()}
    begun = time.perf_counter()
    with open_records(folder) as records:
        read = time.perf_counter() - begun
        found = cohorts.find(records, rule, codes)
        chosen = time.perf_counter() - begun - read
        known = features.find(records, features.charlson())
        told = time.perf_counter() - begun - read - chosen
        events = records.one("SELECT count(*) FROM events")
    rows = sorted((row.encounter, str(row.admit), str(row.discharge), row.outcome) for row in found.stays)
    digest = hashlib.sha256(repr(rows).encode()).hexdigest()
    by_stay = sorted(zip((row.encounter for row in found.stays), known.rows, strict=True))
    took = {"read_s": round(read, 2), "cohort_s": round(chosen, 2), "features_s": round(told, 2), "peak": _peak()}
    same = {"cohort_sha256": digest, "features_sha256": hashlib.sha256(repr(by_stay).encode()).hexdigest()}
    return {**took, "events": events, "index": len(rows), "features": len(known.names), **same}


def child(folder: str) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.records", f"--one={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=common.ROOT)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--patients", type=int, default=100_000)
    parser.add_argument("--out", type=Path, help="a file that the JSON line is added to")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(one(given.one)))
        return
    people = population.make(given.patients)
    found = {}
    with tempfile.TemporaryDirectory() as place:
        for name, write in WRITE.items():
            folder = Path(place) / name
            write(people, folder)
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            found[name] = {"files_bytes": size, **child(str(folder))}
            print(f"{name}: {found[name]}", file=sys.stderr)
    if len({(one["cohort_sha256"], one["features_sha256"]) for one in found.values()}) != 1:
        raise SystemExit("expected the same cohort and features of every door, got others")
    about = {"benchmark": "records", "patients": given.patients, "synthetic": True, "stays": len(people.stays)}
    about |= {"rule": RULE, "imports_peak": child("")["peak"], "doors": found, "machine": common.machine()}
    common.emit({**about, "versions": common.versions("duckdb", "pyarrow")}, given.out)


if __name__ == "__main__":
    main()
