"""Whether a federation's bytes are those that its forecast told."""

from __future__ import annotations

from learner_jax.protocol import messages as m
from learner_jax.reports import foretold, table
from learner_jax.specs import Study
from tests.federation.hospitals import Ended

D = "0" * 64


def explained(more: int, lengths: set[int], most: float) -> bool:
    """Whether so many bytes are a sum of messages of these lengths, at most so many of them."""
    fewest = {0: 0}
    for at in range(1, more + 1):
        before = [fewest[at - one] for one in lengths if at - one in fewest]
        if before:
            fewest[at] = min(before) + 1
    return more in fewest and fewest[more] <= most


def check_told(study: Study, ended: Ended) -> None:
    """Each round's bytes are those told, but for pings, and what is said again after a silence or as a ping crossed."""
    first, second = (event.data for who, event in ended.events if event.kind == "forecast" and who == "coordinator")
    result, sites = ended.outcome.result, tuple(ended.sites)
    assert (first["measured"], second["measured"]) == (False, True) and first["bytes_up"] == second["bytes_up"]
    up = {len(m.encode(m.Ping(study.name, 1, 1, phase))) for phase in ("train", "look")}
    up |= {len(m.encode(m.Offer(study.name, 1, 1, "train", 1, s, D, m.Blob(D, size, D)))) for s in sites
           for size in (5000, 70_000)}  # fmt: skip
    down = {len(m.encode(m.Pong(study.name, 1))), len(m.encode(m.Accepted(study.name, 1, 1, "train", D)))}
    down |= {len(m.encode(m.Open(study.name, 1, 1, "train", 1, len(sites), len(sites), m.Blob(D, size, D), {})))
             for size in (5000, 70_000)}  # fmt: skip
    for row in result["curve"]:
        most = len(sites) * (8 + row["seconds"])  # said again: a site's few messages, and about two each second
        assert explained(row["bytes_up"] - first["bytes_up"] // study.rounds, up, most), row
        assert explained(row["bytes_down"] - first["bytes_down"] // study.rounds, down, most), row
    was = result["forecast"]["was"]
    assert was["bytes_up"] == result["bytes_up"] and was["coordinator_bytes"] > 1e7
    last = table.text(result).splitlines()[-1]
    assert last == foretold.compared(result) and last.startswith("Told beforehand: ") and "It was: " in last
