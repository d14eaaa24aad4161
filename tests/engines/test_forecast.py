"""The forecast: its bytes are those that links count, and the rest moves the right way.

Whole studies are held against theirs in tests/federation/test_parity.py."""

from __future__ import annotations

import hashlib
import json
import queue
import random
import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner_jax.cli.main import main
from learner_jax.cli.sentences import sentence
from learner_jax.engines import forecast as f
from learner_jax.engines.expected import asked_of
from learner_jax.events import Event
from learner_jax.leaves import piece, site_ids
from learner_jax.network.drive import CoordinatorDrive, CoordinatorHandlers, SiteDrive, SiteHandlers
from learner_jax.network.keys import new_keys
from learner_jax.network.links import CoordinatorLink, SiteLink
from learner_jax.protocol import commands as c
from learner_jax.protocol import messages as m
from learner_jax.protocol import transfers
from learner_jax.protocol.coordinator import RoundKeeper
from learner_jax.protocol.site import SiteKeeper
from learner_jax.reports import foretold
from learner_jax.reports.by_round import per_round
from learner_jax.reports.numerals import size
from learner_jax.reports.words import Nouns
from tests.federation.hospitals import small

SITES = ("a", "bristol", "north-west 2")
ROUND = (m.Open, m.Want, m.Chunk, m.Offer, m.Accepted)
BESIDE = (m.Hello, m.Welcome, m.Ping, m.Pong, m.Done, m.Bye)


def sizes(sites: tuple[str, ...] = SITES, rounds: int = 2, **more: Any) -> f.Sizes:
    given = {"broadcast": 2_500_000, "update": 10_600_000, "weights": 600_000, "steps": 20.0, "batch_size": 32, **more}
    return f.Sizes("study", sites, rounds, lambda number: sites, **{"pieces": (12, 40), **given})


# ---- bytes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [*range(30), 100])
def test_what_is_asked_for_is_what_a_receiver_asks_for(count, monkeypatch):
    monkeypatch.setattr(transfers, "CHUNK", 4)
    data = random.Random(count).randbytes(4 * count)
    held = transfers.Holder()
    held.hold(hashlib.sha256(data).hexdigest(), data)
    here = transfers.Receiver("s", m.Blob(hashlib.sha256(data).hexdigest(), len(data), "0" * 64))
    asked, line = [], here.wants(0.0)
    while line:
        asked += line
        chunks = [frame for want in line for frame in held.chunks(want)]
        line = []
        for frame in chunks:
            here.take(*frame, 0.0)
            line += here.wants(0.0)
    assert here.complete and [(want.offset // 4, want.credit) for want in asked] == f.wants(count)


def test_the_bytes_of_a_round_are_those_that_the_links_count():
    told, server, keys = sizes(rounds=3), new_keys(), {name: new_keys() for name in SITES}
    before, draw = (0, 0), random.Random(0)
    table = b"".join(piece(b"x" * (n + 1)) for n in range(told.pieces[1]))  # not of what is sent: no piece is kept
    seen: Counter[tuple[str, str, type]] = Counter()

    def tap(direction: str, user: str, header: bytes, payload: bytes | memoryview) -> None:
        seen[direction, user, type(m.decode(header))] += len(header) + len(payload)

    closed: queue.Queue[c.CloseRound] = queue.Queue()
    nothing: Any = lambda *given: None  # noqa: E731
    with CoordinatorLink("127.0.0.1", 0, server, {k.curve_public: n for n, k in keys.items()}, tap) as link:
        handlers = CoordinatorHandlers(nothing, lambda asked: None, nothing, nothing, closed.put)
        coordinator = CoordinatorDrive(link, RoundKeeper("study", 1, b"{}", "d" * 64, SITES), handlers)
        coordinator.start()
        links = {name: SiteLink(link.address, server.curve_public, keys[name]) for name in SITES}
        drives = []
        for name, each in links.items():

            def work(asked: c.Work, at: int = len(drives)) -> None:
                update = draw.randbytes(told.update)
                done = c.Worked(asked.open.round, asked.open.phase, update, "5" * 64, b"", table)
                threading.Thread(target=drives[at].post, args=(done,)).start()

            approve = lambda asked: c.Approved(asked.manifest_digest)  # noqa: E731
            keeper = SiteKeeper("study", name, resend_s=60.0, patience_s=60.0)
            drives.append(SiteDrive(each, keeper, SiteHandlers(approve, work, nothing, nothing, nothing)))
            drives[-1].start()
        for number in range(1, told.rounds + 1):
            opening = (draw.randbytes(told.broadcast), "5" * 64, "5" * 64, told.update, 3, 600.0)
            tables = b"".join(piece(b"x" * (n + 1)) for n in range(told.pieces[0]))
            coordinator.post(c.StartRound(number, "train", SITES, *opening, pieces=tables))
            assert len(closed.get(timeout=120).accepted) == 3
            if number == 1:  # a site may say Hello twice as it connects, and is told of the round each time
                seen.clear()
                before = link.counter.bytes_in, link.counter.bytes_out
        counted = link.counter.bytes_in - before[0], link.counter.bytes_out - before[1]
        for drive in (*drives, coordinator):
            drive.stop()
            drive.join(20)
        for each in links.values():
            each.close()
    assert {kind for _, _, kind in seen} <= {*ROUND, *BESIDE}
    for site in SITES:
        came = [sum(seen[way, site, kind] for kind in ROUND) for way in ("in", "out")]
        parts = [f.of_site(told, site, number) for number in (2, 3)]
        assert came == [sum(part.up for part in parts), sum(part.down for part in parts)], site
    whole = [f.of_round(told, number) for number in (2, 3)]
    beside = [sum(n for (way, _, kind), n in seen.items() if way == w and kind in BESIDE) for w in ("in", "out")]
    assert counted[0] == sum(part.up for part in whole) + beside[0]
    assert counted[1] == sum(part.down for part in whole) + beside[1]


# ---- the rest --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 8), st.integers(1, 60), st.floats(0.1, 5000), st.integers(0, 3 * 2**20), st.integers(1, 10**7))
def test_more_sites_rounds_and_bytes_cost_more_and_a_faster_line_less(many, rounds, mbit, size, weights):
    names = tuple(f"site-{n}" for n in range(many + 1))

    def told(sites: int = many, line: float | None = mbit, **more: Any) -> dict[str, Any]:
        given = {"rounds": rounds, "broadcast": size, "update": size, "weights": weights, **more}
        return f.forecast(sizes(names[:sites], **given), f.Line(line))

    this = told()
    assert this["bytes_up"] == pytest.approx(this["up"] * many * rounds)
    for more in (told(many + 1), told(rounds=rounds + 1)):
        assert more["bytes_up"] > this["bytes_up"] and more["bytes_down"] > this["bytes_down"]
        assert more["seconds"] >= this["seconds"] and more["worker_bytes"] == this["worker_bytes"]
    faster = told(line=2 * mbit)
    assert faster["transfer_s"] <= this["transfer_s"] and faster["bytes_up"] == this["bytes_up"]
    heavier = told(broadcast=size + 1000, weights=2 * weights)
    assert heavier["down"] > this["down"] and heavier["round_s"] > this["round_s"]
    assert heavier["coordinator_bytes"] > this["coordinator_bytes"]


def test_a_line_of_20_mbit_carries_so_much_and_no_more():
    one = sizes(("a",), broadcast=2_500_000, update=0)
    assert f.transfer_s(one, f.Line(20.0)) == pytest.approx(1.0, rel=0.2)
    assert f.transfer_s(sizes(tuple("abcdefgh")), f.Line()) > 7 * f.transfer_s(sizes(("a",)), f.Line())


def test_who_is_asked_is_who_will_be():
    study = small("", rounds=5, cohort=2)
    asked = asked_of(study, ("h00", "h01", "h08"))
    assert all(len(set(asked(number))) == 2 for number in range(1, 6))
    assert len({frozenset(asked(number)) for number in range(1, 30)}) == 3
    assert asked_of(small("", cohort=None), ("h01", "h00"))(1) == tuple(site_ids(("h00", "h01")))


# ---- said -----------------------------------------------------------------------------------------------------------


def test_in_words():
    told = f.forecast(sizes(rounds=50), f.Line(20.0))
    lines = foretold.told(told)
    assert lines[0] == (
        "In a round each of three sites gets at most 2.5 MB and sends at most 10.6 MB: "
        "over 50 rounds 1.6 GB up and 375 MB down."
    )
    assert lines[1].startswith("On lines of 20 Mbit/s a round takes about 6 s, 5.4 s of it on the line")
    assert sentence(Event("forecast", "study", data=told)) == " ".join(lines)
    measured = f.seen(sizes(rounds=50), f.Line(20.0), [{"seconds": 9.0}, {"seconds": 6.0}])
    assert sentence(Event("forecast", "study", 2, data=measured)).startswith(
        "By its first rounds, a round takes about 6 s"
    )
    row = {"seconds": 0.5, "bytes_up": 300, "bytes_down": 600, "sites": ["a", "b", "c"], "lost": []}
    curve = [{"round": number, **row} for number in (1, 2)]
    result = {"curve": curve, "forecast": f.compared(told, curve, 2.0, 4e8)}
    assert foretold.compared(result) == (
        "Told beforehand: 10.6 MB up, 2.5 MB down a site and round, 6 s a round, 5 min 0 s in all, "
        f"{size(told['coordinator_bytes'])} of memory at the coordinator. "
        "It was: 100 bytes up, 200 bytes down a site and round, 0.5 s a round, 2 s in all, 400 MB of memory at the "
        "coordinator."
    )
    assert per_round(result, Nouns())["told"] == foretold.compared(result)
    assert foretold.compared({"curve": []}) == "" and foretold.compared({"forecast": told}) == ""


def test_the_command_starts_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = "--config=readmission"
    assert main(["forecast", config, "--sites=4", "--line_mbit=20", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sites"] == told["cohort"] == 4 and told["line_mbit"] == 20.0 and told["tables_seen"]
    assert main(["forecast", config, "--config.federation.line_mbit=20", "--config.data.source=x", "--sites=a,b"]) == 0
    words = capsys.readouterr().out.splitlines()
    assert len(words) == 4 and "two sites" in words[0] and "20 Mbit/s" in words[1] and "not here" in words[3]
    assert list(tmp_path.iterdir()) == []
    assert main(["forecast", config, "--line_mbit=0"]) == 2
    assert "--line_mbit: expected more than 0, got 0" in capsys.readouterr().err


def test_memory_is_foretold_within_an_eighth_of_what_was_measured(root):
    """Of the newest lines of `benchmarks.forecast` and `benchmarks.memory`, from a hundred kilobytes to a gigabyte."""
    results = root / "benchmarks" / "results"
    newest = json.loads((results / "forecast.jsonl").read_text().splitlines()[-1])
    runs = [
        (one["sent"], one["coordinator"], one["worker"])
        for name in ("fedavg", "scaffold")
        for one in newest[name]["runs"]
    ]
    large = json.loads((results / "memory.jsonl").read_text().splitlines()[-1])
    runs += [(large["model"], one["peak"], None) for one in large["runs"]]
    for sent, coordinator, worker in runs:
        told = f.memory(f.Sizes("s", (), 1, lambda number: (), sent, sent, 1, None, 1))
        for foretold_, measured in zip(told, (coordinator, worker), strict=True):
            if measured is not None:
                assert 7 / 8 < foretold_ / measured < 9 / 8, (
                    f"{sent} bytes sent: {foretold_:.4g}, measured {measured:.4g}"
                )
