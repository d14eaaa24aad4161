"""What every test runs under: small threads, no network but loopback, no traces in the user's folders, checked shapes.

What a test starts as a process of its own inherits the folders and the platform, and sets threads and devices itself.
"""

from __future__ import annotations

import ipaddress
import os
import sys
import tempfile
from pathlib import Path

import hypothesis
import jaxtyping
import pytest

# Annotations of the package are checked at each call, shapes and dtypes of arrays included. In tests alone. An int
# passes for a float, as it does for type checkers.
_CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
jaxtyping.install_import_hook("learner_jax", _CHECKER)

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("NO_COLOR", "1")
for terminal in ("FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE"):
    os.environ.pop(terminal, None)

# Caches and settings of the person who runs the tests are neither read nor written.
_home = Path(tempfile.mkdtemp(prefix="learner-tests-"))
for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
    folder = _home / name.lower()
    folder.mkdir()
    os.environ[name] = str(folder)

# Compiled programs are shared by all workers of this run, and by what they start: tests compile the same ones often.
# Who reads one that another writes compiles it again, which jax warns of (pyproject.toml lets that pass).
_mine = "TESTS_CACHE_HOME" not in os.environ
_shared = os.environ.setdefault("TESTS_CACHE_HOME", tempfile.mkdtemp(prefix="learner-tests-cache-") if _mine else "")
os.environ["XDG_CACHE_HOME"] = _shared

# No deadline for one example: the first compiles. Where changes are let in, the same examples each time.
hypothesis.settings.register_profile("learner", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("learner")

ROOT = Path(__file__).resolve().parent.parent


def _start_jax() -> None:
    """Starts this process's jax as `learner` does on two cores: two host devices, one thread each.

    jax reads the variables once, so they are taken back: a process that a test starts sets its own, as it would for a
    user.
    """
    before = dict(os.environ)
    os.environ.update(NPROC="1", XLA_FLAGS="--xla_force_host_platform_device_count=2")
    os.environ.update(
        JAX_COMPILATION_CACHE_DIR=f"{_shared}/learner",
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0.02",
        JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
    )
    import jax

    assert len(jax.devices()) == 2, f"expected 2 devices of the CPU, got {jax.devices()}"
    for name in set(os.environ) - set(before) | {"NPROC", "XLA_FLAGS"}:
        os.environ.pop(name)
        if name in before:
            os.environ[name] = before[name]


_start_jax()


def _loopback(host: object) -> bool:
    """Whether a host as given to `connect` or `getaddrinfo` is this machine itself."""
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    text = host.decode() if isinstance(host, bytes) else str(host)
    try:
        address = ipaddress.ip_address(text.split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _refuse_network(event: str, args: tuple) -> None:
    if event == "socket.connect":
        address = args[1]
        if isinstance(address, tuple) and not _loopback(address[0]):
            raise PermissionError(f"tests reach loopback only, got a connection to {address[0]}")
    elif event == "socket.getaddrinfo" and not _loopback(args[0]):
        raise PermissionError(f"tests reach loopback only, got a look-up of {args[0]}")


sys.addaudithook(_refuse_network)


def pytest_unconfigure() -> None:
    import shutil

    shutil.rmtree(_home, ignore_errors=True)
    if _mine:
        shutil.rmtree(_shared, ignore_errors=True)


@pytest.fixture(scope="session")
def root() -> Path:
    """Top of the repository."""
    return ROOT


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """A run folder that does not exist yet."""
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def _precision_stays():
    """A test that switches float64 on switches it off again: precision is global to jax."""
    yield
    jax = sys.modules.get("jax")
    if jax is not None and jax.config.jax_enable_x64:
        jax.config.update("jax_enable_x64", False)
        pytest.fail("the test left jax_enable_x64 on for those after it: use `with jax.enable_x64(True)`")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the longest tests first, so that none of them is left to one worker when the others are done."""
    first = [ROOT / "tests" / name for name in ("federation", "benchmarks", "engines")]

    def place(item: pytest.Item) -> int:
        return next((at for at, folder in enumerate(first) if folder in item.path.parents), len(first))

    items.sort(key=place)
