"""`learner doctor`: one line a finding, and an exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from learner_jax.cli import doors, environment
from learner_jax.cli.proxy import proxy_of
from learner_jax.specs import Study


def run(values: Mapping[str, Any], study: Study | None, code: str | None) -> int:
    """Looks at a site and says what is to be mended.

    Args:
      values: of the command's flags.
      study: what its table is to fit; None for none.
      code: a join code's text.

    Returns:
      1 if something is to be mended.
    """
    doctor = doors.module("engines.doctor")
    data = Path(values["data"]) if values["data"] else None
    found = []
    for one in doctor.examine(
        Path(values["workdir"]), code, proxy_of(values), data, _fits(study), environment.for_one_site()
    ):
        found.append(one)
        if not values["json"]:
            print(f"{one.name:<10}  {one.verdict:<20}  {' '.join(one.words.split())}", flush=True)
    mend = [one.name for one in found if one.verdict == doctor.MEND]
    unchecked = [one.name for one in found if one.verdict == doctor.UNCHECKED]
    if values["json"]:
        checks = [one._asdict() for one in found]
        print(json.dumps({"command": "doctor", "mend": mend, "unchecked": unchecked, "checks": checks}))
    else:
        print(f"\n{_sum(mend, unchecked)}")
    return 1 if mend else 0


def _sum(mend: list[str], unchecked: list[str]) -> str:
    first = f"To mend: {', '.join(mend)}." if mend else "Nothing to mend."
    return f"{first} Could not be checked: {', '.join(unchecked)}." if unchecked else first


def _fits(study: Study | None) -> Callable[[Path], str] | None:
    if study is None:
        return None

    def fits(path: Path) -> str:
        remarks = doors.check_table(study, path)
        return "; ".join([f"{path} fits what the study {study.name} asks for", *remarks])

    return fits
