"""What a site has answered so far: for its own lines, and for the one that it ends with."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learner_jax.errors import LearnerError
from learner_jax.events import Event
from learner_jax.storage.atomic import read_json, write_json

JUDGED = ("auroc", "auprc", "brier")


class Answers:
    """Counts what the site's machine tells; kept in the site's folder, since a site may be started again.

    Args:
      folder: the site's.

    Attributes:
      rounds: learning rounds whose update was accepted.
    """

    def __init__(self, folder: Path):
        self._path, self._opened, self._began = folder / "answered.json", None, time.monotonic()
        kept = _kept(self._path)
        self.rounds, self._last = kept.get("rounds", 0), kept.get("last", 0)

    @property
    def seconds(self) -> float:
        """Since this process began to take part."""
        return time.monotonic() - self._began

    def told(self, event: Event, rounds: int | None) -> Event:
        """What the machine tells, with what only the engine knows of it.

        Args:
          event: as the machine tells it.
          rounds: of the study, once it is known.

        Returns:
          round_open with rounds; site_done also with seconds since the broadcast was here, and answers so far.
        """
        if event.kind not in ("round_open", "site_done"):
            return event
        data = {**event.data, "rounds": rounds}
        if event.kind == "round_open":
            self._opened = time.monotonic()
            return event._replace(data=data)
        number = data.pop("round")  # a newer round may be open by now
        if data["phase"] == "train" and number > self._last:
            self._count(number)
        if self._opened is not None:
            data["seconds"], self._opened = time.monotonic() - self._opened, None
        return event._replace(round=number, data={**data, "answers": self.rounds})

    def _count(self, number: int) -> None:
        self.rounds, self._last = self.rounds + 1, number
        with contextlib.suppress(LearnerError):  # a count is not worth a study
            write_json(self._path, {"rounds": self.rounds, "last": number})


def keep_figures(folder: Path, **found: Any) -> None:
    """Keeps a site's own figures: `watched`, metrics by name; `judged`, those of `summarise_site` a cohort."""
    with contextlib.suppress(LearnerError):
        write_json(folder / "figures.json", {**_kept(folder / "figures.json"), **found}, mode=0o600)


def own_figures(folder: Path) -> dict[str, float]:
    """A site's figures by name: "valid/auroc" as it watched the last model, "test/auroc" as it judged the best."""
    kept = _kept(folder / "figures.json")
    judged: Mapping[str, Any] = next(iter(kept.get("judged", [])), {}).get("models", {})
    found = dict(kept.get("watched", {}))
    for model, named in (("federated", "test"), ("local_only", "alone")):
        figures = judged.get(model, {})
        found |= {f"{named}/{name}": figures[name]["value"] for name in JUDGED if figures.get(name)}
    return found


def _kept(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except LearnerError:
        return {}
    return found if isinstance(found, dict) else {}
