"""The cohort and the plain features of `benchmarks.records_polars`, as a good analyst would write them with polars.

Written for these files alone: lazy frames over the Parquet columns that are needed, joins by patient, windows, and a
loop where a rule looks back at what it kept. Shares no code with the package, and needs polars alone, so that any
Python that has it will do:

    PYTHON -m benchmarks.polars_by_hand --door=meds --folder=FOLDER --configs=configs
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

try:
    import polars as pl  # pyright: ignore[reportMissingImports]
except ImportError:
    raise SystemExit("expected polars: name a Python that has it by --polars_python (pip install polars)") from None

PLAIN = ("age", "female", "stay_days", "stays_180", "stays_365", "days_since_stay")
GRAVER = {"diabetes": "diabetes_complicated", "mild_liver": "severe_liver", "malignancy": "metastatic"}
"""Of two groups of one disease the graver counts."""
INPATIENT = (9201, 262, 8717, 32037, 8971, 8970, 581379, 32760, 8913)
"""OMOP's visit concepts of stays."""


class Tables(NamedTuple):
    """patients: patient, birth, female, death. stays: patient, stay, number, admit, discharge, went. diagnoses:
    patient, stay, time, code ("ICD9CM//4280"), concept."""

    patients: pl.LazyFrame
    stays: pl.LazyFrame
    diagnoses: pl.LazyFrame


def of_meds(folder: Path) -> Tables:
    """Admissions and discharges by their number, diagnoses by their code."""
    rows = pl.scan_parquet(folder / "data" / "*" / "*.parquet")
    code, time_ = pl.col("code"), pl.col("time")
    about = rows.filter(code.str.starts_with("GENDER//") | code.is_in(["MEDS_BIRTH", "MEDS_DEATH"]))
    patients = about.group_by(pl.col("subject_id").alias("patient")).agg(
        birth=time_.filter(code == "MEDS_BIRTH").min(),
        female=code.filter(code.str.starts_with("GENDER//")).first() == "GENDER//F",
        death=time_.filter(code == "MEDS_DEATH").min(),
    )
    came, left = code.str.starts_with("HOSPITAL_ADMISSION"), code.str.starts_with("HOSPITAL_DISCHARGE")
    stays = (
        rows.filter(came | left)
        .group_by(pl.col("subject_id").alias("patient"), pl.col("hadm_id").alias("stay"))
        .agg(admit=time_.filter(came).min(), discharge=time_.filter(left).max(), went=code.filter(left).last())
        .with_columns(
            number=pl.col("stay").cast(pl.String), went=pl.col("went").str.strip_prefix("HOSPITAL_DISCHARGE//")
        )
    )
    ill = rows.filter(code.str.starts_with("DIAGNOSIS//ICD//")).select(
        patient="subject_id",
        stay="hadm_id",
        time="time",
        code=code.str.replace("DIAGNOSIS//ICD//9//", "ICD9CM//", literal=True).str.replace(
            "DIAGNOSIS//ICD//10//", "ICD10CM//", literal=True
        ),
        concept=pl.lit(None, pl.Int64),
    )
    return Tables(patients, stays, ill)


def of_omop(folder: Path) -> Tables:
    """Visits that are stays; conditions by their source's code, whose system its form tells."""
    person, death = (pl.scan_parquet(folder / f"{name}.parquet") for name in ("person", "death"))
    died = death.group_by("person_id").agg(death=pl.col("death_datetime").min())
    patients = person.join(died, on="person_id", how="left").select(
        patient="person_id",
        birth=pl.datetime("year_of_birth", "month_of_birth", "day_of_birth"),
        female=pl.col("gender_concept_id") == 8532,
        death="death",
    )
    visits = pl.scan_parquet(folder / "visit_occurrence.parquet")
    said = pl.col("admitted_from_source_value")
    stays = visits.filter(pl.col("visit_concept_id").is_in(INPATIENT) | said.is_not_null()).select(
        patient="person_id",
        stay="visit_occurrence_id",
        number=pl.col("visit_source_value").cast(pl.String),
        admit="visit_start_datetime",
        discharge="visit_end_datetime",
        went="discharged_to_source_value",
    )
    code = pl.col("condition_source_value").str.strip_chars()
    old = code.str.contains(r"^(\d{3,5}|E[89]\d{2,3}|V\d{2,4})$")
    ill = pl.scan_parquet(folder / "condition_occurrence.parquet").select(
        patient="person_id",
        stay="visit_occurrence_id",
        time="condition_start_datetime",
        code=pl.when(old).then("ICD9CM//" + code).otherwise("ICD10CM//" + code),
        concept="condition_concept_id",
    )
    return Tables(patients, stays, ill)


def listed(path: Path) -> list[dict[str, str]]:
    """Rows of a code list, codes without points."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return [{**row, "code": row["code"].replace(".", "").upper()} for row in csv.DictReader(lines)]


def matched(codes: Iterable[str], rows: list[dict[str, str]], name: str) -> pl.DataFrame:
    """(code, name of what it is) of each distinct code that a list holds."""
    found = set()
    for row in rows:
        full, prefix = f"{row['vocabulary']}//{row['code']}", row["match"] == "prefix"
        found |= {(code, row.get(name, "")) for code in codes if code == full or (prefix and code.startswith(full))}
    return pl.DataFrame(sorted(found), schema={"code": pl.String, "name": pl.String}, orient="row")


def index_stays(tables: Tables, codes: pl.DataFrame, concepts: list[int]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(index stays with their outcome, all stays), transfers taken as one stay."""
    day = pl.duration(days=1)
    stays = tables.stays.join(tables.patients, on="patient").drop_nulls(["admit", "discharge"])
    until = pl.max_horizontal("admit", "discharge").max()
    known = stays.filter(pl.col("discharge") >= pl.col("admit"), pl.col("admit") >= pl.col("birth") - day)
    ordered = known.sort("patient", "admit", "discharge", "stay")
    before = pl.col("discharge").cum_max().shift(1).over("patient")
    runs = ordered.with_columns(run=(before.is_null() | (pl.col("admit") > before + day)).cum_sum())
    marked = tables.diagnoses.filter(pl.col("code").is_in(codes["code"]) | pl.col("concept").is_in(concepts))
    found, ill, last = pl.collect_all([runs, marked.select("stay").unique(), stays.select(until=until)])
    latest = ["discharge", "admit", "stay"]
    every = (
        found.lazy()
        .group_by("run")
        .agg(
            pl.col("patient", "number", "stay", "admit", "birth", "female", "death").first(),
            pl.col("discharge").max(),
            pl.col("went").sort_by(latest).last(),
            heart_failure=pl.col("stay").is_in(ill["stay"].implode()).any(),
        )
        .sort("patient", "admit")
        .with_columns(back=pl.col("admit").shift(-1).over("patient"))
        .collect()
    )
    chosen = every.filter(
        "heart_failure",
        pl.col("birth").dt.offset_by("18y") <= pl.col("admit"),
        ~pl.col("went").is_in(["DIED", "HOSPICE"]).fill_null(value=False),
    )
    chosen = chosen.filter(spaced(chosen, timedelta(days=30)))
    soon = (pl.col("back").dt.date() - pl.col("discharge").dt.date() <= pl.duration(days=30)).fill_null(value=False)
    end = pl.col("discharge") + pl.duration(days=30)
    outcome = (
        pl.when(soon)
        .then(pl.lit("1"))
        .when((pl.col("death") <= end).fill_null(value=False))
        .then(pl.lit("died"))
        .when(end > last["until"][0])
        .then(pl.lit("lost"))
        .otherwise(pl.lit("0"))
    )
    return chosen.with_columns(outcome=outcome), every


def spaced(chosen: pl.DataFrame, gap: timedelta) -> pl.Series:
    """Whether a stay begins more than a gap after the last one that was kept: each looks back at those before."""
    kept, last, whose = [], None, None
    for patient, admit, discharge in chosen.select("patient", "admit", "discharge").iter_rows():
        keep = patient != whose or admit - last > gap
        kept.append(keep)
        if keep:
            whose, last = patient, discharge
    return pl.Series(kept, dtype=pl.Boolean)


def features(
    index: pl.DataFrame, every: pl.DataFrame, tables: Tables, groups: list[dict[str, str]]
) -> tuple[pl.DataFrame, list[str]]:
    """A row an index stay, and the names of the features: plain ones, the Charlson groups, and their points."""
    names = list(dict.fromkeys(row["group"] for row in groups))
    points = {row["group"]: int(row["charlson"]) for row in groups}
    days = lambda a, b: (pl.col(a) - pl.col(b)).dt.total_seconds() / 86400  # noqa: E731
    year = pl.duration(days=365)
    mine = index.lazy().select("run", "patient", "admit", "discharge")
    earlier = (
        mine.join(every.lazy().select("patient", ended="discharge"), on="patient")
        .filter(pl.col("ended") <= pl.col("admit"))
        .group_by("run")
        .agg(
            stays_180=(pl.col("ended") >= pl.col("admit") - pl.duration(days=180)).sum(),
            stays_365=(pl.col("ended") >= pl.col("admit") - year).sum(),
            days_since_stay=days("admit", "ended").min(),
        )
    )
    distinct = tables.diagnoses.select(pl.col("code").unique()).collect()["code"]
    ends = tables.stays.select("stay", end="discharge")
    known = (
        tables.diagnoses.join(matched(distinct, groups, "group").lazy(), on="code")
        .join(ends, on="stay", how="left")
        .select("patient", "name", known=pl.max_horizontal("time", "end"))
        .join(mine, on="patient")
        .filter(pl.col("known") <= pl.col("discharge"), pl.col("known") >= pl.col("admit") - year)
        .group_by("run")
        .agg((pl.col("name") == name).any().alias(name) for name in names)
    )
    birth, admit = pl.col("birth"), pl.col("admit")
    months = 12 * (admit.dt.year() - birth.dt.year()) + admit.dt.month() - birth.dt.month()
    not_yet = (admit.dt.day() < birth.dt.day()) | (
        (admit.dt.day() == birth.dt.day()) & (admit.dt.time() < birth.dt.time())
    )
    of_group = [pl.col(n) & ~pl.col(GRAVER[n]) if n in GRAVER else pl.col(n) for n in names]
    rows = (
        index.lazy()
        .join(earlier, on="run", how="left")
        .join(known, on="run", how="left")
        .with_columns(pl.col(*names).fill_null(value=False), pl.col("stays_180", "stays_365").fill_null(0))
        .with_columns(
            age=(months - not_yet) // 12,
            stay_days=days("discharge", "admit"),
            charlson=pl.sum_horizontal(
                flag.cast(pl.Int64) * points[name] for flag, name in zip(of_group, names, strict=True)
            ),
        )
        .collect(engine="streaming")
    )
    return rows, [*PLAIN, *names, "charlson"]


def digest(rows: Iterable[tuple[Any, ...]]) -> str:
    """Of rows, whatever their order; numbers to nine places, since polars divides by multiplying with a reciprocal."""
    told = sorted(tuple(round(one, 9) if isinstance(one, float) else one for one in row) for row in rows)
    return hashlib.sha256(repr(told).encode()).hexdigest()


def peak() -> int:
    """Bytes that this process has had in memory at most."""
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def one(door: str, folder: Path, configs: Path) -> dict[str, Any]:
    """Files to features, timed; what was found, as digests."""
    begun, used = time.perf_counter(), time.process_time()
    tables = {"meds": of_meds, "omop": of_omop}[door](folder)
    ill, groups = (listed(configs / "codes" / f"{name}.csv") for name in ("heart_failure", "charlson"))
    distinct = tables.diagnoses.select(pl.col("code").unique()).collect()["code"]
    concepts = [int(row["code"]) for row in ill if row["vocabulary"] == "OMOP"]
    index, every = index_stays(tables, matched(distinct, ill, "label"), concepts)
    chosen = time.perf_counter() - begun
    rows, names = features(index, every, tables, groups)
    told: dict[str, Any] = {"wall_s": time.perf_counter() - begun, "cpu_s": time.process_time() - used}
    told |= {"cohort_s": chosen, "peak": peak(), "index": index.height, "features": len(names)}
    stays = index.select("number", "admit", "discharge", "outcome").iter_rows()
    values = rows.select("number", *(pl.col(name).cast(pl.Float64) for name in names)).iter_rows()
    told["cohort_sha256"] = digest((a, str(b), str(c), d) for a, b, c, d in stays)
    return told | {"features_sha256": digest(values)}


def main() -> None:
    """One door in this process: a JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--door", choices=("meds", "omop"), default="meds")
    parser.add_argument("--folder", type=Path, help="the files; without, what importing takes is told")
    parser.add_argument("--configs", type=Path, default=Path("configs"), help="the folder of code lists is in it")
    given = parser.parse_args()
    told = {"peak": peak()} if given.folder is None else one(given.door, given.folder, given.configs)
    print(json.dumps({"polars": pl.__version__, **told}))


if __name__ == "__main__":
    main()
