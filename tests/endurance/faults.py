"""The faults: each is done to a federation, says what it did, and leaves it whole again."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tests.endurance.federation import SITES, Enduring, Violation, fill

ROOM, AGAIN = ("No space left on device", "database or disk is full"), "trying again"
"""The second is SQLite's: who is short of room first, journal or spool, is a matter of luck."""


class Times(NamedTuple):
    """Seconds. stop: of SIGSTOP; partition; recover: within which the study goes on after a fault is over."""

    stop: float = 20.0
    partition: float = 600.0
    recover: float = 120.0


Fault = Callable[[Enduring, random.Random, Times], str]


def _kill(there: Enduring, name: str, draw: random.Random) -> str:
    process, away = there.processes.pop(name), draw.uniform(0, 5)
    process.kill()
    code = process.wait(20)
    if code == 0:  # it was over just before
        there.processes[name] = process
        return f"{name} had ended"
    time.sleep(away)
    there.begin(name)
    return f"kill -9 of {name}, started again after {away:.1f} s"


def kill_coordinator(there: Enduring, draw: random.Random, _: Times) -> str:
    return _kill(there, "coordinator", draw)


def kill_site(there: Enduring, draw: random.Random, _: Times) -> str:
    return _kill(there, draw.choice(sorted(SITES)), draw)


def kill_broker(there: Enduring, draw: random.Random, _: Times) -> str:
    return _kill(there, "broker", draw)


def halt(there: Enduring, draw: random.Random, times: Times) -> str:
    name = draw.choice(["coordinator", "broker", *sorted(SITES)])
    process = there.processes[name]
    process.send_signal(signal.SIGSTOP)
    time.sleep(times.stop)
    process.send_signal(signal.SIGCONT)
    return f"SIGSTOP of {name} for {times.stop:.0f} s"


def cut(there: Enduring, draw: random.Random, _: Times) -> str:
    name, count = draw.choice(sorted(there.lines)), draw.randint(1, 4)
    for _time in range(count):
        there.lines[name].cut()
        time.sleep(draw.uniform(0.1, 2.0))
    return f"the line of {name} cut {count} times"


def partition(there: Enduring, draw: random.Random, times: Times) -> str:
    """Two of five sites; half way the coordinator is killed, so that what it knew of them is gone, too."""
    names = draw.sample(sorted(SITES), round(0.4 * len(SITES)))
    for name in names:
        there.lines[name].hold()
    time.sleep(times.partition / 2)
    before = there.committed()
    killed = _kill(there, "coordinator", draw)
    time.sleep(times.partition / 2)
    counted = there.account().counted
    more = {number: sites for number, sites in counted.items() if number > before + 1}
    if there.patient and there.committed() > before:
        raise Violation(f"a round was committed without {names}: {before} before, {there.committed()} now")
    if not there.patient and (
        len(more) < times.partition / 120 or any(set(names) & {*those} for those in more.values())
    ):
        raise Violation(f"expected rounds without {names}, got {len(more)} in {times.partition / 2:.0f} s: {more}")
    for name in names:
        there.lines[name].let_go()
    without = f"{len(more)} rounds without them in its second half" if more else "no round without them"
    return f"{' and '.join(names)} apart for {times.partition:.0f} s, and within it: {killed}; {without}"


def jump(there: Enduring, draw: random.Random, _: Times) -> str:
    name = draw.choice(["coordinator", "broker", *sorted(SITES)])
    process, before = there.processes[name], there.processes[name].said.count("clock: ")
    process.send_signal(signal.SIGUSR1)
    _until(lambda: process.said.count("clock: ") > before or process.poll() is not None, f"{name}'s clock jumps", 60)
    return f"the clock of {name} a day ahead"


def _full(there: Enduring, name: str, times: Times) -> str:
    if name not in there.disks:
        return f"not run: a full disk at {name}: no small disk could be mounted here"
    process, before = there.processes[name], len(there.processes[name].said)
    filler = fill(there.disks[name])

    def told() -> list[str]:
        return [line for line in process.said[before:].splitlines() if any(words in line for words in ROOM)]

    try:
        _until(lambda: bool(told()) or process.poll() is not None, f"{name} says that its disk is full", times.recover)
        if there.over:
            return f"a full disk at {name}, at the very end"
        time.sleep(5)
        stood = there.committed()
        time.sleep(3)
        if process.poll() is not None:
            raise Violation(f"{name} ended with {process.returncode} on a full disk: {process.said[before:][-800:]}")
        if there.committed() > stood + 1 and (there.patient or name == "coordinator"):
            raise Violation(f"rounds were committed while the disk of {name} was full: {stood}, {there.committed()}")
    finally:
        filler.unlink()
    goes_on(there, times)
    time.sleep(4)  # what was put off is done by now
    said, settled = told(), process.said.count(AGAIN)
    time.sleep(8)
    if process.said.count(AGAIN) > settled:
        raise Violation(f"{name} still tries again, though there is room: {process.said[before:][-400:]}")
    return f"the disk of {name} full: “{said[0].strip()[-100:]}”, said {len(said)} times; room again, and it is quiet"


def full_coordinator(there: Enduring, _: random.Random, times: Times) -> str:
    return _full(there, "coordinator", times)


def full_site(there: Enduring, draw: random.Random, times: Times) -> str:
    return _full(there, draw.choice(sorted(SITES)), times)


def _until(met: Callable[[], bool], what: str, seconds: float) -> None:
    stop = time.monotonic() + seconds
    while not met():
        if time.monotonic() > stop:
            raise Violation(f"expected that {what} within {seconds:.0f} s")
        time.sleep(0.05)


def goes_on(there: Enduring, times: Times) -> float:
    """Waits until the study is two rounds further, or over; seconds that it took."""
    begun, number = time.monotonic(), there.committed()

    def further() -> bool:
        there.all_alive()
        return there.committed() >= number + 2 or there.over

    _until(further, f"the study goes on after round {number}", times.recover)
    return time.monotonic() - begun


FAULTS: Mapping[str, Fault] = {
    "kill-coordinator": kill_coordinator,
    "kill-site": kill_site,
    "kill-broker": kill_broker,
    "stop": halt,
    "cut": cut,
    "partition": partition,
    "clock": jump,
    "full-coordinator": full_coordinator,
    "full-site": full_site,
}


def deck(draw: random.Random, count: int) -> list[str]:
    """All kinds in an order of their own; a partition, which is long, in every third deck."""
    names = [name for name in FAULTS if name != "partition" or count % 3 == 0]
    draw.shuffle(names)
    return names


def load() -> str:
    """How busy the machine is."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
