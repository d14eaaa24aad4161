"""What is let through, frame by frame, and how fast."""

from __future__ import annotations

import pytest

from learner_jax.protocol import broker
from learner_jax.protocol.messages import CHUNK, ENROL_LIMIT, HEADER_LIMIT


@pytest.mark.parametrize(
    "user, header, payload, more, says",
    [
        ("a", HEADER_LIMIT, CHUNK, False, None),
        ("a", HEADER_LIMIT + 1, 0, False, f"expected a header of at most {HEADER_LIMIT} bytes, got {HEADER_LIMIT + 1}"),
        ("a", 0, CHUNK + 1, False, f"expected a chunk of at most {CHUNK} bytes, got {CHUNK + 1}"),
        ("a", HEADER_LIMIT + broker.SEALED, CHUNK + broker.SEALED, True, None),
        ("a", HEADER_LIMIT + broker.SEALED + 1, 0, True, "expected a header"),
        ("a", 0, CHUNK + broker.SEALED + 1, True, "expected a chunk"),
        ("enrol:0", ENROL_LIMIT, 0, False, None),
        ("enrol:0", ENROL_LIMIT + 1, 0, False, "expected one enrolment of at most"),
        ("enrol:0", 1, 1, False, "expected one enrolment of at most"),
    ],
)
def test_who_may_send_how_much(user, header, payload, more, says):
    reason = broker.admit(user, header, payload, more)
    assert reason is None if says is None else reason is not None and reason.startswith(says)


def test_a_rate_and_a_burst_for_each_peer():
    meter = broker.Meter(rate=2.0, burst=3.0)
    assert [meter.allow("a", 10.0) for _ in range(4)] == [True, True, True, False]
    assert meter.allow("b", 10.0) and not meter.allow("a", 10.4) and meter.allow("a", 10.5)
    assert [meter.allow("a", 100.0) for _ in range(4)] == [True, True, True, False]  # no more than a burst is saved up
    meter.forget("a")
    assert meter.allow("a", 100.0)


def test_whoever_makes_up_names_makes_no_account_each():
    meter = broker.Meter(rate=2.0, burst=3.0)
    now, allowed = 10.0, 0
    for number in range(20_000):
        now += 0.001
        assert meter.allow(f"enrol:{number}", now)
        allowed += meter.allow("a", now)
    assert len(meter._buckets) <= broker._ACCOUNTS
    assert allowed <= 3 + 2 * 20 + 1  # who sends too much is not forgotten with them
