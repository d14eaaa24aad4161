"""The result of a run as one dict, and the model that it leaves on disk."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from learner_jax import __version__, trees
from learner_jax.data.sites import TEST, TRAIN, VALID, SiteData
from learner_jax.engines.history import History
from learner_jax.engines.parts import Parts
from learner_jax.errors import CorruptError, StorageError
from learner_jax.evaluation.calibration import Recalibration
from learner_jax.specs import Study
from learner_jax.storage.atomic import write_bytes, write_json
from learner_jax.types import PyTree


def versions() -> dict[str, str]:
    """Of everything whose change can change a bit."""
    found = {"learner-jax": __version__}
    for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pyzmq"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return {**found, "python": platform.python_version()}


def device() -> str:
    """ "cpu x 2"."""
    devices = jax.devices()
    return f"{devices[0].device_kind} x {len(devices)}"


def machine() -> dict[str, Any]:
    """What beside versions can change a bit: cpu, cores of this process, threads of a device, devices, xla_flags."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("NPROC", "")
    return {
        "cpu": _cpu(),
        "cores": cores,
        "threads": int(threads) if threads.isdecimal() else cores,
        "devices": device(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _cpu(info: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, as the system tells it."""
    try:
        told = [line.partition(":") for line in info.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        told = []
    names = (value.strip() for key, _, value in told if key.strip() == "model name")
    return next(names, "") or platform.processor() or platform.machine()


def command() -> str:
    """The command line as typed, with the program as anyone can call it."""
    program = Path(sys.argv[0])
    name = f"python -m {program.parent.name}.{program.stem}" if program.suffix == ".py" else program.name
    name = "learner" if program.stem == "__main__" else name
    return " ".join([name, *sys.argv[1:]])


def result(
    study: Study, kind: str, started: str, seconds: float, history: History, sha256: str, evaluation: Mapping[str, Any],
    notes: list[str], bytes_up: int, bytes_down: int,
) -> dict[str, Any]:  # fmt: skip
    """result.json, as `learner_jax.reports.result` lays it out."""
    return {
        "study": json.loads(study.to_json()),
        "kind": kind,
        "started": started,
        "seconds": seconds,
        "rounds": len(history.curve),
        "best_round": history.best_round,
        "weights_sha256": sha256,
        "bytes_up": bytes_up,
        "bytes_down": bytes_down,
        "curve": history.curve,
        "evaluation": dict(evaluation),
        "versions": versions(),
        "device": device(),
        "machine": machine(),
        "command": command(),
        "notes": notes,
    }


def inputs_of(parts: Parts, fitted: Any) -> dict[str, Any]:
    """What the inputs looked like, by the task's checklist; {} where it does not say."""
    checklist = parts.task.checklist
    return checklist.describe(dict(fitted)) if checklist is not None and fitted is not None else {}


def dealt(data: Mapping[str, SiteData], binary: bool) -> dict[str, dict[str, int]]:
    """Rows, patients and events (where an outcome is 0 or 1) in each part of the data, of all sites together."""
    found: dict[str, dict[str, int]] = {}
    for name, part in (("train", TRAIN), ("valid", VALID), ("test", TEST)):
        masks = {site: data[site].split == part for site in data}
        found[name] = {
            "rows": sum(int(mask.sum()) for mask in masks.values()),
            "patients": sum(len(np.unique(data[site].group[mask])) for site, mask in masks.items()),
        }
        if binary:
            found[name]["events"] = sum(int(np.sum(data[site].rows["y"][mask])) for site, mask in masks.items())
    return found


def save_model(
    folder: Path,
    study: Study,
    weights: PyTree,
    fitted: Mapping[str, Any] | None,
    rows: PyTree,
    moved: Recalibration | None = None,
) -> None:
    """Writes the trained model: weights.npz (no pickle) and model.json (study, what was fitted, a row's shapes, and how
    its chances were recalibrated)."""
    import io

    folder.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **trees.named_leaves(weights))
    write_bytes(folder / "weights.npz", packed.getvalue())
    shapes = {name: [str(leaf.dtype), list(leaf.shape[1:])] for name, leaf in trees.named_leaves(rows).items()}
    about = {
        "format": 1,
        "study": json.loads(study.to_json()),
        "fitted": fitted,
        "rows": shapes,
        "versions": versions(),
        **({} if moved is None else {"recalibration": moved._asdict()}),
    }
    write_json(folder / "model.json", about)


def load_model(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(model.json, named weights) of a saved model.

    Raises:
      StorageError: there is none.
      CorruptError: it cannot be read.
    """
    try:
        about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        with np.load(folder / "weights.npz", allow_pickle=False) as packed:
            return about, {name: packed[name] for name in packed.files}
    except FileNotFoundError as error:
        raise StorageError(f"expected a saved model in {folder}, found no {Path(error.filename).name}") from None
    except (ValueError, OSError, KeyError) as error:
        raise CorruptError(f"expected a saved model in {folder}, got: {error}") from None
