"""Checkpoints: one folder a step, written by Orbax.

A step is named leaves in named items ("server", "sites") and a JSON value ("meta"). It is written into a hidden folder,
fsynced and renamed, so a step that can be seen is whole whatever is killed when. `step.json` in it holds the meta value
and the sha256 of every file: what is restored is what was saved, or a `CorruptError` names the folder. (Orbax is given
sound files only: on corrupt ones it raises too, but leaves tasks and tracebacks behind.)

Orbax refuses empty items and arrays without elements and does not know bfloat16 in NumPy; these are said in
`step.json` and made again on restoring.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from learner_jax import failpoints
from learner_jax.errors import CorruptError, StorageError
from learner_jax.storage import apart, quiet_orbax
from learner_jax.storage.atomic import fsync_folder, read_json, write_json

_ONE_AT_A_TIME = threading.Lock()
"""Orbax keeps state of its own a process: two saves at once, even in two folders, break each other."""

Items = Mapping[str, Mapping[str, Any]]
_SAVING, _OLD, _REPLACED = ".saving-", ".old-", ".replaced-"
"""Being written; being removed; whole, and about to be replaced by another step of its number."""


def _joined() -> bool:
    """Whether `jax.distributed` has joined this process to others: see `learner_jax.storage.apart`."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.process_count() > 1


def _saved(folder: Path, items: dict[str, dict[str, np.ndarray]]) -> None:
    if _joined():
        apart.save(folder, items)
        return
    orbax = quiet_orbax.loaded()
    with quiet_orbax.frugal(orbax):
        orbax.save_checkpointables(folder, items)


class Steps:
    """The steps of one run.

    Args:
      folder: made if it is not there; only one process may write into it.
      keep_last: newest steps kept.
      keep_best: steps kept for the best metric seen.
      higher_is_better: which way the metric is up.
      point: what its failpoints begin with; "" for none.
      busy: the share of the time, at most, that saves in the background take; others do nothing.
    """

    def __init__(
        self,
        folder: str | Path,
        keep_last: int = 3,
        keep_best: int = 1,
        higher_is_better: bool = True,
        point: str = "",
        busy: float = 1.0,
    ):
        self.folder = Path(folder).absolute()  # Orbax refuses any other
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in (*self.folder.glob(f"{_SAVING}*"), *self.folder.glob(f"{_OLD}*")):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob(f"{_REPLACED}*"):
            self._put_back(path)
        self.keep_last, self.keep_best, self._point = max(1, keep_last), keep_best, point
        self._sign = 1.0 if higher_is_better else -1.0
        self._metrics: dict[int, float | None] = {}
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="steps")
        self._worker.submit(quiet_orbax.loaded)  # it takes 2 s to load: while the first round runs
        self._flight: Future[None] | None = None
        self._rest, self._free_from = 1.0 / busy - 1.0, float("-inf")

    def _put_back(self, replaced: Path) -> None:
        """After a crash between two renames the step that was to be replaced is there, and the new one is not."""
        path = self.folder / replaced.name.removeprefix(_REPLACED)
        if path.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            replaced.rename(path)

    def all(self) -> tuple[int, ...]:
        """Steps that are durable, oldest first."""
        return tuple(sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdigit()))

    def latest(self) -> int | None:
        """The newest durable step; one still in flight is not counted."""
        return max(self.all(), default=None)

    def save(
        self,
        step: int,
        items: Items,
        wait: bool = False,
        metric: float | None = None,
        copy: bool = True,
        first: Callable[[], object] | None = None,
    ) -> bool:
        """Saves a step in the background.

        Args:
          step: the round, from 0. A step that is there is replaced.
          items: item -> {leaf name: array}, and "meta" -> any JSON dict.
          wait: wait for the save in flight, if any, and for this one. Without it, a call during a save does nothing,
            nor does one so soon after it that saving would take more of the time than it may.
          metric: what `keep_best` looks at.
          copy: copy the arrays before this returns; without it they must neither change nor be donated until the step
            is saved.
          first: what must be durable before this step is, done where the step is written: in the background.

        Returns:
          whether the step was (or is being) saved.

        Raises:
          StorageError: this save, or the one before it, failed.
        """
        flying = self._flight is not None and not self._flight.done()
        failed = self._flight is not None and not flying and self._flight.exception() is not None
        if not wait and not failed and (flying or time.monotonic() < self._free_from):
            return False
        self.wait()
        arrays = {
            item: {name: _host(leaf, copy) for name, leaf in items[item].items()} for item in items if item != "meta"
        }
        self._flight = self._worker.submit(self._write, step, arrays, dict(items.get("meta", {})), metric, first)
        if wait:
            self.wait()
        return True

    def _write(
        self,
        step: int,
        items: dict[str, dict[str, np.ndarray]],
        meta: dict,
        metric: float | None,
        first: Callable[[], object] | None,
    ) -> None:
        begun = time.monotonic()
        try:
            if first is not None:
                first()
            self._put(step, items, meta, metric)
        finally:
            took = time.monotonic() - begun
            self._free_from = time.monotonic() + self._rest * took

    def _put(self, step: int, items: dict[str, dict[str, np.ndarray]], meta: dict, metric: float | None) -> None:
        beside, path = self.folder / f"{_SAVING}{step}", self.folder / str(step)
        try:
            failpoints.here(f"{self._point}.before_save")
            shutil.rmtree(beside, ignore_errors=True)
            said = {item: {name: _said(leaf) for name, leaf in leaves.items()} for item, leaves in items.items()}
            full = {item: {n: _raw(leaf) for n, leaf in leaves.items() if leaf.size} for item, leaves in items.items()}
            full = {item: leaves for item, leaves in full.items() if leaves} or {"empty": {"empty": np.zeros(1)}}
            with _ONE_AT_A_TIME:
                _saved(beside, full)
            failpoints.here(f"{self._point}.before_finalise")
            about = {"meta": meta, "items": said, "metric": metric, "files": _fsynced_files(beside)}
            write_json(beside / "step.json", {"about": about, "sha256": _json_digest(about)})
            failpoints.here(f"{self._point}.before_rename")
            replaced = self.folder / f"{_REPLACED}{step}"
            if path.exists():
                path.rename(replaced)
                failpoints.here(f"{self._point}.mid_replace")
            beside.rename(path)
            failpoints.here(f"{self._point}.after_rename")
            fsync_folder(self.folder)
            shutil.rmtree(replaced, ignore_errors=True)
            self._metrics[step] = metric
            self._prune()
            return
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            reason = error.strerror or reason if isinstance(error, OSError) else reason
            if any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "No space left", "Disk quota")):
                reason = "the disk is full; make room, and the same command goes on"
            traceback.clear_frames(error.__traceback__)
        _forget_loops()
        shutil.rmtree(beside, ignore_errors=True)
        if (self.folder / f"{_REPLACED}{step}").exists():
            self._put_back(self.folder / f"{_REPLACED}{step}")
        raise StorageError(f"expected to save step {step} in {self.folder}, got: {reason[:200]}")

    def _prune(self) -> None:
        steps = self.all()
        scored = [(self._sign * m, s) for s in steps if (m := self._metric(s)) is not None and m == m]
        keep = set(steps[-self.keep_last :]) | {s for _, s in sorted(scored)[-self.keep_best :] if self.keep_best > 0}
        for step in steps:
            if step not in keep:
                (self.folder / str(step)).rename(self.folder / f"{_OLD}{step}")
                failpoints.here(f"{self._point}.mid_prune")
        for path in self.folder.glob(f"{_OLD}*"):
            shutil.rmtree(path, ignore_errors=True)

    def meta(self, step: int) -> dict[str, Any]:
        """The meta value of a step; its arrays are not read.

        Raises:
          StorageError: there is no such step, or it is not intact.
        """
        return self._about(step)["meta"]

    def drop_before(self, step: int) -> None:
        """Removes the steps before this one. Not while a save is in flight."""
        for old in self.all():
            if old < step:
                (self.folder / str(old)).rename(self.folder / f"{_OLD}{old}")
        for path in self.folder.glob(f"{_OLD}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _metric(self, step: int) -> float | None:
        if step not in self._metrics:
            try:
                self._metrics[step] = self._about(step)["metric"]
            except StorageError:
                self._metrics[step] = None
        return self._metrics[step]

    def best(self) -> int | None:
        """The durable step with the best metric; the earliest of equals."""
        scored = [(self._sign * m, -s) for s in self.all() if (m := self._metric(s)) is not None and m == m]
        return -max(scored)[1] if scored else None

    def check(self, step: int) -> None:
        """Whether a step is as it was saved; its arrays are not read into memory.

        Raises:
          StorageError: there is no such step, or it is not intact.
        """
        self._about(step)
        intact(self.folder / str(step))

    def _about(self, step: int) -> dict[str, Any]:
        path = self.folder / str(step)
        if not path.is_dir():
            raise StorageError(f"expected step {step} in {self.folder}, which has {list(self.all()) or 'none'}")
        return _about_in(path)

    def restore(self, step: int | None = None) -> tuple[int, dict[str, dict[str, Any]]]:
        """Reads a step and checks every leaf.

        Args:
          step: which; None is the newest intact one (`skipped` then lists the corrupt ones passed over).

        Returns:
          (step, items): item -> {leaf name: NumPy array}; "meta" -> the JSON dict.

        Raises:
          StorageError: there is no such step.
          CorruptError: what lies there is not what was saved; names the folder.
        """
        self.wait()
        self.skipped: list[str] = []
        if step is not None:
            return step, self._read(step)
        for candidate in reversed(self.all()):
            try:
                return candidate, self._read(candidate)
            except CorruptError as error:
                self.skipped.append(str(error))
        if self.skipped:
            raise CorruptError(f"expected an intact step in {self.folder}, got none: {self.skipped[0]}")
        raise StorageError(f"expected a step in {self.folder}, got none")

    def _read(self, step: int) -> dict[str, dict[str, Any]]:
        self._about(step)
        path = self.folder / str(step)
        about = intact(path)
        try:
            with _ONE_AT_A_TIME:
                found = apart.load(path) if _joined() else quiet_orbax.loaded().load_checkpointables(path)
        except Exception as error:
            raise CorruptError(f"expected an intact step in {path}, got: {type(error).__name__}") from None
        items: dict[str, dict[str, Any]] = {"meta": about["meta"]}
        for item, leaves in about["items"].items():
            items[item] = {}
            for name, (dtype, shape) in leaves.items():
                empty = 0 in shape
                leaf = np.zeros(shape, _dtype(dtype)) if empty else np.asarray(found[item][name]).view(_dtype(dtype))
                items[item][name] = leaf.reshape(shape)
        return items

    def wait(self) -> None:
        """Waits for the save in flight.

        Raises:
          StorageError: it failed.
        """
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.result()

    def close(self) -> None:
        """Waits for the save in flight and ends the writer. May be called twice."""
        try:
            self.wait()
        finally:
            self._worker.shutdown()

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def intact(path: Path) -> dict[str, Any]:
    """What a step's folder says of itself, once every file in it was found to be as it was written.

    Returns:
      meta, items, metric, files.

    Raises:
      CorruptError: it is not.
    """
    about = _about_in(path)
    if (files := _files(path)) != about["files"]:
        name = min(set(files.items()) ^ set(about["files"].items()))[0]
        raise CorruptError(f"expected an intact step in {path}, but '{name}' is not as it was written")
    return about


def _about_in(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path / "step.json")
        if found["sha256"] != _json_digest(found["about"]):
            raise CorruptError(f"expected {path / 'step.json'} as it was written, got other bytes")
    except (StorageError, KeyError, TypeError) as error:
        raise CorruptError(f"expected an intact step in {path}, got: {error}") from None
    return found["about"]


def _forget_loops() -> None:
    """Lets go of what a failed save of Orbax left in its event loop, before Python complains of it at the very end."""
    complain = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
    finally:
        sys.unraisablehook = complain


def _host(leaf: Any, copy: bool) -> np.ndarray:
    """In host memory, in C order."""
    return np.array(leaf, order="C", copy=True if copy else None)


def _dtype(name: str) -> np.dtype:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def _raw(leaf: np.ndarray) -> np.ndarray:
    return leaf.view(np.uint16) if str(leaf.dtype) == "bfloat16" else leaf


def _said(leaf: np.ndarray) -> list:
    return [str(leaf.dtype), list(leaf.shape)]


def _json_digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _files(folder: Path, sync: bool = False) -> dict[str, str]:
    """Relative path -> sha256 of every file but step.json; fsyncs files and folders on the way if asked."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            with path.open("rb") as file:
                if path != folder / "step.json":
                    found[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
                if sync:
                    os.fsync(file.fileno())
        if sync:
            fsync_folder(Path(place))
    return found


def _fsynced_files(folder: Path) -> dict[str, str]:
    return _files(folder, sync=True)
