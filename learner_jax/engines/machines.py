"""Several processes that simulate one study together, on one machine or many, by `jax.distributed`.

Every process reads the study's rows and runs the same program; each goes through its own streams of sites. What they
decide, they decide alike, from numbers that all of them have: what passes between them is each round's sums, and the
new states of its sites, where a method keeps some, since every process holds all of them. The first process alone keeps
the run's folder and tells what happens; what it finds there it hands to the others.
"""

from __future__ import annotations

import json
import re
from typing import Any

import jax
import numpy as np

from learner_jax import leaves, trees
from learner_jax.errors import ConfigError, StudyError
from learner_jax.types import PyTree

_WAIT_S = 30
"""Seconds that a process which ends waits for the others to end too: one that failed must say so, and go."""
_BLOCK = 2**28
"""Bytes that are handed over at once."""


def join(where: str) -> None:
    """Joins this process to the others; before jax is used for anything else.

    Args:
      where: "HOST:PORT,COUNT,INDEX": of the first process, how many they are, which of them this is (0 is the first);
        or "auto" where Slurm or Open MPI has started them.

    Raises:
      ConfigError: it is neither.
      StudyError: they did not meet.
    """
    asked: dict[str, Any] = {}
    if where != "auto":
        found = re.fullmatch(r"([^\s,]+:\d+),(\d+),(\d+)", where)
        if found is None or not int(found[3]) < int(found[2]):
            raise ConfigError(
                "processes: expected 'auto' or HOST:PORT,COUNT,INDEX, such as 10.0.0.1:9600,4,0 for the first of four, "
                f"got {where!r}"
            )
        asked = {"coordinator_address": found[1], "num_processes": int(found[2]), "process_id": int(found[3])}
        asked["cluster_detection_method"] = "deactivate"  # under Slurm it would give each process one device
        if found[1].rpartition(":")[0] in ("127.0.0.1", "localhost"):  # it would listen on every address
            asked["coordinator_bind_address"] = found[1]
    # else jax would take SIGTERM, at which a run saves its newest round and ends
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**asked, shutdown_timeout_seconds=_WAIT_S)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise StudyError(f"processes: expected {where} to meet, got: {reason[:200]}") from None
    if len(jax.devices()) != jax.local_device_count() * jax.process_count():
        raise StudyError(
            f"processes: expected equally many devices, got {jax.local_device_count()} here, {len(jax.devices())} in "
            f"all {jax.process_count()}; name how many: --config.engine.streams=N"
        )


def several() -> bool:
    """Whether other processes run the same study with this one."""
    return jax.process_count() > 1


def first() -> bool:
    """Whether this is the process that keeps the run's folder."""
    return jax.process_index() == 0


def devices(streams: int) -> list[Any]:
    """So many devices, as many of each process; of one process, its first."""
    if not several():
        return jax.devices()[:streams]
    each = streams // jax.process_count()
    return [one for index in range(jax.process_count()) for one in jax.local_devices(process_index=index)[:each]]


def meet() -> None:
    """Waits until all are here: one that ended much earlier than another would take it along."""
    from_first(None)


def spread(tree: PyTree, sharding: Any) -> PyTree:
    """The tree on the sharding's devices, each process's part from its own copy of the whole.

    Args:
      tree: of arrays, the same in every process.
      sharding: of all leaves, or one for each part of a tuple; None: where jax puts them.
    """
    if not several() or sharding is None:
        return jax.device_put(tree, sharding)
    if isinstance(sharding, tuple):
        return tuple(spread(part, one) for part, one in zip(tree, sharding, strict=True))

    def one(leaf: Any) -> jax.Array:
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(one, tree)


def from_first(value: Any) -> Any:
    """The first process's value, which is JSON, in every process."""
    return value if not several() else json.loads(_bytes_from_first(json.dumps(value).encode()))


def tree_from_first(tree: PyTree, like: PyTree) -> PyTree:
    """The first process's tree, bit for bit, in every process.

    Args:
      tree: there; the others' is not looked at.
      like: shapes of it.
    """
    if not several():
        return tree
    own, found = trees.named_leaves(tree) if first() else {}, {}
    for leaf in trees.schema(like):
        data = leaves.pack({leaf.name: own[leaf.name]}) if first() else b""
        parts = [_bytes_from_first(bytes(data[at : at + _BLOCK])) for at in range(0, leaf.size, _BLOCK)]
        found |= leaves.unpack(b"".join(parts), (leaf,))
    return trees.rebuild(like, found)


def _bytes_from_first(data: bytes) -> bytes:
    """As bytes, since numbers would be added to the others' zeros, which makes 0 of -0."""
    from jax.experimental import multihost_utils

    size = int(multihost_utils.broadcast_one_to_all(np.uint32(len(data))))
    room = np.zeros(size, np.uint8)
    if first():
        room[:] = np.frombuffer(data, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(room), np.uint8).tobytes() if size else b""
