"""`learner backup` and `learner restore`: a line for people, or one JSON object."""

from __future__ import annotations

import json
from pathlib import Path

from learner_jax.cli import doors
from learner_jax.cli.flags import Parsed
from learner_jax.cli.sentences import size
from learner_jax.errors import ConfigError


def backup(parsed: Parsed) -> int:
    """Takes one."""
    run = _one(parsed, "a run's folder: learner backup RUN --out=FILE.tar")
    if not parsed.values["out"]:
        raise ConfigError("--out is missing: expected the file to write, such as --out=study.tar")
    out = Path(parsed.values["out"])
    found = doors.backup(run, out)
    if parsed.values["json"]:
        print(json.dumps({"run": str(run), "file": str(out), **found}))
        return 0
    print(
        f"{out}: study {found['study']} as of round {found['round']}, {size(found['bytes'])} in {found['files']} files."
    )
    print("It holds the coordinator's secret keys: keep it as you keep them.")
    if (run / "sites").exists():
        print(f"{run / 'sites'} is not in it: each site keeps its own state and table.")
    return 0


def restore(parsed: Parsed) -> int:
    """Puts one back."""
    file = _one(parsed, "a backup: learner restore FILE.tar --workdir=RUN")
    if not parsed.values["workdir"]:
        raise ConfigError("--workdir is missing: expected the folder to make, such as --workdir=runs/study")
    run = Path(parsed.values["workdir"])
    found = doors.restore(file, run)
    if parsed.values["json"]:
        print(json.dumps({"run": str(run), "file": str(file), **found}))
        return 0
    print(f"{run}: study {found['study']} as of round {found['round']}, backed up at {found['made']}.")
    print(f"The same command goes on with --workdir={run}. What came after round {found['round']} is run again; sites "
          "refuse the coordinator of before from now on.")  # fmt: skip
    if found["lets_in"]:
        print(f"It lets in {', '.join(found['lets_in'])}: revoke again whom you revoked after the backup "
              f"(learner revoke SITE --workdir={run}) before you start it.")  # fmt: skip
    return 0


def _one(parsed: Parsed, what: str) -> Path:
    if len(parsed.words) != 1:
        raise ConfigError(f"expected one name, of {what}; got {len(parsed.words)}")
    return Path(parsed.words[0])
