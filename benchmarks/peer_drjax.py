"""DrJAX as an arm of `benchmarks.simulator_peers`: FedAvg by `map_fn` and `reduce_weighted_mean`.

    python -m venv peers/drjax && peers/drjax/bin/pip install drjax==0.2.1 jax==0.10.2 optax==0.2.8

DrJAX maps over sites by `vmap`, so all are abreast and each is padded to the longest: what it is made for, accelerators
side by side, has no counterpart on one core. Its examples average without weights; `reduce_weighted_mean` is its own.
The whole round is one jit; the rows are taken from the table inside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import drjax  # pyright: ignore[reportMissingImports]
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import loops, peer_work


def round_of(file: Path) -> peer_work.Arm:
    """The round."""
    work = peer_work.read(file)
    start = [(jnp.asarray(kernel), jnp.asarray(bias)) for kernel, bias in zip(work.start[::2], work.start[1::2])]
    x, y, rule = jnp.asarray(work.x), jnp.asarray(work.y), getattr(optax, work.optimizer)(work.lr)
    index = np.full((len(work.steps), int(work.steps.max()), work.index.shape[1]), -1, np.int32)
    for site, (at, count) in enumerate(zip(work.first, work.steps, strict=True)):
        index[site, :count] = work.index[at : at + count]
    plan, counts = jnp.asarray(index), jnp.asarray(peer_work.row_counts(work), jnp.float32)

    @jax.jit
    @drjax.program(clients=len(work.steps))
    def round_(weights: Any, x: Any, y: Any, plan: Any, counts: Any) -> Any:
        def local(weights: Any, plan: Any) -> Any:
            def step(held: Any, rows: Any) -> Any:
                params, state = held
                grads = jax.grad(loops.loss)(params, x[rows], y[rows], rows >= 0)
                updates, state = rule.update(grads, state, params)
                new = optax.apply_updates(params, updates), state
                if work.optimizer != "sgd":  # what it remembers would move it on batches that are all padding
                    new = jax.tree.map(lambda now, before: jnp.where(rows[0] >= 0, now, before), new, held)
                return new, None

            return jax.lax.scan(step, (weights, rule.init(weights)), plan)[0][0]

        each = drjax.map_fn(local, (drjax.broadcast(weights), plan))
        return jax.tree.map(lambda leaf: drjax.reduce_weighted_mean(leaf, counts), each)

    def run() -> list[np.ndarray]:
        return [np.asarray(leaf) for leaf in jax.tree.leaves(round_(start, x, y, plan, counts))]

    return run


if __name__ == "__main__":
    peer_work.main({"drjax": round_of}, ["drjax", "jax", "jaxlib", "optax", "numpy"])
