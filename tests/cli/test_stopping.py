"""A signal to stop is heard once, wherever it falls."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from learner_jax.cli.stopping import Stopped, stoppable


class _Last:
    """Is told to stop where Python lets no exception out."""

    def __init__(self, sign: signal.Signals):
        self.sign = sign

    def __del__(self):
        os.kill(os.getpid(), self.sign)
        time.sleep(0.001)


@pytest.mark.parametrize(("sign", "raised"), [(signal.SIGTERM, Stopped), (signal.SIGINT, KeyboardInterrupt)])
def test_a_stop_that_falls_into_a_finaliser_comes_again(sign, raised, capfd):
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt) as caught, stoppable():
            last = _Last(sign)
            del last
            time.sleep(20)
    finally:
        signal.signal(signal.SIGINT, kept)
    assert caught.type is raised and capfd.readouterr().err == ""


def test_other_faults_of_finalisers_are_told_as_ever(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    class Faulty:
        def __del__(self):
            raise ValueError("of another kind")

    with stoppable():
        faulty = Faulty()
        del faulty
    assert len(told) == 1 and sys.unraisablehook == told.append
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
