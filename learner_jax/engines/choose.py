"""Plan "auto": the quickest way to lay a study's rounds over this machine, by trying each on some of its sites.

Trying takes some rounds of some sites and a compilation for each plan, so it is done where a study's rounds take a
minute and more; the others run by the plan that they are given. What is found is kept beside the compiled programs, and
in the run's folder: a run goes on with the plan that it began with, since another would give other last bits.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from learner_jax import specs, trees
from learner_jax.engines.outcome import machine
from learner_jax.engines.program import Plan, Program
from learner_jax.errors import CorruptError, StorageError
from learner_jax.specs import Study
from learner_jax.storage.atomic import read_json, write_json
from learner_jax.types import PyTree

FILE = "plan.json"
WORTH_S = 60.0
"""Seconds that a study's rounds take in all, from which plans are tried."""
CLEARLY = 0.9
"""Another plan is taken where it takes at most this much of the first one's time: less may be noise."""
_SHARE = 8
"""Of the sites of a round, one in so many is tried."""
_TIMES = 3


def candidates(first: Plan, devices: int, size: int) -> list[Plan]:
    """The plans to try, the one first that is taken where nothing is clearly better."""
    streams = Plan(max(1, min(devices, size)), 1)
    found = [first, Plan(1, 1), Plan(1, min(4, size)), Plan(1, min(8, size)), streams]
    return list(dict.fromkeys(found))


def chosen(
    study: Study,
    plans: Sequence[Plan],
    make: Callable[[Plan], Program],
    server: PyTree,
    states: PyTree,
    cohort: np.ndarray,
    folder: Path | None,
    begun: bool,
    say: Callable[[str], None],
) -> Program:
    """The program by the plan that is quickest here.

    Args:
      study: of which the rounds and the cache's folder count.
      plans: see `candidates`.
      make: a program by a plan.
      server, states: at the start; not consumed.
      cohort: int32, places of the sites of a round, ascending.
      folder: the run's, None for none.
      begun: rounds were run in the folder already: by the plan that lies there, or else by the first one.
      say: told in a line what was tried.
    """
    kept = _read(folder / FILE) if folder is not None and begun else None
    if begun:
        return make(kept or plans[0])
    first = make(plans[0])
    cache = specs.cache_folder(study.engine)
    key = _key(study, first, server, states, len(cohort), plans)
    known = None if cache is None else _read(cache / "plans" / f"{key}.json")
    if known is not None and known in plans:
        plan, program = known, first if known == plans[0] else make(known)
        say(f"plan: {plan.said()} (the quickest when it was tried on this machine)")
    else:
        plan, program, told = _tried(study, plans, first, make, server, states, cohort)
        if told:
            say(told)
            if cache is not None:
                with contextlib.suppress(OSError, StorageError):  # it is tried again the next time
                    (cache / "plans").mkdir(parents=True, exist_ok=True)
                    write_json(cache / "plans" / f"{key}.json", plan._asdict())
    if folder is not None:
        write_json(folder / FILE, plan._asdict())
    return program


def _tried(
    study: Study,
    plans: Sequence[Plan],
    first: Program,
    make: Callable[[Plan], Program],
    server: PyTree,
    states: PyTree,
    cohort: np.ndarray,
) -> tuple[Plan, Program, str]:
    """(the plan, its program, what to say; "" where it was not worth the trying)."""
    one = cohort[np.argsort(first.steps[cohort], kind="stable")[len(cohort) // 2 :][:1]]
    busy = first.steps_in(cohort) / max(1, first.steps_in(one)) / plans[0].streams
    if _seconds(first, server, states, one, 1) * busy * study.rounds < WORTH_S:
        return plans[0], first, ""
    least = 2 * max(max(plan) for plan in plans)  # every stream and lane has something to do
    some = cohort[:: max(1, min(_SHARE, len(cohort) // least))]
    took = {plans[0]: _seconds(first, server, states, some)}
    programs = {plans[0]: first}
    for plan in plans[1:]:
        programs[plan] = make(plan)
        took[plan] = _seconds(programs[plan], server, states, some)
    best = min(took, key=lambda plan: took[plan])
    if took[best] > CLEARLY * took[plans[0]]:
        best = plans[0]
    tried = "; ".join(f"{plan.said()} {1000 * seconds:.0f} ms" for plan, seconds in took.items())
    return best, programs[best], f"plan: {best.said()} (a round of {len(some)} sites took: {tried})"


def _seconds(program: Program, server: PyTree, states: PyTree, cohort: np.ndarray, times: int = _TIMES) -> float:
    """The least of some calls after the first, which compiles."""
    best, placed = float("inf"), program.place(server)
    for turn in range(1 + times):
        # they are consumed; one stream's `place` makes a copy itself
        mine = program.place(states if program.plan.streams == 1 else jax.tree.map(jnp.copy, states))
        program.prepare(1, cohort)
        jax.block_until_ready((placed, mine))
        begun = time.perf_counter()
        jax.block_until_ready(program.round(placed, mine, 1, cohort))
        best = min(best, time.perf_counter() - begun) if turn else best
    return best


def _key(study: Study, program: Program, server: PyTree, states: PyTree, cohort: int, plans: Sequence[Plan]) -> str:
    """Digest of what makes the work: the machine, versions, shapes, how many sites and steps."""
    device = jax.devices()[0]
    told = {
        "device": [device.platform, device.device_kind, len(jax.devices())],
        "machine": machine(),
        "jax": jax.__version__,
        "server": [str(leaf) for leaf in trees.schema(server)],
        "states": [str(leaf) for leaf in trees.schema(states)],
        "algorithm": study.algorithm.name,
        "model": study.model.name if study.model is not None else "",
        "batch": study.batch_size,
        "cohort": cohort,
        "rounds": study.rounds,
        "rows": [type(program).__name__, study.engine.rows_mib],
        "steps": [int(step) for step in np.quantile(program.steps, [0, 0.5, 1])],
        "plans": [list(plan) for plan in plans],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _read(path: Path) -> Plan | None:
    """A plan that was kept; None where there is none that can be read."""
    if not path.exists():
        return None
    try:
        found: Any = read_json(path)
        plan = Plan(int(found["streams"]), int(found["lanes"]))
    except (CorruptError, StorageError, KeyError, TypeError, ValueError):
        return None
    return plan if min(plan) >= 1 and plan.streams <= len(jax.devices()) else None
