"""Studies whose processes die, or whose disks are full, where a test says."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from learner_jax import failpoints
from learner_jax.specs import Checkpoint, Data, Spec, Study
from tests.federation.hospitals import flags, small, tables_of
from tests.federation.kills import Kill, events, where_it_fell
from tests.federation.nursery import Child, Nursery

SITES = ("h00", "h01")
# small steps: the model gets better for thousands of rounds, so that the best one is written again and again
SLOW = {
    "fedavg": Spec("algorithms", "fedavg", {"local": Spec("optimizers", "sgd", {"learning_rate": 0.0003})}),
    "scaffold": Spec("algorithms", "scaffold", {"local_lr": 0.0003}),
}


def slow_study(source: Path, method: str, rounds: int) -> Study:
    data = Data(source=str(source), site_column=None, sites=SITES)
    return small(
        source, rounds=rounds, data=data, algorithm=SLOW[method], target="valid/loss",
        checkpoint=Checkpoint(keep_last=2),
    )  # fmt: skip


class Federation:
    """A coordinator and two sites, each of which can be started with a point armed."""

    def __init__(self, nursery: Nursery, study: Study, folder: Path):
        self._nursery, self._study, self._folder = nursery, study, folder
        self.run, self._count = folder / "run", 0

    def coordinator(self, point: str = "") -> Child:
        """Starts it, or goes on with it: always the same command."""
        return self._start(["coordinator", *flags(self._study, self.run), f"--sites={','.join(SITES)}"], point)

    def site(self, name: str, coordinator: Child, point: str = "") -> Child:
        """Starts a site's worker, or goes on with it."""
        folder, code = self._folder / "sites" / name, self.run / "join" / f"{name}.code"
        while not (code.exists() or (folder / "membership.json").exists()):
            assert coordinator.poll() is None, coordinator.said
            time.sleep(0.01)
        given = [f"--data={tables_of(self._study)[name]}", f"--workdir={folder}", "--json"]
        return self._start(["join", f"--join_file={code}", *given], point)

    def _start(self, arguments: Sequence[str], point: str) -> Child:
        self._count += 1
        log = self._folder / "words" / f"{self._count}-{arguments[0]}"
        return self._nursery.start(arguments, log, {failpoints.VARIABLE: point} if point else {})


def died(child: Child, point: str, run: Path, others: Sequence[Child] = ()) -> Kill:
    """Waits for a death at a point, and prints it; the others live on."""
    while child.poll() is None:
        for other in others:
            assert other.poll() in (None, 0), f"it lives on, but ended with {other.returncode}: {other.said[-2000:]}"
        time.sleep(0.01)
    assert child.wait() == -9, f"expected to die at {point}, ended with {child.returncode}: {child.said[-2000:]}"
    fell = where_it_fell(run)
    print(f"  {point}: kill -9 in {fell}")
    return fell


def ended(study: Study, run: Path, children: Sequence[Child], undisturbed: str) -> None:
    """All ended well, with the weights of an undisturbed run, and each round was told once."""
    assert {child.last_line()["weights_sha256"] for child in children} == {undisturbed}
    closed = [line for line in events(run) if line["event"] == "round_closed"]
    assert [line["round"] for line in closed] == list(range(1, study.rounds + 1))
    assert not any(line["lost"] for line in closed)
