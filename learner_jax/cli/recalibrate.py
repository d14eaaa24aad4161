"""`learner recalibrate`: a trained model's chances, moved to what comes at one hospital."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from learner_jax.cli import doors, environment
from learner_jax.cli.flags import Parsed
from learner_jax.errors import ConfigError


def recalibrate(parsed: Parsed) -> int:
    """Says how far told chances are from what came, and writes the model with them moved."""
    values = parsed.values
    if len(parsed.words) != 1:
        raise ConfigError(f"expected one run's folder, got {len(parsed.words)}: learner recalibrate RUN --data=TABLE")
    if not values["data"]:
        raise ConfigError("expected --data=TABLE: rows with their outcome, that the model did not learn from")
    out = Path(values["out"]) if values["out"] else None
    if out is not None and out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise ConfigError(f"--out: expected a new folder, got {out}, which is there already")
    environment.apply(environment.for_one_site())
    model = doors.trained(Path(parsed.words[0]))
    new = model.recalibrated(doors.read_table(Path(values["data"])))
    if model.moved is not None:
        print("This model was recalibrated before; that is taken away first.")
    print("\n".join(_words(new.moved)))
    if out is None:
        print("Nothing was written: --out=FOLDER keeps the model with its chances moved.")
        return 0
    new.save(out)
    print(f"{out}: the same model, its chances moved. `learner predict {out} ...` tells them.")
    return 0


def _words(moved: Any) -> list[str]:
    found = [
        f"Of {moved.rows:,} rows {moved.events:,} had the outcome: {100 * moved.observed:.1f} of 100, where the model "
        f"told {100 * moved.told:.1f}."
    ]
    low, high = (moved.intercept + sign * 1.96 * moved.intercept_se for sign in (-1, 1))
    if moved.slope_se is None:
        found.append(f"Chances are moved by {moved.intercept:+.2f} in log-odds (95 % {low:+.2f} to {high:+.2f}).")
        found.append("Their spread stays: that takes 100 patients with the outcome and 100 without.")
    else:
        flat, steep = (moved.slope + sign * 1.96 * moved.slope_se for sign in (-1, 1))
        found.append(
            f"Log-odds are moved by {moved.intercept:+.2f} ({low:+.2f} to {high:+.2f} at odds of one to one), their "
            f"spread is taken times {moved.slope:.2f} (95 % {flat:.2f} to {steep:.2f})."
        )
    if moved.needed >= 0.05:
        found.append(
            f"That the model needs it cannot be told from these rows: were its own chances right, outcomes so far from "
            f"them would come {100 * moved.needed:.0f} times in 100."
        )
    return found
