"""An hour of faults, one a minute, on a federation of real processes: `python -m tests.endurance --minutes=60`.

A broker, a coordinator and five sites learn a tiny model for thousands of rounds, while one fault after the other is
done to them. What may not happen: that the study stands still after a fault is over, that a site counts twice or is
left out of a round, that any round's result, or the last weights, differ in a bit from an undisturbed simulation's, or
that the memory of any process grows. With `--quorum=3` rounds go on at their deadline without who is away, and the
simulation asks the sites that counted. The faults and their order are drawn from the seed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.endurance.clock import THINK
from tests.endurance.faults import FAULTS, Times, deck, goes_on, load
from tests.endurance.federation import SITES, Enduring, Violation, account_of, study_of
from tests.endurance.memory import Sampler, slope
from tests.federation.hospitals import Process, flags, write_tables

OWN = ["unshare", "-rmpf", "--mount-proc", "--kill-child"]
"""A mount namespace for the small disks, and one for processes: all of them end with this one."""
_BEGUN = time.monotonic()


def say(text: str) -> None:
    """A line, with minutes and seconds since the beginning."""
    seconds = int(time.monotonic() - _BEGUN)
    print(f"{seconds // 60:3d}:{seconds % 60:02d}  {text}", flush=True)


def calibrated(source: Path, folder: Path) -> float:
    """Seconds of a round of an undisturbed federation, in the fastest ten: a busy minute makes no short study."""
    marks = []
    with Enduring(study_of(source, 50), folder, disks=False) as there:
        for number in (10, 20, 30, 40, 50):
            while (reached := there.committed()) < number:
                there.all_alive()
                time.sleep(0.02)
            marks.append((time.monotonic(), reached))
    return min((then - before) / max(1, last - first) for (before, first), (then, last) in itertools.pairwise(marks))


def disturb(there: Enduring, given: argparse.Namespace, times: Times) -> Counter[str]:
    """One fault after the other until the time is over, or the study is; how many of each."""
    draw, done, decks = random.Random(given.seed), Counter(), 0
    kinds: list[str] = []
    stop = time.monotonic() + 60 * given.minutes
    while time.monotonic() < stop and not there.over:
        begun = time.monotonic()
        if not kinds:
            kinds, decks = [kind for kind in deck(draw, decks) if kind in given.only], decks + 1
        kind = kinds.pop()
        number = there.committed()
        text = FAULTS[kind](there, draw, times)
        seconds = goes_on(there, times)
        done[kind] += not text.startswith("not run")
        say(f"{kind} in round {number}: {text}; goes on within {seconds:.1f} s, {there.committed()} rounds, {load()}")
        wrong = there.account().wrong
        if wrong:
            raise Violation("; ".join(wrong[:5]))
        time.sleep(max(0.0, min(begun + given.every, stop) - time.monotonic()))
    return done


def finish(there: Enduring, pace: float, rounds: int) -> set[str]:
    """Waits for the end of the study, undisturbed; what each process says of the last weights."""
    left = rounds - there.committed()
    say(f"no more faults; {left} of {rounds} rounds are left")
    stop = time.monotonic() + 300 + 5 * pace * left
    while not there.over:
        there.all_alive()
        if time.monotonic() > stop:
            raise Violation(f"expected the study to end, got to round {there.committed()} of {rounds}")
        time.sleep(0.1)
    ended = {there.processes[name].last_line(120)["weights_sha256"] for name in ("coordinator", *SITES)}
    there.processes["broker"].send_signal(signal.SIGTERM)
    return ended


def compared(there: Enduring, folder: Path, ended: set[str]) -> list[str]:
    """What differs from an undisturbed simulation."""
    account, asked = there.account(), folder / "asked.json"
    asked.write_text(json.dumps(account.counted))
    given = [str(asked), *flags(there.study, folder / "simulated")]
    simulation = Process("tests.endurance.replay", given, folder / "simulation")
    expected = simulation.last_line(3600)["weights_sha256"]
    ours, theirs = account.digests, account_of(folder / "simulated").digests
    differ = [number for number in sorted(theirs) if ours.get(number) != theirs[number]]
    wrong = []
    if differ:
        sites = account.counted.get(differ[0])
        wrong.append(
            f"round {differ[0]} is the first of {len(differ)} whose result differs from the simulation's: {sites}"
        )
    if ended != {expected}:
        wrong.append(f"expected the simulation's last weights {expected[:12]}, got {sorted(one[:12] for one in ended)}")
    if not wrong:
        fewer = sum(len(sites) < len(SITES) for sites in account.counted.values())
        say(f"{len(theirs)} rounds ({fewer} of them without some site) and the last weights are to the bit those of a "
            f"simulation that asks the same sites: sha256 {expected[:16]}")  # fmt: skip
    return wrong


def grown(sampler: Sampler, given: argparse.Namespace) -> list[str]:
    """Prints each process's slope; what grows beyond the bound."""
    wrong = []
    for name, lives in sorted(sampler.lives.items()):
        most = max(sample.mb for samples in lives.values() for sample in samples)
        found = slope(lives, given.settle)
        if found is None:
            say(f"memory of {name}: {most:.0f} MB at most; too few samples for a slope")
            continue
        judged = "none shown" if found.low <= 0 else f"below {given.bound:.0f}" if found.high < given.bound else "GROWS"
        say(f"memory of {name}: {most:.0f} MB at most, {found.mb_h:+.1f} MB an hour, 95 % {found.low:+.1f} to "
            f"{found.high:+.1f} ({found.blocks} blocks of {found.lives} lives): {judged}")  # fmt: skip
        if judged == "GROWS":
            wrong.append(f"the memory of {name} grows by {found.mb_h:.1f} MB an hour, more than {given.bound:.0f}")
    return wrong


def endure(given: argparse.Namespace, folder: Path) -> list[str]:
    """The whole run; what was violated."""
    source = write_tables(folder / "tables", SITES)
    times = Times(given.stop, given.partition, given.recover)
    pace = calibrated(source, folder / "first")
    share = max(0.5, 1 - 10 / given.every)  # of the time in which nothing is down; too many rounds cost only time
    rounds = given.rounds or max(100, int(share * max(given.minutes * 60 - given.partition, 60) / pace))
    say(f"{pace:.2f} s a round undisturbed: {rounds} rounds for {given.minutes:g} minutes; seed {given.seed}; {load()}")
    wrong: list[str] = []
    study = study_of(source, rounds, given.quorum, 1e6 if given.quorum == len(SITES) else given.deadline)
    with Enduring(study, folder / "study", given.disks) as there:
        sampler = Sampler(lambda: {name: process.pid for name, process in there.processes.items()})
        sampler.start()
        try:
            goes_on(there, times)
            begun = time.monotonic()
            done = disturb(there, given, times)
            took = (time.monotonic() - begun) / 60
            say(f"faults: {dict(done)}")
            if there.over and took < given.minutes - given.every / 60:  # what was not done has shown nothing
                wrong.append(f"the study was over after {took:.1f} of {given.minutes:g} minutes of faults: --rounds")
            wrong += [f"no {kind} was done: the study ended before" for kind in given.only if not done[kind]
                      and (given.disks or not kind.startswith("full"))] if given.all else []  # fmt: skip
            ended = finish(there, pace, rounds)
            wrong += there.account().wrong
            wrong += compared(there, folder, ended)
        except (Violation, AssertionError) as error:
            wrong.append(str(error))
        finally:
            sampler.stop()
        return wrong + grown(sampler, given)


def main() -> int:
    """0: nothing was violated."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="of faults; the study ends some time after")
    parser.add_argument("--every", type=float, default=60.0, help="seconds from a fault to the next, if it is over")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stop", type=float, default=20.0, help="seconds of SIGSTOP")
    parser.add_argument("--partition", type=float, default=600.0, help="seconds in which two of five sites are apart")
    parser.add_argument("--recover", type=float, default=120.0, help="seconds within which the study must go on")
    parser.add_argument("--think", type=float, default=0.4, help="seconds that a site takes over a round, beside")
    parser.add_argument("--quorum", type=int, default=len(SITES), help="sites without which no round closes")
    parser.add_argument("--deadline", type=float, default=10.0, help="seconds after which a quorum is enough")
    parser.add_argument("--rounds", type=int, default=0, help="0: measured, so that the study lasts as long")
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=list(FAULTS), help="kinds of faults")
    parser.add_argument("--all", action="store_true", help="each kind must have been done")
    parser.add_argument("--bound", type=float, default=8.0, help="MB an hour that memory may grow")
    parser.add_argument("--settle", type=float, default=45.0, help="seconds of each process's life not looked at")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.inside and shutil.which(OWN[0]) and not subprocess.run([*OWN, "true"], capture_output=True).returncode:
        os.execvp(OWN[0], [*OWN, sys.executable, "-m", "tests.endurance", *sys.argv[1:], "--inside"])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which the first process of a namespace else ignores
    given.disks = given.inside
    os.environ[THINK] = str(given.think)
    if not given.inside:
        say("not run: full disks, since no namespaces can be made here (unshare -rmpf)")
    with tempfile.TemporaryDirectory(prefix="learner-endurance-") as folder:
        wrong = endure(given, Path(folder))
        for text in wrong:
            say(f"VIOLATION: {text}")
        say(f"{len(wrong)} violations")
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
