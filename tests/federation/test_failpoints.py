"""`kill -9` at each failpoint of the coordinator and of a site: all go on, to the bits of an undisturbed run.

One study a chain: the coordinator dies at a point, is started again with the next one armed, and so on, while its sites
stay and call again; or a site dies again and again, while the coordinator stays. Every death is that of a process of
its own, shown by its exit status.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import pytest

from learner_jax import failpoints
from learner_jax.specs import Study
from tests.federation.chains import SITES, SLOW, Federation, died, ended, slow_study
from tests.federation.hospitals import simulated

ONCE = ("coordinator.journal.after_epoch", "coordinator.study.after_statistics", "coordinator.study.before_restore",
        "coordinator.study.after_restore")  # fmt: skip
"""Passed once by each process."""
AT_THE_END = ("coordinator.study.before_finish", "coordinator.study.after_finish", "coordinator.steps.mid_replace",
              "coordinator.result.before_model", "coordinator.result.before_result")  # fmt: skip
LAST = "coordinator.result.after_result"
"""Passed once by each study."""
AT_THE_START = ("site.epoch.before_write", "site.epoch.before_fsync", "site.epoch.before_rename",
                "site.fitted.before_write", "site.fitted.before_fsync", "site.fitted.before_rename",
                "site.fitted.after_rename")  # fmt: skip
ELSEWHERE = ("site.epoch.after_rename", "site.outbox.before_discard", "site.outbox.after_discard")
"""Passed once by each epoch that a site meets, or only when an update was refused: never in these studies."""
COORDINATOR = [name for name in failpoints.NAMES if name.startswith("coordinator.")]
SITE = [name for name in failpoints.NAMES if name.startswith("site.")]


def points(draw: random.Random, times: int) -> list[str]:
    """The coordinator's points, each so often: those of every round in any order, the best model's first."""
    each = [name for name in COORDINATOR if name not in (*AT_THE_END, LAST)]
    found = []
    for _ in range(times):
        order = sorted(draw.sample(each, len(each)), key=lambda name: not name.startswith("coordinator.best"))
        found += [f"{name}:{1 if name in ONCE else draw.randint(1, 2)}" for name in order]
    return found + [f"{name}:1" for name in AT_THE_END for _ in range(times)] + [f"{LAST}:1"]


def chain_of_the_coordinator(study: Study, there: Federation, chain: Sequence[str], undisturbed: str) -> None:
    """The coordinator dies at each point of a chain; its sites stay."""
    coordinator, sites = there.coordinator(chain[0]), []
    sites = [there.site(name, coordinator) for name in SITES]
    for place, point in enumerate(chain):
        died(coordinator, point, there.run, sites)
        coordinator = there.coordinator(chain[place + 1] if place + 1 < len(chain) else "")
    ended(study, there.run, [coordinator, *sites], undisturbed)


def chain_of_a_site(study: Study, there: Federation, chain: Sequence[str], undisturbed: str) -> None:
    """A site dies at each point of a chain; coordinator and the other site stay."""
    coordinator = there.coordinator()
    other, site = there.site(SITES[0], coordinator), there.site(SITES[1], coordinator, chain[0])
    for place, point in enumerate(chain):
        died(site, point, there.run, [coordinator, other])
        site = there.site(SITES[1], coordinator, chain[place + 1] if place + 1 < len(chain) else "")
    ended(study, there.run, [coordinator, other, site], undisturbed)


@pytest.mark.slow
def test_a_sample_of_deaths(source, nursery, tmp_path):
    study = slow_study(source, "scaffold", 8)
    there = Federation(nursery, study, tmp_path)
    coordinator = there.coordinator("coordinator.journal.before_closed:4")
    stays, site = there.site("h00", coordinator), there.site("h01", coordinator, "site.outbox.before_commit:3")
    died(site, "site.outbox.before_commit", there.run)
    site = there.site("h01", coordinator)
    died(coordinator, "coordinator.journal.before_closed", there.run)
    coordinator = there.coordinator("coordinator.steps.before_finalise:1")
    died(coordinator, "coordinator.steps.before_finalise", there.run)
    ended(study, there.run, [there.coordinator(), stays, site], simulated(study).sha256)


@pytest.mark.soak
@pytest.mark.limit(900)
@pytest.mark.parametrize("method", SLOW)
def test_the_coordinator_dies_at_every_point_four_times(method, source, nursery, tmp_path):
    study = slow_study(source, method, 2400)  # a coordinator that loads what it saves by runs some tens meanwhile
    chain = points(random.Random(8), 4)
    assert len({point.split(":")[0] for point in chain}) == len(COORDINATOR) >= 25
    begun = time.monotonic()
    chain_of_the_coordinator(study, Federation(nursery, study, tmp_path), chain, simulated(study).sha256)
    took = time.monotonic() - begun
    print(f"{method}: {len(chain)} kills at {len(COORDINATOR)} points, all went on, same bits ({took:.0f} s)")


@pytest.mark.soak
@pytest.mark.limit(900)
@pytest.mark.parametrize("method", SLOW)
def test_a_site_dies_at_every_point_four_times(method, source, nursery, tmp_path):
    study, draw = slow_study(source, method, 120), random.Random(9)
    each = [name for name in SITE if name not in (*AT_THE_START, *ELSEWHERE)]
    chain = [f"{name}:1" for name in AT_THE_START for _ in range(4)]
    chain += [f"{name}:{draw.randint(1, 2)}" for _ in range(4) for name in draw.sample(each, len(each))]
    begun = time.monotonic()
    chain_of_a_site(study, Federation(nursery, study, tmp_path), chain, simulated(study).sha256)
    took, count = time.monotonic() - begun, len(each) + len(AT_THE_START)
    print(f"{method}: {len(chain)} kills of a site at {count} points, all went on, same bits ({took:.0f} s)")
