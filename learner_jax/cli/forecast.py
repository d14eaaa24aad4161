"""`learner forecast`: what a study will take, said without starting it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from learner_jax.cli import doors
from learner_jax.errors import ConfigError
from learner_jax.specs import Study


def show(study: Study, sites: Sequence[str] | None, line_mbit: float | None, machine: bool) -> int:
    """Prints a study's forecast.

    Args:
      study: checked.
      sites: who takes part; None for the study's own.
      line_mbit: of each site's line; None for the study's own.
      machine: as one JSON object, not in words.

    Returns:
      The exit code.
    """
    from learner_jax.reports import foretold

    if line_mbit is not None:
        if not line_mbit > 0:
            raise ConfigError(f"--line_mbit: expected more than 0, got {line_mbit:g}")
        study = dataclasses.replace(study, federation=dataclasses.replace(study.federation, line_mbit=line_mbit))
    found, seen = doors.forecast(study, sites)
    if machine:
        print(json.dumps({"study": study.name, "tables_seen": seen, **found}))
        return 0
    print("\n".join(foretold.told(found)))
    if not seen:
        print("The sites' tables are not here: every code of an open list was taken to occur.")
    return 0
