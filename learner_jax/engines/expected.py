"""From a study to its forecast: shapes of what travels, before anything is started."""

from __future__ import annotations

import contextlib
import functools
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from learner_jax import trees
from learner_jax.data import plans
from learner_jax.data.sites import fit_all
from learner_jax.engines.forecast import Line, Sizes, forecast
from learner_jax.engines.parts import Parts
from learner_jax.engines.program import wire_shape
from learner_jax.engines.simulator import cohort_size
from learner_jax.engines.site_study import broadcast_shape
from learner_jax.engines.sources import frames_of
from learner_jax.errors import DataError
from learner_jax.leaves import count_pieces, schema_bytes, site_ids
from learner_jax.specs import Study
from learner_jax.types import PyTree


def line_of(study: Study) -> Line:
    """The line as the study's config has it."""
    return Line(study.federation.line_mbit)


def sizes_of(parts: Parts, sites: Sequence[str], rows: PyTree, count: float | None, epoch: int = 1) -> Sizes:
    """What a study's forecast needs.

    Args:
      parts: the study.
      sites: names of those that take part.
      rows: one example batch, for its shapes.
      count: rows that a site trains on, in the mean; None where nobody knows.
      epoch: the coordinator's incarnation.
    """
    study, federated = parts.study, parts.federated
    weights = jax.eval_shape(parts.init_weights, rows)
    wire = wire_shape(federated, trees.shapes(weights), rows, parts.local)
    down, up = trees.schema(broadcast_shape(parts, weights)), trees.schema(wire)
    steps = None if count is None else float(plans.steps_of(round(count), study.batch_size, study.epochs, study.steps))
    return Sizes(
        study=study.name,
        sites=tuple(site_ids(sites)),
        rounds=study.rounds,
        asked=asked_of(study, sites),
        broadcast=schema_bytes(down),
        update=schema_bytes(up),
        pieces=(count_pieces(down), count_pieces(up)),
        weights=sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(weights)),
        steps=steps,
        batch_size=study.batch_size,
        epoch=epoch,
        alone="local_only" in study.references,
    )


def asked_of(study: Study, sites: Sequence[str]) -> Callable[[int], Sequence[str]]:
    """(round) -> names of the sites that the coordinator will ask in it."""
    ids = site_ids(sites)
    names, numbers = {number: name for name, number in ids.items()}, np.fromiter(ids.values(), np.uint32, len(ids))
    size = cohort_size(study, len(ids))
    if size == len(ids):
        return lambda number: tuple(ids)

    @functools.cache  # each site of a round asks
    def asked(number: int) -> Sequence[str]:
        return tuple(names[int(one)] for one in plans.cohort(study.seed, number, numbers, size))

    return asked


def beforehand(parts: Parts, sites: Sequence[str] | None = None) -> tuple[dict[str, Any], bool]:
    """A study's forecast without starting it, from its tables where they lie here.

    Args:
      parts: the study.
      sites: who takes part; None for the study's own.

    Returns:
      (the forecast, whether the tables were seen: without them every code of a list is taken to occur).

    Raises:
      DataError: neither the tables nor the sites' names are known.
    """
    checklist = parts.task.checklist
    if checklist is None:
        raise DataError("expected a task with a checklist, got one whose rows are handed over as arrays")
    try:
        frames: Mapping[str, Any] = frames_of(parts.study)
    except (DataError, OSError):
        frames = {}
    names = tuple(sites or parts.study.data.sites or frames)
    if not names:
        raise DataError("expected the sites' names or number (--sites=4), since the study names none")
    if frames:
        fitted = fit_all(checklist, list(frames.values()))
    else:
        fitted = {}
        for one in checklist.statistics:
            fitted = one.fit({name: np.ones_like(leaf) for name, leaf in one.zero(fitted).items()}, fitted)
    count = fitted["rows"] / len(frames) if frames and "rows" in fitted else None
    sizes = sizes_of(parts, names, checklist.template(fitted), count)
    return forecast(sizes, line_of(parts.study)), bool(frames)


def peak_bytes() -> float:
    """The most memory that this process had; where the system tells it so, without that of who started it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024.0 * int(line.split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most if sys.platform == "darwin" else most * 1024)
