"""Tables in which every row can be known again, and the search for them in whatever bytes there are."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from learner_jax.storage.steps import Steps
from tests.federation.hospitals import write_tables

CANARY = "canary-7f3d-Serinus"
PATIENTS = tuple(731_904_265 + 40_961 * number for number in range(20))
FIRST_ORDER = 645_120_733


def mark(table: Path) -> Path:
    """Puts the canary into every row: a string in a column nobody asked for, 9-digit numbers as patient and order."""
    stays = pd.read_csv(table, dtype=str, keep_default_na=False)
    stays = stays.head(len(stays) // len(PATIENTS) * len(PATIENTS))
    each = len(stays) // len(PATIENTS)
    patient = np.repeat(PATIENTS, each)
    stays["patient"] = patient
    stays["order"] = FIRST_ORDER + np.arange(len(stays))
    stays["split"] = np.where(np.isin(patient, PATIENTS[-4:]), "test", "train")
    stays["remark"] = CANARY
    stays.to_csv(table, index=False)
    return table


def write_marked(folder: Path) -> Path:
    """Two sites, every row of both marked."""
    for table in write_tables(folder, {"h00": 260, "h01": 180}).iterdir():
        mark(table)
    return folder


def _patterns() -> dict[bytes, str]:
    found = {CANARY.encode(): "the string", CANARY.encode("utf-16-le"): "the string in UTF-16"}
    for number in PATIENTS:
        found[str(number).encode()] = "a patient as decimal text"
        for code, name in (("<i", "int32"), ("<q", "int64"), ("<d", "float64"), ("<f", "float32")):
            found[struct.pack(code, number)] = f"a patient as {name}"
    for order in range(FIRST_ORDER, FIRST_ORDER + 500):
        found[str(order).encode()] = "an encounter as decimal text"
        found[struct.pack("<d", order)] = "an encounter as float64"
    return found


_PATTERNS = _patterns()


def search(data: bytes) -> set[str]:
    """Which canaries are in some bytes, in words."""
    return {words for pattern, words in _PATTERNS.items() if pattern in data}


def search_files(folders: Iterable[Path]) -> tuple[dict[str, set[str]], int, int]:
    """(file -> canaries found, files read, bytes read), over everything below some folders; checkpoints also as read.

    Orbax compresses what it writes, so each step is restored too and its leaves are searched as they are in memory.
    """
    found, files, size = {}, 0, 0

    def look(name: str, data: bytes) -> None:
        nonlocal files, size
        files, size = files + 1, size + len(data)
        if canaries := search(data):
            found[name] = canaries

    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                look(str(path), path.read_bytes())
        for steps in (folder / "checkpoints", folder / "best"):
            if steps.is_dir():
                with Steps(steps, 100, 100) as kept:
                    for step in kept.all():
                        items = kept.restore(step)[1]
                        look(f"{steps}/{step} meta", repr(items.pop("meta")).encode())
                        for item, leaves in items.items():
                            for name, leaf in leaves.items():
                                look(f"{steps}/{step} {item} {name}", leaf.tobytes())
    return found, files, size
