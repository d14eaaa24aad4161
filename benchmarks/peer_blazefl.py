"""BlazeFL as an arm of `benchmarks.simulator_peers`: its FedAvg server with two of its client trainers.

    python3.12 -m venv peers/blazefl && peers/blazefl/bin/pip install torch==2.13.0 blazefl==2.0.3 tqdm numpy

blazefl      `FedAvgBaseClientTrainer`: site after site in one thread
blazefl_2    `FedAvgThreadPoolClientTrainer`: two threads, which wait for one another at Python's lock

BlazeFL needs Python 3.12, and from version 3 on 3.14, without whose lock its threads are meant to run: `blazefl_2` is
not its best. The server's sampling, packages and aggregation are BlazeFL's. Local training is that of `peer_torch`, put
in place of the trainers' own, which know plain SGD and classes alone; a site's batches are cut where BlazeFL asks its
data set for a loader. Its process pool, which starts processes in each round, is not measured.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peer_torch, peer_work

os.environ["TQDM_DISABLE"] = "1"

import torch  # pyright: ignore[reportMissingImports]
from blazefl.contrib.fedavg import (  # pyright: ignore[reportMissingImports]
    FedAvgBaseClientTrainer,
    FedAvgBaseServerHandler,
    FedAvgThreadPoolClientTrainer,
    FedAvgUplinkPackage,
)
from blazefl.core import deserialize_model, serialize_model  # pyright: ignore[reportMissingImports]


class Rows:
    """The work as BlazeFL's selector of models and its partitioned data set."""

    def __init__(self, work: peer_work.Work):
        self.work, (self.x, self.y) = work, peer_torch.table(work.x, work.y)
        self._sites = [[torch.from_numpy(rows) for rows in peer_work.batches(work, s)] for s in range(len(work.steps))]

    def select_model(self, model_name: str) -> Any:
        """A network with the start's weights."""
        return peer_torch.network(self.work.start)

    def get_dataloader(self, type_: Any, cid: int, batch_size: int, generator: Any) -> list[Any]:
        """int64[b] for each batch: rows of `x` and `y`."""
        return self._sites[cid]

    def fit(self, model: Any, parameters: Any, batches: list[Any], site: int) -> Any:
        """What a site hands over after training."""
        deserialize_model(model, parameters)
        peer_torch.descend(model, self.x, self.y, batches, self.work.optimizer, self.work.lr)
        return FedAvgUplinkPackage(site, serialize_model(model), sum(len(rows) for rows in batches))


class InTurn(FedAvgBaseClientTrainer):
    """Sites one after the other."""

    def train(self, model_parameters: Any, train_loader: Any, cid: int) -> Any:
        """One site."""
        return self.dataset.fit(self.model, model_parameters, train_loader, cid)


class InThreads(FedAvgThreadPoolClientTrainer):
    """Two sites at a time."""

    def train(self, model: Any, model_parameters: Any, train_loader: Any, cid: int, **more: Any) -> Any:
        """One site."""
        return self.dataset.fit(model, model_parameters, train_loader, cid)


def round_of(file: Path, make: Callable[[dict[str, Any]], Any]) -> peer_work.Arm:
    """The round with one of the trainers."""
    rows = Rows(peer_work.read(file))
    count, batch_size = len(rows.work.steps), rows.work.index.shape[1]
    server = FedAvgBaseServerHandler(rows, "perceptron", rows, 10**9, count, 1.0, "cpu", batch_size, 0)
    asked = {"model_selector": rows, "model_name": "perceptron", "dataset": rows, "device": "cpu"}
    trainer = make(
        {**asked, "num_clients": count, "epochs": 1, "batch_size": batch_size, "lr": rows.work.lr, "seed": 0}
    )

    def run() -> list[np.ndarray]:
        peer_torch.put(server.model, rows.work.start)
        trainer.local_process(server.downlink_package(), server.sample_clients())
        for package in trainer.uplink_package():
            server.load(package)
        return peer_torch.taken(server.model)

    return run


if __name__ == "__main__":
    peer_work.main(
        {
            "blazefl": lambda file: round_of(file, lambda asked: InTurn(**asked)),
            "blazefl_2": lambda file: round_of(file, lambda asked: InThreads(**asked, num_parallels=2)),
        },
        ["blazefl", "torch", "numpy"],
    )
