"""Whether a federation's bytes are those that its forecast told."""

from __future__ import annotations

from learner_jax.protocol import messages as m
from learner_jax.reports import foretold, table
from learner_jax.specs import Study
from tests.federation.hospitals import Ended

D = "0" * 64


def check_told(study: Study, ended: Ended) -> None:
    """Each round's bytes are at most those told, but for pings, and what is said again after a silence or as a ping
    crossed; what compresses may make them fewer."""
    first, second = (event.data for who, event in ended.events if event.kind == "forecast" and who == "coordinator")
    result, sites = ended.outcome.result, tuple(ended.sites)
    assert (first["measured"], second["measured"]) == (False, True) and first["bytes_up"] == second["bytes_up"]
    up = {len(m.encode(m.Ping(study.name, 1, 1, phase))) for phase in ("train", "look")}
    pieces, n = 240, len(sites)
    up |= {pieces + len(m.encode(m.Offer(study.name, 1, 1, "train", 1, s, D, m.Blob(D, size, D)))) for s in sites
           for size in (5000, 70_000)}  # fmt: skip
    down = {len(m.encode(m.Pong(study.name, 1))), len(m.encode(m.Accepted(study.name, 1, 1, "train", D)))}
    down |= {pieces + len(m.encode(m.Open(study.name, 1, 1, "train", 1, n, n, m.Blob(D, size, D), {})))
             for size in (5000, 70_000)}  # fmt: skip
    for row in result["curve"]:
        most = len(sites) * (8 + row["seconds"])  # said again: a site's few messages, and about two each second
        for way, lengths in (("bytes_up", up), ("bytes_down", down)):
            told = first[way] // study.rounds
            assert told / 4 < row[way] <= told + most * max(lengths), row
    was = result["forecast"]["was"]
    assert was["bytes_up"] == result["bytes_up"] and was["coordinator_bytes"] > 1e7
    last = table.text(result).splitlines()[-1]
    assert last == foretold.compared(result) and last.startswith("Told beforehand: ") and "It was: " in last
