"""Each test here has a time limit of its own, and leaves no process, thread or socket behind."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from zmq.utils.garbage import GarbageCollectorThread

from tests.federation.hospitals import write_tables
from tests.federation.nursery import Nursery

LIMIT_S = 300


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"limit(seconds): after which the test fails; {LIMIT_S} without it")


@pytest.fixture(autouse=True)
def _in_time(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that hangs fails, and says where it hung."""
    marker = request.node.get_closest_marker("limit")
    seconds = marker.args[0] if marker else LIMIT_S

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"expected the test to end within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def _leaves_nothing(tmp_path: Path) -> Iterator[None]:
    """No thread, no socket, and no process that has this test's folder on its command line."""
    threads, sockets = set(threading.enumerate()), _sockets()
    yield
    stop = time.monotonic() + 15
    while (left := _left(threads, sockets, tmp_path)) and time.monotonic() < stop:
        time.sleep(0.05)
    assert not left, f"expected nothing left behind, got {left}"


def _left(threads: set[threading.Thread], sockets: set[str], folder: Path) -> list[str]:
    there = [thread for thread in threading.enumerate() if not isinstance(thread, GarbageCollectorThread)]
    found = [f"thread {thread.name}" for thread in there if thread not in threads]  # but pyzmq's, which ends with us
    found += [f"socket {one}" for one in _sockets() - sockets]
    return found + [f"process {number}" for number in processes_of(folder)]


def _sockets() -> set[str]:
    """Open sockets of this process; none where the system does not tell."""
    found = set()
    for path in Path("/proc/self/fd").glob("*"):
        try:
            found.add(str(path.readlink()))
        except OSError:
            continue
    return {name for name in found if name.startswith("socket:")}


def processes_of(folder: Path) -> list[int]:
    """Processes with this folder on their command line; none where the system does not tell."""
    found, text = [], str(folder).encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one CSV file a site: a few hundred real stays at each of three."""
    return write_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Starts processes at once: see there."""
    with Nursery() as found:
        yield found
