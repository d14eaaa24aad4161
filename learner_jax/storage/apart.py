"""Orbax in a process of its own, for a process that `jax.distributed` has joined to others.

There Orbax waits for all of them at each save, whoever saves (orbax-checkpoint 0.12: `active_processes` is not heeded
by every part of it). One of them keeps a run, and when it saves is its own affair: it hands the arrays over as .npy
files.

    python -m learner_jax.storage.apart save FROM INTO      FROM/ITEM/NUMBER.npy and FROM/names.json into a step
    python -m learner_jax.storage.apart load FROM INTO      the other way
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from learner_jax.storage import quiet_orbax

Arrays = Mapping[str, Mapping[str, np.ndarray]]
_NAMES = "names.json"


def save(into: Path, items: Arrays) -> None:
    """As `orbax.save_checkpointables`, elsewhere.

    Raises:
      OSError: it failed; the reason is that process's last line.
    """
    handed = into.with_name(f"{into.name}-handed")
    try:
        _write(handed, items)
        _run("save", handed, into)
    finally:
        shutil.rmtree(handed, ignore_errors=True)


def load(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """As `orbax.load_checkpointables`, elsewhere.

    Raises:
      OSError: it failed.
    """
    handed = path.with_name(f".saving-{path.name}-handed")  # what begins so is removed when a run goes on
    try:
        _run("load", path, handed)
        return _read(handed)
    finally:
        shutil.rmtree(handed, ignore_errors=True)


def _run(do: str, source: Path, target: Path) -> None:
    unset = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment["JAX_PLATFORMS"] = "cpu"
    command = [sys.executable, "-m", "learner_jax.storage.apart", do, str(source), str(target)]
    # a session of its own: Ctrl-C, which goes to a whole group, is the run's affair
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, start_new_session=True)
    if done.returncode:
        raise OSError((done.stderr.strip() or f"status {done.returncode}").splitlines()[-1])


def _write(folder: Path, items: Arrays) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    names: dict[str, list[str]] = {}
    for item, arrays in items.items():
        (folder / item).mkdir(parents=True)
        names[item] = list(arrays)
        for number, array in enumerate(arrays.values()):
            np.save(folder / item / f"{number}.npy", array, allow_pickle=False)
    (folder / _NAMES).write_text(json.dumps(names))


def _read(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    names = json.loads((folder / _NAMES).read_text())
    return {
        item: {name: np.load(folder / item / f"{n}.npy", allow_pickle=False) for n, name in enumerate(inside)}
        for item, inside in names.items()
    }


def main(arguments: list[str]) -> int:
    """The other process."""
    do, source, target = arguments[0], Path(arguments[1]), Path(arguments[2])
    orbax = quiet_orbax.loaded()
    if do == "save":
        with quiet_orbax.frugal(orbax):
            orbax.save_checkpointables(target, _read(source))
    else:
        found = orbax.load_checkpointables(source)
        _write(target, {i: {n: np.asarray(leaf) for n, leaf in inside.items()} for i, inside in found.items()})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
