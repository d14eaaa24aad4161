"""What every test runs under: small threads, no network but loopback, no traces in the user's folders, checked shapes.

The environment is set before jax is first imported, and is inherited by the processes that tests start.
"""

from __future__ import annotations

import ipaddress
import os
import sys
import tempfile
from pathlib import Path

import pytest

# One thread a device and two devices: what a round is promised to give on the CPU (docs/reproducibility.md).
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("NPROC", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_COLOR", "1")
for terminal in ("FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE"):
    os.environ.pop(terminal, None)

# Caches and settings of the person who runs the tests are neither read nor written.
_home = Path(tempfile.mkdtemp(prefix="learner-tests-"))
for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
    folder = _home / name.lower()
    folder.mkdir()
    os.environ[name] = str(folder)

ROOT = Path(__file__).resolve().parent.parent


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
