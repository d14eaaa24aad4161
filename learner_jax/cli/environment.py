"""What must be set before jax starts: XLA reads these variables once.

XLA's thread pool slows small steps (a loop of batch-20 steps: 0.34 s with two threads, 0.23 with one), so each device
gets one thread, and a machine's cores are used as that many host devices. A variable that the user has set is left
alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from learner_jax.specs import Study

_DEVICES = "--xla_force_host_platform_device_count"


def cores() -> int:
    """Cores that this process may use: its affinity, and the limit of its control group."""
    if sys.platform == "linux":
        count = len(os.sched_getaffinity(0))
        try:
            quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        except (OSError, ValueError):
            return count
        return count if quota == "max" else max(1, min(count, int(quota) // int(period)))
    return os.cpu_count() or 1


def variables(study: Study, cores: int, one_site: bool = False) -> dict[str, str]:
    """The variables that a study's engine asks for; a pure function.

    Args:
      study: of which engine and precision count.
      cores: of this machine.
      one_site: for a worker or a coordinator, which have one device whatever the plan; the rest is the simulator's, so
        that their bits are.

    Returns:
      NPROC (threads of a device), XLA_FLAGS (host devices: one per core under plans "auto" and "streams"), and, where
      the study asks for them, JAX_PLATFORMS and JAX_ENABLE_X64.
    """
    engine = study.engine
    streams = (engine.streams or cores) if engine.plan in ("auto", "streams") and not one_site else 1
    new = {"NPROC": str(engine.threads or 1), "XLA_FLAGS": f"{_DEVICES}={streams}"}
    if engine.plan == "streams":
        new["JAX_PLATFORMS"] = "cpu"
    if study.precision == "float64":
        new["JAX_ENABLE_X64"] = "1"
    return new


def for_one_site(threads: int = 1) -> dict[str, str]:
    """The variables of a worker that has not heard of its study yet: one device, as `variables` gives it."""
    return {"NPROC": str(threads), "XLA_FLAGS": f"{_DEVICES}=1"}


def merged(new: Mapping[str, str], present: Mapping[str, str]) -> dict[str, str]:
    """`new` without what the user has set already; flags are added to the user's XLA_FLAGS."""
    kept = {name: value for name, value in new.items() if name not in present}
    flags = present.get("XLA_FLAGS", "")
    if "XLA_FLAGS" in new and "XLA_FLAGS" in present and _DEVICES not in flags:
        kept["XLA_FLAGS"] = f"{flags} {new['XLA_FLAGS']}".strip()
    return kept


def apply(new: Mapping[str, str], environ: MutableMapping[str, str] = os.environ) -> None:
    """Sets them, for this process and those that it starts; tells jax where a config has imported it already."""
    kept = merged(new, environ)
    environ.update(kept)
    jax = sys.modules.get("jax")
    if jax is not None:
        if "JAX_ENABLE_X64" in kept:
            jax.config.update("jax_enable_x64", True)
        if "JAX_PLATFORMS" in kept:
            jax.config.update("jax_platforms", kept["JAX_PLATFORMS"])
