"""What `make endurance` judges by: the relay, the clock, the slope of memory, and the account of a journal."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from learner_jax.protocol.rows import Accepted, Closed, Committed
from learner_jax.storage.journal import Journal
from tests.endurance.federation import SITES, account_of
from tests.endurance.memory import EVERY_S, Sample, slope
from tests.endurance.relay import Relay
from tests.federation.hospitals import ROOT


def lives(mb_h: float, draw: np.random.Generator, count: int = 3, samples: int = 300) -> dict[int, list[Sample]]:
    """Lives of ten minutes, each with a level of its own, steps that last, and a warm-up of 60 MB."""
    found = {}
    for life in range(count):
        at = 5000.0 * life + EVERY_S * np.arange(samples)
        hours = (at - at[0]) / 3600
        noise = np.repeat(draw.normal(0, 0.3, samples // 10), 10)
        mb = 300 + 20 * life + mb_h * hours + noise - 60 * np.exp(-hours * 3600 / 5)
        found[life] = [Sample(*pair) for pair in zip(at, mb, strict=True)]
    return found


@pytest.mark.parametrize("mb_h", [0.0, 40.0])
def test_the_interval_holds_the_true_slope(mb_h):
    draw = np.random.default_rng(0)
    found = [slope(lives(mb_h, draw), 45.0) for _ in range(100)]
    held = [one is not None and one.low <= mb_h <= one.high for one in found]
    assert sum(held) >= 88, held
    if mb_h:
        assert all(one is not None and one.low > 0 for one in found)


def test_a_short_life_says_nothing():
    assert slope(lives(0.0, np.random.default_rng(0), count=2, samples=40), 45.0) is None


def test_a_relay_hands_on_holds_and_cuts():
    with socket.create_server(("127.0.0.1", 0)) as server:
        relay = Relay(server.getsockname()[1])
        try:
            with socket.create_connection(("127.0.0.1", relay.port), 5) as here:
                there, _ = server.accept()
                with there:
                    here.sendall(b"one")
                    assert there.recv(9) == b"one"
                    relay.hold()
                    here.sendall(b"two")
                    there.settimeout(0.3)
                    with pytest.raises(TimeoutError):
                        there.recv(9)
                    relay.let_go()
                    there.settimeout(5)
                    assert there.recv(9) == b"two"
                    relay.cut()
                    with contextlib.suppress(ConnectionResetError):
                        assert there.recv(9) == b""
        finally:
            relay.close()


def test_a_clock_jumps_a_day_and_the_monotonic_one_does_not():
    words = (
        "import os, signal, time; from learner_jax import api\n"
        "was, ticked, now = time.time(), time.monotonic(), api.datetime.now()\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
        "print(time.time() - was, time.monotonic() - ticked, (api.datetime.now() - now).total_seconds())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "tests.endurance.clock", "code", "-q"],
        input=words,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    wall, monotonic, date = map(float, ran.stdout.replace(">>> ", "").split())
    assert 86_400 <= wall < 86_460 and 86_400 <= date < 86_460 and 0 <= monotonic < 60


def test_an_account_says_what_may_not_be(tmp_path):
    everyone = tuple((site, "d") for site in SITES)
    with Journal(tmp_path / "journal.sqlite", "small", "d" * 64) as journal:
        for row in (Accepted(1, "train", "h00", "d", 1), Closed(1, "train", everyone), Committed(1, "e")):
            journal.write(row)
        assert account_of(tmp_path) == ({1: "e"}, [], {1: [*SITES]})
        journal.write(Closed(2, "train", (*everyone[:-1], everyone[0])))
        journal.write(Closed(3, "train", everyone[:-1], ("h08",)))
    wrong = account_of(tmp_path).wrong
    assert [text.split(":")[0] for text in wrong] == ["round 2, train", "round 3, train"]
    assert [text.split(":")[0] for text in account_of(tmp_path, 4).wrong] == ["round 2, train"]
