"""FedJAX as an arm of `benchmarks.simulator_peers`: FedAvg by its `for_each_client`.

    python -m venv peers/fedjax
    peers/fedjax/bin/pip install fedjax==0.0.17 jax==0.4.30 jaxlib==0.4.30 dm-haiku==0.0.12 optax==0.2.3
    peers/fedjax/bin/pip install chex==0.1.86 flax==0.8.5 "numpy<2" "scipy<1.14"

FedJAX's last release is of 2023 and does not run on today's JAX.

fedjax           its `jit` backend, its default for one device: one call of a donating jit for each batch
fedjax_2         its `pmap` backend over two devices: two sites abreast, a pair as long as its longer site

As in FedJAX's own FedAvg a site hands over what it moved by, `tree_mean` averages, optimizers are `fedjax.optimizers`.
A batch is a dictionary of NumPy arrays that is cut from the table when it is asked for, as `fedjax.ClientDataset` does
it, and a site's last one is padded under a mask, as its `padded_batch` does it: so all compile once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fedjax  # pyright: ignore[reportMissingImports]
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import loops, peer_work


def round_of(file: Path, backend: str) -> peer_work.Arm:
    """The round under one of FedJAX's backends."""
    work = peer_work.read(file)
    start = [(jnp.asarray(kernel), jnp.asarray(bias)) for kernel, bias in zip(work.start[::2], work.start[1::2])]
    rule = getattr(fedjax.optimizers, work.optimizer)(work.lr)
    counts = peer_work.row_counts(work)

    def client_init(shared: Any, given: Any) -> Any:
        return {"params": shared, "state": rule.init(shared)}

    def client_step(held: Any, batch: Any) -> Any:
        grads = jax.grad(loops.loss)(held["params"], batch["x"], batch["y"], batch["mask"])
        state, params = rule.apply(grads, held["state"], held["params"])
        return {"params": params, "state": state}

    def client_final(shared: Any, held: Any) -> Any:
        return jax.tree_util.tree_map(jnp.subtract, held["params"], shared)

    def batches(site: int) -> Iterator[dict[str, np.ndarray]]:
        at = work.first[site]
        for rows in work.index[at : at + work.steps[site]]:
            mask = rows >= 0
            rows = np.where(mask, rows, 0)
            yield {"x": work.x[rows], "y": work.y[rows], "mask": mask}

    with fedjax.for_each_client_backend(backend):
        each = fedjax.for_each_client(client_init, client_step, client_final)

    def run() -> list[np.ndarray]:
        clients = [(site, batches(site), ()) for site in range(len(counts))]
        moved = fedjax.tree_util.tree_mean((delta, counts[site]) for site, delta in each(start, clients))
        new = jax.tree_util.tree_map(jnp.add, start, moved)
        return [np.asarray(leaf) for leaf in jax.tree_util.tree_leaves(new)]

    return run


if __name__ == "__main__":
    peer_work.main(
        {"fedjax": lambda file: round_of(file, "jit"), "fedjax_2": lambda file: round_of(file, "pmap")},
        ["fedjax", "jax", "jaxlib", "optax", "numpy"],
    )
