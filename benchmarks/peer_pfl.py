"""Apple's pfl as an arm of `benchmarks.simulator_peers`: FedAvg by its `SimulatedBackend` with its PyTorch model.

    python -m venv peers/pfl && peers/pfl/bin/pip install "torch==2.13.0+cpu" pfl==0.6.0 numpy

pfl    `FederatedAveraging`, `WeightByDatapoints`, one process; the central optimizer is SGD with learning rate 1

A call is the body of pfl's own loop, `FederatedAlgorithm.run`, once: the next contexts, the cohort's results, the new
model. Taken apart because the first round of `run` evaluates at each site, which nothing else here does. Each site is a
`pfl.data.Dataset` of tensors in the order of its batches, made before; pfl cuts batches itself and keeps them, so rows
are not gathered while it is timed. The local optimizer is `torch.optim`'s, fused for Adam, made anew for each site.
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from pfl.aggregate.simulate import SimulatedBackend  # pyright: ignore[reportMissingImports]
from pfl.aggregate.weighting import WeightByDatapoints  # pyright: ignore[reportMissingImports]
from pfl.algorithm.base import NNAlgorithmParams  # pyright: ignore[reportMissingImports]
from pfl.algorithm.federated_averaging import FederatedAveraging  # pyright: ignore[reportMissingImports]
from pfl.data.dataset import Dataset  # pyright: ignore[reportMissingImports]
from pfl.data.federated_dataset import FederatedDataset  # pyright: ignore[reportMissingImports]
from pfl.hyperparam import NNTrainHyperParams  # pyright: ignore[reportMissingImports]
from pfl.model.pytorch import PyTorchModel  # pyright: ignore[reportMissingImports]

from benchmarks import peer_torch, peer_work


class Network(torch.nn.Module):
    """The perceptron with the two methods that pfl asks for."""

    def __init__(self, start: tuple[np.ndarray, ...]):
        super().__init__()
        self.layers = peer_torch.network(start)
        self._loss = peer_torch.loss_of(len(start[-1]))

    def loss(self, x: Any, y: Any) -> Any:
        """The mean over the rows."""
        return self._loss(self.layers(x), y)

    def metrics(self, x: Any, y: Any) -> dict[str, Any]:
        """None: nothing is evaluated."""
        return {}


def round_of(file: Path) -> peer_work.Arm:
    """The round."""
    work = peer_work.read(file)
    x, y = peer_torch.table(work.x, work.y)
    orders = [torch.from_numpy(peer_work.in_order(work, site)) for site in range(len(work.steps))]
    sites = [Dataset((x[rows], y[rows]), user_id=str(site)) for site, rows in enumerate(orders)]
    everyone = itertools.cycle(range(len(sites)))
    data = FederatedDataset(sites.__getitem__, lambda: next(everyone))
    network = Network(work.start)
    model = PyTorchModel(
        network,
        functools.partial(peer_torch.optimizer, work.optimizer),
        torch.optim.SGD(network.parameters(), lr=1.0),
    )
    backend = SimulatedBackend(data, data, [WeightByDatapoints()])
    algorithm = FederatedAveraging()
    asked = NNAlgorithmParams(
        central_num_iterations=10**9, evaluation_frequency=10**9, train_cohort_size=len(sites), val_cohort_size=None
    )
    local = NNTrainHyperParams(local_num_epochs=1, local_learning_rate=work.lr, local_batch_size=work.index.shape[1])

    def run() -> list[np.ndarray]:
        peer_torch.put(network.layers, work.start)
        contexts, held, _ = algorithm.get_next_central_contexts(model, 1, asked, local)
        (context,) = contexts
        statistics, metrics = backend.gather_results(held, algorithm, central_context=context)
        algorithm.process_aggregated_statistics_from_all_contexts(((context, statistics),), metrics, held)
        return peer_torch.taken(network.layers)

    return run


if __name__ == "__main__":
    peer_work.main({"pfl": round_of}, ["pfl", "torch", "numpy"])
